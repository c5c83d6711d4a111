//! The public keys of an issuer: a JSON Web Key Set (RFC 7517).

use anyhow::{Context, bail};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// Keys of a set.
const KEYS_MAX: usize = 100;

/// The keys of an issuer.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys(Vec<Key>);

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    /// The algorithms that it may be used for.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Keys {
    /// The keys of a set that can verify signatures. Others, such as those for encryption, of other algorithms, and
    /// secrets, are left out.
    pub(super) fn parse(text: &[u8]) -> anyhow::Result<Keys> {
        let set: Value = serde_json::from_slice(text).context("it is not JSON")?;
        let keys = set.get("keys").and_then(Value::as_array).context("it has no list `keys`")?;
        if keys.len() > KEYS_MAX {
            bail!("it has more than {KEYS_MAX} keys");
        }
        // One by one: a key of an unknown form must not make the others unusable.
        let keys = keys.iter().filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
        let keys: Vec<Key> = JwkSet { keys: keys.collect() }.keys.iter().filter_map(Key::of).collect();
        if keys.is_empty() {
            bail!("it has no key that can verify signatures");
        }
        Ok(Keys(keys))
    }

    /// A secret, for algorithms that verify with the key that they sign with.
    pub(super) fn of_secret(secret: &[u8]) -> anyhow::Result<Keys> {
        let algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        Ok(Keys(vec![Key { id: None, algorithms, key: DecodingKey::from_secret(secret)? }]))
    }

    /// The keys that a token with this key id and algorithm may be signed with. A token without an id is tried with every
    /// key of its algorithm, of which there are few.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &DecodingKey> {
        let is_right = move |key: &&Key| {
            key.algorithms.contains(&algorithm)
                && (key.id.is_none() || id.is_none() || key.id.as_deref() == id)
        };
        self.0.iter().filter(is_right).map(|key| &key.key)
    }

    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Key> {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => vec![ES256],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => vec![ES384],
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![EdDSA],
            // Secrets have no place in a set of public keys.
            _ => return None,
        };
        if let Some(only) = &jwk.common.key_algorithm {
            let only: Algorithm = only.to_string().parse().ok()?;
            algorithms.retain(|algorithm| *algorithm == only);
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        (!algorithms.is_empty()).then(|| Key { id: jwk.common.key_id.clone(), algorithms, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_bounded() {
        let rsa = r#"{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}"#;
        let of = |keys: &str| Keys::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes());
        let keys = of(&format!(
            r#"{rsa},{{"kty":"new","x":1}},{{"kty":"oct","k":"c2VjcmV0"}},
               {{"kty":"RSA","use":"enc","n":"AQAB","e":"AQAB"}},
               {{"kty":"RSA","kid":"b","alg":"PS256","n":"AQAB","e":"AQAB"}},
               {{"kty":"EC","crv":"P-521","x":"AQAB","y":"AQAB"}}"#
        ))
        .unwrap();
        assert_eq!(keys.len(), 2);
        let count = |id, algorithm| keys.find(id, algorithm).count();
        assert_eq!(count(Some("a"), Algorithm::RS256), 1);
        assert_eq!(count(Some("b"), Algorithm::RS256), 0, "it is for PS256 only");
        assert_eq!((count(None, Algorithm::PS256), count(Some("c"), Algorithm::RS256)), (2, 0));
        assert_eq!((count(Some("a"), Algorithm::HS256), count(Some("a"), Algorithm::ES256)), (0, 0));
        for (wrong, said) in [
            ("{", "not JSON"),
            ("{}", "no list"),
            (r#"{"keys":[]}"#, "no key that"),
            (r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#, "no key that"),
        ] {
            let error = Keys::parse(wrong.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(of(&vec![rsa; KEYS_MAX + 1].join(",")).is_err());
    }
}
