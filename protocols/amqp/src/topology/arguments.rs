//! Arguments of declarations and bindings: their names, types and bounds. The error texts are RabbitMQ's.

use inver_broker::{
    Arguments, DeadLetter, HASH_HEADER, HASH_PROPERTY, HISTORY_LENGTH, Overflow, QueueLimits, QueueSpec,
    SEEN_MAX, SEEN_PERSISTENCE, SEEN_TTL, STREAM_FILTER_BYTES, STREAM_SEGMENT_BYTES_MAX, Value,
    stream_age_ms,
};

use super::Client;
use super::equivalence::{shown, type_name};
use super::kinds::{QUEUE_TYPE, QueueKind};
use crate::error::Refusal;

/// The longest TTL or expiry in milliseconds: ten years, as in RabbitMQ.
const MS_MAX: i128 = 315_360_000_000;

fn invalid(name: &str, what: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal::precondition_failed(format_args!("invalid arg '{name}' for {what}: {why}"))
}

fn unacceptable(name: &str, what: &str, value: &Value) -> Refusal {
    invalid(name, what, format_args!("{{unacceptable_type,{}}}", type_name(value)))
}

fn no_integer(name: &str, what: &str, value: &Value) -> Refusal {
    invalid(name, what, format_args!("\"expected integer, got {}\"", type_name(value)))
}

/// The arguments of one declaration.
struct Reading<'a> {
    arguments: &'a Arguments,
    what: &'a str,
}

impl Reading<'_> {
    /// An integer of at least `min`.
    fn number(&self, name: &str, min: i128) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.arguments.get(name) else { return Ok(None) };
        match value.as_int() {
            None => Err(no_integer(name, self.what, value)),
            Some(n) if n < 0 => Err(invalid(name, self.what, format_args!("{{value_negative,{n}}}"))),
            Some(n) if n < min => Err(invalid(name, self.what, format_args!("{{value_zero,{n}}}"))),
            Some(n) => Ok(u64::try_from(n.min(i64::MAX.into())).ok()),
        }
    }

    /// A time in milliseconds.
    fn time(&self, name: &str, min: i128) -> Result<Option<u64>, Refusal> {
        match self.arguments.get(name).and_then(Value::as_int) {
            Some(n) if n > MS_MAX => Err(invalid(name, self.what, format_args!("{{value_too_large,{n}}}"))),
            _ => self.number(name, min),
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

    /// Checks arguments that are about nodes and files of RabbitMQ, and mean nothing here.
    fn check_without_effect(&self) -> Result<(), Refusal> {
        for (name, min) in [
            ("x-max-in-memory-length", 0),
            ("x-max-in-memory-bytes", 0),
            ("x-quorum-initial-group-size", 1),
            ("x-quorum-target-group-size", 0),
            ("x-initial-cluster-size", 1),
        ] {
            self.number(name, min)?;
        }
        let locators = [("client-local", ()), ("balanced", ()), ("random", ()), ("least-leaders", ())];
        self.one_of("x-queue-leader-locator", &locators, "invalid_queue_locator_arg")?;
        if let Some(mode) = self.text("x-queue-mode")?
            && !matches!(mode, "default" | "lazy")
        {
            let why = format!("\"unsupported queue mode '{mode}'\"");
            return Err(invalid("x-queue-mode", self.what, why));
        }
        match self.number("x-queue-version", 0)? {
            None | Some(1 | 2) => Ok(()),
            Some(version) => {
                let why = format!("\"unsupported queue version '{version}'\"");
                Err(invalid("x-queue-version", self.what, why))
            }
        }
    }

    /// Checks the arguments of a stream.
    fn check_stream(&self) -> Result<(), Refusal> {
        if let Some(age) = self.text("x-max-age")?
            && stream_age_ms(age).is_none()
        {
            return Err(invalid("x-max-age", self.what, "invalid_max_age"));
        }
        self.number("x-max-length-bytes", 0)?;
        if self
            .number("x-stream-max-segment-size-bytes", 0)?
            .is_some_and(|bytes| bytes > STREAM_SEGMENT_BYTES_MAX)
        {
            return Err(Refusal::precondition_failed(
                "Exceeded max value for x-stream-max-segment-size-bytes",
            ));
        }
        match self.arguments.get("x-stream-filter-size-bytes") {
            Some(size) if !size.as_int().is_some_and(|bytes| STREAM_FILTER_BYTES.contains(&bytes)) => {
                Err(Refusal::precondition_failed("Invalid value for  x-stream-filter-size-bytes"))
            }
            _ => Ok(()),
        }
    }

    fn one_of<T: Copy>(&self, name: &str, choices: &[(&str, T)], why: &str) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match choices.iter().find(|(choice, _)| *choice == text) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => Err(invalid(name, self.what, why)),
        }
    }
}

