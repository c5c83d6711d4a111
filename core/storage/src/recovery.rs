//! Opening a log: the checkpoint, then a replay of what came after it.
//!
//! Invariants:
//! - segments that the checkpoint calls sealed are not read; what is read is bounded by what was written since;
//! - a torn tail is cut at the last whole entry, in the last segment only, and only where no later entry proves that
//!   the place had been synced; anything else that does not hold is an error that names file and position;
//! - replaying an entry whose changes are in the checkpoint already changes nothing;
//! - what was recovered is on the medium before anybody may see it. It may have been in the page cache only, and if a
//!   sync failed in the last life, the page cache may hold it as clean while the medium does not have it: so what is not
//!   proven to have been synced is written again.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::batch::BatchHeader;
use crate::checkpoint::{
    CHECKPOINT_FILE, CheckpointError, CheckpointStore, Meta, RedbStore, SegmentRecord, Space, decode_cursor,
    decode_stream,
};
use crate::clock::Clock;
use crate::compaction::{CLEAN_TO, POLICIES};
use crate::cursor::{CursorInner, CursorState};
use crate::error::OpenError;
use crate::format::FORMAT_VERSION;
use crate::format::entry::{self, PartView};
use crate::format::segment::{HEADER_BYTES, SegmentId};
use crate::ids::TableId;
use crate::index_cache::IndexCache;
use crate::inner::{Checkpoints, Chores, Counters, FAILED_FILE, Inner, Intake};
use crate::log::open_io;
use crate::medium::{LOCK_FILE, Medium, MediumFile};
use crate::options::LogOptions;
use crate::read_buffers::ReadBuffers;
use crate::registry::Registry;
use crate::sabotage::{Bug, is_seeded};
use crate::scan::{ScanError, Scanner};
use crate::segments::{Segment, Segments};
use crate::stream::{StreamInner, extent_of};
use crate::tail::TailRing;
use crate::watermarks::Watermarks;
use crate::writer::Writer;

/// The largest segment whose positions fit the index, with room for one entry beyond the bound.
const SEGMENT_BYTES_LIMIT: u64 = 2 << 30;
const SEGMENT_BYTES_LEAST: u64 = 4096;

pub(crate) fn open(
    medium: Arc<dyn Medium>,
    clock: Arc<dyn Clock>,
    options: LogOptions,
    is_manual: bool,
) -> Result<Arc<Inner>, OpenError> {
    check(&options)?;
    let folder_lock = lock(medium.as_ref())?;
    let names = medium.list().map_err(open_io("listing the folder"))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        medium.remove(name).map_err(open_io(format!("removing {name}")))?;
    }
    // Names that the last life made and did not live to sync.
    medium.sync_folder().map_err(open_io("syncing the folder"))?;
    if names.iter().any(|name| name == FAILED_FILE) {
        rewrite_checkpoint(medium.as_ref(), &names)?;
    }
    let mut store = open_store(medium.as_ref(), &options)?;
    let found: Vec<SegmentId> = names.iter().filter_map(|name| SegmentId::from_file_name(name)).collect();
    let meta = read_meta(store.as_ref())?;
    let plan = plan(store.as_ref(), meta.as_ref(), &found)?;
    let meta = match meta {
        Some(meta) => meta,
        None => first_meta(medium.as_ref(), &mut store, &plan, is_manual)?,
    };
    for leftover in &plan.leftovers {
        let name = leftover.file_name();
        medium.remove(&name).map_err(open_io(format!("removing {name}")))?;
    }
    let inner = Arc::new_cyclic(|me| Inner {
        me: me.clone(),
        index: IndexCache::new(options.index_cache_bytes_max),
        read_buffers: ReadBuffers::new(options.read_buffers_bytes_max),
        segments: Segments::new(medium.clone(), options.open_files_max),
        log_id: meta.log_id,
        intake: Mutex::new(Intake { round: 1, ..Intake::default() }),
        intake_ready: Condvar::new(),
        queued_bytes: AtomicUsize::new(0),
        queued_entries: AtomicUsize::new(0),
        marks: Watermarks::default(),
        are_acks_lingering: AtomicBool::new(false),
        streams: Registry::default(),
        cursors: Registry::default(),
        next_stream: AtomicU64::new(meta.next_stream),
        next_cursor: AtomicU64::new(meta.next_cursor),
        current: Mutex::new(None),
        writer: Mutex::new(None),
        is_direct_refused: AtomicBool::new(false),
        checkpoints: Mutex::new(Checkpoints { store, lsn: meta.lsn }),
        chores: Mutex::new(Chores::default()),
        chores_ready: Condvar::new(),
        chores_at_work: Mutex::new(()),
        threads: Mutex::new(Vec::new()),
        is_manual,
        next_cleaned: AtomicU64::new(meta.next_cleaned),
        compacted: Mutex::default(),
        cleans_from_ms: AtomicI64::new(0),
        last_checkpoint_ms: AtomicI64::new(clock.now_ms()),
        counters: Counters::default(),
        folder_lock: Mutex::new(Some(folder_lock)),
        options,
        medium,
        clock,
    });
    recover(&inner, &meta, &plan)?;
    Ok(inner)
}

