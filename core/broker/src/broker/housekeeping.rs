//! Housekeeping: runs what is due, trims acknowledged messages, and applies retention and bounds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use inver_storage::{Entry, Listener, Shortage};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Broker;
use crate::events::Facts;
use crate::rows;
use crate::session::Sessions;

/// Milliseconds between trims of acknowledged messages.
const ROUND_MS: u64 = 250;

/// Limits of stored bytes are checked once in this many rounds.
const BYTES_ROUNDS: u32 = 4;

/// Retention is applied once in this many rounds.
const RETENTION_ROUNDS: u32 = 120;

/// The time is written to the log once in this many rounds, if anything else was.
const CLOCK_ROUNDS: u32 = 120;

/// What can be low, and what programs are told that it is.
const RESOURCES: [(Shortage, &str); 2] = [(Shortage::Disk, "disk"), (Shortage::Memory, "memory")];

/// Inboxes that the log found above their bounds, by their streams. Waiting for one never holds up what is due.
#[derive(Default)]
pub(super) struct FullInboxes {
    streams: Mutex<Vec<u64>>,
    added: Notify,
}

impl Listener for FullInboxes {
    fn advanced(&self, stream: u64) {
        self.streams.lock().push(stream);
        self.added.notify_one();
    }
}

impl Broker {
    /// Runs housekeeping until shutdown is requested. Deadlines are run when they are reached, inboxes are bounded when they
    /// are full, the rest is done periodically.
    pub async fn housekeep(self, shutdown: CancellationToken) {
        let retention_due = Notify::new();
        tokio::join!(
            self.clone().run_rounds(&retention_due, shutdown.clone()),
            self.clone().run_retention(&retention_due, shutdown.clone()),
            self.run_bounds(shutdown),
        );
    }

    /// Retention walks over all topics and may read indexes: it does not hold up what is due.
    async fn run_retention(self, due: &Notify, shutdown: CancellationToken) {
        let blocking = self.0.parts.config.blocking.clone();
        loop {
            tokio::select! {
                biased;
                () = due.notified() => {}
                () = shutdown.cancelled() => return,
            }
            let broker = self.clone();
            if let Err(error) = blocking.run(move || broker.keep_bounds()).await {
                tracing::error!(%error, "failed to apply retention");
            }
        }
    }

    async fn run_bounds(self, shutdown: CancellationToken) {
        let full: Arc<FullInboxes> = self.0.parts.full_inboxes.clone();
        let blocking = self.0.parts.config.blocking.clone();
        loop {
            tokio::select! {
                biased;
                () = full.added.notified() => {}
                () = shutdown.cancelled() => return,
            }
            let broker = self.clone();
            if let Err(error) = blocking.run(move || broker.bound_full_inboxes()).await {
                tracing::error!(%error, "failed to bound inboxes");
            }
        }
    }

    /// Drops the oldest messages of the inboxes that are above their bounds.
    pub fn bound_full_inboxes(&self) {
        let streams = std::mem::take(&mut *self.0.parts.full_inboxes.streams.lock());
        let all = self.all_sessions();
        for stream in streams {
            all.iter().any(|sessions| sessions.bound_inbox(stream));
        }
    }

