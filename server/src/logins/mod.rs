//! Logins: names and passwords against the credentials of the broker's users.
//!
//! A password that was verified is remembered as a keyed digest: a fleet that reconnects costs one hash per user, not one
//! per device, and does not wait behind others. What is remembered is bounded, holds for one record of a user, and is never
//! stored. Passwords are verified by [`checks`], in turns by address; [`failures`] slows down and refuses guessing.
//!
//! Without users, loopback clients only are let in.

mod checks;
mod failures;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use inver_access::scram::{ScramKeys, Shape, decoy_keys};
use inver_access::{Credential, Digest, User};
use inver_broker::{
    AccessControl, AuthError, Authenticator, Clock, Credentials, Identity, LoopbackOnly, Source, network_of,
};
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tracing::{info, warn};

use crate::jwt::Tokens;
use crate::passwords;

use checks::{Check, Checks, Class, QueueFull};
pub(crate) use failures::FailureLimits;
use failures::{Failures, Verdict};

/// Bytes of a name and of a password that are checked. A login with longer ones fails: both wait in the queue.
const NAME_BYTES_MAX: usize = 1024;
const PASSWORD_BYTES_MAX: usize = 4096;

/// Users whose verified password is remembered.
const VERIFIED_MAX: usize = 100_000;

/// What failures of tokens are counted under, as no user has that name.
const TOKEN: &str = "";

/// Settings of logins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoginSettings {
    /// Threads that verify passwords.
    pub(crate) threads: usize,
    /// Logins that wait for a thread; beyond it the client is told to try again.
    pub(crate) queued_max: usize,
    /// What failed logins lead to.
    pub(crate) failures: FailureLimits,
    /// Whether the first right login of a stored user adds an argon2id hash and SCRAM keys to what the user has.
    pub(crate) add_credentials: bool,
}

/// Checks passwords of the broker's users.
pub(crate) struct Logins {
    /// Checked for unknown names, so that their refusal takes as long as that of a wrong password.
    decoy: Arc<User>,
    key: hmac::Key,
    /// Digests of passwords that were verified, with the record of the user that they were verified against.
    verified: Mutex<HashMap<String, (hmac::Tag, Arc<User>)>>,
    checks: Checks,
    failures: Failures,
    clock: Clock,
    add_credentials: bool,
    tokens: Tokens,
    /// The shapes that SCRAM keys of users have, for one version of the users.
    shapes: Mutex<(u64, HashMap<Digest, Shapes>)>,
}

impl Logins {
    /// An authenticator over the users of the broker.
    pub(crate) fn new(settings: LoginSettings, clock: Clock, tokens: Tokens) -> anyhow::Result<Logins> {
        let random = SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| anyhow::anyhow!("no random numbers from the operating system"))?;
        let mut decoy = User::new("");
        let texts = passwords::hashes(b"decoy", true)?;
        decoy.credentials = texts.iter().map(|text| passwords::parse(text)).collect::<Result<_, _>>()?;
        Ok(Logins {
            decoy: Arc::new(decoy),
            key,
            verified: Mutex::default(),
            checks: Checks::start(settings.threads, settings.queued_max)?,
            failures: Failures::new(settings.failures),
            clock,
            add_credentials: settings.add_credentials,
            tokens,
            shapes: Mutex::default(),
        })
    }

    /// Whether this password was verified against this very record of the user.
    fn is_remembered(&self, user: &Arc<User>, password: &[u8]) -> bool {
        let known = self.verified.lock().get(&user.name).cloned();
        known.is_some_and(|(tag, of)| {
            Arc::ptr_eq(&of, user) && hmac::verify(&self.key, password, tag.as_ref()).is_ok()
        })
    }

    fn remember(&self, user: Arc<User>, password: &[u8], access: &AccessControl) {
        let tag = hmac::sign(&self.key, password);
        let mut verified = self.verified.lock();
        verified.insert(user.name.clone(), (tag, user));
        if verified.len() > VERIFIED_MAX {
            verified
                .retain(|name, (_, of)| access.user(name).is_some_and(|(user, _)| Arc::ptr_eq(&user, of)));
            if verified.len() > VERIFIED_MAX {
                verified.clear();
            }
        }
    }

    async fn password(
        &self,
        access: &AccessControl,
        peer: IpAddr,
        name: &str,
        password: &[u8],
    ) -> Result<Identity, AuthError> {
        let known = access.user(name).filter(|(user, _)| !user.disabled);
        if let Some((user, _)) = &known
            && self.is_remembered(user, password)
        {
            return Ok(Identity::user(name));
        }
        let class = match self.failures.verdict(peer, name, self.clock.now()) {
            Verdict::Usual => Class::Usual,
            Verdict::Suspected => Class::Suspected,
            Verdict::Refused => return Err(AuthError::TooManyFailures),
        };
        if name.len() > NAME_BYTES_MAX || password.len() > PASSWORD_BYTES_MAX {
            self.failures.add(peer, name, self.clock.now());
            return Err(AuthError::Refused);
        }
        let wants_own_credentials =
            self.add_credentials && known.as_ref().is_some_and(|(_, source)| *source == Source::Stored);
        let user = known.as_ref().map_or(&self.decoy, |(user, _)| user).clone();
        let decoy = self.decoy.clone();
        let check = Check { user, decoy, password: password.to_vec(), wants_own_credentials };
        let checked = self.checks.check(network_of(peer), class, check).await;
        let checked = checked.map_err(|QueueFull| AuthError::Busy)?;
        let Some((user, _)) = known.filter(|_| checked.matches) else {
            self.failures.add(peer, name, self.clock.now());
            return Err(AuthError::Refused);
        };
        let user = self.add_credentials(access, user, checked.own_credentials);
        self.remember(user, password, access);
        Ok(Identity::user(name))
    }

    /// Stores further credentials of a user beside those that it has. Returns its record.
    fn add_credentials(&self, access: &AccessControl, user: Arc<User>, own: Vec<Credential>) -> Arc<User> {
        if own.is_empty() {
            return user;
        }
        let known = user.credentials.len();
        let updated = access.update_user(&user.name, |now| {
            // Not if the user was changed meanwhile: the password may be another.
            if now.credentials == user.credentials {
                now.credentials.extend(own);
            }
        });
        match updated {
            Ok(_) => info!(user = user.name, known, "argon2id hash and SCRAM keys added after a login"),
            Err(error) => warn!(user = user.name, %error, "failed to store credentials after a login"),
        }
        access.user(&user.name).map_or(user, |(user, _)| user)
    }

    /// The shape of the decoy keys of a name: that of some user's keys, as often as users have it, so that it does not tell
    /// whether there is such a user. None where no user has keys.
    fn decoy_shape(&self, access: &AccessControl, digest: Digest, name: &str) -> Option<Shape> {
        let mut cached = self.shapes.lock();
        let version = access.version();
        if cached.0 != version {
            let mut shapes: HashMap<Digest, Shapes> = HashMap::new();
            for (user, _) in access.users() {
                for keys in user.credentials.iter().filter_map(scram_keys) {
                    *shapes.entry(keys.digest).or_default().entry(Shape::of(keys)).or_default() += 1;
                }
            }
            *cached = (version, shapes);
        }
        let shapes = cached.1.get(&digest)?;
        let all: u64 = shapes.values().sum();
        let tag = hmac::sign(&self.key, name.as_bytes());
        let chosen = tag.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) % all.max(1);
        let mut before = 0;
        shapes.iter().find_map(|(shape, count)| {
            before += count;
            (chosen < before).then_some(*shape)
        })
    }
}

