//! The broker: the log, the namespaces with their sessions, admission of clients, and the protocols' own state.
//!
//! Dropping the last handle frees the log, once connections have dropped what they hold: nothing below refers back to
//! the broker.

mod admission;
mod audit_topic;
mod housekeeping;
mod namespaces;
mod protocol_state;
mod recovery;
mod sweep;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use inver_access::Digest;
use inver_storage::{Entry, Log, SubmitError};
use parking_lot::{Mutex, RwLock};

use self::housekeeping::FullInboxes;
use crate::access::{AccessControl, Bans};
use crate::audit::Audit;
use crate::client_log::ClientLog;
use crate::clock::Clock;
use crate::connections::ConnectionRegistry;
use crate::context::{Context, Due, Redeliveries};
use crate::deadletter::DeadLetterer;
use crate::events::Events;
use crate::identity::{AuthError, Credentials, DEFAULT_USER, Identity, anonymous_by_listener};
use crate::limits::Limits;
use crate::listener::{Anonymous, Endpoints, ListenerInfo};
use crate::namespace::Namespace;
use crate::quota::Quotas;
use crate::retained::Retained;
use crate::rows::{self, NamespaceRow, RowError};
use crate::scram::{ScramLogin, ScramLoginError};
use crate::session::{Sessions, WillRow};
use crate::spec::{
    BrokerConfig, CaptureRule, DEFAULT_NAMESPACE, NamespaceSpec, OnDamage, TopicConfig, TopicError, TopicSpec,
};
use crate::telemetry::Counters;
use crate::timers::Timers;

use namespaces::Changes;
use recovery::Recovered;

pub use admission::{Admission, AdmitError, Admitted};
pub use namespaces::{NamespaceError, check_namespace};
pub use protocol_state::StateChange;

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A row of its state cannot be read.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The log rejected a write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
    /// A topic of the configuration cannot be created.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// A namespace of the configuration cannot be created.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

/// The broker; cheap to clone.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    parts: Parts,
    /// The sessions of each namespace, which know their namespace, by its name.
    namespaces: RwLock<HashMap<Box<str>, Sessions>>,
    default: Sessions,
    /// Taken before the lock of `namespaces`.
    namespace_changes: Mutex<Changes>,
    access: AccessControl,
    quotas: Quotas,
    bans: Bans,
    connections: ConnectionRegistry,
    protocol_state: RwLock<HashMap<Bytes, Bytes>>,
    client_log: Arc<ClientLog>,
    memory_shares: RwLock<Vec<MemoryShare>>,
    /// What of the disk and the memory programs were told to be low.
    told_alarms: Mutex<[bool; 2]>,
    /// The position of the last entry with the time.
    noted_at: AtomicU64,
    /// Wills of clients whose sessions ended with an earlier process, to be published once the users are known.
    wills: Mutex<Vec<(Sessions, String, WillRow)>>,
}

