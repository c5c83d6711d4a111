//! Acknowledgement state of one subscription on one stream.
use std::ops::Range;
use std::sync::Arc;

use crate::error::LogError;
use crate::ids::{CursorId, Lsn, Offset, StreamId};

/// A cursor's handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cursor(Arc<CursorId>);

#[allow(unused_variables, clippy::unimplemented)]
impl Cursor {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> CursorId {
        *self.0
    }
    /// The stream it is on.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        unimplemented!()
    }
    /// All offsets below are acknowledged.
    #[must_use]
    pub fn position(&self) -> Offset {
        unimplemented!()
    }
    /// Whether this offset is acknowledged.
    #[must_use]
    pub fn is_acked(&self, offset: Offset) -> bool {
        unimplemented!()
    }
    /// What is acknowledged beyond the position, in order.
    #[must_use]
    pub fn acked_above(&self) -> Vec<Range<Offset>> {
        unimplemented!()
    }
    /// How often this offset came back (see [`crate::Entry::returned`]).
    #[must_use]
    pub fn delivery_count(&self, offset: Offset) -> u32 {
        unimplemented!()
    }
    /// Acknowledges offsets. All acknowledgements of a commit window share one entry; who must answer waits for
    /// the returned position to be committed.
    pub fn ack(&self, ranges: &[Range<Offset>]) -> Result<Lsn, LogError> {
        unimplemented!()
    }
}
