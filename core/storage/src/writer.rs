//! The writer: takes whatever is waiting, encodes it, writes it with few system calls, syncs once if the policy wants
//! that, and only then makes it visible and wakes those who wait. While it syncs, the next group gathers.
//!
//! Small batches are copied next to their entry's description, large ones are written from where they lie. Any
//! failure here ends the log; nothing is tried again, because what a failed sync left on the medium is unknown.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::append::AppendFile;
use crate::batch::HEADER_BYTES;
use crate::entry::Part;
use crate::error::LogError;
use crate::format::entry::{ENTRY_ALIGNMENT, ENTRY_HEADER_BYTES, EntryHeader, KIND_APPENDED, seal};
use crate::format::segment::{self, SegmentHeader, SegmentId};
use crate::inner::{Inner, Intake, WriterWaits};
use crate::medium::MediumFile;
use crate::options::CommitPolicy;
use crate::relay::Hold;
use crate::sabotage::{Bug, is_seeded};
use crate::segments::Segment;
use crate::stream::{StreamInner, extent_of};
use crate::submit::Pending;
use crate::tail::{TailPlaces, TailRing};

/// Batches up to this size are copied into the gathering buffer.
const COPY_BYTES_MAX: usize = 4096;
/// Size of a gathering buffer; the tail cache keeps the batches in it alive.
const GATHER_BYTES: usize = 64 << 10;

/// When this much is written and not synced, the maintenance thread syncs it aside, so that closing a segment finds
/// little left to sync.
pub(crate) const UNSYNCED_BYTES_MAX: u64 = 32 << 20;

pub(crate) struct Writer {
    pub(crate) file: AppendFile,
    segment: Arc<Segment>,
    gather: BytesMut,
    pieces: Vec<Bytes>,
    /// Pieces of this group already written.
    written: usize,
    placed: Vec<Placed>,
    closed: Vec<(Arc<Segment>, u64)>,
    told: Vec<Arc<StreamInner>>,
    group_number: u32,
    pub(crate) tail: TailRing,
}

/// What the writer takes at once.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) pendings: Vec<Pending>,
    pub(crate) end: u64,
}

/// Where a batch of the group was put.
struct Placed {
    segment: Arc<Segment>,
    position: u32,
    /// The piece and the place in it, if the batch was copied.
    copied: Option<(usize, usize)>,
}

impl Inner {
    /// Everything that waits, leaving an empty queue behind.
    pub(crate) fn take_group(&self, intake: &mut Intake, group: &mut Group) {
        self.flush_acks(intake);
        self.are_acks_lingering.store(false, Ordering::Release);
        intake.are_acks_wanted = false;
        group.pendings.clear();
        std::mem::swap(&mut group.pendings, &mut intake.queue);
        group.end = intake.next_lsn;
    }

    /// The writer thread's life.
    pub(crate) fn run_writer(&self) {
        let mut group = Group::default();
        loop {
            {
                let mut intake = self.intake.lock();
                self.wait_for_work(&mut intake);
                if intake.failure.is_some() || intake.is_idle() {
                    return;
                }
                self.take_group(&mut intake, &mut group);
            }
            if self.write_group(&mut group).is_err() {
                return;
            }
        }
    }

    /// Returns when there is something to write, or nothing more to wait for.
    fn wait_for_work(&self, intake: &mut MutexGuard<'_, Intake>) {
        let mut lingers_until = None;
        while intake.queue.is_empty() && !intake.is_closing && intake.failure.is_none() {
            if intake.acks.is_empty() {
                intake.writer_waits = WriterWaits::Idle;
                self.intake_ready.wait(intake);
                continue;
            }
            let linger = self.options.ack_linger;
            let until = *lingers_until.get_or_insert_with(|| Instant::now() + linger);
            if intake.are_acks_wanted || linger.is_zero() || Instant::now() >= until {
                break;
            }
            intake.writer_waits = WriterWaits::Lingering;
            self.intake_ready.wait_until(intake, until);
        }
        intake.writer_waits = WriterWaits::No;
    }

    /// One round of the writer without its thread. Whether there was anything to do.
    pub(crate) fn step_writer(&self) -> Result<bool, LogError> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let mut group = Group::default();
        self.take_group(&mut self.intake.lock(), &mut group);
        if group.pendings.is_empty() {
            return Ok(false);
        }
        self.write_group(&mut group).map(|()| true)
    }

    fn write_group(&self, group: &mut Group) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        let Some(writer) = writer.as_mut() else { return Err(LogError::Closed) };
        writer.write(self, group)?;
        writer.commit(self, group);
        Ok(())
    }
}

impl Writer {
    pub(crate) fn new(
        inner: &Inner,
        segment: Arc<Segment>,
        file: Arc<dyn MediumFile>,
        position: u64,
        tail: TailRing,
    ) -> Self {
        Self {
            file: AppendFile::new(inner, &segment.id.file_name(), file, position),
            segment,
            gather: BytesMut::new(),
            pieces: Vec::new(),
            written: 0,
            placed: Vec::new(),
            closed: Vec::new(),
            told: Vec::new(),
            group_number: 0,
            tail,
        }
    }

