//! The server side of SCRAM (RFC 5802, RFC 7677) without a socket and without channel binding.
//!
//! A caller parses the first message with [`ClientFirst::parse`], looks up the user's [`ScramKeys`], answers with
//! [`Exchange::begin`], and finishes with [`Exchange::finish`]. For an unknown user it passes [`decoy_keys`], so that the
//! exchange fails at its end, as with a wrong password.

use std::num::NonZeroU32;

use data_encoding::BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};

pub use crate::credential::ScramKeys;
use crate::credential::equal;
use crate::digest::Digest;

/// Bytes of a message of a client.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// The extension by which a client logs in with a delegation token.
const TOKEN_EXTENSION: &str = "tokenauth=true";
/// Random bytes of a server's nonce.
const NONCE_BYTES: usize = 24;

/// Why an exchange failed. The client learns only the text of [`as_server_error`](ScramError::as_server_error).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message is malformed or too long.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The client requires channel binding.
    #[error("channel binding is not supported")]
    ChannelBinding,
    /// An extension that the server must understand and does not.
    #[error("mandatory SCRAM extensions are not supported")]
    Extension,
    /// The nonce is not the one of this exchange.
    #[error("the nonce does not match")]
    Nonce,
    /// The proof is wrong: wrong password or unknown user.
    #[error("the client's proof is wrong")]
    Proof,
    /// The operating system provided no random numbers.
    #[error("the system provides no random numbers")]
    Random,
}

impl ScramError {
    /// The value of the attribute `e` of the server's last message (RFC 5802, section 7).
    #[must_use]
    pub const fn as_server_error(self) -> &'static str {
        match self {
            ScramError::Malformed | ScramError::Nonce => "other-error",
            ScramError::ChannelBinding => "channel-binding-not-supported",
            ScramError::Extension => "extensions-not-supported",
            ScramError::Proof => "invalid-proof",
            ScramError::Random => "no-resources",
        }
    }
}

/// The client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFirst {
    /// The user that authenticates.
    pub user: String,
    /// The identity that it wants to act as, if it names one.
    pub authorization_id: Option<String>,
    /// The user is the id of a delegation token, whose HMAC is the password (KIP-48).
    pub is_token: bool,
    gs2_header: String,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    /// Parses the message, for example `n,,n=user,r=nonce`.
    pub fn parse(message: &[u8]) -> Result<ClientFirst, ScramError> {
        let text = checked(message)?;
        let mut parts = text.splitn(3, ',');
        let (binding, authorization, bare) = (parts.next(), parts.next(), parts.next());
        match binding {
            Some("n" | "y") => {}
            Some(binding) if binding.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed),
        }
        let (authorization, bare) = authorization.zip(bare).ok_or(ScramError::Malformed)?;
        let authorization_id = match authorization {
            "" => None,
            named => Some(unescape(named.strip_prefix("a=").ok_or(ScramError::Malformed)?)?),
        };
        let header_bytes = text.len() - bare.len();
        let gs2_header = text.get(..header_bytes).ok_or(ScramError::Malformed)?.to_owned();
        let mut attributes = bare.split(',');
        let first = attributes.next().ok_or(ScramError::Malformed)?;
        if first.starts_with("m=") {
            return Err(ScramError::Extension);
        }
        let user = unescape(first.strip_prefix("n=").ok_or(ScramError::Malformed)?)?;
        let nonce =
            attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        // Printable ASCII without a comma.
        if user.is_empty() || nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ScramError::Malformed);
        }
        let is_token = attributes.any(|extension| extension == TOKEN_EXTENSION);
        Ok(ClientFirst {
            user,
            authorization_id,
            is_token,
            gs2_header,
            nonce: nonce.to_owned(),
            bare: bare.to_owned(),
        })
    }
}

/// An exchange after the server's first message.
#[derive(Debug)]
pub struct Exchange {
    keys: ScramKeys,
    gs2_header: String,
    nonce: String,
    /// Client's first message without its header, and the server's first message.
    begun: String,
}

