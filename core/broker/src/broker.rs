//! The broker as protocols see it: the log, the namespaces, who may come in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use inver_storage::{Entry, Log, Lsn, SubmitError};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::context::{Context, Due};
use crate::deadletter::DeadLetterer;
use crate::identity::{AuthError, Credentials, Identity};
use crate::namespace::Namespace;
use crate::retained::Retained;
use crate::rows::{self, NamespaceRow, RowError, decode, split_counted, split_key};
use crate::session::SessionCore;
use crate::spec::{BrokerConfig, SubscriptionOptions, TopicConfig, TopicError, TopicSpec};
use crate::telemetry::Counters;
use crate::timers::Timers;

/// The namespace that is always there.
const DEFAULT_NAMESPACE: &str = "/";

/// How often acknowledged messages are trimmed.
const HOUSEKEEPING_MS: u64 = 250;

/// Retention is looked at every so many rounds: it walks over all topics.
const ROUNDS_A_RETENTION: u32 = 120;

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Its state cannot be read.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The log takes no more.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
    /// A topic of the configuration cannot be made.
    #[error(transparent)]
    Topic(#[from] TopicError),
}

/// A handle; cheap to clone.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    log: Log,
    config: Arc<BrokerConfig>,
    namespaces: RwLock<HashMap<Box<str>, Namespace>>,
    default: Namespace,
    opaque: RwLock<HashMap<Bytes, Bytes>>,
    timers: Arc<Timers<Due>>,
}

impl Broker {
    /// Makes the model again from what the log kept.
    pub fn open(log: Log, config: BrokerConfig) -> Result<Broker, BrokerError> {
        let config = Arc::new(config);
        let timers = Arc::<Timers<Due>>::default();
        let namespaces = recover(&log, &config, &timers)?;
        sweep_spills(&log)?;
        let opaque = log.recovered_state(rows::OPAQUE).into_iter().collect();
        let default = match namespaces.get(DEFAULT_NAMESPACE) {
            Some(default) => default.clone(),
            None => {
                let mut entry = Entry::new();
                let key = Bytes::from_static(DEFAULT_NAMESPACE.as_bytes());
                entry.put(rows::NAMESPACES, key, rows::encode(&NamespaceRow { id: 0 }));
                log.submit(entry)?;
                make_namespace(0, DEFAULT_NAMESPACE, &log, &config, &timers, Vec::new())
            }
        };
        for (name, partitions) in &config.topics {
            if default.topic(name).is_none() {
                let spec = TopicSpec { partitions: *partitions, config: TopicConfig::new() };
                default.create_topic(name, &spec)?;
            }
        }
        let mut namespaces: HashMap<Box<str>, Namespace> = namespaces;
        namespaces.insert(DEFAULT_NAMESPACE.into(), default.clone());
        let namespaces = RwLock::new(namespaces);
        let opaque = RwLock::new(opaque);
        Ok(Broker(Arc::new(Inner { log, config, namespaces, default, opaque, timers })))
    }

