//! Why the broker closes a connection from its side.

use std::sync::Arc;

/// Why the broker closes a connection. The text is for the client, and is that of the protocol's own words where it has
/// some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Somebody asked for it, with this text.
    #[error("{0}")]
    Asked(Arc<str>),
    /// Its namespace was deleted.
    #[error("namespace '{0}' was deleted")]
    NamespaceDeleted(Arc<str>),
    /// Its user was deleted.
    #[error("user '{0}' was deleted")]
    UserDeleted(Arc<str>),
    /// Its user was disabled.
    #[error("user '{0}' was disabled")]
    UserDisabled(Arc<str>),
    /// The time of what it proved to be with is over.
    #[error("credential expired")]
    CredentialExpired,
}
