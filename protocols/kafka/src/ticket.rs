//! A response that someone else will give: the group's coordinator, or a thread that reads from the disk.

use std::sync::Arc;

use inver_broker::Mailbox;
use parking_lot::Mutex;

use crate::codec::frame::Frame;

/// The token that says: a ticket was filled.
pub(crate) const FILLED: u64 = 1 << 63;

/// In the hands of who will answer. Dropped unfilled, it leaves the claim without an answer for ever, so the
/// connection is ended.
pub(crate) struct Ticket {
    slot: Arc<Mutex<Slot>>,
    mailbox: Arc<Mailbox>,
}

/// In the hands of the connection that waits.
#[derive(Debug)]
pub(crate) struct Claim(Arc<Mutex<Slot>>);

#[derive(Debug)]
enum Slot {
    Waiting,
    Filled(Frame),
    Abandoned,
}

/// What became of a claim.
pub(crate) enum Claimed {
    /// Not yet.
    Waiting,
    /// Here it is.
    Frame(Frame),
    /// Nobody will answer.
    Abandoned,
}

impl Ticket {
    /// A ticket and the claim on it.
    pub(crate) fn new(mailbox: &Arc<Mailbox>) -> (Ticket, Claim) {
        let slot = Arc::new(Mutex::new(Slot::Waiting));
        (Ticket { slot: slot.clone(), mailbox: mailbox.clone() }, Claim(slot))
    }

    /// Gives the answer and wakes who waits for it.
    pub(crate) fn fill(self, frame: Frame) {
        *self.slot.lock() = Slot::Filled(frame);
    }

    /// Whether `claim` is the other half.
    pub(crate) fn belongs_to(&self, claim: &Claim) -> bool {
        Arc::ptr_eq(&self.slot, &claim.0)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        {
            let mut slot = self.slot.lock();
            if matches!(*slot, Slot::Waiting) {
                *slot = Slot::Abandoned;
            }
        }
        self.mailbox.post(FILLED);
    }
}

impl Claim {
    /// Whether there is still nothing.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(*self.0.lock(), Slot::Waiting)
    }

    /// Takes the answer if there is one.
    pub(crate) fn take(&self) -> Claimed {
        let mut slot = self.0.lock();
        match std::mem::replace(&mut *slot, Slot::Abandoned) {
            Slot::Filled(frame) => Claimed::Frame(frame),
            Slot::Abandoned => Claimed::Abandoned,
            Slot::Waiting => {
                *slot = Slot::Waiting;
                Claimed::Waiting
            }
        }
    }
}
