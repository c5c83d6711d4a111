//! Key compaction: of the records of a stream that have the same key, only the last one stays.
//!
//! Rewrites the sealed part of one stream into new segments, as the cleaner does with whole segments. Offsets stay as
//! they are: batches lose records but keep their base offset and span, and a batch that lost all of them is a hole. What
//! is newest, i.e. not in a sealed segment yet, is never touched. Kept as they are: records without a key, batches that
//! cannot be read, and what is in or after a transaction that is open. Records of aborted transactions go, and markers
//! of transactions of which nothing is left, after the time that tombstones stay. What producers sent last is not
//! known from the batches, so idempotence outlives them. A reader that holds bytes keeps them; one that is about to
//! read a segment that was replaced looks again, and the tail cache lets go of what was replaced.

mod policy;
mod survivors;

use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use self::policy::Compaction;
use self::policy::ms;
pub(crate) use self::policy::{CLEAN_TO, Compacted, POLICIES, row_key};
use self::survivors::Survivors;
use crate::batch::BatchHeader;
use crate::cleaner::{CleanError, Copy, Moved, OldRun, READ_BYTES, install};
use crate::error::LogError;
use crate::format::index::Extent;
use crate::inner::Inner;
use crate::stream::cold::read_extents;
use crate::stream::runs::Run;
use crate::stream::{StoredBatch, StreamInner};

/// Streams compacted before a checkpoint is taken.
const STREAMS_AT_ONCE_MAX: usize = 64;

impl Inner {
    /// Compacts streams that have enough new in them, if there are any. Whether a checkpoint is wanted now.
    pub(crate) fn compact(&self) -> Result<bool, LogError> {
        let mut compacted = 0;
        for (stream, known) in self.compacted_streams() {
            let Some((runs, end)) = self.wanted(&stream, &known) else { continue };
            let mut clean_to = known.clean_to;
            // Also after damage: it is not tried again before there is something new.
            let mut looked_to = end;
            match self.compact_stream(&stream, &known, runs) {
                Ok(survivors) => {
                    clean_to = survivors.end().min(end).max(clean_to);
                    stream.compacted(clean_to);
                    if survivors.is_full() && clean_to > known.clean_to {
                        looked_to = clean_to;
                    }
                }
                Err(CleanError::Unreadable(error)) => {
                    tracing::error!(%error, stream = stream.id, "a stream cannot be compacted");
                    self.drop_copy();
                }
                Err(CleanError::Io(error)) => {
                    self.put_off_cleaning(&error);
                    return Ok(compacted > 0);
                }
                Err(CleanError::Log(error)) => return Err(error),
            }
            self.set_clean_to(stream.id, clean_to, looked_to);
            compacted += 1;
            if compacted == STREAMS_AT_ONCE_MAX {
                break;
            }
        }
        Ok(compacted > 0)
    }

    fn compact_stream(
        &self,
        stream: &Arc<StreamInner>,
        known: &Compacted,
        runs: Vec<OldRun>,
    ) -> Result<Survivors, CleanError> {
        let expired_to_ms = self.clock.now_ms().saturating_sub_unsigned(ms(known.policy.delete_retention));
        let keys_max = self.options.compaction_keys_max;
        let mut survivors = Survivors::new(known.clean_to, keys_max, expired_to_ms);
        self.look_through(stream, &runs, known.clean_to, &mut survivors)?;
        survivors.turn();
        let mut runs = runs.into_iter().peekable();
        while runs.peek().is_some() {
            let mut copy = Copy::make(self)?;
            let (mut olds, mut moved) = (Vec::new(), Vec::new());
            while copy.bytes() < self.options.segment_bytes_max
                && let Some(run) = runs.next()
            {
                olds.push((run.segment.clone(), run.first));
                let done = self.copy_compacted(&mut copy, stream, run, &mut survivors)?;
                moved.extend(done);
            }
            let segment = if moved.is_empty() { None } else { Some(copy.finish(self)?) };
            self.drop_copy();
            if let Some(segment) = &segment {
                self.segments.insert(segment.clone());
            }
            self.intake.lock().mark_stream(stream);
            let is_old = |run: &Run| {
                olds.iter().any(|(old, first)| *first == run.first && Arc::ptr_eq(old, &run.segment))
            };
            install(stream, is_old, &moved, segment.as_ref());
        }
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        Ok(survivors)
    }

    /// The first pass: over what is not clean yet. Below that each key is there once.
    fn look_through(
        &self,
        stream: &Arc<StreamInner>,
        runs: &[OldRun],
        clean_to: u64,
        survivors: &mut Survivors,
    ) -> Result<(), CleanError> {
        for run in runs.iter().filter(|run| run.end > clean_to) {
            let mut from = stream.start.load(Ordering::Acquire).max(run.first).max(clean_to);
            loop {
                let (extents, batches) = self.read_run(stream, run, from)?;
                let Some(end) = extents.last().map(Extent::end) else { break };
                from = end;
                if !batches.iter().all(|stored| survivors.note(stored)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The second pass: copies what stays of a run.
    fn copy_compacted(
        &self,
        copy: &mut Copy,
        stream: &Arc<StreamInner>,
        run: OldRun,
        survivors: &mut Survivors,
    ) -> Result<Option<Moved>, CleanError> {
        let mut from = stream.start.load(Ordering::Acquire).max(run.first);
        let mut moved = Moved::nothing_of(run);
        loop {
            let (extents, batches) = self.read_run(stream, &moved.old, from)?;
            let Some(end) = extents.last().map(Extent::end) else { break };
            from = end;
            let (mut kept_extents, mut kept) = (Vec::new(), Vec::new());
            for (extent, stored) in extents.iter().zip(batches) {
                let Some(bytes) = survivors.keep(&stored) else { continue };
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

    /// The sealed runs of a stream and where they end, if enough of it is new.
    fn wanted(&self, stream: &StreamInner, known: &Compacted) -> Option<(Vec<OldRun>, u64)> {
        let lag_ms = ms(known.policy.lag_min);
        let youngest_ms =
            if lag_ms == 0 { i64::MAX } else { self.clock.now_ms().saturating_sub_unsigned(lag_ms) };
        let state = stream.state.lock();
        let high = stream.high.load(Ordering::Acquire);
        let ends = state.runs.iter().skip(1).map(|next| next.first).chain([high]);
        let is_ready = |run: &Run| run.segment.is_sealed() && run.max_timestamp <= youngest_ms;
        let sealed: Vec<_> = state.runs.iter().zip(ends).take_while(|(run, _)| is_ready(run)).collect();
        let total: u64 = sealed.iter().map(|(run, _)| run.bytes).sum();
        let dirty: u64 =
            sealed.iter().filter(|(_, end)| *end > known.looked_to).map(|(run, _)| run.bytes).sum();
        let end = sealed.last()?.1;
        let is_wanted = dirty > 0 && dirty * 100 >= total * u64::from(known.policy.dirty_percent_min);
        let old =
            |(run, end): &(&Run, u64)| OldRun { segment: run.segment.clone(), first: run.first, end: *end };
        is_wanted.then(|| (sealed.iter().map(old).collect(), end))
    }
}
