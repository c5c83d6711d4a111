//! What a subscription shows to administration: its positions, its consumers, and its messages without taking them.

use inver_storage::{Offset, ReadError, Stream};

use super::Subscription;
use super::source::Source;
use super::state::State;
use crate::peek::{self, PeekBounds, Peeked, PeekedMessage};
use crate::spec::{DeliveryId, Mode};

/// Offsets that one peek reads, returned or not.
const VISITED_MAX: u64 = 100_000;

/// The position in one stream of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition, or the index of the source within its subscription.
    pub partition: u32,
    /// The offset below which everything is acknowledged; for one that is not durable, the next offset to deliver.
    pub offset: u64,
    /// The first offset kept.
    pub start: u64,
    /// The next visible offset.
    pub end: u64,
    /// Messages that wait to be delivered.
    pub ready: u64,
    /// Offsets up to `end` that are not acknowledged, those without a message included.
    pub left: u64,
}

/// A consumer of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The id of its connection in the registry, where that is known.
    pub connection: Option<u64>,
    /// Higher ones are served first.
    pub priority: i32,
    /// No other consumer may attach.
    pub exclusive: bool,
    /// Messages are acknowledged as they are delivered.
    pub auto_ack: bool,
    /// It receives messages now; with failover, the others wait.
    pub active: bool,
    /// Messages delivered to it and not acknowledged.
    pub unacked: u64,
}

/// The memory that messages of queues use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueMemory {
    /// Of messages that wait in queues in memory, but for those that several queues share.
    pub waiting_bytes: u64,
    /// Of messages that are delivered and not acknowledged, as far as they are kept.
    pub unacked_bytes: u64,
}

impl State {
    fn position_list(&self) -> Vec<(u32, Stream, u64, u64, u64)> {
        let position = |(partition, source): (usize, &Source)| match source {
            Source::Stream(s) => {
                let offset = s.cursor.as_ref().map_or(s.position(), |cursor| cursor.position().0);
                let acked = s.cursor.as_ref().map(|cursor| cursor.acked_above()).unwrap_or_default();
                let acked = acked.iter().map(|range| range.end.0 - range.start.0).sum();
                Some((partition as u32, s.stream.clone(), offset, s.ready(), acked))
            }
            Source::Memory(_) => None,
        };
        self.sources.iter().enumerate().filter_map(position).collect()
    }

    fn members(&self) -> Vec<Member> {
        let active = (self.mode == Mode::Failover).then(|| self.active());
        let member = |id| {
            let spec = &self.slots.get(id)?.spec;
            let unacked = self.in_flight_by_consumer.get(&id).map_or(0, |held| held.unacked.len() as u64);
            Some(Member {
                connection: spec.mailbox.connection(),
                priority: spec.priority,
                exclusive: spec.exclusive,
                auto_ack: spec.auto_ack,
                active: active.is_none_or(|active| active == Some(id)),
                unacked,
            })
        };
        self.slots.ids().filter_map(member).collect()
    }

    fn is_unacked(&self, id: DeliveryId) -> bool {
        self.in_flight_by_consumer.values().any(|held| held.unacked.contains_key(&id))
    }
}

impl Subscription {
    /// Its position in each of its streams; none for a queue in memory.
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        let positions = self.locked(|state| state.position_list()).into_iter();
        positions
            .map(|(partition, stream, offset, ready, acked)| {
                position(partition, &stream, offset, ready, acked)
            })
            .collect()
    }

    /// The memory that its messages use.
    #[must_use]
    pub fn memory(&self) -> QueueMemory {
        self.locked(|state| QueueMemory {
            waiting_bytes: state.sources.iter().map(Source::memory_bytes).sum(),
            unacked_bytes: state.in_flight_by_consumer.values().map(|held| held.bytes as u64).sum(),
        })
    }

    /// Its consumers.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.locked(|state| state.members())
    }

    /// The timestamp of the oldest message that is not acknowledged, milliseconds since 1970; none if there is none, or
    /// for a queue in memory. Can read from disk: call where blocking is allowed.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn oldest_ms(&self) -> Result<Option<i64>, ReadError> {
        let positions = self.locked(|state| state.position_list());
        let mut oldest: Option<i64> = None;
        for (_, stream, offset, ..) in positions {
            if let Some(at) = peek::timestamp_at(&stream, Offset(offset))? {
                oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
            }
        }
        Ok(oldest)
    }

    /// Reads messages of a queue that are not acknowledged, from an offset on, without taking or marking them. Can read
    /// from disk: call where blocking is allowed.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn peek(&self, from: u64, messages_max: usize, bytes_max: usize) -> Result<Peeked, ReadError> {
        let bounds = PeekBounds { messages_max, bytes_max, visited_max: VISITED_MAX };
        let stream = self.locked(|state| match state.sources.first() {
            Some(Source::Stream(s)) => Some((s.stream.clone(), s.cursor.clone())),
            _ => None,
        });
        let mut peeked = match stream {
            Some((stream, cursor)) => {
                let names = &self.context.stream_names;
                let from = cursor.as_ref().map_or(from, |cursor| from.max(cursor.position().0));
                let is_acked = |offset| cursor.as_ref().is_some_and(|cursor| cursor.is_acked(Offset(offset)));
                peek::stream(&stream, Offset(from), &bounds, |stream| names.get(stream), is_acked)?
            }
            None => self.peek_memory(from, &bounds)?,
        };
        self.locked(|state| {
            for message in &mut peeked.messages {
                message.unacked = state.is_unacked(DeliveryId { partition: 0, offset: message.offset });
            }
        });
        Ok(peeked)
    }

    fn peek_memory(&self, from: u64, bounds: &PeekBounds) -> Result<Peeked, ReadError> {
        let waiting = self.locked(|state| {
            // One more than wanted tells whether there are more.
            let max = bounds.messages_max.saturating_add(1);
            state.memory().map(|memory| (memory.peek(from, max), memory.spilled_position()))
        });
        let Some((mut messages, spilled)) = waiting else { return Ok(Peeked::default()) };
        if messages.len() <= bounds.messages_max
            && let Some((stream, position, shift)) = spilled
        {
            let from = position.max(from.wrapping_sub(shift).min(stream.high_watermark().0));
            let more = peek::stream(&stream, Offset(from), bounds, |_| None, |_| false)?;
            messages.extend(
                more.messages
                    .into_iter()
                    .map(|message| PeekedMessage { offset: message.offset.wrapping_add(shift), ..message }),
            );
        }
        let mut bytes = 0;
        let fits = |message: &&PeekedMessage| {
            bytes += peek::size(&message.record);
            bytes <= bounds.bytes_max
        };
        let count = messages.iter().take_while(fits).count();
        let count = count.max(1).min(bounds.messages_max);
        let next = messages.get(count).map(|message| message.offset);
        messages.truncate(count);
        Ok(Peeked { messages, next })
    }
}

fn position(partition: u32, stream: &Stream, offset: u64, ready: u64, acked: u64) -> Position {
    let (start, end) = (stream.start().0, stream.high_watermark().0);
    let left = end.saturating_sub(offset.max(start)).saturating_sub(acked);
    Position { partition, offset, start, end, ready, left }
}
