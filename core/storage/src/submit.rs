//! Submission: an entry gets its place in the one order and its batches their offsets, under one short lock.
//!
//! What happens under the intake lock, and nothing else: refusals, offsets, the position, the queue, and the marks of
//! what changed. State that the log keeps changes in memory here; it survives a crash once the entry is committed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::batch::BatchHeader;
use crate::cursor::{Cursor, CursorInner, CursorState};
use crate::entry::{Entry, Part};
use crate::error::{LogError, SubmitError};
use crate::format::entry::{ENTRY_ALIGNMENT, entry_bytes};
use crate::format::segment;
use crate::ids::{Lsn, Offset, TableId};
use crate::inner::{Inner, Intake, WriterWaits};
use crate::sabotage::{Bug, is_seeded};
use crate::stream::{Stream, StreamInner};

/// Where a submitted entry went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The entry is committed when [`crate::Log::committed`] has reached this.
    pub lsn: Lsn,
    /// The offset of the first record, one for each destination of each batch, in order.
    pub bases: SmallVec<[Offset; 2]>,
}

/// An entry on its way to the writer.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Position of the entry's first byte.
    pub(crate) start: u64,
    pub(crate) length: u32,
    pub(crate) description_bytes: u32,
    /// The entry is the first of a new segment, whose header lies just before it.
    pub(crate) rolls: bool,
    pub(crate) parts: SmallVec<[Part; 1]>,
    pub(crate) bases: SmallVec<[Offset; 2]>,
}

/// The cursors of an entry, locked in the order of their ids.
struct LockedCursors<'a> {
    cursors: &'a [Cursor],
    states: SmallVec<[MutexGuard<'a, CursorState>; 1]>,
}

impl<'a> LockedCursors<'a> {
    fn lock(cursors: &'a [Cursor]) -> Self {
        Self { cursors, states: cursors.iter().map(|cursor| cursor.0.state.lock()).collect() }
    }

    fn state(&mut self, cursor: &Cursor) -> Option<&mut CursorState> {
        let at = self.cursors.binary_search_by_key(&cursor.0.id, |cursor| cursor.0.id).ok()?;
        self.states.get_mut(at).map(|state| &mut **state)
    }
}

/// The cursors that an entry changes, by id, each once.
fn cursors_of(entry: &Entry) -> SmallVec<[Cursor; 1]> {
    let mut cursors: SmallVec<[Cursor; 1]> = SmallVec::new();
    for part in &entry.parts {
        if let Part::Ack { cursor, .. } | Part::Returned { cursor, .. } | Part::Seek { cursor, .. } = part {
            cursors.push(cursor.clone());
        }
    }
    cursors.sort_unstable_by_key(|cursor| cursor.0.id);
    cursors.dedup_by_key(|cursor| cursor.0.id);
    cursors
}

impl Inner {
    pub(crate) fn submit(&self, mut entry: Entry) -> Result<Submitted, SubmitError> {
        let (description_bytes, batch_bytes) = entry.sizes();
        let length = entry_bytes(description_bytes, batch_bytes);
        if length > self.options.entry_bytes_max {
            return Err(SubmitError::TooLarge { bytes: length, bytes_max: self.options.entry_bytes_max });
        }
        let cursors = cursors_of(&entry);
        let mut locked = LockedCursors::lock(&cursors);
        let mut intake = self.intake.lock();
        check_open(&intake)?;
        self.refuse(&entry)?;
        if entry.changes_state() && !is_seeded(Bug::AcknowledgementsLate) {
            // Acknowledgements gathered so far come before this entry, as they did in memory.
            self.flush_acks(&mut intake);
        }
        let mut bases = SmallVec::new();
        let (start, rolls) = self.place(&mut intake, length);
        let end = start + length as u64;
        for part in &mut entry.parts {
            self.apply(&mut intake, part, end, &mut bases, &mut locked);
        }
        let submitted = Submitted { lsn: Lsn(end), bases: bases.clone() };
        let trims = trims_of(&entry);
        let description_bytes = description_bytes as u32;
        let pending =
            Pending { start, length: length as u32, description_bytes, rolls, parts: entry.parts, bases };
        self.enqueue(intake, pending);
        drop(locked);
        for (stream, to) in trims {
            match to {
                Some(to) => stream.trim(to),
                None => stream.delete(),
            }
        }
        Ok(submitted)
    }

