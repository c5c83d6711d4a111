//! Exclusive subscriptions: of those of one filter only one session has one at a time.

use std::collections::HashMap;

use parking_lot::Mutex;

/// The filters of a namespace that sessions have for themselves. Bounded by the subscriptions of the sessions.
#[derive(Default)]
pub(super) struct Exclusive(Mutex<HashMap<Box<[u8]>, u64>>);

impl Exclusive {
    /// Gives a filter to a session; false if another one has it.
    pub(super) fn claim(&self, filter: &[u8], session: u64) -> bool {
        *self.0.lock().entry(filter.into()).or_insert(session) == session
    }

    /// Takes a filter from a session that has it.
    pub(super) fn release(&self, filter: &[u8], session: u64) {
        let mut holders = self.0.lock();
        if holders.get(filter) == Some(&session) {
            holders.remove(filter);
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}
