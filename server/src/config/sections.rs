//! The server's own sections of the configuration. Each key is declared once, as a field.
//!
//! Defaults that belong to the log or to the model are taken from there.

use std::path::PathBuf;
use std::time::Duration;

use inver_access::{Rule, TokenSecret, User};
use inver_broker::BrokerConfig;
use inver_driver::Timeouts;
use inver_settings::rules::{
    DAY_MS, GIB, HOUR_MS, KIB, MIB, TIB, bytes, count, flag, milliseconds, percent, seconds, value,
};
use inver_settings::section;
use inver_storage::{CommitPolicy, LogOptions};
use tracing_subscriber::filter::Targets;

use super::jwt::TokenIssuers;
use super::listeners::Listeners;
use super::namespaces::ConfiguredNamespaces;
use super::permissions::ConfiguredPermissions;
use super::quotas::ConfiguredQuotas;
use super::users::ConfiguredUsers;
use super::values::{
    AuditEvents, CaptureRules, Commit, DamagePolicy, HubDefault, Listen, LogFilter, LogFormat, OnFailure,
    Ratio, RuntimeKind,
};
use crate::jwt::TokenLimits;
use crate::logins::{FailureLimits, LoginSettings};
use crate::protocols::{ProtocolEntry, WebSocketForm};

/// Bound of keys that count what clients can create.
const MANY: u64 = 1_000_000_000;

section! {
    /// Keys at the top of the file.
    #[derive(Debug, Clone)]
    pub(crate) struct General {
        /// Folder of the log; created if missing.
        pub(crate) data_dir: PathBuf = "inver-data".into() => value("a path"),
        /// Users and the hashes of their passwords: `inver user add` writes argon2id hashes and SCRAM keys; hashes
        /// of Mosquitto and RabbitMQ are accepted too. A user has one hash or a list of up to 8, each of which its
        /// password may match, and may then do everything; or a table with `passwords`, `tags`, `namespace`,
        /// `disabled`, `connections_max`, `channels_max` (of AMQP), and may do what its tags and permission rules allow.
        /// Without users only clients on this machine are accepted.
        pub(crate) users: ConfiguredUsers = ConfiguredUsers::default()
            => value("a table of names with hashes or tables"),
        /// Permission rules: who (`user`, `tag`, `anyone = true` or `anonymous = true`) may (`effect = "allow"`, or
        /// `"deny"`, which wins) do what (`operations`) with which resources (`kind` and `name`, `prefix`, `filter`,
        /// `regex` or `dotted`; `exchange` for routing keys), in which `namespace`, from which `host`. They add to those
        /// that are stored, and are read-only while the broker runs.
        pub(crate) permissions: ConfiguredPermissions = ConfiguredPermissions::default()
            => value("a list of tables"),
        /// Quotas: for a `user`, a `client_id`, or both, for a `namespace`, or for an `ip` (`*` is the default for all others);
        /// with limits: `bytes_in_per_second`, `bytes_out_per_second`, `messages_in_per_second`, `messages_out_per_second`,
        /// `request_time_percent`, `mutations_per_second`, `connections_per_second` (of an `ip` only that). They win over those that are stored for
        /// the same, and are read-only while the broker runs.
        pub(crate) quotas: ConfiguredQuotas = ConfiguredQuotas::default()
            => value("a list of tables"),
        /// Namespaces that are created at start; those that exist are changed to what is said here. Each has a `name`, and
        /// may have `description`, `tags`, `default_queue_type`, `protected` (from deletion), and limits of its own:
        /// `connections_max`, `queues_max`, `topics_max`, `sessions_max`, `bytes_max`.
        pub(crate) namespaces: ConfiguredNamespaces = ConfiguredNamespaces::default()
            => value("a list of tables"),
        /// Definitions that RabbitMQ or this broker exported, imported at each start before clients come: a JSON file, or a
        /// folder whose files `*.json` are imported in the order of their names. Queues and exchanges that are there stay as
        /// they are; users, permissions and policies are set again. Empty: none.
        pub(crate) load_definitions: Option<PathBuf> = None => value("a path, or empty"),
        /// Issuers of JSON Web Tokens, which clients may show instead of a password: each has `jwks_file`, `jwks_url` or
        /// `secret_file`, and may have `algorithms` (`["RS256"]`), `issuer`, `audience`, `leeway_s` (30), `user_claim`
        /// (`"sub"`), `scope_claim` (`"scope"`), `scope_prefix`, `tags_claim`, `acl_claim`, `namespace_claim`, `tags`,
        /// `namespace`, `refresh_s` (300), `jwks_ca`. With one, clients must log in as if there were users.
        pub(crate) jwt: TokenIssuers = TokenIssuers::default()
            => value("an array of tables, see [access control](access-control.md#tokens)"),
        /// Whether, as long as there are no users, clients on this machine are accepted anonymously or as `guest`. Set it
        /// to `false` where a proxy on this machine passes clients on: all of them come from this machine then.
        pub(crate) loopback_anonymous: bool = true => flag(),
        /// Listeners beside those of the short keys (`kafka.listen`, `mqtt.tls_listen`, …), each with settings of its own.
        /// A protocol that has some has no default listeners; its short keys count where they are set.
        pub(crate) listeners: Listeners = Listeners::default()
            => value("an array of tables, see [below](#listeners-an-entry)"),
    }
}