/// A sync failed in the last life: the checkpoint's file is written again before it is believed.
fn rewrite_checkpoint(medium: &dyn Medium, names: &[String]) -> Result<(), OpenError> {
    let io = || open_io(format!("writing {CHECKPOINT_FILE} again"));
    if names.iter().any(|name| name == CHECKPOINT_FILE) && !is_seeded(Bug::BelievePageCache) {
        let file = medium.open(CHECKPOINT_FILE).map_err(io())?;
        let length = file.len().map_err(io())?;
        rewrite(file.as_ref(), 0, length).map_err(io())?;
        file.sync().map_err(io())?;
    }
    medium.remove(FAILED_FILE).map_err(io())?;
    medium.sync_folder().map_err(io())
}

/// Writes what a file holds over itself, so that the next sync takes it to the medium.
fn rewrite(file: &dyn MediumFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = from;
    while at < to {
        let wanted = buffer.len().min((to - at) as usize);
        let read = file.read_at(at, buffer.get_mut(..wanted).unwrap_or_default())?;
        if read == 0 {
            break;
        }
        file.write_at(at, &[io::IoSlice::new(buffer.get(..read).unwrap_or_default())])?;
        at += read as u64;
    }
    Ok(())
}

fn check(options: &LogOptions) -> Result<(), OpenError> {
    let entry_bytes_max = options.entry_bytes_max as u64;
    if !(SEGMENT_BYTES_LEAST..=SEGMENT_BYTES_LIMIT).contains(&options.segment_bytes_max) {
        let range = format!("segment_bytes_max must be {SEGMENT_BYTES_LEAST} to {SEGMENT_BYTES_LIMIT}");
        return Err(OpenError::Option(range));
    }
    if entry_bytes_max > SEGMENT_BYTES_LIMIT - (1 << 20) {
        return Err(OpenError::Option(format!("entry_bytes_max must be less than {SEGMENT_BYTES_LIMIT}")));
    }
    Ok(())
}

fn lock(medium: &dyn Medium) -> Result<Box<dyn Send + Sync>, OpenError> {
    medium.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let dir = std::path::PathBuf::from(medium.describe());
            OpenError::Locked { lock: dir.join(LOCK_FILE), dir }
        }
        _ => OpenError::Io { what: "locking the folder".to_owned(), source: error },
    })
}

fn open_store(medium: &dyn Medium, options: &LogOptions) -> Result<Box<dyn CheckpointStore>, OpenError> {
    let store = RedbStore::open(medium, options.checkpoint_cache_bytes_max).map_err(|e| in_checkpoint(&e))?;
    Ok(Box::new(store))
}

fn in_checkpoint(error: &CheckpointError) -> OpenError {
    damaged(CHECKPOINT_FILE, 0, &error.to_string())
}

fn damaged(file: &str, position: u64, detail: &str) -> OpenError {
    OpenError::Damaged { file: file.to_owned(), position, detail: detail.to_owned() }
}

fn in_segment(id: SegmentId, error: ScanError) -> OpenError {
    let file = id.file_name();
    match error {
        ScanError::Io(source) => OpenError::Io { what: format!("reading {file}"), source },
        ScanError::Flaw { position, detail } => damaged(&file, position, detail),
        ScanError::Version(found) => OpenError::Version { file, found, supported: FORMAT_VERSION },
    }
}

