//! `$SYS/broker/…`: what the broker says of itself, under the names that other MQTT servers made common.
//!
//! The values are no messages of the hub: nothing of them is stored, captured or seen by other protocols. A session that
//! subscribes gets the present ones after its SUBACK, as if they were retained, and again every
//! [`sys_interval_s`](crate::MqttConfig::sys_interval_s) seconds, at QoS 0.
//!
//! Bound: a pointer for each connection with such a subscription, and nothing without one.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use inver_broker::{Mailbox, Namespace, SessionTerms};

use crate::config::MqttConfig;
use crate::connected::Directory;
use crate::session;

/// The start of these topics. Clients cannot publish there.
pub(crate) const PREFIX: &str = "$SYS/";

/// What the connections of a plug share.
pub(crate) struct Plug {
    config: MqttConfig,
    pub(crate) sys: Sys,
    pub(crate) directory: Directory,
    pub(crate) session_terms: Arc<SessionTerms>,
}

impl Plug {
    pub(crate) fn new(config: MqttConfig) -> Arc<Plug> {
        let session_terms = Arc::new(session::terms(&config));
        Arc::new(Plug { config, sys: Sys::default(), directory: Directory::default(), session_terms })
    }
}

impl Deref for Plug {
    type Target = MqttConfig;

    fn deref(&self) -> &MqttConfig {
        &self.config
    }
}

/// Counts, and who wants to hear of them.
pub(crate) struct Sys {
    since: Instant,
    connected: AtomicU64,
    connected_max: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    watchers: Mutex<Vec<Weak<Mailbox>>>,
    ticking: AtomicBool,
}

impl Default for Sys {
    fn default() -> Sys {
        Sys {
            since: Instant::now(),
            connected: AtomicU64::new(0),
            connected_max: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            watchers: Mutex::default(),
            ticking: AtomicBool::new(false),
        }
    }
}

impl Sys {
    /// Counts a client that is connected.
    pub(crate) fn one_more(&self) {
        let now = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
        self.connected_max.fetch_max(now, Ordering::Relaxed);
    }

    /// It is no longer.
    pub(crate) fn one_less(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts PUBLISH packets; once a turn of a connection.
    pub(crate) fn count(&self, received: u64, sent: u64) {
        if received > 0 {
            self.received.fetch_add(received, Ordering::Relaxed);
        }
        if sent > 0 {
            self.sent.fetch_add(sent, Ordering::Relaxed);
        }
    }

    /// Counts messages at QoS 0 that a slow client lost.
    pub(crate) fn count_dropped(&self, messages: u64) {
        self.dropped.fetch_add(messages, Ordering::Relaxed);
    }

    /// Every topic below [`PREFIX`] with its present value.
    pub(crate) fn values(&self, namespace: &Namespace) -> [(&'static str, String); 8] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
        [
            ("$SYS/broker/version", concat!("inver version ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("$SYS/broker/uptime", format!("{} seconds", self.since.elapsed().as_secs())),
            ("$SYS/broker/clients/connected", count(&self.connected)),
            ("$SYS/broker/clients/maximum", count(&self.connected_max)),
            ("$SYS/broker/publish/messages/received", count(&self.received)),
            ("$SYS/broker/publish/messages/sent", count(&self.sent)),
            ("$SYS/broker/publish/messages/dropped", count(&self.dropped)),
            ("$SYS/broker/retained messages/count", namespace.retained().len().to_string()),
        ]
    }

    /// A connection that is to be told of new values, by this token.
    pub(crate) fn watch(plug: &Arc<Plug>, mailbox: &Arc<Mailbox>, token: u64) {
        if plug.sys_interval_s == 0 {
            return;
        }
        let mailbox = Arc::downgrade(mailbox);
        {
            let mut watchers = plug.sys.watchers.lock().unwrap_or_else(PoisonError::into_inner);
            if !watchers.iter().any(|known| known.ptr_eq(&mailbox)) {
                watchers.push(mailbox);
            }
        }
        if !plug.sys.ticking.swap(true, Ordering::AcqRel) {
            tokio::spawn(tick(plug.clone(), token));
        }
    }
}

/// Tells the watchers now and then, until there are none.
async fn tick(plug: Arc<Plug>, token: u64) {
    let interval = Duration::from_secs(u64::from(plug.sys_interval_s));
    loop {
        tokio::time::sleep(interval).await;
        let mut watchers = plug.sys.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|mailbox| {
            mailbox.upgrade().is_some_and(|mailbox| {
                mailbox.post(token);
                true
            })
        });
        if watchers.is_empty() {
            // Within the lock: who comes next starts another.
            plug.sys.ticking.store(false, Ordering::Release);
            return;
        }
    }
}
