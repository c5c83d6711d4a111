//! The authenticator with configured users: names and passwords against the hashes of the configuration.
//!
//! Hashing is slow by design, so it runs outside the worker threads, at most [`CONCURRENT_CHECKS_MAX`] at a time (each
//! takes megabytes of memory). A password that was verified is cached as a keyed digest: a fleet that reconnects costs
//! one hash per user, not one per device. The cache is bounded by the number of configured users and is never stored.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use inver_access::scram::{ScramKeys, decoy_keys};
use inver_access::{Credential, Digest};
use inver_broker::{AuthError, Authenticator, Credentials, Identity};
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;

use crate::passwords;

/// Hashes computed at the same time.
const CONCURRENT_CHECKS_MAX: usize = 2;
/// Checks that are queued or running; beyond it logins are refused, so that the queue is bounded.
const CHECKS_QUEUED_MAX: usize = 1024;

/// Checks passwords of the configured users.
pub(crate) struct Users {
    credentials: BTreeMap<String, Arc<[Credential]>>,
    /// Checked for unknown names, so that their refusal takes as long as that of a wrong password.
    decoy: Arc<[Credential]>,
    /// Hash functions for which a user has SCRAM keys, with the most iterations that such keys ask for.
    scram: Vec<(Digest, NonZeroU32)>,
    key: hmac::Key,
    /// Digests of passwords that were verified.
    verified: Mutex<HashMap<String, hmac::Tag>>,
    running: Semaphore,
    queued: Semaphore,
}

impl Users {
    /// The users of the configuration.
    pub(crate) fn new(users: &BTreeMap<String, Vec<String>>) -> anyhow::Result<Users> {
        let random = SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| anyhow::anyhow!("no random numbers from the operating system"))?;
        let parsed = users.iter().map(|(name, hashes)| {
            let parsed: Result<Arc<[_]>, _> = hashes.iter().map(|hash| passwords::parse(hash)).collect();
            Ok((name.clone(), parsed?))
        });
        let credentials: BTreeMap<String, Arc<[Credential]>> = parsed.collect::<anyhow::Result<_>>()?;
        let all = || credentials.values().flat_map(|each| each.iter());
        let scram = passwords::SCRAM_DIGESTS.into_iter().filter_map(|digest| {
            let keys = all().filter_map(|credential| keys_of(credential, digest));
            Some((digest, keys.map(|keys| keys.iterations).max()?))
        });
        let scram: Vec<(Digest, NonZeroU32)> = scram.collect();
        let mut decoy = vec![Credential::argon2id(b"decoy")?];
        for (digest, iterations) in &scram {
            decoy.push(Credential::scram(*digest, b"decoy", *iterations)?);
        }
        Ok(Users {
            credentials,
            decoy: decoy.into(),
            scram,
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

    async fn check(&self, credentials: Arc<[Credential]>, password: Vec<u8>) -> bool {
        let Ok(_queued) = self.queued.try_acquire() else { return false };
        let Ok(_running) = self.running.acquire().await else { return false };
        tokio::task::spawn_blocking(move || credentials.iter().any(|each| each.verify(&password)))
            .await
            .unwrap_or(false)
    }
}

fn keys_of(credential: &Credential, wanted: Digest) -> Option<&ScramKeys> {
    match credential {
        Credential::Scram(keys) if keys.digest == wanted => Some(keys),
        _ => None,
    }
}

/// A random secret of this process. Decoy keys derived from it stay the same while the process runs, as real keys do.
fn decoy_secret() -> Option<&'static [u8; 32]> {
    static SECRET: OnceLock<Option<[u8; 32]>> = OnceLock::new();
    SECRET
        .get_or_init(|| {
            let mut secret = [0; 32];
            SystemRandom::new().fill(&mut secret).ok().map(|()| secret)
        })
        .as_ref()
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
        let (known, credentials) = match self.credentials.get(user) {
            Some(credentials) => (true, credentials.clone()),
            None => (false, self.decoy.clone()),
        };
        if !self.check(credentials, password.clone()).await || !known {
            return Err(AuthError::Refused);
        }
        self.verified.lock().insert(user.clone(), hmac::sign(&self.key, password));
        Ok(Identity::user(user))
    }

    fn supports_scram(&self, digest: Digest) -> bool {
        self.scram.iter().any(|(supported, _)| *supported == digest)
    }

    fn scram_keys(&self, user: &str, digest: Digest) -> Option<ScramKeys> {
        let (_, iterations) = self.scram.iter().find(|(supported, _)| *supported == digest)?;
        let known =
            self.credentials.get(user).and_then(|each| each.iter().find_map(|each| keys_of(each, digest)));
        if let Some(keys) = known {
            return Some(keys.clone());
        }
        Some(ScramKeys { iterations: *iterations, ..decoy_keys(digest, user, decoy_secret()?) })
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
        let users = Users::new(&BTreeMap::from([("ann".to_string(), vec![hash])])).unwrap();
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
        assert!(!users.supports_scram(Digest::Sha256) && users.scram_keys("ann", Digest::Sha256).is_none());
    }

    #[tokio::test]
    async fn any_of_a_user_s_hashes_accepts_its_password() {
        let hashes = passwords::hashes(b"pw", true).unwrap();
        let configured = hashes.iter().enumerate().map(|(n, hash)| (format!("u{n}"), vec![hash.clone()]));
        let mut configured: BTreeMap<String, Vec<String>> = configured.collect();
        configured.insert("ann".into(), hashes);
        let users = Users::new(&configured).unwrap();
        let peer = IpAddr::from([192, 0, 2, 1]);
        for name in ["ann", "u0", "u1", "u2"] {
            assert_eq!(users.authenticate(peer, &password(name, "wp")).await, Err(AuthError::Refused));
            assert_eq!(users.authenticate(peer, &password(name, "pw")).await, Ok(Identity::user(name)));
        }
        assert_eq!(users.authenticate(peer, &password("bob", "decoy")).await, Err(AuthError::Refused));
    }

    #[test]
    fn users_without_scram_keys_look_like_users_with_them() {
        let keyed = passwords::hashes(b"pw", true).unwrap();
        let plain = passwords::hashes(b"pw", false).unwrap();
        let configured = BTreeMap::from([("ann".to_string(), keyed), ("bob".to_string(), plain)]);
        let users = Users::new(&configured).unwrap();
        for digest in passwords::SCRAM_DIGESTS {
            assert!(users.supports_scram(digest));
            let real = users.scram_keys("ann", digest).unwrap();
            assert!(Credential::Scram(real.clone()).verify(b"pw"));
            for name in ["bob", "nobody"] {
                let decoy = users.scram_keys(name, digest).unwrap();
                let shape =
                    |keys: &ScramKeys| (keys.digest, keys.iterations, keys.salt.len(), keys.stored_key.len());
                assert_eq!(shape(&decoy), shape(&real));
                assert!(!Credential::Scram(decoy.clone()).verify(b"pw"));
                let again = Users::new(&configured).unwrap().scram_keys(name, digest).unwrap();
                assert!(decoy == again, "as real keys, it stays the same");
            }
        }
        assert!(!users.supports_scram(Digest::Md5) && users.scram_keys("ann", Digest::Md5).is_none());
    }
}
