//! Identifiers of the log. Newtypes keep an offset from being taken for a position.

use std::fmt;

use bytes::Bytes;

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
    /// A stream of the log. Ids are never reused, not even after the stream was deleted.
    StreamId(u64)
}
id! {
    /// The position of a record in its stream: dense, from 0.
    Offset(u64)
}
id! {
    /// A byte position in the whole log. Callers see the position of an entry's END: the entry is committed when
    /// [`crate::Log::committed`] has reached its `Lsn`.
    Lsn(u64)
}
id! {
    /// A cursor: the acknowledgement state of one subscription on one stream. Ids are never reused.
    CursorId(u64)
}
id! {
    /// A table of opaque key → value state. Ids below [`TableId::RESERVED`] belong to the layers above.
    TableId(u16)
}

impl TableId {
    /// The first table id that the log reserves for its own state.
    pub const RESERVED: u16 = 0x8000;
    /// Stream id (big-endian) → compaction policy.
    pub(crate) const COMPACTION_POLICIES: TableId = TableId(Self::RESERVED);
    /// Stream id (big-endian) → compaction progress. Written to checkpoints only.
    pub(crate) const COMPACTION_PROGRESS: TableId = TableId(Self::RESERVED + 1);
}

impl Offset {
    /// The offset `count` records further on. Saturates: an offset never wraps.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

/// The key of a stream's row in the log's own tables.
pub(crate) fn stream_row_key(stream: u64) -> Bytes {
    Bytes::copy_from_slice(&stream.to_be_bytes())
}
