//! SASL authentication of one connection: the mechanisms PLAIN (RFC 4616), SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802),
//! OAUTHBEARER (RFC 7628).
//!
//! A state machine. It does not check passwords: the connection does, and reports the outcome. The messages of SCRAM and
//! OAUTHBEARER, the users' keys and tokens belong to the broker.
//!
//! A client whose credential expires may authenticate again on its connection (KIP-368), as the same user by the same
//! mechanism; once the credential expired it may do nothing else.

use std::net::IpAddr;

use bytes::Bytes;
use inver_access::Digest;
use inver_access::oauthbearer::{ClientMessage, INVALID_TOKEN};
use inver_broker::{AuthError, Broker, Identity, LoginRefusal, ScramLogin, ScramLoginError};
use thiserror::Error;

use crate::codec::header::ResponseHeader;

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
    OAuthBearer,
}

impl Mechanism {
    /// The mechanism of a name, if it is offered.
    pub(crate) fn named(name: &str, broker: &Broker) -> Option<Mechanism> {
        Mechanism::offered(broker).find(|mechanism| mechanism.name() == name)
    }

    /// The mechanisms that clients may choose from.
    pub(crate) fn offered(broker: &Broker) -> impl Iterator<Item = Mechanism> {
        let all = [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512, Mechanism::OAuthBearer];
        all.into_iter().filter(|mechanism| match mechanism.digest() {
            Some(digest) => broker.supports_scram(digest),
            None => *mechanism == Mechanism::Plain || broker.supports_tokens(),
        })
    }

    /// Its name on the wire.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// The hash function of SCRAM; none for others.
    const fn digest(self) -> Option<Digest> {
        match self {
            Mechanism::Plain | Mechanism::OAuthBearer => None,
            Mechanism::ScramSha256 => Some(Digest::Sha256),
            Mechanism::ScramSha512 => Some(Digest::Sha512),
        }
    }
}

/// The authentication of one connection.
#[derive(Debug)]
pub(crate) struct Sasl {
    identity: Option<Identity>,
    /// Tokens come without a request around them, as after version 0 of SaslHandshake.
    has_bare_tokens: bool,
    /// The mechanism that the client chose last.
    mechanism: Option<Mechanism>,
    stage: Stage,
    /// The client made requests that need authentication: its identity stays what it is.
    has_worked: bool,
    /// The identity is one that the client proved by SASL.
    has_authenticated: bool,
    /// Why the last token did not authenticate.
    failure: Option<Box<Failure>>,
}

/// Why a client is not authenticated, for the log.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The user that the client claimed to be, if it got that far.
    pub(crate) user: Option<String>,
    /// The reason in metrics.
    pub(crate) reason: LoginRefusal,
    /// The reason.
    pub(crate) text: String,
}

#[derive(Debug)]
enum Stage {
    /// No mechanism was chosen.
    Start,
    /// The first token comes next.
    First(Mechanism),
    /// The final token of SCRAM comes next.
    Final(Mechanism, Box<ScramLogin>),
    /// The client was told that its token is not accepted, and acknowledges that next.
    Told,
    /// The last token was received.
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

/// What follows from a token.
#[derive(Debug)]
pub(crate) enum Step {
    /// Credentials are to be checked.
    Check(Credentials),
    /// The server's token is to be sent.
    Answer(Bytes),
    /// The client is authenticated; the server's last token is to be sent.
    Finished(Identity, Bytes),
}

/// The reason why a token does not authenticate. The texts are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum TokenError {
    #[error("SaslAuthenticate is only valid once, after SaslHandshake")]
    Unexpected,
    #[error("Authentication failed during authentication due to invalid credentials with SASL mechanism {}", .0.name())]
    Invalid(Mechanism),
    #[error("Authentication failed: Client requested an authorization id that is different from username")]
    OtherUser,
    #[error("Authentication failed: {}", AuthError::TooManyFailures)]
    TooManyFailures,
    #[error("Authentication failed: {}", AuthError::Busy)]
    Busy,
    #[error("{INVALID_TOKEN}")]
    InvalidToken,
}

