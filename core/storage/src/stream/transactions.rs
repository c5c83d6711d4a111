//! Transactions of a stream: which are open, and which were aborted.
//!
//! Derived from batches alone, so that a replay of the log rebuilds it: the first transactional batch of a producer opens
//! one, its next marker ends it. A transaction counts as open from the moment at which its first batch is submitted until
//! its marker is committed. The records of open transactions, and everything behind the first of them, are not stable.

use std::collections::VecDeque;

use crate::batch::BatchHeader;
use crate::error::SubmitError;
use crate::ids::Offset;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transactions {
    /// The offset after the last batch that was noted; a replay repeats those before it.
    pub(crate) noted: u64,
    /// In the order of their first batches.
    pub(crate) open: Vec<Open>,
    /// In the order of their markers.
    pub(crate) aborted: VecDeque<Aborted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
    pub(crate) first: u64,
    /// By the broker's clock.
    pub(crate) started_ms: i64,
    /// Its marker, which is submitted and not committed. Not stored.
    pub(crate) marker: Option<Marker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    offset: u64,
    is_commit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer: i64,
    pub(crate) first: u64,
    /// Offset of the marker.
    pub(crate) last: u64,
    /// No transaction that is aborted later begins below this.
    pub(crate) stable: u64,
}

impl Transactions {
    /// Accepts a batch of a transaction that is open, or that there is room for among the open and aborted ones.
    pub(crate) fn check(&self, header: &BatchHeader, transactions_max: usize) -> Result<(), SubmitError> {
        let count = self.open.len() + self.aborted.len();
        if count < transactions_max || header.is_control() || self.open_of(header.producer_id).is_some() {
            return Ok(());
        }
        Err(SubmitError::TooManyTransactions { count_max: transactions_max })
    }

    fn open_of(&self, producer: i64) -> Option<usize> {
        self.open.iter().position(|open| open.producer == producer && open.marker.is_none())
    }

    /// Notes a submitted batch of a transaction, or a marker (`commits`: what it says). False if it was noted before.
    pub(crate) fn note(
        &mut self,
        header: &BatchHeader,
        base: u64,
        commits: Option<bool>,
        now_ms: i64,
    ) -> bool {
        if base < self.noted {
            return false;
        }
        self.noted = base + header.offset_span();
        let known = self.open_of(header.producer_id);
        if !header.is_control() {
            if known.is_none() {
                self.open.push(Open {
                    producer: header.producer_id,
                    epoch: header.producer_epoch,
                    first: base,
                    started_ms: now_ms,
                    marker: None,
                });
            }
        } else if let (Some(is_commit), Some(at)) = (commits, known)
            && let Some(open) = self.open.get_mut(at)
        {
            open.marker = Some(Marker { offset: base, is_commit });
        }
        true
    }

    /// Ends the transactions whose markers are committed: those below `end`.
    pub(crate) fn end_below(&mut self, end: u64) {
        while let Some((at, Marker { offset: last, is_commit })) = self.first_marker(end) {
            let ended = self.open.remove(at);
            if !is_commit {
                let stable = self.open.first().map_or(last + 1, |open| open.first.min(last + 1));
                self.aborted.push_back(Aborted {
                    producer: ended.producer,
                    first: ended.first,
                    last,
                    stable,
                });
            }
        }
    }

    /// The first marker below an offset, and the place of its transaction.
    fn first_marker(&self, end: u64) -> Option<(usize, Marker)> {
        let markers = self.open.iter().enumerate().filter_map(|(at, open)| Some((at, open.marker?)));
        markers.filter(|(_, marker)| marker.offset < end).min_by_key(|(_, marker)| marker.offset)
    }

    /// The first offset that is not stable.
    pub(crate) fn unstable(&self) -> u64 {
        self.open.first().map_or(u64::MAX, |open| open.first)
    }

    /// Forgets the aborted transactions that ended below an offset.
    pub(crate) fn trim(&mut self, start: u64) {
        while self.aborted.front().is_some_and(|aborted| aborted.last < start) {
            self.aborted.pop_front();
        }
    }

    /// The aborted transactions with records in a range.
    pub(crate) fn aborted_in(&self, from: u64, end: u64) -> impl Iterator<Item = &Aborted> {
        let at = self.aborted.partition_point(|aborted| aborted.last < from);
        let mut is_last = false;
        let later = self.aborted.range(at..).take_while(move |aborted| {
            let is_in = !is_last;
            is_last = aborted.stable >= end;
            is_in
        });
        later.filter(move |aborted| aborted.first < end)
    }

