//! The order of a queue whose messages have priorities, or wait until they are due.
//!
//! The log keeps messages as they came in. What arrived is read once, and of each message only its offset is kept, under
//! its rank (0 is the highest priority), or with the time when it is due. A message is read again when its turn comes, unless
//! that is in the same pull. The next message is the oldest one of the first rank that has any, or the one that is due
//! first; returned ones have their old place.
//!
//! Nothing is given out while arrived messages were not read: a later one may come first. So the first pull after a restart
//! reads all that waits. Beyond [`INDEXED_MAX`] messages, and beyond its memory in a queue that is in memory, the queue's
//! order is that of arrival.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use inver_storage::batch::Record;
use rustc_hash::FxHashMap;

use super::sizes::{size, value_bytes};
use super::source::{Offer, READ_BYTES, Source, Taken};
use super::state::{Load, Requeued, State, UnackedMessage};
use super::{Delivery, DeliveryId};
use crate::message::{expires_ms, priority};
use crate::spec::DropReason;

/// Messages whose place is known, of one queue. Each takes at most 16 bytes, about 24 where they wait until they are due.
const INDEXED_MAX: u64 = 20_000_000;

/// Messages that are read for the index at a time, under the subscription's lock.
const SLICE_MAX: usize = 4096;

/// Messages, and bytes of them, that are kept from the index to the end of the pull or check.
const COPIES_MAX: usize = 4096;
const COPIES_BYTES_MAX: usize = 1024 * 1024;

/// Adjacent messages of one rank that were never delivered by this process.
struct Run {
    start: u64,
    count: u32,
    /// How often each was delivered by earlier processes.
    redelivered: u32,
}

impl Run {
    fn end(&self) -> u64 {
        self.start + u64::from(self.count)
    }

    /// Those of its messages that are in a range within it, if there are any.
    fn part(&self, offsets: Range<u64>) -> Option<Run> {
        let count = offsets.end.checked_sub(offsets.start).filter(|count| *count > 0)?;
        Some(Run { start: offsets.start, count: count as u32, redelivered: self.redelivered })
    }
}

/// Whether all that arrived is in the index.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Done,
    /// There is more, and it can be read.
    More,
    /// The next message is being loaded.
    Loading,
}

/// The places of messages that were never delivered by this process.
enum Index {
    /// By rank; the first is that of the highest priority.
    Ranks(Vec<VecDeque<Run>>),
    /// By when they are due, milliseconds since 1970, and offset.
    Due(BTreeSet<(i64, u64)>),
}

/// The messages of a queue that wait, in its order.
pub(super) struct Priorities {
    max: u8,
    index: Index,
    /// Messages in `index`.
    indexed: u64,
    /// Messages that were returned or checked, by rank.
    requeued: BTreeMap<(u8, DeliveryId), Requeued>,
    progress: Progress,
    copies: FxHashMap<u64, (Record, Option<Arc<str>>)>,
    copies_bytes: usize,
}

/// The rank of a message that is with a consumer of a queue with priorities.
pub(super) fn rank_of(message: &UnackedMessage) -> u8 {
    u8::try_from(message.key).unwrap_or(u8::MAX)
}

impl Priorities {
    fn new(max: u8, index: Index) -> Priorities {
        Priorities {
            max,
            index,
            indexed: 0,
            requeued: BTreeMap::new(),
            progress: Progress::Done,
            copies: FxHashMap::default(),
            copies_bytes: 0,
        }
    }

    /// A message without a priority has the lowest, one of a higher than the queue's the highest.
    fn rank(&self, record: &Record) -> u8 {
        self.max - priority(record).unwrap_or(0).min(self.max)
    }

    /// What [`UnackedMessage::key`] is for a message.
    pub(super) fn key_of(&self, record: &Record) -> u64 {
        self.rank(record).into()
    }

    /// Messages that wait.
    pub(super) fn len(&self) -> u64 {
        self.indexed + self.requeued.len() as u64
    }

    pub(super) fn first_requeued(&self) -> Option<&Requeued> {
        self.requeued.first_key_value().map(|(_, requeued)| requeued)
    }

