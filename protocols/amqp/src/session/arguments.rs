//! Arguments of declarations and consumers: which there are, what they may be, and whether two declarations mean the same.
//!
//! The texts are RabbitMQ's; arguments that it does not know either are ignored, as there.

use std::sync::Arc;

use inver_broker::{
    Arguments, DeadLetter, ExchangeSpec, Mode, Overflow, QueueLimits, QueueSpec, Start, Subscription,
    SubscriptionError, TopicKind, Value,
};
use inver_storage::Offset;

use super::shared::{Shared, log_ended};
use super::topology::{accessible_queue, in_vhost};
use crate::codec::Table;
use crate::codec::table::Value as Field;
use crate::error::Refusal;

/// Arguments of queues that are compared when one is declared again.
const QUEUE_ARGUMENTS: [&str; 14] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-delivery-limit",
];

/// The longest time to live or to expire that makes sense: RabbitMQ's, a little over 49 days, is not needed here.
const MS_MAX: i128 = i64::MAX as i128;

/// A name that nobody can guess.
pub(super) fn generated_name(prefix: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = uuid::Uuid::new_v4().as_u128();
    let mut name = prefix.to_owned();
    for _ in 0..22 {
        name.push(char::from(*ALPHABET.get((bits & 63) as usize).unwrap_or(&b'A')));
        bits >>= 6;
    }
    name
}

/// The type of a kept value in RabbitMQ's words. Integers of all widths are one type here; the client that declared it
/// most likely used the narrowest that clients use.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "void",
        Value::Bool(_) => "bool",
        Value::Int(n) if i32::try_from(*n).is_ok() => "signedint",
        Value::Int(_) => "long",
        Value::Float(_) => "double",
        Value::Decimal { .. } => "decimal",
        Value::Text(_) => "longstr",
        Value::Bytes(_) => "binary",
        Value::Timestamp(_) => "timestamp",
        Value::List(_) => "array",
        Value::Map(_) => "table",
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "undefined".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Decimal { scale, unscaled } => format!("{{{scale},{unscaled}}}"),
        Value::Text(bytes) | Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Timestamp(seconds) => seconds.to_string(),
        Value::List(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(",")),
        Value::Map(fields) => {
            format!(
                "[{}]",
                fields.iter().map(|(n, v)| format!("{n}={}", shown(v))).collect::<Vec<_>>().join(",")
            )
        }
    }
}

// ---- whether two declarations mean the same

fn inequivalent(name: &str, what: &str, received: &str, current: &str) -> Refusal {
    Refusal::precondition_failed(format_args!(
        "inequivalent arg '{name}' for {what}: received {received} but current is {current}"
    ))
}

fn same_field<T: PartialEq + std::fmt::Display + ?Sized>(
    name: &str,
    what: &str,
    current: &T,
    received: &T,
) -> Result<(), Refusal> {
    if current == received {
        return Ok(());
    }
    Err(inequivalent(name, what, &format!("'{received}'"), &format!("'{current}'")))
}

fn same_argument(
    name: &str,
    what: &str,
    current: Option<&Value>,
    received: Option<&Value>,
) -> Result<(), Refusal> {
    let lone = |value: Option<&Value>| {
        value.map_or("none".to_owned(), |v| format!("the value '{}' of type '{}'", shown(v), type_name(v)))
    };
    match (current, received) {
        (current, received) if current == received => Ok(()),
        (Some(kind), None) | (None, Some(kind))
            if name == "x-queue-type" && kind.as_str() == Some("classic") =>
        {
            Ok(())
        }
        (Some(current), Some(received)) => {
            Err(inequivalent(name, what, &format!("'{}'", shown(received)), &format!("'{}'", shown(current))))
        }
        (current, received) => Err(inequivalent(name, what, &lone(received), &lone(current))),
    }
}

/// Whether a queue that is there is the one that a declaration asks for.
pub(super) fn same_queue(current: &QueueSpec, received: &QueueSpec, what: &str) -> Result<(), Refusal> {
    same_field("durable", what, &current.durable, &received.durable)?;
    same_field("auto_delete", what, &current.auto_delete, &received.auto_delete)?;
    QUEUE_ARGUMENTS.iter().try_for_each(|name| {
        same_argument(name, what, current.arguments.get(*name), received.arguments.get(*name))
    })
}

