//! Identities of publishers, and how sessions subscribe and expire.

use bytes::Bytes;

/// The publisher of a message, as routing needs it.
#[derive(Clone, Debug, Default)]
pub struct PublisherId {
    /// The protocol's name.
    pub origin: &'static str,
    /// The session, for bindings that skip the session's own publishes.
    pub session: Option<u64>,
}

/// How a session subscribed to a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Guaranteed messages are delivered guaranteed.
    pub guaranteed: bool,
    /// The session's own publishes are not delivered to it.
    pub no_local: bool,
    /// No other session may have an exclusive subscription of the same filter.
    pub exclusive: bool,
    /// Bytes that the protocol keeps with the subscription.
    pub opaque: Bytes,
}

/// How long a session outlives its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Ends with the connection.
    AtDetach,
    /// Ends this many seconds after the connection.
    After(u32),
    /// Never ends by itself.
    Never,
}

impl Expiry {
    pub(crate) fn outlives_connection(self) -> bool {
        !matches!(self, Expiry::AtDetach | Expiry::After(0))
    }

    /// Seconds, as stored; none: never.
    pub(crate) fn seconds(self) -> Option<u32> {
        match self {
            Expiry::Never => None,
            Expiry::After(s) => Some(s),
            Expiry::AtDetach => Some(0),
        }
    }

    /// When a session expires whose connection ended at `since_ms` (milliseconds since 1970).
    pub(crate) fn ends_ms(self, since_ms: i64) -> Option<i64> {
        match self {
            Expiry::Never => None,
            Expiry::AtDetach => Some(since_ms),
            Expiry::After(s) => Some(since_ms.saturating_add(i64::from(s) * 1000)),
        }
    }
}
