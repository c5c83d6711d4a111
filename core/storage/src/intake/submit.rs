//! Submission: an entry gets its position in the log and its batches get their offsets, under the intake lock.
//!
//! Work under the intake lock: validation, offsets, the position, the queue, and the list of changed objects. State in
//! memory changes here; it survives a crash once the entry is committed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::Intake;
use super::queue::{IntakeState, Pending, Submitted, WriterWaits};
use crate::batch::{self, BatchHeader};
use crate::cursor::{Cursor, CursorInner, CursorState};
use crate::entry::{Entry, Part};
use crate::error::SubmitError;
use crate::format::entry::{ENTRY_ALIGNMENT, entry_bytes};
use crate::ids::{Lsn, Offset, TableId, stream_row_key};
use crate::seeded_bugs::{Bug, is_seeded};
use crate::stream::{Stream, StreamInner};

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

impl Intake {
    /// Submits an entry; see [`crate::Log::submit`].
    pub(crate) fn submit(&self, mut entry: Entry) -> Result<Submitted, SubmitError> {
        let (description_bytes, batch_bytes) = entry.sizes();
        let length = entry_bytes(description_bytes, batch_bytes);
        if length > self.limits.entry_bytes_max {
            return Err(SubmitError::TooLarge { bytes: length, bytes_max: self.limits.entry_bytes_max });
        }
        let cursors = cursors_of(&entry);
        let mut locked = LockedCursors::lock(&cursors);
        let mut state = self.lock();
        self.check_open(&state)?;
        check_producers(&entry, self.limits.transactions_per_stream_max)?;
        if entry.changes_state() && !is_seeded(Bug::AcknowledgementsLate) {
            // Acknowledgements gathered so far precede this entry, as they did in memory.
            self.flush_acks(&mut state);
        }
        let mut bases = SmallVec::new();
        let (start, rolls) = state.place(length, self.limits.segment_bytes_max);
        let end = start + length as u64;
        for part in &mut entry.parts {
            self.apply(&mut state, part, end, &mut bases, &mut locked);
        }
        let submitted = Submitted { lsn: Lsn(end), bases: bases.clone() };
        let trims = trims_of(&entry);
        debug_assert!(length.is_multiple_of(ENTRY_ALIGNMENT));
        let pending = Pending {
            start,
            length: length as u32,
            description_bytes: description_bytes as u32,
            rolls,
            parts: entry.parts,
            bases,
        };
        self.push(&mut state, pending);
        self.wake_writer(state, WriterWaits::Lingering);
        drop(locked);
        for (stream, to) in trims {
            match to {
                Some(to) => stream.trim(to),
                None => {
                    stream.delete();
                    // Who waits for more of it learns that none comes.
                    stream.notify();
                }
            }
        }
        Ok(submitted)
    }

    fn apply(
        &self,
        state: &mut IntakeState,
        part: &mut Part,
        end: u64,
        bases: &mut SmallVec<[Offset; 2]>,
        locked: &mut LockedCursors<'_>,
    ) {
        let directory = &self.directory;
        match part {
            Part::Batch { destinations, batch } => {
                let header = batch.header();
                let commits = if header.is_control() { batch::commits(batch.bytes()) } else { None };
                for (at, stream) in destinations.iter().enumerate() {
                    let base = append(state, stream, header);
                    // A marker ends transactions in each of its destinations.
                    if header.has_producer() && (at == 0 || header.is_control()) {
                        self.record_producer(&stream.0, header, base, end);
                        if header.is_transactional() {
                            stream.0.note_transaction(header, base, commits, self.clock.now_ms());
                        }
                    }
                    bases.push(Offset(base));
                }
            }
            Part::Put { table, key, value } => {
                if table.0 >= TableId::RESERVED {
                    directory.compaction.apply(*table, key, Some(value));
                }
                state.dirty.state.insert((table.0, key.clone()), Some(value.clone()));
            }
            Part::Delete { table, key } => {
                if table.0 >= TableId::RESERVED {
                    directory.compaction.apply(*table, key, None);
                }
                state.dirty.state.insert((table.0, key.clone()), None);
            }
            Part::CreateStream { id } => self.create_stream(state, id.0),
            Part::DeleteStream { id, stream } => {
                if let Some(found) = directory.streams.remove(id.0) {
                    found.deleted.store(true, Ordering::Release);
                    state.mark_stream(&found);
                    self.remove_compaction(state, id.0);
                    *stream = Some(Stream(found));
                }
            }
            Part::Trim { stream, to } => {
                to.0 = to.0.min(stream.0.next.load(Ordering::Relaxed));
                stream.0.start.fetch_max(to.0, Ordering::AcqRel);
                state.mark_stream(&stream.0);
            }
            Part::CreateCursor { id, stream, at } => self.create_cursor(state, id.0, stream.0, at.0),
            Part::DeleteCursor { id } => self.delete_cursor(state, id.0),
            Part::Ack { cursor, ranges } => {
                if let Some(cursor) = locked.state(cursor) {
                    for range in ranges {
                        cursor.ack(range.start.0, range.end.0);
                    }
                }
                state.mark_cursor(&cursor.0);
            }
            Part::Returned { cursor, counts } => {
                if let Some(cursor) = locked.state(cursor) {
                    for (offset, count) in counts {
                        *count = cursor.counts.get(offset).copied().unwrap_or(0).saturating_add(1);
                        cursor.set_count(*offset, *count);
                        if is_seeded(Bug::ForgetCounts) {
                            *count = 0;
                        }
                    }
                }
                state.mark_cursor(&cursor.0);
            }
            Part::Seek { cursor, to } => {
                if let Some(cursor) = locked.state(cursor) {
                    cursor.seek(to.0);
                }
                state.mark_cursor(&cursor.0);
            }
            Part::Acks(_) => {}
        }
    }

