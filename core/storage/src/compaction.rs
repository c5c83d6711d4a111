//! Key compaction: of the records of a stream that have the same key, only the last one stays.
//!
//! Rewrites the sealed part of one stream into new segments, as the cleaner does with whole segments. Offsets stay as
//! they are: batches lose records but keep their base offset and span, and a batch that lost all of them is a hole. What
//! is newest, i.e. not in a sealed segment yet, is never touched. Kept as they are: records without a key, control and
//! transactional batches, batches that cannot be read. A reader that holds bytes keeps them.
//!
//! Which streams are compacted is for the layers above to say, after each start; it is not stored here.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::batch::{self, BatchHeader, Compression, HEADER_BYTES, LOG_APPEND_TIME, Record};
use crate::cleaner::{CleanError, Copy, Moved, OldRun, READ_BYTES, install};
use crate::error::LogError;
use crate::format::index::Extent;
use crate::ids::StreamId;
use crate::inner::Inner;
use crate::stream::cold::read_extents;
use crate::stream::{StoredBatch, StreamInner};

/// How a stream is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// A record without a value (a tombstone) stays this long after its timestamp, so that readers see it.
    pub delete_retention: Duration,
    /// Compacted when at least this share (percent) of the sealed bytes came since the last time.
    pub dirty_percent_min: u32,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { delete_retention: Duration::from_secs(24 * 3600), dirty_percent_min: 50 }
    }
}

/// A stream that is to be compacted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compacted {
    policy: Compaction,
    /// Everything below was compacted before.
    clean_to: u64,
}

/// Where each key was seen last. Keys are known by 128 bits of two keyed hashes.
struct LastOffsets {
    hashers: [RandomState; 2],
    last: HashMap<(u64, u64), u64>,
    keys_max: usize,
    /// Records from here on are not in the map: there was no more room.
    end: u64,
}

impl LastOffsets {
    fn key(&self, key: &[u8]) -> (u64, u64) {
        let [one, two] = &self.hashers;
        (one.hash_one(key), two.hash_one(key))
    }

    /// False when there is no more room.
    fn note(&mut self, key: &[u8], offset: u64) -> bool {
        let key = self.key(key);
        if self.last.len() >= self.keys_max && !self.last.contains_key(&key) {
            return false;
        }
        self.last.insert(key, offset);
        true
    }

    fn is_last(&self, key: &[u8], offset: u64) -> bool {
        offset >= self.end || self.last.get(&self.key(key)).is_none_or(|last| *last <= offset)
    }
}

impl Inner {
    pub(crate) fn set_compaction(&self, stream: StreamId, policy: Option<Compaction>) {
        let mut compacted = self.compacted.lock();
        match policy {
            Some(policy) => {
                let clean_to = compacted.get(&stream.0).map_or(0, |known| known.clean_to);
                compacted.insert(stream.0, Compacted { policy, clean_to });
            }
            None => {
                compacted.remove(&stream.0);
            }
        }
    }

    /// Compacts one stream that has enough new in it, if there is any. Whether a checkpoint is wanted now.
    pub(crate) fn compact(&self) -> Result<bool, LogError> {
        let candidates: Vec<(u64, Compacted)> = {
            let mut compacted = self.compacted.lock();
            compacted.retain(|id, _| self.streams.get(*id).is_some());
            compacted.iter().map(|(id, known)| (*id, *known)).collect()
        };
        for (id, known) in candidates {
            let Some(stream) = self.streams.get(id) else { continue };
            let Some((runs, end)) = wanted(&stream, &known) else { continue };
            let done = self.compact_stream(&stream, &known.policy, runs);
            if let Some(known) = self.compacted.lock().get_mut(&id) {
                // Also after damage: it is not tried again before there is something new.
                known.clean_to = end;
            }
            return match done {
                Ok(()) => Ok(true),
                Err(CleanError::Unreadable(error)) => {
                    tracing::error!(%error, stream = id, "a stream cannot be compacted");
                    self.drop_copy();
                    Ok(false)
                }
                Err(CleanError::Io(error)) => Err(self.fail("compacting", &error)),
                Err(CleanError::Log(error)) => Err(error),
            };
        }
        Ok(false)
    }