    /// Encodes, writes and, under `Always`, syncs the group.
    fn write(&mut self, inner: &Inner, group: &Group) -> Result<(), LogError> {
        self.pieces.clear();
        self.placed.clear();
        self.written = 0;
        let synced = inner.marks.durable();
        if is_seeded(Bug::AcknowledgeEarly) {
            inner.marks.commit(group.end);
        }
        for pending in &group.pendings {
            if pending.rolls {
                self.roll(inner, pending.start - segment::HEADER_BYTES)?;
            }
            self.encode(pending, synced);
        }
        self.flush(inner)?;
        if inner.options.commit == CommitPolicy::Always {
            if !is_seeded(Bug::SkipSync) {
                self.sync(inner)?;
            }
            inner.marks.set_durable(group.end);
        }
        Ok(())
    }

    fn encode(&mut self, pending: &Pending, synced: u64) {
        let description_bytes = pending.description_bytes as usize;
        self.make_room(ENTRY_HEADER_BYTES + description_bytes);
        let start = self.gather.len();
        let header = EntryHeader {
            crc: 0,
            length: pending.length,
            description_bytes: pending.description_bytes,
            lsn: pending.start,
            synced,
            part_count: pending.parts.len() as u32,
            kind: KIND_APPENDED,
        };
        header.put(&mut self.gather);
        let mut bases = pending.bases.iter().copied();
        for part in &pending.parts {
            part.describe(&mut self.gather, &mut bases);
        }
        debug_assert_eq!(self.gather.len() - start, ENTRY_HEADER_BYTES + description_bytes);
        let heads = pending.parts.iter().filter_map(|part| match part {
            Part::Batch { batch, .. } => batch.bytes().get(..HEADER_BYTES),
            _ => None,
        });
        seal(&mut self.gather, start, description_bytes, heads);
        let mut position =
            pending.start - self.segment.base + (ENTRY_HEADER_BYTES + description_bytes) as u64;
        for part in &pending.parts {
            if let Part::Batch { batch, .. } = part {
                let copied = self.put_batch(batch.bytes());
                let segment = self.segment.clone();
                self.placed.push(Placed { segment, position: position as u32, copied });
                position += batch.bytes().len() as u64;
            }
        }
        let padding = (position as usize).next_multiple_of(ENTRY_ALIGNMENT) - position as usize;
        self.make_room(padding);
        self.gather.put_bytes(0, padding);
    }

    fn put_batch(&mut self, bytes: &Bytes) -> Option<(usize, usize)> {
        if bytes.len() > COPY_BYTES_MAX {
            self.close_piece();
            self.pieces.push(bytes.clone());
            return None;
        }
        self.make_room(bytes.len());
        let place = (self.pieces.len(), self.gather.len());
        self.gather.put_slice(bytes);
        Some(place)
    }

    /// What follows goes into one piece.
    fn make_room(&mut self, bytes: usize) {
        if self.gather.capacity() - self.gather.len() < bytes {
            self.close_piece();
            self.gather = BytesMut::with_capacity(bytes.max(GATHER_BYTES));
        }
    }

    fn close_piece(&mut self) {
        if !self.gather.is_empty() {
            self.pieces.push(self.gather.split().freeze());
        }
    }

    /// Writes what was encoded and not yet written.
    fn flush(&mut self, inner: &Inner) -> Result<(), LogError> {
        self.close_piece();
        let pieces = self.pieces.get(self.written..).unwrap_or_default();
        let written = self.file.write(pieces);
        written.map_err(|error| inner.fail(&format!("write to {:?}", self.segment), &error))?;
        self.written = self.pieces.len();
        Ok(())
    }

    fn sync(&self, inner: &Inner) -> Result<(), LogError> {
        inner.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync().map_err(|error| inner.fail(&format!("sync of {:?}", self.segment), &error))
    }

    /// Goes on to a new segment. The old one is synced whatever the policy: only the last segment may have a torn tail.
    fn roll(&mut self, inner: &Inner, base: u64) -> Result<(), LogError> {
        self.flush(inner)?;
        if !is_seeded(Bug::SkipSyncBetweenSegments) {
            self.sync(inner)?;
        }
        let (segment, file) = inner.make_segment(base)?;
        inner.marks.set_durable(base);
        let name = segment.id.file_name();
        self.closed.push((std::mem::replace(&mut self.segment, segment), self.file.position()));
        self.file = AppendFile::new(inner, &name, file, segment::HEADER_BYTES);
        Ok(())
    }

