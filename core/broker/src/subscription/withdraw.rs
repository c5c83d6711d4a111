//! Withdrawing a message that waits until it is due.

use std::sync::Arc;

use inver_storage::SubmitError;

use super::state::{Load, State};
use super::{DeliveryId, Subscription};
use crate::completion::Completion;

/// The outcome of withdrawing a message.
pub(crate) enum Withdrawn {
    /// It is never published; complete once that holds.
    Yes(Completion),
    /// It does not wait.
    No,
    /// What waits is being read from the disk.
    Busy,
}

impl Subscription {
    /// Takes out a message that is due at this time.
    pub(crate) fn withdraw(self: &Arc<Self>, due_ms: i64, offset: u64) -> Result<Withdrawn, SubmitError> {
        let mut loads: Vec<Load> = Vec::new();
        let (is_known, is_out) = self.locked(|state| state.withdraw(due_ms, offset, &mut loads));
        loads.into_iter().for_each(|load| load.spawn(self));
        if is_out {
            let id = DeliveryId { partition: 0, offset };
            return Ok(Withdrawn::Yes(self.ack_dropped(vec![id])?));
        }
        Ok(if is_known { Withdrawn::No } else { Withdrawn::Busy })
    }
}

impl State {
    /// Whether all that waits is known, and whether the message was taken out.
    fn withdraw(&mut self, due_ms: i64, offset: u64, loads: &mut Vec<Load>) -> (bool, bool) {
        self.index(loads);
        let Some(priorities) = &mut self.priorities else { return (true, false) };
        (priorities.is_complete(), priorities.take_due(due_ms, offset))
    }
}
