//! The reasons why the protocol ends a connection.

use inver_storage::LogError;

/// Why the protocol ends a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// Nothing more is sent.
    #[error("closed")]
    Over,
    /// The login was not done in time.
    #[error("handshake took too long")]
    LoginTimeout,
    /// The client was silent for two heartbeat intervals.
    #[error("missed heartbeats from client")]
    HeartbeatsMissed,
    /// The client did not answer `connection.close`.
    #[error("connection.close was not answered")]
    CloseUnanswered,
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}
