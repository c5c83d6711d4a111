//! Values with a spelling of their own: addresses, policies, capture rules.

use std::net::{SocketAddr, ToSocketAddrs};

use inver_broker::{AuditKind, AuditKinds, HubMode, OnDamage};
use inver_settings::{Form, Setting};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::protocols::PROTOCOLS;

/// An address to listen on; none for `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

impl Listen {
    /// A port on the loopback interface.
    pub(crate) fn loopback(port: u16) -> Listen {
        Listen(Some(SocketAddr::from(([127, 0, 0, 1], port))))
    }

    /// No listener.
    pub(crate) const OFF: Listen = Listen(None);
}

impl Setting for Listen {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "`address:port` (such as 127.0.0.1:9092 or [::1]:9092) or `off`";
        let text = String::deserialize(value)?;
        let text = text.trim();
        if text.eq_ignore_ascii_case("off") {
            return Ok(Listen::OFF);
        }
        resolve(text)
            .map(|address| Listen(Some(address)))
            .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(text), &EXPECTED))
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "off".into(), |address| address.to_string())
    }
}

/// The address of `address:port`. A host name is resolved once, now; an empty one stands for all interfaces.
pub(super) fn resolve(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let host = if host.is_empty() || host == "*" { "0.0.0.0" } else { host };
    (host, port).to_socket_addrs().ok()?.next()
}

/// When an acknowledged write is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Commit {
    /// Synced before it is acknowledged.
    Always,
    /// Synced every `log.commit_interval_ms`.
    Interval,
    /// Left to the operating system.
    Os,
}

impl Setting for Commit {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        Commit::deserialize(value)
    }

    fn show(&self) -> String {
        match self {
            Commit::Always => "always".into(),
            Commit::Interval => "interval".into(),
            Commit::Os => "os".into(),
        }
    }
}

/// How connections are spread over threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RuntimeKind {
    /// One single-threaded runtime per core, each connection pinned to one.
    PerCore,
    /// One work-stealing runtime; kept for comparison.
    MultiThread,
}

impl Setting for RuntimeKind {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        RuntimeKind::deserialize(value)
    }

    fn show(&self) -> String {
        match self {
            RuntimeKind::PerCore => "per-core".into(),
            RuntimeKind::MultiThread => "multi-thread".into(),
        }
    }
}

/// How log topics take part in the hub where their own setting does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HubDefault(pub(crate) HubMode);

impl Setting for HubDefault {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "`named`, `open` or `off`";
        let text = String::deserialize(value)?;
        let mode = text.trim().parse().map(HubDefault);
        mode.map_err(|()| D::Error::invalid_value(Unexpected::Str(&text), &EXPECTED))
    }

    fn show(&self) -> String {
        self.0.as_str().into()
    }
}

/// What consumers meet where the log is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DamagePolicy(pub(crate) OnDamage);

impl Setting for DamagePolicy {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        match text.trim() {
            "step_over" => Ok(DamagePolicy(OnDamage::StepOver)),
            "stop" => Ok(DamagePolicy(OnDamage::Stop)),
            _ => Err(D::Error::invalid_value(Unexpected::Str(&text), &"`step_over` or `stop`")),
        }
    }

    fn show(&self) -> String {
        match self.0 {
            OnDamage::StepOver => "step_over".into(),
            OnDamage::Stop => "stop".into(),
        }
    }
}

/// Which log lines are written.
#[derive(Debug, Clone)]
pub(crate) struct LogFilter(pub(crate) Targets);

impl LogFilter {
    /// Reads a filter: a level, `target=level` pairs, or both. One by which the broker's errors would not be written is
    /// refused.
    pub(crate) fn parse(text: &str) -> Result<LogFilter, String> {
        const LEVELS: &str = "error, warn, info, debug, trace";
        for part in text.split(',') {
            let (target, level) = part.split_once('=').unwrap_or(("", part));
            if level.trim().parse::<LevelFilter>().is_err() {
                return Err(format!("`{}` is no level: {LEVELS}, or `target=level` pairs", level.trim()));
            }
            if part.contains('=') && target.trim().is_empty() {
                return Err(format!("`{part}` has no target"));
            }
        }
        let targets: Targets = text.parse().map_err(|error| format!("{error}"))?;
        if !targets.would_enable("inver", &tracing::Level::ERROR) {
            return Err("it silences the errors of the broker: add a level, such as `error`".into());
        }
        Ok(LogFilter(targets))
    }
}

