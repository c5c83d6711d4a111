//! Stored credentials: password hashes of many kinds, and SCRAM keys.
//!
//! A credential has one text form, which is what is stored:
//!
//! | kind | text |
//! |---|---|
//! | argon2 | `$argon2id$v=19$m=…,t=…,p=…$salt$hash` (PHC string format) |
//! | bcrypt | `$2b$cost$…` (`$2a$`, `$2y$`) |
//! | one round of a hash over salt and password | `$salted-sha256$before$salt$hash` (`md5`, `sha512`; `behind`) |
//! | PBKDF2-HMAC | `$pbkdf2-sha512$iterations$salt$hash` |
//! | SCRAM keys (RFC 5802, RFC 7677) | `$scram-sha256$iterations$salt$stored-key$server-key` |
//!
//! Salts, hashes and keys are base64 with padding.

use std::fmt;
use std::num::NonZeroU32;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use data_encoding::BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;

use crate::digest::Digest;

/// Memory of a new argon2 hash, KiB: OWASP's smallest recommended setting for argon2id with three passes (12 MiB).
const ARGON2_MEMORY_KIB: u32 = 12 * 1024;
const ARGON2_PASSES: u32 = 3;
const ARGON2_LANES: u32 = 1;
/// Memory that a stored argon2 hash may ask for, KiB.
const ARGON2_MEMORY_KIB_MAX: u32 = 64 * 1024;
const ARGON2_PASSES_MAX: u32 = 16;
const ARGON2_LANES_MAX: u32 = 16;
/// Cost of a stored bcrypt hash; each step doubles the work.
const BCRYPT_COST_MAX: u32 = 15;
/// Iterations that a stored PBKDF2 hash or SCRAM key may ask for.
const ITERATIONS_MAX: u32 = 1_000_000;
/// Bytes of a salt, a hash or a key.
const PART_BYTES_MAX: usize = 128;
/// Bytes of a new salt.
const SALT_BYTES: usize = 16;

/// The order of salt and password under one round of a hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaltPosition {
    /// hash(salt ‖ password)
    Before,
    /// hash(password ‖ salt)
    Behind,
}

/// A text that is not a credential, or one that costs too much to verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The text has none of the known forms.
    #[error("not a password hash of a known kind")]
    Unknown,
    /// The parts of the text are malformed.
    #[error("malformed {0} credential")]
    Malformed(&'static str),
    /// Verifying would take more memory or time than allowed.
    #[error("{what} of {value} exceeds the limit of {max}")]
    TooCostly {
        /// The parameter.
        what: &'static str,
        /// Its value.
        value: u32,
        /// The largest that is accepted.
        max: u32,
    },
    /// The operating system provided no random numbers, or hashing failed.
    #[error("failed to hash a password: {0}")]
    Failed(String),
}

/// What a password is verified against.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A PHC string of argon2.
    Argon2(String),
    /// A bcrypt string.
    Bcrypt(String),
    /// One round of a hash function over salt and password.
    Salted {
        /// The hash function.
        digest: Digest,
        /// Where the salt is.
        position: SaltPosition,
        /// The salt; may be empty.
        salt: Vec<u8>,
        /// The hash.
        hash: Vec<u8>,
    },
    /// PBKDF2-HMAC.
    Pbkdf2 {
        /// The hash function: SHA-256 or SHA-512.
        digest: Digest,
        /// Iterations.
        iterations: NonZeroU32,
        /// The salt.
        salt: Vec<u8>,
        /// The derived key, of any length.
        hash: Vec<u8>,
    },
    /// SCRAM keys.
    Scram(ScramKeys),
}

/// What a server stores of a password for SCRAM.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// The hash function: SHA-256 or SHA-512.
    pub digest: Digest,
    /// Iterations of PBKDF2.
    pub iterations: NonZeroU32,
    /// The salt.
    pub salt: Vec<u8>,
    /// H(HMAC(salted password, "Client Key")).
    pub stored_key: Vec<u8>,
    /// HMAC(salted password, "Server Key").
    pub server_key: Vec<u8>,
}

