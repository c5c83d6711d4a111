//! A limit of log lines about clients, per address and per connection: token buckets, a bounded number of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use metrics::counter;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::network::network_of;
use crate::telemetry::LINES_SUPPRESSED;

/// How many log lines clients can cause. Suppressed lines are counted, and the next line says how many they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLogLimits {
    /// Lines about all clients of one address (of IPv6: one /64), per minute.
    pub address_lines_per_minute_max: u32,
    /// Lines about refused requests of one connection, per minute.
    pub connection_lines_per_minute_max: u32,
}

impl Default for ClientLogLimits {
    fn default() -> Self {
        ClientLogLimits { address_lines_per_minute_max: 600, connection_lines_per_minute_max: 60 }
    }
}

/// The lines of one log about all clients.
#[derive(Debug)]
pub(crate) struct LineLimits(Mutex<Limiters>);

#[derive(Debug)]
struct Limiters {
    by_address: Limiter,
    by_connection: Limiter,
}

impl LineLimits {
    pub(crate) fn new(limits: ClientLogLimits) -> LineLimits {
        LineLimits(Mutex::new(Limiters {
            by_address: Limiter::new(limits.address_lines_per_minute_max),
            by_connection: Limiter::new(limits.connection_lines_per_minute_max),
        }))
    }

    /// Whether a line may be written now: the number of suppressed ones before it.
    pub(crate) fn admit(&self, address: SocketAddr, is_request: bool, now: Instant) -> Option<u64> {
        let ip = network_of(address.ip());
        let mut limiters = self.0.lock();
        let connection = Key::Connection(address);
        let before = if is_request { limiters.by_connection.take(connection, now) } else { Some(0) };
        let admitted = before.and_then(|before| {
            let by_address = limiters.by_address.take(Key::Address(ip), now);
            if by_address.is_none() && is_request {
                limiters.by_connection.give_back(connection, before);
            }
            Some(before + by_address?)
        });
        drop(limiters);
        if admitted.is_none() {
            counter!(LINES_SUPPRESSED).increment(1);
        }
        admitted
    }

    /// How many lines of each address and connection were suppressed since its last one, if no later line has told it. The
    /// addresses are none for those that share a count.
    pub(crate) fn sweep(&self, now: Instant) -> Vec<(Option<IpAddr>, u64)> {
        let mut limiters = self.0.lock();
        let mut untold = limiters.by_address.sweep(now);
        untold.extend(limiters.by_connection.sweep(now));
        drop(limiters);
        let address = |key| match key {
            Key::Address(address) => Some(address),
            Key::Connection(address) => Some(address.ip()),
            Key::Others => None,
        };
        untold.into_iter().map(|(key, suppressed)| (address(key), suppressed)).collect()
    }
}

/// Buckets kept at the same time. Beyond it, further addresses and connections share one.
const BUCKETS_MAX: usize = 4096;

/// What a line is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// All clients of an address.
    Address(IpAddr),
    /// One connection.
    Connection(SocketAddr),
    /// All that have no bucket of their own.
    Others,
}

#[derive(Debug)]
struct Bucket {
    lines: f64,
    filled_at: Instant,
    /// Lines refused since the last one that was written.
    suppressed: u64,
}

/// The buckets of one kind of key.
#[derive(Debug)]
struct Limiter {
    per_minute: f64,
    buckets: HashMap<Key, Bucket>,
}

impl Limiter {
    /// Up to `per_minute` lines at once, and as many again every minute.
    fn new(per_minute: u32) -> Limiter {
        Limiter { per_minute: f64::from(per_minute), buckets: HashMap::new() }
    }

    /// Takes a line of `key` at `now`: how many were suppressed before it, or `None` if it is to be suppressed too.
    fn take(&mut self, key: Key, now: Instant) -> Option<u64> {
        let is_full = self.buckets.len() >= BUCKETS_MAX;
        let key = if is_full && !self.buckets.contains_key(&key) { Key::Others } else { key };
        let per_minute = self.per_minute;
        let new = || Bucket { lines: per_minute, filled_at: now, suppressed: 0 };
        let bucket = self.buckets.entry(key).or_insert_with(new);
        bucket.fill(per_minute, now);
        if bucket.lines < 1.0 {
            bucket.suppressed += 1;
            return None;
        }
        bucket.lines -= 1.0;
        Some(std::mem::take(&mut bucket.suppressed))
    }

