//! The one table of configuration keys: name, default, meaning, reader.
//!
//! A key's variable is its name in capitals with `.` as `_`, after `INVER_`. The table also makes the page
//! that `inver config keys` prints.

use std::borrow::Cow;
use std::sync::LazyLock;

use toml_edit::DocumentMut;

use super::value::{self, Value};
use super::{Config, ENVIRONMENT_PREFIX, Endpoint};
use crate::protocols::{PLUGS, Plug};

/// What a key is and does.
pub(crate) struct Key {
    /// Dotted name, as in the file.
    pub(crate) name: Cow<'static, str>,
    /// Its default, written as in a variable.
    pub(crate) default: Cow<'static, str>,
    /// One sentence.
    pub(crate) help: Cow<'static, str>,
    /// Whether its value is a table or a list, written as TOML in a variable.
    structured: bool,
    target: Target,
}

/// Where a key's value goes.
enum Target {
    /// A field of the configuration.
    Field(fn(&mut Config, &Value) -> Result<(), String>),
    /// A field of a plug's endpoint.
    Endpoint(usize, fn(&mut Endpoint, &Value) -> Result<(), String>),
    /// A plug's own setting: checked now, read when the plug is made.
    Setting(fn(&Value) -> Result<(), String>),
}

impl Key {
    /// The environment variable that sets it.
    pub(crate) fn variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.name.to_uppercase().replace('.', "_"))
    }

    /// Whether its value is a table or a list.
    pub(crate) fn is_structured(&self) -> bool {
        self.structured
    }

    /// A value from a variable's text.
    pub(crate) fn read(&self, text: &str) -> Result<Value, String> {
        if !self.structured {
            return Ok(Value::Scalar(text.to_string()));
        }
        let document: DocumentMut =
            format!("value = {text}").parse().map_err(|_| format!("`{text}` is not a TOML value"))?;
        match document.get("value") {
            Some(item) => Value::from_item(item),
            None => Err(format!("`{text}` is not a TOML value")),
        }
    }

    /// Puts the value into the configuration, or says what is wrong with it.
    pub(crate) fn set(&self, config: &mut Config, value: &Value) -> Result<(), String> {
        match &self.target {
            Target::Field(set) => set(config, value),
            Target::Endpoint(plug, set) => match config.endpoints.get_mut(*plug) {
                Some(endpoint) => set(endpoint, value),
                None => Err("there is no such plug".into()),
            },
            Target::Setting(check) => {
                check(value)?;
                config.settings.insert(self.name.to_string(), value.clone());
                Ok(())
            }
        }
    }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const HOUR_MS: u64 = 3_600_000;

macro_rules! key {
    ($name:literal, $default:literal, $help:literal, |$config:ident, $value:ident| $set:expr) => {
        Key {
            name: Cow::Borrowed($name),
            default: Cow::Borrowed($default),
            help: Cow::Borrowed($help),
            structured: false,
            target: Target::Field(|$config, $value| {
                $set;
                Ok(())
            }),
        }
    };
    (table $name:literal, $default:literal, $help:literal, |$config:ident, $value:ident| $set:expr) => {
        Key { structured: true, ..key!($name, $default, $help, |$config, $value| $set) }
    };
}

/// Every key there is, in the order of the documentation.
pub(crate) static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = first_keys();
    for (at, plug) in PLUGS.iter().enumerate() {
        plug_keys(at, plug, &mut keys);
    }
    keys.extend(last_keys());
    keys
});

/// What every plug has, and its own settings.
fn plug_keys(at: usize, plug: &Plug, keys: &mut Vec<Key>) {
    type Set = fn(&mut Endpoint, &Value) -> Result<(), String>;
    let mut add = |name: &str, default: String, help: String, set: Set| {
        let name = Cow::Owned(format!("{}.{name}", plug.name));
        let target = Target::Endpoint(at, set);
        keys.push(Key { name, default: default.into(), help: help.into(), structured: false, target });
    };
    let title = plug.title;
    add(
        "listen",
        format!("127.0.0.1:{}", plug.port),
        format!("{title} over TCP: `address:port`, or `off`."),
        |endpoint, value| value::listen(value).map(|listen| endpoint.listen = listen),
    );
    if let Some(websocket) = &plug.websocket {
        add(
            "websocket_listen",
            format!("127.0.0.1:{}", websocket.port),
            format!("{title} over WebSocket: `address:port`, or `off`."),
            |endpoint, value| value::listen(value).map(|listen| endpoint.websocket_listen = listen),
        );
    }
    add(
        "tls_listen",
        format!("127.0.0.1:{}", plug.tls_port),
        format!("{title} over TLS; there is no such listener without a certificate and key."),
        |endpoint, value| value::listen(value).map(|listen| endpoint.tls_listen = listen),
    );
    if plug.websocket.is_some() {
        add(
            "websocket_tls_listen",
            "off".into(),
            format!("{title} over WebSocket over TLS; needs the certificate and key."),
            |endpoint, value| value::listen(value).map(|listen| endpoint.websocket_tls_listen = listen),
        );
    }
    add("tls_cert", String::new(), "Certificate chain file, PEM.".into(), |endpoint, value| {
        value::path(value).map(|path| endpoint.tls_cert = path)
    });
    add("tls_key", String::new(), "Private key file, PEM.".into(), |endpoint, value| {
        value::path(value).map(|path| endpoint.tls_key = path)
    });
    for setting in plug.settings {
        keys.push(Key {
            name: Cow::Owned(format!("{}.{}", plug.name, setting.name)),
            default: Cow::Borrowed(setting.default),
            help: Cow::Borrowed(setting.help),
            structured: setting.list,
            target: Target::Setting(setting.check),
        });
    }
}