impl Credential {
    /// An argon2id hash of a new password.
    pub fn argon2id(password: &[u8]) -> Result<Credential, CredentialError> {
        let failed = |error: String| CredentialError::Failed(error);
        let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, None)
            .map_err(|error| failed(error.to_string()))?;
        let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = hasher.hash_password(password).map_err(|error| failed(error.to_string()))?;
        Ok(Credential::Argon2(hash.to_string()))
    }

    /// SCRAM keys of a password, with a random salt. `digest` is SHA-256 or SHA-512.
    pub fn scram(
        digest: Digest,
        password: &[u8],
        iterations: NonZeroU32,
    ) -> Result<Credential, CredentialError> {
        let mut salt = vec![0; SALT_BYTES];
        let random = SystemRandom::new().fill(&mut salt);
        random.map_err(|_| CredentialError::Failed("the system provides no random numbers".into()))?;
        let keys = ScramKeys::derive(digest, password, salt, iterations);
        keys.map(Credential::Scram).ok_or(CredentialError::Malformed("scram"))
    }

    /// Whether `password` is the right one. Costs CPU time by design.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        self.verify_with(password, &mut HashMemory::default())
    }

    /// Like [`verify`](Self::verify), with memory that is used again.
    #[must_use]
    pub fn verify_with(&self, password: &[u8], memory: &mut HashMemory) -> bool {
        match self {
            Credential::Argon2(phc) => verify_argon2(phc, password, memory).unwrap_or(false),
            // Bcrypt ignores bytes beyond 72 and stops at a zero byte: such passwords never match.
            Credential::Bcrypt(text) => {
                password.len() <= 72
                    && !password.contains(&0)
                    && bcrypt::verify(password, text).unwrap_or(false)
            }
            Credential::Salted { digest, position, salt, hash } => {
                let computed = match position {
                    SaltPosition::Before => digest.hash(&[salt, password]),
                    SaltPosition::Behind => digest.hash(&[password, salt]),
                };
                equal(&computed, hash)
            }
            Credential::Pbkdf2 { digest, iterations, salt, hash } => digest
                .pbkdf2(password, salt, *iterations, hash.len())
                .is_some_and(|computed| !hash.is_empty() && equal(&computed, hash)),
            Credential::Scram(keys) => {
                ScramKeys::derive(keys.digest, password, keys.salt.clone(), keys.iterations)
                    .is_some_and(|derived| equal(&derived.stored_key, &keys.stored_key))
            }
        }
    }

    /// The kind of credential, for lists and logs.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Credential::Argon2(_) => "argon2".into(),
            Credential::Bcrypt(_) => "bcrypt".into(),
            Credential::Salted { digest, .. } => format!("salted-{}", digest.name()),
            Credential::Pbkdf2 { digest, .. } => format!("pbkdf2-{}", digest.name()),
            Credential::Scram(keys) => format!("scram-{}", keys.digest.name()),
        }
    }

    /// The stored text form; see the table above.
    #[must_use]
    pub fn to_text(&self) -> String {
        let b64 = |bytes: &[u8]| BASE64.encode(bytes);
        match self {
            Credential::Argon2(text) | Credential::Bcrypt(text) => text.clone(),
            Credential::Salted { digest, position, salt, hash } => {
                let position = match position {
                    SaltPosition::Before => "before",
                    SaltPosition::Behind => "behind",
                };
                format!("$salted-{}${position}${}${}", digest.name(), b64(salt), b64(hash))
            }
            Credential::Pbkdf2 { digest, iterations, salt, hash } => {
                format!("$pbkdf2-{}${iterations}${}${}", digest.name(), b64(salt), b64(hash))
            }
            Credential::Scram(keys) => format!(
                "$scram-{}${}${}${}${}",
                keys.digest.name(),
                keys.iterations,
                b64(&keys.salt),
                b64(&keys.stored_key),
                b64(&keys.server_key)
            ),
        }
    }

    /// Reads the text form, and checks that verifying it costs a bounded amount of memory and time.
    pub fn parse(text: &str) -> Result<Credential, CredentialError> {
        let parts: Vec<&str> = text.strip_prefix('$').ok_or(CredentialError::Unknown)?.split('$').collect();
        match parts.as_slice() {
            [kind, ..] if kind.starts_with("argon2") => parse_argon2(text),
            ["2a" | "2b" | "2y", cost, rest] => parse_bcrypt(text, cost, rest),
            [kind, position, salt, hash] if kind.starts_with("salted-") => {
                let malformed = CredentialError::Malformed("salted");
                let digest = kind.strip_prefix("salted-").and_then(Digest::named).ok_or(malformed.clone())?;
                let position = match *position {
                    "before" => SaltPosition::Before,
                    "behind" => SaltPosition::Behind,
                    _ => return Err(malformed),
                };
                let (salt, hash) = (part(salt, "salted")?, part(hash, "salted")?);
                if hash.len() != digest.output_bytes() {
                    return Err(malformed);
                }
                Ok(Credential::Salted { digest, position, salt, hash })
            }
            [kind, iterations, salt, hash] if kind.starts_with("pbkdf2-") => {
                let digest = keyed_digest(kind, "pbkdf2-").ok_or(CredentialError::Malformed("pbkdf2"))?;
                let hash = part(hash, "pbkdf2")?;
                if hash.is_empty() {
                    return Err(CredentialError::Malformed("pbkdf2"));
                }
                let iterations = parse_iterations(iterations, "pbkdf2")?;
                Ok(Credential::Pbkdf2 { digest, iterations, salt: part(salt, "pbkdf2")?, hash })
            }
            [kind, iterations, salt, stored_key, server_key] if kind.starts_with("scram-") => {
                let digest = keyed_digest(kind, "scram-").ok_or(CredentialError::Malformed("scram"))?;
                let keys = ScramKeys {
                    digest,
                    iterations: parse_iterations(iterations, "scram")?,
                    salt: part(salt, "scram")?,
                    stored_key: part(stored_key, "scram")?,
                    server_key: part(server_key, "scram")?,
                };
                let lengths = [keys.stored_key.len(), keys.server_key.len()];
                if lengths != [digest.output_bytes(); 2] || keys.salt.is_empty() {
                    return Err(CredentialError::Malformed("scram"));
                }
                Ok(Credential::Scram(keys))
            }
            _ => Err(CredentialError::Unknown),
        }
    }
}

