//! What of a stream may be with consumers, as the log knows it, so that it is known to be delivered again after a restart.
//!
//! The log has one row a cursor: up to which offset messages may have been delivered, and how often ranges of them were in
//! earlier processes. A row is written when a delivery goes beyond it, with a reserve that grows while that happens often,
//! so that a busy queue writes about one a second. When nothing is out any more and a consumer leaves, it is taken back. What a
//! consumer returns is counted message by message where these are few, else by ranges.

use std::ops::Range;

use crate::rows::DeliveredRow;

/// A row that is outgrown within this time was too small, milliseconds.
const OUTGROWN_MS: i64 = 1000;

/// The least and the greatest reserve of offsets.
const RESERVE: (u64, u64) = (16, 65_536);

/// Ranges of one row; beyond it, the two oldest become one.
const RANGES_MAX: usize = 16;

/// What may be with consumers.
#[derive(Default)]
pub(in crate::subscription) struct Delivered {
    row: DeliveredRow,
    reserve: u64,
    grown_ms: i64,
    /// The row differs from the log's.
    is_changed: bool,
    /// The log has a row.
    is_stored: bool,
}

impl Delivered {
    /// As an earlier process left it.
    pub(in crate::subscription) fn recovered(row: DeliveredRow) -> Delivered {
        Delivered { row, is_stored: true, ..Delivered::default() }
    }

    /// How often an offset was delivered by earlier processes, those that were counted one by one left out.
    pub(super) fn count(&self, offset: u64) -> u32 {
        self.row.count(offset)
    }

    /// The offset after the last one that was counted by a range.
    pub(super) fn counts_below(&self) -> u64 {
        self.row.counted.iter().map(|(_, end, _)| *end).max().unwrap_or(0)
    }

    /// A message is delivered.
    pub(super) fn deliver(&mut self, offset: u64, now_ms: i64) {
        if offset < self.row.out_to {
            return;
        }
        if now_ms != self.grown_ms {
            let is_outgrown = now_ms.saturating_sub(self.grown_ms) < OUTGROWN_MS;
            self.reserve = if is_outgrown { (self.reserve * 2).clamp(RESERVE.0, RESERVE.1) } else { 0 };
            self.grown_ms = now_ms;
        }
        self.row.out_to = offset + 1 + self.reserve;
        self.is_changed = true;
    }

    /// Nothing is out any more.
    pub(super) fn take_back(&mut self) {
        self.is_changed |= self.row.out_to > 0;
        self.row.out_to = 0;
        self.grown_ms = 0;
    }

    /// Messages of a range were delivered and returned.
    pub(super) fn returned(&mut self, offsets: Range<u64>) {
        self.row.add(offsets);
        self.is_changed = true;
    }

    /// The row to write, if it changed; none within: it is to be deleted.
    pub(super) fn take_change(&mut self) -> Option<Option<&DeliveredRow>> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let is_needed = !self.row.is_empty();
        if !is_needed && !std::mem::take(&mut self.is_stored) {
            return None;
        }
        self.is_stored = is_needed;
        Some(is_needed.then_some(&self.row))
    }

    pub(super) fn is_stored(&self) -> bool {
        self.is_stored
    }
}

impl DeliveredRow {
    pub(crate) fn is_empty(&self) -> bool {
        self.out_to == 0 && self.counted.is_empty()
    }

    fn count(&self, offset: u64) -> u32 {
        let holds = |(start, end, _): &&(u64, u64, u32)| (*start..*end).contains(&offset);
        self.counted.iter().filter(holds).map(|(.., count)| *count).sum()
    }

    /// Counts a range once more.
    pub(crate) fn add(&mut self, offsets: Range<u64>) {
        if offsets.is_empty() {
            return;
        }
        let same = self.counted.iter_mut().find(|(start, end, _)| (*start..*end) == offsets);
        match same {
            Some((.., count)) => *count = count.saturating_add(1),
            None => self.counted.push((offsets.start, offsets.end, 1)),
        }
        if self.counted.len() > RANGES_MAX {
            let (a, b) = (self.counted.remove(0), self.counted.remove(0));
            self.counted.insert(0, (a.0.min(b.0), a.1.max(b.1), a.2.max(b.2)));
        }
    }

    /// What was out when a process ended counts as delivered; what is acknowledged is forgotten. Called at the start, with the
    /// position of the cursor and the end of the stream: the reserve beyond it was never delivered.
    pub(crate) fn recover(&mut self, position: u64, end: u64) {
        let out_to = std::mem::take(&mut self.out_to).min(end);
        self.counted.retain(|(_, end, _)| *end > position);
        self.add(position..out_to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_queue_is_exact_and_a_busy_one_writes_seldom() {
        let mut slow = Delivered::default();
        for offset in 0..5 {
            slow.deliver(offset, 10_000 + 2000 * offset as i64);
            assert_eq!(slow.take_change().flatten().map(|row| row.out_to), Some(offset + 1));
        }
        let (mut busy, mut writes) = (Delivered::default(), 0);
        // 100,000 messages a second, ten seconds long.
        for offset in 0..1_000_000 {
            busy.deliver(offset, 10_000 + offset as i64 / 100);
            writes += u64::from(busy.take_change().is_some());
        }
        assert!(writes < 150, "{writes}");
    }

    #[test]
    fn a_row_is_deleted_when_nothing_is_out() {
        let mut delivered = Delivered::default();
        delivered.take_back();
        assert!(delivered.take_change().is_none());
        delivered.deliver(3, 1);
        assert!(delivered.take_change().is_some_and(|row| row.is_some()) && delivered.is_stored());
        delivered.take_back();
        assert!(delivered.take_change().is_some_and(|row| row.is_none()) && !delivered.is_stored());
    }

    /// The reserve of a row counted as delivered what was published after the restart.
    #[test]
    fn what_is_not_in_the_stream_was_not_delivered() {
        let mut row = DeliveredRow { out_to: 30, ..DeliveredRow::default() };
        row.recover(4, 12);
        assert_eq!([3, 4, 11, 12, 29].map(|offset| row.count(offset)), [0, 1, 1, 0, 0]);
    }

    #[test]
    fn each_process_that_ended_counts_what_was_out() {
        let mut row = DeliveredRow { out_to: 10, ..DeliveredRow::default() };
        row.recover(4, 100);
        row.out_to = 10;
        row.recover(4, 100);
        assert_eq!([3, 4, 9, 10].map(|offset| row.count(offset)), [0, 2, 2, 0]);
        row.out_to = 12;
        row.recover(6, 100);
        assert_eq!([9, 11].map(|offset| row.count(offset)), [3, 1]);
        row.recover(12, 100);
        assert!(row.is_empty());
        for start in 0..100 {
            row.add(start..start + 1000);
        }
        assert!(row.counted.len() <= RANGES_MAX && row.count(50) > 0);
    }
}
