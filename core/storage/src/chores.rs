//! What the log does beside writing, on a thread of its own: seals closed segments, makes the next segment's file
//! ahead, syncs under the lazier policies, takes checkpoints, removes segments that nothing wants any more.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::checkpoint::SegmentChanges;
use crate::entry::Entry;
use crate::error::{LogError, SubmitError};
use crate::format::index::IndexBuilder;
use crate::format::segment::{HEADER_BYTES, SegmentTrailer};
use crate::inner::{Inner, Intake};
use crate::options::CommitPolicy;
use crate::sabotage::{Bug, is_seeded};
use crate::segments::Segment;
use crate::writer::UNSYNCED_BYTES_MAX;

/// The longest pause between two looks at what is to be done.
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Intake {
    /// The position up to which entries were submitted, acknowledgements being gathered included.
    pub(crate) fn submitted(&self) -> u64 {
        self.next_lsn + u64::from(!self.acks.is_empty())
    }
}

impl Inner {
    /// The maintenance thread's life.
    pub(crate) fn run_chores(&self) {
        let pause = match self.options.commit {
            CommitPolicy::Interval(interval) => interval.clamp(Duration::from_millis(1), PAUSE_MAX),
            CommitPolicy::Always | CommitPolicy::Os => PAUSE_MAX,
        };
        loop {
            {
                let mut chores = self.chores.lock();
                if chores.to_seal.is_empty() && !chores.is_closing {
                    self.chores_ready.wait_for(&mut chores, pause);
                }
                if chores.is_closing {
                    return;
                }
            }
            // A failure has ended the log and was reported where it happened.
            if self.do_chores().is_err() {
                return;
            }
        }
    }

