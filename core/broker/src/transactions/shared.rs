//! What the transactions of a namespace share.

use std::sync::Arc;

use bytes::Bytes;
use inver_storage::{Held, Share};
use parking_lot::Mutex;

use super::pending::Pending;
use super::rows;
use crate::context::Context;

/// The share of the largest entry that the parts of a transaction take at its end.
const ENTRY_SHARE: usize = 4;

/// What the transactions of a namespace share.
pub(super) struct Shared {
    pub(super) namespace: u32,
    pub(super) context: Arc<Context>,
    /// Partitions, groups and offsets of one transaction.
    pub(super) parts_max: usize,
    pub(super) pending: Pending,
    held: Mutex<Holding>,
}

/// The memory that the parts of open transactions hold, from the first on.
#[derive(Default)]
struct Holding {
    bytes: usize,
    held: Option<Held>,
}

impl Shared {
    pub(super) fn new(namespace: u32, context: Arc<Context>, parts_max: usize) -> Shared {
        Shared { namespace, context, parts_max, pending: Pending::default(), held: Mutex::default() }
    }

    /// Bytes of the parts of one transaction: it ends in one entry, which has room for records as well.
    pub(super) fn part_bytes_max(&self) -> usize {
        self.context.log.entry_bytes_max() / ENTRY_SHARE
    }

    /// Accounts for parts that took `before` bytes and take `after` from now on.
    pub(super) fn account(&self, before: usize, after: usize) {
        if before == after {
            return;
        }
        let mut holding = self.held.lock();
        holding.bytes = (holding.bytes + after).saturating_sub(before);
        let bytes = holding.bytes;
        holding.held.get_or_insert_with(|| self.context.log.memory().holder(Share::Offsets)).force(bytes);
    }

    /// The steady time.
    pub(super) fn now_ms(&self) -> i64 {
        self.context.clock.steady_ms()
    }

    /// The key of the row of an id.
    pub(super) fn key(&self, id: &str) -> Bytes {
        rows::transaction_key(self.namespace, id)
    }
}
