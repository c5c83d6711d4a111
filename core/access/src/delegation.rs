//! Delegation tokens (KIP-48): credentials that a user hands to programs, which then act as that user for a limited time.
//!
//! A token's HMAC, which is its password, is computed from its id and a [`TokenSecret`]. What is stored of a token does
//! not contain it.

use std::fmt;
use std::num::NonZeroU32;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::credential::{ScramKeys, equal};
use crate::digest::Digest;
use crate::scram::{Shape, decoy_keys};

/// Bytes of a [`TokenSecret`].
pub const SECRET_BYTES: usize = 32;

/// The fewest iterations that clients accept (RFC 7677). More would not help: the password is random.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
const ID_BYTES: usize = 16;
const SALT_BYTES: usize = 16;

/// What is known of a token but for its HMAC. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegationToken {
    /// Its identity, which is the user name of a login with it.
    pub id: String,
    /// The user that a client with the token is.
    pub owner: String,
    /// The user who asked for it.
    pub requester: String,
    /// Users who may renew it and end it.
    pub renewers: Vec<String>,
    /// When it was made.
    pub issued_ms: i64,
    /// When it expires, unless it is renewed.
    pub expires_ms: i64,
    /// The latest time that it can be renewed to.
    pub max_ms: i64,
}

impl DelegationToken {
    /// Whether a user is its owner, its requester or a renewer, and so may see, renew and end it.
    #[must_use]
    pub fn belongs_to(&self, user: &str) -> bool {
        self.owner == user || self.requester == user || self.renewers.iter().any(|renewer| renewer == user)
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_ms <= now_ms
    }
}

/// A new id of a token; none if the system provides no random numbers.
#[must_use]
pub fn new_token_id() -> Option<String> {
    let mut random = [0; ID_BYTES];
    SystemRandom::new().fill(&mut random).ok()?;
    Some(BASE64URL_NOPAD.encode(&random))
}

/// The secret that the HMACs of tokens are made with.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; SECRET_BYTES]);

impl TokenSecret {
    /// A secret of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; SECRET_BYTES]) -> TokenSecret {
        TokenSecret(bytes)
    }

    /// A new secret; none if the system provides no random numbers.
    #[must_use]
    pub fn random() -> Option<TokenSecret> {
        let mut bytes = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(TokenSecret(bytes))
    }

    /// Its bytes, to be kept in a safe place.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// What tells this secret from others without saying anything about it.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 8] {
        let mut short = [0; 8];
        let hash = Digest::Sha256.hash(&[b"fingerprint", &self.0]);
        short.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        short
    }

    /// The HMAC of the token of this id.
    #[must_use]
    pub fn hmac(&self, id: &str) -> Vec<u8> {
        // There is one for every hash function but MD5.
        Digest::Sha512.hmac(&self.0, id.as_bytes()).unwrap_or_default()
    }

    /// Whether this is the HMAC of the token of this id.
    #[must_use]
    pub fn is_hmac(&self, id: &str, hmac: &[u8]) -> bool {
        equal(&self.hmac(id), hmac)
    }

    /// The password of the token of this id: its HMAC in base64.
    #[must_use]
    pub fn password(&self, id: &str) -> String {
        BASE64.encode(&self.hmac(id))
    }

    /// The SCRAM keys of the token of this id. The same each time; costs about a millisecond.
    #[must_use]
    pub fn scram_keys(&self, digest: Digest, id: &str) -> Option<ScramKeys> {
        let mut salt = Digest::Sha256.hash(&[b"salt", &self.0, id.as_bytes()]);
        salt.truncate(SALT_BYTES);
        ScramKeys::derive(digest, self.password(id).as_bytes(), salt, ITERATIONS)
    }

    /// Keys for a token that does not exist: they look alike and no password has them.
    #[must_use]
    pub fn decoy_keys(&self, digest: Digest, id: &str) -> ScramKeys {
        decoy_keys(digest, id, &self.0, Shape { iterations: ITERATIONS, salt_bytes: SALT_BYTES })
    }
}

/// Says nothing of it.
impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Credential;

    #[test]
    fn the_password_of_a_token_is_its_hmac() {
        let secret = TokenSecret::new([7; 32]);
        let id = new_token_id().unwrap();
        assert!(id.len() == 22 && id != new_token_id().unwrap());
        let hmac = secret.hmac(&id);
        assert_eq!(hmac.len(), 64);
        assert!(secret.is_hmac(&id, &hmac));
        assert!(
            !secret.is_hmac("other", &hmac) && !secret.is_hmac(&id, &hmac[1..]) && !secret.is_hmac(&id, b"")
        );
        assert!(!TokenSecret::new([8; 32]).is_hmac(&id, &hmac));
        for digest in [Digest::Sha256, Digest::Sha512] {
            let keys = secret.scram_keys(digest, &id).unwrap();
            assert_eq!(secret.scram_keys(digest, &id).unwrap(), keys);
            let password = secret.password(&id);
            assert_eq!(password, BASE64.encode(&hmac));
            assert!(Credential::Scram(keys.clone()).verify(password.as_bytes()));
            assert!(!Credential::Scram(keys).verify(b"other"));
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = TokenSecret::random().unwrap();
        assert_eq!(format!("{secret:?}"), "TokenSecret");
        assert_eq!(secret.fingerprint(), TokenSecret::new(*secret.as_bytes()).fingerprint());
        assert_ne!(secret.fingerprint(), TokenSecret::random().unwrap().fingerprint());
    }

    #[test]
    fn who_may_renew() {
        let token = DelegationToken {
            id: "t".into(),
            owner: "ann".into(),
            requester: "bob".into(),
            renewers: vec!["cyd".into()],
            issued_ms: 0,
            expires_ms: 10,
            max_ms: 20,
        };
        assert!(["ann", "bob", "cyd"].iter().all(|user| token.belongs_to(user)) && !token.belongs_to("dan"));
        assert!(!token.is_expired(9) && token.is_expired(10));
    }
}
