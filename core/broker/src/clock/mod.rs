//! The clock. Three times: *monotonic* time for waiting; *wall* time for what clients and operators are told or state
//! themselves, such as the expiry of a token; and *steady* time for every deadline that is stored, and for the timestamps that
//! such deadlines are counted from.
//!
//! Steady time is milliseconds since 1970 too, but it does not jump when the system's time is set: it goes on with what has
//! elapsed, also while the machine slept, and nears the system's time by at most [`SLEW`] of that. So a step of a day
//! expires nothing that was just used. Across restarts it begins at the system's time or at the last one that the log knows,
//! whichever is later; in the second case the system's time was not set yet, and is taken once it is.
//!
//! The one place that reads the system's clocks. Everything else is handed a [`Clock`], so that tests advance time
//! instead of sleeping. [`Blocking`] is the same for threads: a simulation is handed the work and runs it in its own order.

mod blocking;
mod one_by_one;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::seeded_bugs::{Bug, is_seeded};

pub(crate) use one_by_one::OneByOne;

pub use blocking::{Blocking, Work};

/// Steady time nears the system's by one part in this many of the time that has elapsed.
const SLEW: i64 = 20;

/// A difference from the system's time from which on an operator is told, milliseconds.
const TOLD_MS: i64 = 60_000;

/// A source of time; cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
struct Source {
    manual: Option<Manual>,
    steady: Steady,
}

#[derive(Debug)]
struct Manual {
    start: Instant,
    /// Wall time less what has elapsed.
    wall_ms: AtomicI64,
    elapsed: watch::Sender<Duration>,
}

/// Steady time: what has elapsed, and an offset.
#[derive(Debug, Default)]
struct Steady {
    offset_ms: AtomicI64,
    /// What had elapsed when it was compared with the system's time last.
    followed_ms: AtomicI64,
    /// The system's time was earlier than the log's at the start: it is taken once it is later.
    is_ahead_of_system: AtomicBool,
    is_told: AtomicBool,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::system()
    }
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Clock {
        Clock::of(None)
    }

    /// A clock that stands at `start_ms` (milliseconds since 1970) until it is [advanced](Self::advance).
    #[must_use]
    pub fn manual(start_ms: i64) -> Clock {
        let elapsed = watch::Sender::new(Duration::ZERO);
        Clock::of(Some(Manual { start: system_now(), wall_ms: AtomicI64::new(start_ms), elapsed }))
    }

    fn of(manual: Option<Manual>) -> Clock {
        let clock = Clock(Arc::new(Source { manual, steady: Steady::default() }));
        let offset_ms = clock.now_ms() - clock.elapsed_ms();
        clock.0.steady.offset_ms.store(offset_ms, Ordering::Relaxed);
        clock.0.steady.followed_ms.store(clock.elapsed_ms(), Ordering::Relaxed);
        clock
    }

    /// Wall time, milliseconds since 1970. Jumps when the system's time is set.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        match &self.0.manual {
            None => system_now_ms(),
            Some(manual) => manual.wall_ms.load(Ordering::Relaxed).saturating_add(self.elapsed_ms()),
        }
    }

    /// Steady time, milliseconds since 1970.
    #[must_use]
    pub fn steady_ms(&self) -> i64 {
        if is_seeded(Bug::FollowWallClock) {
            return self.now_ms();
        }
        self.elapsed_ms().saturating_add(self.0.steady.offset_ms.load(Ordering::Relaxed))
    }

    /// A point of wall time in steady time, as far as it is known now.
    #[must_use]
    pub fn steady_at(&self, wall_ms: i64) -> i64 {
        wall_ms.saturating_sub(self.now_ms()).saturating_add(self.steady_ms())
    }

    /// Makes steady time begin at the last one of an earlier process, if the system's is earlier.
    pub(crate) fn begin_after(&self, last_ms: i64) {
        let behind_ms = last_ms.saturating_sub(self.steady_ms());
        if behind_ms > 0 {
            self.0.steady.offset_ms.fetch_add(behind_ms, Ordering::Relaxed);
            self.0.steady.is_ahead_of_system.store(true, Ordering::Relaxed);
            tracing::warn!(behind_ms, "the system's time is earlier than when the broker ran last");
        }
    }

    /// Lets steady time near the system's. Called now and then.
    pub(crate) fn follow(&self) {
        let (steady, elapsed_ms) = (&self.0.steady, self.elapsed_ms());
        let passed_ms = elapsed_ms.saturating_sub(steady.followed_ms.swap(elapsed_ms, Ordering::Relaxed));
        let off_ms = self.now_ms().saturating_sub(self.steady_ms());
        if off_ms >= 0 && steady.is_ahead_of_system.swap(false, Ordering::Relaxed) {
            steady.offset_ms.fetch_add(off_ms, Ordering::Relaxed);
            return;
        }
        let step_ms = passed_ms.max(0) / SLEW;
        steady.offset_ms.fetch_add(off_ms.clamp(-step_ms, step_ms), Ordering::Relaxed);
        let is_far = off_ms.abs() >= TOLD_MS;
        if steady.is_told.swap(is_far, Ordering::Relaxed) != is_far {
            tracing::warn!(off_ms, is_far, "the system's time was set: deadlines follow it slowly");
        }
    }

    /// What has elapsed since an instant of no meaning.
    fn elapsed_ms(&self) -> i64 {
        match &self.0.manual {
            None => system_elapsed_ms(),
            Some(manual) => i64::try_from(manual.elapsed.borrow().as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Monotonic time.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.0.manual {
            None => system_now(),
            Some(manual) => manual.start + *manual.elapsed.borrow(),
        }
    }

    /// Completes when monotonic time has reached `at`.
    pub async fn sleep_until(&self, at: Instant) {
        match &self.0.manual {
            None => tokio::time::sleep_until(at).await,
            Some(manual) => {
                let mut elapsed = manual.elapsed.subscribe();
                // The sender lives as long as `self`.
                let _reached = elapsed.wait_for(|elapsed| manual.start + *elapsed >= at).await;
            }
        }
    }

    /// Completes after `duration`.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }

    /// Moves a manual clock on and wakes those who sleep; the system's clock is not affected.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0.manual {
            manual.elapsed.send_modify(|elapsed| *elapsed += by);
        }
    }

    /// Sets the wall time of a manual clock forward or back, as when the system's time is set; nothing elapses.
    pub fn step(&self, by_ms: i64) {
        if let Some(manual) = &self.0.manual {
            manual.wall_ms.fetch_add(by_ms, Ordering::Relaxed);
        }
    }
}

