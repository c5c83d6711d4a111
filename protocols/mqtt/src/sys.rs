//! `$SYS/broker/…` topics: statistics of this server under the names that Mosquitto made common.
//!
//! The values are not messages of the hub: they are not captured, and other protocols do not see them. A session that
//! subscribes gets the current values after its SUBACK, as if they were retained, and those that changed every
//! [`sys_interval_s`](crate::MqttConfig::sys_interval_s) seconds, at the QoS of its subscription.
//!
//! Bound: a weak pointer for each connection with such a subscription, and the values of each of their namespaces.

mod counts;
mod load;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use inver_broker::{Clock, Mailbox, Namespace, SessionTally};
use parking_lot::Mutex;
use tokio::time::Instant;

use self::counts::Totals;
use self::load::Loads;
use crate::token;

pub(crate) use self::counts::{Count, count};

/// Prefix of these topics. Clients cannot publish below it.
pub(crate) const PREFIX: &str = "$SYS/";

/// The topics below [`PREFIX`] that have messages, as filters, without the averages: statistics, the state of bridges, and
/// the events of clients.
#[rustfmt::skip]
const TOPICS: [&str; 29] = [
    "$SYS/broker/version", "$SYS/broker/uptime",
    "$SYS/broker/clients/total", "$SYS/broker/clients/maximum", "$SYS/broker/clients/connected", "$SYS/broker/clients/active",
    "$SYS/broker/clients/disconnected", "$SYS/broker/clients/inactive", "$SYS/broker/clients/expired",
    "$SYS/broker/messages/received", "$SYS/broker/messages/sent", "$SYS/broker/messages/stored",
    "$SYS/broker/store/messages/count", "$SYS/broker/store/messages/bytes",
    "$SYS/broker/subscriptions/count", "$SYS/broker/shared_subscriptions/count", "$SYS/broker/retained messages/count",
    "$SYS/broker/heap/current", "$SYS/broker/heap/maximum",
    "$SYS/broker/publish/messages/received", "$SYS/broker/publish/messages/sent", "$SYS/broker/publish/messages/dropped",
    "$SYS/broker/publish/bytes/received", "$SYS/broker/publish/bytes/sent",
    "$SYS/broker/bytes/received", "$SYS/broker/bytes/sent",
    "$SYS/broker/connection/+/state",
    "$SYS/brokers/+/clients/+/connected", "$SYS/brokers/+/clients/+/disconnected",
];

/// Whether a filter can match a topic below [`PREFIX`] that has messages.
pub(crate) fn may_match(filter: &str) -> bool {
    TOPICS.into_iter().chain(load::topics()).any(|topic| overlap(filter, topic))
}

/// Whether two valid filters have a topic in common. The second has no `#`.
fn overlap(filter: &str, other: &str) -> bool {
    let (mut levels, mut others) = (filter.split('/'), other.split('/'));
    loop {
        match (levels.next(), others.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some(level), Some(other)) if level == other || level == "+" || other == "+" => {}
            _ => return false,
        }
    }
}

/// A topic with its value.
pub(crate) struct Statistic {
    pub(crate) topic: &'static str,
    pub(crate) value: String,
    /// The interval since which it has this value.
    pub(crate) changed_in: u32,
}

/// The values of a namespace in an interval.
struct Taken {
    interval: u32,
    values: Arc<[Statistic]>,
}

/// Counters behind the topics, and the connections that subscribed to them.
pub(crate) struct SysTopics {
    /// Zero: values are sent on subscribing only.
    interval: Duration,
    started: Instant,
    connected: AtomicU64,
    connected_max: AtomicU64,
    totals: Totals,
    loads: Mutex<Loads>,
    subscribers: Mutex<Vec<Weak<Mailbox>>>,
    is_ticking: AtomicBool,
    /// Intervals so far.
    intervals: AtomicU32,
    /// The memory of the process in this interval, and the most so far; 0 while nobody is subscribed.
    memory_bytes: AtomicU64,
    memory_bytes_max: AtomicU64,
    /// By the number of the namespace; those of which somebody subscribed.
    taken: Mutex<HashMap<u32, Taken>>,
}