impl Setting for LogFilter {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        LogFilter::parse(&String::deserialize(value)?).map_err(D::Error::custom)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// Which events are recorded in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AuditEvents(pub(crate) AuditKinds);

impl Setting for AuditEvents {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(value)?;
        let kind = |name: &String| {
            let found = AuditKind::ALL.into_iter().find(|kind| kind.name() == name);
            found.ok_or_else(|| Error::custom(format!("there is no audit event `{name}`")))
        };
        names.iter().map(kind).collect::<Result<AuditKinds, D::Error>>().map(AuditEvents)
    }

    fn show(&self) -> String {
        let names = AuditKind::ALL.into_iter().filter(|kind| self.0.contains(*kind)).map(AuditKind::name);
        format!("{:?}", names.collect::<Vec<_>>())
    }
}

/// A share, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio(pub(crate) f64);

impl Setting for Ratio {
    const FORM: Form = Form::Bare;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = f64;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number from 0 to 1")
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
                Ok(number)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
                Ok(number as f64)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
                text.trim().parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        let number = value.deserialize_any(Number)?;
        match (0.0..=1.0).contains(&number) {
            true => Ok(Ratio(number)),
            false => Err(D::Error::invalid_value(Unexpected::Float(number), &Number)),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// Text with fields.
    Text,
    /// A JSON object per line.
    Json,
}

impl Setting for LogFormat {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        LogFormat::deserialize(value)
    }

    fn show(&self) -> String {
        match self {
            LogFormat::Text => "text".into(),
            LogFormat::Json => "json".into(),
        }
    }
}

/// A rule that appends hub publishes to a log topic.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaptureRule {
    /// Only publishes over this protocol; publishes over every protocol if none.
    #[serde(default)]
    pub(crate) protocol: Option<String>,
    /// Topic filter with `+` and `#`.
    pub(crate) filter: String,
    /// Template of the log topic's name.
    pub(crate) topic: String,
    /// Template of the record's key.
    #[serde(default = "address")]
    pub(crate) key: String,
    /// A message that clears a retained message becomes a tombstone.
    #[serde(default)]
    pub(crate) tombstones: bool,
    /// What happens to a message whose topic cannot be created.
    #[serde(default)]
    pub(crate) on_failure: OnFailure,
}

/// What happens to a message that a capture rule cannot append.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnFailure {
    /// It is refused.
    #[default]
    Refuse,
    /// The next rule applies.
    Next,
}

/// The key of a capture rule without one.
fn address() -> String {
    "{address}".into()
}

/// Capture rules, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CaptureRules(pub(crate) Vec<CaptureRule>);

impl Default for CaptureRules {
    /// Everything published over MQTT goes to the log topic `mqtt`, keyed by its topic.
    fn default() -> CaptureRules {
        let rule = CaptureRule {
            protocol: Some("mqtt".into()),
            filter: "#".into(),
            topic: "mqtt".into(),
            key: address(),
            tombstones: false,
            on_failure: OnFailure::Refuse,
        };
        CaptureRules(vec![rule])
    }
}

impl Setting for CaptureRules {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let mut rules: Vec<CaptureRule> = Vec::deserialize(value)?;
        for rule in &mut rules {
            rule.protocol = rule.protocol.take().filter(|name| !name.is_empty());
            if let Some(name) = &rule.protocol
                && !PROTOCOLS.iter().any(|entry| entry.name == name)
            {
                return Err(D::Error::custom(format_args!("unknown protocol `{name}`")));
            }
            if rule.key.is_empty() {
                rule.key = address();
            }
            inver_broker::check_capture(&rule.filter, &rule.topic, &rule.key).map_err(D::Error::custom)?;
        }
        Ok(CaptureRules(rules))
    }

    fn show(&self) -> String {
        let rules = self.0.iter().map(|rule| {
            let protocol = rule.protocol.as_deref().map(|name| ("protocol", name));
            let others = [("filter", rule.filter.as_str()), ("topic", &rule.topic), ("key", &rule.key)];
            let tombstones = rule.tombstones.then_some(("tombstones", true.into()));
            let on_failure = (rule.on_failure == OnFailure::Next).then_some(("on_failure", "next".into()));
            let texts = protocol.into_iter().chain(others).map(|(name, text)| (name, text.into()));
            inline_table(
                texts.chain(tombstones).chain(on_failure).collect::<Vec<(_, toml_edit::Value)>>().into_iter(),
            )
        });
        format!("[{}]", rules.collect::<Vec<_>>().join(", "))
    }
}

/// A TOML inline table.
pub(super) fn inline_table<'a>(
    pairs: impl Iterator<Item = (&'a str, impl Into<toml_edit::Value>)>,
) -> String {
    let table: toml_edit::InlineTable = pairs.collect();
    if table.is_empty() { "{}".into() } else { table.to_string() }
}
