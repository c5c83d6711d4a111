//! The authenticator with configured users: names and passwords against the hashes of the configuration.
//!
//! Hashing is slow by design, so it runs outside the worker threads, at most [`CONCURRENT_CHECKS_MAX`] at a time (each
//! takes megabytes of memory). A password that was verified is cached as a keyed digest: a fleet that reconnects costs
//! one hash per user, not one per device. The cache is bounded by the number of configured users and is never stored.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use inver_access::Credential;
use inver_broker::{AuthError, Authenticator, Credentials, Identity};
use parking_lot::Mutex;
use ring::hmac;
use tokio::sync::Semaphore;

use crate::passwords;

/// Hashes computed at the same time.
const CONCURRENT_CHECKS_MAX: usize = 2;
/// Checks that are queued or running; beyond it logins are refused, so that the queue is bounded.
const CHECKS_QUEUED_MAX: usize = 1024;

/// Checks passwords of the configured users.
pub(crate) struct Users {
    credentials: BTreeMap<String, Arc<Credential>>,
    /// Checked for unknown names, so that their refusal takes as long as that of a wrong password.
    decoy: Arc<Credential>,
    key: hmac::Key,
    /// Digests of passwords that were verified.
    verified: Mutex<HashMap<String, hmac::Tag>>,
    running: Semaphore,
    queued: Semaphore,
}

impl Users {
    /// The users of the configuration.
    pub(crate) fn new(users: &BTreeMap<String, String>) -> anyhow::Result<Users> {
        let random = ring::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| anyhow::anyhow!("no random numbers from the operating system"))?;
        let parsed = users.iter().map(|(name, hash)| Ok((name.clone(), passwords::parse(hash)?.into())));
        let credentials = parsed.collect::<anyhow::Result<_>>()?;
        Ok(Users {
            credentials,
            decoy: Credential::argon2id(b"decoy")?.into(),
            key,
            verified: Mutex::default(),
            running: Semaphore::new(CONCURRENT_CHECKS_MAX),
            queued: Semaphore::new(CHECKS_QUEUED_MAX),
        })
    }

    fn is_cached(&self, user: &str, password: &[u8]) -> bool {
        let verified = self.verified.lock().get(user).copied();
        verified.is_some_and(|tag| hmac::verify(&self.key, password, tag.as_ref()).is_ok())
    }

    async fn check(&self, credential: Arc<Credential>, password: Vec<u8>) -> bool {
        let Ok(_queued) = self.queued.try_acquire() else { return false };
        let Ok(_running) = self.running.acquire().await else { return false };
        tokio::task::spawn_blocking(move || credential.verify(&password)).await.unwrap_or(false)
    }
}

#[async_trait]
impl Authenticator for Users {
    async fn authenticate(&self, _peer: IpAddr, credentials: &Credentials) -> Result<Identity, AuthError> {
        let Credentials::Password { user, password } = credentials else {
            return Err(AuthError::CredentialsRequired);
        };
        if self.is_cached(user, password) {
            return Ok(Identity::user(user));
        }
        let (known, credential) = match self.credentials.get(user) {
            Some(credential) => (true, credential.clone()),
            None => (false, self.decoy.clone()),
        };
        if !self.check(credential, password.clone()).await || !known {
            return Err(AuthError::Refused);
        }
        self.verified.lock().insert(user.clone(), hmac::sign(&self.key, password));
        Ok(Identity::user(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Credentials {
        Credentials::Password { user: user.into(), password: password.as_bytes().to_vec() }
    }

    #[tokio::test]
    async fn only_the_correct_password_is_accepted() {
        let hash = passwords::hash(b"pw").unwrap();
        let users = Users::new(&BTreeMap::from([("ann".to_string(), hash)])).unwrap();
        let peer = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..2 {
            let accepted = users.authenticate(peer, &password("ann", "pw")).await;
            assert_eq!(accepted, Ok(Identity::user("ann")));
            assert_eq!(users.authenticate(peer, &password("ann", "wp")).await, Err(AuthError::Refused));
            assert_eq!(users.authenticate(peer, &password("bob", "pw")).await, Err(AuthError::Refused));
            assert_eq!(users.authenticate(peer, &password("bob", "decoy")).await, Err(AuthError::Refused));
        }
        let anonymous = users.authenticate(peer, &Credentials::Anonymous).await;
        assert_eq!(anonymous, Err(AuthError::CredentialsRequired));
        assert_eq!(users.verified.lock().len(), 1);
    }
}
