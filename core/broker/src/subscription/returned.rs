//! The return of what a consumer leaves unacknowledged, which may be a million messages.
//!
//! They are taken out under the lock as a whole, put in order outside it (many of them on another thread), and join the
//! requeued ones under the lock. Meanwhile nothing is taken from the subscription, so that no newer message overtakes them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use inver_storage::{Cursor, Entry, Log, Offset};

use super::priorities::rank_of;
use super::slots::SlotId;
use super::source::{Source, StreamSource};
use super::state::{InFlight, Requeued, State, UnackedMessage};
use super::{DeliveryId, Mode, Subscription};
use crate::seeded_bugs::{Bug, is_seeded};

/// So many messages are put in order at once; more of them, on a thread where blocking is allowed.
const AT_ONCE_MAX: usize = 10_000;

/// Messages are inserted one by one into so many times as many that wait. A thousand consumers that leave at once must not
/// cost a walk over all messages each.
const INSERTED_ONE_BY_ONE: usize = 16;

/// So many returned messages are counted one by one in the log; of more of them, the ranges that they are in.
const COUNTED_ONE_BY_ONE_MAX: usize = 1024;

/// Ranges that are counted for one consumer.
const RANGES_MAX: usize = 8;

/// Messages in their order, with the bytes of their values.
struct Returned {
    messages: BTreeMap<DeliveryId, Requeued>,
    value_bytes: i64,
}

impl Returned {
    /// `ranks`: the queue has priorities.
    fn of(in_flight: InFlight, ranks: bool) -> Returned {
        let mut value_bytes = 0;
        let again = |(id, message): (DeliveryId, UnackedMessage)| {
            let UnackedMessage { redelivered, value_bytes: bytes, .. } = message;
            value_bytes += i64::from(bytes);
            let rank = if ranks { rank_of(&message) } else { 0 };
            (id, Requeued { redelivered: redelivered + 1, value_bytes: bytes, rank, drop_reason: None })
        };
        // The tree sorts them and is built as a whole, which is much faster than inserting one by one.
        let messages = in_flight.unacked.into_iter().map(again).collect();
        Returned { messages, value_bytes }
    }
}

impl Subscription {
    /// Lets all unacknowledged messages of a consumer that leaves wait again.
    pub(super) fn return_unacked(self: &Arc<Self>, slot: SlotId) {
        let (ranks, in_flight) =
            self.locked(|state| (state.priorities.is_some(), state.take_in_flight(slot)));
        let Some(in_flight) = in_flight else { return };
        let count = in_flight.unacked.len();
        let subscription = self.clone();
        let finish = move || {
            let returned = Returned::of(in_flight, ranks);
            subscription.count_returned(&returned);
            subscription.locked(|state| {
                state.put_returned(returned);
                state.take_back_delivered(&subscription.context.log);
            });
            subscription.schedule_check();
        };
        self.context.blocking.spawn_if_many(count, AT_ONCE_MAX, finish);
    }
}

impl Subscription {
    /// Notes in the log that these messages were delivered once more, before they can be again.
    fn count_returned(&self, returned: &Returned) {
        let partitions = self.locked(|state| state.noting_partitions());
        let mut entry = Entry::new();
        for (partition, cursor) in partitions {
            let from = DeliveryId { partition, offset: 0 };
            let to = DeliveryId { partition, offset: u64::MAX };
            let offsets = returned.messages.range(from..=to).map(|(id, _)| id.offset);
            if returned.messages.len() > COUNTED_ONE_BY_ONE_MAX {
                let ranges = ranges(offsets);
                self.locked(|state| state.count_ranges(partition, ranges));
                continue;
            }
            let offsets: Vec<Offset> = offsets.map(Offset).collect();
            if !offsets.is_empty() {
                entry.returned(&cursor, &offsets);
            }
        }
        if !entry.is_empty()
            && let Err(error) = self.context.log.submit(entry)
        {
            tracing::debug!(subscription = %self.name, %error, "failed to count returned messages");
        }
    }
}

/// Ascending offsets as ranges, at most [`RANGES_MAX`]: the last one takes in what is beyond.
fn ranges(offsets: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for offset in offsets {
        let is_full = ranges.len() == RANGES_MAX;
        match ranges.last_mut() {
            Some(last) if last.end == offset || is_full => last.end = offset + 1,
            _ => ranges.push(offset..offset + 1),
        }
    }
    ranges
}

impl State {
    /// The partitions whose deliveries are noted in the log, with their cursors.
    fn noting_partitions(&self) -> Vec<(u32, Cursor)> {
        let noting = self.sources.iter().enumerate().filter_map(|(at, source)| match source {
            Source::Stream(s) if s.notes_delivered() => Some((at as u32, s.cursor.clone()?)),
            _ => None,
        });
        noting.collect()
    }

    fn count_ranges(&mut self, partition: u32, ranges: Vec<Range<u64>>) {
        if let Some(Source::Stream(source)) = self.sources.get_mut(partition as usize) {
            source.returned(ranges);
        }
    }

    /// Writes to the log what changed of what is delivered. Under the lock, so that the log's order is that of the changes.
    pub(super) fn write_delivered(&mut self, log: &Log) {
        let mut entry = Entry::new();
        self.streams_mut().for_each(|source| source.put_delivered(&mut entry));
        if !entry.is_empty()
            && !is_seeded(Bug::ForgetDelivered)
            && let Err(error) = log.submit(entry)
        {
            tracing::debug!(%error, "failed to note what is delivered");
        }
    }

    /// Once nothing is delivered and unacknowledged, says so in the log.
    pub(super) fn take_back_delivered(&mut self, log: &Log) {
        if self.unacked == 0 {
            self.streams_mut().for_each(StreamSource::take_back);
        }
        self.write_delivered(log);
    }

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
        if is_seeded(Bug::LoseUnacked) {
            return;
        }
        self.limits.bytes.change(value_bytes);
        if let Some(priorities) = &mut self.priorities {
            messages.into_iter().for_each(|(id, requeued)| priorities.put_back(id, requeued));
        } else if self.requeued.is_empty() {
            self.requeued = messages;
        } else if messages.len() < self.requeued.len() / INSERTED_ONE_BY_ONE {
            self.requeued.extend(messages);
        } else {
            // Builds a new tree, which costs as much as there are messages of both.
            self.requeued.append(&mut messages);
        }
        self.try_again();
        self.wake_passive();
    }
}
