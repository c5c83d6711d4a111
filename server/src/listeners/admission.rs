//! Admission of connections: limits in total and per address, and loopback only where no users are configured.
//!
//! Refusals are logged at most once every [`LOG_INTERVAL`], so that a flood of connections is not a flood of log lines.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

/// Shortest time between two log lines about refusals.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Whether only clients on this machine are let in now.
pub(crate) type LoopbackOnly = Box<dyn Fn() -> bool + Send + Sync>;

/// Admits or refuses connections and counts those that are open.
pub(crate) struct Admission {
    /// The configuration key of `connections_max`.
    key: &'static str,
    loopback_only: LoopbackOnly,
    connections_max: usize,
    connections_per_address_max: usize,
    open: Mutex<Open>,
    logged_at: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Open {
    connections: usize,
    /// Holds only addresses with a connection, so it is bounded by the connections.
    by_address: HashMap<IpAddr, usize>,
}

/// An admitted connection; dropping it releases its place.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    address: IpAddr,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    LoopbackOnly,
    TooMany(usize),
    TooManyFromAddress(usize),
}

impl Refusal {
    /// Its label in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Refusal::LoopbackOnly => "loopback_only",
            Refusal::TooMany(_) => "connections_max",
            Refusal::TooManyFromAddress(_) => "connections_per_address_max",
        }
    }
}

impl Admission {
    pub(crate) fn new(
        key: &'static str,
        loopback_only: LoopbackOnly,
        connections_max: usize,
        per_address_max: usize,
    ) -> Arc<Admission> {
        Arc::new(Admission {
            key,
            loopback_only,
            connections_max,
            connections_per_address_max: per_address_max,
            open: Mutex::default(),
            logged_at: Mutex::default(),
        })
    }

    /// Admits a connection from `address`, or says why not.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Refusal> {
        let address = address.to_canonical();
        if !address.is_loopback() && (self.loopback_only)() {
            return Err(Refusal::LoopbackOnly);
        }
        let mut open = self.open.lock();
        if open.connections >= self.connections_max {
            return Err(Refusal::TooMany(self.connections_max));
        }
        let from_address = open.by_address.entry(address).or_default();
        if *from_address >= self.connections_per_address_max {
            return Err(Refusal::TooManyFromAddress(self.connections_per_address_max));
        }
        *from_address += 1;
        open.connections += 1;
        Ok(Admitted { admission: self.clone(), address })
    }

    /// Logs a refusal, unless one was logged less than [`LOG_INTERVAL`] before `now`. Returns whether it did.
    pub(crate) fn log(&self, refusal: Refusal, address: IpAddr, now: Instant) -> bool {
        {
            let mut logged_at = self.logged_at.lock();
            if logged_at.is_some_and(|at| now.saturating_duration_since(at) < LOG_INTERVAL) {
                return false;
            }
            *logged_at = Some(now);
        }
        match refusal {
            Refusal::LoopbackOnly => warn!(
                %address,
                "connection refused: without users only clients on this machine are accepted; add a user with \
                 `inver user add NAME --config FILE` and start with that file, or set INVER_USERS"
            ),
            Refusal::TooMany(max) => {
                warn!(%address, max, "connection refused: {} reached", self.key);
            }
            Refusal::TooManyFromAddress(max) => {
                warn!(%address, max, "connection refused: limits.connections_per_address_max reached");
            }
        }
        true
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock();
        open.connections = open.connections.saturating_sub(1);
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use inver_broker::Clock;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn without_users_only_loopback_is_admitted() {
        let admission = Admission::new("k", Box::new(|| true), 10, 10);
        assert!(admission.admit(address("127.0.0.1")).is_ok());
        assert!(admission.admit(address("127.9.0.1")).is_ok());
        assert!(admission.admit(address("::1")).is_ok());
        assert!(admission.admit(address("::ffff:127.0.0.1")).is_ok());
        assert_eq!(admission.admit(address("192.0.2.1")).err(), Some(Refusal::LoopbackOnly));
        assert_eq!(admission.admit(address("::ffff:192.0.2.1")).err(), Some(Refusal::LoopbackOnly));
        assert!(Admission::new("k", Box::new(|| false), 10, 10).admit(address("192.0.2.1")).is_ok());
    }

    #[test]
    fn limits_hold_and_places_are_released() {
        let admission = Admission::new("k", Box::new(|| false), 3, 2);
        let one = admission.admit(address("192.0.2.1")).unwrap();
        let _two = admission.admit(address("192.0.2.1")).unwrap();
        assert_eq!(admission.admit(address("192.0.2.1")).err(), Some(Refusal::TooManyFromAddress(2)));
        let _three = admission.admit(address("192.0.2.2")).unwrap();
        assert_eq!(admission.admit(address("192.0.2.3")).err(), Some(Refusal::TooMany(3)));
        drop(one);
        assert!(admission.admit(address("192.0.2.1")).is_ok());
        assert_eq!(admission.open.lock().by_address.len(), 2);
    }

    #[test]
    fn refusals_are_logged_once_per_interval() {
        let (admission, now) = (Admission::new("k", Box::new(|| false), 1, 1), Clock::manual(0).now());
        let log = |after: Duration| admission.log(Refusal::TooMany(1), address("192.0.2.1"), now + after);
        assert!(log(Duration::ZERO));
        assert!(!log(LOG_INTERVAL - Duration::from_millis(1)));
        assert!(log(LOG_INTERVAL));
        assert!(!log(LOG_INTERVAL + Duration::from_millis(1)));
    }
}