    /// The group is written (and synced, if the policy wants that): it becomes visible.
    fn commit(&mut self, inner: &Inner, group: &mut Group) {
        let _together = Hold::new();
        self.group_number = self.group_number.wrapping_add(1).max(1);
        let mut placed = std::mem::take(&mut self.placed);
        let mut places = placed.drain(..);
        let (mut entries, mut queued_bytes) = (0, 0);
        for pending in group.pendings.drain(..) {
            entries += 1;
            queued_bytes += pending.length as usize;
            let mut bases = pending.bases.into_iter();
            for part in pending.parts {
                if let (Part::Batch { destinations, batch }, Some(place)) =
                    (&part, places.next_if_batch(&part))
                {
                    let bytes = match place.copied {
                        Some((piece, at)) => self.slice(piece, at, batch.bytes()),
                        None => batch.bytes().clone(),
                    };
                    let mut ring: TailPlaces = SmallVec::with_capacity(destinations.len());
                    let origin = destinations.first().map_or(0, |stream| stream.0.id);
                    for stream in destinations {
                        let base = bases.next().unwrap_or_default().0;
                        let extent = extent_of(batch.header(), origin, base, place.position);
                        stream.0.commit(&place.segment, extent, bytes.clone());
                        place.segment.max_timestamp.fetch_max(extent.max_timestamp, Ordering::Relaxed);
                        self.note(&stream.0);
                        ring.push((stream.0.clone(), base));
                    }
                    self.tail.push(bytes.len(), ring);
                }
            }
        }
        drop(places);
        self.placed = placed;
        self.tail.evict();
        inner.counters.entries.fetch_add(entries as u64, Ordering::Relaxed);
        inner.counters.bytes.fetch_add(queued_bytes as u64, Ordering::Relaxed);
        inner.counters.groups.fetch_add(1, Ordering::Relaxed);
        inner.queued_bytes.fetch_sub(queued_bytes, Ordering::Relaxed);
        inner.queued_entries.fetch_sub(entries, Ordering::Relaxed);
        inner.marks.commit(group.end);
        for stream in self.told.drain(..) {
            stream.tell();
        }
        let unsynced = group.end.saturating_sub(inner.marks.durable());
        if inner.options.commit != CommitPolicy::Always && unsynced > UNSYNCED_BYTES_MAX {
            inner.chores_ready.notify_one();
        }
        if !self.closed.is_empty() {
            inner.close_segments(self.closed.drain(..));
        }
        self.pieces.clear();
    }

    fn slice(&self, piece: usize, at: usize, bytes: &Bytes) -> Bytes {
        match self.pieces.get(piece) {
            Some(piece) if at + bytes.len() <= piece.len() => piece.slice(at..at + bytes.len()),
            _ => bytes.clone(),
        }
    }

    /// Its listeners are told once a group.
    fn note(&mut self, stream: &Arc<StreamInner>) {
        if stream.told_group.swap(self.group_number, Ordering::Relaxed) != self.group_number {
            self.told.push(stream.clone());
        }
    }
}

trait NextIfBatch {
    fn next_if_batch(&mut self, part: &Part) -> Option<Placed>;
}

impl<I: Iterator<Item = Placed>> NextIfBatch for I {
    fn next_if_batch(&mut self, part: &Part) -> Option<Placed> {
        if matches!(part, Part::Batch { .. }) { self.next() } else { None }
    }
}

impl Inner {
    /// A new segment file with its header, named and synced, so that it is whole or absent after a crash.
    pub(crate) fn make_segment(&self, base: u64) -> Result<(Arc<Segment>, Arc<dyn MediumFile>), LogError> {
        let id = SegmentId(base);
        let created_ms = self.clock.now_ms();
        let made = self.make_segment_file(id, base, created_ms);
        let file = made.map_err(|error| self.fail(&format!("making {}", id.file_name()), &error))?;
        let segment = Arc::new(Segment::new(id, base, created_ms));
        self.segments.insert(segment.clone());
        *self.current.lock() = Some((segment.clone(), file.clone()));
        Ok((segment, file))
    }

    fn make_segment_file(
        &self,
        id: SegmentId,
        base: u64,
        created_ms: i64,
    ) -> std::io::Result<Arc<dyn MediumFile>> {
        let spare = self.chores.lock().spare.take();
        let (name, file) = match spare {
            Some(spare) => spare,
            None => self.make_spare()?,
        };
        let header = SegmentHeader { log_id: self.log_id, id, base, created_ms }.encode();
        file.write_at(0, &[IoSlice::new(&header)])?;
        file.sync()?;
        self.medium.rename(&name, &id.file_name())?;
        if !is_seeded(Bug::SkipNameSync) {
            self.medium.sync_folder()?;
        }
        Ok(file)
    }

    /// A file with room for a segment, under a name that recovery clears away.
    pub(crate) fn make_spare(&self) -> std::io::Result<(String, Arc<dyn MediumFile>)> {
        let name = {
            let mut chores = self.chores.lock();
            chores.spare_number += 1;
            format!("spare-{}.tmp", chores.spare_number)
        };
        let file = self.medium.create(&name)?;
        if self.options.preallocate {
            file.allocate(self.options.segment_bytes_max)?;
        }
        Ok((name, file))
    }

    /// Segments that got their last entry: the maintenance thread seals them.
    fn close_segments(&self, closed: impl Iterator<Item = (Arc<Segment>, u64)>) {
        let mut chores = self.chores.lock();
        for (segment, entries_end) in closed {
            segment.entries_end.store(entries_end, Ordering::Release);
            chores.to_seal.push(segment);
        }
        drop(chores);
        self.chores_ready.notify_one();
    }
}
