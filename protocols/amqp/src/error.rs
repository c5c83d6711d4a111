//! Errors as clients receive them: reply code, reply text, and whether the channel or the connection is closed.
//!
//! Codes, levels and texts are RabbitMQ's: clients and their tests depend on all three. A [`Refusal`] is created where
//! the error is found; the frame's dispatcher adds the ids of the method at fault and sends it.

use std::error::Error;
use std::fmt::Display;
use std::sync::Arc;

use crate::codec::wire::cut;
use crate::codec::{FrameError, Malformed};

/// Reply codes (AMQP 0-9-1, section 1.2, constants).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum ReplyCode {
    /// A mandatory message matched no binding.
    NoRoute = 312,
    /// The broker closed the connection.
    ConnectionForced = 320,
    /// The client has no permission.
    AccessRefused = 403,
    /// The exchange or queue does not exist.
    NotFound = 404,
    /// The queue is exclusive to another connection.
    ResourceLocked = 405,
    /// A precondition of the method does not hold.
    PreconditionFailed = 406,
    /// A frame cannot be decoded.
    FrameError = 501,
    /// A frame has illegal values.
    SyntaxError = 502,
    /// A method is not allowed in this state.
    CommandInvalid = 503,
    /// A channel is not open, or open already.
    ChannelError = 504,
    /// A frame is not allowed in this state.
    UnexpectedFrame = 505,
    /// The broker lacks the memory for it.
    ResourceError = 506,
    /// The broker's configuration does not allow it.
    NotAllowed = 530,
    /// The broker does not implement it.
    NotImplemented = 540,
    /// The broker failed.
    InternalError = 541,
}

impl ReplyCode {
    /// The number on the wire.
    pub(crate) const fn number(self) -> u16 {
        self as u16
    }

    /// The name that the reply text begins with.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            ReplyCode::NoRoute => "NO_ROUTE",
            ReplyCode::ConnectionForced => "CONNECTION_FORCED",
            ReplyCode::AccessRefused => "ACCESS_REFUSED",
            ReplyCode::NotFound => "NOT_FOUND",
            ReplyCode::ResourceLocked => "RESOURCE_LOCKED",
            ReplyCode::PreconditionFailed => "PRECONDITION_FAILED",
            ReplyCode::FrameError => "FRAME_ERROR",
            ReplyCode::SyntaxError => "SYNTAX_ERROR",
            ReplyCode::CommandInvalid => "COMMAND_INVALID",
            ReplyCode::ChannelError => "CHANNEL_ERROR",
            ReplyCode::UnexpectedFrame => "UNEXPECTED_FRAME",
            ReplyCode::ResourceError => "RESOURCE_ERROR",
            ReplyCode::NotAllowed => "NOT_ALLOWED",
            ReplyCode::NotImplemented => "NOT_IMPLEMENTED",
            ReplyCode::InternalError => "INTERNAL_ERROR",
        }
    }

    /// Whether it closes the connection, not only the channel (a "hard error" of the specification).
    pub(crate) const fn is_hard(self) -> bool {
        !matches!(
            self,
            ReplyCode::NoRoute
                | ReplyCode::AccessRefused
                | ReplyCode::NotFound
                | ReplyCode::ResourceLocked
                | ReplyCode::PreconditionFailed
        )
    }
}

/// An error that closes a channel or a connection, as it is sent to the client.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refusal {
    /// The reply code.
    pub(crate) code: ReplyCode,
    /// The reply text, which begins with the code's name.
    pub(crate) text: String,
    /// The ids of the class and the method at fault; zeros if it was not a method.
    pub(crate) method: (u16, u16),
    /// The error of the broker behind an [internal](Refusal::internal) one.
    #[source]
    pub(crate) cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// Refusals are equal if the client cannot distinguish them.
impl PartialEq for Refusal {
    fn eq(&self, other: &Refusal) -> bool {
        (self.code, &self.text, self.method) == (other.code, &other.text, other.method)
    }
}

impl Eq for Refusal {}

/// Bytes of the longest reply text: a short string.
const TEXT_BYTES_MAX: usize = 255;

impl Refusal {
    /// Creates a refusal with this explanation.
    pub(crate) fn new(code: ReplyCode, explanation: impl Display) -> Self {
        let mut text = format!("{} - {explanation}", code.name());
        text.truncate(cut(&text, TEXT_BYTES_MAX).len());
        Refusal { code, text, method: (0, 0), cause: None }
    }

    /// Sets the ids of the method at fault, unless they are set.
    #[must_use]
    pub(crate) fn at(mut self, method: (u16, u16)) -> Self {
        if self.method == (0, 0) {
            self.method = method;
        }
        self
    }

    /// 403
    pub(crate) fn access_refused(explanation: impl Display) -> Self {
        Refusal::new(ReplyCode::AccessRefused, explanation)
    }