impl SysTopics {
    pub(crate) fn new(interval_s: u16) -> SysTopics {
        let started = Clock::system().now();
        SysTopics {
            interval: Duration::from_secs(interval_s.into()),
            started,
            connected: AtomicU64::new(0),
            connected_max: AtomicU64::new(0),
            totals: Totals::default(),
            loads: Mutex::new(Loads::new(started)),
            subscribers: Mutex::default(),
            is_ticking: AtomicBool::new(false),
            intervals: AtomicU32::new(0),
            memory_bytes: AtomicU64::new(0),
            memory_bytes_max: AtomicU64::new(0),
            taken: Mutex::default(),
        }
    }

    pub(crate) fn count_connected(&self) {
        let connected = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
        self.connected_max.fetch_max(connected, Ordering::Relaxed);
    }

    pub(crate) fn count_disconnected(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// Adds what was counted by [`count`]; called once a turn of a connection.
    pub(crate) fn end_turn(&self) {
        self.totals.end_turn();
    }

    /// Every topic below [`PREFIX`] with its current value.
    pub(crate) fn values_now(
        &self,
        namespace: &Namespace,
        tally: &SessionTally,
    ) -> Vec<(&'static str, String)> {
        self.values(namespace, tally, self.known_memory().or_else(memory_bytes))
    }

    fn values(
        &self,
        namespace: &Namespace,
        tally: &SessionTally,
        memory: Option<(u64, u64)>,
    ) -> Vec<(&'static str, String)> {
        let now = namespace.clock().now();
        let (connected, maximum) =
            (self.connected.load(Ordering::Relaxed), self.connected_max.load(Ordering::Relaxed));
        let away = tally.sessions.saturating_sub(tally.connected);
        let retained = namespace.retained();
        let stored = tally.queued + retained.len() as u64;
        let of = |what| self.totals.get(what).to_string();
        let mut values = vec![
            ("$SYS/broker/version", concat!("inver version ", env!("CARGO_PKG_VERSION")).to_owned()),
            (
                "$SYS/broker/uptime",
                format!("{} seconds", now.saturating_duration_since(self.started).as_secs()),
            ),
            ("$SYS/broker/clients/total", (connected + away).to_string()),
            ("$SYS/broker/clients/maximum", maximum.to_string()),
            ("$SYS/broker/clients/connected", connected.to_string()),
            ("$SYS/broker/clients/active", connected.to_string()),
            ("$SYS/broker/clients/disconnected", away.to_string()),
            ("$SYS/broker/clients/inactive", away.to_string()),
            ("$SYS/broker/clients/expired", tally.expired.to_string()),
            ("$SYS/broker/messages/received", of(Count::PacketsReceived)),
            ("$SYS/broker/messages/sent", of(Count::PacketsSent)),
            ("$SYS/broker/messages/stored", stored.to_string()),
            ("$SYS/broker/store/messages/count", stored.to_string()),
            ("$SYS/broker/store/messages/bytes", (tally.queued_bytes + retained.bytes()).to_string()),
            ("$SYS/broker/subscriptions/count", tally.subscriptions.to_string()),
            ("$SYS/broker/shared_subscriptions/count", tally.shared.to_string()),
            ("$SYS/broker/retained messages/count", retained.len().to_string()),
            ("$SYS/broker/publish/messages/received", of(Count::PublishesReceived)),
            ("$SYS/broker/publish/messages/sent", of(Count::PublishesSent)),
            ("$SYS/broker/publish/messages/dropped", of(Count::PublishesDropped)),
            ("$SYS/broker/publish/bytes/received", of(Count::PublishBytesReceived)),
            ("$SYS/broker/publish/bytes/sent", of(Count::PublishBytesSent)),
            ("$SYS/broker/bytes/received", of(Count::BytesReceived)),
            ("$SYS/broker/bytes/sent", of(Count::BytesSent)),
        ];
        if let Some((current, maximum)) = memory {
            values.push(("$SYS/broker/heap/current", current.to_string()));
            values.push(("$SYS/broker/heap/maximum", maximum.to_string()));
        }
        let mut loads = self.loads.lock();
        loads.measure(now, &self.totals);
        values.extend(loads.values());
        values
    }

    /// The memory of the process as it was read for this interval.
    fn known_memory(&self) -> Option<(u64, u64)> {
        let known =
            (self.memory_bytes.load(Ordering::Relaxed), self.memory_bytes_max.load(Ordering::Relaxed));
        (known.0 != 0).then_some(known)
    }

    fn set_memory(&self, (current, maximum): (u64, u64)) {
        self.memory_bytes_max.store(maximum, Ordering::Relaxed);
        self.memory_bytes.store(current, Ordering::Relaxed);
    }

    /// This interval and its values, taken once for all sessions of a namespace.
    pub(crate) fn values_of_interval(
        &self,
        namespace: &Namespace,
        tally: impl FnOnce() -> SessionTally,
    ) -> (u32, Arc<[Statistic]>) {
        let mut taken = self.taken.lock();
        let interval = self.intervals.load(Ordering::Relaxed);
        let before = taken.get(&namespace.id());
        if let Some(before) = before.filter(|before| before.interval == interval) {
            return (interval, before.values.clone());
        }
        let values = self.values(namespace, &tally(), self.known_memory());
        let values = compared(before, interval, values);
        taken.insert(namespace.id(), Taken { interval, values: values.clone() });
        (interval, values)
    }

    /// Posts [`token::SYS`] to this mailbox at every interval, for as long as the mailbox lives.
    pub(crate) fn subscribe(self: &Arc<Self>, mailbox: &Arc<Mailbox>, clock: &Clock) {
        if self.interval.is_zero() {
            return;
        }
        let mailbox = Arc::downgrade(mailbox);
        {
            let mut subscribers = self.subscribers.lock();
            if !subscribers.iter().any(|known| known.ptr_eq(&mailbox)) {
                subscribers.push(mailbox);
            }
        }
        if !self.is_ticking.swap(true, Ordering::AcqRel) {
            tokio::spawn(tick(self.clone(), clock.clone()));
        }
    }
}

/// The values of an interval, with the intervals in which they changed.
fn compared(before: Option<&Taken>, interval: u32, values: Vec<(&'static str, String)>) -> Arc<[Statistic]> {
    let old: HashMap<&str, &Statistic> = before.map_or_else(HashMap::new, |before| {
        before.values.iter().map(|statistic| (statistic.topic, statistic)).collect()
    });
    let values = values.into_iter().map(|(topic, value)| {
        let same = old.get(topic).filter(|old| old.value == value);
        Statistic { topic, value, changed_in: same.map_or(interval, |old| old.changed_in) }
    });
    values.collect()
}

/// Wakes the subscribers at every interval until none is left.
async fn tick(sys: Arc<SysTopics>, clock: Clock) {
    loop {
        clock.sleep(sys.interval).await;
        if let Some(read) = memory_bytes() {
            sys.set_memory(read);
        }
        sys.intervals.fetch_add(1, Ordering::Relaxed);
        let mut subscribers = sys.subscribers.lock();
        subscribers.retain(|mailbox| {
            mailbox.upgrade().is_some_and(|mailbox| {
                mailbox.post(token::SYS);
                true
            })
        });
        if subscribers.is_empty() {
            sys.taken.lock().clear();
            sys.set_memory((0, 0));
            // Under the lock, so that the next subscriber starts a new task.
            sys.is_ticking.store(false, Ordering::Release);
            return;
        }
    }
}

/// The memory of the process, and the most so far, as the system tells it; none where it does not.
fn memory_bytes() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some((kilobytes("VmRSS:")? * 1024, kilobytes("VmHWM:")? * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_since_which_interval_it_is_the_same() {
        let mut taken = None;
        for (interval, value, changed_in) in [(1, "a", 1), (2, "b", 2), (3, "b", 2), (7, "b", 2), (8, "a", 8)]
        {
            let values = compared(taken.as_ref(), interval, vec![("t", value.to_owned())]);
            assert_eq!(values.iter().map(|one| one.changed_in).collect::<Vec<_>>(), [changed_in]);
            taken = Some(Taken { interval, values });
        }
    }

    #[test]
    fn filters_overlap_where_a_topic_matches_both() {
        for filter in [
            "$SYS/#",
            "$SYS/+/uptime",
            "$SYS/broker/load/#",
            "$SYS/broker/connection/x/state",
            "$SYS/brokers/+/clients/#",
            "$SYS/brokers/inver/clients/c/connected",
            "$SYS/broker/clients/total/#",
        ] {
            assert!(may_match(filter), "{filter}");
        }
        for filter in
            ["$SYS/x", "$SYS/broker", "$SYS/broker/uptime/x", "$SYS/broker/connection/x/y", "$SYS/+"]
        {
            assert!(!may_match(filter), "{filter}");
        }
    }
}