    fn compact_stream(
        &self,
        stream: &Arc<StreamInner>,
        policy: &Compaction,
        runs: Vec<OldRun>,
    ) -> Result<(), CleanError> {
        let last = self.last_offsets(stream, &runs)?;
        let retention_ms = i64::try_from(policy.delete_retention.as_millis()).unwrap_or(i64::MAX);
        let tombstones_to_ms = self.clock.now_ms().saturating_sub(retention_ms);
        let mut runs = runs.into_iter().peekable();
        while runs.peek().is_some() {
            let mut copy = Copy::make(self)?;
            let (mut olds, mut moved) = (Vec::new(), Vec::new());
            while copy.bytes() < self.options.segment_bytes_max
                && let Some(run) = runs.next()
            {
                olds.push((run.segment.clone(), run.first));
                let done = self.copy_compacted(&mut copy, stream, run, &last, tombstones_to_ms)?;
                moved.extend(done);
            }
            let segment = if moved.is_empty() { None } else { Some(copy.finish(self)?) };
            self.drop_copy();
            if let Some(segment) = &segment {
                self.segments.insert(segment.clone());
            }
            self.intake.lock().mark_stream(stream);
            let is_old = |run: &crate::stream::runs::Run| {
                olds.iter().any(|(old, first)| *first == run.first && Arc::ptr_eq(old, &run.segment))
            };
            install(stream, is_old, &moved, segment.as_ref());
        }
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The first pass: where each key is last.
    fn last_offsets(&self, stream: &Arc<StreamInner>, runs: &[OldRun]) -> Result<LastOffsets, CleanError> {
        let mut last = LastOffsets {
            hashers: [RandomState::new(), RandomState::new()],
            last: HashMap::new(),
            keys_max: self.options.compaction_keys_max,
            end: u64::MAX,
        };
        for run in runs {
            let mut from = stream.start.load(Ordering::Acquire).max(run.first);
            loop {
                let (extents, batches) = self.read_run(stream, run, from)?;
                let Some(end) = extents.last().map(Extent::end) else { break };
                from = end;
                for stored in batches.iter().filter(|stored| is_compactable(&stored.bytes)) {
                    let Ok(records) = batch::records(&stored.bytes) else { continue };
                    for record in records.flatten() {
                        let offset = stored.base_offset.0 + u64::from(record.offset_delta);
                        if record.key.is_some_and(|key| !last.note(&key, offset)) {
                            last.end = offset;
                            return Ok(last);
                        }
                    }
                }
            }
        }
        Ok(last)
    }

    /// The second pass: copies what stays of a run.
    fn copy_compacted(
        &self,
        copy: &mut Copy,
        stream: &Arc<StreamInner>,
        run: OldRun,
        last: &LastOffsets,
        tombstones_to_ms: i64,
    ) -> Result<Option<Moved>, CleanError> {
        let mut from = stream.start.load(Ordering::Acquire).max(run.first);
        let mut moved = Moved::nothing_of(run);
        loop {
            let (extents, batches) = self.read_run(stream, &moved.old, from)?;
            let Some(end) = extents.last().map(Extent::end) else { break };
            from = end;
            let (mut kept_extents, mut kept) = (Vec::new(), Vec::new());
            for (extent, stored) in extents.iter().zip(batches) {
                let Some(bytes) = compact_batch(&stored, last, tombstones_to_ms) else { continue };
                let Ok(header) = BatchHeader::parse(&bytes) else { continue };
                kept_extents.push(Extent {
                    length: bytes.len() as u32,
                    max_timestamp: header.max_timestamp,
                    ..*extent
                });
                kept.push(StoredBatch { bytes, ..stored });
            }
            if !kept.is_empty() {
                copy.put_entry(stream.id, &kept_extents, &kept)?;
                moved.add(&kept_extents);
            }
        }
        Ok(moved.is_anything().then_some(moved))
    }

    /// Some batches of a run, with their extents.
    fn read_run(
        &self,
        stream: &StreamInner,
        run: &OldRun,
        from: u64,
    ) -> Result<(Vec<Extent>, Vec<StoredBatch>), CleanError> {
        let extents = self.index.extents(&self.segments, &run.segment, stream.id, from, READ_BYTES);
        let mut extents = extents.map_err(CleanError::Unreadable)?;
        extents.retain(|extent| extent.base < run.end);
        let batches = read_extents(self, &run.segment, &extents).map_err(CleanError::Unreadable)?;
        Ok((extents, batches))
    }
}

/// The sealed runs of a stream and where they end, if enough of it is new.
fn wanted(stream: &StreamInner, known: &Compacted) -> Option<(Vec<OldRun>, u64)> {
    let state = stream.state.lock();
    let high = stream.high.load(Ordering::Acquire);
    let ends = state.runs.iter().skip(1).map(|next| next.first).chain([high]);
    let sealed: Vec<_> = state.runs.iter().zip(ends).take_while(|(run, _)| run.segment.is_sealed()).collect();
    let total: u64 = sealed.iter().map(|(run, _)| run.bytes).sum();
    let dirty: u64 =
        sealed.iter().filter(|(run, _)| run.first >= known.clean_to).map(|(run, _)| run.bytes).sum();
    let end = sealed.last()?.1;
    let is_wanted = dirty > 0 && dirty * 100 >= total * u64::from(known.policy.dirty_percent_min);
    let old = |(run, end): &(&crate::stream::runs::Run, u64)| OldRun {
        segment: run.segment.clone(),
        first: run.first,
        end: *end,
    };
    is_wanted.then(|| (sealed.iter().map(old).collect(), end))
}

fn is_compactable(bytes: &[u8]) -> bool {
    BatchHeader::parse(bytes).is_ok_and(|header| !header.is_control() && !header.is_transactional())
}

/// What stays of a batch; `None` when nothing does.
fn compact_batch(stored: &StoredBatch, last: &LastOffsets, tombstones_to_ms: i64) -> Option<Bytes> {
    let whole = || Some(stored.bytes.clone());
    let (Ok(header), Ok(mut records)) = (BatchHeader::parse(&stored.bytes), batch::records(&stored.bytes))
    else {
        return whole();
    };
    if !is_compactable(&stored.bytes) {
        return whole();
    }
    let stays = |record: &Record| {
        let Some(key) = &record.key else { return true };
        let offset = stored.base_offset.0 + u64::from(record.offset_delta);
        let is_expired = record.value.is_none() && record.timestamp_ms < tombstones_to_ms;
        last.is_last(key, offset) && !(is_expired && offset < last.end)
    };
    let mut kept = BytesMut::new();
    let (mut count, mut max_timestamp) = (0, i64::MIN);
    while let Some(record) = records.next() {
        let Ok(record) = record else { return whole() };
        if stays(&record) {
            kept.extend_from_slice(&records.last_encoded());
            count += 1;
            max_timestamp = max_timestamp.max(record.timestamp_ms);
        }
    }
    match count {
        0 => None,
        _ if count == header.record_count => whole(),
        _ => {
            let is_append_time = header.attributes & LOG_APPEND_TIME != 0;
            let max_timestamp = if is_append_time { header.max_timestamp } else { max_timestamp };
            rebuild(&header, &kept, count, max_timestamp).or_else(whole)
        }
    }
}

/// A batch with fewer records, in the place of the old one.
fn rebuild(header: &BatchHeader, records: &[u8], count: u32, max_timestamp: i64) -> Option<Bytes> {
    let mut header = *header;
    let codec = Compression::from_attributes(header.attributes).ok()?;
    let compressed = batch::compress(codec, records);
    if compressed.is_none() {
        header.attributes &= !batch::COMPRESSION_MASK;
    }
    let records = compressed.as_deref().unwrap_or(records);
    header.batch_length = u32::try_from(HEADER_BYTES + records.len()).ok()?.checked_sub(12)?;
    header.record_count = count;
    header.max_timestamp = max_timestamp;
    let mut out = BytesMut::with_capacity(HEADER_BYTES + records.len());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(records);
    Some(batch::seal(out, &mut header))
}
