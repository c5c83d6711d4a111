//! The settings of policies: their names, which values they take, and how those of a policy and an operator policy are merged.
//! The error texts are those that operators of queues know.

use std::fmt::Write;

use super::TEXT_BYTES_MAX;
use crate::spec::{Overflow, PolicyKind, stream_age_ms};
use crate::value::{Arguments, Value};

pub(super) const ALTERNATE_EXCHANGE: &str = "alternate-exchange";
pub(super) const DEAD_LETTER_EXCHANGE: &str = "dead-letter-exchange";
pub(super) const DEAD_LETTER_ROUTING_KEY: &str = "dead-letter-routing-key";
pub(super) const DELIVERY_LIMIT: &str = "delivery-limit";
pub(super) const EXPIRES: &str = "expires";
pub(super) const MAX_AGE: &str = "max-age";
pub(super) const MAX_LENGTH: &str = "max-length";
pub(super) const MAX_LENGTH_BYTES: &str = "max-length-bytes";
pub(super) const MESSAGE_TTL: &str = "message-ttl";
pub(super) const OVERFLOW: &str = "overflow";

/// The values that a setting takes.
enum Takes {
    Text,
    /// One of these.
    OneOf(&'static [&'static str]),
    Overflow,
    /// A whole number in this range.
    Number(i128, i128),
    /// A number with one of the units `YMDhms`.
    Age,
    /// Anything: the meaning is another's.
    Anything,
}

/// How the values of a policy and an operator policy become one.
#[derive(Clone, Copy)]
pub(super) enum Merge {
    /// The smaller.
    Smallest,
    /// The smaller; a negative one is no limit.
    SmallestOrNone,
    /// That of the operator policy.
    Operator,
    /// An operator policy does not have it.
    Never,
}

impl Merge {
    pub(super) fn of(self, a: i128, b: i128) -> i128 {
        match self {
            Merge::SmallestOrNone if a < 0 || b < 0 => a.max(b),
            _ => a.min(b),
        }
    }
}

struct Key {
    name: &'static str,
    has_effect: bool,
    takes: Takes,
    merge: Merge,
    /// What a value is, in errors.
    noun: &'static str,
}

const ANY: i128 = i64::MAX as i128;
/// Bytes of the largest segment of a stream.
const SEGMENT_MAX: i128 = 3_000_000_000;
const LOCATORS: &[&str] = &["client-local", "balanced", "random", "least-leaders"];
const MASTER_LOCATORS: &[&str] = &["min-masters", "client-local", "random"];

const fn key(name: &'static str, has_effect: bool, takes: Takes, merge: Merge, noun: &'static str) -> Key {
    Key { name, has_effect, takes, merge, noun }
}

#[rustfmt::skip]
static KEYS: [Key; 29] = [
    key(ALTERNATE_EXCHANGE, true, Takes::Text, Merge::Never, "alternate exchange name"),
    key("consumer-disconnected-timeout", false, Takes::Number(0, ANY), Merge::Never, "consumer disconnected timeout"),
    key("consumer-timeout", false, Takes::Number(0, ANY), Merge::Never, "consumer timeout"),
    key(DEAD_LETTER_EXCHANGE, true, Takes::Text, Merge::Never, "dead letter exchange name"),
    key(DEAD_LETTER_ROUTING_KEY, true, Takes::Text, Merge::Never, "dead letter routing key"),
    key("dead-letter-strategy", false, Takes::OneOf(&["at-most-once", "at-least-once"]), Merge::Never, "dead letter strategy"),
    key("delayed-retry-max", false, Takes::Number(0, ANY), Merge::Never, "delayed retry maximum"),
    key("delayed-retry-min", false, Takes::Number(0, ANY), Merge::Never, "delayed retry minimum"),
    key("delayed-retry-type", false, Takes::Text, Merge::Never, "delayed retry type"),
    key(DELIVERY_LIMIT, true, Takes::Number(-ANY, ANY), Merge::SmallestOrNone, "delivery limit"),
    key(EXPIRES, true, Takes::Number(1, ANY), Merge::Smallest, "queue expiry"),
    key("federation-upstream", false, Takes::Anything, Merge::Never, "upstream"),
    key("federation-upstream-pattern", false, Takes::Anything, Merge::Never, "upstream pattern"),
    key("federation-upstream-set", false, Takes::Anything, Merge::Never, "upstream set"),
    key("initial-cluster-size", false, Takes::Number(0, ANY), Merge::Never, "cluster size"),
    key(MAX_AGE, true, Takes::Age, Merge::Never, "max age"),
    key("max-in-memory-bytes", false, Takes::Number(0, ANY), Merge::Smallest, "maximum memory in bytes"),
    key("max-in-memory-length", false, Takes::Number(0, ANY), Merge::Smallest, "maximum memory in bytes"),
    key(MAX_LENGTH, true, Takes::Number(0, ANY), Merge::Smallest, "maximum length"),
    key(MAX_LENGTH_BYTES, true, Takes::Number(0, ANY), Merge::Smallest, "maximum length in bytes"),
    key(MESSAGE_TTL, true, Takes::Number(0, ANY), Merge::Smallest, "message TTL"),
    key(OVERFLOW, true, Takes::Overflow, Merge::Operator, "overflow value"),
    key("queue-leader-locator", false, Takes::OneOf(LOCATORS), Merge::Never, "queue leader locator value"),
    key("queue-master-locator", false, Takes::OneOf(MASTER_LOCATORS), Merge::Never, "master locator"),
    key("queue-mode", false, Takes::OneOf(&["default", "lazy"]), Merge::Never, "queue-mode value"),
    key("queue-version", false, Takes::Number(1, 2), Merge::Operator, "queue-version value"),
    key("stream-filter-size-bytes", false, Takes::Number(16, 255), Merge::Never, "filter size. Valid range is 16-255"),
    key("stream-max-segment-size-bytes", false, Takes::Number(0, SEGMENT_MAX), Merge::Never, "segment size"),
    key("target-group-size", false, Takes::Number(0, ANY), Merge::Smallest, "qq target count value"),
];

fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether a setting changes anything.
pub(super) fn has_effect(name: &str) -> bool {
    find(name).is_some_and(|key| key.has_effect)
}

/// Merges the values of a policy and an operator policy.
pub(super) fn merge(name: &str, policy: &Value, operator: Value) -> Value {
    let how = find(name).map_or(Merge::Operator, |key| key.merge);
    match (how, policy.as_int(), operator.as_int()) {
        (Merge::Smallest | Merge::SmallestOrNone, Some(a), Some(b)) => Value::Int(how.of(a, b)),
        _ => operator,
    }
}

/// Checks a definition; the error is for people.
pub(super) fn check(kind: PolicyKind, definition: &Arguments) -> Result<(), String> {
    if definition.is_empty() {
        return Err("no policy provided".to_owned());
    }
    let known = |name: &str| {
        find(name).filter(|key| kind == PolicyKind::Ordinary || !matches!(key.merge, Merge::Never))
    };
    let unknown = definition.iter().filter(|(name, _)| known(name).is_none());
    let unknown: Vec<String> = unknown.map(|(name, value)| pair(name, value)).collect();
    if !unknown.is_empty() {
        return Err(format!("[{}] are not recognised policy settings", unknown.join(",")));
    }
    for (key, value) in definition.iter().filter_map(|(name, value)| Some((find(name)?, value))) {
        if !key.takes.accepts(value) {
            return Err(format!("{} is not a valid {}", shown(value), key.noun));
        }
    }
    Ok(())
}

impl Takes {
    fn accepts(&self, value: &Value) -> bool {
        let text = value.as_str().filter(|text| text.len() <= TEXT_BYTES_MAX);
        match self {
            Takes::Text => text.is_some_and(|text| text.len() <= 255),
            Takes::OneOf(texts) => text.is_some_and(|text| texts.contains(&text)),
            Takes::Overflow => text.is_some_and(|text| text.parse::<Overflow>().is_ok()),
            Takes::Number(min, max) => value.as_int().is_some_and(|number| (*min..=*max).contains(&number)),
            Takes::Age => text.is_some_and(|text| stream_age_ms(text).is_some()),
            Takes::Anything => text.is_some() || value.as_int().is_some(),
        }
    }
}

fn pair(name: &str, value: &Value) -> String {
    format!("{{<<\"{name}\">>,{}}}", shown(value))
}

/// A value as errors show it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) | Value::Bytes(text) => format!("<<\"{}\">>", String::from_utf8_lossy(text)),
        Value::List(list) => {
            format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(","))
        }
        Value::Map(map) => {
            let mut text = "#{".to_owned();
            for (at, (name, value)) in map.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                // Writing to a text does not fail.
                let _ = write!(text, "{comma}<<\"{name}\">> => {}", shown(value));
            }
            text + "}"
        }
        Value::Decimal { .. } | Value::Timestamp(_) => "a number".to_owned(),
    }
}