    /// As it is once everything submitted is committed.
    pub(crate) fn settled(&self) -> Transactions {
        let mut settled = self.clone();
        settled.end_below(u64::MAX);
        settled
    }
}

/// An open transaction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// Offset of its first record.
    pub first: Offset,
    /// When that was submitted, milliseconds since the epoch by the broker's clock.
    pub started_ms: i64,
}

/// An aborted transaction of a stream, whose records readers of committed ones leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first: Offset,
    /// Offset of its marker.
    pub last: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Compression, ProducerStamp, marker};

    fn data(producer: i64) -> BatchHeader {
        let mut builder = BatchBuilder::new(0);
        builder.push(0, None, &[], None);
        let stamp =
            ProducerStamp { id: producer, epoch: 0, base_sequence: 0, transactional: true, control: false };
        *builder.finish_as(Compression::None, Some(stamp)).header()
    }

    /// Notes a batch of `D`ata, or a `C`ommit or `A`bort marker, a producer each.
    fn noted(acts: &[(char, i64)]) -> Transactions {
        let mut transactions = Transactions::default();
        for (base, (act, producer)) in (0..).zip(acts) {
            let commits = (*act != 'D').then_some(*act == 'C');
            let header = match commits {
                None => data(*producer),
                Some(is_commit) => *marker(*producer, 0, is_commit, 0, 0).header(),
            };
            assert!(transactions.note(&header, base, commits, 0));
        }
        transactions
    }

    fn aborted(transactions: &Transactions, from: u64, end: u64) -> Vec<(i64, u64, u64)> {
        transactions.aborted_in(from, end).map(|a| (a.producer, a.first, a.last)).collect()
    }

    #[test]
    fn a_transaction_is_open_until_its_marker_is_committed() {
        let mut transactions = noted(&[('D', 1), ('D', 2), ('D', 1), ('C', 1), ('D', 1), ('A', 2)]);
        assert_eq!(transactions.unstable(), 0);
        transactions.end_below(3);
        assert_eq!(transactions.unstable(), 0);
        transactions.end_below(4);
        assert_eq!(transactions.unstable(), 1);
        assert_eq!(transactions.settled().unstable(), 4);
        transactions.end_below(6);
        assert_eq!(transactions.unstable(), 4);
        assert_eq!(aborted(&transactions, 0, 9), [(2, 1, 5)]);
        assert!(!transactions.note(&data(9), 5, None, 0), "a repeated batch changes nothing");
    }

    #[test]
    fn aborted_transactions_are_found_by_range_and_forgotten_with_their_records() {
        let mut transactions =
            noted(&[('D', 1), ('D', 2), ('A', 2), ('D', 3), ('A', 3), ('A', 1), ('D', 4), ('A', 4)]);
        transactions.end_below(u64::MAX);
        assert_eq!(aborted(&transactions, 0, 8), [(2, 1, 2), (3, 3, 4), (1, 0, 5), (4, 6, 7)]);
        assert_eq!(aborted(&transactions, 0, 1), [(1, 0, 5)]);
        assert_eq!(aborted(&transactions, 3, 4), [(3, 3, 4), (1, 0, 5)]);
        assert_eq!(aborted(&transactions, 6, 6), []);
        transactions.trim(5);
        assert_eq!(aborted(&transactions, 0, 8), [(1, 0, 5), (4, 6, 7)]);
    }

    #[test]
    fn a_marker_without_a_transaction_ends_nothing() {
        let mut transactions = noted(&[('A', 1), ('D', 2), ('C', 1)]);
        transactions.end_below(u64::MAX);
        assert_eq!((transactions.unstable(), transactions.aborted.len()), (1, 0));
    }

    #[test]
    fn another_transaction_is_refused_at_the_limit() {
        let mut transactions = noted(&[('D', 1)]);
        let aborted = Aborted { producer: 3, first: 0, last: 0, stable: 0 };
        transactions.aborted.extend([aborted; 2]);
        assert_eq!(transactions.check(&data(1), 3), Ok(()));
        assert_eq!(transactions.check(marker(2, 0, true, 0, 0).header(), 3), Ok(()));
        let refused = SubmitError::TooManyTransactions { count_max: 3 };
        assert_eq!(transactions.check(&data(2), 3), Err(refused));
        assert_eq!(transactions.check(&data(2), 4), Ok(()));
    }
}
