//! The door with configured users: name and password against the argon2 hashes of the configuration.
//!
//! Hashing is slow by design, so it runs off the connections' threads, at most [`CHECKS_AT_ONCE_MAX`] at a
//! time (each takes megabytes of memory), and a password that was right is remembered as a keyed digest: a
//! fleet that reconnects costs one hash a user, not one a device. What is remembered is bounded by the number
//! of configured users and lives in memory only.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use inver_broker::{AuthError, Authenticator, Credentials, Identity};
use parking_lot::Mutex;
use ring::hmac;
use tokio::sync::Semaphore;

use crate::passwords;

/// Hashes computed at the same time.
const CHECKS_AT_ONCE_MAX: usize = 2;
/// Checks that may wait for their turn; beyond it logins are refused rather than queued without end.
const CHECKS_WAITING_MAX: usize = 1024;

/// Checks passwords.
pub(crate) struct Users {
    hashes: BTreeMap<String, Arc<str>>,
    /// Hashed for names that are not there, so that a refusal takes as long for them.
    nobody: Arc<str>,
    key: hmac::Key,
    right: Mutex<HashMap<String, hmac::Tag>>,
    turns: Semaphore,
    waiting: Semaphore,
}

impl Users {
    /// The users of the configuration.
    pub(crate) fn new(users: &BTreeMap<String, String>) -> anyhow::Result<Users> {
        let random = ring::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        Ok(Users {
            hashes: users.iter().map(|(name, hash)| (name.clone(), hash.as_str().into())).collect(),
            nobody: passwords::hash(b"nobody")?.into(),
            key,
            right: Mutex::default(),
            turns: Semaphore::new(CHECKS_AT_ONCE_MAX),
            waiting: Semaphore::new(CHECKS_WAITING_MAX),
        })
    }

    fn remembered(&self, user: &str, password: &[u8]) -> bool {
        let right = self.right.lock().get(user).copied();
        right.is_some_and(|tag| hmac::verify(&self.key, password, tag.as_ref()).is_ok())
    }

    async fn check(&self, hash: Arc<str>, password: Vec<u8>) -> bool {
        let Ok(_place) = self.waiting.try_acquire() else { return false };
        let Ok(_turn) = self.turns.acquire().await else { return false };
        tokio::task::spawn_blocking(move || passwords::verify(&hash, &password)).await.unwrap_or(false)
    }
}

#[async_trait]
impl Authenticator for Users {
    async fn authenticate(&self, _peer: IpAddr, credentials: &Credentials) -> Result<Identity, AuthError> {
        let Credentials::Password { user, password } = credentials else {
            return Err(AuthError::CredentialsRequired);
        };
        if self.remembered(user, password) {
            return Ok(Identity::user(user));
        }
        let (known, hash) = match self.hashes.get(user) {
            Some(hash) => (true, hash.clone()),
            None => (false, self.nobody.clone()),
        };
        if !self.check(hash, password.clone()).await || !known {
            return Err(AuthError::Refused);
        }
        self.right.lock().insert(user.clone(), hmac::sign(&self.key, password));
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
    async fn only_the_right_password_gets_in() {
        let hash = passwords::hash(b"pw").unwrap();
        let users = Users::new(&BTreeMap::from([("ann".to_string(), hash)])).unwrap();
        let peer = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..2 {
            let let_in = users.authenticate(peer, &password("ann", "pw")).await;
            assert_eq!(let_in, Ok(Identity::user("ann")));
            assert_eq!(users.authenticate(peer, &password("ann", "wp")).await, Err(AuthError::Refused));
            assert_eq!(users.authenticate(peer, &password("bob", "pw")).await, Err(AuthError::Refused));
            assert_eq!(users.authenticate(peer, &password("bob", "nobody")).await, Err(AuthError::Refused));
        }
        let nameless = users.authenticate(peer, &Credentials::Anonymous).await;
        assert_eq!(nameless, Err(AuthError::CredentialsRequired));
        assert_eq!(users.right.lock().len(), 1);
    }
}
