//! A pull from some of the streams of a subscription: how many messages it may take from each.

use smallvec::SmallVec;

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

    /// The streams in their order, with the room for each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.left.iter().copied()
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
