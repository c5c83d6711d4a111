//! Texts of password hashes in the configuration: Inver's own, and those of other brokers as their tools write them.
//!
//! | text | written by |
//! |---|---|
//! | a stored credential of `inver-access` (`$argon2id$…`, `$2b$…`, `$scram-sha256$…`, …) | `inver user add` |
//! | `$6$salt$hash`: SHA-512 over password and salt | `mosquitto_passwd` |
//! | `$7$iterations$salt$hash`: PBKDF2-HMAC-SHA-512 | `mosquitto_passwd` |
//! | `rabbit_password_hashing_sha256:base64` (`sha512`, `md5`): a salt of four bytes, then the hash over salt and password | RabbitMQ's definitions |

use std::num::NonZeroU32;

use data_encoding::BASE64;
use inver_access::{Credential, CredentialError, Digest, SaltPosition};

/// Hash functions of SCRAM.
pub(crate) const SCRAM_DIGESTS: [Digest; 2] = [Digest::Sha256, Digest::Sha512];
/// Iterations of new SCRAM keys. Each login costs the client as many.
pub(crate) const SCRAM_ITERATIONS: NonZeroU32 = NonZeroU32::new(8192).unwrap();
/// Bytes of the salt in a RabbitMQ password hash.
const RABBIT_SALT_BYTES: usize = 4;

/// Reads a password hash of any known form.
pub(crate) fn parse(text: &str) -> Result<Credential, CredentialError> {
    if let Some((algorithm, hash)) = text.split_once(':') {
        let name = algorithm.strip_prefix("rabbit_password_hashing_").ok_or(CredentialError::Unknown)?;
        return rabbit(Digest::named(name).ok_or(CredentialError::Unknown)?, hash);
    }
    let parts: Vec<&str> = text.split('$').collect();
    match parts.as_slice() {
        ["", "6", salt, hash] => Credential::parse(&format!("$salted-sha512$behind${salt}${hash}")),
        ["", "7", iterations, salt, hash] => {
            Credential::parse(&format!("$pbkdf2-sha512${iterations}${salt}${hash}"))
        }
        _ => Credential::parse(text),
    }
}

fn rabbit(digest: Digest, text: &str) -> Result<Credential, CredentialError> {
    let malformed = CredentialError::Malformed("RabbitMQ");
    let decoded = BASE64.decode(text.as_bytes()).map_err(|_| malformed.clone())?;
    match decoded.split_at_checked(RABBIT_SALT_BYTES) {
        Some((salt, hash)) if hash.len() == digest.output_bytes() => {
            let (salt, hash) = (salt.to_vec(), hash.to_vec());
            Ok(Credential::Salted { digest, position: SaltPosition::Before, salt, hash })
        }
        _ => Err(malformed),
    }
}

/// Texts of an argon2id hash of `password`, and of SCRAM keys if they are wanted, each with a random salt.
pub(crate) fn hashes(password: &[u8], with_scram: bool) -> anyhow::Result<Vec<String>> {
    let mut credentials = vec![Credential::argon2id(password)?];
    if with_scram {
        for digest in SCRAM_DIGESTS {
            credentials.push(Credential::scram(digest, password, SCRAM_ITERATIONS)?);
        }
    }
    Ok(credentials.iter().map(Credential::to_text).collect())
}

/// The text of an argon2id hash of `password`.
#[cfg(test)]
pub(crate) fn hash(password: &[u8]) -> anyhow::Result<String> {
    Ok(Credential::argon2id(password)?.to_text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_verifies_only_its_password() {
        let credential = parse(&hash(b"secret").unwrap()).unwrap();
        assert!(credential.verify(b"secret") && !credential.verify(b"Secret"));
        assert!(parse("secret").is_err() && parse("$argon2id$").is_err());
    }

    #[test]
    fn hashes_of_other_brokers_are_read() {
        let rabbit = "rabbit_password_hashing_sha256:kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        assert!(parse(rabbit).unwrap().verify(b"test12"));
        let mosquitto = "$7$101$c2FsdHNhbHRzYWx0$Hd71hnNoKcARd6Fkl1rUE+opfs3V78ZJB2AgXXC1kaKQiWfi5S5qX7D1mY5b+bIzvyidWMnS8VA+YAsAygq9EA==";
        assert!(parse(mosquitto).unwrap().verify(b"secret"));
        // SHA-512 over "abc" and an empty salt.
        let old =
            "$6$$3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==";
        assert!(parse(old).unwrap().verify(b"abc"));
        for wrong in [
            "rabbit_password_hashing_sha256:YWJj",
            "rabbit_password_hashing_sha1:YWJj",
            "x:YWJj",
            "$7$0$YQ==$YQ==",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
