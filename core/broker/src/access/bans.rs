//! Bans: clients that are not let in, by client id, user or address, some of them for a time.
//!
//! Owns the bans, which are stored in the log. Does not own the connections that are there: who adds a ban ends them.
//!
//! Bound: `limits.bans_max`. Without a ban, a connection costs one comparison.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use inver_storage::{Entry, Log, SubmitError};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::completion::Completion;
use crate::limits::{self, LimitReached};
use crate::tables::{self, BANS, RowError};

/// Bytes of a client id, a user name or a reason.
const TEXT_BYTES_MAX: usize = 1024;

/// Bits before an IPv4 address in the form of IPv6.
const MAPPED_BITS: u8 = 96;

/// Who is banned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BanTarget {
    /// Clients with this client id, or connections with this name.
    ClientId(String),
    /// Connections of this user.
    User(String),
    /// Connections from these addresses.
    Network(Network),
}

/// Addresses with the same leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Network {
    /// The first of them.
    address: IpAddr,
    /// How many bits they have in common.
    bits: u8,
}

impl Network {
    /// The addresses that share so many bits with this one; none if it has fewer. IPv4 addresses in the form of IPv6
    /// (`::ffff:10.0.0.0/104`) are IPv4 addresses.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Network> {
        let (address, bits) = match (address.to_canonical(), bits.checked_sub(MAPPED_BITS)) {
            (IpAddr::V4(v4), Some(bits)) if address.is_ipv6() => (IpAddr::V4(v4), bits),
            _ => (address, bits),
        };
        let address = match address {
            IpAddr::V4(v4) if bits <= 32 => IpAddr::V4(Ipv4Addr::from_bits(
                v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0),
            )),
            IpAddr::V6(v6) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
            _ => return None,
        };
        Some(Network { address, bits })
    }

    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        Network::new(address.to_canonical(), self.bits) == Some(self)
    }

    fn is_host(self) -> bool {
        self.bits == if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_host() {
            true => self.address.fmt(f),
            false => write!(f, "{}/{}", self.address, self.bits),
        }
    }
}

impl FromStr for Network {
    type Err = ();

    /// Reads `address` or `address/bits`.
    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| ())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        Network::new(address, bits.unwrap_or(all)).ok_or(())
    }
}

impl fmt::Display for BanTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BanTarget::ClientId(id) => write!(f, "client id {id}"),
            BanTarget::User(user) => write!(f, "user {user}"),
            BanTarget::Network(network) => write!(f, "address {network}"),
        }
    }
}

/// Why and for how long somebody is banned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Why; may be empty. Clients are not told.
    pub reason: String,
    /// Who banned.
    pub by: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: i64,
    /// Until when, milliseconds since 1970; none: until it is removed.
    pub until_ms: Option<i64>,
}

impl Ban {
    fn holds(&self, now_ms: i64) -> bool {
        self.until_ms.is_none_or(|until_ms| until_ms > now_ms)
    }
}

/// Who a client is, for bans.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BanScope<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) address: IpAddr,
}

/// Why a ban cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum BansError {
    /// A name or the reason is empty or too long.
    #[error("a name has 1 to {TEXT_BYTES_MAX} bytes, a reason at most as many")]
    BadText,
    /// There are too many.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// The bans of the broker; cheap to clone.
#[derive(Clone)]
pub struct Bans(Arc<Inner>);

struct Inner {
    log: Log,
    bans_max: usize,
    bans: RwLock<BTreeMap<BanTarget, Ban>>,
    /// Whether there is a ban.
    is_any: AtomicBool,
}

impl Bans {
    /// Restores the bans from the log.
    pub(crate) fn open(log: Log, bans_max: usize) -> Result<Bans, RowError> {
        let mut bans = BTreeMap::new();
        for (key, row) in log.recovered_state(BANS) {
            bans.insert(tables::decode(BANS, &key)?, tables::decode(BANS, &row)?);
        }
        let is_any = AtomicBool::new(!bans.is_empty());
        Ok(Bans(Arc::new(Inner { log, bans_max, bans: RwLock::new(bans), is_any })))
    }

    /// All bans that hold at a time.
    #[must_use]
    pub fn list(&self, now_ms: i64) -> Vec<(BanTarget, Ban)> {
        let bans = self.0.bans.read();
        let holding = bans.iter().filter(|(_, ban)| ban.holds(now_ms));
        holding.map(|(target, ban)| (target.clone(), ban.clone())).collect()
    }

    /// Adds a ban, or replaces the one of the same target.
    pub fn set(&self, target: &BanTarget, ban: &Ban) -> Result<Completion, BansError> {
        let is_text = match target {
            BanTarget::ClientId(text) | BanTarget::User(text) => (1..=TEXT_BYTES_MAX).contains(&text.len()),
            BanTarget::Network(_) => true,
        };
        if !is_text || ban.reason.len().max(ban.by.len()) > TEXT_BYTES_MAX {
            return Err(BansError::BadText);
        }
        let mut bans = self.0.bans.write();
        if !bans.contains_key(target) {
            limits::check("bans", bans.len(), self.0.bans_max)?;
        }
        let mut entry = Entry::new();
        entry.put(BANS, tables::encode(target), tables::encode(ban));
        let lsn = self.0.log.submit(entry)?.lsn;
        bans.insert(target.clone(), ban.clone());
        self.0.is_any.store(true, Ordering::Release);
        Ok(lsn.into())
    }

    /// Removes a ban; none if there is no such ban.
    pub fn remove(&self, target: &BanTarget) -> Result<Option<Completion>, SubmitError> {
        self.remove_where(|banned, _| banned == target)
    }