    pub(crate) fn do_chores(&self) -> Result<(), LogError> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let _at_work = self.chores_at_work.lock();
        self.make_spare_ahead();
        self.sync_if_due()?;
        self.seal_closed()?;
        self.roll_if_old()?;
        let rewrote = self.may_clean() && (self.clean()? | self.compact()?);
        if rewrote || self.is_checkpoint_due() || self.is_anything_dead() {
            self.reclaim_or_checkpoint()?;
        }
        Ok(())
    }

    fn make_spare_ahead(&self) {
        if !self.options.preallocate || self.chores.lock().spare.is_some() {
            return;
        }
        // A failure here is not the log's: the writer tries again when it needs the file.
        match self.make_spare() {
            Ok((name, file)) => match file.sync() {
                Ok(()) => self.chores.lock().spare = Some((name, file)),
                Err(error) => tracing::warn!(%error, "the next segment's file cannot be made ahead"),
            },
            Err(error) => tracing::warn!(%error, "the next segment's file cannot be made ahead"),
        }
    }

    fn sync_if_due(&self) -> Result<(), LogError> {
        let unsynced = self.marks.committed().saturating_sub(self.marks.durable());
        let is_due = match self.options.commit {
            CommitPolicy::Always => false,
            CommitPolicy::Interval(_) => unsynced > 0,
            CommitPolicy::Os => unsynced > UNSYNCED_BYTES_MAX,
        };
        if is_due { self.sync_written().map(drop) } else { Ok(()) }
    }

    /// An old segment is closed, so that what is in it can be retained and reclaimed by age.
    fn roll_if_old(&self) -> Result<(), LogError> {
        let Some((segment, _)) = self.current.lock().clone() else { return Ok(()) };
        let age_ms = self.clock.now_ms().saturating_sub(segment.created_ms);
        let age_ms_max = i64::try_from(self.options.segment_age_max.as_millis()).unwrap_or(i64::MAX);
        if age_ms < age_ms_max {
            return Ok(());
        }
        {
            let mut intake = self.intake.lock();
            if intake.next_lsn <= segment.base + HEADER_BYTES || intake.segment_base != segment.base {
                return Ok(());
            }
            intake.roll_wanted = true;
        }
        match self.submit(Entry::new()) {
            Ok(submitted) => self.wait_committed_blocking(submitted.lsn.0),
            Err(SubmitError::Log(LogError::Closed)) => Ok(()),
            Err(SubmitError::Log(error)) => Err(error),
            Err(_) => Ok(()),
        }
    }

    fn is_checkpoint_due(&self) -> bool {
        let submitted = self.intake.lock().submitted();
        let since = submitted.saturating_sub(self.checkpoints.lock().lsn);
        let passed_ms = self.clock.now_ms().saturating_sub(self.last_checkpoint_ms.load(Ordering::Relaxed));
        let interval_ms = i64::try_from(self.options.checkpoint_interval.as_millis()).unwrap_or(i64::MAX);
        since > 0 && (since >= self.options.checkpoint_bytes || passed_ms >= interval_ms)
    }

    fn is_anything_dead(&self) -> bool {
        self.segments.list().iter().any(|segment| is_dead(segment))
    }

    /// Takes a checkpoint that names no dead segment any more, then removes their files.
    pub(crate) fn reclaim_or_checkpoint(&self) -> Result<(), LogError> {
        let gone: Vec<_> = self.segments.list().into_iter().filter(|segment| is_dead(segment)).collect();
        let changes = SegmentChanges { gone };
        if is_seeded(Bug::RemoveEarly) {
            self.remove_segments(&changes.gone)?;
            return self.checkpoint(&changes);
        }
        self.checkpoint(&changes)?;
        self.remove_segments(&changes.gone)
    }

    /// Removes files that the checkpoint does not name any more.
    pub(crate) fn remove_segments(&self, gone: &[Arc<Segment>]) -> Result<(), LogError> {
        for segment in gone {
            self.segments.forget(segment.id);
            let name = segment.id.file_name();
            self.medium.remove(&name).map_err(|error| self.fail(&format!("removing {name}"), &error))?;
            self.counters.reclaimed_segments.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes the indexes of segments that got their last entry.
    pub(crate) fn seal_closed(&self) -> Result<(), LogError> {
        loop {
            let Some(segment) = self.chores.lock().to_seal.first().cloned() else { return Ok(()) };
            self.seal(&segment)
                .map_err(|error| self.fail(&format!("sealing {}", segment.id.file_name()), &error))?;
            self.chores.lock().to_seal.retain(|other| other.id != segment.id);
        }
    }

    fn seal(&self, segment: &Arc<Segment>) -> std::io::Result<()> {
        if segment.is_sealed() {
            return Ok(());
        }
        let mut touched = std::mem::take(&mut *segment.touched.lock());
        touched.sort_unstable_by_key(|stream| stream.id);
        touched.dedup_by_key(|stream| stream.id);
        let mut index = IndexBuilder::default();
        for stream in &touched {
            let start = stream.start.load(Ordering::Acquire);
            let extents = stream.state.lock().runs.extents_to_seal(segment, start);
            for extent in &extents {
                index.push(stream.id, extent);
            }
        }
        let spread = index.spread();
        let (blocks_bytes, index_blocks, index_entries) = index.finish();
        let entries_end = segment.entries_end.load(Ordering::Acquire);
        let trailer = SegmentTrailer {
            id: segment.id,
            entries_end,
            index_start: entries_end,
            index_blocks,
            index_entries,
            max_timestamp: segment.max_timestamp.load(Ordering::Relaxed),
            spread,
        };
        let file = self.segments.file(segment.id)?;
        let trailer_bytes = trailer.encode();
        let total = entries_end + (blocks_bytes.len() + trailer_bytes.len()) as u64;
        file.write_at(entries_end, &[IoSlice::new(&blocks_bytes), IoSlice::new(&trailer_bytes)])?;
        file.set_len(total)?;
        if !is_seeded(Bug::SkipSealSync) {
            file.sync()?;
        }
        let _ = segment.index_place.set((entries_end, index_blocks));
        let _ = segment.spread.set(spread);
        segment.sealed.store(true, Ordering::Release);
        for stream in &touched {
            let mut state = stream.state.lock();
            let start = stream.start.load(Ordering::Acquire);
            let high = stream.high.load(Ordering::Acquire);
            state.runs.sealed(segment, start);
            state.runs.release_below(start, high);
        }
        Ok(())
    }
}

/// Nothing in it is wanted any more. What it said about state is in the checkpoint that names it no more.
fn is_dead(segment: &Segment) -> bool {
    segment.is_sealed() && segment.live_runs.load(Ordering::Acquire) == 0
}
