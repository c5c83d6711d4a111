//! Admission of connections: limits in total and for each address.
//!
//! There is one for all protocols together, one for HTTP, and one for each listener with limits of its own. Limits can
//! change while connections are open; those beyond a lower limit stay. Refusals are logged at most once every
//! [`LOG_INTERVAL`], so that a flood of connections is not a flood of log lines.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use inver_broker::network_of;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

/// Shortest time between two log lines about refusals.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Limits of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// In total.
    pub(crate) total: usize,
    /// From one address; of IPv6 addresses, from one /64.
    pub(crate) per_address: usize,
}

/// Admits or refuses connections and counts those that are open.
pub(crate) struct Admission {
    /// What is limited, in messages: `limits.connections_max` and so on.
    name: String,
    open: Mutex<Open>,
    logged_at: Mutex<Option<Instant>>,
}

struct Open {
    limits: ConnectionLimits,
    connections: usize,
    /// Holds only addresses with a connection, so it is bounded by the connections.
    by_address: HashMap<IpAddr, usize>,
}

/// An admitted connection; dropping it releases its place.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    /// None: the address is not known yet.
    address: Option<IpAddr>,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are no users, and the client is on another machine.
    LoopbackOnly,
    TooMany(usize),
    TooManyFromAddress(usize),
    /// The listener takes connections from proxies, and this is none that it trusts.
    NoTrustedProxy,
    /// A trusted proxy did not send a header.
    NoProxyHeader,
}

impl Refusal {
    /// Its label in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Refusal::LoopbackOnly => "loopback_only",
            Refusal::TooMany(_) => "connections_max",
            Refusal::TooManyFromAddress(_) => "connections_per_address_max",
            Refusal::NoTrustedProxy => "proxy_not_trusted",
            Refusal::NoProxyHeader => "proxy_header",
        }
    }
}

impl Admission {
    /// `name` begins the names of the limits' keys.
    pub(crate) fn new(name: impl Into<String>, limits: ConnectionLimits) -> Arc<Admission> {
        let open = Open { limits, connections: 0, by_address: HashMap::new() };
        Arc::new(Admission { name: name.into(), open: Mutex::new(open), logged_at: Mutex::default() })
    }

    /// Changes the limits.
    pub(crate) fn set_limits(&self, limits: ConnectionLimits) {
        self.open.lock().limits = limits;
    }

    /// Admits a connection, or says why not. A connection whose address is not known yet counts in total only, until
    /// [`Admitted::identify`].
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Admitted, Refusal> {
        let mut open = self.open.lock();
        if open.connections >= open.limits.total {
            return Err(Refusal::TooMany(open.limits.total));
        }
        if let Some(address) = address {
            open.enter(network_of(address))?;
        }
        open.connections += 1;
        Ok(Admitted { admission: self.clone(), address: address.map(network_of) })
    }

    /// Whether this is what refuses connections for that reason now.
    pub(crate) fn is_at(&self, refusal: Refusal) -> bool {
        let limits = self.open.lock().limits;
        refusal == Refusal::TooMany(limits.total)
            || refusal == Refusal::TooManyFromAddress(limits.per_address)
    }

    /// Logs a refusal, unless one was logged less than [`LOG_INTERVAL`] before `now`. Returns whether it did.
    pub(crate) fn log(&self, refusal: Refusal, listener: &str, address: IpAddr, now: Instant) -> bool {
        {
            let mut logged_at = self.logged_at.lock();
            if logged_at.is_some_and(|at| now.saturating_duration_since(at) < LOG_INTERVAL) {
                return false;
            }
            *logged_at = Some(now);
        }
        let name = &self.name;
        match refusal {
            Refusal::LoopbackOnly => warn!(
                listener, %address,
                "connection refused: without users only clients on this machine are accepted; add a user with \
                 `inver user add NAME --config FILE` and start with that file, or set INVER_USERS"
            ),
            Refusal::TooMany(max) => {
                warn!(listener, %address, max, "connection refused: {name}.connections_max reached");
            }
            Refusal::TooManyFromAddress(max) => {
                warn!(listener, %address, max, "connection refused: {name}.connections_per_address_max reached");
            }
            Refusal::NoTrustedProxy => {
                warn!(listener, %address, "connection refused: the address is not in the listener's proxy_trusted");
            }
            Refusal::NoProxyHeader => {
                warn!(listener, %address, "connection refused: the proxy sent no valid PROXY protocol header");
            }
        }
        true
    }
}

