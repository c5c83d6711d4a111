//! Timers: a queue of deadlines, each with a key that says what is due.
//!
//! Owns the order of the deadlines and the wake-up of the one task that waits for the earliest. Does not own what the
//! keys mean: the broker takes the keys that are due and runs them.
//!
//! An entry scheduled before [`Timers::wait`] is called still wakes it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Clock;

/// A queue of deadlines.
pub struct Timers<K> {
    /// Deadlines in milliseconds, on a time base of the caller's choice, and their keys.
    entries: Mutex<BTreeSet<(i64, K)>>,
    /// The deadline that the waiting task sleeps for.
    sleeps_until_ms: AtomicI64,
    earlier: Notify,
}

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Timers {
            entries: Mutex::default(),
            sleeps_until_ms: AtomicI64::new(i64::MAX),
            earlier: Notify::new(),
        }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Schedules a key.
    pub fn schedule(&self, at_ms: i64, key: K) {
        self.reschedule(None, at_ms, key);
    }

    /// Schedules a key, instead of its deadline `before_ms` if that is given. Takes no other lock: the log's thread
    /// calls it.
    pub fn reschedule(&self, before_ms: Option<i64>, at_ms: i64, key: K) {
        let before = before_ms.map(|before_ms| (before_ms, key.clone()));
        {
            let mut entries = self.entries.lock();
            before.map(|before| entries.remove(&before));
            entries.insert((at_ms, key));
        }
        self.wake_for(at_ms);
    }

    /// Schedules a key at `at_ms` unless `armed_ms`, which holds its present deadline, is as early.
    pub(crate) fn schedule_by(&self, armed_ms: &AtomicI64, at_ms: i64, key: impl FnOnce() -> K) {
        if armed_ms.load(Ordering::Acquire) <= at_ms {
            return;
        }
        let key = key();
        {
            let mut entries = self.entries.lock();
            let before_ms = armed_ms.load(Ordering::Acquire);
            if before_ms <= at_ms {
                return;
            }
            entries.remove(&(before_ms, key.clone()));
            entries.insert((at_ms, key));
            armed_ms.store(at_ms, Ordering::Release);
        }
        self.wake_for(at_ms);
    }

    /// Removes a deadline of a key.
    pub fn cancel(&self, at_ms: i64, key: K) {
        self.entries.lock().remove(&(at_ms, key));
    }

    fn wake_for(&self, at_ms: i64) {
        if at_ms < self.sleeps_until_ms.load(Ordering::SeqCst) {
            self.earlier.notify_one();
        }
    }

    /// Waits until a deadline is reached or an earlier one was scheduled, at most until `until`. `now_ms` is asked for the
    /// present on the deadlines' time base.
    pub async fn wait(&self, clock: &Clock, now_ms: impl FnOnce() -> i64, until: Instant) {
        // Before the time that the deadlines are compared with: a clock that goes on in between makes this wait too short,
        // never too long.
        let now = clock.now();
        // Any entry scheduled from here on wakes this task.
        self.sleeps_until_ms.store(i64::MAX, Ordering::SeqCst);
        let first_ms = self.entries.lock().first().map(|(at, _)| *at);
        let until = match first_ms {
            Some(at_ms) => {
                self.sleeps_until_ms.store(at_ms, Ordering::SeqCst);
                let left_ms = u64::try_from(at_ms.saturating_sub(now_ms())).unwrap_or(0);
                until.min(now + Duration::from_millis(left_ms))
            }
            None => until,
        };
        tokio::select! {
            biased;
            () = clock.sleep_until(until) => {}
            () = self.earlier.notified() => {}
        }
    }

    /// Takes the entries whose deadline is reached, earliest first.
    #[must_use]
    pub fn take(&self, now_ms: i64) -> Vec<(i64, K)> {
        let mut taken = Vec::new();
        let mut entries = self.entries.lock();
        while entries.first().is_some_and(|(at_ms, _)| *at_ms <= now_ms) {
            taken.extend(entries.pop_first());
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_due_once_at_its_earliest_deadline() {
        let (timers, armed_ms) = (Timers::default(), AtomicI64::new(i64::MAX));
        for at_ms in [500, 300, 400, 300] {
            timers.schedule_by(&armed_ms, at_ms, || 'q');
        }
        assert!(timers.take(299).is_empty());
        assert_eq!(timers.take(1000), [(300, 'q')]);
        assert!(timers.take(1000).is_empty());
    }

    #[test]
    fn a_deadline_is_moved_and_cancelled() {
        let timers = Timers::default();
        timers.schedule(10, 1);
        timers.schedule(10, 2);
        timers.reschedule(Some(10), 20, 1);
        timers.cancel(10, 2);
        timers.cancel(10, 3);
        assert_eq!(timers.take(i64::MAX), [(20, 1)]);
    }

    #[tokio::test]
    async fn waiting_ends_at_the_first_deadline_and_at_one_scheduled_meanwhile() {
        let (timers, clock) = (Timers::default(), Clock::manual(1000));
        let far = clock.now() + Duration::from_secs(60);
        timers.schedule(1500, 'a');
        // Scheduled before the wait: it is not missed.
        timers.wait(&clock, || clock.now_ms(), far).await;
        let mut wait = Box::pin(timers.wait(&clock, || clock.now_ms(), far));
        assert!(poll(&mut wait).is_pending());
        clock.advance(Duration::from_millis(500));
        wait.await;
        assert_eq!(timers.take(clock.now_ms()), [(1500, 'a')]);
        let mut wait = Box::pin(timers.wait(&clock, || clock.now_ms(), far));
        assert!(poll(&mut wait).is_pending());
        timers.schedule(2000, 'b');
        wait.await;
    }

    #[tokio::test]
    async fn a_clock_that_goes_on_before_the_wait_begins_is_not_waited_for_again() {
        let (timers, clock) = (Timers::default(), Clock::manual(1000));
        timers.schedule(1500, 'a');
        let now_ms = || {
            let now_ms = clock.now_ms();
            clock.advance(Duration::from_millis(500));
            now_ms
        };
        let mut wait = Box::pin(timers.wait(&clock, now_ms, clock.now() + Duration::from_secs(60)));
        assert!(poll(&mut wait).is_ready());
    }

    fn poll<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::Pin::new(future).poll(&mut context)
    }
}
