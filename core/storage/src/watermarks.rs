//! Commit and durability positions of the log, and the tasks that wait for them.
//!
//! A waiting task is listed once, whatever the number of its entries, and the writer wakes each listed task at most once
//! per group: completion costs no wake-up per message.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use crate::error::LogError;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::sync::{AtomicBool, AtomicU64, Mutex};

/// Identity of the task that a waker wakes.
type WakerKey = (usize, usize);

#[derive(Debug, Default)]
pub(crate) struct Watermarks {
    committed: AtomicU64,
    durable: AtomicU64,
    ended: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    failure: Option<LogError>,
    /// Tasks waiting for a commit, each with its least position; a woken task polls again for the others.
    for_commit: HashMap<WakerKey, (u64, Waker)>,
    for_room: HashMap<WakerKey, Waker>,
}

fn key(waker: &Waker) -> WakerKey {
    (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr())
}

impl Watermarks {
    /// Sets both marks, before anything is submitted.
    pub(crate) fn start_at(&self, lsn: u64) {
        self.committed.store(lsn, Ordering::Release);
        self.durable.store(lsn, Ordering::Release);
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn set_durable(&self, lsn: u64) {
        self.durable.fetch_max(lsn, Ordering::AcqRel);
    }

    /// Marks everything up to `lsn` as committed; wakes tasks that waited for it or for room.
    pub(crate) fn commit(&self, lsn: u64) {
        self.committed.fetch_max(lsn, Ordering::AcqRel);
        let mut woken = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            let reached = waiting.for_commit.extract_if(|_, (wanted, _)| *wanted <= lsn);
            woken.extend(reached.map(|(_, (_, waker))| waker));
            woken.extend(waiting.for_room.drain().map(|(_, waker)| waker));
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Ends the log: every waiting task is woken with the error. Keeps the first error.
    pub(crate) fn end(&self, error: LogError) {
        let woken: Vec<Waker> = {
            let mut waiting = self.waiting.lock();
            if waiting.failure.is_none() {
                waiting.failure = Some(error);
            }
            self.ended.store(true, Ordering::Release);
            let committing = waiting.for_commit.drain().map(|(_, (_, waker))| waker).collect::<Vec<_>>();
            let admitting = waiting.for_room.drain().map(|(_, waker)| waker);
            committing.into_iter().chain(admitting).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn failure(&self) -> Option<LogError> {
        if !self.ended.load(Ordering::Acquire) {
            return None;
        }
        self.waiting.lock().failure.clone()
    }

    pub(crate) fn poll_committed(&self, lsn: u64, cx: &mut Context<'_>) -> Poll<Result<(), LogError>> {
        if self.committed() >= lsn {
            return Poll::Ready(Ok(()));
        }
        let mut waiting = self.waiting.lock();
        // Check again under the lock: the writer raises the mark before it takes the lock.
        if self.committed() >= lsn && !is_seeded(Bug::CheckOnce) {
            return Poll::Ready(Ok(()));
        }
        if let Some(failure) = &waiting.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        let committed = self.committed();
        match waiting.for_commit.entry(key(cx.waker())) {
            Entry::Vacant(vacant) => {
                vacant.insert((lsn, cx.waker().clone()));
            }
            // The listed position is reached, and the writer is about to remove this entry: the task would never be woken
            // for `lsn`. Wake it here and list it for `lsn`.
            Entry::Occupied(mut place) if place.get().0 <= committed => {
                place.get_mut().0 = lsn;
                drop(waiting);
                cx.waker().wake_by_ref();
            }
            Entry::Occupied(mut place) => place.get_mut().0 = lsn.min(place.get().0),
        }
        Poll::Pending
    }

    pub(crate) fn poll_room(
        &self,
        is_room: impl Fn() -> bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), LogError>> {
        if is_room() && !self.ended.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let mut waiting = self.waiting.lock();
        if let Some(failure) = &waiting.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        if is_room() {
            return Poll::Ready(Ok(()));
        }
        waiting.for_room.entry(key(cx.waker())).or_insert_with(|| cx.waker().clone());
        Poll::Pending
    }
}

/// A waker that unparks a thread.
#[derive(Debug)]
pub(crate) struct ThreadWaker(std::thread::Thread);

impl ThreadWaker {
    pub(crate) fn current() -> Waker {
        Waker::from(Arc::new(Self(std::thread::current())))
    }
}

impl std::task::Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The task sees the mark before the writer wakes it, and waits for a later position.
    #[test]
    fn a_task_ahead_of_the_writer_is_woken_for_its_next_position() {
        let marks = Watermarks::default();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(marks.poll_committed(50, &mut cx).is_pending());
        // The first half of `commit(50)`.
        marks.committed.store(50, Ordering::Release);
        assert!(marks.poll_committed(50, &mut cx).is_ready());
        assert!(marks.poll_committed(80, &mut cx).is_pending());
        marks.commit(50);
        let before = count.0.load(Ordering::Relaxed);
        marks.commit(80);
        assert_eq!(count.0.load(Ordering::Relaxed), before + 1);
    }

    #[test]
    fn a_task_is_woken_for_its_least_position() {
        let marks = Watermarks::default();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(marks.poll_committed(80, &mut cx).is_pending());
        assert!(marks.poll_committed(50, &mut cx).is_pending());
        marks.commit(40);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        marks.commit(50);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