impl General {
    /// Users and rules as access control knows them.
    pub(crate) fn access(&self) -> anyhow::Result<(Vec<User>, Vec<Rule>)> {
        let mut rules = self.permissions.rules();
        rules.extend(self.users.rules());
        Ok((self.users.users()?, rules))
    }
}

section! {
    /// The log.
    #[derive(Debug, Clone)]
    pub(crate) struct Log {
        /// When an acknowledged write is on disk: `always` (before it is acknowledged), `interval` (synced every
        /// `log.commit_interval_ms`), or `os` (left to the operating system).
        pub(crate) commit: Commit = Commit::Always => value("`always`, `interval` or `os`"),
        /// Time between two syncs under `log.commit = "interval"`.
        pub(crate) commit_interval: Duration = Duration::from_millis(200) => milliseconds(1..=HOUR_MS),
        /// Size at which a segment file is sealed and the next one started. The first ones are sealed earlier, from 8 MiB on.
        pub(crate) segment_bytes_max: u64 = log().segment_bytes_max => bytes(MIB..=2 * GIB),
        /// Age at which a segment file with entries is sealed, so that what was deleted in it can be removed, and compaction
        /// reaches it.
        pub(crate) segment_age_max: Duration = log().segment_age_max => milliseconds(1000..=7 * DAY_MS),
        /// Memory for recent entries, from which consumers that keep up are served.
        pub(crate) tail_cache_bytes_max: usize = log().tail_cache_bytes_max => bytes(MIB..=TIB),
        /// Under `log.commit = "always"`: a group of writes of up to this size is written with O_DIRECT, where the file
        /// system supports it. 0: never.
        pub(crate) direct_bytes_max: usize = log().direct_bytes_max => bytes(0..=64 * MIB),
        /// Free space of the disk below which publishers are held back, while consumers, acknowledgements and removals go
        /// on; see [the disk](running.md#the-disk). 0: the larger of 256 MiB and 2 % of the disk, at most half of what the
        /// log could use.
        pub(crate) free_bytes_min: Option<u64> = None => bytes(0..=1024 * TIB),
        /// What consumers of queues, sessions and named subscriptions meet whose next messages cannot be read because a file of the
        /// log is damaged: `step_over` (the messages behind them; what cannot be read is counted and dead-lettered as one message
        /// without a body), or `stop` (an error, until an operator steps over them with `inver skip`).
        pub(crate) on_damage: DamagePolicy = DamagePolicy(model().on_damage) => value("`step_over` or `stop`"),
        /// Wait of the oldest write for its commit from which on the broker reports that it is not ready: the disk hangs.
        pub(crate) commit_wait_max: Duration = Duration::from_secs(30) => milliseconds(100..=HOUR_MS),
        /// Bytes of log after which a checkpoint is taken; bounds what a start has to read.
        pub(crate) checkpoint_bytes: u64 = log().checkpoint_bytes => bytes(MIB..=TIB),
        /// Time between two checkpoints while anything is written.
        pub(crate) checkpoint_interval: Duration = log().checkpoint_interval => milliseconds(100..=HOUR_MS),
        /// Memory for the index of sealed segments.
        pub(crate) index_cache_bytes_max: usize = log().index_cache_bytes_max => bytes(0..=TIB),
        /// Memory for read buffers that is kept while nothing is read.
        pub(crate) read_buffers_bytes_max: usize = log().read_buffers_bytes_max => bytes(0..=TIB),
        /// Idempotent producers remembered per partition; beyond it the one idle for longest is forgotten.
        pub(crate) producers_per_partition_max: usize = log().producers_per_stream_max => count(1..=10_000_000),
        /// Transactions known per partition: open, or aborted with records that are kept, about 80 bytes each; further ones are refused.
        pub(crate) transactions_per_partition_max: usize = log().transactions_per_stream_max => count(1..=10_000_000),
        /// Keys held in memory during the compaction of a partition, 48 bytes each; further keys are compacted in the
        /// next pass.
        pub(crate) compaction_keys_max: usize = log().compaction_keys_max => count(1..=MANY),
        /// A sealed segment is rewritten when less than this share of it is live. 0: never.
        pub(crate) clean_live_percent_max: u32 = log().clean_live_percent_max => percent(0..=100),
        /// A sealed segment is also sorted by stream when the average stream is split into at least this many extents.
        /// 0: never.
        pub(crate) clean_places_min: u32 = log().clean_places_min => count(0..=MANY),
    }
}