/// Whether an exchange that is there is the one that a declaration asks for.
pub(super) fn same_exchange(
    current: &ExchangeSpec,
    received: &ExchangeSpec,
    what: &str,
) -> Result<(), Refusal> {
    same_field("type", what, current.kind.as_str(), received.kind.as_str())?;
    same_field("durable", what, &current.durable, &received.durable)?;
    same_field("auto_delete", what, &current.auto_delete, &received.auto_delete)?;
    same_field("internal", what, &current.internal, &received.internal)?;
    let name = "alternate-exchange";
    same_argument(name, what, current.arguments.get(name), received.arguments.get(name))
}

// ---- what arguments may be

fn invalid(name: &str, what: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal::precondition_failed(format_args!("invalid arg '{name}' for {what}: {why}"))
}

fn unacceptable(name: &str, what: &str, value: &Value) -> Refusal {
    invalid(name, what, format_args!("{{unacceptable_type,{}}}", type_name(value)))
}

/// The arguments of one declaration, looked at by name.
struct Reading<'a> {
    arguments: &'a Arguments,
    what: &'a str,
}

impl Reading<'_> {
    /// A whole number from `min` on.
    fn number(&self, name: &str, min: i128) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.arguments.get(name) else { return Ok(None) };
        match value.as_int() {
            None => Err(unacceptable(name, self.what, value)),
            Some(n) if n < 0 => Err(invalid(name, self.what, format_args!("{{value_negative,{n}}}"))),
            Some(n) if n < min => Err(invalid(name, self.what, format_args!("{{value_zero,{n}}}"))),
            Some(n) => Ok(u64::try_from(n.min(MS_MAX)).ok()),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let Some(value) = self.arguments.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| unacceptable(name, self.what, value))
    }

    fn flag(&self, name: &str) -> Result<bool, Refusal> {
        let Some(value) = self.arguments.get(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| unacceptable(name, self.what, value))
    }

    fn one_of<T: Copy>(&self, name: &str, choices: &[(&str, T)], why: &str) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match choices.iter().find(|(choice, _)| *choice == text) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => Err(invalid(name, self.what, why)),
        }
    }
}

/// What a declaration's arguments ask for. Priorities are taken and not kept; `quorum` is a durable queue like any other.
pub(super) fn queue_spec(name: &str, arguments: &Arguments, shared: &Shared) -> Result<QueueSpec, Refusal> {
    let what = in_vhost("queue", name, shared);
    let reading = Reading { arguments, what: &what };
    let kinds = [("classic", true), ("quorum", true), ("stream", false)];
    if reading.one_of("x-queue-type", &kinds, "unsupported_queue_type")? == Some(false) {
        return Err(invalid("x-queue-type", &what, "stream queues are not supported"));
    }
    let exchange = reading.text("x-dead-letter-exchange").map_err(|_| {
        let kind = arguments.get("x-dead-letter-exchange").map_or("void", type_name);
        Refusal::precondition_failed(format_args!(
            "invalid type '{kind}' for arg 'x-dead-letter-exchange' in {what}"
        ))
    })?;
    let routing_key = reading.text("x-dead-letter-routing-key")?;
    let dead_letter = match (exchange, routing_key) {
        (None, None) => None,
        (None, Some(_)) => {
            return Err(invalid("x-dead-letter-routing-key", &what, "routing_key_but_no_dlx_defined"));
        }
        (Some(exchange), key) => Some(DeadLetter {
            exchange: exchange.to_owned(),
            routing_key: key.map(|key| key.as_bytes().to_vec()),
        }),
    };
    let strategies = [("at-most-once", ()), ("at-least-once", ())];
    reading.one_of("x-dead-letter-strategy", &strategies, "invalid_dlx_strategy")?;
    let overflows = [
        ("drop-head", Overflow::DropHead),
        ("reject-publish", Overflow::RejectPublish),
        ("reject-publish-dlx", Overflow::RejectPublishDeadLetter),
    ];
    let limits = QueueLimits {
        message_ttl_ms: reading.number("x-message-ttl", 0)?,
        expires_after_ms: reading.number("x-expires", 1)?,
        messages_max: reading.number("x-max-length", 0)?,
        bytes_max: reading.number("x-max-length-bytes", 0)?,
        overflow: reading.one_of("x-overflow", &overflows, "invalid_overflow")?.unwrap_or_default(),
        dead_letter,
        deliveries_max: deliveries_max(&reading)?,
    };
    if reading.number("x-max-priority", 0)?.is_some_and(|priority| priority > 255) {
        let value = arguments.get("x-max-priority").map(shown).unwrap_or_default();
        return Err(invalid("x-max-priority", &what, format_args!("{{max_value_exceeded,{value}}}")));
    }
    let single_active = reading.flag("x-single-active-consumer")?;
    Ok(QueueSpec { single_active, limits, arguments: arguments.clone(), ..QueueSpec::default() })
}

