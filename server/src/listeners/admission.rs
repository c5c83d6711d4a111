//! Who may come in: bounds on connections, and this machine only where no users are configured.
//!
//! Refusals are logged at most once every [`TELL_INTERVAL`], so that a flood of connections is not a flood of
//! log lines.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::warn;

/// The least time between two log lines about refusals.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the door.
pub(crate) struct Admission {
    loopback_only: bool,
    connections_max: usize,
    connections_per_address_max: usize,
    inside: Mutex<Inside>,
    told: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Inside {
    connections: usize,
    /// Only addresses with a connection are here, so the map is bounded by the connections.
    by_address: HashMap<IpAddr, usize>,
}

/// One connection that was let in; dropping it makes room again.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    address: IpAddr,
}

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    LoopbackOnly,
    TooMany(usize),
    TooManyFromAddress(usize),
}

impl Refusal {
    /// Label for metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Refusal::LoopbackOnly => "loopback_only",
            Refusal::TooMany(_) => "connections_max",
            Refusal::TooManyFromAddress(_) => "connections_per_address_max",
        }
    }
}

impl Admission {
    pub(crate) fn new(loopback_only: bool, connections_max: usize, per_address_max: usize) -> Arc<Admission> {
        Arc::new(Admission {
            loopback_only,
            connections_max,
            connections_per_address_max: per_address_max,
            inside: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// Lets a peer in or says why not.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Refusal> {
        let address = address.to_canonical();
        if self.loopback_only && !address.is_loopback() {
            return Err(Refusal::LoopbackOnly);
        }
        let mut inside = self.inside.lock();
        if inside.connections >= self.connections_max {
            return Err(Refusal::TooMany(self.connections_max));
        }
        let from_address = inside.by_address.entry(address).or_default();
        if *from_address >= self.connections_per_address_max {
            return Err(Refusal::TooManyFromAddress(self.connections_per_address_max));
        }
        *from_address += 1;
        inside.connections += 1;
        Ok(Admitted { admission: self.clone(), address })
    }

    /// Logs a refusal, unless one was logged just now.
    pub(crate) fn tell(&self, refusal: &Refusal, address: IpAddr) {
        {
            let mut told = self.told.lock();
            if told.is_some_and(|at| at.elapsed() < TELL_INTERVAL) {
                return;
            }
            *told = Some(Instant::now());
        }
        match refusal {
            Refusal::LoopbackOnly => warn!(
                %address,
                "refused a connection from another machine: no users are configured, so only this machine is let \
                 in. To open the broker, add a user with `inver user add NAME --config FILE` and start with that \
                 file, or set INVER_USERS"
            ),
            Refusal::TooMany(most) => {
                warn!(%address, most, "refused a connection: limits.connections_max is reached");
            }
            Refusal::TooManyFromAddress(most) => {
                warn!(%address, most, "refused a connection: limits.connections_per_address_max is reached");
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut inside = self.admission.inside.lock();
        inside.connections = inside.connections.saturating_sub(1);
        if let Some(count) = inside.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                inside.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn without_users_only_this_machine_comes_in() {
        let door = Admission::new(true, 10, 10);
        assert!(door.admit(address("127.0.0.1")).is_ok());
        assert!(door.admit(address("127.9.0.1")).is_ok());
        assert!(door.admit(address("::1")).is_ok());
        assert!(door.admit(address("::ffff:127.0.0.1")).is_ok());
        assert_eq!(door.admit(address("192.0.2.1")).err(), Some(Refusal::LoopbackOnly));
        assert_eq!(door.admit(address("::ffff:192.0.2.1")).err(), Some(Refusal::LoopbackOnly));
        assert!(Admission::new(false, 10, 10).admit(address("192.0.2.1")).is_ok());
    }

    #[test]
    fn bounds_hold_and_room_is_given_back() {
        let door = Admission::new(false, 3, 2);
        let one = door.admit(address("192.0.2.1")).unwrap();
        let _two = door.admit(address("192.0.2.1")).unwrap();
        assert_eq!(door.admit(address("192.0.2.1")).err(), Some(Refusal::TooManyFromAddress(2)));
        let _three = door.admit(address("192.0.2.2")).unwrap();
        assert_eq!(door.admit(address("192.0.2.3")).err(), Some(Refusal::TooMany(3)));
        drop(one);
        assert!(door.admit(address("192.0.2.1")).is_ok());
        assert_eq!(door.inside.lock().by_address.len(), 2);
    }
}
