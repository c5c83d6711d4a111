//! `$SYS/broker/…` topics: statistics of this server under the names that other MQTT servers made common.
//!
//! The values are not messages of the hub: they are not stored, not captured, and other protocols do not see them. A
//! session that subscribes gets the current values after its SUBACK, as if they were retained, and new ones every
//! [`sys_interval_s`](crate::MqttConfig::sys_interval_s) seconds, at QoS 0.
//!
//! Bound: a weak pointer for each connection with such a subscription.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use inver_broker::{Clock, Mailbox, Namespace};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::token;

/// Prefix of these topics. Clients cannot publish below it.
pub(crate) const PREFIX: &str = "$SYS/";

/// The topics below [`PREFIX`] that have messages, as filters: the statistics, and the state of bridges.
const TOPICS: [&str; 9] = [
    "$SYS/broker/version",
    "$SYS/broker/uptime",
    "$SYS/broker/clients/connected",
    "$SYS/broker/clients/maximum",
    "$SYS/broker/publish/messages/received",
    "$SYS/broker/publish/messages/sent",
    "$SYS/broker/publish/messages/dropped",
    "$SYS/broker/retained messages/count",
    "$SYS/broker/connection/+/state",
];

/// Whether a filter can match a topic below [`PREFIX`] that has messages.
pub(crate) fn may_match(filter: &str) -> bool {
    TOPICS.iter().any(|topic| overlap(filter, topic))
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

/// Counters behind the topics, and the connections that subscribed to them.
pub(crate) struct SysTopics {
    /// Zero: values are sent on subscribing only.
    interval: Duration,
    started: Instant,
    connected: AtomicU64,
    connected_max: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    subscribers: Mutex<Vec<Weak<Mailbox>>>,
    is_ticking: AtomicBool,
}

impl SysTopics {
    pub(crate) fn new(interval_s: u16) -> SysTopics {
        SysTopics {
            interval: Duration::from_secs(interval_s.into()),
            started: Clock::system().now(),
            connected: AtomicU64::new(0),
            connected_max: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            subscribers: Mutex::default(),
            is_ticking: AtomicBool::new(false),
        }
    }

    pub(crate) fn count_connected(&self) {
        let connected = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
        self.connected_max.fetch_max(connected, Ordering::Relaxed);
    }

    pub(crate) fn count_disconnected(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts PUBLISH packets; called once a turn of a connection.
    pub(crate) fn count_publishes(&self, received: u64, sent: u64) {
        if received > 0 {
            self.received.fetch_add(received, Ordering::Relaxed);
        }
        if sent > 0 {
            self.sent.fetch_add(sent, Ordering::Relaxed);
        }
    }

    /// Counts QoS 0 messages dropped because a client is slow.
    pub(crate) fn count_dropped(&self, messages: u64) {
        self.dropped.fetch_add(messages, Ordering::Relaxed);
    }

    /// Every topic below [`PREFIX`] with its current value.
    pub(crate) fn values(&self, namespace: &Namespace) -> [(&'static str, String); 8] {
        let uptime = namespace.clock().now().saturating_duration_since(self.started);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
        [
            ("$SYS/broker/version", concat!("inver version ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("$SYS/broker/uptime", format!("{} seconds", uptime.as_secs())),
            ("$SYS/broker/clients/connected", count(&self.connected)),
            ("$SYS/broker/clients/maximum", count(&self.connected_max)),
            ("$SYS/broker/publish/messages/received", count(&self.received)),
            ("$SYS/broker/publish/messages/sent", count(&self.sent)),
            ("$SYS/broker/publish/messages/dropped", count(&self.dropped)),
            ("$SYS/broker/retained messages/count", namespace.retained().len().to_string()),
        ]
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

/// Wakes the subscribers at every interval until none is left.
async fn tick(sys: Arc<SysTopics>, clock: Clock) {
    loop {
        clock.sleep(sys.interval).await;
        let mut subscribers = sys.subscribers.lock();
        subscribers.retain(|mailbox| {
            mailbox.upgrade().is_some_and(|mailbox| {
                mailbox.post(token::SYS);
                true
            })
        });
        if subscribers.is_empty() {
            // Under the lock, so that the next subscriber starts a new task.
            sys.is_ticking.store(false, Ordering::Release);
            return;
        }
    }
}