    /// Removes the bans whose time is over.
    pub(crate) fn remove_expired(&self, now_ms: i64) -> Result<(), SubmitError> {
        self.remove_where(|_, ban| !ban.holds(now_ms)).map(drop)
    }

    fn remove_where(
        &self,
        selects: impl Fn(&BanTarget, &Ban) -> bool,
    ) -> Result<Option<Completion>, SubmitError> {
        let mut bans = self.0.bans.write();
        let selected: Vec<BanTarget> = bans
            .iter()
            .filter(|(target, ban)| selects(target, ban))
            .map(|(target, _)| target.clone())
            .collect();
        if selected.is_empty() {
            return Ok(None);
        }
        let mut entry = Entry::new();
        selected
            .iter()
            .map(|target| -> Bytes { tables::encode(target) })
            .for_each(|key| entry.delete(BANS, key));
        let lsn = self.0.log.submit(entry)?.lsn;
        selected.iter().for_each(|target| _ = bans.remove(target));
        self.0.is_any.store(!bans.is_empty(), Ordering::Release);
        Ok(Some(lsn.into()))
    }

    /// Whether a client is banned at a time.
    pub(crate) fn bans(&self, scope: BanScope<'_>, now_ms: i64) -> bool {
        if !self.0.is_any.load(Ordering::Acquire) {
            return false;
        }
        let bans = self.0.bans.read();
        let holds = |target: &BanTarget| bans.get(target).is_some_and(|ban| ban.holds(now_ms));
        if !scope.client_id.is_empty() && holds(&BanTarget::ClientId(scope.client_id.to_owned())) {
            return true;
        }
        if scope.user.is_some_and(|user| holds(&BanTarget::User(user.to_owned()))) {
            return true;
        }
        let address = scope.address.to_canonical();
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let networks = (0..=bits_max).filter_map(|bits| Network::new(address, bits));
        networks.map(BanTarget::Network).any(|network| holds(&network))
    }
}

impl BanTarget {
    /// Whether it is about a client.
    pub(crate) fn is_about(&self, scope: BanScope<'_>) -> bool {
        match self {
            BanTarget::ClientId(id) => id == scope.client_id,
            BanTarget::User(user) => Some(user.as_str()) == scope.user,
            BanTarget::Network(network) => network.contains(scope.address),
        }
    }
}

impl fmt::Debug for Bans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bans").field("bans", &self.0.bans.read().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use inver_storage::medium::fake::FakeMedium;
    use inver_storage::{LogOptions, SystemClock};

    use super::*;

    fn bans(bans_max: usize) -> Bans {
        let log =
            Log::open_manual(Arc::new(FakeMedium::new(1)), Arc::new(SystemClock), LogOptions::default());
        Bans::open(log.unwrap(), bans_max).unwrap()
    }

    fn client<'a>(client_id: &'a str, user: &'a str, address: &str) -> BanScope<'a> {
        BanScope { client_id, user: (!user.is_empty()).then_some(user), address: address.parse().unwrap() }
    }

    #[test]
    fn clients_are_banned_by_id_user_and_address_until_the_ban_ends() {
        let bans = bans(10);
        let ann = client("c", "ann", "10.1.2.3");
        assert!(!bans.bans(ann, 0));
        for target in [
            BanTarget::ClientId("c".into()),
            BanTarget::User("ann".into()),
            BanTarget::Network("10.1.2.3".parse().unwrap()),
            BanTarget::Network("10.1.0.0/16".parse().unwrap()),
            BanTarget::Network("0.0.0.0/0".parse().unwrap()),
            BanTarget::Network("::ffff:10.0.0.0/104".parse().unwrap()),
        ] {
            let _ = bans.set(&target, &Ban { until_ms: Some(100), ..Ban::default() }).unwrap();
            assert!(bans.bans(ann, 99) && target.is_about(ann), "{target}");
            assert!(!bans.bans(ann, 100) && bans.list(100).is_empty(), "{target}");
            assert!(bans.remove(&target).unwrap().is_some() && !bans.bans(ann, 0), "{target}");
            assert!(bans.remove(&target).unwrap().is_none());
        }
        let _ = bans.set(&BanTarget::Network("2001:db8::/32".parse().unwrap()), &Ban::default()).unwrap();
        assert!(bans.bans(client("", "", "2001:db8:1::1"), i64::MAX) && !bans.bans(client("", "", "::1"), 0));
        assert!(!bans.bans(client("", "", "10.1.2.3"), 0));
    }

    #[test]
    fn bans_are_bounded_and_those_that_ended_are_removed() {
        let bans = bans(1);
        let target = BanTarget::User("a".into());
        let _ = bans.set(&target, &Ban { until_ms: Some(5), ..Ban::default() }).unwrap();
        let _ = bans.set(&target, &Ban { until_ms: Some(6), ..Ban::default() }).unwrap();
        let other = BanTarget::User("b".into());
        assert!(matches!(bans.set(&other, &Ban::default()), Err(BansError::Limit(_))));
        bans.remove_expired(6).unwrap();
        assert!(bans.set(&other, &Ban::default()).is_ok());
        assert!(matches!(
            bans.set(&BanTarget::User(String::new()), &Ban::default()),
            Err(BansError::BadText)
        ));
    }

    #[test]
    fn networks_are_read_and_written() {
        for (text, shown) in [
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1/96", "0.0.0.0/0"),
            ("::ffff:10.0.0.1/64", "::/64"),
            ("::1/64", "::/64"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
        }
        for text in ["", "x", "10.0.0.1/33", "::1/129", "10.0.0.1/"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