    /// 404
    pub(crate) fn not_found(explanation: impl Display) -> Self {
        Refusal::new(ReplyCode::NotFound, explanation)
    }

    /// 506
    pub(crate) fn resource_error(explanation: impl Display) -> Self {
        Refusal::new(ReplyCode::ResourceError, explanation)
    }

    /// 405
    pub(crate) fn resource_locked(explanation: impl Display) -> Self {
        Refusal::new(ReplyCode::ResourceLocked, explanation)
    }

    /// 406
    pub(crate) fn unreadable(queue: impl Display) -> Self {
        Refusal::precondition_failed(format_args!(
            "the next messages of {queue} cannot be read: the log is damaged or the disk fails"
        ))
    }

    /// 406
    pub(crate) fn precondition_failed(explanation: impl Display) -> Self {
        Refusal::new(ReplyCode::PreconditionFailed, explanation)
    }

    /// 501
    pub(crate) fn frame_error(explanation: impl Display) -> Self {
        Refusal::new(ReplyCode::FrameError, explanation)
    }

    /// 503
    pub(crate) fn command_invalid(explanation: impl Display) -> Self {
        Refusal::new(ReplyCode::CommandInvalid, explanation)
    }

    /// 504
    pub(crate) fn channel_error(explanation: impl Display) -> Self {
        Refusal::new(ReplyCode::ChannelError, explanation)
    }

    /// 505
    pub(crate) fn unexpected_frame(explanation: impl Display) -> Self {
        Refusal::new(ReplyCode::UnexpectedFrame, explanation)
    }

    /// 530
    pub(crate) fn not_allowed(explanation: impl Display) -> Self {
        Refusal::new(ReplyCode::NotAllowed, explanation)
    }

    /// 540
    pub(crate) fn not_implemented(explanation: impl Display) -> Self {
        Refusal::new(ReplyCode::NotImplemented, explanation)
    }

    /// 541, for an error that is not the client's, such as a failed log.
    pub(crate) fn internal(cause: impl Error + Send + Sync + 'static) -> Self {
        let cause = Arc::new(cause);
        Refusal { cause: Some(cause.clone()), ..Refusal::new(ReplyCode::InternalError, cause) }
    }

    /// 404 for a queue or an exchange.
    pub(crate) fn no_such(kind: &str, name: &str, vhost: &str) -> Self {
        Refusal::not_found(format_args!("no {kind} '{name}' in vhost '{vhost}'"))
    }
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Self {
        match error {
            Malformed::UnknownMethod { class, method } => {
                Refusal::not_implemented(format_args!("no method {method} of class {class}"))
            }
            Malformed::UnknownFieldType(_) | Malformed::TooDeep(_) => {
                Refusal::new(ReplyCode::SyntaxError, error)
            }
            Malformed::NotUtf8 => Refusal::frame_error(error),
            Malformed::Truncated | Malformed::Trailing => {
                Refusal::frame_error(format_args!("cannot decode: {error}"))
            }
        }
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        Refusal::frame_error(match error {
            FrameError::TooLarge { kind, payload_bytes, payload_bytes_max, .. } => {
                format!(
                    "type {kind}, all octets = <<>>: {{frame_too_large,{payload_bytes},{payload_bytes_max}}}"
                )
            }
            FrameError::BadEnd { kind, end, .. } => {
                format!("type {kind}, all octets = <<>>: {{invalid_frame_end_marker,{end}}}")
            }
        })
    }
}

/// The first octets of a frame's payload, in RabbitMQ's form of an Erlang binary.
pub(crate) fn snippet(payload: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 16;
    let shown = payload.get(..SHOWN_BYTES_MAX).unwrap_or(payload);
    let how_many = if shown.len() == payload.len() { "all" } else { "first 16" };
    let binary = match std::str::from_utf8(shown) {
        Ok(text)
            if !text.is_empty()
                && text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') =>
        {
            format!("<<\"{text}\">>")
        }
        _ => format!("<<{}>>", shown.iter().map(u8::to_string).collect::<Vec<_>>().join(",")),
    };
    format!("{how_many} octets = {binary}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_equal_rabbitmqs() {
        let refusal = Refusal::no_such("queue", "q", "/").at((50, 10)).at((1, 1));
        assert_eq!(refusal.text, "NOT_FOUND - no queue 'q' in vhost '/'");
        assert_eq!(refusal.method, (50, 10));
        assert!(!refusal.code.is_hard());
        assert!(Refusal::from(Malformed::Truncated).code.is_hard());
        assert_eq!(snippet(b"hello"), "all octets = <<\"hello\">>");
        assert_eq!(snippet(&[0; 20]), format!("first 16 octets = <<{}0>>", "0,".repeat(15)));
    }

    #[test]
    fn long_texts_are_truncated() {
        let refusal = Refusal::not_found("ä".repeat(300));
        assert!(refusal.text.len() <= 255 && refusal.text.len() > 250);
    }
}