impl Exchange {
    /// Starts an exchange; returns it with the server's first message.
    pub fn begin(first: &ClientFirst, keys: ScramKeys) -> Result<(Exchange, String), ScramError> {
        let mut random = [0; NONCE_BYTES];
        SystemRandom::new().fill(&mut random).map_err(|_| ScramError::Random)?;
        Ok(Exchange::begin_with_nonce(first, keys, &BASE64.encode(&random)))
    }

    fn begin_with_nonce(first: &ClientFirst, keys: ScramKeys, server_nonce: &str) -> (Exchange, String) {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let message = format!("r={nonce},s={},i={}", BASE64.encode(&keys.salt), keys.iterations);
        let begun = format!("{},{message}", first.bare);
        (Exchange { keys, gs2_header: first.gs2_header.clone(), nonce, begun }, message)
    }

    /// Checks the client's final message; returns the server's final message if the proof is right.
    pub fn finish(self, message: &[u8]) -> Result<String, ScramError> {
        let text = checked(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|binding| binding.strip_prefix("c="));
        let binding = BASE64
            .decode(binding.ok_or(ScramError::Malformed)?.as_bytes())
            .map_err(|_| ScramError::Malformed)?;
        if binding != self.gs2_header.as_bytes() {
            return Err(ScramError::ChannelBinding);
        }
        let nonce =
            attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or(ScramError::Malformed)?;
        if nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        let proof = BASE64.decode(proof.as_bytes()).map_err(|_| ScramError::Malformed)?;
        let signed = format!("{},{without_proof}", self.begun);
        let ScramKeys { digest, stored_key, server_key, .. } = &self.keys;
        let signature = digest.hmac(stored_key, signed.as_bytes()).ok_or(ScramError::Malformed)?;
        if proof.len() != signature.len() {
            return Err(ScramError::Proof);
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(one, other)| one ^ other).collect();
        if !equal(&digest.hash(&[&client_key]), stored_key) {
            return Err(ScramError::Proof);
        }
        let verifier = digest.hmac(server_key, signed.as_bytes()).ok_or(ScramError::Malformed)?;
        Ok(format!("v={}", BASE64.encode(&verifier)))
    }
}

/// What a client sees of keys before it proves a password, but for the bytes of the salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Iterations of PBKDF2.
    pub iterations: NonZeroU32,
    /// Bytes of the salt.
    pub salt_bytes: usize,
}

impl Shape {
    /// That of keys.
    #[must_use]
    pub fn of(keys: &ScramKeys) -> Shape {
        Shape { iterations: keys.iterations, salt_bytes: keys.salt.len() }
    }
}

/// Keys for a user that does not exist: the same salt for the same name under one `secret`, and keys that no password has.
#[must_use]
pub fn decoy_keys(digest: Digest, user: &str, secret: &[u8], shape: Shape) -> ScramKeys {
    let keyed = |label: &str| digest.hash(&[secret, label.as_bytes(), user.as_bytes()]);
    let mut salt = Vec::new();
    for part in 0..shape.salt_bytes.div_ceil(digest.output_bytes()) {
        salt.extend(keyed(&format!("salt{part}")));
    }
    salt.truncate(shape.salt_bytes);
    ScramKeys {
        digest,
        iterations: shape.iterations,
        salt,
        stored_key: keyed("stored"),
        server_key: keyed("server"),
    }
}

fn checked(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed);
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed)
}