/// The queue that a declaration's arguments describe; the core reads `x-max-priority`, `x-dead-letter-strategy`,
/// `x-queue-type` and those of streams from these. A `quorum` queue is a durable queue with a delivery limit, a `stream` a
/// log topic.
pub(super) fn queue_spec(name: &str, arguments: &Arguments, client: &Client) -> Result<QueueSpec, Refusal> {
    let what = client.in_vhost("queue", name);
    let reading = Reading { arguments, what: &what };
    let kind = reading.text(QUEUE_TYPE)?.unwrap_or("classic");
    let Some(kind) = QueueKind::of(arguments) else {
        return Err(invalid(QUEUE_TYPE, &what, format_args!("\"unsupported queue type '{kind}'\"")));
    };
    kind.check_names(arguments, &what)?;
    reading.check_without_effect()?;
    if kind == QueueKind::Stream {
        reading.check_stream()?;
        return Ok(QueueSpec { arguments: arguments.clone(), ..QueueSpec::default() });
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
    let overflows = Overflow::ALL.map(|overflow| (overflow.as_str(), overflow));
    let limits = QueueLimits {
        message_ttl_ms: reading.time("x-message-ttl", 0)?,
        expires_after_ms: reading.time("x-expires", 1)?,
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

/// Adds the virtual host's default type of queues, unless the declaration has a type. Quorum queues and streams are
/// durable, not exclusive and not auto-delete: others get no type, as in RabbitMQ.
pub(super) fn add_default_type(arguments: &mut Arguments, can_be_replicated: bool, client: &Client) {
    if arguments.contains_key(QUEUE_TYPE) {
        return;
    }
    if let Some(kind) = client.namespace.spec().default_queue_type
        && (kind == "classic" || can_be_replicated)
    {
        arguments.insert(QUEUE_TYPE.to_owned(), Value::Text(kind.into_bytes()));
    }
}

/// The delivery limit. Quorum queues have a default unless it is negative (RabbitMQ 4).
fn deliveries_max(reading: &Reading<'_>) -> Result<Option<u32>, Refusal> {
    const QUORUM_DEFAULT: u32 = 20;
    if reading.arguments.get("x-delivery-limit").and_then(Value::as_int).is_some_and(|limit| limit < 0) {
        return Ok(None);
    }
    let requested = reading.number("x-delivery-limit", 0)?;
    let quorum = QueueKind::of(reading.arguments) == Some(QueueKind::Quorum);
    Ok(requested.map(|n| u32::try_from(n).unwrap_or(u32::MAX)).or(quorum.then_some(QUORUM_DEFAULT)))
}

/// An exchange's `alternate-exchange`.
pub(super) fn alternate<'a>(arguments: &'a Arguments, what: &str) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = arguments.get("alternate-exchange") else { return Ok(None) };
    value.as_str().map(Some).ok_or_else(|| {
        Refusal::precondition_failed(format_args!(
            "invalid type '{}' for arg 'alternate-exchange' in {what}",
            type_name(value)
        ))
    })
}

/// Checks what a consistent hash exchange takes its hashes of.
pub(super) fn check_hashed(arguments: &Arguments) -> Result<(), Refusal> {
    let property = arguments.get(HASH_PROPERTY);
    if property.is_some() && arguments.contains_key(HASH_HEADER) {
        return Err(Refusal::precondition_failed("hash-header and hash-property are mutually exclusive"));
    }
    match property.map(|value| value.as_str().unwrap_or_default()) {
        None | Some("message_id" | "correlation_id" | "timestamp") => Ok(()),
        Some(other) => Err(Refusal::precondition_failed(format_args!("Unsupported property: {other}"))),
    }
}

/// Checks how many messages an exchange keeps.
pub(super) fn check_history(arguments: &Arguments) -> Result<(), Refusal> {
    match arguments.get(HISTORY_LENGTH) {
        Some(length) if length.as_int().is_none_or(|length| length <= 0) => {
            let shown = length.as_str().map_or_else(|| shown(length), |text| format!("<<\"{text}\">>"));
            Err(Refusal::precondition_failed(format_args!(
                "Invalid argument {shown}, '{HISTORY_LENGTH}' must be a positive integer"
            )))
        }
        _ => Ok(()),
    }
}

/// Checks what an exchange that leaves out repeated messages is to remember.
pub(super) fn check_seen(arguments: &Arguments) -> Result<(), Refusal> {
    let invalid = |name: &str, what: &str| {
        Err(Refusal::precondition_failed(format_args!("Invalid argument, '{name}' must be {what}")))
    };
    let is_positive = |value: &Value| value.as_int().is_some_and(|number| number > 0);
    if !arguments.get(SEEN_MAX).is_some_and(is_positive) {
        return invalid(SEEN_MAX, "an integer greater than 0");
    }
    if !arguments.get(SEEN_TTL).is_none_or(is_positive) {
        return invalid(SEEN_TTL, "an integer greater than 0");
    }
    match arguments.get(SEEN_PERSISTENCE).map(Value::as_str) {
        None | Some(Some("memory")) => Ok(()),
        // What was seen is remembered in memory only.
        _ => invalid(SEEN_PERSISTENCE, "'memory'"),
    }
}

/// Checks the key of a binding to a consistent hash exchange, which is its weight.
pub(super) fn check_weight(key: &str) -> Result<(), Refusal> {
    match key.parse::<i64>() {
        Err(_) => {
            let shown = if key.is_empty() { "<<>>".to_owned() } else { format!("<<\"{key}\">>") };
            Err(Refusal::precondition_failed(format_args!("The binding key must be an integer: {shown}")))
        }
        Ok(weight) if weight < 1 => {
            Err(Refusal::precondition_failed("The binding key must be greater than 0"))
        }
        Ok(_) => Ok(()),
    }
}

/// Checks the `x-match` argument of a binding to a headers exchange.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_the_wrong_type_are_refused() {
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
            format!("{start} 'x-max-length' for queue 'q' in vhost '/': \"expected integer, got longstr\"")
        );
        assert!(reading.flag("x-single-active-consumer").is_err());
        assert_eq!(reading.number("x-absent", 0), Ok(None));
        let arguments = Arguments::from([("x-expires".to_owned(), Value::Int(10_000_000_000_000))]);
        let reading = Reading { arguments: &arguments, what: "queue 'q' in vhost '/'" };
        assert_eq!(
            reading.time("x-expires", 1).unwrap_err().text,
            format!("{start} 'x-expires' for queue 'q' in vhost '/': {{value_too_large,10000000000000}}")
        );
    }
}