/// Whether an argon2 hash is that of `password`; none if the hash cannot be used.
fn verify_argon2(phc: &str, password: &[u8], memory: &mut HashMemory) -> Option<bool> {
    let parsed = PasswordHash::new(phc).ok()?;
    let (salt, expected) = (parsed.salt.as_ref()?, parsed.hash.as_ref()?);
    let params = Params::try_from(&parsed).ok()?;
    let algorithm = Algorithm::try_from(parsed.algorithm.as_str()).ok()?;
    let version = parsed.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
    let mut computed = vec![0; expected.len()];
    let blocks = memory.blocks(params.block_count());
    let hasher = Argon2::new(algorithm, version, params);
    hasher.hash_password_into_with_memory(password, salt, &mut computed, blocks).ok()?;
    Some(equal(&computed, expected.as_bytes()))
}

/// Memory of a thread that verifies passwords, used again for each; megabytes large once an argon2 hash was verified.
#[derive(Default)]
pub struct HashMemory(Vec<Block>);

impl HashMemory {
    fn blocks(&mut self, count: usize) -> &mut [Block] {
        if self.0.len() < count {
            self.0.resize(count, Block::default());
        }
        self.0.get_mut(..count).unwrap_or_default()
    }

    /// Gives the memory back.
    pub fn free(&mut self) {
        self.0 = Vec::new();
    }
}

impl fmt::Debug for HashMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashMemory").finish_non_exhaustive()
    }
}

impl ScramKeys {
    /// Derives the keys of a password (RFC 5802, section 3). None for a hash function without HMAC here.
    #[must_use]
    pub fn derive(
        digest: Digest,
        password: &[u8],
        salt: Vec<u8>,
        iterations: NonZeroU32,
    ) -> Option<ScramKeys> {
        let salted = digest.pbkdf2(password, &salt, iterations, digest.output_bytes())?;
        ScramKeys::of_salted(digest, &salted, salt, iterations)
    }

