//! Replay: applies the checkpoint's snapshots, and then the entries of segments written since.
//!
//! Replaying an entry whose changes are already in the checkpoint changes nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::batch::{self, BatchHeader};
use crate::checkpoint::{CheckpointStore, Meta, Space, decode_cursor, decode_stream};
use crate::cursor::CursorState;
use crate::error::{CheckpointError, OpenError};
use crate::format::entry::{self, PartView};
use crate::format::segment::{HEADER_BYTES, SegmentId};
use crate::ids::TableId;
use crate::intake::{Intake, IntakeState};
use crate::medium::{Medium, MediumFile};
use crate::read::ReadPath;
use crate::read::segments::Segment;
use crate::scan::{ScanError, Scanner};
use crate::seeded_bugs::{Bug, is_seeded};
use crate::stream::StreamInner;
use crate::stream::state::extent_of;

/// The parts of a log that are filled by recovery.
pub(super) struct Replay<'a> {
    pub(super) medium: &'a dyn Medium,
    pub(super) intake: &'a Intake,
    pub(super) read: &'a Arc<ReadPath>,
    pub(super) meta: &'a Meta,
}

/// A segment after its replay.
pub(super) struct Replayed {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn MediumFile>,
    pub(super) entries_end: u64,
    /// Everything below this position of the file is proven to be on the medium.
    pub(super) synced: u64,
    /// There are bytes behind the last whole entry.
    pub(super) is_torn: bool,
}

