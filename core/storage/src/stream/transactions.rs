//! Transactions of a stream: which are open, and which were aborted.
//!
//! Derived from batches alone, so that a replay of the log rebuilds it: the first transactional batch of a producer opens
//! one, its next marker ends it. A transaction counts as open from the moment at which its first batch is submitted until
//! its marker is committed. The records of open transactions, and everything behind the first of them, are not stable.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::batch::BatchHeader;
use crate::error::SubmitError;
use crate::ids::Offset;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transactions {
    /// The offset after the last batch that was noted; a replay repeats those before it.
    noted: u64,
    /// By the offset of their first records.
    open: BTreeMap<u64, Open>,
    /// By producer, the first record of the open one that has no marker yet.
    unmarked: HashMap<i64, u64>,
    /// Submitted and not committed, in their order. Not stored.
    markers: VecDeque<Marker>,
    /// In the order of their markers.
    aborted: VecDeque<Aborted>,
    /// By producer and offset of the marker, the first record of those in `aborted`.
    aborted_by_producer: BTreeMap<(i64, u64), u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
    pub(crate) first: u64,
    /// The offset after its last record; after a restart, one that is not below that. Not stored.
    pub(crate) end: u64,
    /// By the broker's clock, when its first batch was submitted or, after a crash, replayed.
    pub(crate) started_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marker {
    offset: u64,
    /// The first record of what it ends.
    first: u64,
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
    /// As a checkpoint kept them.
    pub(crate) fn restored(
        noted: u64,
        open: impl IntoIterator<Item = Open>,
        aborted: impl IntoIterator<Item = Aborted>,
    ) -> Transactions {
        let mut transactions = Transactions { noted, ..Transactions::default() };
        open.into_iter().for_each(|open| transactions.add_open(open));
        aborted.into_iter().for_each(|aborted| transactions.add_aborted(aborted));
        transactions
    }

    pub(crate) fn noted(&self) -> u64 {
        self.noted
    }

    /// The open ones, in the order of their first records.
    pub(crate) fn open(&self) -> impl ExactSizeIterator<Item = &Open> {
        self.open.values()
    }

    /// The aborted ones, in the order of their markers.
    pub(crate) fn aborted(&self) -> impl ExactSizeIterator<Item = &Aborted> {
        self.aborted.iter()
    }

    fn add_open(&mut self, open: Open) {
        self.unmarked.insert(open.producer, open.first);
        self.open.insert(open.first, open);
    }

    fn add_aborted(&mut self, aborted: Aborted) {
        self.aborted_by_producer.insert((aborted.producer, aborted.last), aborted.first);
        self.aborted.push_back(aborted);
    }

    /// Accepts a batch of a transaction that is open, or that there is room for among the open and aborted ones.
    pub(crate) fn check(&self, header: &BatchHeader, transactions_max: usize) -> Result<(), SubmitError> {
        let count = self.open.len() + self.aborted.len();
        if count < transactions_max || header.is_control() || self.is_open(header.producer_id) {
            return Ok(());
        }
        Err(SubmitError::TooManyTransactions { count_max: transactions_max })
    }

    /// Whether a producer has a transaction without a marker.
    pub(crate) fn is_open(&self, producer: i64) -> bool {
        self.unmarked.contains_key(&producer)
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
        let producer = header.producer_id;
        if header.is_control() {
            if let Some(is_commit) = commits
                && let Some(first) = self.unmarked.remove(&producer)
            {
                self.markers.push_back(Marker { offset: base, first, is_commit });
            }
            return true;
        }
        let known = self.unmarked.get(&producer).and_then(|first| self.open.get_mut(first));
        match known {
            Some(open) => open.end = self.noted,
            None => {
                let (epoch, end) = (header.producer_epoch, self.noted);
                self.add_open(Open { producer, epoch, first: base, end, started_ms: now_ms });
            }
        }
        true
    }

    /// Ends the transactions whose markers are committed: those below `end`.
    pub(crate) fn end_below(&mut self, end: u64) {
        while let Some(marker) = self.markers.pop_front_if(|marker| marker.offset < end) {
            let Marker { offset: last, first, is_commit } = marker;
            if let Some(ended) = self.open.remove(&first)
                && !is_commit
            {
                let stable = self.unstable().min(last + 1);
                self.add_aborted(Aborted { producer: ended.producer, first, last, stable });
            }
        }
    }

    /// The first offset that is not stable.
    pub(crate) fn unstable(&self) -> u64 {
        self.open.first_key_value().map_or(u64::MAX, |(first, _)| *first)
    }

    /// Forgets the aborted transactions that ended below an offset.
    pub(crate) fn trim(&mut self, start: u64) {
        while let Some(aborted) = self.aborted.pop_front_if(|aborted| aborted.last < start) {
            self.aborted_by_producer.remove(&(aborted.producer, aborted.last));
        }
    }

    /// Whether a producer's batch in a transaction that has ended was aborted.
    pub(crate) fn is_aborted(&self, producer: i64, base: u64) -> bool {
        // The transactions of a producer do not overlap: it is in the one that ends next, or in none.
        let next = self.aborted_by_producer.range((producer, base)..=(producer, u64::MAX)).next();
        next.is_some_and(|(_, first)| *first <= base)
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
    /// No record of it is at or above this. The offset after its last record, unless the log was opened since.
    pub end: Offset,
    /// When its first record was submitted, milliseconds since the epoch by the broker's clock; after a crash, when the log
    /// was opened.
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
        let is_aborted = |producer, base| transactions.is_aborted(producer, base);
        assert!(is_aborted(1, 0) && is_aborted(2, 1) && is_aborted(3, 3) && is_aborted(4, 6));
        assert!(!is_aborted(1, 6) && !is_aborted(2, 0) && !is_aborted(2, 3) && !is_aborted(5, 1));
        transactions.trim(5);
        assert_eq!(aborted(&transactions, 0, 8), [(1, 0, 5), (4, 6, 7)]);
        assert!(!transactions.is_aborted(2, 1) && transactions.is_aborted(1, 0));
    }

    #[test]
    fn an_open_transaction_knows_where_its_records_end() {
        let mut transactions = noted(&[('D', 1), ('D', 2), ('D', 1), ('D', 2), ('C', 2), ('D', 2)]);
        let ends: Vec<u64> = transactions.open().map(|open| open.end).collect();
        assert_eq!(ends, [3, 4, 6]);
        assert!(transactions.is_open(1) && transactions.is_open(2) && !transactions.is_open(3));
        transactions.end_below(u64::MAX);
        assert_eq!(transactions.open().map(|open| open.first).collect::<Vec<_>>(), [0, 5]);
    }

    #[test]
    fn a_marker_without_a_transaction_ends_nothing() {
        let mut transactions = noted(&[('A', 1), ('D', 2), ('C', 1)]);
        transactions.end_below(u64::MAX);
        assert_eq!((transactions.unstable(), transactions.aborted().len()), (1, 0));
    }

    #[test]
    fn another_transaction_is_refused_at_the_limit() {
        let mut transactions = noted(&[('D', 3), ('A', 3), ('D', 3), ('A', 3), ('D', 1)]);
        transactions.end_below(u64::MAX);
        assert_eq!(transactions.check(&data(1), 3), Ok(()));
        assert_eq!(transactions.check(marker(2, 0, true, 0, 0).header(), 3), Ok(()));
        let refused = SubmitError::TooManyTransactions { count_max: 3 };
        assert_eq!(transactions.check(&data(2), 3), Err(refused));
        assert_eq!(transactions.check(&data(2), 4), Ok(()));
    }
}
