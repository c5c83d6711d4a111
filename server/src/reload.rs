//! Reload: the configuration is read again, and what can change while the broker runs is changed.
//!
//! Owns what a reload changes and what it only reports. It is asked for by SIGHUP, over HTTP (`inver reload`), and, for
//! certificate files alone, by their change on disk. Invariants: a configuration that is wrong changes nothing; no
//! connection is closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use inver_broker::{AuditEvent, AuditKind, AuditResult, Broker, Who};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};
use utoipa::ToSchema;

use crate::config::users::ConfiguredUsers;
use crate::config::{Config, Loaded, SharedKeys};
use crate::jwt::{self, Tokens};
use crate::listeners::{self, ListenerSet};
use crate::logging::LogFilter;
use crate::otlp;

/// Reloads that are asked for and not begun.
const REQUESTS_MAX: usize = 16;

/// Keys that a reload applies; of the others it says that they need a restart.
const LIVE: [&str; 33] = [
    "users",
    "jwt",
    "permissions",
    "quotas",
    "namespaces",
    "loopback_anonymous",
    "listeners",
    "http.listen",
    "http.prometheus_listen",
    "http.connections_max",
    "tls.poll_interval_ms",
    "capture.rules",
    "limits.connections_max",
    "limits.connections_per_address_max",
    "limits.topics_max",
    "limits.queues_max",
    "limits.exchanges_max",
    "limits.bindings_max",
    "limits.sessions_max",
    "limits.subscriptions_max",
    "limits.retained_messages_max",
    "limits.retained_bytes_max",
    "limits.committed_offsets_max",
    "limits.publisher_sequences_max",
    "limits.undelivered_messages_max",
    "limits.address_levels_max",
    "limits.address_bytes_max",
    "limits.policies_max",
    "limits.delayed_messages_max",
    "limits.exchange_history_bytes_max",
    "limits.exchange_seen_max",
    "logging.filter",
    "mqtt.acl_file",
];

/// The same of keys that several protocols have.
const LIVE_OF_PROTOCOLS: [&str; 8] = [
    "listen",
    "tls_listen",
    "tls_cert",
    "tls_key",
    "websocket_listen",
    "websocket_tls_listen",
    "advertised",
    "tls_advertised",
];

/// Whether a reload applies the key.
pub(crate) fn is_live(key: &str) -> bool {
    LIVE.contains(&key) || key.split_once('.').is_some_and(|(_, key)| LIVE_OF_PROTOCOLS.contains(&key))
}

/// What a reload did.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Report {
    /// Settings that changed.
    pub(crate) changed: Vec<Change>,
    /// Settings that were changed in the configuration and take effect at the next start.
    pub(crate) needs_restart: Vec<Change>,
    /// What an operator is warned of.
    pub(crate) warnings: Vec<String>,
}

/// A setting that differs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) what: String,
}

/// The report, or why nothing was changed.
pub(crate) type Outcome = Result<Report, String>;

/// Asks for a reload.
#[derive(Clone)]
pub(crate) struct ReloadHandle(mpsc::Sender<oneshot::Sender<Outcome>>);

/// Requests for a reload.
pub(crate) struct ReloadRequests(mpsc::Receiver<oneshot::Sender<Outcome>>);

/// A handle, and what is asked for by it.
pub(crate) fn requests() -> (ReloadHandle, ReloadRequests) {
    let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
    (ReloadHandle(sender), ReloadRequests(receiver))
}

impl ReloadHandle {
    /// Reloads. None if the broker is not running, any more or yet.
    pub(crate) async fn reload(&self) -> Option<Outcome> {
        let (reply, outcome) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        outcome.await.ok()
    }
}

impl ReloadRequests {
    /// The next request.
    pub(crate) async fn next(&mut self) -> oneshot::Sender<Outcome> {
        match self.0.recv().await {
            Some(reply) => reply,
            // Nobody can ask any more.
            None => std::future::pending().await,
        }
    }
}

/// Reads the configuration from where it was read at the start.
pub(crate) type Load = Arc<dyn Fn() -> anyhow::Result<Loaded> + Send + Sync>;

/// Reloads the configuration.
pub(crate) struct Reloader {
    load: Load,
    log_filter: LogFilter,
    /// Bound of connections by the limit of open files.
    connections_max: Option<usize>,
    /// The values in effect.
    values: BTreeMap<String, String>,
    users: ConfiguredUsers,
    tokens: Tokens,
    /// What is shown of the configuration.
    shown: SharedKeys,
}

impl Reloader {
    /// With the configuration that the broker started with.
    /// `connections_max` is what the limit of open files allows.
    pub(crate) fn new(
        load: Load,
        log_filter: LogFilter,
        connections_max: Option<usize>,
        started: &mut Config,
        tokens: Tokens,
    ) -> Reloader {
        Reloader {
            load,
            log_filter,
            connections_max,
            values: started.values().into_iter().collect(),
            users: started.general.users.clone(),
            tokens,
            shown: SharedKeys::default(),
        }
    }

    /// Keeps what is shown of the configuration up to date.
    pub(crate) fn update(&mut self, shown: SharedKeys) {
        self.shown = shown;
    }