/// The log's own defaults.
fn log() -> LogOptions {
    LogOptions::default()
}

impl Log {
    /// The options that the log is opened with.
    pub(crate) fn options(&self) -> LogOptions {
        LogOptions {
            commit: match self.commit {
                Commit::Always => CommitPolicy::Always,
                Commit::Interval => CommitPolicy::Interval(self.commit_interval),
                Commit::Os => CommitPolicy::Os,
            },
            segment_bytes_max: self.segment_bytes_max,
            segment_age_max: self.segment_age_max,
            free_bytes_min: self.free_bytes_min,
            tail_cache_bytes_max: self.tail_cache_bytes_max,
            direct_bytes_max: self.direct_bytes_max,
            checkpoint_bytes: self.checkpoint_bytes,
            checkpoint_interval: self.checkpoint_interval,
            index_cache_bytes_max: self.index_cache_bytes_max,
            read_buffers_bytes_max: self.read_buffers_bytes_max,
            producers_per_stream_max: self.producers_per_partition_max,
            transactions_per_stream_max: self.transactions_per_partition_max,
            compaction_keys_max: self.compaction_keys_max,
            clean_live_percent_max: self.clean_live_percent_max,
            clean_places_min: self.clean_places_min,
            ..LogOptions::default()
        }
    }
}

section! {
    /// Listeners of one protocol, or of HTTP: health, metrics and the API. The default ports are the protocol's.
    #[derive(Debug, Clone)]
    pub(crate) struct Endpoint {
        /// Address of the TCP listener.
        pub(crate) listen: Listen = Listen::OFF => value("`address:port` or `off`"),
        /// Address of the TLS listener; there is none without a certificate and key.
        pub(crate) tls_listen: Listen = Listen::OFF => value("`address:port` or `off`"),
        /// File of the certificate chain, PEM.
        pub(crate) tls_cert: Option<PathBuf> = None => value("a path, or empty"),
        /// File of the private key, PEM.
        pub(crate) tls_key: Option<PathBuf> = None => value("a path, or empty"),
    }
}

impl Endpoint {
    /// The defaults of a protocol.
    pub(super) fn of(entry: &ProtocolEntry) -> Endpoint {
        Endpoint::on(entry.port, entry.tls_port)
    }

    /// The defaults of HTTP, by the ports of RabbitMQ's management.
    pub(super) fn of_http() -> Endpoint {
        Endpoint::on(15672, 15671)
    }

    fn on(port: u16, tls_port: u16) -> Endpoint {
        Endpoint {
            listen: Listen::loopback(port),
            tls_listen: Listen::loopback(tls_port),
            ..Endpoint::default()
        }
    }
}

section! {
    /// WebSocket listeners of a protocol that has a WebSocket form.
    #[derive(Debug, Clone)]
    pub(crate) struct WebSocketEndpoint {
        /// Address of the WebSocket listener.
        pub(crate) websocket_listen: Listen = Listen::OFF => value("`address:port` or `off`"),
        /// Address of the WebSocket listener over TLS; needs the certificate and key.
        pub(crate) websocket_tls_listen: Listen = Listen::OFF => value("`address:port` or `off`"),
    }
}

impl WebSocketEndpoint {
    /// The defaults of a protocol.
    pub(super) fn of(form: &WebSocketForm) -> WebSocketEndpoint {
        WebSocketEndpoint { websocket_listen: Listen::loopback(form.port), ..WebSocketEndpoint::default() }
    }
}

