//! The authenticator: names and passwords against the credentials of the broker's users.
//!
//! Hashing is slow by design, so it runs outside the worker threads, at most [`CONCURRENT_CHECKS_MAX`] at a time (each
//! takes megabytes of memory). A password that was verified is cached as a keyed digest: a fleet that reconnects costs
//! one hash per user, not one per device. The cache is bounded, holds for one record of a user, and is never stored.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use inver_access::scram::{ScramKeys, decoy_keys};
use inver_access::{Credential, Digest, User};
use inver_broker::{AccessControl, AuthError, Authenticator, Credentials, Identity, LoopbackOnly};
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;

/// Hashes computed at the same time.
const CONCURRENT_CHECKS_MAX: usize = 2;
/// Checks that are queued or running; beyond it logins are refused, so that the queue is bounded.
const CHECKS_QUEUED_MAX: usize = 1024;
/// Users whose verified password is remembered.
const VERIFIED_MAX: usize = 100_000;

/// Checks passwords of the broker's users; without users it accepts loopback clients only.
pub(crate) struct Users {
    /// Checked for unknown names, so that their refusal takes as long as that of a wrong password.
    decoy: Arc<User>,
    key: hmac::Key,
    /// Digests of passwords that were verified, for one version of the users.
    verified: Mutex<Verified>,
    running: Semaphore,
    queued: Semaphore,
}

#[derive(Default)]
struct Verified {
    digests: HashMap<String, (hmac::Tag, Arc<User>)>,
}

impl Users {
    /// An authenticator over the users of the broker.
    pub(crate) fn new() -> anyhow::Result<Users> {
        let random = SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| anyhow::anyhow!("no random numbers from the operating system"))?;
        let mut decoy = User::new("");
        decoy.credentials = vec![Credential::argon2id(b"decoy")?];
        Ok(Users {
            decoy: Arc::new(decoy),
            key,
            verified: Mutex::default(),
            running: Semaphore::new(CONCURRENT_CHECKS_MAX),
            queued: Semaphore::new(CHECKS_QUEUED_MAX),
        })
    }

    /// Whether this password was verified against this very record of the user.
    fn is_cached(&self, user: &Arc<User>, password: &[u8]) -> bool {
        let known = self.verified.lock().digests.get(&user.name).cloned();
        known.is_some_and(|(tag, of)| {
            Arc::ptr_eq(&of, user) && hmac::verify(&self.key, password, tag.as_ref()).is_ok()
        })
    }

    fn remember(&self, user: Arc<User>, password: &[u8], access: &AccessControl) {
        let tag = hmac::sign(&self.key, password);
        let mut verified = self.verified.lock();
        verified.digests.insert(user.name.clone(), (tag, user));
        if verified.digests.len() > VERIFIED_MAX {
            verified
                .digests
                .retain(|name, (_, of)| access.user(name).is_some_and(|(user, _)| Arc::ptr_eq(&user, of)));
            if verified.digests.len() > VERIFIED_MAX {
                verified.digests.clear();
            }
        }
    }

    async fn check(&self, user: Arc<User>, password: Vec<u8>) -> Result<bool, AuthError> {
        let Ok(_queued) = self.queued.try_acquire() else { return Err(AuthError::Busy) };
        let Ok(_running) = self.running.acquire().await else { return Err(AuthError::Busy) };
        tokio::task::spawn_blocking(move || user.verify(&password)).await.map_err(|_| AuthError::Busy)
    }
}

/// The most iterations that SCRAM keys of any user ask for, if any user has such.
fn scram_iterations(access: &AccessControl, digest: Digest) -> Option<NonZeroU32> {
    let users = access.users();
    let keys = users.iter().flat_map(|(user, _)| &user.credentials).filter_map(|each| keys_of(each, digest));
    keys.map(|keys| keys.iterations).max()
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
    async fn authenticate(
        &self,
        access: &AccessControl,
        peer: IpAddr,
        credentials: &Credentials,
    ) -> Result<Identity, AuthError> {
        if !access.has_users() {
            return LoopbackOnly.authenticate(access, peer, credentials).await;
        }
        let (name, password) = match credentials {
            Credentials::Anonymous => return Err(AuthError::CredentialsRequired),
            Credentials::Certificate { user } => {
                let known = access.user(user).is_some_and(|(user, _)| !user.disabled);
                return if known { Ok(Identity::user(user)) } else { Err(AuthError::Refused) };
            }
            Credentials::Password { user, password } => (user, password),
        };
        let known = access.user(name).map(|(user, _)| user).filter(|user| !user.disabled);
        if let Some(user) = &known
            && self.is_cached(user, password)
        {
            return Ok(Identity::user(name));
        }
        let checked = known.clone().unwrap_or_else(|| self.decoy.clone());
        let matches = self.check(checked, password.clone()).await?;
        match known {
            Some(user) if matches => {
                self.remember(user, password, access);
                Ok(Identity::user(name))
            }
            _ => Err(AuthError::Refused),
        }
    }

    fn supports_scram(&self, access: &AccessControl, digest: Digest) -> bool {
        scram_iterations(access, digest).is_some()
    }

    fn scram_keys(&self, access: &AccessControl, user: &str, digest: Digest) -> Option<ScramKeys> {
        let iterations = scram_iterations(access, digest)?;
        let known = access.user(user).filter(|(user, _)| !user.disabled);
        let known = known
            .and_then(|(user, _)| user.credentials.iter().find_map(|each| keys_of(each, digest)).cloned());
        known.or_else(|| Some(ScramKeys { iterations, ..decoy_keys(digest, user, decoy_secret()?) }))
    }
}