impl Replay<'_> {
    /// Loads streams, cursors and compaction policies from the checkpoint.
    pub(super) fn load(&self, store: &dyn CheckpointStore) -> Result<(), OpenError> {
        let directory = &self.intake.directory;
        store.scan(Space::Streams, &[], &mut |key, value| {
            const MALFORMED: CheckpointError = CheckpointError::Damaged("malformed stream record");
            let id = key.try_into().map(u64::from_be_bytes).map_err(|_| MALFORMED)?;
            let record = decode_stream(value).ok_or(MALFORMED)?;
            let stream = StreamInner::new(Arc::downgrade(self.read), id);
            stream.start.store(record.start, Ordering::Relaxed);
            stream.next.store(record.next, Ordering::Relaxed);
            stream.last_timestamp.store(record.last_timestamp, Ordering::Relaxed);
            if !record.producers.by_id.is_empty() {
                *stream.producers.lock() = Some(Box::new(record.producers));
            }
            stream.restore_transactions(record.transactions);
            let mut state = stream.state.lock();
            for run in record.runs {
                // A segment not listed is replayed later, or held nothing live of this stream any more.
                if let Some(segment) = self.read.segments.get(SegmentId(run.segment)) {
                    state.runs.restore(segment, run.first, run.bytes, run.max_timestamp);
                }
            }
            drop(state);
            directory.streams.insert(id, Arc::new(stream));
            Ok(())
        })?;
        store.scan(Space::Cursors, &[], &mut |key, value| {
            const MALFORMED: CheckpointError = CheckpointError::Damaged("malformed cursor record");
            let id = key.try_into().map(u64::from_be_bytes).map_err(|_| MALFORMED)?;
            let (stream, state) = decode_cursor(value).ok_or(MALFORMED)?;
            directory.cursors.insert(id, Arc::new(self.intake.new_cursor(id, stream, state)));
            Ok(())
        })?;
        for table in [TableId::COMPACTION_POLICIES, TableId::COMPACTION_PROGRESS] {
            store.scan(Space::State, &table.0.to_be_bytes(), &mut |key, value| {
                directory.compaction.apply(table, key.get(2..).unwrap_or_default(), Some(value));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Replays one segment. Its end is known when there is a next one; only the last segment may be torn.
    pub(super) fn segment(&self, id: SegmentId, next: Option<SegmentId>) -> Result<Replayed, OpenError> {
        let name = id.file_name();
        let file = self.medium.open(&name).map_err(OpenError::io(format!("open {name}")))?;
        let end = next.map(|next| next.0 - id.0);
        let (header, mut scanner) =
            Scanner::open(file.as_ref(), end).map_err(|error| error.in_file(&name))?;
        if header.id != id || header.base != id.0 || header.log_id != self.meta.log_id {
            return Err(OpenError::damaged(&name, 0, "file belongs to another log or position"));
        }
        let segment = Arc::new(Segment::new(id, header.base, Some(header.created_ms)));
        segment.file_bytes.store(file.len().unwrap_or(0), Ordering::Relaxed);
        self.read.segments.insert(segment.clone());
        let mut is_torn = false;
        let mut synced = HEADER_BYTES;
        loop {
            match scanner.next() {
                Ok(Some((header, bytes))) => {
                    let position = header.lsn - id.0;
                    let parts = entry::decode(&header, bytes, false)
                        .map_err(|detail| OpenError::damaged(&name, position, detail))?;
                    synced = synced.max(header.synced.saturating_sub(id.0).min(position));
                    let length = u64::from(header.length);
                    let covered = self.meta.lsn + if is_seeded(Bug::ReplayTooLittle) { length } else { 0 };
                    self.entry(&segment, header.lsn, &parts, header.lsn + length > covered);
                }
                Ok(None) => break,
                Err(ScanError::Flaw { position, detail }) if next.is_none() => {
                    let tail = scanner.examine_tail(position).map_err(|error| error.in_file(&name))?;
                    if tail.is_damage && !is_seeded(Bug::CutDamage) {
                        return Err(OpenError::damaged(&name, position, detail));
                    }
                    is_torn = tail.has_data;
                    break;
                }
                Err(error) => return Err(error.in_file(&name)),
            }
        }
        Ok(Replayed { segment, entries_end: scanner.position, synced, file: file.clone(), is_torn })
    }

    /// Applies one entry. `is_new`: its changes of state may be missing from the checkpoint.
    fn entry(&self, segment: &Arc<Segment>, lsn: u64, parts: &[PartView<'_>], is_new: bool) {
        let mut state = self.intake.lock();
        for part in parts {
            let PartView::Batch { origin, destinations, batch, at } = part else {
                if is_new {
                    self.change(&mut state, part);
                }
                continue;
            };
            let Ok(header) = BatchHeader::parse(batch) else { continue };
            let position = (lsn - segment.base) as u32 + *at as u32;
            let is_marker = header.is_control();
            let commits = is_marker.then(|| batch::commits(&Bytes::copy_from_slice(batch))).flatten();
            for (stream, base) in destinations.iter() {
                // A missing stream was deleted by a later entry.
                let Some(stream) = self.intake.directory.streams.get(stream) else { continue };
                self.batch(segment, &stream, &header, (*origin, base, position), commits, is_new);
                if is_new {
                    state.mark_stream(&stream);
                }
            }
        }
    }

    fn batch(
        &self,
        segment: &Arc<Segment>,
        stream: &StreamInner,
        header: &BatchHeader,
        (origin, base, position): (u64, u64, u32),
        commits: Option<bool>,
        is_new: bool,
    ) {
        let extent = extent_of(header, origin, base, position);
        if stream.state.lock().runs.append(segment, extent) {
            segment.touched.lock().push(stream.id);
        }
        segment.max_timestamp.fetch_max(extent.max_timestamp, Ordering::Relaxed);
        stream.last_timestamp.fetch_max(extent.max_timestamp, Ordering::Relaxed);
        stream.next.fetch_max(extent.end(), Ordering::Relaxed);
        if is_new && header.has_producer() && (origin == stream.id || header.is_control()) {
            self.intake.replay_producer(stream, header, base);
            if header.is_transactional() {
                self.intake.replay_transaction(stream, header, base, commits);
            }
        }
    }

    /// Applies a change of state. Objects that are missing were deleted by a later entry.
    fn change(&self, state: &mut IntakeState, part: &PartView<'_>) {
        let directory = &self.intake.directory;
        let change_cursor = |state: &mut IntakeState, id: u64, change: &mut dyn FnMut(&mut CursorState)| {
            if let Some(cursor) = directory.cursors.get(id) {
                change(&mut cursor.state.lock());
                state.mark_cursor(&cursor);
            }
        };
        match *part {
            PartView::Batch { .. } => {}
            PartView::Put { table, key, value } => {
                if table >= TableId::RESERVED {
                    directory.compaction.apply(TableId(table), key, Some(value));
                }
                let value = Some(Bytes::copy_from_slice(value));
                state.dirty.state.insert((table, Bytes::copy_from_slice(key)), value);
            }
            PartView::Delete { table, key } => {
                if table >= TableId::RESERVED {
                    directory.compaction.apply(TableId(table), key, None);
                }
                state.dirty.state.insert((table, Bytes::copy_from_slice(key)), None);
            }
            PartView::CreateStream { id } => {
                directory.note_stream_id(id);
                self.intake.create_stream(state, id);
            }
            PartView::DeleteStream { id } => {
                if let Some(stream) = directory.streams.remove(id) {
                    stream.delete();
                    state.mark_stream(&stream);
                    self.intake.remove_compaction(state, id);
                }
            }
            PartView::Trim { stream, to } => {
                if let Some(stream) = directory.streams.get(stream) {
                    stream.start.fetch_max(to, Ordering::Relaxed);
                    state.mark_stream(&stream);
                }
            }
            PartView::CreateCursor { id, stream, at } => {
                directory.note_cursor_id(id);
                self.intake.create_cursor(state, id, stream, at);
            }
            PartView::DeleteCursor { id } => self.intake.delete_cursor(state, id),
            PartView::Ack { cursor, ranges } => change_cursor(state, cursor, &mut |cursor| {
                for (start, end) in ranges.iter() {
                    cursor.ack(start, end);
                }
            }),
            PartView::Counts { cursor, counts } => change_cursor(state, cursor, &mut |cursor| {
                for (offset, count) in entry::counts(counts) {
                    cursor.set_count(offset, count);
                }
            }),
            PartView::Seek { cursor, to } => change_cursor(state, cursor, &mut |cursor| cursor.seek(to)),
            PartView::Acks { acks } => {
                for (cursor, start, end) in entry::acks(acks) {
                    change_cursor(state, cursor, &mut |cursor| {
                        cursor.ack(start, end);
                    });
                }
            }
        }
    }
}