section! {
    /// HTTP.
    #[derive(Debug, Clone)]
    pub(crate) struct Http {
        /// Concurrent HTTP connections. They do not count towards `limits.connections_max`, so that health and metrics stay
        /// available at that limit.
        pub(crate) connections_max: usize = 128 => count(1..=100_000),
        /// Address of a listener that serves metrics by RabbitMQ's names at RabbitMQ's paths: `/metrics`,
        /// `/metrics/per-object`, `/metrics/detailed`. RabbitMQ's port is 15692.
        pub(crate) prometheus_listen: Listen = Listen::OFF => value("`address:port` or `off`"),
        /// Series of single objects in one answer; further objects are left out and counted.
        pub(crate) detailed_series_max: usize = 100_000 => count(1..=10_000_000),
        /// Whether `/metrics` needs a login, by a user with the tag `administrator` or `monitoring`.
        pub(crate) metrics_login: bool = false => value("`true` or `false`"),
        /// Time after which the login of a page ends.
        pub(crate) login_s: u64 = 28_800 => seconds(60..=MANY),
        /// Logins of pages at a time; beyond it the one that ends first makes room.
        pub(crate) logins_max: usize = 1000 => count(1..=1_000_000),
        /// Tokens of machines.
        pub(crate) tokens_max: usize = 1000 => count(1..=1_000_000),
        /// Streams of live figures (`/api/v1/events`) at a time.
        pub(crate) event_streams_max: usize = 32 => count(1..=10_000),
    }
}

section! {
    /// The hub, where MQTT topics, routing keys of `amq.topic` and names of Kafka topics meet.
    #[derive(Debug, Clone)]
    pub(crate) struct Hub {
        /// How a Kafka topic without a setting `inver.hub` of its own meets MQTT and AMQP clients under its name: `named`
        /// (only those that name it exactly), `open` (subscriptions and bindings with wildcards too), `off` (none).
        /// Internal topics, such as those whose names begin with `_`, are always off.
        pub(crate) default: HubDefault = HubDefault(model().hub_default) => value("`named`, `open` or `off`"),
    }
}

section! {
    /// TLS of all listeners.
    #[derive(Debug, Clone)]
    pub(crate) struct Tls {
        /// Time between two looks at the files of certificates and keys; changed ones are loaded. 0: never.
        pub(crate) poll_interval: Duration = Duration::from_secs(5) => milliseconds(0..=HOUR_MS),
    }
}

section! {
    /// Capture: which publishes are appended to which log topic.
    #[derive(Debug, Clone)]
    pub(crate) struct Capture {
        /// Rules that append publishes to Kafka topics; the first rule whose filter matches applies. In the templates
        /// `topic` and `key`, `{address}` is the MQTT topic and `{1}` what the first wildcard matched. `tombstones = true`
        /// appends a null value where a retained message is cleared; `on_failure = "next"` lets the next rule apply where
        /// the topic cannot be created, instead of refusing the message. `[]`: no capture.
        pub(crate) rules: CaptureRules = CaptureRules::default()
            => value("an array of tables with `filter`, `topic` and optionally `key`, `protocol`, `tombstones` and `on_failure`"),
    }
}

impl Capture {
    /// The rules as the model knows them.
    pub(crate) fn captures(&self) -> Vec<inver_broker::CaptureRule> {
        let rules = self.rules.0.iter().map(|rule| inver_broker::CaptureRule {
            origin: rule.protocol.clone(),
            filter: inver_broker::Filter::slashed(rule.filter.as_bytes()),
            topic: rule.topic.clone(),
            key: rule.key.clone(),
            tombstones: rule.tombstones,
            passes_on: rule.on_failure == OnFailure::Next,
        });
        rules.collect()
    }
}