    /// The log under everything.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// The clock that everything in it goes by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.config.clock
    }

    /// The namespace of this name.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<Namespace> {
        self.0.namespaces.read().get(name).cloned()
    }

    /// The namespace `/`.
    #[must_use]
    pub fn default_namespace(&self) -> Namespace {
        self.0.default.clone()
    }

    /// Lets a client in, or says why not. May take the time of a password hash, on another thread.
    pub async fn authenticate(&self, peer: IpAddr, credentials: &Credentials) -> Result<Identity, AuthError> {
        self.0.config.authenticator.authenticate(peer, credentials).await
    }

    /// Opaque state of a plug, under a table name of its choice.
    #[must_use]
    pub fn state(&self, table: &str, key: &[u8]) -> Option<Bytes> {
        self.0.opaque.read().get(&opaque_key(table, key)).cloned()
    }

    /// All opaque state of a plug's table, by key.
    #[must_use]
    pub fn states(&self, table: &str) -> Vec<(Bytes, Bytes)> {
        let prefix = opaque_key(table, b"");
        let opaque = self.0.opaque.read();
        let of_table = opaque.iter().filter(|(key, _)| key.starts_with(&prefix));
        of_table.map(|(key, value)| (key.slice(prefix.len()..), value.clone())).collect()
    }

    /// Forgets opaque state of a plug, for good once the log has committed the result.
    pub fn delete_state(&self, table: &str, key: &[u8]) -> Result<Lsn, SubmitError> {
        let key = opaque_key(table, key);
        let mut opaque = self.0.opaque.write();
        let mut entry = Entry::new();
        entry.delete(rows::OPAQUE, key.clone());
        let submitted = self.0.log.submit(entry)?;
        opaque.remove(&key);
        Ok(submitted.lsn)
    }

    /// Sets opaque state of a plug; holds once the log has committed the result.
    pub fn put_state(&self, table: &str, key: &[u8], value: Bytes) -> Result<Lsn, SubmitError> {
        let key = opaque_key(table, key);
        let mut opaque = self.0.opaque.write();
        let mut entry = Entry::new();
        entry.put(rows::OPAQUE, key.clone(), value.clone());
        let submitted = self.0.log.submit(entry)?;
        opaque.insert(key, value);
        Ok(submitted.lsn)
    }

    /// Changes opaque state of a plug by what it was; the function runs under a lock.
    pub fn update_state(
        &self,
        table: &str,
        key: &[u8],
        update: impl FnOnce(Option<&Bytes>) -> Bytes,
    ) -> Result<(Bytes, Lsn), SubmitError> {
        let key = opaque_key(table, key);
        let mut opaque = self.0.opaque.write();
        let value = update(opaque.get(&key));
        let mut entry = Entry::new();
        entry.put(rows::OPAQUE, key.clone(), value.clone());
        let submitted = self.0.log.submit(entry)?;
        opaque.insert(key, value.clone());
        Ok((value, submitted.lsn))
    }

    /// Runs everything whose deadline is reached: queues are checked, wills published, sessions expired.
    fn run_due(&self, now_ms: i64) {
        for (at_ms, due) in self.0.timers.take(now_ms) {
            due.run(at_ms, now_ms);
        }
    }

    /// Applies retention and the bounds of inboxes now, and not at the next round of housekeeping.
    pub fn keep_bounds(&self) {
        for namespace in self.0.namespaces.read().values() {
            namespace.apply_retention(self.clock().now_ms());
            namespace.bound_inboxes();
            namespace.end_idle_subscriptions(self.clock().now_ms());
            namespace.forget_expired_values();
        }
    }

    /// Trims, expires and retains until the server goes down. The server runs it once. What has a time is done at
    /// that time, the rest every now and then.
    pub async fn housekeep(self, shutdown: CancellationToken) {
        let mut rounds = 0u32;
        let period = Duration::from_millis(HOUSEKEEPING_MS);
        let clock = self.clock().clone();
        let mut next = clock.now() + period;
        loop {
            tokio::select! {
                () = self.0.timers.wait(&clock, clock.now_ms(), next) => {}
                () = shutdown.cancelled() => return,
            }
            let round_due = clock.now() >= next;
            if round_due {
                next = clock.now() + period;
                rounds = rounds.wrapping_add(1);
            }
            let retention_due = round_due && rounds.is_multiple_of(ROUNDS_A_RETENTION);
            let broker = self.clone();
            let done = tokio::task::spawn_blocking(move || {
                broker.run_due(broker.clock().now_ms());
                if round_due {
                    let namespaces: Vec<Namespace> = broker.0.namespaces.read().values().cloned().collect();
                    namespaces.iter().for_each(Namespace::housekeep);
                }
                if retention_due {
                    broker.keep_bounds();
                }
            });
            if let Err(error) = done.await {
                tracing::error!(%error, "housekeeping failed");
            }
        }
    }
}

/// What queues in memory left in the log ended with the process that they were in.
fn sweep_spills(log: &Log) -> Result<(), SubmitError> {
    let mut entry = Entry::new();
    for (key, _) in log.recovered_state(rows::SPILLS) {
        if let Some(id) = key.first_chunk::<8>() {
            entry.delete_stream(u64::from_be_bytes(*id).into());
        }
        entry.delete(rows::SPILLS, key);
    }
    if entry.is_empty() { Ok(()) } else { log.submit(entry).map(|_| ()) }
}

fn opaque_key(table: &str, key: &[u8]) -> Bytes {
    [table.as_bytes(), &[0], key].concat().into()
}

type Namespaces = HashMap<Box<str>, Namespace>;

fn make_namespace(
    id: u32,
    name: &str,
    log: &Log,
    config: &Arc<BrokerConfig>,
    timers: &Arc<Timers<Due>>,
    retained: Vec<(Vec<u8>, Bytes)>,
) -> Namespace {
    let retained = Retained::new(id.to_be_bytes().to_vec(), config.clock.clone(), retained);
    let context = Context::new(log.clone(), config.clock.clone(), timers.clone(), Counters::of(name));
    Namespace::new(id, name, context, config, retained, |namespace| DeadLetterer::new(namespace))
}

