//! A token bucket: units flow in at a rate and are taken out as they are used.
//!
//! What was used is known only afterwards (a message is sent whole), so more may be taken than there is; nothing more is
//! allowed until the debt has flowed in. So the rate holds over any longer time, whatever the sizes.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How much may usually be saved up: the flow of this time.
pub(crate) const BURST: Duration = Duration::from_secs(1);

/// How much debt counts: the flow of this time. It bounds how long one large message can hold up a client, and stays below
/// the time for which clients wait for an answer.
pub(crate) const DEBT_MAX: Duration = Duration::from_secs(20);

/// A token bucket, shared by all connections that its limit concerns.
#[derive(Debug)]
pub(crate) struct Bucket(Mutex<Level>);

#[derive(Debug)]
struct Level {
    /// Units a second.
    rate: f64,
    /// How much may be saved up: the flow of this time.
    burst: Duration,
    units: f64,
    /// When `units` was true.
    at: Instant,
}

impl Level {
    fn burst(&self) -> f64 {
        self.rate * self.burst.as_secs_f64()
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.units = (self.units + self.rate * passed).min(self.burst());
        self.at = self.at.max(now);
    }

    fn delay(&self) -> Duration {
        if self.units >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.units / self.rate) }
    }
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate: f64, burst: Duration, now: Instant) -> Bucket {
        let mut level = Level { rate, burst, units: 0.0, at: now };
        level.units = level.burst();
        Bucket(Mutex::new(level))
    }

    /// Changes the rate. A debt keeps the time that it takes to flow in at most.
    pub(crate) fn set_rate(&self, rate: f64, now: Instant) {
        let mut level = self.0.lock();
        level.fill(now);
        level.rate = rate;
        level.units = level.units.clamp(-rate * DEBT_MAX.as_secs_f64(), level.burst());
    }

    /// Takes units that were used.
    pub(crate) fn take(&self, units: f64, now: Instant) {
        let mut level = self.0.lock();
        level.fill(now);
        level.units = (level.units - units).max(-level.rate * DEBT_MAX.as_secs_f64());
    }

    /// Takes a unit, unless it would become available only after `wait_max`. Returns for how long to wait.
    pub(crate) fn reserve(&self, wait_max: Duration, now: Instant) -> Option<Duration> {
        let mut level = self.0.lock();
        level.fill(now);
        level.units -= 1.0;
        let delay = level.delay();
        if delay > wait_max {
            level.units += 1.0;
            return None;
        }
        Some(delay)
    }

    /// Gives back a unit that was not used.
    pub(crate) fn give_back(&self) {
        let mut level = self.0.lock();
        level.units = (level.units + 1.0).min(level.burst());
    }

    /// For how long nothing may be used, if `units` more were used.
    pub(crate) fn delay_after(&self, units: f64, now: Instant) -> Duration {
        let mut level = self.0.lock();
        level.fill(now);
        let after = Level { units: level.units - units, ..*level };
        after.delay().min(DEBT_MAX)
    }

    /// What may be used now without debt.
    pub(crate) fn available(&self, now: Instant) -> f64 {
        let mut level = self.0.lock();
        level.fill(now);
        level.units
    }

    /// What flows in in a time.
    pub(crate) fn flow(&self, time: Duration) -> f64 {
        self.0.lock().rate * time.as_secs_f64()
    }

    /// Whether it is full: a new one would be the same.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        let mut level = self.0.lock();
        level.fill(now);
        level.units >= level.burst()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_rate_holds_whatever_is_taken_at_a_time() {
        for (rate, step) in [(1000.0, 1.0), (1000.0, 300.0), (1000.0, 5000.0), (10.0, 1.0), (0.5, 0.01)] {
            let clock = Clock::manual(0);
            let bucket = Bucket::new(rate, BURST, clock.now());
            let (start, mut taken) = (clock.now(), 0.0);
            while clock.now() - start < Duration::from_secs(100) {
                match bucket.delay_after(0.0, clock.now()) {
                    Duration::ZERO => {
                        bucket.take(step, clock.now());
                        taken += step;
                    }
                    delay => clock.advance(delay.max(MS)),
                }
            }
            let per_second = taken / 100.0;
            assert!((0.97..1.07).contains(&(per_second / rate)), "{rate} by {step}: {per_second}");
        }
    }

    #[test]
    fn what_is_saved_up_and_what_is_owed_are_bounded() {
        let clock = Clock::manual(0);
        let bucket = Bucket::new(100.0, BURST, clock.now());
        clock.advance(Duration::from_secs(3600));
        assert_eq!((bucket.available(clock.now()), bucket.is_full(clock.now())), (100.0, true));
        bucket.take(1e9, clock.now());
        assert_eq!(bucket.delay_after(0.0, clock.now()), DEBT_MAX);
        assert_eq!(bucket.delay_after(1e9, clock.now()), DEBT_MAX);
        clock.advance(DEBT_MAX);
        assert_eq!(bucket.delay_after(0.0, clock.now()), Duration::ZERO);
    }

    #[test]
    fn a_changed_rate_holds_at_once() {
        let clock = Clock::manual(0);
        let bucket = Bucket::new(100.0, BURST, clock.now());
        bucket.take(1100.0, clock.now());
        assert_eq!(bucket.delay_after(0.0, clock.now()), Duration::from_secs(10));
        bucket.set_rate(1000.0, clock.now());
        assert_eq!(bucket.delay_after(0.0, clock.now()), Duration::from_secs(1));
        bucket.set_rate(1.0, clock.now());
        assert_eq!(bucket.delay_after(0.0, clock.now()), DEBT_MAX);
    }

    #[test]
    fn units_are_reserved_for_as_long_as_one_waits() {
        let clock = Clock::manual(0);
        let bucket = Bucket::new(2.0, BURST, clock.now());
        let reserve = |wait_max_ms| bucket.reserve(MS * wait_max_ms, clock.now());
        assert_eq!((reserve(0), reserve(0), reserve(0)), (Some(Duration::ZERO), Some(Duration::ZERO), None));
        assert_eq!((reserve(1000), reserve(1000), reserve(1000)), (Some(MS * 500), Some(MS * 1000), None));
        bucket.give_back();
        assert_eq!(bucket.reserve(MS * 1000, clock.now()), Some(MS * 1000));
        clock.advance(MS * 1500);
        assert_eq!(bucket.reserve(Duration::ZERO, clock.now()), Some(Duration::ZERO));
    }
}