    pub(super) fn put_back(&mut self, id: DeliveryId, requeued: Requeued) {
        self.requeued.insert((requeued.rank, id), requeued);
    }

    /// Adds a message that was taken from the source.
    fn add(&mut self, taken: Taken, source: &mut Source) {
        let Taken { offset, record, topic, redelivered } = taken;
        let rank = usize::from(self.rank(&record));
        match &mut self.index {
            Index::Due(due) => drop(due.insert((expires_ms(&record).unwrap_or(0), offset))),
            Index::Ranks(ranks) => add_to(ranks.get_mut(rank), offset, redelivered),
        }
        self.indexed += 1;
        if !source.searches() {
            let id = DeliveryId { partition: 0, offset };
            source.keep(&Delivery { id, record, redelivered, topic });
        } else if self.copies.len() < COPIES_MAX && self.copies_bytes < COPIES_BYTES_MAX {
            self.copies_bytes += size(&record);
            self.copies.insert(offset, (record, topic));
        }
    }

    fn release_copies(&mut self) {
        self.copies_bytes = 0;
        if !self.copies.is_empty() {
            self.copies.clear();
        }
    }

    /// The first indexed message, with its rank and how often it was delivered.
    fn first_indexed(&self) -> Option<(u8, DeliveryId, u32)> {
        if self.indexed == 0 {
            return None;
        }
        let (rank, offset, redelivered) = match &self.index {
            Index::Due(due) => (u8::MAX, due.first()?.1, 0),
            Index::Ranks(ranks) => {
                let mut ranks = ranks.iter().enumerate();
                let (rank, first) = ranks.find_map(|(rank, runs)| Some((rank, runs.front()?)))?;
                (u8::try_from(rank).ok()?, first.start, first.redelivered)
            }
        };
        Some((rank, DeliveryId { partition: 0, offset }, redelivered))
    }

    /// Whether all that arrived is in the index.
    pub(super) fn is_complete(&self) -> bool {
        self.progress == Progress::Done
    }

    /// Takes out a message that is due at this time; whether it waited.
    pub(super) fn take_due(&mut self, due_ms: i64, offset: u64) -> bool {
        let Index::Due(due) = &mut self.index else { return false };
        let is_out = due.remove(&(due_ms, offset));
        self.indexed -= u64::from(is_out);
        is_out
    }

    /// The next message.
    fn first(&self) -> Option<(DeliveryId, Requeued)> {
        let returned = self.requeued.first_key_value().map(|((rank, id), requeued)| (*rank, *id, *requeued));
        let indexed = self.first_indexed();
        match (returned, indexed) {
            (Some((rank, id, requeued)), indexed) if indexed.is_none_or(|of| (rank, id) < (of.0, of.1)) => {
                Some((id, requeued))
            }
            (_, indexed) => indexed.map(|(rank, id, redelivered)| {
                (id, Requeued { redelivered, value_bytes: 0, rank, drop_reason: None })
            }),
        }
    }

    /// The id of the next message.
    pub(super) fn first_id(&self) -> Option<DeliveryId> {
        self.first().map(|(id, _)| id)
    }

    /// Removes the next message, which [`first`](Self::first) returned.
    fn remove(&mut self, id: DeliveryId, rank: u8) {
        if self.requeued.remove(&(rank, id)).is_some() {
            return;
        }
        let runs = match &mut self.index {
            Index::Due(due) => {
                self.indexed -= u64::from(due.pop_first().is_some());
                return;
            }
            Index::Ranks(ranks) => ranks.get_mut(usize::from(rank)),
        };
        let Some(runs) = runs else { return };
        let Some(first) = runs.front_mut() else { return };
        (first.start, first.count) = (first.start + 1, first.count - 1);
        self.indexed -= 1;
        if first.count == 0 {
            runs.pop_front();
        }
        if runs.is_empty() {
            *runs = VecDeque::new();
        }
    }

