//! What a connection keeps for its client, in the account of all memory.
//!
//! Counted when the turns of a connection are over, not in each: a turn reads little. A connection that keeps little has no
//! account. While memory is tight, input is read in small pieces, a connection that has its part is not read, and messages are
//! delivered only as far as the client takes them.

use std::sync::Arc;
use std::time::Duration;

use inver_broker::Mailbox;
use inver_storage::{Account, Memory};
use tokio::time::Instant;

/// Up to this no account is needed: none counts so little.
const LITTLE_BYTES: usize = 4 << 10;
/// Time after which a client that was not read for want of memory may be.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of one read, and of messages in one turn, while memory is tight.
pub(crate) const TIGHT_BYTES: usize = 16 << 10;

/// Bytes that a connection keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holding {
    pub(crate) input: usize,
    pub(crate) transactions: usize,
    pub(crate) output: usize,
}

impl Holding {
    fn is_little(&self) -> bool {
        (self.input | self.transactions | self.output) <= LITTLE_BYTES
    }
}

/// The account of a connection that keeps more than a little, or did.
pub(crate) struct Kept {
    account: Account,
    /// When the client, which is not read for want of memory, may be read again.
    retry: Option<Instant>,
}

impl Kept {
    /// Accounts for what is kept; `holder` is asked for the mailbox when there is much for the first time.
    pub(crate) fn update(
        kept: &mut Option<Box<Kept>>,
        holding: Holding,
        memory: &Arc<Memory>,
        holder: impl FnOnce() -> Arc<Mailbox>,
    ) {
        if kept.is_none() {
            if holding.is_little() {
                return;
            }
            let Holding { input, transactions, output } = holding;
            if [input, transactions, output].iter().all(|bytes| *bytes <= memory.free_bytes()) {
                return;
            }
        }
        let account = || Box::new(Kept { account: memory.account(holder()), retry: None });
        let Kept { account, .. } = &mut **kept.get_or_insert_with(account);
        account.set(holding.input, holding.transactions, holding.output);
    }

    /// Whether more input may be kept. If not, there is a time to try again.
    pub(crate) fn may_read(&mut self, now: Instant) -> bool {
        let may_read = self.account.may_grow();
        self.retry = (!may_read).then(|| now + PAUSE);
        may_read
    }

    /// When to try to read again.
    pub(crate) fn retry(&self) -> Option<Instant> {
        self.retry
    }

    /// The time to try again has come.
    pub(crate) fn tried(&mut self, now: Instant) {
        self.retry = self.retry.filter(|at| *at > now);
    }
}