fn read_meta(store: &dyn CheckpointStore) -> Result<Option<Meta>, OpenError> {
    let bytes = store.get(Space::Meta, Meta::KEY).map_err(|error| in_checkpoint(&error))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let meta = Meta::decode(&bytes).ok_or_else(|| damaged(CHECKPOINT_FILE, 0, "its header is malformed"))?;
    Ok(Some(meta))
}

/// Which files are the log's.
struct Plan {
    /// Segments that need not be read.
    sealed: Vec<(SegmentId, SegmentRecord)>,
    /// Segments to replay, in order.
    replayed: Vec<SegmentId>,
    /// Files that an interrupted removal or cleaning left behind.
    leftovers: Vec<SegmentId>,
}

fn plan(store: &dyn CheckpointStore, meta: Option<&Meta>, found: &[SegmentId]) -> Result<Plan, OpenError> {
    let mut known = BTreeMap::new();
    let scanned = store.scan(Space::Segments, &[], &mut |key, value| {
        let id = key.try_into().map(u64::from_be_bytes).ok().map(SegmentId);
        let (Some(id), Some(record)) = (id, SegmentRecord::decode(value)) else {
            return Err(CheckpointError("a segment's record is malformed".to_owned()));
        };
        known.insert(id, record);
        Ok(())
    });
    scanned.map_err(|error| in_checkpoint(&error))?;
    if let Some(missing) = known.keys().find(|id| !found.contains(id)) {
        return Err(damaged(&missing.file_name(), 0, "the file is missing"));
    }
    let newest = known.keys().rfind(|id| !id.is_cleaned()).copied();
    let mut plan = Plan { sealed: Vec::new(), replayed: Vec::new(), leftovers: Vec::new() };
    for id in found {
        match known.get(id) {
            Some(record) if record.is_sealed => plan.sealed.push((*id, *record)),
            Some(_) => plan.replayed.push(*id),
            None if id.is_cleaned() || newest.is_some_and(|newest| *id < newest) => plan.leftovers.push(*id),
            None => plan.replayed.push(*id),
        }
    }
    plan.replayed.sort_unstable();
    let lsn = meta.map_or(0, |meta| meta.lsn);
    match plan.replayed.first() {
        None if lsn > 0 => {
            Err(damaged(CHECKPOINT_FILE, 0, "the segment that was being appended to is missing"))
        }
        Some(first) if first.0 > lsn => {
            Err(damaged(&first.file_name(), 0, "what comes before it is missing, or the checkpoint is"))
        }
        _ => Ok(plan),
    }
}

/// The identity of a log without a checkpoint: that of its first segment, or a new one.
fn first_meta(
    medium: &dyn Medium,
    store: &mut Box<dyn CheckpointStore>,
    plan: &Plan,
    is_manual: bool,
) -> Result<Meta, OpenError> {
    let log_id = match plan.replayed.first() {
        Some(first) => {
            let file = medium.open(&first.file_name()).map_err(open_io(first.file_name()))?;
            Scanner::open(file.as_ref(), None).map_err(|error| in_segment(*first, error))?.0.log_id
        }
        // A simulated log must replay.
        None if is_manual => 1,
        None => (u128::from(random()) << 64) | u128::from(random()),
    };
    let meta = Meta { log_id, lsn: 0, durable: 0, next_stream: 1, next_cursor: 1, next_cleaned: 1 };
    let written = store.commit(&mut |sink| sink.put(Space::Meta, Meta::KEY, &meta.encode()));
    written.map_err(|error| in_checkpoint(&error))?;
    Ok(meta)
}

/// An identity need not be unguessable.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

