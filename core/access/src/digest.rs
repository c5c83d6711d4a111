//! Hash functions by name.

use std::num::NonZeroU32;

use md5::Digest as _;
use ring::{digest, hmac, pbkdf2};

/// A hash function. MD5 exists for hashes that other systems stored; nothing new is hashed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Digest {
    /// MD5, 16 bytes.
    Md5,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Digest {
    /// Its name in stored credentials.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Digest::Md5 => "md5",
            Digest::Sha256 => "sha256",
            Digest::Sha512 => "sha512",
        }
    }

    /// The hash function of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Digest> {
        [Digest::Md5, Digest::Sha256, Digest::Sha512].into_iter().find(|digest| digest.name() == name)
    }

    /// Length of its output in bytes.
    #[must_use]
    pub const fn output_bytes(self) -> usize {
        match self {
            Digest::Md5 => 16,
            Digest::Sha256 => 32,
            Digest::Sha512 => 64,
        }
    }

    /// Hashes the concatenation of `parts`.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        let algorithm = match self {
            Digest::Md5 => {
                let mut context = md5::Md5::new();
                parts.iter().for_each(|part| context.update(part));
                return context.finalize().to_vec();
            }
            Digest::Sha256 => &digest::SHA256,
            Digest::Sha512 => &digest::SHA512,
        };
        let mut context = digest::Context::new(algorithm);
        parts.iter().for_each(|part| context.update(part));
        context.finish().as_ref().to_vec()
    }

    /// HMAC of `data` under `key`. None for MD5.
    pub(crate) fn hmac(self, key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
        let algorithm = match self {
            Digest::Md5 => return None,
            Digest::Sha256 => hmac::HMAC_SHA256,
            Digest::Sha512 => hmac::HMAC_SHA512,
        };
        Some(hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref().to_vec())
    }

    /// PBKDF2-HMAC of `password` with `length` bytes of output. None for MD5.
    pub(crate) fn pbkdf2(
        self,
        password: &[u8],
        salt: &[u8],
        iterations: NonZeroU32,
        length: usize,
    ) -> Option<Vec<u8>> {
        let algorithm = match self {
            Digest::Md5 => return None,
            Digest::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Digest::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut out = vec![0; length];
        pbkdf2::derive(algorithm, iterations, salt, password, &mut out);
        Some(out)
    }
}
