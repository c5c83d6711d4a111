//! Clients that connect again and again: counted by client id, to be banned for a while.
//!
//! Bound: [`CLIENTS_MAX`] client ids in a window, by a hash of each that clients cannot foresee; further ones are not
//! counted.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use inver_broker::{Ban, BanTarget, Broker};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::MqttConfig;

/// Client ids that are counted at a time.
const CLIENTS_MAX: usize = 100_000;

/// Time between two looks for ids whose window is over, while there is no room.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The connections of clients in their windows.
#[derive(Default)]
pub(crate) struct Flapping {
    hasher: RandomState,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    /// By the hash of the client id.
    clients: HashMap<u64, Window>,
    swept_at: Option<Instant>,
}

struct Window {
    since: Instant,
    connects: u32,
}

impl Flapping {
    /// Counts a connection; whether the client has had more of them in its window than it may.
    fn is_beyond(&self, client_id: &str, max: u32, window: Duration, now: Instant) -> bool {
        let client = self.hasher.hash_one(client_id);
        let mut counted = self.counted.lock();
        if let Some(known) = counted.clients.get_mut(&client) {
            if now.saturating_duration_since(known.since) >= window {
                *known = Window { since: now, connects: 0 };
            }
            known.connects += 1;
            let is_beyond = known.connects > max;
            if is_beyond {
                counted.clients.remove(&client);
            }
            return is_beyond;
        }
        if counted.clients.len() >= CLIENTS_MAX
            && counted.swept_at.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_INTERVAL)
        {
            counted.swept_at = Some(now);
            counted.clients.retain(|_, known| now.saturating_duration_since(known.since) < window);
        }
        if counted.clients.len() < CLIENTS_MAX {
            counted.clients.insert(client, Window { since: now, connects: 1 });
        }
        false
    }

    /// Counts a connection, and bans its client if these are too many.
    pub(crate) fn count(&self, broker: &Broker, config: &MqttConfig, client_id: &str) {
        let Some(max) = config.flapping_connects_max else { return };
        let window = Duration::from_secs(config.flapping_window_s.into());
        if !self.is_beyond(client_id, max, window, broker.clock().now()) {
            return;
        }
        let now_ms = broker.clock().now_ms();
        let ban = Ban {
            reason: format!("more than {max} connections in {} s", config.flapping_window_s),
            by: "mqtt.flapping_connects_max".to_owned(),
            since_ms: now_ms,
            until_ms: Some(now_ms + i64::from(config.flapping_ban_s) * 1000),
        };
        match broker.ban(&BanTarget::ClientId(client_id.to_owned()), &ban) {
            Ok(_) => tracing::warn!(client_id, reason = ban.reason, "client banned for a while"),
            Err(error) => tracing::debug!(client_id, %error, "failed to ban a client"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_in_windows() {
        let (flapping, start, window) = (Flapping::default(), Instant::now(), Duration::from_secs(60));
        let at = |client_id: &str, s: u64| {
            flapping.is_beyond(client_id, 2, window, start + Duration::from_secs(s))
        };
        assert_eq!([0, 1, 2].map(|s| at("a", s)), [false, false, true]);
        assert!(!at("a", 3) && !at("b", 3), "counted again from the ban on, and each for itself");
        assert_eq!([4, 63, 64].map(|s| at("b", s)), [false, false, false]);
    }
}