fn recover(inner: &Arc<Inner>, meta: &Meta, plan: &Plan) -> Result<(), OpenError> {
    for (id, record) in &plan.sealed {
        let segment = Segment::new(*id, record.base, 0);
        segment.entries_end.store(record.entries_end, Ordering::Relaxed);
        segment.max_timestamp.store(record.max_timestamp, Ordering::Relaxed);
        segment.sealed.store(true, Ordering::Relaxed);
        inner.segments.insert(Arc::new(segment));
    }
    load(inner)?;
    let mut end = 0;
    let mut last = None;
    for (at, id) in plan.replayed.iter().enumerate() {
        let next = plan.replayed.get(at + 1);
        let replayed = replay_segment(inner, meta, *id, next.copied())?;
        end = replayed.segment.base + replayed.entries_end;
        match next {
            Some(_) => {
                replayed.segment.entries_end.store(replayed.entries_end, Ordering::Release);
                inner.chores.lock().to_seal.push(replayed.segment);
            }
            None => last = Some(replayed),
        }
    }
    if end < meta.lsn.max(meta.durable) {
        let file = last.as_ref().map_or(CHECKPOINT_FILE.to_owned(), |last| last.segment.id.file_name());
        let position = last.map_or(0, |last| last.entries_end);
        return Err(damaged(&file, position, "the log ends before what was known to be on the medium"));
    }
    let (segment, file, position) = match last {
        Some(last) => {
            last.tidy(inner)?;
            *inner.current.lock() = Some((last.segment.clone(), last.file.clone()));
            (last.segment, last.file, last.entries_end)
        }
        None => {
            let made = inner.make_segment(0);
            let (segment, file) = made.map_err(|error| OpenError::Io {
                what: "making the first segment".to_owned(),
                source: io::Error::other(error),
            })?;
            (segment, file, HEADER_BYTES)
        }
    };
    let end = segment.base + position;
    {
        let mut intake = inner.intake.lock();
        intake.next_lsn = end;
        intake.segment_base = segment.base;
    }
    inner.marks.start_at(end);
    for id in inner.streams.ids() {
        if let Some(stream) = inner.streams.get(id) {
            stream.high.store(stream.next.load(Ordering::Relaxed), Ordering::Release);
            stream.trim(stream.start.load(Ordering::Relaxed));
        }
    }
    let tail = TailRing::new(inner.options.tail_cache_bytes_max);
    *inner.writer.lock() = Some(Writer::new(inner, segment, file, position, tail));
    Ok(())
}

/// Streams and cursors from the checkpoint.
fn load(inner: &Arc<Inner>) -> Result<(), OpenError> {
    let checkpoints = inner.checkpoints.lock();
    let malformed = |what: &str| CheckpointError(format!("a {what}'s record is malformed"));
    let me: Weak<Inner> = Arc::downgrade(inner);
    let loaded = checkpoints.store.scan(Space::Streams, &[], &mut |key, value| {
        let id = key.try_into().map(u64::from_be_bytes).map_err(|_| malformed("stream"))?;
        let record = decode_stream(value).ok_or_else(|| malformed("stream"))?;
        let stream = StreamInner::new(me.clone(), id);
        stream.start.store(record.start, Ordering::Relaxed);
        stream.next.store(record.next, Ordering::Relaxed);
        stream.last_timestamp.store(record.last_timestamp, Ordering::Relaxed);
        if !record.producers.by_id.is_empty() {
            *stream.producers.lock() = Some(Box::new(record.producers));
        }
        let mut state = stream.state.lock();
        for run in record.runs {
            // Segments that are not listed are replayed, or held nothing of this stream any more.
            if let Some(segment) = inner.segments.get(SegmentId(run.segment)) {
                state.runs.restore(segment, run.first, run.bytes, run.max_timestamp);
            }
        }
        drop(state);
        inner.streams.insert(id, Arc::new(stream));
        Ok(())
    });
    loaded.map_err(|error| in_checkpoint(&error))?;
    let loaded = checkpoints.store.scan(Space::Cursors, &[], &mut |key, value| {
        let id = key.try_into().map(u64::from_be_bytes).map_err(|_| malformed("cursor"))?;
        let (stream, state) = decode_cursor(value).ok_or_else(|| malformed("cursor"))?;
        inner.cursors.insert(id, Arc::new(CursorInner::new(me.clone(), id, stream, state)));
        Ok(())
    });
    loaded.map_err(|error| in_checkpoint(&error))?;
    for table in [POLICIES.0, CLEAN_TO.0] {
        let loaded = checkpoints.store.scan(Space::State, &table.to_be_bytes(), &mut |key, value| {
            inner.note_compaction(table, key.get(2..).unwrap_or_default(), Some(value));
            Ok(())
        });
        loaded.map_err(|error| in_checkpoint(&error))?;
    }
    Ok(())
}

