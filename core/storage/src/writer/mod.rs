//! The writer: takes groups of entries from the intake, writes each group with few system calls, syncs once if the
//! policy requires it, and only then makes the entries visible and wakes waiting tasks.
//!
//! The next group gathers while one is being synced. Any failure here ends the log: nothing is retried, because the
//! content of the medium is unknown after a failed sync.

mod append;
mod encode;
mod tail;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use self::append::{AppendFile, DirectWrites};
use self::encode::{EncodedBatch, Encoder};
use self::tail::{TailPlaces, TailRing};
use crate::allocator::{ActiveSegment, SegmentAllocator};
use crate::clock::Clock;
use crate::entry::Part;
use crate::error::LogError;
use crate::format::segment;
use crate::intake::{Group, Intake, Pending};
use crate::medium::Medium;
use crate::memory::Memory;
use crate::metrics::LogMetrics;
use crate::options::{CommitPolicy, LogOptions};
use crate::read::segments::Segment;
use crate::relay::CollectWakeUps;
use crate::sealing::SealQueue;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::space::is_full;
use crate::stream::state::extent_of;
use crate::stream::{Listener, StreamInner};

/// Unsynced bytes above which maintenance syncs in the background, so that closing a segment leaves little to sync.
pub(crate) const UNSYNCED_BYTES_MAX: u64 = 32 << 20;

pub(crate) struct Writer {
    shared: WriterParts,
    commit: CommitPolicy,
    direct: DirectWrites,
    file: AppendFile,
    segment: Arc<Segment>,
    /// Bytes of the file that have space.
    reserved: u64,
    encoder: Encoder,
    /// Segment and place of each batch of the group, in order.
    placed: Vec<(Arc<Segment>, EncodedBatch)>,
    closed: Vec<Arc<Segment>>,
    /// Streams of the group whose listeners have to be notified.
    notified: Vec<Arc<StreamInner>>,
    /// Streams of the group that grew above what is watched.
    overflowing: Vec<u64>,
    group_number: u32,
    tail: TailRing,
}

/// The parts of the log that a writer works with.
pub(crate) struct WriterParts {
    pub(crate) intake: Arc<Intake>,
    pub(crate) allocator: Arc<SegmentAllocator>,
    pub(crate) sealing: Arc<SealQueue>,
    pub(crate) metrics: Arc<LogMetrics>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) overflow: Arc<OnceLock<Arc<dyn Listener>>>,
}

impl Writer {
    /// Continues the active segment at a position of its file.
    pub(crate) fn new(
        shared: WriterParts,
        medium: Arc<dyn Medium>,
        options: &LogOptions,
        active: ActiveSegment,
        position: u64,
    ) -> Self {
        let mut direct = DirectWrites::new(medium, options);
        let name = active.segment.id.file_name();
        Self {
            shared,
            commit: options.commit,
            reserved: active.segment.file_bytes.load(Ordering::Relaxed),
            file: AppendFile::new(&mut direct, &name, active.file, position),
            direct,
            segment: active.segment,
            encoder: Encoder::default(),
            placed: Vec::new(),
            closed: Vec::new(),
            notified: Vec::new(),
            overflowing: Vec::new(),
            group_number: 0,
            tail: TailRing::new(options.tail_cache_bytes_max),
        }
    }

    /// Runs the writer thread until the log is closed or fails.
    pub(crate) fn run(mut self) {
        let intake = self.shared.intake.clone();
        let mut group = Group::default();
        while intake.wait_for_group(&mut group).is_some() {
            if self.write_group(&mut group).is_err() {
                return;
            }
        }
    }

    /// Writes one group without a thread. Returns whether there was anything to write.
    pub(crate) fn step(&mut self) -> Result<bool, LogError> {
        if let Some(failure) = self.shared.intake.failure() {
            return Err(failure);
        }
        let mut group = Group::default();
        if !self.shared.intake.take_group(&mut group) {
            return Ok(false);
        }
        self.write_group(&mut group).map(|()| true)
    }

    fn write_group(&mut self, group: &mut Group) -> Result<(), LogError> {
        self.write(group)?;
        self.commit(group);
        Ok(())
    }

    /// Encodes, writes and, under `Always`, syncs the group.
    fn write(&mut self, group: &Group) -> Result<(), LogError> {
        self.encoder.clear();
        self.placed.clear();
        let synced = self.shared.intake.marks.durable();
        if is_seeded(Bug::AcknowledgeEarly) {
            self.shared.intake.marks.commit(group.end);
        }
        for pending in &group.entries {
            if pending.rolls {
                self.roll(pending.start - segment::HEADER_BYTES, u64::from(pending.length))?;
            }
            let end = pending.start - self.segment.base + u64::from(pending.length);
            if end > self.reserved {
                self.reserve(end)?;
            }
            let (segment, placed) = (&self.segment, &mut self.placed);
            self.encoder.encode(pending, synced, segment.base, |batch| placed.push((segment.clone(), batch)));
        }
        self.flush()?;
        if self.commit == CommitPolicy::Always {
            if !is_seeded(Bug::SkipSync) {
                self.sync()?;
            }
            self.shared.intake.marks.set_durable(group.end);
        }
        Ok(())
    }

    /// Writes the entries encoded and not yet written.
    fn flush(&mut self) -> Result<(), LogError> {
        let written = self.file.write(self.encoder.take_pieces());
        written.map_err(|error| self.shared.intake.fail(format!("write {:?}", self.segment), error))
    }