section! {
    /// Limits of connections and of what clients can create. The namespace's defaults are the model's.
    #[derive(Debug, Clone)]
    pub(crate) struct Limits {
        /// Concurrent connections, over all protocols.
        pub(crate) connections_max: usize = 100_000 => count(1..=10_000_000),
        /// Concurrent connections from one address.
        pub(crate) connections_per_address_max: usize = 100_000 => count(1..=10_000_000),
        /// Connections of a TCP listener that the system keeps until they are accepted; further ones wait for a second and
        /// try again. The system may lower it (`net.core.somaxconn`).
        pub(crate) accept_backlog: u32 = 4096 => count(1..=65_535),
        /// Size of the largest message accepted.
        pub(crate) message_bytes_max: usize = 16 << 20 => bytes(KIB..=GIB),
        /// Namespaces of the broker, the default one included.
        pub(crate) namespaces_max: usize = model().namespaces_max => count(1..=1_000_000),
        /// Log topics and durable queues of a namespace.
        pub(crate) topics_max: usize = model().limits.topics_max => count(1..=MANY),
        /// Queues of a namespace, including those of shared subscriptions.
        pub(crate) queues_max: usize = model().limits.queues_max => count(1..=MANY),
        /// Exchanges of a namespace.
        pub(crate) exchanges_max: usize = model().limits.exchanges_max => count(1..=MANY),
        /// Bindings whose source is one exchange; MQTT subscriptions are bindings of `amq.topic`.
        pub(crate) bindings_max: usize = model().limits.bindings_max => count(1..=MANY),
        /// MQTT sessions, connected or not.
        pub(crate) sessions_max: usize = model().limits.sessions_max => count(1..=MANY),
        /// Named subscriptions of log topics.
        pub(crate) subscriptions_max: usize = model().limits.subscriptions_max => count(1..=MANY),
        /// Retained messages.
        pub(crate) retained_messages_max: usize = model().limits.retained_values_max => count(1..=MANY),
        /// Bytes of all retained messages.
        pub(crate) retained_bytes_max: u64 = model().limits.retained_bytes_max => bytes(KIB..=TIB),
        /// Committed offsets of consumer groups, one per partition.
        pub(crate) committed_offsets_max: usize = model().limits.committed_offsets_max => count(1..=MANY),
        /// Named publishers of the stream protocol, each in one stream, whose last publishing id is kept.
        pub(crate) publisher_sequences_max: usize = model().limits.publisher_sequences_max => count(1..=MANY),
        /// Dead letters without a receiver that a queue with at-least-once dead-lettering keeps; beyond it messages neither
        /// expire nor are dropped for their deliveries, and rejected ones are delivered again.
        pub(crate) undelivered_messages_max: usize = model().limits.undelivered_messages_max => count(1..=MANY),
        /// Levels of an address in the hub, of a routing key and of a pattern over them, of every protocol.
        pub(crate) address_levels_max: usize = model().limits.address_levels_max => count(1..=65_535),
        /// Bytes of an address in the hub, of a routing key and of a pattern over them.
        pub(crate) address_bytes_max: usize = model().limits.address_bytes_max => bytes(1..=MIB),
        /// Policies of a namespace, and as many operator policies.
        pub(crate) policies_max: usize = model().limits.policies_max => count(1..=100_000),
        /// Transactional ids.
        pub(crate) transactional_ids_max: usize = model().limits.transactional_ids_max => count(1..=MANY),
        /// Partitions, groups and offsets of groups in one transaction.
        pub(crate) transaction_parts_max: usize = model().limits.transaction_parts_max => count(1..=MANY),
        /// Messages of a namespace that wait until they are due; beyond it they are refused. Each takes about 24 bytes of memory.
        pub(crate) delayed_messages_max: usize = model().limits.delayed_messages_max => count(1..=20_000_000),
        /// Bytes of the last messages that an exchange of the type `x-recent-history` keeps in memory.
        pub(crate) exchange_history_bytes_max: usize = model().limits.exchange_history_bytes_max => bytes(KIB..=16 * MIB),
        /// Values that an exchange of the type `x-message-deduplication` may remember, each of about 100 bytes of memory.
        pub(crate) exchange_seen_max: usize = model().limits.exchange_seen_max => count(1..=10_000_000),
        /// Events for the exchange `amq.rabbitmq.event` that wait to be published; further ones are counted and dropped.
        pub(crate) events_waiting_max: usize = model().audit.events_waiting_max => count(1..=10_000_000),
        /// Users stored in the broker; those of the configuration do not count.
        pub(crate) users_max: usize = model().access_limits.users_max => count(1..=MANY),
        /// Permission rules stored in the broker; those of the configuration do not count.
        pub(crate) permissions_max: usize = model().access_limits.rules_max => count(1..=MANY),
        /// Quotas stored in the broker; those of the configuration do not count.
        pub(crate) quotas_max: usize = model().access_limits.quotas_max => count(1..=MANY),
        /// Bans of clients.
        pub(crate) bans_max: usize = model().access_limits.bans_max => count(1..=MANY),
        /// Delegation tokens of all users. 0: there are no delegation tokens.
        pub(crate) delegation_tokens_max: usize = model().delegation.tokens_max => count(0..=1_000_000),
        /// Delegation tokens of one owner.
        pub(crate) delegation_tokens_per_owner_max: usize = model().delegation.tokens_per_owner_max
            => count(1..=1_000_000),
        /// Messages waiting for a session; beyond it the oldest are dropped.
        pub(crate) inbox_messages_max: u64 = model().inbox.messages_max => count(1..=MANY),
        /// Bytes of the messages waiting for a session; beyond it the oldest are dropped. A session that ends with its
        /// connection holds 64 MiB at most.
        pub(crate) inbox_bytes_max: u64 = model().inbox.bytes_max => bytes(KIB..=TIB),
        /// Whether messages of QoS 0 are kept too for a session that outlives its connection, while its client is away.
        pub(crate) inbox_qos_0: bool = false => flag(),
        /// Memory of a transient queue; beyond it the queue continues in the log.
        pub(crate) queue_memory_bytes_max: u64 = model().queue_memory_bytes_max => bytes(KIB..=TIB),
        /// A durable named subscription without a consumer for this long is deleted. 0: never.
        pub(crate) subscription_idle_s: Option<u64> = None => seconds(0..=MANY),
        /// Memory that clients who have not logged in hold together, over all protocols: the beginnings of what they send. Beyond it
        /// such a connection is closed, unless it holds less than 4 KiB.
        pub(crate) unauthenticated_bytes_max: usize = 128 << 20 => bytes(64 * KIB..=TIB),
        /// Time within which a client must complete the TLS and WebSocket handshakes, and again the login of its
        /// protocol.
        pub(crate) handshake_timeout: Duration = Timeouts::default().login => milliseconds(10..=HOUR_MS),
        /// A client of any protocol that accepts no bytes for this long while bytes wait to be written is disconnected.
        pub(crate) write_stall_timeout: Duration = Timeouts::default().write_stall => milliseconds(10..=HOUR_MS),
        /// Time that an ended connection has to accept its last bytes and to close its side.
        pub(crate) linger_timeout: Duration = Timeouts::default().linger => milliseconds(10..=HOUR_MS),
        /// A connection that keeps its thread from others for this long is told in the log, with what it did: at most one line a second
        /// and protocol.
        pub(crate) slow_turn: Duration = Timeouts::default().slow_turn => milliseconds(1..=HOUR_MS),
        /// The CPU time is measured too, which tells much work from a busy machine: in that line, and as
        /// `inver_protocol_turn_cpu_seconds`. This costs two system calls each time that a connection gets its thread.
        pub(crate) slow_turn_cpu: bool = Timeouts::default().slow_turn_cpu => flag(),
        /// Time that connections have to end on shutdown.
        pub(crate) shutdown_grace: Duration = Duration::from_secs(10) => milliseconds(0..=HOUR_MS),
    }
}

