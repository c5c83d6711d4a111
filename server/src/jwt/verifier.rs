//! Verification of signatures by `ring`, as `jsonwebtoken` asks for it. Nothing is signed.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::hmac;
use ring::signature::{self as keys, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use signature::{Error, Verifier};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| unsupported(),
        rsa_pub_components_from_public_key: |_| unsupported(),
        ec_pub_components_from_private_key: |_, _| unsupported(),
        ed_pub_components_from_private_key: |_, _| unsupported(),
        compute_digest: |_, _| unsupported(),
    },
};

/// Makes signatures of this process verified by `ring`.
pub(super) fn install() {
    // Who installed it before installed the same.
    let _ = PROVIDER.install_default();
}

fn unsupported<T>() -> Result<T> {
    Err(ErrorKind::InvalidAlgorithm.into())
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    unsupported()
}

/// A key that verifies signatures of one algorithm.
struct ByRing {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// A verifier, if the key is one of the algorithm's family: no public key is ever taken as a secret.
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(Box::new(ByRing { algorithm: *algorithm, key: key.clone() }))
}

impl JwtVerifier for ByRing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for ByRing {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        self.is_right(message, signature).then_some(()).ok_or_else(Error::new)
    }
}

impl ByRing {
    fn is_right(&self, message: &[u8], signature: &[u8]) -> bool {
        match (self.algorithm.family(), self.key.kind()) {
            (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                let key = RsaPublicKeyComponents { n, e };
                rsa(self.algorithm).is_some_and(|rsa| key.verify(rsa, message, signature).is_ok())
            }
            (AlgorithmFamily::Ec | AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(key)) => {
                let algorithm: &dyn keys::VerificationAlgorithm = match self.algorithm {
                    Algorithm::ES256 => &keys::ECDSA_P256_SHA256_FIXED,
                    Algorithm::ES384 => &keys::ECDSA_P384_SHA384_FIXED,
                    Algorithm::EdDSA => &keys::ED25519,
                    _ => return false,
                };
                UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
            }
            (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) => {
                let algorithm = match self.algorithm {
                    Algorithm::HS256 => hmac::HMAC_SHA256,
                    Algorithm::HS384 => hmac::HMAC_SHA384,
                    Algorithm::HS512 => hmac::HMAC_SHA512,
                    _ => return false,
                };
                hmac::verify(&hmac::Key::new(algorithm, secret), message, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// Keys of 2048 to 8192 bits.
fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &keys::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &keys::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &keys::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &keys::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &keys::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &keys::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