    /// Reads the configuration and applies it; logs what changed, what needs a restart, or why nothing changed.
    pub(crate) async fn reload(&mut self, listeners: &mut ListenerSet, broker: &Broker) -> Outcome {
        let outcome = self.apply(listeners, broker).await.map_err(|error| format!("{error:#}"));
        match &outcome {
            Err(error) => {
                error!("reload refused, nothing was changed: {error}");
                audit(broker, AuditResult::Refused, "reload", "", error);
            }
            Ok(report) => {
                for Change { key, what } in &report.changed {
                    info!(key, "setting changed: {what}");
                    audit(broker, AuditResult::Accepted, "alter", key, what);
                }
                for Change { key, what } in &report.needs_restart {
                    warn!(key, "setting needs a restart: {what}");
                }
                for warning in &report.warnings {
                    warn!("{warning}");
                }
                let (changed, needs_restart) = (report.changed.len(), report.needs_restart.len());
                info!(changed, needs_restart, "configuration reloaded");
            }
        }
        outcome
    }

    async fn apply(&mut self, listeners: &mut ListenerSet, broker: &Broker) -> anyhow::Result<Report> {
        // Files and host names are read on another thread.
        let load = self.load.clone();
        let read = tokio::task::spawn_blocking(move || {
            let Loaded { config, warnings, sources } = load()?;
            let mut more = listeners::check(&config)?;
            more.extend(jwt::check(&config)?);
            otlp::check(&config.tracing)?;
            let warnings = warnings.into_iter().chain(more);
            let warnings = warnings.map(|warning| format!("{}: {}", warning.place, warning.what)).collect();
            anyhow::Ok((config, sources, warnings))
        });
        let (mut config, sources, warnings) = read.await??;
        let values: BTreeMap<String, String> = config.values().into_iter().collect();
        let mut report = Report { warnings, ..Report::default() };
        for (key, now) in &values {
            let before = self.values.get(key);
            if before == Some(now) {
                continue;
            }
            let what = match key.as_str() {
                "users" => changed_users(&self.users, &config.general.users),
                "permissions" => "other rules".into(),
                "quotas" => "other quotas".into(),
                "namespaces" => "other namespaces, or other settings of them".into(),
                "jwt" => "other issuers of tokens, or other settings of them".into(),
                "listeners" => "other listeners, or other settings of them".into(),
                _ => format!("{now:?}, before {:?}", before.map_or("", String::as_str)),
            };
            let list = if is_live(key) { &mut report.changed } else { &mut report.needs_restart };
            list.push(Change { key: key.clone(), what });
        }
        if let Some(max) = self.connections_max {
            config.limits.connections_max = config.limits.connections_max.min(max);
        }

        // What can fail comes first.
        let prepared = listeners.prepare(&config)?;
        let (users, rules) = config.access()?;
        if report.changed.iter().any(|change| change.key == "namespaces") {
            broker.configure_namespaces(&config.general.namespaces.0)?;
        }
        broker.set_captures(&config.capture.captures(), &config.capture_topics())?;
        broker.access().set_configured(users, rules)?;
        broker.quotas().set_configured(config.general.quotas.quotas())?;
        self.tokens.set(&config.general.jwt);
        broker.access().set_external_authority(self.tokens.has_issuers());
        broker.set_limits(config.limits.namespace());
        self.log_filter.set(&config.logging.filter.0);
        listeners.apply(prepared);
        for (key, now) in values.into_iter().filter(|(key, _)| is_live(key)) {
            self.values.insert(key, now);
        }
        for (shown, now) in self.shown.lock().iter_mut().zip(config.effective(&sources)) {
            if is_live(&now.name) {
                *shown = now;
            }
        }
        self.users = config.general.users;
        Ok(report)
    }
}

/// Records what the configuration says of users, rules, quotas and namespaces at the start.
pub(crate) fn audit_start(broker: &Broker, config: &Config) {
    let general = &config.general;
    let counts = [
        ("users", general.users.0.len()),
        ("permissions", general.permissions.0.len()),
        ("quotas", general.quotas.quotas().len()),
        ("namespaces", general.namespaces.0.len()),
        ("jwt", general.jwt.0.len()),
    ];
    for (key, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        audit(broker, AuditResult::Accepted, "load", key, &format!("{count} in the configuration"));
    }
}

/// Records in the audit log what became of a key of the configuration. Nobody in particular did it.
fn audit(broker: &Broker, result: AuditResult, operation: &str, key: &str, what: &str) {
    broker.audit().record(&AuditEvent {
        kind: AuditKind::Access,
        result,
        who: Who::default(),
        operation,
        resource: "configuration",
        name: key,
        namespace: None,
        rule: None,
        reason: Some(what),
    });
}

/// The names of users that are new, changed and gone.
fn changed_users(before: &ConfiguredUsers, now: &ConfiguredUsers) -> String {
    let new = now.0.keys().filter(|name| !before.0.contains_key(*name));
    let changed = now.0.iter().filter(|(name, user)| before.0.get(*name).is_some_and(|old| old != *user));
    let gone = before.0.keys().filter(|name| !now.0.contains_key(*name));
    let list =
        |what: &str, names: Vec<&str>| (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")));
    let parts = [
        list("new:", new.map(String::as_str).collect()),
        list("changed:", changed.map(|(name, _)| name.as_str()).collect()),
        list("gone:", gone.map(String::as_str).collect()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn every_key_that_a_reload_applies_exists() {
        let names: Vec<String> = keys().iter().map(|key| key.name()).collect();
        for key in LIVE {
            assert!(names.iter().any(|name| name == key), "{key}");
        }
        for key in LIVE_OF_PROTOCOLS {
            assert!(names.iter().any(|name| name.ends_with(&format!(".{key}"))), "{key}");
        }
        assert!(is_live("mqtt.listen") && !is_live("data_dir") && !is_live("log.commit"));
    }
}
