//! The return of what a consumer leaves unacknowledged, which may be a million messages.
//!
//! They are taken out under the lock as a whole, put in order outside it (many of them on another thread), and join the
//! requeued ones under the lock. Meanwhile nothing is taken from the subscription, so that no newer message overtakes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::slots::SlotId;
use super::state::{InFlight, Requeued, State, UnackedMessage};
use super::{DeliveryId, Mode, Subscription};

/// So many messages are put in order at once; more of them, on a thread where blocking is allowed.
const AT_ONCE_MAX: usize = 10_000;

/// Messages in their order, with the bytes of their values.
struct Returned {
    messages: BTreeMap<DeliveryId, Requeued>,
    value_bytes: i64,
}

impl Returned {
    fn of(in_flight: InFlight) -> Returned {
        let mut value_bytes = 0;
        let again = |(id, message): (DeliveryId, UnackedMessage)| {
            let UnackedMessage { redelivered, value_bytes: bytes, .. } = message;
            value_bytes += i64::from(bytes);
            (id, Requeued { redelivered: redelivered + 1, value_bytes: bytes, drop_reason: None })
        };
        // The tree sorts them and is built as a whole, which is much faster than inserting one by one.
        let messages = in_flight.unacked.into_iter().map(again).collect();
        Returned { messages, value_bytes }
    }
}

impl Subscription {
    /// Lets all unacknowledged messages of a consumer that leaves wait again.
    pub(super) fn return_unacked(self: &Arc<Self>, slot: SlotId) {
        let Some(in_flight) = self.locked(|state| state.take_in_flight(slot)) else { return };
        let count = in_flight.unacked.len();
        let subscription = self.clone();
        let finish = move || {
            let returned = Returned::of(in_flight);
            subscription.locked(|state| state.put_returned(returned));
            subscription.schedule_check();
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if count > AT_ONCE_MAX => drop(runtime.spawn_blocking(finish)),
            _ => finish(),
        }
    }
}

impl State {
    /// Takes the unacknowledged messages of a consumer out; they still count as such.
    fn take_in_flight(&mut self, slot: SlotId) -> Option<InFlight> {
        let in_flight = self.in_flight_by_consumer.remove(&slot)?;
        if in_flight.unacked.is_empty() {
            return None;
        }
        if self.mode == Mode::KeyShared {
            in_flight.unacked.values().for_each(|message| self.keys.release(message.key, slot));
            self.unassign_all();
        }
        self.returning += in_flight.unacked.len() as u64;
        Some(in_flight)
    }

    fn put_returned(&mut self, returned: Returned) {
        let Returned { mut messages, value_bytes } = returned;
        let count = messages.len() as u64;
        self.returning -= count;
        if self.closed {
            return;
        }
        self.unacked -= count;
        self.limits.bytes.change(value_bytes);
        if self.requeued.is_empty() {
            self.requeued = messages;
        } else {
            self.requeued.append(&mut messages);
        }
        self.wake_waiting();
        self.wake_passive();
    }
}
