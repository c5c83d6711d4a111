//! Work beside writing that could not be done: why, and when it is tried again.
//!
//! Nothing that was acknowledged depends on it, so the log goes on. Attempts are repeated with growing pauses.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Clock;

/// The pause after the first failure; each further one doubles it.
const PAUSE_MS: i64 = 1_000;
const PAUSE_MS_MAX: i64 = 60_000;

/// Work beside writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackgroundTask {
    /// Checkpoints.
    Checkpoint,
    /// The second file of the checkpoint.
    CheckpointCopy,
    /// Indexes of closed segments.
    Sealing,
    /// Cleaning of mostly dead segments and compaction by key.
    Rewriting,
    /// Removal of segment files without live data.
    Removal,
}

impl BackgroundTask {
    const ALL: [BackgroundTask; 5] =
        [Self::Checkpoint, Self::CheckpointCopy, Self::Sealing, Self::Rewriting, Self::Removal];
}

impl fmt::Display for BackgroundTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkpoint => "checkpoint",
            Self::CheckpointCopy => "second file of the checkpoint",
            Self::Sealing => "sealing of a segment",
            Self::Rewriting => "cleaning of segments",
            Self::Removal => "removal of segment files",
        })
    }
}

struct PutOff {
    reason: String,
    until_ms: i64,
    pause_ms: i64,
}

/// The work that is put off.
pub(crate) struct Background {
    clock: Arc<dyn Clock>,
    put_off: Mutex<[Option<PutOff>; BackgroundTask::ALL.len()]>,
}

impl Background {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, put_off: Mutex::default() }
    }

    /// Puts work off.
    pub(super) fn put_off(&self, task: BackgroundTask, error: &dyn fmt::Display) {
        let mut put_off = self.put_off.lock();
        let Some(place) = put_off.get_mut(task as usize) else { return };
        let pause_ms = place.as_ref().map_or(PAUSE_MS, |before| (before.pause_ms * 2).min(PAUSE_MS_MAX));
        tracing::error!(%error, "{task} put off: it is tried again in {} s", pause_ms / 1000);
        let until_ms = self.clock.now_ms().saturating_add(pause_ms);
        *place = Some(PutOff { reason: error.to_string(), until_ms, pause_ms });
    }

    /// Notes that work was done.
    pub(super) fn done(&self, task: BackgroundTask) {
        if let Some(place) = self.put_off.lock().get_mut(task as usize)
            && place.take().is_some()
        {
            tracing::info!("{task} works again");
        }
    }

    /// Whether the work is not put off, or the pause is over.
    pub(super) fn may_try(&self, task: BackgroundTask) -> bool {
        let put_off = self.put_off.lock();
        let place = put_off.get(task as usize).and_then(Option::as_ref);
        place.is_none_or(|place| self.clock.now_ms() >= place.until_ms)
    }

    /// Whether work was put off and the pause is over.
    pub(super) fn is_due(&self, task: BackgroundTask) -> bool {
        self.reason(task).is_some() && self.may_try(task)
    }

    /// Why work is put off.
    pub(crate) fn reason(&self, task: BackgroundTask) -> Option<String> {
        self.put_off.lock().get(task as usize)?.as_ref().map(|place| place.reason.clone())
    }

    /// All work that is put off, and why.
    pub(crate) fn all(&self) -> Vec<(BackgroundTask, String)> {
        BackgroundTask::ALL.into_iter().filter_map(|task| Some((task, self.reason(task)?))).collect()
    }
}