impl Sasl {
    /// The authentication of a new connection.
    pub(crate) fn new() -> Sasl {
        Sasl {
            identity: None,
            has_bare_tokens: false,
            mechanism: None,
            stage: Stage::Start,
            has_worked: false,
            has_authenticated: false,
            failure: None,
        }
    }

    /// The authenticated client.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Why the client is not authenticated, once.
    pub(crate) fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take().map(|failure| *failure)
    }

    /// The credentials were refused.
    pub(crate) fn refuse(&mut self, user: Option<&str>, reason: LoginRefusal, text: String) {
        self.failure = Some(Box::new(Failure { user: user.map(str::to_owned), reason, text }));
    }

    fn refuse_scram(
        &mut self,
        mechanism: Mechanism,
        user: Option<&str>,
        error: &ScramLoginError,
    ) -> TokenError {
        let reason = match error {
            ScramLoginError::TooManyFailures => LoginRefusal::TooManyFailures,
            _ => LoginRefusal::Credentials,
        };
        self.refuse(user, reason, format!("{}: {error}", mechanism.name()));
        match error {
            ScramLoginError::TooManyFailures => TokenError::TooManyFailures,
            ScramLoginError::OtherUser => TokenError::OtherUser,
            ScramLoginError::Unsupported | ScramLoginError::TokenOver | ScramLoginError::Failed(_) => {
                TokenError::Invalid(mechanism)
            }
        }
    }

    /// Whether it is too late to choose a mechanism: the client's last token was received, or it works without one.
    pub(crate) fn is_finished(&self) -> bool {
        !self.may_reauthenticate() && (self.has_worked || matches!(self.stage, Stage::Finished))
    }

    /// Whether the client may authenticate again: what it did so with expires.
    fn may_reauthenticate(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.expires_at_ms().is_some())
    }

    /// Whether the client authenticates again: it did so before, and its credential has a time.
    pub(crate) fn is_again(&self) -> bool {
        self.has_authenticated && self.may_reauthenticate()
    }

    /// Whether a client that authenticates again chose the mechanism that it began with, if it did.
    pub(crate) fn may_choose(&self, mechanism: Mechanism) -> bool {
        !self.is_again() || self.mechanism == Some(mechanism)
    }

    /// Whether what the client authenticated with has expired.
    pub(crate) fn is_expired(&self, now_ms: impl FnOnce() -> i64) -> bool {
        let expires_at_ms = self.identity.as_ref().and_then(Identity::expires_at_ms);
        expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms())
    }

    /// The client makes requests that need authentication.
    pub(crate) fn works(&mut self) {
        self.has_worked = true;
    }

    /// Whether the next input is a token without a request around it.
    pub(crate) fn expects_bare_token(&self) -> bool {
        self.has_bare_tokens && matches!(self.stage, Stage::First(_) | Stage::Final(..) | Stage::Told)
    }

    /// The client chose a mechanism.
    pub(crate) fn choose(&mut self, mechanism: Mechanism, has_bare_tokens: bool) {
        self.has_bare_tokens = has_bare_tokens;
        self.mechanism = Some(mechanism);
        self.stage = Stage::First(mechanism);
    }

    /// Takes a token, which came in SaslAuthenticate or bare. After an error the exchange is over.
    pub(crate) fn token(
        &mut self,
        broker: &Broker,
        peer: IpAddr,
        token: &[u8],
        header: Option<ResponseHeader>,
    ) -> Result<Step, TokenError> {
        if header.is_none() != self.has_bare_tokens {
            return Err(TokenError::Unexpected);
        }
        match std::mem::replace(&mut self.stage, Stage::Finished) {
            Stage::Start => {
                self.stage = Stage::Start;
                Err(TokenError::Unexpected)
            }
            Stage::Finished => Err(TokenError::Unexpected),
            Stage::Told => Err(TokenError::InvalidToken),
            Stage::First(Mechanism::OAuthBearer) => self.bearer(broker, peer, token),
            Stage::First(mechanism) => match mechanism.digest() {
                None => plain(token, header).map(Step::Check),
                Some(digest) => {
                    let begun = broker.begin_scram(peer, digest, token);
                    let (login, answer) =
                        begun.map_err(|error| self.refuse_scram(mechanism, None, &error))?;
                    self.stage = Stage::Final(mechanism, Box::new(login));
                    Ok(Step::Answer(answer.into()))
                }
            },
            Stage::Final(mechanism, login) => {
                let user = login.user().to_owned();
                let finished = login.finish(token);
                let (identity, answer) =
                    finished.map_err(|error| self.refuse_scram(mechanism, Some(&user), &error))?;
                Ok(Step::Finished(identity, answer.into()))
            }
        }
    }

    /// The message of OAUTHBEARER.
    fn bearer(&mut self, broker: &Broker, peer: IpAddr, message: &[u8]) -> Result<Step, TokenError> {
        let message = ClientMessage::parse(message).map_err(|error| {
            self.refuse(None, LoginRefusal::Protocol, error.to_string());
            TokenError::Invalid(Mechanism::OAuthBearer)
        })?;
        let claimed = message.authorization_id.as_deref();
        match broker.check_token(peer, &message.token) {
            Ok(identity) if claimed.is_none_or(|claimed| identity.name() == Some(claimed)) => {
                Ok(Step::Finished(identity, Bytes::new()))
            }
            Ok(_) => {
                let text = "the authorization id is not the token's user";
                self.refuse(claimed, LoginRefusal::Credentials, text.to_owned());
                Err(TokenError::OtherUser)
            }
            Err(error) => {
                self.refuse(claimed, (&error).into(), error.to_string());
                match error {
                    AuthError::TooManyFailures => Err(TokenError::TooManyFailures),
                    AuthError::Busy => Err(TokenError::Busy),
                    _ => {
                        self.stage = Stage::Told;
                        Ok(Step::Answer(Bytes::from_static(INVALID_TOKEN.as_bytes())))
                    }
                }
            }
        }
    }

    /// The client was admitted.
    pub(crate) fn accept(&mut self, identity: Identity) {
        self.has_authenticated = self.mechanism.is_some();
        self.identity = Some(identity);
        self.failure = None;
    }
}