    fn sync(&self) -> Result<(), LogError> {
        let start = self.shared.clock.monotonic();
        let synced = self.file.sync();
        synced.map_err(|error| self.shared.intake.fail(format!("sync {:?}", self.segment), error))?;
        self.shared.metrics.synced(self.shared.clock.monotonic().saturating_sub(start));
        Ok(())
    }

    /// Reserves space of the file up to a position: an entry is larger than a segment.
    fn reserve(&mut self, end: u64) -> Result<(), LogError> {
        if self.shared.allocator.is_reserving()
            && let Some(active) = self.shared.allocator.active()
        {
            let reserve = || self.shared.allocator.reserve(active.file.as_ref(), end);
            self.with_space(reserve, || format!("reserve space for {:?}", self.segment))?;
        }
        self.reserved = end;
        Ok(())
    }

    /// Repeats an attempt while the disk has no space. Nothing is committed meanwhile, and publishers are held back.
    fn with_space<T>(
        &self,
        attempt: impl Fn() -> io::Result<T>,
        name: impl FnOnce() -> String,
    ) -> Result<T, LogError> {
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(error) if is_full(&error) && self.shared.intake.wait_for_space() => {}
                Err(error) => return Err(self.shared.intake.fail(name(), error)),
            }
        }
    }

    /// Starts a new segment, with space for an entry of so many bytes. Syncs the old one whatever the policy: only the last
    /// segment may have a torn tail.
    fn roll(&mut self, base: u64, entry_bytes: u64) -> Result<(), LogError> {
        self.flush()?;
        if !is_seeded(Bug::SkipSyncBetweenSegments) {
            self.sync()?;
        }
        let name = segment::SegmentId(base).file_name();
        let bytes = segment::HEADER_BYTES + entry_bytes;
        let create = || self.shared.allocator.create(base, bytes);
        let active = self.with_space(create, || format!("create {name}"))?;
        self.reserved = active.segment.file_bytes.load(Ordering::Relaxed);
        self.shared.intake.marks.set_durable(base);
        let closed = std::mem::replace(&mut self.segment, active.segment);
        closed.entries_end.store(self.file.position(), Ordering::Release);
        if let Some(now_ms) = self.segment.known_created_ms() {
            closed.note_written_until(now_ms);
        }
        self.closed.push(closed);
        self.file = AppendFile::new(&mut self.direct, &name, active.file, segment::HEADER_BYTES);
        Ok(())
    }

    /// Makes a written (and, under `Always`, synced) group visible.
    fn commit(&mut self, group: &mut Group) {
        let _collecting = CollectWakeUps::new();
        self.group_number = self.group_number.wrapping_add(1).max(1);
        let mut placed = std::mem::take(&mut self.placed);
        let (mut entries, mut bytes) = (0, 0);
        {
            let mut places = placed.drain(..);
            for pending in group.entries.drain(..) {
                entries += 1;
                bytes += pending.length as usize;
                self.publish(pending, &mut places);
            }
        }
        self.placed = placed;
        self.tail.evict(self.shared.memory.is_tight());
        self.shared.metrics.tail_cache_bytes.store(self.tail.bytes() as u64, Ordering::Relaxed);
        let intake = &self.shared.intake;
        let queued = intake.queued_entries() as u64;
        intake.dequeued(entries, bytes);
        self.shared.metrics.committed(entries as u64, bytes as u64);
        intake.marks.commit(group.end);
        for stream in self.notified.drain(..) {
            stream.notify();
        }
        for stream in self.overflowing.drain(..) {
            if let Some(listener) = self.shared.overflow.get() {
                listener.advanced(stream);
            }
        }
        let now = self.shared.clock.monotonic();
        let latency = now.saturating_sub(group.since.take().unwrap_or(now));
        self.shared.metrics.observe_group(entries as u64, bytes as u64, queued, latency);
        let unsynced = group.end.saturating_sub(intake.marks.durable());
        if self.commit != CommitPolicy::Always && unsynced > UNSYNCED_BYTES_MAX {
            self.shared.sealing.wake();
        }
        if !self.closed.is_empty() {
            self.shared.sealing.push(self.closed.drain(..));
        }
        self.encoder.clear();
    }

    /// Makes the batches of an entry visible in their streams.
    fn publish(&mut self, pending: Pending, places: &mut impl Iterator<Item = (Arc<Segment>, EncodedBatch)>) {
        let mut bases = pending.bases.into_iter();
        for part in &pending.parts {
            let Part::Batch { destinations, batch } = part else { continue };
            let Some((segment, place)) = places.next() else { continue };
            let bytes = self.encoder.bytes_of(&place, batch.bytes());
            let mut ring: TailPlaces = SmallVec::with_capacity(destinations.len());
            let origin = destinations.first().map_or(0, |stream| stream.0.id);
            for stream in destinations {
                let base = bases.next().unwrap_or_default().0;
                let extent = extent_of(batch.header(), origin, base, place.position);
                if stream.0.commit(&segment, extent, bytes.clone()) {
                    self.overflowing.push(stream.0.id);
                }
                if batch.header().is_control() {
                    stream.0.marker_committed();
                }
                segment.max_timestamp.fetch_max(extent.max_timestamp, Ordering::Relaxed);
                self.schedule_notification(&stream.0);
                ring.push((stream.0.clone(), base));
            }
            self.tail.push(bytes.len(), ring);
        }
    }

    /// Lists a stream for notification, once per group.
    fn schedule_notification(&mut self, stream: &Arc<StreamInner>) {
        if stream.notified_group.swap(self.group_number, Ordering::Relaxed) != self.group_number {
            self.notified.push(stream.clone());
        }
    }
}