/// How many keys of users have a shape.
type Shapes = BTreeMap<Shape, u64>;

fn scram_keys(credential: &Credential) -> Option<&ScramKeys> {
    match credential {
        Credential::Scram(keys) => Some(keys),
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
impl Authenticator for Logins {
    async fn authenticate(
        &self,
        access: &AccessControl,
        peer: IpAddr,
        credentials: &Credentials,
    ) -> Result<Identity, AuthError> {
        if !access.has_users() {
            return LoopbackOnly.authenticate(access, peer, credentials).await;
        }
        match credentials {
            Credentials::Anonymous => Err(AuthError::CredentialsRequired),
            Credentials::Certificate { user } => {
                let known = access.user(user).is_some_and(|(user, _)| !user.disabled);
                if known { Ok(Identity::user(user)) } else { Err(AuthError::Certificate) }
            }
            Credentials::Token(token) => self.check_token(access, peer, token),
            // The token says who the client is, whatever user it names.
            Credentials::Password { password, .. } if self.tokens.is_token(password) => {
                self.check_token(access, peer, std::str::from_utf8(password).unwrap_or_default())
            }
            Credentials::Password { user, password } => self.password(access, peer, user, password).await,
        }
    }

    fn supports_tokens(&self) -> bool {
        self.tokens.has_issuers()
    }

    /// Forged tokens count as failures; one that merely expired is not a guess.
    fn check_token(&self, access: &AccessControl, peer: IpAddr, token: &str) -> Result<Identity, AuthError> {
        if !self.admits_guess(peer, TOKEN) {
            return Err(AuthError::TooManyFailures);
        }
        let identity = self.tokens.check(token).inspect_err(|error| {
            if *error == AuthError::Refused {
                self.guessed_wrong(peer, TOKEN);
            }
        })?;
        let is_disabled = |name| access.user(name).is_some_and(|(user, _)| user.disabled);
        if identity.name().is_some_and(is_disabled) {
            return Err(AuthError::Token("its user is disabled"));
        }
        Ok(identity)
    }

    fn admits_guess(&self, peer: IpAddr, user: &str) -> bool {
        self.failures.verdict(peer, user, self.clock.now()) != Verdict::Refused
    }

    fn guessed_wrong(&self, peer: IpAddr, user: &str) {
        self.failures.add(peer, user, self.clock.now());
    }

    fn supports_scram(&self, access: &AccessControl, digest: Digest) -> bool {
        self.decoy_shape(access, digest, "").is_some()
    }

    fn scram_keys(&self, access: &AccessControl, user: &str, digest: Digest) -> Option<ScramKeys> {
        let shape = self.decoy_shape(access, digest, user)?;
        let known = access.user(user).filter(|(user, _)| !user.disabled);
        let known = known.and_then(|(user, _)| {
            user.credentials.iter().filter_map(scram_keys).find(|keys| keys.digest == digest).cloned()
        });
        known.or_else(|| Some(decoy_keys(digest, user, decoy_secret()?, shape)))
    }
}

impl Default for LoginSettings {
    fn default() -> Self {
        LoginSettings {
            threads: 2,
            queued_max: 10_000,
            failures: FailureLimits { per_user_and_address_max: 30, before_last_turn: 60 },
            add_credentials: true,
        }
    }
}

#[cfg(test)]
mod tests;