/// The model's own defaults.
fn model() -> BrokerConfig {
    BrokerConfig::default()
}

impl Limits {
    /// The bounds of time of connections.
    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts {
            login: self.handshake_timeout,
            write_stall: self.write_stall_timeout,
            linger: self.linger_timeout,
            slow_turn: self.slow_turn,
            slow_turn_cpu: self.slow_turn_cpu,
        }
    }

    /// The limits of users, permission rules and quotas.
    pub(crate) fn access(&self) -> inver_broker::AccessLimits {
        inver_broker::AccessLimits {
            users_max: self.users_max,
            rules_max: self.permissions_max,
            quotas_max: self.quotas_max,
            bans_max: self.bans_max,
        }
    }

    /// Delegation tokens, which this secret makes.
    pub(crate) fn delegation(&self, logins: &Logins, secret: TokenSecret) -> inver_broker::DelegationConfig {
        let milliseconds = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        inver_broker::DelegationConfig {
            secret: Some(secret),
            max_lifetime_ms: milliseconds(logins.delegation_token_max_lifetime),
            expiry_ms: milliseconds(logins.delegation_token_expiry),
            tokens_max: self.delegation_tokens_max,
            tokens_per_owner_max: self.delegation_tokens_per_owner_max,
        }
    }

    /// The limits of a namespace.
    pub(crate) fn namespace(&self) -> inver_broker::Limits {
        inver_broker::Limits {
            topics_max: self.topics_max,
            queues_max: self.queues_max,
            exchanges_max: self.exchanges_max,
            bindings_max: self.bindings_max,
            sessions_max: self.sessions_max,
            subscriptions_max: self.subscriptions_max,
            retained_values_max: self.retained_messages_max,
            retained_bytes_max: self.retained_bytes_max,
            committed_offsets_max: self.committed_offsets_max,
            publisher_sequences_max: self.publisher_sequences_max,
            undelivered_messages_max: self.undelivered_messages_max,
            address_levels_max: self.address_levels_max,
            address_bytes_max: self.address_bytes_max,
            policies_max: self.policies_max,
            transactional_ids_max: self.transactional_ids_max,
            transaction_parts_max: self.transaction_parts_max,
            delayed_messages_max: self.delayed_messages_max,
            exchange_history_bytes_max: self.exchange_history_bytes_max,
            exchange_seen_max: self.exchange_seen_max,
        }
    }
}

