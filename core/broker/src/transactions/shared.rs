//! What the transactions of a namespace share.

use std::sync::Arc;

use bytes::Bytes;

use super::pending::Pending;
use super::rows;
use crate::context::Context;

/// What the transactions of a namespace share.
pub(super) struct Shared {
    pub(super) namespace: u32,
    pub(super) context: Arc<Context>,
    /// Partitions, groups and offsets of one transaction.
    pub(super) parts_max: usize,
    pub(super) pending: Pending,
}

impl Shared {
    /// The steady time.
    pub(super) fn now_ms(&self) -> i64 {
        self.context.clock.steady_ms()
    }

    /// The key of the row of an id.
    pub(super) fn key(&self, id: &str) -> Bytes {
        rows::transaction_key(self.namespace, id)
    }
}