/// Decodes a name, in which `=2C` stands for a comma and `=3D` for an equals sign.
fn unescape(name: &str) -> Result<String, ScramError> {
    let mut parts = name.split('=');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (decoded, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(ScramError::Malformed),
        };
        out.push(decoded);
        out.push_str(rest);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
    const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    /// The exchange of RFC 7677, section 3.
    fn example() -> (Exchange, String) {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = ScramKeys::derive(Digest::Sha256, b"pencil", salt, ITERATIONS).unwrap();
        Exchange::begin_with_nonce(&ClientFirst::parse(CLIENT_FIRST).unwrap(), keys, SERVER_NONCE)
    }

    #[test]
    fn the_example_of_rfc_7677_succeeds() {
        let (exchange, first) = example();
        assert_eq!(first, format!("r=rOprNGfwEbeRWgbNEkqO{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        assert_eq!(exchange.finish(CLIENT_FINAL).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn wrong_proofs_nonces_and_bindings_fail() {
        let last = String::from_utf8(CLIENT_FINAL.to_vec()).unwrap();
        for (changed, error) in [
            (last.replace("p=dHzb", "p=dHzc"), ScramError::Proof),
            (last.replace(",p=dHzb", ",p=YWJj"), ScramError::Proof),
            (last.replace("r=rOpr", "r=xOpr"), ScramError::Nonce),
            (last.replace("c=biws", "c=eSws"), ScramError::ChannelBinding),
            (last.replace("c=biws,", ""), ScramError::Malformed),
            (last.replace(",p=", ",q="), ScramError::Malformed),
            (last.replace("p=dHzb", "p=*"), ScramError::Malformed),
            (String::new(), ScramError::Malformed),
            ("x".repeat(MESSAGE_BYTES_MAX + 1), ScramError::Malformed),
        ] {
            assert_eq!(example().0.finish(changed.as_bytes()).unwrap_err(), error, "{changed}");
        }
        let shape = Shape { iterations: ITERATIONS, salt_bytes: 40 };
        let decoy = decoy_keys(Digest::Sha256, "user", b"secret", shape);
        assert_eq!(
            (decoy.clone(), Shape::of(&decoy)),
            (decoy_keys(Digest::Sha256, "user", b"secret", shape), shape)
        );
        assert_ne!(decoy.salt, decoy_keys(Digest::Sha256, "other", b"secret", shape).salt);
        let (exchange, _) =
            Exchange::begin_with_nonce(&ClientFirst::parse(CLIENT_FIRST).unwrap(), decoy, SERVER_NONCE);
        assert_eq!(exchange.finish(CLIENT_FINAL).unwrap_err(), ScramError::Proof);
    }

    #[test]
    fn first_messages_are_parsed() {
        let first = ClientFirst::parse(b"y,a=ann=2Cb,n=us=3Der,r=abc,x=1").unwrap();
        assert_eq!((first.user.as_str(), first.authorization_id.as_deref()), ("us=er", Some("ann,b")));
        assert!(!first.is_token);
        for extensions in ["tokenauth=true", "x=1,tokenauth=true"] {
            let message = format!("n,,n=id,r=abc,{extensions}");
            assert!(ClientFirst::parse(message.as_bytes()).unwrap().is_token, "{extensions}");
        }
        for extensions in ["tokenauth=false", "tokenauth", "xtokenauth=true"] {
            let message = format!("n,,n=id,r=abc,{extensions}");
            assert!(!ClientFirst::parse(message.as_bytes()).unwrap().is_token, "{extensions}");
        }
        for (message, error) in [
            (&b"p=tls-unique,,n=user,r=abc"[..], ScramError::ChannelBinding),
            (b"n,,m=ext,n=user,r=abc", ScramError::Extension),
            (b"n,,n=user", ScramError::Malformed),
            (b"n,,n=,r=abc", ScramError::Malformed),
            (b"n,,n=us=4Der,r=abc", ScramError::Malformed),
            (b"n,,n=user,r=a\tb", ScramError::Malformed),
            (b"n,b=x,n=user,r=abc", ScramError::Malformed),
            (b"n,", ScramError::Malformed),
            (b"\xff", ScramError::Malformed),
        ] {
            assert_eq!(ClientFirst::parse(message).unwrap_err(), error, "{message:?}");
        }
    }
}