section! {
    /// Logins with passwords.
    #[derive(Debug, Clone)]
    pub(crate) struct Logins {
        /// Threads that verify passwords; each uses 12 MiB while it does.
        pub(crate) threads: usize = LoginSettings::default().threads => count(1..=64),
        /// Logins that wait for their password to be verified. A client beyond it is told that the broker is busy, and
        /// may try again.
        pub(crate) queued_max: usize = LoginSettings::default().queued_max => count(1..=MANY),
        /// Failed logins of one user from one address within a minute. Beyond it such logins are refused for the rest of
        /// the minute, without a look at the password, but for a password that was right before.
        pub(crate) failures_max: u32 = LoginSettings::default().failures.per_user_and_address_max
            => count(1..=MANY),
        /// Failed logins of one address, or of one user, within a minute. Beyond it logins of that address or user are
        /// verified after those of all others.
        pub(crate) failures_before_last_turn: u32 = LoginSettings::default().failures.before_last_turn
            => count(1..=MANY),
        /// Whether the first right login of a stored user adds an argon2id hash and SCRAM keys to the credentials that
        /// another broker made.
        pub(crate) add_credentials: bool = LoginSettings::default().add_credentials => flag(),
        /// Size of the largest token accepted.
        pub(crate) token_bytes_max: usize = TokenLimits::default().bytes_max => bytes(KIB..=64 * KIB),
        /// Scopes, and likewise tags and rules, of a token; one with more is refused.
        pub(crate) token_scopes_max: usize = TokenLimits::default().scopes_max => count(1..=10_000),
        /// For how long a delegation token can be renewed. Kafka's `delegation.token.max.lifetime.ms`.
        pub(crate) delegation_token_max_lifetime: Duration = Duration::from_millis(model().delegation.max_lifetime_ms as u64)
            => milliseconds(1..=10 * 365 * DAY_MS),
        /// For how long a delegation token is valid once it is made or renewed. Kafka's `delegation.token.expiry.time.ms`.
        pub(crate) delegation_token_expiry: Duration = Duration::from_millis(model().delegation.expiry_ms as u64)
            => milliseconds(1..=10 * 365 * DAY_MS),
    }
}

impl Logins {
    /// The limits of tokens.
    pub(crate) fn tokens(&self) -> TokenLimits {
        TokenLimits { bytes_max: self.token_bytes_max, scopes_max: self.token_scopes_max }
    }

    /// As the authenticator takes them.
    pub(crate) fn settings(&self) -> LoginSettings {
        LoginSettings {
            threads: self.threads,
            queued_max: self.queued_max,
            failures: FailureLimits {
                per_user_and_address_max: self.failures_max,
                before_last_turn: self.failures_before_last_turn,
            },
            add_credentials: self.add_credentials,
        }
    }
}

section! {
    /// Threads.
    #[derive(Debug, Clone)]
    pub(crate) struct Runtime {
        /// `per-core` pins each connection to one of a single-threaded runtime per core; `multi-thread` is one
        /// work-stealing runtime.
        pub(crate) kind: RuntimeKind = RuntimeKind::PerCore => value("`per-core` or `multi-thread`"),
        /// Threads that serve connections. 0: one per core.
        pub(crate) threads: usize = 0 => count(0..=1024),
    }
}

