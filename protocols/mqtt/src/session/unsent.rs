//! What the output had no room for.

use inver_broker::LiveBatch;

/// A batch that was not written, or not whole.
pub(super) struct RestOfBatch {
    pub(super) batch: LiveBatch,
    /// Messages of it that were taken.
    pub(super) taken: usize,
}
