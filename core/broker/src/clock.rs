//! The clock: wall time for timestamps and deadlines that survive a restart, monotonic time for waiting.
//!
//! The one place that reads the system's clocks. Everything else is handed a [`Clock`], so that tests advance time
//! instead of sleeping.

use std::sync::Arc;
use std::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

/// A source of time; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Manual>>);

#[derive(Debug)]
struct Manual {
    start: Instant,
    start_ms: i64,
    elapsed: watch::Sender<Duration>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Clock {
        Clock(None)
    }

    /// A clock that stands at `start_ms` (milliseconds since 1970) until it is [advanced](Self::advance).
    #[must_use]
    pub fn manual(start_ms: i64) -> Clock {
        let elapsed = watch::Sender::new(Duration::ZERO);
        Clock(Some(Arc::new(Manual { start: system_now(), start_ms, elapsed })))
    }

    /// Wall time, milliseconds since 1970. May jump when the system's time is set.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            None => system_now_ms(),
            Some(manual) => {
                let elapsed_ms = i64::try_from(manual.elapsed.borrow().as_millis()).unwrap_or(i64::MAX);
                manual.start_ms.saturating_add(elapsed_ms)
            }
        }
    }

    /// Monotonic time.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => system_now(),
            Some(manual) => manual.start + *manual.elapsed.borrow(),
        }
    }

    /// Completes when monotonic time has reached `at`.
    pub async fn sleep_until(&self, at: Instant) {
        match &self.0 {
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
        if let Some(manual) = &self.0 {
            manual.elapsed.send_modify(|elapsed| *elapsed += by);
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
}