#[rustfmt::skip]
fn first_keys() -> Vec<Key> { vec![
    key!("data_dir", "inver-data", "Folder of the log; made if it is not there.",
        |c, v| c.data_dir = value::path(v)?.ok_or("a folder is wanted")?),

    key!(table "users", "{}", "Names and argon2 hashes of passwords; `inver user add` writes them. Without users only this machine is let in.",
        |c, v| c.users = value::users(v)?),

    key!("log.commit", "always", "When an acknowledged write is on the disk: `always` (before it is acknowledged), `interval`, or `os`.",
        |c, v| c.log_commit = value::commit(v)?),
    key!("log.commit_interval_ms", "200", "Milliseconds between syncs under `log.commit = \"interval\"`.",
        |c, v| c.log_commit_interval = value::milliseconds(v, 1, HOUR_MS)?),
    key!("log.segment_bytes_max", "128 MiB", "Size at which a file of the log is closed and the next begun.",
        |c, v| c.log_segment_bytes_max = value::bytes(v, MIB, 2 * GIB)?),
    key!("log.tail_cache_bytes_max", "64 MiB", "Memory for recent entries, from which consumers that keep up are served.",
        |c, v| c.log_tail_cache_bytes_max = value::bytes(v, MIB, 1024 * GIB)?),
    key!("log.direct_bytes_max", "256 KiB", "With `log.commit = \"always\"`: what is synced together and is no larger goes to the disk past the system's cache, where the file system allows that. `0`: never.",
        |c, v| c.log_direct_bytes_max = value::bytes(v, 0, 64 * MIB)?),
    key!("log.checkpoint_bytes", "256 MiB", "A start reads no more of the log than this, or a little more.",
        |c, v| c.log.checkpoint_bytes = value::bytes(v, MIB, 1024 * GIB)?),
    key!("log.checkpoint_interval_ms", "30000", "Milliseconds between checkpoints, while anything is written.",
        |c, v| c.log.checkpoint_interval = value::milliseconds(v, 100, HOUR_MS)?),
    key!("log.index_cache_bytes_max", "16 MiB", "Memory for where messages lie in closed files of the log.",
        |c, v| c.log.index_cache_bytes_max = value::bytes(v, 0, 1024 * GIB)? as usize),
    key!("log.read_buffers_bytes_max", "8 MiB", "Memory for reading the log's files that is kept while nothing is read.",
        |c, v| c.log.read_buffers_bytes_max = value::bytes(v, 0, 1024 * GIB)? as usize),
    key!("log.producers_per_partition_max", "4096", "Idempotent producers remembered a partition; beyond it the longest idle one is forgotten.",
        |c, v| c.log.producers_per_stream_max = value::count(v, 1, 10_000_000)?),
    key!("log.compaction_keys_max", "1000000", "Keys held in memory while a partition is compacted, 48 bytes each; the rest waits for the next time.",
        |c, v| c.log.compaction_keys_max = value::count(v, 1, 1_000_000_000)?),
    key!("log.clean_live_percent_max", "30", "A closed file of the log is rewritten when less than this share of it (percent) is still wanted. `0`: never.",
        |c, v| c.log.clean_live_percent_max = value::count(v, 0, 100)? as u32),
    key!("log.clean_places_min", "64", "A closed file is also sorted when what belongs together lies in at least so many places of it, on average. `0`: never.",
        |c, v| c.log.clean_places_min = value::count(v, 0, 1_000_000_000)? as u32),
] }