/// The credentials in `[authorization id] NUL user NUL password`. The authorization id, if given, is the user's name.
fn plain(token: &[u8], header: Option<ResponseHeader>) -> Result<Credentials, TokenError> {
    let malformed = TokenError::Invalid(Mechanism::Plain);
    let mut parts = token.split(|byte| *byte == 0);
    let (Some(authorization), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed);
    };
    let name = std::str::from_utf8(user).map_err(|_| malformed)?;
    if name.is_empty() {
        return Err(malformed);
    }
    if !authorization.is_empty() && authorization != user {
        return Err(TokenError::OtherUser);
    }
    Ok(Credentials { user: name.to_owned(), password: password.to_vec(), header })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tokens_hold_user_and_password() {
        for (token, password) in
            [(&b"\0guest\0secret"[..], &b"secret"[..]), (b"guest\0guest\0", b""), (b"\0guest\0", b"")]
        {
            let credentials = plain(token, None).unwrap();
            assert_eq!((credentials.user.as_str(), &credentials.password[..]), ("guest", password));
        }
        let malformed = TokenError::Invalid(Mechanism::Plain);
        for wrong in [&b""[..], b"guest", b"\0guest", b"\0\0secret", b"a\0b\0c\0d", b"\0\xff\0x"] {
            assert_eq!(plain(wrong, None).unwrap_err(), malformed);
        }
        assert_eq!(plain(b"other\0guest\0secret", None).unwrap_err(), TokenError::OtherUser);
    }
}