    /// Adds a stream to the directory, unless it exists.
    pub(crate) fn create_stream(&self, state: &mut IntakeState, id: u64) {
        if self.directory.streams.get(id).is_none() {
            let stream = Arc::new(StreamInner::new(self.read.clone(), id));
            state.mark_stream(&stream);
            self.directory.streams.insert(id, stream);
        }
    }

    /// Adds a cursor to the directory, unless it exists.
    pub(crate) fn create_cursor(&self, state: &mut IntakeState, id: u64, stream: u64, at: u64) {
        if self.directory.cursors.get(id).is_none() {
            let cursor = Arc::new(self.new_cursor(id, stream, CursorState::at(at)));
            state.mark_cursor(&cursor);
            self.directory.cursors.insert(id, cursor);
        }
    }

    pub(crate) fn new_cursor(&self, id: u64, stream: u64, state: CursorState) -> CursorInner {
        CursorInner::new(self.me.clone(), id, stream, state)
    }

    /// Removes a cursor from the directory, if it exists.
    pub(crate) fn delete_cursor(&self, state: &mut IntakeState, id: u64) {
        if let Some(cursor) = self.directory.cursors.remove(id) {
            cursor.deleted.store(true, Ordering::Release);
            state.mark_cursor(&cursor);
        }
    }

    /// Removes the compaction rows of a deleted stream.
    pub(crate) fn remove_compaction(&self, state: &mut IntakeState, stream: u64) {
        if self.directory.compaction.remove(stream) {
            for table in [TableId::COMPACTION_POLICIES, TableId::COMPACTION_PROGRESS] {
                state.dirty.state.insert((table.0, stream_row_key(stream)), None);
            }
        }
    }

    fn record_producer(&self, stream: &StreamInner, header: &BatchHeader, base: u64, end: u64) {
        let now_ms = self.clock.now_ms();
        let expired_ms = now_ms.saturating_sub(self.limits.producer_expiry.as_millis() as i64);
        self.note_producer(stream, header, base, end, now_ms, expired_ms);
    }

    /// Records a producer's batch; replayed ones with `end` 0 and without expiry.
    pub(crate) fn replay_producer(&self, stream: &StreamInner, header: &BatchHeader, base: u64) {
        self.note_producer(stream, header, base, 0, self.clock.now_ms(), i64::MIN);
    }

    /// Notes a replayed batch of a transaction, or a marker, which is committed.
    pub(crate) fn replay_transaction(
        &self,
        stream: &StreamInner,
        header: &BatchHeader,
        base: u64,
        commits: Option<bool>,
    ) {
        if stream.note_transaction(header, base, commits, self.clock.now_ms()) && header.is_control() {
            stream.end_transactions();
        }
    }

    fn note_producer(
        &self,
        stream: &StreamInner,
        header: &BatchHeader,
        base: u64,
        end: u64,
        now_ms: i64,
        expired_ms: i64,
    ) {
        let mut producers = stream.producers.lock();
        let producers = producers.get_or_insert_default();
        if !producers.by_id.contains_key(&header.producer_id) {
            producers.make_room(self.limits.producers_per_stream_max, expired_ms);
        }
        producers.record(header, base, end, now_ms);
    }
}

/// Rejects duplicates and gaps of idempotent producers, what they send beside an open transaction, and transactions beyond
/// the limit, before anything is changed.
fn check_producers(entry: &Entry, transactions_max: usize) -> Result<(), SubmitError> {
    for part in &entry.parts {
        let Part::Batch { destinations, batch } = part else { continue };
        let header = batch.header();
        if !header.has_producer() {
            continue;
        }
        // A producer's sequences count in the first destination only, not where copies are appended.
        let Some(stream) = destinations.first() else { continue };
        if let Some(producers) = &*stream.0.producers.lock() {
            producers.check(header)?;
        }
        match header.is_transactional() {
            true => stream.0.check_transaction(header, transactions_max)?,
            false => stream.0.check_outside(header)?,
        }
    }
    Ok(())
}

/// Assigns the batch's base offset in this stream.
fn append(state: &mut IntakeState, stream: &Stream, header: &BatchHeader) -> u64 {
    let base = stream.0.next.load(Ordering::Relaxed);
    stream.0.next.store(base + header.offset_span(), Ordering::Release);
    state.mark_stream(&stream.0);
    base
}

/// Streams whose data is released after this entry: up to an offset, or all of it.
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