    /// Acknowledgements alone: they join those of the commit window, in one entry.
    pub(crate) fn submit_acks(&self, cursor: &Cursor, ranges: &[Range<Offset>]) -> Result<Lsn, LogError> {
        let mut state = cursor.0.state.lock();
        let mut changed: SmallVec<[(u64, u64); 4]> = SmallVec::new();
        for range in ranges {
            if state.ack(range.start.0, range.end.0) {
                changed.push((range.start.0, range.end.0));
            }
        }
        let mut intake = self.intake.lock();
        check_open(&intake)?;
        if changed.is_empty() || cursor.0.deleted.load(Ordering::Acquire) {
            // Whatever acknowledged these before is at most the entry that is being gathered.
            let gathering = u64::from(!intake.acks.is_empty());
            return Ok(Lsn(intake.next_lsn + gathering));
        }
        for (start, end) in changed {
            match intake.acks.last_mut() {
                Some(last) if last.0 == cursor.0.id && last.2 == start => last.2 = end,
                _ => {
                    intake.acks.push((cursor.0.id, start, end));
                    self.queued_bytes.fetch_add(ACK_BYTES, Ordering::Relaxed);
                }
            }
        }
        intake.mark_cursor(&cursor.0);
        // The entry is placed when the writer comes, at or after this position and in the same group, so that it is
        // committed when anything beyond this position is.
        let lsn = Lsn(intake.next_lsn + 1);
        if intake.queue.is_empty() {
            self.are_acks_lingering.store(true, Ordering::Release);
        }
        self.wake_writer(intake, WriterWaits::Idle);
        Ok(lsn)
    }

    /// Refusals come before anything is changed.
    fn refuse(&self, entry: &Entry) -> Result<(), SubmitError> {
        for part in &entry.parts {
            let Part::Batch { destinations, batch } = part else { continue };
            let header = batch.header();
            // A producer's sequences count in the stream that it sent to, not where copies go.
            if header.has_producer()
                && let Some(stream) = destinations.first()
                && let Some(producers) = &*stream.0.producers.lock()
            {
                producers.check(header)?;
            }
        }
        Ok(())
    }

    /// Gives an entry of this length its position. Whether it is the first of a new segment.
    fn place(&self, intake: &mut Intake, length: usize) -> (u64, bool) {
        let length = length as u64;
        let first = intake.segment_base + segment::HEADER_BYTES;
        let is_full = intake.next_lsn + length > intake.segment_base + self.options.segment_bytes_max;
        let rolls = intake.next_lsn > first && (is_full || intake.roll_wanted);
        if rolls {
            intake.segment_base = intake.next_lsn;
            intake.next_lsn += segment::HEADER_BYTES;
            intake.roll_wanted = false;
        }
        let start = intake.next_lsn;
        intake.next_lsn += length;
        (start, rolls)
    }

    fn apply(
        &self,
        intake: &mut Intake,
        part: &mut Part,
        end: u64,
        bases: &mut SmallVec<[Offset; 2]>,
        locked: &mut LockedCursors<'_>,
    ) {
        match part {
            Part::Batch { destinations, batch } => {
                for (at, stream) in destinations.iter().enumerate() {
                    let base = self.append(intake, stream, batch.header());
                    if at == 0 && batch.header().has_producer() {
                        self.record_producer(stream, batch.header(), base, end);
                    }
                    bases.push(Offset(base));
                }
            }
            Part::Put { table, key, value } => {
                if table.0 >= TableId::RESERVED {
                    self.note_compaction(table.0, key, Some(value));
                }
                intake.dirty.state.insert((table.0, key.clone()), Some(value.clone()));
            }
            Part::Delete { table, key } => {
                if table.0 >= TableId::RESERVED {
                    self.note_compaction(table.0, key, None);
                }
                intake.dirty.state.insert((table.0, key.clone()), None);
            }
            Part::CreateStream { id } => {
                if self.streams.get(id.0).is_none() {
                    let stream = Arc::new(StreamInner::new(self.me.clone(), id.0));
                    intake.mark_stream(&stream);
                    self.streams.insert(id.0, stream);
                }
            }
            Part::DeleteStream { id, stream } => {
                if let Some(found) = self.streams.remove(id.0) {
                    found.deleted.store(true, Ordering::Release);
                    intake.mark_stream(&found);
                    self.forget_compaction(intake, id.0);
                    *stream = Some(Stream(found));
                }
            }
            Part::Trim { stream, to } => {
                to.0 = to.0.min(stream.0.next.load(Ordering::Relaxed));
                stream.0.start.fetch_max(to.0, Ordering::AcqRel);
                intake.mark_stream(&stream.0);
            }
            Part::CreateCursor { id, stream, at } => {
                if self.cursors.get(id.0).is_none() {
                    let state = CursorState::at(at.0);
                    let cursor = Arc::new(CursorInner::new(self.me.clone(), id.0, stream.0, state));
                    intake.mark_cursor(&cursor);
                    self.cursors.insert(id.0, cursor);
                }
            }
            Part::DeleteCursor { id } => {
                if let Some(cursor) = self.cursors.remove(id.0) {
                    cursor.deleted.store(true, Ordering::Release);
                    intake.mark_cursor(&cursor);
                }
            }
            Part::Ack { cursor, ranges } => {
                if let Some(state) = locked.state(cursor) {
                    for range in ranges {
                        state.ack(range.start.0, range.end.0);
                    }
                }
                intake.mark_cursor(&cursor.0);
            }
            Part::Returned { cursor, counts } => {
                if let Some(state) = locked.state(cursor) {
                    for (offset, count) in counts {
                        *count = state.counts.get(offset).copied().unwrap_or(0).saturating_add(1);
                        state.set_count(*offset, *count);
                        if is_seeded(Bug::ForgetCounts) {
                            *count = 0;
                        }
                    }
                }
                intake.mark_cursor(&cursor.0);
            }
            Part::Seek { cursor, to } => {
                if let Some(state) = locked.state(cursor) {
                    state.seek(to.0);
                }
                intake.mark_cursor(&cursor.0);
            }
            Part::Acks(_) => {}
        }
    }