    /// Gives back a line that was taken and is not written, with the number of those suppressed before it.
    fn give_back(&mut self, key: Key, suppressed: u64) {
        let key = if self.buckets.contains_key(&key) { key } else { Key::Others };
        if let Some(bucket) = self.buckets.get_mut(&key) {
            bucket.lines += 1.0;
            bucket.suppressed += suppressed;
        }
    }

    /// Drops buckets that are full again; returns the counts that no later line has told.
    fn sweep(&mut self, now: Instant) -> Vec<(Key, u64)> {
        let mut untold = Vec::new();
        let per_minute = self.per_minute;
        self.buckets.retain(|key, bucket| {
            bucket.fill(per_minute, now);
            if bucket.suppressed > 0 && bucket.lines >= 1.0 {
                bucket.lines -= 1.0;
                untold.push((*key, std::mem::take(&mut bucket.suppressed)));
            }
            bucket.lines < per_minute
        });
        untold
    }
}

impl Bucket {
    fn fill(&mut self, per_minute: f64, now: Instant) {
        let minutes = now.saturating_duration_since(self.filled_at).as_secs_f64() / 60.0;
        self.lines = minutes.mul_add(per_minute, self.lines).min(per_minute);
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    fn address(last: u8) -> Key {
        Key::Address(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn a_burst_is_cut_and_the_next_line_says_how_much() {
        let (mut limiter, start) = (Limiter::new(60), Clock::manual(0).now());
        let written = (0..1000).filter(|_| limiter.take(address(1), start).is_some()).count();
        assert_eq!(written, 60);
        assert_eq!(limiter.take(address(2), start), Some(0), "other addresses are not affected");
        let later = start + Duration::from_secs(1);
        assert_eq!(limiter.take(address(1), later), Some(940));
        assert_eq!(limiter.take(address(1), later), None);
    }

    #[test]
    fn what_a_connection_had_suppressed_is_told_though_its_address_has_no_line_left() {
        let limits = ClientLogLimits { address_lines_per_minute_max: 3, connection_lines_per_minute_max: 2 };
        let (lines, start) = (LineLimits::new(limits), Clock::manual(0).now());
        let admit = |port, minutes: u64| {
            let client = SocketAddr::from(([192, 0, 2, 1], port));
            lines.admit(client, true, start + Duration::from_secs(minutes * 60))
        };
        assert_eq!([1, 1, 1, 1].map(|port| admit(port, 0)), [Some(0), Some(0), None, None]);
        assert_eq!([2, 3, 4, 1].map(|port| admit(port, 1)), [Some(0), Some(0), Some(0), None]);
        assert_eq!(admit(1, 2), Some(3), "two of the connection, one of the address");
    }

    #[test]
    fn counts_that_no_line_told_are_swept_and_full_buckets_dropped() {
        let (mut limiter, start) = (Limiter::new(60), Clock::manual(0).now());
        (0..100).for_each(|_| _ = limiter.take(address(1), start));
        assert_eq!(limiter.sweep(start), []);
        let later = start + Duration::from_secs(30);
        assert_eq!(limiter.sweep(later), [(address(1), 40)]);
        assert_eq!(limiter.sweep(later), []);
        assert_eq!(limiter.buckets.len(), 1);
        limiter.sweep(later + Duration::from_secs(60));
        assert_eq!(limiter.buckets.len(), 0);
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let (mut limiter, start) = (Limiter::new(2), Clock::manual(0).now());
        for port in 0..u16::MAX {
            limiter.take(Key::Connection(SocketAddr::from(([192, 0, 2, 1], port))), start);
        }
        assert_eq!(limiter.buckets.len(), BUCKETS_MAX + 1);
        assert_eq!(limiter.take(address(9), start), None, "all others share a bucket");
    }
}
