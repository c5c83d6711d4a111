//! What settling leaves to be written outside the lock: dropped messages and acknowledgements.

use std::ops::Range;

use inver_storage::batch::Record;
use inver_storage::{Cursor, Offset};

use crate::spec::{DeliveryId, DropReason};

/// A message that its queue dropped.
pub(crate) struct Dropped {
    pub(crate) id: DeliveryId,
    pub(crate) record: Record,
    pub(crate) reason: DropReason,
}

/// Acknowledgements by cursor.
pub(super) type AckBatch = Vec<(Cursor, Vec<Range<Offset>>)>;
