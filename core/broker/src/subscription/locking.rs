//! The lock of a subscription's state, which the log's writer never waits for.
//!
//! When a stream of the subscription advances while its lock is held, a flag tells the holder, which handles the advance
//! after its own work. So no work under the lock delays commits.

use std::sync::Weak;

use super::Subscription;
use super::flagged_lock::FlaggedLock;
use super::state::State;
use crate::context::Due;
use crate::sync::MutexGuard;

/// The state of a subscription under its lock.
pub(super) struct StateLock {
    /// The flag: a stream advanced, and nobody has handled that.
    state: FlaggedLock<State>,
    /// The subscription itself.
    of: Weak<Subscription>,
}

impl StateLock {
    pub(super) fn new(of: Weak<Subscription>, state: State) -> StateLock {
        StateLock { state: FlaggedLock::new(state), of }
    }
}

impl Subscription {
    /// Runs a function under the lock, and sends the wake-ups that it left after the lock is released.
    pub(super) fn locked<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let done = self.run(self.state.state.lock(), act);
        self.handle_advances();
        done
    }

    /// Handles the advance of a stream. Never waits: it runs on the log's writer.
    pub(super) fn advanced(&self) {
        self.state.state.flag();
        self.handle_advances();
    }

    fn run<R>(&self, mut state: MutexGuard<'_, State>, act: impl FnOnce(&mut State) -> R) -> R {
        let done = act(&mut state);
        if let Some((set_ms, at_ms)) = state.slots.take_check_request()
            && let Some(subscription) = self.state.of.upgrade()
        {
            self.context.timers.reschedule(set_ms, at_ms, Due::of(&subscription));
        }
        let wakeups = std::mem::take(&mut state.wakeups);
        drop(state);
        wakeups.into_iter().for_each(|(mailbox, token)| mailbox.post(token));
        done
    }

    fn handle_advances(&self) {
        while let Some(state) = self.state.state.flagged() {
            let is_over = self
                .run(state, |state| self.state.state.take_flag() && state.advanced(self.limits().as_ref()));
            if is_over {
                self.recheck();
            }
        }
    }
}