impl Open {
    fn enter(&mut self, address: IpAddr) -> Result<(), Refusal> {
        let max = self.limits.per_address;
        let from_address = self.by_address.get(&address).copied().unwrap_or_default();
        if from_address >= max {
            return Err(Refusal::TooManyFromAddress(max));
        }
        self.by_address.insert(address, from_address + 1);
        Ok(())
    }
}

impl Admitted {
    /// Counts a connection whose address was not known for its address, or says why it is refused.
    pub(crate) fn identify(&mut self, address: IpAddr) -> Result<(), Refusal> {
        if self.address.is_none() {
            let address = network_of(address);
            self.admission.open.lock().enter(address)?;
            self.address = Some(address);
        }
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock();
        open.connections = open.connections.saturating_sub(1);
        let Some(address) = self.address else { return };
        if let Some(count) = open.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&address);
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

    fn admission(total: usize, per_address: usize) -> Arc<Admission> {
        Admission::new("limits", ConnectionLimits { total, per_address })
    }

    fn admit(admission: &Arc<Admission>, from: &str) -> Result<Admitted, Refusal> {
        admission.admit(Some(address(from)))
    }

    #[test]
    fn limits_hold_and_places_are_released() {
        let admission = admission(3, 2);
        let one = admit(&admission, "192.0.2.1").unwrap();
        let _two = admit(&admission, "::ffff:192.0.2.1").unwrap();
        assert_eq!(admit(&admission, "192.0.2.1").err(), Some(Refusal::TooManyFromAddress(2)));
        let _three = admit(&admission, "192.0.2.2").unwrap();
        assert_eq!(admit(&admission, "192.0.2.3").err(), Some(Refusal::TooMany(3)));
        drop(one);
        assert!(admit(&admission, "192.0.2.1").is_ok());
        assert_eq!(admission.open.lock().by_address.len(), 2);
    }

    #[test]
    fn a_connection_of_a_proxy_counts_for_its_client_once_that_is_known() {
        let admission = admission(3, 1);
        let mut one = admission.admit(None).unwrap();
        let mut two = admission.admit(None).unwrap();
        one.identify(address("192.0.2.1")).unwrap();
        assert_eq!(two.identify(address("192.0.2.1")), Err(Refusal::TooManyFromAddress(1)));
        two.identify(address("192.0.2.2")).unwrap();
        assert_eq!(admission.open.lock().connections, 2);
        drop((one, two));
        assert_eq!(admission.open.lock().connections, 0);
        assert!(admission.open.lock().by_address.is_empty());
    }

    #[test]
    fn a_lower_limit_keeps_open_connections() {
        let admission = admission(3, 3);
        let held: Vec<_> = (0..3).map(|_| admit(&admission, "192.0.2.1").unwrap()).collect();
        admission.set_limits(ConnectionLimits { total: 2, per_address: 1 });
        assert_eq!(admit(&admission, "192.0.2.2").err(), Some(Refusal::TooMany(2)));
        drop(held);
        let _one = admit(&admission, "192.0.2.1").unwrap();
        assert_eq!(admit(&admission, "192.0.2.1").err(), Some(Refusal::TooManyFromAddress(1)));
    }

    #[test]
    fn refusals_are_logged_once_per_interval() {
        let (admission, now) = (admission(1, 1), Clock::manual(0).now());
        let log =
            |after: Duration| admission.log(Refusal::TooMany(1), "l", address("192.0.2.1"), now + after);
        assert!(log(Duration::ZERO));
        assert!(!log(LOG_INTERVAL - Duration::from_millis(1)));
        assert!(log(LOG_INTERVAL));
        assert!(!log(LOG_INTERVAL + Duration::from_millis(1)));
    }
}