    /// Whether a message waits.
    pub(super) fn has(&self, id: DeliveryId) -> bool {
        let is_indexed = match &self.index {
            Index::Due(due) => due.iter().any(|(_, offset)| *offset == id.offset),
            Index::Ranks(ranks) => ranks.iter().any(|runs| {
                let first = runs.get(runs.partition_point(|run| run.end() <= id.offset));
                first.is_some_and(|run| run.start <= id.offset)
            }),
        };
        is_indexed || self.requeued.keys().any(|(_, requeued)| *requeued == id)
    }

    /// Takes the messages of a range of offsets out. Their ids, and the bytes of their values as far as they are known.
    pub(super) fn take_range(&mut self, offsets: Range<u64>) -> (Vec<DeliveryId>, i64) {
        let (mut taken, mut value_bytes) = (Vec::new(), 0);
        self.requeued.retain(|(_, id), requeued| {
            let stays = !offsets.contains(&id.offset);
            if !stays {
                taken.push(*id);
                value_bytes += i64::from(requeued.value_bytes);
            }
            stays
        });
        let ids = match &mut self.index {
            Index::Due(due) => {
                due.extract_if(.., |(_, offset)| offsets.contains(offset)).map(|(_, o)| o).collect()
            }
            Index::Ranks(ranks) => {
                ranks.iter_mut().flat_map(|runs| take_of_runs(runs, &offsets)).collect::<Vec<u64>>()
            }
        };
        self.indexed -= ids.len() as u64;
        taken.extend(ids.into_iter().map(|offset| DeliveryId { partition: 0, offset }));
        (taken, value_bytes)
    }

    /// Removes and returns all messages.
    pub(super) fn take_all(&mut self) -> Vec<DeliveryId> {
        let ids = std::mem::take(&mut self.requeued).into_keys().map(|(_, id)| id);
        let offsets: Vec<u64> = match &mut self.index {
            Index::Due(due) => std::mem::take(due).into_iter().map(|(_, offset)| offset).collect(),
            Index::Ranks(ranks) => {
                let runs = ranks.iter_mut().flat_map(std::mem::take);
                runs.flat_map(|run| run.start..run.start + u64::from(run.count)).collect()
            }
        };
        let offsets = offsets.into_iter().map(|offset| DeliveryId { partition: 0, offset });
        let ids = ids.chain(offsets).collect();
        self.indexed = 0;
        self.release_copies();
        ids
    }
}

/// Adds a message to those of its rank.
fn add_to(rank: Option<&mut VecDeque<Run>>, offset: u64, redelivered: u32) {
    let Some(runs) = rank else { return };
    let last = runs
        .back_mut()
        .filter(|last| last.end() == offset && last.redelivered == redelivered && last.count < u32::MAX);
    match last {
        Some(last) => last.count += 1,
        None => runs.push_back(Run { start: offset, count: 1, redelivered }),
    }
}

/// Takes the offsets of a range out of adjacent ones.
fn take_of_runs(runs: &mut VecDeque<Run>, offsets: &Range<u64>) -> Vec<u64> {
    let first = runs.partition_point(|run| run.end() <= offsets.start);
    let behind = runs.partition_point(|run| run.start < offsets.end);
    let hit: Vec<Run> = runs.drain(first..behind).collect();
    // Of the outer ones a part may stay.
    let right = hit.last().and_then(|run| run.part(offsets.end..run.end()));
    let left = hit.first().and_then(|run| run.part(run.start..offsets.start));
    right.into_iter().chain(left).for_each(|part| runs.insert(first, part));
    hit.iter().flat_map(|run| run.start.max(offsets.start)..run.end().min(offsets.end)).collect()
}

impl State {
    pub(super) fn order_by_priority(&mut self, max: u8) {
        let ranks = (0..=max).map(|_| VecDeque::new()).collect();
        self.priorities = Some(Box::new(Priorities::new(max, Index::Ranks(ranks))));
    }

    pub(super) fn order_by_due(&mut self) {
        self.priorities = Some(Box::new(Priorities::new(0, Index::Due(BTreeSet::new()))));
    }

    pub(super) fn holds_delayed(&self) -> bool {
        matches!(&self.priorities, Some(priorities) if matches!(priorities.index, Index::Due(_)))
    }