/// How often a message may come back. Quorum queues have a bound unless they say otherwise (RabbitMQ 4).
fn deliveries_max(reading: &Reading<'_>) -> Result<Option<u32>, Refusal> {
    const QUORUM_DEFAULT: u32 = 20;
    if reading.arguments.get("x-delivery-limit").and_then(Value::as_int) == Some(-1) {
        return Ok(None);
    }
    let asked = reading.number("x-delivery-limit", 0)?;
    let quorum = reading.text("x-queue-type")? == Some("quorum");
    Ok(asked.map(|n| u32::try_from(n).unwrap_or(u32::MAX)).or(quorum.then_some(QUORUM_DEFAULT)))
}

/// What a `quorum` queue may not be: anything that does not survive. It is a durable queue as any other here.
pub(super) fn check_quorum(
    arguments: &Arguments,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    what: &str,
) -> Result<(), Refusal> {
    if arguments.get("x-queue-type").and_then(Value::as_str) != Some("quorum") {
        return Ok(());
    }
    let wrong = [(auto_delete, "auto-delete"), (exclusive, "exclusive-owner"), (!durable, "non-durable")];
    match wrong.iter().find(|(is_so, _)| *is_so) {
        Some((_, property)) => {
            Err(Refusal::precondition_failed(format_args!("invalid property '{property}' for {what}")))
        }
        None => Ok(()),
    }
}

/// Whether an exchange's `alternate-exchange` is a name.
pub(super) fn check_alternate(arguments: &Arguments, what: &str) -> Result<(), Refusal> {
    match arguments.get("alternate-exchange") {
        Some(value) if value.as_str().is_none() => Err(Refusal::precondition_failed(format_args!(
            "invalid type '{}' for arg 'alternate-exchange' in {what}",
            type_name(value)
        ))),
        _ => Ok(()),
    }
}

/// Whether a binding of a headers exchange says how to match.
pub(super) fn check_header_match(arguments: &Arguments) -> Result<(), Refusal> {
    match arguments.get("x-match") {
        None => Ok(()),
        Some(value) => match value.as_str() {
            Some("all" | "any" | "all-with-x" | "any-with-x") => Ok(()),
            Some(other) => Err(Refusal::precondition_failed(format_args!(
                "Invalid x-match field value <<\"{other}\">>; expected all, any, all-with-x, or any-with-x"
            ))),
            None => Err(Refusal::precondition_failed(format_args!(
                "Invalid x-match field type {} (value {}); expected longstr",
                type_name(value),
                shown(value)
            ))),
        },
    }
}

// ---- consumers

/// A consumer's priority.
pub(super) fn priority(arguments: Table<'_>) -> Result<i32, Refusal> {
    match arguments.get("x-priority") {
        None => Ok(0),
        Some(value) => match value.as_integer() {
            Some(n) => Ok(i32::try_from(n).unwrap_or(if n < 0 { i32::MIN } else { i32::MAX })),
            None => Err(Refusal::precondition_failed(format_args!(
                "invalid arg 'x-priority': {{unacceptable_type,{}}}",
                value.type_name()
            ))),
        },
    }
}

/// What a consumer of this name attaches to: a queue's own subscription, or one of a log topic.
pub(super) fn subscription(
    name: &str,
    exclusive: bool,
    arguments: Table<'_>,
    shared: &Shared,
) -> Result<Arc<Subscription>, Refusal> {
    let asked = text_argument(arguments, "x-subscription", name, shared)?;
    let topic = shared.namespace.topic(name).filter(|topic| topic.kind() == TopicKind::Log);
    let Some(topic) = topic else {
        let queue = accessible_queue(name, shared)?;
        return match asked {
            Some(asked) if asked != name => Err(Refusal::precondition_failed(format_args!(
                "invalid arg 'x-subscription' for {}: a queue has one subscription, of its own name",
                in_vhost("queue", name, shared)
            ))),
            _ => Ok(queue.subscription().clone()),
        };
    };
    let start = start(arguments)?;
    match asked {
        Some(asked) => {
            let default = if exclusive { Mode::Exclusive } else { Mode::Shared };
            let mode = match text_argument(arguments, "x-subscription-type", name, shared)? {
                None => default,
                Some(text) => text.parse().map_err(|()| {
                    Refusal::precondition_failed(format_args!(
                        "invalid arg 'x-subscription-type' for {}: expected exclusive, shared, failover or key_shared",
                        in_vhost("topic", name, shared)
                    ))
                })?,
            };
            shared.namespace.subscribe(&topic, asked, mode, true, start.unwrap_or(Start::Earliest)).map_err(
                |error| match error {
                    SubscriptionError::ModeClash(current) => inequivalent(
                        "x-subscription-type",
                        &format!("subscription '{asked}' of {}", in_vhost("topic", name, shared)),
                        &format!("'{}'", mode.as_str()),
                        &format!("'{}'", current.as_str()),
                    ),
                    error => log_ended(error),
                },
            )
        }
        // A position of the consumer's own, gone with it: what RabbitMQ's streams give.
        None => shared
            .namespace
            .subscribe(
                &topic,
                &generated_name("amqp-"),
                Mode::Exclusive,
                false,
                start.unwrap_or(Start::Latest),
            )
            .map_err(log_ended),
    }
}

