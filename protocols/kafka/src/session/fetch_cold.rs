//! Reads from the disk: those that a fetch waits for, and those for the fetch to come.
//!
//! A client that reads on from the disk, one fetch after the other, is sent one answer while the next one is being
//! read. What is read ahead counts against a bound of its own; where there is no room for it, fetches wait for the disk.

use std::sync::Arc;

use inver_broker::Mailbox;
use inver_storage::{ColdRead, Offset, Read, ReadError, StoredBatch};
use parking_lot::Mutex;

use super::fetch::{Fetcher, Running};
use super::fetch_slot::Slot;
use crate::budget::{Budget, Share, charged};
use crate::node::Node;

#[cfg(test)]
mod tests;

/// The token that says: a read from the disk is done.
pub(super) const COLD: u64 = 1 << 62;

/// The reads of one connection.
pub(super) struct ColdReads {
    mailbox: Arc<Mailbox>,
    results: Arc<Mutex<Vec<ColdResult>>>,
    pub(super) reads_max: usize,
    pub(super) memory: Budget,
    ahead_memory: Budget,
    ahead_bytes_max: usize,
    /// Reads ahead that are under way, and the number of the last.
    aheads: usize,
    ahead_number: u64,
}

struct ColdResult {
    share: Share,
    reason: Reason,
    place: usize,
    result: Result<Vec<StoredBatch>, ReadError>,
}

/// What the disk is read for.
#[derive(Clone, Copy)]
pub(super) enum Reason {
    /// The fetch of that number.
    Fetch(u64),
    /// The fetch to come; the read has that number.
    Ahead(u64),
}

/// What of a partition is read before it is asked for.
#[derive(Default)]
pub(super) enum Ahead {
    #[default]
    Nothing,
    /// The read of that number is under way.
    Reading { number: u64, from: Offset },
    /// At least one batch, from that offset on.
    Ready { from: Offset, batches: Vec<StoredBatch> },
}

impl Ahead {
    /// What is left of what was read.
    pub(super) fn rest(from: Offset, batches: Vec<StoredBatch>) -> Ahead {
        if batches.is_empty() { Ahead::Nothing } else { Ahead::Ready { from, batches } }
    }

    /// Lets go of it if the client reads elsewhere.
    pub(super) fn keep_if_from(&mut self, wanted: Offset) {
        match self {
            Ahead::Reading { from, .. } | Ahead::Ready { from, .. } if *from != wanted => {
                *self = Ahead::Nothing;
            }
            _ => {}
        }
    }
}

impl ColdReads {
    pub(super) fn new(mailbox: Arc<Mailbox>, node: &Node) -> ColdReads {
        ColdReads {
            mailbox,
            results: Arc::default(),
            reads_max: node.config.limits.cold_reads_max,
            memory: node.cold_reads.clone(),
            ahead_memory: node.ahead_reads.clone(),
            ahead_bytes_max: node.config.limits.read_ahead_bytes_max,
            aheads: 0,
            ahead_number: 0,
        }
    }

    /// Reads on a thread that may block; the mailbox hears of it.
    pub(super) fn start(&self, reason: Reason, place: usize, cold: ColdRead, share: Share) {
        let (results, mailbox) = (self.results.clone(), self.mailbox.clone());
        tokio::task::spawn_blocking(move || {
            let result = cold.run();
            results.lock().push(ColdResult { share, reason, place, result });
            mailbox.post(COLD);
        });
    }
}

impl ColdResult {
    /// What was read, all of it counted against the share.
    fn charged(self) -> Result<Vec<StoredBatch>, ReadError> {
        let mut batches = self.result?;
        let share = self.share.shrunk(batches.iter().map(|batch| batch.bytes.len()).sum());
        for batch in &mut batches {
            batch.bytes = charged(std::mem::take(&mut batch.bytes), &share);
        }
        Ok(batches)
    }
}

impl Fetcher {
    /// Takes up what reads from the disk have brought.
    pub(super) fn take_cold(&mut self) {
        let results = std::mem::take(&mut *self.cold.results.lock());
        for read in results {
            let slot = self.plan.slot(read.place);
            let is_ahead = matches!(read.reason, Reason::Ahead(_));
            let (running, slot) = match read.reason {
                Reason::Fetch(fetch) => {
                    (self.running.as_mut().filter(|running| running.number == fetch), slot)
                }
                Reason::Ahead(ahead) => {
                    self.cold.aheads -= 1;
                    let is_it = |slot: &&mut Slot| matches!(slot.ahead, Ahead::Reading { number, .. } if number == ahead);
                    // The client reads elsewhere by now.
                    let Some(slot) = slot.filter(is_it) else { continue };
                    if slot.granted.is_none() {
                        // A read that failed is told when it is done for a fetch.
                        slot.ahead = Ahead::rest(slot.next, read.charged().unwrap_or_default());
                        continue;
                    }
                    slot.ahead = Ahead::Nothing;
                    (self.running.as_mut(), Some(slot))
                }
            };
            let Some(running) = running else { continue };
            running.cold_reads -= 1;
            let Some(slot) = slot else { continue };
            let room = slot.granted.take().unwrap_or(0);
            running.granted = running.granted.saturating_sub(room);
            let first = running.bytes + running.granted == 0;
            match read.charged() {
                Ok(batches) if batches.is_empty() => slot.dry = true,
                Ok(mut batches) => {
                    running.took_cold(slot, &mut batches, room, first);
                    if is_ahead {
                        slot.ahead = Ahead::rest(slot.next, batches);
                    }
                }
                Err(error) => {
                    slot.error = super::offsets::read_error(&error);
                    running.failed = true;
                }
            }
        }
    }

    /// Begins to read what the next fetch will ask for, of the partitions that the client reads on from the disk.
    pub(super) fn read_ahead(&mut self, bytes_max: usize) {
        if self.cold.ahead_bytes_max == 0 {
            return;
        }
        for at in 0..self.plan.order().len() {
            let Some(place) = self.plan.order().get(at).copied() else { return };
            let Some(slot) = self.plan.slot(place).filter(|slot| slot.wants_ahead()) else { continue };
            if self.cold.aheads >= self.cold.reads_max {
                return;
            }
            let Some(partition) = slot.partition() else { continue };
            let room = slot.bytes_max().min(bytes_max).min(self.cold.ahead_bytes_max);
            let Ok(Read::Cold(cold)) = partition.stream().read(slot.next, room) else { continue };
            let Some(share) = self.cold.ahead_memory.try_take(room) else { return };
            self.cold.aheads += 1;
            self.cold.ahead_number += 1;
            let number = self.cold.ahead_number;
            slot.ahead = Ahead::Reading { number, from: slot.next };
            self.cold.start(Reason::Ahead(number), place, cold, share);
        }
    }

    /// Lets go of what was read and not asked for.
    pub(super) fn tidy(&mut self) {
        self.plan.forget_ahead();
    }
}

impl Running {
    /// A read of so much is under way for a slot.
    pub(super) fn await_read(&mut self, slot: &mut Slot, room: usize) {
        let room = room.max(1);
        slot.granted = Some(room);
        self.granted += room;
        self.cold_reads += 1;
    }

    /// Batches came from the disk.
    pub(super) fn took_cold(
        &mut self,
        slot: &mut Slot,
        batches: &mut Vec<StoredBatch>,
        room: usize,
        first: bool,
    ) {
        let bytes = slot.take(batches, room, first);
        self.bytes += bytes;
        slot.cold = true;
        // The disk has given what there was room for: asked again, it would read a batch that does not fit.
        slot.dry = bytes == 0 || self.bytes >= self.bytes_min;
    }
}