fn recover(log: &Log, config: &Arc<BrokerConfig>, timers: &Arc<Timers<Due>>) -> Result<Namespaces, RowError> {
    let mut retained: HashMap<u32, Vec<(Vec<u8>, Bytes)>> = HashMap::new();
    for (key, value) in log.recovered_state(rows::RETAINED) {
        if let Some((namespace, address)) = split_key(&key) {
            retained.entry(namespace).or_default().push((address.to_vec(), value));
        }
    }
    let mut by_id: HashMap<u32, Namespace> = HashMap::new();
    let mut by_name = Namespaces::new();
    for (name, row) in log.recovered_state(rows::NAMESPACES) {
        let row: NamespaceRow = decode(rows::NAMESPACES, &row)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let values = retained.remove(&row.id).unwrap_or_default();
        let namespace = make_namespace(row.id, &name, log, config, timers, values);
        by_id.insert(row.id, namespace.clone());
        by_name.insert(name.into(), namespace);
    }
    // In this order: what is named must be there before what names it.
    each(log, rows::TOPICS, &by_id, |namespace, key, row| {
        namespace.recover_topic(&text(&key), &decode(rows::TOPICS, &row)?);
        Ok(())
    })?;
    each(log, rows::EXCHANGES, &by_id, |namespace, key, row| {
        namespace.enter_exchange(&text(&key), decode(rows::EXCHANGES, &row)?);
        Ok(())
    })?;
    each(log, rows::BINDINGS, &by_id, |namespace, key, row| {
        if let Some(number) = key.first_chunk::<8>() {
            namespace.recover_binding(u64::from_be_bytes(*number), &decode(rows::BINDINGS, &row)?);
        }
        Ok(())
    })?;
    each(log, rows::SUBSCRIPTIONS, &by_id, |namespace, key, row| {
        namespace.recover_subscription(&key, &decode(rows::SUBSCRIPTIONS, &row)?);
        Ok(())
    })?;
    each(log, rows::COMMITTED_OFFSETS, &by_id, |namespace, key, row| {
        let mut parts = key.splitn(3, |b| *b == 0);
        if let (Some(group), Some(topic), Some(partition)) = (parts.next(), parts.next(), parts.next())
            && let Ok(partition) = <[u8; 4]>::try_from(partition)
        {
            let position = decode(rows::COMMITTED_OFFSETS, &row)?;
            let (group, topic) = (String::from_utf8_lossy(group), String::from_utf8_lossy(topic));
            namespace.committed_offsets().recover(&group, &topic, u32::from_be_bytes(partition), position);
        }
        Ok(())
    })?;
    recover_sessions(log, &by_id)?;
    by_id.values().for_each(Namespace::end_empty_groups);
    by_id.values().for_each(Namespace::end_owned_queues);
    Ok(by_name)
}

fn recover_sessions(log: &Log, by_id: &HashMap<u32, Namespace>) -> Result<(), RowError> {
    let mut sessions: HashMap<(u32, Bytes), Arc<SessionCore>> = HashMap::new();
    each(log, rows::SESSIONS, by_id, |namespace, key, row| {
        let client_id = text(&key);
        match SessionCore::recover(namespace, &client_id, &decode(rows::SESSIONS, &row)?) {
            Some(core) => {
                namespace.sessions().insert(core.client_id().clone(), core.clone());
                sessions.insert((namespace.id(), key), core);
            }
            None => tracing::error!(client_id, "a session's inbox is missing from the log; left out"),
        }
        Ok(())
    })?;
    let of = |namespace: &Namespace, key: &Bytes| {
        let (client_id, rest) = split_counted(key)?;
        Some((sessions.get(&(namespace.id(), client_id))?, rest))
    };
    each(log, rows::SESSION_FILTERS, by_id, |namespace, key, row| {
        if let Some((session, filter)) = of(namespace, &key) {
            let row: rows::SessionFilterRow = decode(rows::SESSION_FILTERS, &row)?;
            let options = SubscriptionOptions {
                guaranteed: row.guaranteed,
                no_local: row.no_local,
                opaque: row.opaque.into(),
            };
            session.recover_filter(&filter, options);
        }
        Ok(())
    })?;
    each(log, rows::SESSION_STATE, by_id, |namespace, key, value| {
        if let Some((session, key)) = of(namespace, &key) {
            session.recover_blob(&key, value);
        }
        Ok(())
    })?;
    sessions.values().for_each(SessionCore::recovered);
    Ok(())
}

fn each(
    log: &Log,
    table: inver_storage::TableId,
    namespaces: &HashMap<u32, Namespace>,
    mut f: impl FnMut(&Namespace, Bytes, Bytes) -> Result<(), RowError>,
) -> Result<(), RowError> {
    for (key, value) in log.recovered_state(table) {
        if let Some((id, rest)) = split_key(&key)
            && let Some(namespace) = namespaces.get(&id)
        {
            f(namespace, rest, value)?;
        }
    }
    Ok(())
}

fn text(key: &Bytes) -> String {
    String::from_utf8_lossy(key).into_owned()
}