#[rustfmt::skip]
fn last_keys() -> Vec<Key> { vec![
    key!("http.listen", "127.0.0.1:15672", "Health and metrics over HTTP: `address:port`, or `off`.",
        |c, v| c.http_listen = value::listen(v)?),

    key!(table "capture.rules", "[{ protocol = \"mqtt\", filter = \"#\", topic = \"mqtt\", key = \"{address}\" }]",
        "Which publishes are appended to which Kafka topic, under which key; the first matching filter wins. `{address}` is the MQTT topic, `{1}` what the first wildcard stood for. `[]` turns capture off.",
        |c, v| c.capture_rules = value::capture_rules(v)?),

    key!("limits.connections_max", "100000", "Connections at once, of all protocols together.",
        |c, v| c.connections_max = value::count(v, 1, 10_000_000)?),
    key!("limits.connections_per_address_max", "100000", "Connections at once from one address.",
        |c, v| c.connections_per_address_max = value::count(v, 1, 10_000_000)?),
    key!("limits.message_bytes_max", "16 MiB", "Size of the largest message that is taken.",
        |c, v| c.message_bytes_max = value::bytes(v, 1024, GIB)? as usize),
    key!("limits.topics_max", "2000000", "Log topics and durable queues of a namespace.",
        |c, v| c.limits.topics_max = many(v)?),
    key!("limits.queues_max", "2000000", "Queues of a namespace, those of shared subscriptions among them.",
        |c, v| c.limits.queues_max = many(v)?),
    key!("limits.exchanges_max", "100000", "Exchanges of a namespace.",
        |c, v| c.limits.exchanges_max = many(v)?),
    key!("limits.bindings_max", "10000000", "Bindings that lead away from one exchange; MQTT subscriptions are bindings of `amq.topic`.",
        |c, v| c.limits.bindings_max = many(v)?),
    key!("limits.sessions_max", "2000000", "MQTT sessions, connected or not.",
        |c, v| c.limits.sessions_max = many(v)?),
    key!("limits.subscriptions_max", "2000000", "Named subscriptions of log topics.",
        |c, v| c.limits.subscriptions_max = many(v)?),
    key!("limits.retained_messages_max", "2000000", "Retained messages.",
        |c, v| c.limits.retained_values_max = many(v)?),
    key!("limits.committed_offsets_max", "10000000", "Committed offsets of consumer groups, one a partition.",
        |c, v| c.limits.committed_offsets_max = many(v)?),
    key!("limits.retained_bytes_max", "1 GiB", "Retained messages together.",
        |c, v| c.limits.retained_bytes_max = value::bytes(v, 1024, 1024 * GIB)?),
    key!("limits.inbox_messages_max", "1000000", "Messages that wait for a session; beyond, the oldest go.",
        |c, v| c.inbox_messages_max = many(v)? as u64),
    key!("limits.queue_memory_bytes_max", "64 MiB", "What a transient queue holds in memory; beyond, it goes on in the log.",
        |c, v| c.queue_memory_bytes_max = value::bytes(v, 1024, 1024 * GIB)?),
    key!("limits.subscription_idle_s", "0", "Durable named subscriptions go when nobody consumed them for so many seconds; 0: never.",
        |c, v| c.subscription_idle_s = value::count(v, 0, 1_000_000_000)? as u64),
    key!("limits.handshake_timeout_ms", "10000", "Time a client has for the TLS and WebSocket handshakes.",
        |c, v| c.handshake_timeout = value::milliseconds(v, 10, HOUR_MS)?),
    key!("limits.shutdown_grace_ms", "10000", "Time that connections have to end when the broker is stopped.",
        |c, v| c.shutdown_grace = value::milliseconds(v, 0, HOUR_MS)?),

    key!("runtime.kind", "per-core", "`per-core` pins each connection to one of a runtime a core; `multi-thread` is one work-stealing runtime.",
        |c, v| c.runtime_kind = value::runtime_kind(v)?),
    key!("runtime.threads", "0", "Threads that serve connections; 0 is one a core.",
        |c, v| c.runtime_threads = value::count(v, 0, 1024)?),

    key!("logging.filter", "info", "What is logged: a level, or `target=level` pairs.",
        |c, v| c.log_filter = value::log_filter(v)?),
] }

/// How many of a thing clients may make.
fn many(value: &Value) -> Result<usize, String> {
    value::count(value, 1, 1_000_000_000)
}

/// The key of that dotted name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that a variable sets.
pub(crate) fn find_variable(variable: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.variable() == variable)
}

/// Whether keys lie below `name`.
pub(crate) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The key that `name` was most likely meant to be.
pub(crate) fn nearest(name: &str) -> &'static str {
    // A right last part in a wrong section is a likelier mistake than several wrong letters.
    let distance = |key: &&Key| {
        let whole = strsim::damerau_levenshtein(name, &key.name);
        let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_string();
        whole.min(strsim::damerau_levenshtein(&last(name), &last(&key.name)) + 2)
    };
    KEYS.iter().min_by_key(distance).map_or("data_dir", |key| &key.name)
}

/// The variable that `variable` was most likely meant to be.
pub(crate) fn nearest_variable(variable: &str) -> String {
    let distance = |key: &&Key| strsim::damerau_levenshtein(variable, &key.variable());
    KEYS.iter().min_by_key(distance).map(Key::variable).unwrap_or_default()
}
