//! Failed logins, counted by address, by user, and by both, over a minute.
//!
//! Bound: [`TRACKED_MAX`] counters of each kind, whatever the names that clients send: a name is kept as a keyed hash. Beyond it
//! those with few failures are forgotten first, so that who sends many names does not clear the counter of one.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use inver_broker::network_of;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The time over which failures are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Counters of each kind.
const TRACKED_MAX: usize = 50_000;

/// What failed logins lead to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailureLimits {
    /// Failures of one user from one address in a minute, after which such logins are refused without a look at the
    /// password.
    pub(crate) per_user_and_address_max: u32,
    /// Failures of one address, or of one user, in a minute, after which further logins of it wait behind all others.
    pub(crate) before_last_turn: u32,
}

/// What to do with a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Usual,
    Suspected,
    Refused,
}

/// The counters.
pub(super) struct Failures {
    limits: FailureLimits,
    names: RandomState,
    counters: Mutex<Counters>,
}

/// A user's name, hashed under a key that clients do not know.
type NameHash = u64;

#[derive(Default)]
struct Counters {
    by_address: Windows<IpAddr>,
    by_user: Windows<NameHash>,
    by_both: Windows<(IpAddr, NameHash)>,
}

struct Windows<K>(HashMap<K, Window>);

#[derive(Clone, Copy)]
struct Window {
    began: Instant,
    count: u32,
}

impl<K> Default for Windows<K> {
    fn default() -> Self {
        Windows(HashMap::new())
    }
}

impl<K: Hash + Eq> Windows<K> {
    fn count(&self, key: &K, now: Instant) -> u32 {
        let window = self.0.get(key).filter(|window| now < window.began + WINDOW);
        window.map_or(0, |window| window.count)
    }

    fn add(&mut self, key: K, now: Instant) {
        if self.0.len() >= TRACKED_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, window| now < window.began + WINDOW);
            let mut few = 1;
            while self.0.len() >= TRACKED_MAX {
                self.0.retain(|_, window| window.count > few);
                few = few.saturating_mul(2);
            }
        }
        let window = self.0.entry(key).or_insert(Window { began: now, count: 0 });
        if now >= window.began + WINDOW {
            *window = Window { began: now, count: 0 };
        }
        window.count = window.count.saturating_add(1);
    }
}

impl Failures {
    pub(super) fn new(limits: FailureLimits) -> Failures {
        Failures { limits, names: RandomState::new(), counters: Mutex::default() }
    }

    /// What to do with a login of this user from this address.
    pub(super) fn verdict(&self, address: IpAddr, user: &str, now: Instant) -> Verdict {
        let (address, user) = (network_of(address), self.names.hash_one(user));
        let counters = self.counters.lock();
        let failed = counters.by_address.count(&address, now).max(counters.by_user.count(&user, now));
        if counters.by_both.count(&(address, user), now) >= self.limits.per_user_and_address_max {
            Verdict::Refused
        } else if failed >= self.limits.before_last_turn {
            Verdict::Suspected
        } else {
            Verdict::Usual
        }
    }

    /// Counts a failed login.
    pub(super) fn add(&self, address: IpAddr, user: &str, now: Instant) {
        let (address, user) = (network_of(address), self.names.hash_one(user));
        let mut counters = self.counters.lock();
        counters.by_address.add(address, now);
        counters.by_user.add(user, now);
        counters.by_both.add((address, user), now);
    }
}

#[cfg(test)]
mod tests {
    use inver_broker::Clock;

    use super::*;

    const LIMITS: FailureLimits = FailureLimits { per_user_and_address_max: 3, before_last_turn: 5 };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn failures_slow_down_and_refuse_for_a_minute() {
        let (failures, now) = (Failures::new(LIMITS), Clock::manual(0).now());
        let verdict = |last, user, after| failures.verdict(address(last), user, now + after);
        for _ in 0..3 {
            assert_eq!(verdict(1, "ann", Duration::ZERO), Verdict::Usual);
            failures.add(address(1), "ann", now);
        }
        assert_eq!(verdict(1, "ann", Duration::ZERO), Verdict::Refused);
        assert_eq!(verdict(2, "ann", Duration::ZERO), Verdict::Usual, "another address");
        assert_eq!(verdict(1, "bob", Duration::ZERO), Verdict::Usual, "another user");
        failures.add(address(1), "x", now);
        failures.add(address(1), "y", now);
        assert_eq!(verdict(1, "bob", Duration::ZERO), Verdict::Suspected);
        failures.add(address(2), "ann", now);
        failures.add(address(3), "ann", now);
        assert_eq!(verdict(4, "ann", Duration::ZERO), Verdict::Suspected, "guessed from many addresses");
        assert_eq!(verdict(1, "ann", WINDOW), Verdict::Usual);
    }

    #[test]
    fn the_counters_are_bounded() {
        let (failures, now) = (Failures::new(LIMITS), Clock::manual(0).now());
        for number in 0..TRACKED_MAX as u32 + 10 {
            failures.add(IpAddr::from(number.to_be_bytes()), &number.to_string(), now);
        }
        let counters = failures.counters.lock();
        assert!(counters.by_address.0.len() <= TRACKED_MAX && counters.by_both.0.len() <= TRACKED_MAX);
    }

    #[test]
    fn failures_of_many_names_do_not_clear_the_counter_of_one() {
        let (failures, now) = (Failures::new(LIMITS), Clock::manual(0).now());
        (0..3).for_each(|_| failures.add(address(1), "ann", now));
        for number in 0..TRACKED_MAX as u32 + 10 {
            (0..2).for_each(|_| failures.add(address(1), &number.to_string(), now));
        }
        assert_eq!(failures.verdict(address(1), "ann", now), Verdict::Refused);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let (failures, now) = (Failures::new(LIMITS), Clock::manual(0).now());
        let address = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        (0..3).for_each(|last| failures.add(address(last), "ann", now));
        assert_eq!(failures.verdict(address(9), "ann", now), Verdict::Refused);
    }
}