    /// The keys of a password that a client salted. None if that has not the length of the hash function's output, or the
    /// hash function has no HMAC here.
    #[must_use]
    pub fn of_salted(
        digest: Digest,
        salted: &[u8],
        salt: Vec<u8>,
        iterations: NonZeroU32,
    ) -> Option<ScramKeys> {
        if salted.len() != digest.output_bytes() {
            return None;
        }
        let client_key = digest.hmac(salted, b"Client Key")?;
        let stored_key = digest.hash(&[&client_key]);
        let server_key = digest.hmac(salted, b"Server Key")?;
        Some(ScramKeys { digest, iterations, salt, stored_key, server_key })
    }
}

/// Shows the kind only: the rest is secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.kind())
    }
}

/// Shows the parameters only: the keys are secret.
impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys")
            .field("digest", &self.digest)
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

pub(crate) fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && bool::from(one.ct_eq(other))
}

fn keyed_digest(kind: &str, prefix: &str) -> Option<Digest> {
    kind.strip_prefix(prefix).and_then(Digest::named).filter(|digest| *digest != Digest::Md5)
}

fn part(text: &str, kind: &'static str) -> Result<Vec<u8>, CredentialError> {
    let malformed = CredentialError::Malformed(kind);
    // Four characters of base64 are three bytes.
    if text.len() > PART_BYTES_MAX.div_ceil(3) * 4 {
        return Err(malformed);
    }
    BASE64.decode(text.as_bytes()).map_err(|_| malformed)
}

fn bounded(what: &'static str, value: u32, max: u32) -> Result<u32, CredentialError> {
    if value > max { Err(CredentialError::TooCostly { what, value, max }) } else { Ok(value) }
}

fn parse_iterations(text: &str, kind: &'static str) -> Result<NonZeroU32, CredentialError> {
    let iterations: NonZeroU32 = text.parse().map_err(|_| CredentialError::Malformed(kind))?;
    bounded("iterations", iterations.get(), ITERATIONS_MAX)?;
    Ok(iterations)
}

fn parse_argon2(text: &str) -> Result<Credential, CredentialError> {
    let malformed = CredentialError::Malformed("argon2");
    let parsed = PasswordHash::new(text).map_err(|_| malformed.clone())?;
    Algorithm::new(parsed.algorithm.as_str()).map_err(|_| malformed.clone())?;
    let params = Params::try_from(&parsed).map_err(|_| malformed.clone())?;
    bounded("argon2 memory (KiB)", params.m_cost(), ARGON2_MEMORY_KIB_MAX)?;
    bounded("argon2 passes", params.t_cost(), ARGON2_PASSES_MAX)?;
    bounded("argon2 lanes", params.p_cost(), ARGON2_LANES_MAX)?;
    if parsed.hash.is_none() || parsed.salt.is_none() {
        return Err(malformed);
    }
    Ok(Credential::Argon2(text.into()))
}

