//! A pull from some of the streams of a subscription: how many messages it may take from each.

use std::ops::RangeInclusive;

use smallvec::SmallVec;

use super::state::{Requeued, State};
use crate::spec::DeliveryId;

/// How many messages a pull may take from each stream.
pub(super) struct Rooms {
    /// By stream, ascending.
    left: SmallVec<[(u32, u32); 8]>,
}

impl FromIterator<(u32, u32)> for Rooms {
    fn from_iter<I: IntoIterator<Item = (u32, u32)>>(rooms: I) -> Rooms {
        let mut left: SmallVec<[(u32, u32); 8]> = rooms.into_iter().collect();
        left.sort_unstable();
        Rooms { left }
    }
}

impl Rooms {
    fn place(&self, stream: u32) -> Option<usize> {
        self.left.binary_search_by_key(&stream, |(stream, _)| *stream).ok()
    }

    /// Whether there is room for a message of a stream.
    pub(super) fn has(&self, stream: u32) -> bool {
        self.place(stream).and_then(|place| self.left.get(place)).is_some_and(|(_, room)| *room > 0)
    }

    /// A message of a stream was taken.
    pub(super) fn take(&mut self, stream: u32) {
        if let Some((_, room)) = self.place(stream).and_then(|place| self.left.get_mut(place)) {
            *room = room.saturating_sub(1);
        }
    }
}

impl State {
    /// The first requeued message that the pull under way may take.
    pub(super) fn first_requeued(&self) -> Option<(DeliveryId, Requeued)> {
        let Some(rooms) = &self.rooms else {
            return self.requeued.first_key_value().map(|(id, requeued)| (*id, *requeued));
        };
        let of_stream = |(stream, room): &(u32, u32)| {
            let first = self.requeued.range(ids_of(*stream)).next().filter(|_| *room > 0);
            first.map(|(id, requeued)| (*id, *requeued))
        };
        rooms.left.iter().find_map(of_stream)
    }

    /// Whether messages wait that the pull under way has no room for.
    pub(super) fn leaves_messages(&self) -> bool {
        let Some(rooms) = &self.rooms else { return false };
        let waits = |stream: usize| {
            self.sources.get(stream).is_some_and(|source| source.ready() > 0)
                || self.requeued.range(ids_of(stream as u32)).next().is_some()
        };
        (0..self.sources.len()).any(|stream| !rooms.has(stream as u32) && waits(stream))
    }
}

/// The ids that messages of a stream have.
fn ids_of(partition: u32) -> RangeInclusive<DeliveryId> {
    DeliveryId { partition, offset: 0 }..=DeliveryId { partition, offset: u64::MAX }
}
