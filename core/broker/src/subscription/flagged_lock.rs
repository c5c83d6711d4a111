//! A lock with a flag, which tells the holder of the lock, or the one that takes it next, that there is something to do.
//!
//! Who sets the flag never waits. Nothing is missed either: the holder reads the flag after it released the lock, and who
//! set the flag tries the lock after that.

use std::sync::atomic::Ordering;

use crate::seeded_bugs::{Bug, is_seeded};
use crate::sync::{AtomicBool, Mutex, MutexGuard, fence};

pub(super) struct FlaggedLock<T> {
    of: Mutex<T>,
    is_flagged: AtomicBool,
}

impl<T> FlaggedLock<T> {
    pub(super) fn new(of: T) -> FlaggedLock<T> {
        FlaggedLock { of: Mutex::new(of), is_flagged: AtomicBool::new(false) }
    }

    /// Waits for the lock. Who releases it asks for [`flagged`](Self::flagged).
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.of.lock()
    }

    /// Sets the flag. Who does asks for [`flagged`](Self::flagged).
    pub(super) fn flag(&self) {
        self.is_flagged.store(true, Ordering::Release);
    }

    /// The lock if the flag is set, to be [taken down](Self::take_flag) under it; none if nothing is to be done, or if
    /// somebody holds the lock, who asks for this afterwards.
    pub(super) fn flagged(&self) -> Option<MutexGuard<'_, T>> {
        // Between the release of the lock (or the setting of the flag) and the reading of the other.
        if !is_seeded(Bug::SkipFence) {
            fence(Ordering::SeqCst);
        }
        if !self.is_flagged.load(Ordering::Relaxed) {
            return None;
        }
        self.of.try_lock()
    }

    /// Takes the flag down. Whether it was set. For who holds the lock.
    pub(super) fn take_flag(&self) -> bool {
        self.is_flagged.swap(false, Ordering::AcqRel)
    }
}