fn text_argument<'a>(
    arguments: Table<'a>,
    name: &str,
    of: &str,
    shared: &Shared,
) -> Result<Option<&'a str>, Refusal> {
    match arguments.get(name) {
        None => Ok(None),
        Some(Field::Text(bytes)) if !bytes.is_empty() && std::str::from_utf8(bytes).is_ok() => {
            Ok(std::str::from_utf8(bytes).ok())
        }
        Some(other) => Err(Refusal::precondition_failed(format_args!(
            "invalid arg '{name}' for {}: {{unacceptable_type,{}}}",
            in_vhost("topic", of, shared),
            other.type_name()
        ))),
    }
}

/// `x-stream-offset`: where a new position begins.
fn start(arguments: Table<'_>) -> Result<Option<Start>, Refusal> {
    match arguments.get("x-stream-offset") {
        None => Ok(None),
        Some(Field::Text(b"first")) => Ok(Some(Start::Earliest)),
        Some(Field::Text(b"next")) => Ok(Some(Start::Latest)),
        Some(value) => match value.as_integer().and_then(|n| u64::try_from(n).ok()) {
            Some(offset) => Ok(Some(Start::At(Offset(offset)))),
            None => Err(Refusal::precondition_failed(
                "invalid arg 'x-stream-offset': expected first, next or an offset",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_inequivalence_are_rabbitmqs() {
        let text = |result: Result<(), Refusal>| result.unwrap_err().text;
        let what = "queue 'q' in vhost '/'";
        assert_eq!(
            text(same_field("durable", what, &false, &true)),
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is \
             'false'"
        );
        let (one, two) = (Value::Int(1000), Value::Int(2000));
        assert_eq!(
            text(same_argument("x-message-ttl", what, Some(&one), Some(&two))),
            "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received '2000' but \
             current is '1000'"
        );
        assert_eq!(
            text(same_argument("x-message-ttl", what, Some(&one), None)),
            "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received none but \
             current is the value '1000' of type 'signedint'"
        );
        let classic = Value::Text(b"classic".to_vec());
        assert!(same_argument("x-queue-type", what, None, Some(&classic)).is_ok());
        assert!(same_argument("x-queue-type", what, Some(&classic), None).is_ok());
    }

    #[test]
    fn generated_names_differ() {
        let name = generated_name("amq.gen-");
        assert_eq!(name.len(), 8 + 22);
        assert_ne!(name, generated_name("amq.gen-"));
    }

    #[test]
    fn arguments_of_the_wrong_kind() {
        let arguments = Arguments::from([
            ("x-message-ttl".to_owned(), Value::Int(-1)),
            ("x-expires".to_owned(), Value::Int(0)),
            ("x-max-length".to_owned(), Value::Text(b"1".to_vec())),
            ("x-single-active-consumer".to_owned(), Value::Int(1)),
        ]);
        let reading = Reading { arguments: &arguments, what: "queue 'q' in vhost '/'" };
        let start = "PRECONDITION_FAILED - invalid arg";
        assert_eq!(
            reading.number("x-message-ttl", 0).unwrap_err().text,
            format!("{start} 'x-message-ttl' for queue 'q' in vhost '/': {{value_negative,-1}}")
        );
        assert_eq!(
            reading.number("x-expires", 1).unwrap_err().text,
            format!("{start} 'x-expires' for queue 'q' in vhost '/': {{value_zero,0}}")
        );
        assert_eq!(
            reading.number("x-max-length", 0).unwrap_err().text,
            format!("{start} 'x-max-length' for queue 'q' in vhost '/': {{unacceptable_type,longstr}}")
        );
        assert!(reading.flag("x-single-active-consumer").is_err());
        assert_eq!(reading.number("x-absent", 0), Ok(None));
    }
}
