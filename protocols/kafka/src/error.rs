//! The reasons for which the broker ends a connection. Milder errors are error codes in responses.

use inver_broker::{CloseReason, LoginRefusal};
use inver_storage::LogError;
use thiserror::Error;

use crate::codec::reader::DecodeError;

/// An error that ends the connection.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    /// The body of a request cannot be decoded.
    #[error("malformed {api} request, version {version}: {source}")]
    Malformed {
        /// Name of the API.
        api: &'static str,
        /// Version of the request.
        version: i16,
        /// The reason.
        source: DecodeError,
    },
    /// The header of a request cannot be decoded.
    #[error("malformed request header: {0}")]
    NotARequest(DecodeError),
    /// The length of a request is negative or above the limit.
    #[error("request of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLong {
        /// Length that the client announced.
        bytes: i64,
        /// The limit.
        bytes_max: usize,
    },
    /// An API or version that was not advertised.
    #[error("unsupported API key {api_key}, version {api_version}")]
    Unsupported {
        /// Api key.
        api_key: i16,
        /// Version.
        api_version: i16,
    },
    /// A request of an unauthenticated client.
    #[error("{api} request before authentication")]
    NotAuthenticated {
        /// Name of the API.
        api: &'static str,
    },
    /// Authentication failed; the client was told.
    #[error("authentication failed")]
    AuthenticationFailed,
    /// A request other than for a new authentication, after the credential expired (KIP-368).
    #[error("{api} request after the credential expired")]
    Expired {
        /// Name of the API.
        api: &'static str,
    },
    /// A produce request with `acks=0` failed: it has no response, and Kafka closes the connection.
    #[error("produce request with acks=0 failed: {0}")]
    ProduceWithoutAcks(String),
    /// The task that was to give a response is gone: a defect of the broker.
    #[error("a request was left without a response")]
    Unanswered,
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No request within the idle timeout.
    #[error("idle timeout")]
    Idle,
    /// No authentication in time.
    #[error("authentication timeout")]
    NoLogin,
    /// A request was not complete in time.
    #[error("request timeout: a request was not complete in time")]
    TooSlow,
    /// The server shuts down.
    #[error("server is shutting down")]
    ShuttingDown,
    /// The broker closes the connection: its user or namespace is gone, or an operator asked for it.
    #[error("{0}")]
    Closed(CloseReason),
}

impl ConnectionError {
    /// The reason in metrics, for a client that was not logged in.
    pub(crate) fn login_refusal(&self) -> LoginRefusal {
        match self {
            ConnectionError::AuthenticationFailed => LoginRefusal::Credentials,
            ConnectionError::NotAuthenticated { .. } => LoginRefusal::CredentialsRequired,
            ConnectionError::NoLogin | ConnectionError::Idle | ConnectionError::TooSlow => {
                LoginRefusal::Timeout
            }
            ConnectionError::Unanswered | ConnectionError::Log(_) | ConnectionError::ShuttingDown => {
                LoginRefusal::Unavailable
            }
            _ => LoginRefusal::Protocol,
        }
    }
}