    /// The batch's base offset in this stream.
    fn append(&self, intake: &mut Intake, stream: &Stream, header: &BatchHeader) -> u64 {
        let base = stream.0.next.load(Ordering::Relaxed);
        stream.0.next.store(base + header.offset_span(), Ordering::Release);
        intake.mark_stream(&stream.0);
        base
    }

    fn record_producer(&self, stream: &Stream, header: &BatchHeader, base: u64, end: u64) {
        let now_ms = self.clock.now_ms();
        let expired_ms = now_ms.saturating_sub(self.options.producer_expiry.as_millis() as i64);
        let mut producers = stream.0.producers.lock();
        let producers = producers.get_or_insert_default();
        if !producers.by_id.contains_key(&header.producer_id) {
            producers.make_room(self.options.producers_per_stream_max, expired_ms);
        }
        producers.record(header, base, end, now_ms);
    }

    /// The acknowledgements gathered so far become an entry.
    pub(crate) fn flush_acks(&self, intake: &mut Intake) {
        if intake.acks.is_empty() {
            return;
        }
        let acks = std::mem::take(&mut intake.acks);
        self.queued_bytes.fetch_sub(acks.len() * ACK_BYTES, Ordering::Relaxed);
        let description_bytes = 1 + 4 + acks.len() * ACK_BYTES;
        let length = entry_bytes(description_bytes, 0);
        let (start, rolls) = self.place(intake, length);
        let pending = Pending {
            start,
            length: length as u32,
            description_bytes: description_bytes as u32,
            rolls,
            parts: SmallVec::from_iter([Part::Acks(acks)]),
            bases: SmallVec::new(),
        };
        self.count_in(&pending);
        intake.queue.push(pending);
    }

    fn count_in(&self, pending: &Pending) {
        self.queued_bytes.fetch_add(pending.length as usize, Ordering::Relaxed);
        self.queued_entries.fetch_add(1, Ordering::Relaxed);
    }

    fn enqueue(&self, mut intake: MutexGuard<'_, Intake>, pending: Pending) {
        debug_assert!((pending.length as usize).is_multiple_of(ENTRY_ALIGNMENT));
        self.count_in(&pending);
        intake.queue.push(pending);
        self.wake_writer(intake, WriterWaits::Lingering);
    }

    /// Wakes the writer if it waits for nothing more than `most`.
    fn wake_writer(&self, mut intake: MutexGuard<'_, Intake>, most: WriterWaits) {
        let wakes = match intake.writer_waits {
            WriterWaits::No => false,
            WriterWaits::Idle => true,
            WriterWaits::Lingering => most == WriterWaits::Lingering,
        };
        if wakes {
            intake.writer_waits = WriterWaits::No;
        }
        drop(intake);
        if wakes {
            self.intake_ready.notify_one();
        }
    }

    /// Somebody waits for this position: acknowledgements that it covers do not linger any longer.
    pub(crate) fn poll_committed(&self, lsn: u64, cx: &mut Context<'_>) -> Poll<Result<(), LogError>> {
        let polled = self.marks.poll_committed(lsn, cx);
        if polled.is_pending() && self.are_acks_lingering.load(Ordering::Acquire) {
            let mut intake = self.intake.lock();
            if lsn > intake.next_lsn && !intake.acks.is_empty() {
                intake.are_acks_wanted = true;
                self.are_acks_lingering.store(false, Ordering::Release);
                self.wake_writer(intake, WriterWaits::Lingering);
            }
        }
        polled
    }
}

/// Bytes of one acknowledged range in an entry.
const ACK_BYTES: usize = 24;

fn check_open(intake: &Intake) -> Result<(), LogError> {
    if let Some(failure) = &intake.failure {
        return Err(failure.clone());
    }
    if intake.is_closing { Err(LogError::Closed) } else { Ok(()) }
}

/// Streams whose data may be let go after this entry: up to an offset, or all of it.
type Trims = SmallVec<[(Arc<StreamInner>, Option<u64>); 1]>;

fn trims_of(entry: &Entry) -> Trims {
    let mut trims = Trims::new();
    for part in &entry.parts {
        match part {
            Part::Trim { stream, to } => trims.push((stream.0.clone(), Some(to.0))),
            Part::DeleteStream { stream: Some(stream), .. } => trims.push((stream.0.clone(), None)),
            _ => {}
        }
    }
    trims
}
