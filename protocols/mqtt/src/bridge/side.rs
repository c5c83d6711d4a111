//! The two sides of a bridge.

use std::fmt;

/// Which of the two connections of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one to this broker.
    Local,
    /// The one to the other server.
    Remote,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Local => "this broker",
            Side::Remote => "the other server",
        })
    }
}