section! {
    /// Logging.
    #[derive(Debug, Clone)]
    pub(crate) struct Logging {
        /// Which log lines are written to standard error: a level, or `target=level` pairs.
        pub(crate) filter: LogFilter = LogFilter(Targets::new().with_default(tracing::Level::INFO))
            => value("`error`, `warn`, `info`, `debug`, `trace`, or `target=level` pairs"),
        /// `text`: a line of text with `name=value` fields. `json`: a JSON object per line.
        pub(crate) format: LogFormat = LogFormat::Text => value("`text` or `json`"),
        /// Log lines per minute about the clients of one address; further ones are counted and not written.
        pub(crate) address_lines_per_minute_max: u32 = model().client_log.address_lines_per_minute_max
            => count(1..=1_000_000),
        /// Log lines per minute about refused requests of one connection; further ones are counted and not written.
        pub(crate) connection_lines_per_minute_max: u32 = model().client_log.connection_lines_per_minute_max
            => count(1..=1_000_000),
    }
}

section! {
    /// Traces of messages, exported by the OpenTelemetry protocol (OTLP).
    #[derive(Debug, Clone)]
    pub(crate) struct Tracing {
        /// URL of a collector that takes OTLP over HTTP (`http://host:4318`); `/v1/traces` is added to one without a path.
        /// Empty: no traces.
        pub(crate) otlp_endpoint: String = String::new() => value("a URL, or empty"),
        /// Headers sent with each request to the collector, such as `authorization=Bearer …`.
        pub(crate) otlp_headers: String = String::new() => value("`name=value` pairs with commas between, or empty"),
        /// File with the certificates of the authorities that the collector's certificate is checked against, PEM. Empty:
        /// the system's.
        pub(crate) otlp_ca: Option<PathBuf> = None => value("a path, or empty"),
        /// Time for one request to the collector.
        pub(crate) otlp_timeout: Duration = Duration::from_secs(10) => milliseconds(100..=HOUR_MS),
        /// `service.name` of the spans.
        pub(crate) service_name: String = "inver".into() => value("a text"),
        /// Share of the messages without a `traceparent` that are sampled: the broker starts a trace for them. Of others the
        /// `traceparent` decides.
        pub(crate) sample_ratio: Ratio = Ratio(0.01) => value("0 to 1"),
        /// Spans that may wait to be exported; further ones are counted and dropped.
        pub(crate) queue_spans_max: usize = 8192 => count(64..=10_000_000),
        /// Spans in one request to the collector.
        pub(crate) batch_spans_max: usize = 512 => count(1..=100_000),
        /// Time that a span waits for others to be sent with.
        pub(crate) batch_interval: Duration = Duration::from_secs(1) => milliseconds(10..=HOUR_MS),
    }
}

section! {
    /// Memory.
    #[derive(Debug, Clone)]
    pub(crate) struct MemorySection {
        /// Memory that clients can make the broker hold, and that its caches fit into; see [memory](running.md#memory).
        /// 0: 60 % of what the process may use, which is the limit of its control group or what the machine has.
        pub(crate) limit: Option<u64> = None => bytes(0..=1024 * TIB),
    }
}

section! {
    /// The audit log.
    #[derive(Debug, Clone)]
    pub(crate) struct AuditSection {
        /// The events that are recorded, in the log under the target `inver::audit`: `login`, `denied` (a missing
        /// permission), `topology` (something durable was made or changed), `transient` (the same of what ends with its
        /// connection, and subscriptions of sessions), `access` (users, permissions, quotas), `deleted`.
        pub(crate) events: AuditEvents = AuditEvents::default()
            => value("a list of `login`, `denied`, `topology`, `transient`, `access`, `deleted`"),
        /// A log topic that the events are also written to, as JSON; created if missing, outside the hub.
        pub(crate) topic: String = String::new() => value("a topic's name, or empty"),
        /// The namespace of that topic.
        pub(crate) namespace: String = "/".into() => value("a namespace's name"),
        /// Events that may wait to be written to the topic; further ones are counted and dropped.
        pub(crate) queue_events_max: usize = model().audit.queue_events_max => count(1..=10_000_000),
    }
}

impl Logging {
    /// The limits of lines that clients cause.
    pub(crate) fn client_lines(&self) -> inver_broker::ClientLogLimits {
        inver_broker::ClientLogLimits {
            address_lines_per_minute_max: self.address_lines_per_minute_max,
            connection_lines_per_minute_max: self.connection_lines_per_minute_max,
        }
    }
}