/// The system's wall time, nanoseconds since 1970: for spans, which other processes compare with theirs.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the clock is the one reader of the system's time")]
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "the clock is the one reader of the system's time")]
fn system_now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the clock is the one reader of the system's time")]
fn system_now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// What has elapsed since the machine started, the time that it slept included.
fn system_elapsed_ms() -> i64 {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    since.tv_sec.saturating_mul(1000).saturating_add(since.tv_nsec / 1_000_000)
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    system_now_ms()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_stands_until_it_is_advanced() {
        let clock = Clock::manual(5);
        let start = clock.now();
        assert_eq!(clock.now_ms(), 5);
        let at = start + Duration::from_secs(3600);
        let sleeping = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(at).await }
        });
        clock.advance(Duration::from_secs(1800));
        assert_eq!((clock.now_ms(), clock.now() - start), (1_800_005, Duration::from_secs(1800)));
        clock.advance(Duration::from_secs(1800));
        sleeping.await.unwrap();
    }
    /// A clock that went the given time, compared with the system's four times a second.
    fn run(clock: &Clock, seconds: u64) {
        for _ in 0..seconds * 4 {
            clock.advance(Duration::from_millis(250));
            clock.follow();
        }
    }

    #[test]
    fn steady_time_does_not_jump_with_the_systems_but_nears_it() {
        const DAY_MS: i64 = 86_400_000;
        let clock = Clock::manual(1_000_000);
        run(&clock, 10);
        assert_eq!((clock.now_ms(), clock.steady_ms()), (1_010_000, 1_010_000));
        for step_ms in [DAY_MS, -2 * DAY_MS] {
            let before_ms = clock.steady_ms();
            clock.step(step_ms);
            assert_eq!(clock.steady_ms(), before_ms);
            run(&clock, 100);
            let passed_ms = clock.steady_ms() - before_ms;
            assert!((95_000..=105_000).contains(&passed_ms), "{passed_ms}");
            assert_eq!(clock.steady_at(clock.now_ms() + 5), clock.steady_ms() + 5);
        }
        let clock = Clock::manual(0);
        clock.step(500);
        run(&clock, 100);
        assert_eq!(clock.steady_ms(), clock.now_ms(), "a small step is made up for");
    }

    #[test]
    fn steady_time_begins_at_the_logs_until_the_systems_is_set() {
        let clock = Clock::manual(1000);
        clock.begin_after(500);
        assert_eq!(clock.steady_ms(), 1000);
        clock.begin_after(500_000);
        assert_eq!(clock.steady_ms(), 500_000);
        run(&clock, 10);
        assert!((509_000..=510_000).contains(&clock.steady_ms()));
        clock.step(9_000_000);
        clock.follow();
        assert_eq!(clock.steady_ms(), clock.now_ms(), "the time that passed between the processes counts");
    }
}