fn parse_bcrypt(text: &str, cost: &str, rest: &str) -> Result<Credential, CredentialError> {
    let malformed = CredentialError::Malformed("bcrypt");
    let cost: u32 = cost.parse().map_err(|_| malformed.clone())?;
    bounded("bcrypt cost", cost, BCRYPT_COST_MAX)?;
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
    if cost < 4 || rest.len() != 53 || !rest.bytes().all(is_base64) {
        return Err(malformed);
    }
    Ok(Credential::Bcrypt(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(base64: &str) -> Vec<u8> {
        BASE64.decode(base64.as_bytes()).unwrap()
    }

    /// Verifies the password only, and survives a round trip through its text.
    fn assert_verifies(credential: &Credential, password: &[u8]) {
        assert!(credential.verify(password));
        assert!(!credential.verify(b"wrong"));
        assert!(!credential.verify(b""));
        let read = Credential::parse(&credential.to_text()).unwrap();
        assert!(read == *credential && read.verify(password), "{}", credential.to_text());
    }

    #[test]
    fn hashes_of_other_systems_are_verified() {
        // base64 of a salt of four bytes and SHA-256 over salt and password.
        let stored = bytes("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
        let (salt, hash) = stored.split_at(4);
        let credential = Credential::Salted {
            digest: Digest::Sha256,
            position: SaltPosition::Before,
            salt: salt.to_vec(),
            hash: hash.to_vec(),
        };
        assert_verifies(&credential, b"test12");
        // "abc" without a salt: RFC 1321 (MD5) and FIPS 180-4 (SHA-512).
        let sha512 =
            "3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==";
        for (digest, hash) in [(Digest::Md5, "kAFQmDzST7DWlj99KOF/cg=="), (Digest::Sha512, sha512)] {
            let position = SaltPosition::Behind;
            let credential = Credential::Salted { digest, position, salt: Vec::new(), hash: bytes(hash) };
            assert_verifies(&credential, b"abc");
        }
        // PBKDF2-HMAC-SHA-512, 101 iterations, computed by another implementation.
        let hash = "Hd71hnNoKcARd6Fkl1rUE+opfs3V78ZJB2AgXXC1kaKQiWfi5S5qX7D1mY5b+bIzvyidWMnS8VA+YAsAygq9EA==";
        let text = format!("$pbkdf2-sha512$101$c2FsdHNhbHRzYWx0${hash}");
        assert_verifies(&Credential::parse(&text).unwrap(), b"secret");
    }

    #[test]
    fn new_credentials_verify_their_password() {
        assert_verifies(&Credential::argon2id(b"secret").unwrap(), b"secret");
        let iterations = NonZeroU32::new(4096).unwrap();
        for digest in [Digest::Sha256, Digest::Sha512] {
            let credential = Credential::scram(digest, b"secret", iterations).unwrap();
            assert_verifies(&credential, b"secret");
        }
        assert!(Credential::scram(Digest::Md5, b"secret", iterations).is_err());
        let bcrypt = bcrypt::hash("secret", 4).unwrap();
        let bcrypt = Credential::parse(&bcrypt).unwrap();
        assert_verifies(&bcrypt, b"secret");
        assert!(!bcrypt.verify(b"secret\0more"));
    }

    #[test]
    fn malformed_and_costly_credentials_are_refused() {
        use CredentialError::{Malformed, Unknown};
        for (text, error) in [
            ("", Unknown),
            ("secret", Unknown),
            ("$1$salt$hash", Unknown),
            ("$argon2id$", Malformed("argon2")),
            ("$argon2id$v=19$m=12288,t=3,p=1$c2FsdHNhbHQ", Malformed("argon2")),
            ("$2b$10$short", Malformed("bcrypt")),
            ("$2b$xx$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuuabcdefghij", Malformed("bcrypt")),
            ("$salted-sha256$before$$YWJj", Malformed("salted")),
            ("$salted-sha1$before$$YWJj", Malformed("salted")),
            ("$salted-sha256$beside$$YWJj", Malformed("salted")),
            ("$pbkdf2-md5$1$c2FsdA==$YWJj", Malformed("pbkdf2")),
            ("$pbkdf2-sha256$0$c2FsdA==$YWJj", Malformed("pbkdf2")),
            ("$pbkdf2-sha256$1$c2FsdA==$", Malformed("pbkdf2")),
            ("$scram-sha256$4096$c2FsdA==$YWJj$YWJj", Malformed("scram")),
        ] {
            assert_eq!(Credential::parse(text).unwrap_err(), error, "{text}");
        }
        for text in [
            "$argon2id$v=19$m=4294967295,t=3,p=1$c2FsdHNhbHQ$GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo",
            "$pbkdf2-sha256$2000000$c2FsdA==$YWJj",
            "$2b$31$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuuabcdefghijk",
        ] {
            assert!(matches!(Credential::parse(text), Err(CredentialError::TooCostly { .. })), "{text}");
        }
        let long = format!("$pbkdf2-sha256$1$c2FsdA==${}", BASE64.encode(&[0; 1000]));
        assert_eq!(Credential::parse(&long).unwrap_err(), Malformed("pbkdf2"));
    }

    #[test]
    fn debug_output_has_no_secret() {
        let credential =
            Credential::scram(Digest::Sha256, b"secret", NonZeroU32::new(4096).unwrap()).unwrap();
        let text = format!("{credential:?}");
        assert_eq!(text, "Credential(scram-sha256)");
    }
}