    async fn run_rounds(self, retention_due: &Notify, shutdown: CancellationToken) {
        let mut rounds = 0u32;
        let period = Duration::from_millis(ROUND_MS);
        let (clock, blocking) = (self.clock().clone(), self.0.parts.config.blocking.clone());
        let mut next = clock.now() + period;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.0.parts.timers.wait(&clock, || clock.steady_ms(), next) => {}
            }
            let round_due = clock.now() >= next;
            if round_due {
                clock.follow();
                next = clock.now() + period;
                rounds = rounds.wrapping_add(1);
            }
            let bytes_due = round_due && rounds.is_multiple_of(BYTES_ROUNDS);
            if round_due && rounds.is_multiple_of(RETENTION_ROUNDS) {
                retention_due.notify_one();
            }
            let clock_due = round_due && rounds % CLOCK_ROUNDS == 1;
            let broker = self.clone();
            let done = blocking.run(move || {
                broker.run_due();
                if round_due {
                    broker.trim();
                    broker.tell_alarms();
                }
                if bytes_due {
                    broker.check_bytes();
                }
                if clock_due {
                    broker.note_time();
                }
            });
            if let Err(error) = done.await {
                tracing::error!(%error, "housekeeping failed");
            }
        }
    }

    /// Tells programs what of the disk and the memory became low, or is no longer.
    fn tell_alarms(&self) {
        let mut told = self.0.told_alarms.lock();
        for (was_short, (of, resource)) in told.iter_mut().zip(RESOURCES) {
            let is_short = self.log().gate().is_short(of);
            if std::mem::replace(was_short, is_short) != is_short {
                let name = if is_short { "alarm.set" } else { "alarm.cleared" };
                self.events().tell(name, || Facts::new([("resource", resource.into())]));
            }
        }
    }

    fn all_sessions(&self) -> Vec<Sessions> {
        self.0.namespaces.read().values().cloned().collect()
    }

    /// Publishes the wills of clients whose sessions ended with the process before. To be called once users and rules are
    /// known and before clients are admitted: a client that is back sets its next will in the same row.
    pub fn publish_recovered_wills(&self) {
        let wills = std::mem::take(&mut *self.0.wills.lock());
        wills.into_iter().for_each(|(sessions, client_id, row)| {
            sessions.publish_recovered_will(&client_id, row);
        });
    }

    /// Runs everything whose deadline is reached: queues are checked, wills published, sessions expired.
    pub fn run_due(&self) {
        self.publish_recovered_wills();
        let now_ms = self.clock().steady_ms();
        for (at_ms, due) in self.0.parts.timers.take(now_ms) {
            due.run(at_ms, now_ms);
        }
    }

    /// Trims acknowledged messages now, and not in the next round of housekeeping.
    pub fn trim(&self) {
        for sessions in self.all_sessions() {
            sessions.namespace().trim();
        }
    }

    /// Checks the limits of stored bytes now, and not in a later round of housekeeping.
    pub fn check_bytes(&self) {
        self.all_sessions().iter().for_each(Sessions::check_bytes);
    }

    /// Updates the gauges of all namespaces. Called when metrics are read.
    pub fn record(&self) {
        self.all_sessions().iter().for_each(Sessions::record);
    }

    /// Adds a share of the memory, such as the buffers of a protocol, with what tells how much of it is used. That must not
    /// keep the broker alive.
    pub fn add_memory_share(
        &self,
        share: &'static str,
        used_bytes: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.0.memory_shares.write().push((share, Box::new(used_bytes)));
    }

    /// The shares that were added, with the bytes in use.
    #[must_use]
    pub fn memory_shares(&self) -> Vec<(&'static str, u64)> {
        self.0.memory_shares.read().iter().map(|(share, used_bytes)| (*share, used_bytes())).collect()
    }

    /// Writes the time to the log, from which the next start goes on if the system's time is earlier. An idle broker writes
    /// nothing.
    pub fn note_time(&self) {
        let noted = &self.0.noted_at;
        if self.log().committed().0 <= noted.load(Ordering::Relaxed) {
            return;
        }
        let mut entry = Entry::new();
        entry.put(rows::CLOCK, Bytes::new(), rows::encode(&self.clock().steady_ms()));
        match self.log().submit(entry) {
            Ok(submitted) => noted.store(submitted.lsn.0, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "failed to write the time"),
        }
    }

    /// Applies retention and bounds now, and not in a later round of housekeeping.
    pub fn keep_bounds(&self) {
        let now_ms = self.clock().steady_ms();
        self.client_log().sweep();
        self.access().remove_expired_tokens(self.clock().now_ms());
        if let Err(error) = self.bans().remove_expired(self.clock().now_ms()) {
            tracing::warn!(%error, "failed to remove bans that ended");
        }
        for sessions in self.all_sessions() {
            let namespace = sessions.namespace();
            namespace.apply_retention(now_ms);
            sessions.bound_inboxes();
            namespace.end_idle_subscriptions(now_ms);
            namespace.expire_retained();
        }
    }
}
