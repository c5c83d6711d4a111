//! Settings of the broker.

use std::sync::Arc;

use crate::access::DelegationConfig;
use crate::address::Filter;
use crate::audit::AuditConfig;
use crate::clock::{Blocking, Clock};
use crate::identity::{Authenticator, LoopbackOnly};
use crate::limits::{AccessLimits, Limits};
use crate::line_limit::ClientLogLimits;
use crate::spec::NamespaceSpec;
use crate::traces::Traces;
use crate::value::Arguments;

use super::hub::HubMode;
use super::topic::TopicIds;

/// Settings of the broker.
#[derive(Clone)]
pub struct BrokerConfig {
    /// Capture rules, in order of precedence.
    pub captures: Vec<CaptureRule>,
    /// Log topics created at start if absent, with their number of partitions.
    pub topics: Vec<(String, u32)>,
    /// Namespaces created at start if absent; those that exist are changed to this.
    pub namespaces: Vec<(String, NamespaceSpec)>,
    /// Bound of the number of namespaces.
    pub namespaces_max: usize,
    /// Name of the record header that carries a record's hub address; empty: none.
    pub address_header: String,
    /// How log topics without a setting `inver.hub` of their own take part in the hub.
    pub hub_default: HubMode,
    /// Names of the protocols, as they appear in stored origins.
    pub origins: Vec<&'static str>,
    /// Reads the typed headers of stored messages, by which exchanges route them.
    pub stored_headers: StoredHeaders,
    /// Decides which clients may connect.
    pub authenticator: Arc<dyn Authenticator>,
    /// Bounds of users and permission rules.
    pub access_limits: AccessLimits,
    /// Delegation tokens.
    pub delegation: DelegationConfig,
    /// Retention of log topics without a `retention.ms` of their own, milliseconds; -1: unlimited.
    pub retention_ms: i64,
    /// What waits for a session.
    pub inbox: InboxBounds,
    /// The source of time.
    pub clock: Clock,
    /// Where work that may block runs.
    pub blocking: Blocking,
    /// Where the identities of new topics come from.
    pub topic_ids: TopicIds,
    /// Bounds of every namespace.
    pub limits: Limits,
    /// Durable named subscriptions without a consumer for this long are deleted, milliseconds; none: never.
    pub subscription_idle_ms: Option<u64>,
    /// What consumers meet where the log is damaged.
    pub on_damage: OnDamage,
    /// Bytes that an in-memory queue holds before it spills to the log.
    pub queue_memory_bytes_max: u64,
    /// Log lines about clients.
    pub client_log: ClientLogLimits,
    /// What is recorded for auditors, and where.
    pub audit: AuditConfig,
    /// Where spans of sampled messages go.
    pub traces: Traces,
}

/// What consumers of a subscription meet whose next messages cannot be read because the log is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// The messages behind them. What cannot be read is acknowledged, counted and dead-lettered as one record without a value.
    #[default]
    StepOver,
    /// Nothing: they are told, until an operator steps over it ([`Subscription::skip_damaged`](crate::Subscription::skip_damaged)).
    Stop,
}

/// Reads the typed headers of a stored message out of its encoded headers, whose number is the second argument.
pub type StoredHeaders = fn(&[u8], u32) -> Arguments;

/// Bounds of what waits for a session. Of a durable one the oldest messages beyond them are dropped, of another the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxBounds {
    /// Messages.
    pub messages_max: u64,
    /// Their stored bytes.
    pub bytes_max: u64,
    /// Best-effort messages wait too while no connection holds a durable session.
    pub best_effort: bool,
}

impl Default for InboxBounds {
    fn default() -> Self {
        InboxBounds { messages_max: 1_000_000, bytes_max: 1 << 30, best_effort: false }
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        BrokerConfig {
            captures: Vec::new(),
            topics: Vec::new(),
            namespaces: Vec::new(),
            namespaces_max: 10_000,
            address_header: String::new(),
            hub_default: HubMode::default(),
            origins: Vec::new(),
            stored_headers: |_, _| Arguments::new(),
            authenticator: Arc::new(LoopbackOnly),
            access_limits: AccessLimits::default(),
            delegation: DelegationConfig::default(),
            retention_ms: 7 * 24 * 3600 * 1000,
            inbox: InboxBounds::default(),
            clock: Clock::system(),
            blocking: Blocking::default(),
            topic_ids: TopicIds::default(),
            limits: Limits::default(),
            subscription_idle_ms: None,
            on_damage: OnDamage::default(),
            queue_memory_bytes_max: 64 * 1024 * 1024,
            client_log: ClientLogLimits::default(),
            audit: AuditConfig::default(),
            traces: Traces::default(),
        }
    }
}

/// A rule that appends publishes at matching hub addresses to a log topic. In the templates `{address}` is the whole
/// address (slashed), `{1}`, `{2}` … are the levels that the filter's wildcards matched, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureRule {
    /// Captures publishes of this origin (a protocol's name) only; none: of every origin.
    pub origin: Option<String>,
    /// Addresses that it captures.
    pub filter: Filter,
    /// The log topic, a template.
    pub topic: String,
    /// The record's key, a template.
    pub key: String,
    /// A message that clears a retained value is appended with a null value.
    pub tombstones: bool,
    /// The next rule applies where the topic cannot be appended to; else the message is refused.
    pub passes_on: bool,
}
