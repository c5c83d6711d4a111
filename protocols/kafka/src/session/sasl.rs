//! Who the client is: SaslHandshake and SaslAuthenticate with PLAIN (RFC 4616).

use bytes::BufMut;
use inver_broker::{AuthError, Identity};

use super::{Call, Session};
use crate::codec::api::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use crate::codec::api::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};
use crate::codec::error_code::ErrorCode;
use crate::codec::frame::{Frame, FrameWriter};
use crate::codec::header::RequestHeader;
use crate::codec::text::Str;
use crate::error::ConnectionError;

const PLAIN: Str = Str::from_static("PLAIN");

/// What a client may do so far.
#[derive(Debug)]
pub(super) struct Access {
    identity: Option<Identity>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No mechanism was agreed on.
    Start,
    /// SaslAuthenticate is next.
    Chosen,
    /// A bare token is next, as version 0 of the handshake has it.
    BareToken,
    /// Credentials are being checked, or were found good.
    Done,
}

/// Credentials to be checked, and how the outcome is to be told.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Vec<u8>,
    reply: Reply,
}

#[derive(Debug)]
enum Reply {
    /// To a SaslAuthenticate request.
    Response(RequestHeader),
    /// As a bare token.
    Bare,
}

impl Access {
    pub(super) fn new(identity: Option<Identity>) -> Access {
        Access { identity, stage: Stage::Start }
    }

    /// Whether everything may be asked.
    pub(super) fn is_open(&self) -> bool {
        self.identity.is_some()
    }

    pub(super) fn expects_bare_token(&self) -> bool {
        self.stage == Stage::BareToken
    }
}

/// `[authorization id] NUL user NUL password`; the authorization id is not used, as in Kafka.
fn parse_plain(token: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut parts = token.split(|byte| *byte == 0);
    let (_authorization, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || user.is_empty() {
        return None;
    }
    Some((std::str::from_utf8(user).ok()?.to_owned(), password.to_vec()))
}

impl Session {
    pub(super) fn sasl_handshake(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: SaslHandshakeRequest = call.read()?;
        let error_code = match (self.access.stage, request.mechanism == PLAIN) {
            (Stage::Done, _) => ErrorCode::ILLEGAL_SASL_STATE,
            (_, false) => ErrorCode::UNSUPPORTED_SASL_MECHANISM,
            (_, true) => {
                self.access.stage = if call.version() == 0 { Stage::BareToken } else { Stage::Chosen };
                ErrorCode::NONE
            }
        };
        self.answer(&call, &SaslHandshakeResponse { error_code, mechanisms: vec![PLAIN] });
        Ok(())
    }

    pub(super) fn sasl_authenticate(&mut self, mut call: Call) -> Result<Credentials, ConnectionError> {
        let request: SaslAuthenticateRequest = call.read()?;
        if self.access.stage != Stage::Chosen {
            let response = SaslAuthenticateResponse {
                error_code: ErrorCode::ILLEGAL_SASL_STATE,
                error_message: super::message("SaslAuthenticate comes after SaslHandshake, once"),
                ..SaslAuthenticateResponse::default()
            };
            self.answer(&call, &response);
            return Err(ConnectionError::AuthenticationFailed);
        }
        self.check(&request.auth_bytes, Reply::Response(call.header))
    }

    pub(super) fn bare_token(&mut self, token: &[u8]) -> Result<Credentials, ConnectionError> {
        self.check(token, Reply::Bare)
    }

    fn check(&mut self, token: &[u8], reply: Reply) -> Result<Credentials, ConnectionError> {
        self.access.stage = Stage::Done;
        match parse_plain(token) {
            Some((user, password)) => Ok(Credentials { user, password, reply }),
            None => {
                self.refuse(reply, "the token is not one of SASL/PLAIN");
                Err(ConnectionError::AuthenticationFailed)
            }
        }
    }

    /// What became of the credentials.
    pub(crate) fn authenticated(
        &mut self,
        credentials: Credentials,
        outcome: Result<Identity, AuthError>,
    ) -> Result<(), ConnectionError> {
        match outcome {
            Ok(identity) => {
                self.access.identity = Some(identity);
                let frame = match credentials.reply {
                    Reply::Response(header) => self.respond(&header, &SaslAuthenticateResponse::default()),
                    Reply::Bare => self.bare_frame(),
                };
                self.pipeline.push_ready(frame);
                Ok(())
            }
            Err(error) => {
                tracing::info!(user = credentials.user, %error, "authentication refused");
                self.refuse(credentials.reply, &format!("Authentication failed: {error}"));
                Err(ConnectionError::AuthenticationFailed)
            }
        }
    }

    fn refuse(&mut self, reply: Reply, reason: &str) {
        // There is no form for a refusal of a bare token: the connection just ends.
        if let Reply::Response(header) = reply {
            let response = SaslAuthenticateResponse {
                error_code: ErrorCode::SASL_AUTHENTICATION_FAILED,
                error_message: super::message(reason),
                ..SaslAuthenticateResponse::default()
            };
            let frame = self.respond(&header, &response);
            self.pipeline.push_ready(frame);
        }
    }

    /// An empty token: its length and nothing.
    fn bare_frame(&mut self) -> Frame {
        self.arena.put_i32(0);
        FrameWriter::bare(&mut self.arena).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tokens() {
        assert_eq!(parse_plain(b"\0guest\0secret"), Some(("guest".into(), b"secret".to_vec())));
        assert_eq!(parse_plain(b"other\0guest\0"), Some(("guest".into(), Vec::new())));
        for wrong in [&b""[..], b"guest", b"\0guest", b"\0\0secret", b"a\0b\0c\0d", b"\0\xff\0x"] {
            assert_eq!(parse_plain(wrong), None);
        }
    }
}