    /// When the next message is due; none if they do not wait for that, or if that is not known yet.
    pub(super) fn first_due(&self) -> Option<i64> {
        let priorities = self.priorities.as_ref().filter(|priorities| priorities.is_complete())?;
        match &priorities.index {
            Index::Due(due) => Some(due.first()?.0),
            Index::Ranks(_) => None,
        }
    }

    /// The rank of a message that is with a consumer; 0 in a queue without priorities.
    pub(super) fn rank_of(&self, message: &UnackedMessage) -> u8 {
        if self.priorities.is_some() { rank_of(message) } else { 0 }
    }

    /// Whether more can be indexed at once.
    pub(super) fn is_indexing(&self) -> bool {
        self.priorities.as_ref().is_some_and(|priorities| priorities.progress == Progress::More)
    }

    /// Indexes what arrived, at most a slice of it.
    pub(super) fn index(&mut self, loads: &mut Vec<Load>) {
        let (Some(priorities), Some(source)) = (&mut self.priorities, self.sources.first_mut()) else {
            return;
        };
        for _ in 0..SLICE_MAX {
            if priorities.len() > 0 && (priorities.indexed >= INDEXED_MAX || !source.has_room_ahead()) {
                priorities.progress = Progress::Done;
                return;
            }
            match source.take(READ_BYTES) {
                Offer::Taken(taken) => priorities.add(taken, source),
                Offer::Load(read) => {
                    loads.push(Load { source: 0, again: false, read });
                    priorities.progress = Progress::Loading;
                    return;
                }
                Offer::Empty | Offer::Gone => {
                    let is_loading = source.is_loading_next();
                    priorities.progress = if is_loading { Progress::Loading } else { Progress::Done };
                    return;
                }
            }
        }
        priorities.progress = Progress::More;
    }

    /// Releases what was kept for this pull or check.
    pub(super) fn release_copies(&mut self) {
        if let Some(priorities) = &mut self.priorities {
            priorities.release_copies();
        }
    }

    /// Messages that are kept for this pull or check.
    #[cfg(test)]
    pub(super) fn copies(&self) -> usize {
        self.priorities.as_ref().map_or(0, |priorities| priorities.copies.len())
    }

    /// The next message by priority; see [`next_unchecked`](Self::next_unchecked).
    pub(super) fn next_by_priority(
        &mut self,
        read_bytes: usize,
        loads: &mut Vec<Load>,
    ) -> Option<(Delivery, Option<DropReason>)> {
        loop {
            if self.priorities.as_ref()?.len() == 0 {
                self.index(loads);
            }
            let priorities = self.priorities.as_mut()?;
            if priorities.progress != Progress::Done {
                return None;
            }
            let (id, requeued) = priorities.first()?;
            let mut gone = false;
            let taken = match priorities.copies.remove(&id.offset) {
                Some(copy) => Some(copy),
                None => self.read_again(id, read_bytes, loads, &mut gone),
            };
            if taken.is_none() && !gone {
                return None;
            }
            self.priorities.as_mut()?.remove(id, requeued.rank);
            let Some((record, topic)) = taken else {
                self.limits.bytes.subtract(requeued.value_bytes);
                continue;
            };
            self.limits.bytes.subtract(value_bytes(&record));
            let Requeued { redelivered, drop_reason, .. } = requeued;
            return Some((Delivery { id, record, redelivered, topic }, drop_reason));
        }
    }

    /// Puts a message back that was checked.
    pub(super) fn put_first(&mut self, delivery: &Delivery) {
        let Delivery { id, record, redelivered, .. } = delivery;
        if let Some(priorities) = &mut self.priorities
            && let Index::Due(due) = &mut priorities.index
        {
            due.insert((expires_ms(record).unwrap_or(0), id.offset));
            priorities.indexed += 1;
            return;
        }
        let rank = self.priorities.as_ref().map_or(0, |priorities| priorities.rank(record));
        if let Some(source) = self.sources.get_mut(id.partition as usize) {
            source.keep(delivery);
        }
        let (redelivered, value_bytes) = (*redelivered, value_bytes(record));
        self.put_back(*id, Requeued { redelivered, value_bytes, rank, drop_reason: None });
    }
}