#[cfg(test)]
mod tests {
    use inver_broker::{Broker, BrokerConfig};
    use inver_storage::{Log, LogOptions};

    use super::*;
    use crate::passwords;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn password(user: &str, password: &str) -> Credentials {
        Credentials::Password { user: user.into(), password: password.as_bytes().to_vec() }
    }

    struct Fixture {
        users: Users,
        broker: Broker,
        _folder: tempfile::TempDir,
    }

    impl Fixture {
        fn new(users: &[(&str, &[String])]) -> Fixture {
            let folder = tempfile::tempdir().unwrap();
            let log = Log::open(folder.path(), LogOptions::default()).unwrap();
            let broker = Broker::open(log, BrokerConfig::default()).unwrap();
            let fixture = Fixture { users: Users::new().unwrap(), broker, _folder: folder };
            users.iter().for_each(|(name, hashes)| fixture.put(name, hashes));
            fixture
        }

        fn put(&self, name: &str, hashes: &[String]) {
            let credentials = hashes.iter().map(|hash| passwords::parse(hash).unwrap()).collect();
            self.broker.access().put_user(User { credentials, ..User::new(name) }).unwrap();
        }

        async fn login(&self, user: &str, with: &str) -> Result<Identity, AuthError> {
            self.users.authenticate(self.broker.access(), PEER, &password(user, with)).await
        }
    }

    #[tokio::test]
    async fn only_the_correct_password_is_accepted() {
        let hash = passwords::hash(b"pw").unwrap();
        let fixture = Fixture::new(&[("ann", &[hash])]);
        for _ in 0..2 {
            assert_eq!(fixture.login("ann", "pw").await, Ok(Identity::user("ann")));
            assert_eq!(fixture.login("ann", "wp").await, Err(AuthError::Refused));
            assert_eq!(fixture.login("bob", "pw").await, Err(AuthError::Refused));
            assert_eq!(fixture.login("bob", "decoy").await, Err(AuthError::Refused));
        }
        let access = fixture.broker.access();
        let anonymous = fixture.users.authenticate(access, PEER, &Credentials::Anonymous).await;
        assert_eq!(anonymous, Err(AuthError::CredentialsRequired));
        assert_eq!(fixture.users.verified.lock().digests.len(), 1);
        assert!(!fixture.users.supports_scram(access, Digest::Sha256));
        assert!(fixture.users.scram_keys(access, "ann", Digest::Sha256).is_none());
    }

    #[tokio::test]
    async fn a_changed_password_or_a_disabled_user_is_noticed_at_once() {
        let fixture = Fixture::new(&[("ann", &[passwords::hash(b"pw").unwrap()])]);
        assert_eq!(fixture.login("ann", "pw").await, Ok(Identity::user("ann")));
        fixture.put("ann", &[passwords::hash(b"new").unwrap()]);
        assert_eq!(fixture.login("ann", "pw").await, Err(AuthError::Refused));
        assert_eq!(fixture.login("ann", "new").await, Ok(Identity::user("ann")));
        fixture.broker.access().update_user("ann", |user| user.disabled = true).unwrap();
        assert_eq!(fixture.login("ann", "new").await, Err(AuthError::Refused));
    }

    #[tokio::test]
    async fn any_of_a_user_s_hashes_accepts_its_password() {
        let hashes = passwords::hashes(b"pw", true).unwrap();
        let fixture = Fixture::new(&[("ann", &hashes)]);
        hashes
            .iter()
            .enumerate()
            .for_each(|(n, hash)| fixture.put(&format!("u{n}"), std::slice::from_ref(hash)));
        for name in ["ann", "u0", "u1", "u2"] {
            assert_eq!(fixture.login(name, "wp").await, Err(AuthError::Refused));
            assert_eq!(fixture.login(name, "pw").await, Ok(Identity::user(name)));
        }
        assert_eq!(fixture.login("bob", "decoy").await, Err(AuthError::Refused));
    }

    #[tokio::test]
    async fn without_users_only_loopback_is_let_in() {
        let fixture = Fixture::new(&[]);
        let access = fixture.broker.access();
        let from = async |peer: &str| {
            fixture.users.authenticate(access, peer.parse().unwrap(), &Credentials::Anonymous).await
        };
        assert_eq!(from("127.0.0.1").await, Ok(Identity::anonymous()));
        assert_eq!(from("192.0.2.1").await, Err(AuthError::LoopbackOnly));
    }

    #[test]
    fn users_without_scram_keys_look_like_users_with_them() {
        let keyed = passwords::hashes(b"pw", true).unwrap();
        let plain = passwords::hashes(b"pw", false).unwrap();
        let fixture = Fixture::new(&[("ann", &keyed), ("bob", &plain)]);
        let access = fixture.broker.access();
        for digest in passwords::SCRAM_DIGESTS {
            assert!(fixture.users.supports_scram(access, digest));
            let real = fixture.users.scram_keys(access, "ann", digest).unwrap();
            assert!(Credential::Scram(real.clone()).verify(b"pw"));
            for name in ["bob", "nobody"] {
                let decoy = fixture.users.scram_keys(access, name, digest).unwrap();
                let shape =
                    |keys: &ScramKeys| (keys.digest, keys.iterations, keys.salt.len(), keys.stored_key.len());
                assert_eq!(shape(&decoy), shape(&real));
                assert!(!Credential::Scram(decoy.clone()).verify(b"pw"));
                let again = Users::new().unwrap().scram_keys(access, name, digest).unwrap();
                assert!(decoy == again, "as real keys, it stays the same");
            }
        }
        assert!(!fixture.users.supports_scram(access, Digest::Md5));
        assert!(fixture.users.scram_keys(access, "ann", Digest::Md5).is_none());
    }
}
