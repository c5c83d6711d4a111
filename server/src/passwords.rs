//! Password hashes: argon2id in the PHC string format.
//!
//! The memory of one hash ([`MEMORY_KIB`]) is low enough that many concurrent logins stay within bounded memory.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

/// Memory of one hash; OWASP's smallest recommended setting for argon2id with three passes (12 MiB).
const MEMORY_KIB: u32 = 12 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;

/// A string that is not a hash in the PHC format.
#[derive(Debug, thiserror::Error)]
#[error("not an argon2 hash")]
pub(crate) struct NotAHash;

/// Checks that [`verify`] supports `hash`.
pub(crate) fn parse(hash: &str) -> Result<(), NotAHash> {
    let parsed = PasswordHash::new(hash).map_err(|_| NotAHash)?;
    Algorithm::new(parsed.algorithm.as_str()).map_err(|_| NotAHash)?;
    if parsed.hash.is_some() && parsed.salt.is_some() { Ok(()) } else { Err(NotAHash) }
}

/// Hashes `password` with a random salt.
pub(crate) fn hash(password: &[u8]) -> anyhow::Result<String> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| anyhow::anyhow!("{error}"))?;
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = hasher.hash_password(password).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(hash.to_string())
}

/// Whether `hash` is a hash of `password`. Takes milliseconds of processor time by design.
pub(crate) fn verify(hash: &str, password: &[u8]) -> bool {
    PasswordHash::new(hash).is_ok_and(|parsed| Argon2::default().verify_password(password, &parsed).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_verifies_only_its_password() {
        let hash = hash(b"secret").unwrap();
        assert!(parse(&hash).is_ok());
        assert!(verify(&hash, b"secret"));
        assert!(!verify(&hash, b"Secret"));
        assert!(parse("secret").is_err());
        assert!(parse("$argon2id$").is_err());
        assert!(!verify("secret", b"secret"));
    }
}