/// A segment that was replayed.
struct Replayed {
    segment: Arc<Segment>,
    file: Arc<dyn MediumFile>,
    entries_end: u64,
    /// Everything below this position of the file is proven to be on the medium.
    synced: u64,
    /// There is something behind the last whole entry.
    is_torn: bool,
}

impl Replayed {
    /// Makes the last segment ready for appending: nothing behind its last entry, room ahead, and all of it synced.
    fn tidy(&self, inner: &Inner) -> Result<(), OpenError> {
        let name = self.segment.id.file_name();
        let io = |what: &str| open_io(format!("{what} {name}"));
        if self.is_torn {
            tracing::warn!(file = %name, position = self.entries_end, "a torn tail is cut off");
            self.file.set_len(self.entries_end).map_err(io("cutting"))?;
            self.file.sync().map_err(io("syncing"))?;
        }
        if !is_seeded(Bug::BelievePageCache) {
            let again = rewrite(self.file.as_ref(), self.synced, self.entries_end);
            again.map_err(io("writing again the end of"))?;
        }
        if inner.options.preallocate && self.entries_end < inner.options.segment_bytes_max {
            self.file.allocate(inner.options.segment_bytes_max).map_err(io("reserving room for"))?;
        }
        self.file.sync().map_err(io("syncing"))
    }
}

fn replay_segment(
    inner: &Arc<Inner>,
    meta: &Meta,
    id: SegmentId,
    next: Option<SegmentId>,
) -> Result<Replayed, OpenError> {
    let name = id.file_name();
    let file = inner.medium.open(&name).map_err(open_io(name.clone()))?;
    let end = next.map(|next| next.0 - id.0);
    let (header, mut scanner) = Scanner::open(file.as_ref(), end).map_err(|error| in_segment(id, error))?;
    if header.id != id || header.base != id.0 || header.log_id != meta.log_id {
        return Err(damaged(&name, 0, "the file belongs to another log or place"));
    }
    let segment = Arc::new(Segment::new(id, header.base, header.created_ms));
    inner.segments.insert(segment.clone());
    let mut is_torn = false;
    let mut synced = HEADER_BYTES;
    loop {
        match scanner.next() {
            Ok(Some((header, bytes))) => {
                let parts = entry::decode(&header, bytes, false)
                    .map_err(|detail| damaged(&name, header.lsn - id.0, detail))?;
                synced = synced.max(header.synced.saturating_sub(id.0).min(header.lsn - id.0));
                let is_new = match header.lsn + u64::from(header.length) {
                    end if is_seeded(Bug::ReplayTooLittle) => end > meta.lsn + u64::from(header.length),
                    end => end > meta.lsn,
                };
                replay_entry(inner, &segment, header.lsn, &parts, is_new);
            }
            Ok(None) => break,
            Err(ScanError::Flaw { position, detail }) if next.is_none() => {
                let behind = scanner.look_behind(position).map_err(|error| in_segment(id, error))?;
                if behind.is_damage && !is_seeded(Bug::CutDamage) {
                    return Err(damaged(&name, position, detail));
                }
                is_torn = behind.is_anything;
                break;
            }
            Err(error) => return Err(in_segment(id, error)),
        }
    }
    Ok(Replayed { segment, entries_end: scanner.position, synced, file: file.clone(), is_torn })
}

