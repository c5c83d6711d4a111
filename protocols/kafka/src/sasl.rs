//! SASL authentication of one connection: the PLAIN mechanism (RFC 4616).
//!
//! A state machine. It does not check credentials: the connection does, and reports the outcome.

use inver_broker::Identity;
use thiserror::Error;

use crate::codec::header::ResponseHeader;

/// The authentication of one connection.
#[derive(Debug)]
pub(crate) struct Sasl {
    identity: Option<Identity>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No mechanism was chosen.
    Start,
    /// SaslAuthenticate comes next.
    Authenticate,
    /// A token without a request around it comes next, as after version 0 of SaslHandshake.
    BareToken,
    /// Credentials were received.
    Finished,
}

/// Credentials to be checked.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Vec<u8>,
    /// Header of the response to SaslAuthenticate; `None` for a bare token.
    pub(crate) header: Option<ResponseHeader>,
}

/// The reason why a token holds no credentials to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum TokenError {
    #[error("SaslAuthenticate is only valid once, after SaslHandshake")]
    Unexpected,
    #[error("malformed SASL/PLAIN token")]
    Malformed,
}

impl Sasl {
    /// `identity` is that of a client without credentials, where those are let in.
    pub(crate) fn new(identity: Option<Identity>) -> Sasl {
        Sasl { identity, stage: Stage::Start }
    }

    /// The authenticated client.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whether credentials were received.
    pub(crate) fn is_finished(&self) -> bool {
        self.stage == Stage::Finished
    }

    /// Whether the next input is a token without a request around it.
    pub(crate) fn expects_bare_token(&self) -> bool {
        self.stage == Stage::BareToken
    }

    /// The client chose PLAIN.
    pub(crate) fn choose_mechanism(&mut self, bare_token: bool) {
        self.stage = if bare_token { Stage::BareToken } else { Stage::Authenticate };
    }

    /// The credentials in a token, which came in SaslAuthenticate or bare.
    pub(crate) fn credentials(
        &mut self,
        token: &[u8],
        header: Option<ResponseHeader>,
    ) -> Result<Credentials, TokenError> {
        let expected = if header.is_some() { Stage::Authenticate } else { Stage::BareToken };
        if self.stage != expected {
            return Err(TokenError::Unexpected);
        }
        self.stage = Stage::Finished;
        let (user, password) = parse_plain(token).ok_or(TokenError::Malformed)?;
        Ok(Credentials { user, password, header })
    }

    /// The credentials were accepted.
    pub(crate) fn accept(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }
}

/// `[authorization id] NUL user NUL password`. The authorization id is ignored, as in Kafka.
fn parse_plain(token: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut parts = token.split(|byte| *byte == 0);
    let (_authorization, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || user.is_empty() {
        return None;
    }
    Some((std::str::from_utf8(user).ok()?.to_owned(), password.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tokens_hold_user_and_password() {
        assert_eq!(parse_plain(b"\0guest\0secret"), Some(("guest".into(), b"secret".to_vec())));
        assert_eq!(parse_plain(b"other\0guest\0"), Some(("guest".into(), Vec::new())));
        for wrong in [&b""[..], b"guest", b"\0guest", b"\0\0secret", b"a\0b\0c\0d", b"\0\xff\0x"] {
            assert_eq!(parse_plain(wrong), None);
        }
    }

    #[test]
    fn a_token_is_accepted_once_and_in_the_form_agreed_on() {
        let token = b"\0guest\0secret";
        let mut sasl = Sasl::new(None);
        assert_eq!(sasl.credentials(token, None).unwrap_err(), TokenError::Unexpected);
        sasl.choose_mechanism(true);
        assert!(sasl.expects_bare_token());
        assert_eq!(sasl.credentials(token, None).unwrap().user, "guest");
        assert_eq!(sasl.credentials(token, None).unwrap_err(), TokenError::Unexpected);
        assert!(sasl.is_finished());
    }
}
