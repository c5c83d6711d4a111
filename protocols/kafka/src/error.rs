//! Why a connection ends before its client wants it to. Everything milder is an error code in a response.

use inver_storage::LogError;
use thiserror::Error;

use crate::codec::reader::DecodeError;

/// A defect that no response can tell.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// A request that is not one.
    #[error("a malformed request ({api} version {version}): {source}")]
    Malformed {
        /// The kind of request, as far as it was understood.
        api: &'static str,
        /// Its version.
        version: i16,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The bytes do not begin as a request.
    #[error("not a request: {0}")]
    NotARequest(DecodeError),
    /// A request of impossible length.
    #[error("a request of {bytes} bytes; at most {bytes_max} are taken here")]
    TooLong {
        /// What the client said.
        bytes: i64,
        /// The bound.
        bytes_max: usize,
    },
    /// A kind or version of request that was not advertised.
    #[error("request kind {api_key} version {api_version} is not among those advertised")]
    Unsupported {
        /// The kind.
        api_key: i16,
        /// The version.
        api_version: i16,
    },
    /// A request that only those may make who have shown who they are.
    #[error("{api} before authentication")]
    NotAuthenticated {
        /// The kind of request.
        api: &'static str,
    },
    /// Authentication failed; the client was told.
    #[error("authentication failed")]
    AuthenticationFailed,
    /// A produce request that wants no answer cannot be told what is wrong with it; Kafka hangs up on it.
    #[error("a produce request without acknowledgement failed: {0}")]
    Unanswerable(String),
    /// Who was to give a response is gone; a defect of the broker's own.
    #[error("a request was left without an answer")]
    Unanswered,
    /// The log failed: nothing can be acknowledged any more.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No request for too long.
    #[error("idle for too long")]
    Idle,
    /// The client has not shown in time who it is.
    #[error("no login in time")]
    NoLogin,
    /// A request came too slowly.
    #[error("a request was not whole in time")]
    TooSlow,
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}
