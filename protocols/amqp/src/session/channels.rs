//! The open channels of a connection, by number. A sorted list, because clients choose any of 65,535 numbers and open
//! few channels. The channel found last is tried first.

use inver_driver::{Count, count};

use super::channel::Channel;

/// The open channels of a connection.
#[derive(Default)]
pub(super) struct Channels {
    // Boxed, because most connections have one channel and it is large.
    #[allow(clippy::vec_box, reason = "channels are moved within the list when others come and go")]
    sorted: Vec<Box<Channel>>,
    last: usize,
}

impl Channels {
    /// The number of open channels.
    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The channel of this number.
    pub(super) fn find(&mut self, number: u16) -> Option<&mut Channel> {
        if self.sorted.get(self.last).is_none_or(|channel| channel.number != number) {
            self.last = self.sorted.binary_search_by_key(&number, |channel| channel.number).ok()?;
        }
        self.sorted.get_mut(self.last).map(Box::as_mut)
    }

    /// Adds a channel. Its number must not be in use.
    pub(super) fn open(&mut self, channel: Channel) {
        let at = self.sorted.partition_point(|open| open.number < channel.number);
        self.sorted.insert(at, Box::new(channel));
        count(Count::ChannelsOpened, 1);
    }

    /// Removes a channel.
    pub(super) fn remove(&mut self, number: u16) {
        let before = self.sorted.len();
        self.sorted.retain(|channel| channel.number != number);
        count(Count::ChannelsClosed, (before - self.sorted.len()) as u64);
    }

    /// All channels.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Channel> {
        self.sorted.iter_mut().map(Box::as_mut)
    }

    /// Removes all channels.
    pub(super) fn clear(&mut self) {
        count(Count::ChannelsClosed, self.sorted.len() as u64);
        self.sorted.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_found_by_number() {
        let mut channels = Channels::default();
        for number in [7, 1, 65_535, 300] {
            channels.open(Channel::new(number, 0, None));
        }
        for number in [1, 300, 7, 7, 65_535] {
            assert_eq!(channels.find(number).map(|channel| channel.number), Some(number));
        }
        assert!(channels.find(2).is_none());
        channels.remove(300);
        assert!(channels.find(300).is_none());
        assert_eq!((channels.len(), channels.iter_mut().count()), (3, 3));
    }
}
