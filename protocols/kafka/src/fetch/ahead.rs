//! Batches of one partition read before the client requests them.

use inver_storage::{Offset, StoredBatch};

/// The read-ahead of one partition.
#[derive(Default)]
pub(super) enum Ahead {
    /// None.
    #[default]
    Nothing,
    /// The read with this number is in progress.
    Reading { number: u64, from: Offset },
    /// At least one batch, starting at this offset.
    Ready { from: Offset, batches: Vec<StoredBatch> },
}

impl Ahead {
    /// The batches that were read and not taken.
    pub(super) fn rest(from: Offset, batches: Vec<StoredBatch>) -> Ahead {
        if batches.is_empty() { Ahead::Nothing } else { Ahead::Ready { from, batches } }
    }

    /// Drops the read-ahead unless it starts at the requested offset.
    pub(super) fn keep_if_from(&mut self, requested: Offset) {
        match self {
            Ahead::Reading { from, .. } | Ahead::Ready { from, .. } if *from != requested => {
                *self = Ahead::Nothing;
            }
            _ => {}
        }
    }
}
