//! The log's names for things: newtypes, so that an offset is never taken for a position.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

id! {
    /// A stream of the log. Never reused, not even after the stream was deleted.
    StreamId(u64)
}
id! {
    /// A record's place in its stream: dense, from 0.
    Offset(u64)
}
id! {
    /// A byte position in the whole log. The position of an entry, as callers see it, is its END:
    /// an entry is committed when [`crate::Log::committed`] has reached its `Lsn`.
    Lsn(u64)
}
id! {
    /// A cursor: the acknowledgement state of one subscription on one stream. Never reused.
    CursorId(u64)
}
id! {
    /// A table of opaque key → value state. Ids below [`TableId::RESERVED`] belong to the layers above.
    TableId(u16)
}

impl TableId {
    /// The first table id that the log keeps for itself.
    pub const RESERVED: u16 = 0x8000;
}

impl Offset {
    /// The offset `count` records further on (saturating: an offset never wraps).
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}