/// A share of the memory, and what tells how much of it is used.
type MemoryShare = (&'static str, Box<dyn Fn() -> u64 + Send + Sync>);

/// What the namespaces are made of.
struct Parts {
    log: Log,
    config: Arc<BrokerConfig>,
    timers: Arc<Timers<Due>>,
    access: AccessControl,
    changed: RwLock<Changed>,
    full_inboxes: Arc<FullInboxes>,
    redeliveries: Redeliveries,
}

/// What was changed since the start; new namespaces get it too.
#[derive(Default)]
struct Changed {
    limits: Option<Limits>,
    captures: Option<Vec<CaptureRule>>,
}

impl Changed {
    fn apply_to(&self, namespace: &Namespace) {
        if let Some(limits) = self.limits {
            namespace.set_limits(limits);
        }
        if let Some(rules) = &self.captures {
            namespace.set_captures(rules);
        }
    }
}

impl Parts {
    fn make_namespace(
        &self,
        id: u32,
        name: &str,
        spec: NamespaceSpec,
        retained: Vec<(Vec<u8>, Bytes)>,
    ) -> Sessions {
        let (clock, blocking) = (self.config.clock.clone(), self.config.blocking.clone());
        let retained = Retained::new(id.to_be_bytes().to_vec(), clock.clone(), retained);
        let audit = self.access.audit().clone();
        let context = Context::new(
            id,
            self.log.clone(),
            clock,
            blocking,
            self.timers.clone(),
            Counters::of(name),
            audit,
        );
        // It is new.
        let _set = context.redeliveries.set(self.redeliveries.clone());
        let _set = context.stops_at_damage.set(self.config.on_damage == OnDamage::Stop);
        let namespace =
            Namespace::new(id, name, spec, context, &self.config, retained, |weak| DeadLetterer::new(weak));
        self.changed.read().apply_to(&namespace);
        Sessions::new(namespace, self.access.clone(), self.config.inbox)
    }
}

impl Broker {
    /// Restores the broker from what the log has.
    pub fn open(log: Log, config: BrokerConfig) -> Result<Broker, BrokerError> {
        for (_, row) in log.recovered_state(rows::CLOCK) {
            config.clock.begin_after(rows::decode(rows::CLOCK, &row)?);
        }
        let timers = Arc::<Timers<Due>>::default();
        let audit = Audit::new(config.clock.clone(), &config.audit);
        let connections = ConnectionRegistry::new(timers.clone(), audit.events().clone());
        let access = AccessControl::open(
            log.clone(),
            config.access_limits,
            config.delegation.clone(),
            connections.clone(),
            audit.clone(),
        )?;
        let bans = Bans::open(log.clone(), config.access_limits.bans_max)?;
        let quotas = Quotas::open(log.clone(), config.clock.clone(), config.access_limits.quotas_max)?;
        let parts = Parts {
            log,
            config: Arc::new(config),
            timers,
            access: access.clone(),
            changed: RwLock::default(),
            full_inboxes: Arc::default(),
            redeliveries: Redeliveries::default(),
        };
        parts.log.on_overflow(parts.full_inboxes.clone());
        let Recovered { mut namespaces, next_id, wills } = recovery::recover(&parts)?;
        let default = match namespaces.get(DEFAULT_NAMESPACE) {
            Some(default) => default.clone(),
            None => {
                let mut entry = Entry::new();
                let key = Bytes::from_static(DEFAULT_NAMESPACE.as_bytes());
                entry.put(
                    rows::NAMESPACES,
                    key,
                    NamespaceRow { id: 0, spec: NamespaceSpec::default() }.encode(),
                );
                parts.log.submit(entry)?;
                parts.make_namespace(0, DEFAULT_NAMESPACE, NamespaceSpec::default(), Vec::new())
            }
        };
        namespaces.insert(DEFAULT_NAMESPACE.into(), default.clone());
        let protocol_state = parts.log.recovered_state(rows::OPAQUE).into_iter().collect();
        let client_log = Arc::new(ClientLog::new(parts.config.clock.clone(), parts.config.client_log, audit));
        let configured = parts.config.namespaces.clone();
        let broker = Broker(Arc::new(Inner {
            parts,
            namespaces: RwLock::new(namespaces),
            default,
            namespace_changes: Mutex::new(Changes::new(next_id)),
            access,
            quotas,
            bans,
            connections,
            protocol_state: RwLock::new(protocol_state),
            client_log,
            memory_shares: RwLock::default(),
            told_alarms: Mutex::default(),
            noted_at: AtomicU64::new(0),
            wills: Mutex::new(wills),
        }));
        broker.configure_namespaces(&configured)?;
        broker.create_topics(&broker.0.parts.config.topics)?;
        Ok(broker)
    }

    /// Replaces the capture rules of the configuration, in every namespace.
    ///
    /// # Errors
    /// One of `topics`, which exist afterwards with their number of partitions, cannot be created. Nothing changed then but
    /// the topics created before it.
    pub fn set_captures(&self, rules: &[CaptureRule], topics: &[(String, u32)]) -> Result<(), TopicError> {
        self.create_topics(topics)?;
        self.change(|changed| changed.captures = Some(rules.to_vec()));
        Ok(())
    }

    /// Changes the bounds of every namespace. What exists beyond a lower one stays.
    pub fn set_limits(&self, limits: Limits) {
        self.change(|changed| changed.limits = Some(limits));
    }

    fn change(&self, change: impl FnOnce(&mut Changed)) {
        // No namespace is made meanwhile.
        let _changes = self.0.namespace_changes.lock();
        let mut changed = self.0.parts.changed.write();
        change(&mut changed);
        self.0.namespaces.read().values().for_each(|sessions| changed.apply_to(sessions.namespace()));
    }

    fn create_topics(&self, topics: &[(String, u32)]) -> Result<(), TopicError> {
        let namespace = self.0.default.namespace();
        for (name, partitions) in topics {
            if namespace.topic(name).is_none() {
                let spec = TopicSpec { partitions: *partitions, config: TopicConfig::new() };
                namespace.create_topic(name, &spec)?;
            }
        }
        Ok(())
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0.parts.log
    }

    /// The clock of everything in the broker.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.parts.config.clock
    }

    /// The namespace of this name.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<Namespace> {
        self.sessions(name).map(|sessions| sessions.namespace().clone())
    }

    /// The namespace `/`.
    #[must_use]
    pub fn default_namespace(&self) -> Namespace {
        self.0.default.namespace().clone()
    }

    /// The sessions of the namespace of this name.
    #[must_use]
    pub fn sessions(&self, namespace: &str) -> Option<Sessions> {
        self.0.namespaces.read().get(namespace).cloned()
    }

    /// The sessions of the namespace `/`.
    #[must_use]
    pub fn default_sessions(&self) -> Sessions {
        self.0.default.clone()
    }

    /// The users and permission rules.
    #[must_use]
    pub fn access(&self) -> &AccessControl {
        &self.0.access
    }

    /// The bans of clients.
    #[must_use]
    pub fn bans(&self) -> &Bans {
        &self.0.bans
    }

    /// The quotas of users, client ids, namespaces and addresses.
    #[must_use]
    pub fn quotas(&self) -> &Quotas {
        &self.0.quotas
    }

    /// The log lines about clients.
    #[must_use]
    pub fn client_log(&self) -> &Arc<ClientLog> {
        &self.0.client_log
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        self.0.access.audit()
    }

    /// The events for programs.
    #[must_use]
    pub fn events(&self) -> &Events {
        self.audit().events()
    }

    /// The live connections of all protocols.
    #[must_use]
    pub fn connections(&self) -> &ConnectionRegistry {
        &self.0.connections
    }

    /// Authenticates a client of a listener. A password hash is computed on another thread.
    pub async fn authenticate(
        &self,
        listener: &ListenerInfo,
        peer: IpAddr,
        credentials: &Credentials,
    ) -> Result<Identity, AuthError> {
        if let Some(decided) = anonymous_by_listener(listener, peer, credentials) {
            return decided;
        }
        let is_default_user =
            matches!(credentials, Credentials::Password { user, .. } if user == DEFAULT_USER);
        if is_default_user && listener.anonymous == Anonymous::Never && !self.0.access.has_users() {
            // The default user is let in for where it connects from, as anonymous clients are.
            return Err(AuthError::Refused);
        }
        self.0.parts.config.authenticator.authenticate(&self.0.access, peer, credentials).await
    }

    /// Whether a client without credentials may be let in, so that it makes sense to offer that.
    #[must_use]
    pub fn lets_anonymous_in(&self, endpoints: &Endpoints) -> bool {
        let is_local = endpoints.peer.ip().to_canonical().is_loopback();
        match endpoints.listener.anonymous {
            Anonymous::LoopbackWithoutUsers => is_local && !self.0.access.has_users(),
            Anonymous::Loopback => is_local,
            Anonymous::Always => true,
            Anonymous::Never => false,
        }
    }

    /// Whether clients can authenticate by SCRAM with this hash function.
    #[must_use]
    pub fn supports_scram(&self, digest: Digest) -> bool {
        self.0.access.has_tokens() || self.0.parts.config.authenticator.supports_scram(&self.0.access, digest)
    }

    /// Begins to authenticate a client by SCRAM with its first message; returns the server's first message too.
    pub fn begin_scram(
        &self,
        peer: IpAddr,
        digest: Digest,
        message: &[u8],
    ) -> Result<(ScramLogin, String), ScramLoginError> {
        let config = &self.0.parts.config;
        ScramLogin::begin(&config.authenticator, &self.0.access, &config.clock, peer, digest, message)
    }

    /// Authenticates a client by its bearer token at once.
    pub fn check_token(&self, peer: IpAddr, token: &str) -> Result<Identity, AuthError> {
        self.0.parts.config.authenticator.check_token(&self.0.access, peer, token)
    }

    /// Whether clients can authenticate by a bearer token.
    #[must_use]
    pub fn supports_tokens(&self) -> bool {
        self.0.parts.config.authenticator.supports_tokens()
    }
}