/// Takes over one entry. `is_new`: its changes of state are not in the checkpoint for certain.
fn replay_entry(inner: &Arc<Inner>, segment: &Arc<Segment>, lsn: u64, parts: &[PartView<'_>], is_new: bool) {
    let me: Weak<Inner> = Arc::downgrade(inner);
    let mut intake = inner.intake.lock();
    for part in parts {
        if let PartView::Batch { origin, destinations, batch, at } = part {
            let Ok(header) = BatchHeader::parse(batch) else { continue };
            let position = (lsn - segment.base) as u32 + *at as u32;
            for (stream, base) in destinations.iter() {
                // A stream that is gone was deleted later on.
                let Some(stream) = inner.streams.get(stream) else { continue };
                replay_batch(inner, segment, &stream, &header, (*origin, base, position), is_new);
                if is_new {
                    intake.mark_stream(&stream);
                }
            }
            continue;
        }
        if is_new {
            replay_change(inner, &me, &mut intake, part);
        }
    }
}

fn replay_batch(
    inner: &Inner,
    segment: &Arc<Segment>,
    stream: &Arc<StreamInner>,
    header: &BatchHeader,
    (origin, base, position): (u64, u64, u32),
    is_new: bool,
) {
    let extent = extent_of(header, origin, base, position);
    if stream.state.lock().runs.append(segment, extent) {
        segment.touched.lock().push(stream.clone());
    }
    segment.max_timestamp.fetch_max(extent.max_timestamp, Ordering::Relaxed);
    stream.last_timestamp.fetch_max(extent.max_timestamp, Ordering::Relaxed);
    stream.next.fetch_max(extent.end(), Ordering::Relaxed);
    if is_new && header.has_producer() && origin == stream.id {
        let now_ms = inner.clock.now_ms();
        let mut producers = stream.producers.lock();
        let producers = producers.get_or_insert_default();
        if !producers.by_id.contains_key(&header.producer_id) {
            producers.make_room(inner.options.producers_per_stream_max, i64::MIN);
        }
        producers.record(header, base, 0, now_ms);
    }
}

fn replay_change(inner: &Arc<Inner>, me: &Weak<Inner>, intake: &mut Intake, part: &PartView<'_>) {
    let change_cursor = |intake: &mut Intake, id: u64, change: &mut dyn FnMut(&mut CursorState)| {
        // A cursor that is gone was deleted later on.
        if let Some(cursor) = inner.cursors.get(id) {
            change(&mut cursor.state.lock());
            intake.mark_cursor(&cursor);
        }
    };
    match *part {
        PartView::Batch { .. } => {}
        PartView::Put { table, key, value } => {
            if table >= TableId::RESERVED {
                inner.note_compaction(table, key, Some(value));
            }
            let value = Some(Bytes::copy_from_slice(value));
            intake.dirty.state.insert((table, Bytes::copy_from_slice(key)), value);
        }
        PartView::Delete { table, key } => {
            if table >= TableId::RESERVED {
                inner.note_compaction(table, key, None);
            }
            intake.dirty.state.insert((table, Bytes::copy_from_slice(key)), None);
        }
        PartView::CreateStream { id } => {
            inner.next_stream.fetch_max(id.saturating_add(1), Ordering::Relaxed);
            if inner.streams.get(id).is_none() {
                let stream = Arc::new(StreamInner::new(me.clone(), id));
                intake.mark_stream(&stream);
                inner.streams.insert(id, stream);
            }
        }
        PartView::DeleteStream { id } => {
            if let Some(stream) = inner.streams.remove(id) {
                stream.delete();
                intake.mark_stream(&stream);
                inner.forget_compaction(intake, id);
            }
        }
        PartView::Trim { stream, to } => {
            if let Some(stream) = inner.streams.get(stream) {
                stream.start.fetch_max(to, Ordering::Relaxed);
                intake.mark_stream(&stream);
            }
        }
        PartView::CreateCursor { id, stream, at } => {
            inner.next_cursor.fetch_max(id.saturating_add(1), Ordering::Relaxed);
            if inner.cursors.get(id).is_none() {
                let cursor = Arc::new(CursorInner::new(me.clone(), id, stream, CursorState::at(at)));
                intake.mark_cursor(&cursor);
                inner.cursors.insert(id, cursor);
            }
        }
        PartView::DeleteCursor { id } => {
            if let Some(cursor) = inner.cursors.remove(id) {
                cursor.deleted.store(true, Ordering::Release);
                intake.mark_cursor(&cursor);
            }
        }
        PartView::Ack { cursor, ranges } => change_cursor(intake, cursor, &mut |state| {
            for (start, end) in ranges.iter() {
                state.ack(start, end);
            }
        }),
        PartView::Counts { cursor, counts } => change_cursor(intake, cursor, &mut |state| {
            for (offset, count) in entry::counts(counts) {
                state.set_count(offset, count);
            }
        }),
        PartView::Seek { cursor, to } => change_cursor(intake, cursor, &mut |state| state.seek(to)),
        PartView::Acks { acks } => {
            for (cursor, start, end) in entry::acks(acks) {
                change_cursor(intake, cursor, &mut |state| {
                    state.ack(start, end);
                });
            }
        }
    }
}
