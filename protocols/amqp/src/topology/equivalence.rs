//! The equivalence of declarations: a queue or an exchange that exists must be declared with the same settings again.
//!
//! The error texts are RabbitMQ's. Arguments unknown to RabbitMQ are ignored, as it does.

use inver_broker::{ExchangeSpec, QueueSpec, Value};

use crate::error::Refusal;

/// Arguments of exchanges in which declarations must agree.
const EXCHANGE_ARGUMENTS: [&str; 2] = ["alternate-exchange", "x-delayed-type"];

/// The queue arguments that are compared.
const QUEUE_ARGUMENTS: [&str; 15] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-age",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-delivery-limit",
];

/// The type of a stored value in RabbitMQ's terms. Stored integers have no width; the one named is the narrowest that
/// clients send.
pub(super) fn type_name(value: &Value) -> &'static str {
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

/// A stored value as error texts show it.
pub(super) fn shown(value: &Value) -> String {
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

/// The error for settings that differ.
pub(crate) fn inequivalent(name: &str, what: &str, received: &str, current: &str) -> Refusal {
    Refusal::precondition_failed(format_args!(
        "inequivalent arg '{name}' for {what}: received {received} but current is {current}"
    ))
}

fn check_field<T: PartialEq + std::fmt::Display + ?Sized>(
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

fn check_argument(
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
        (Some(kind), None) if name == "x-queue-type" => {
            Err(inequivalent(name, what, "'classic'", &format!("'{}'", shown(kind))))
        }
        (None, Some(kind)) if name == "x-queue-type" => {
            Err(inequivalent(name, what, &format!("'{}'", shown(kind)), "'classic'"))
        }
        (Some(current), Some(received)) => {
            Err(inequivalent(name, what, &format!("'{}'", shown(received)), &format!("'{}'", shown(current))))
        }
        (current, received) => Err(inequivalent(name, what, &lone(received), &lone(current))),
    }
}

/// Checks that a declaration matches an existing queue.
pub(super) fn check_queue(current: &QueueSpec, received: &QueueSpec, what: &str) -> Result<(), Refusal> {
    check_field("durable", what, &current.durable, &received.durable)?;
    check_field("auto_delete", what, &current.auto_delete, &received.auto_delete)?;
    QUEUE_ARGUMENTS.iter().try_for_each(|name| {
        check_argument(name, what, current.arguments.get(*name), received.arguments.get(*name))
    })
}

/// Checks that a declaration matches an existing exchange.
pub(super) fn check_exchange(
    current: &ExchangeSpec,
    received: &ExchangeSpec,
    what: &str,
) -> Result<(), Refusal> {
    check_field("type", what, current.type_name(), received.type_name())?;
    check_field("durable", what, &current.durable, &received.durable)?;
    check_field("auto_delete", what, &current.auto_delete, &received.auto_delete)?;
    check_field("internal", what, &current.internal, &received.internal)?;
    EXCHANGE_ARGUMENTS.iter().try_for_each(|name| {
        check_argument(name, what, current.arguments.get(*name), received.arguments.get(*name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_inequivalent_arguments_equal_rabbitmqs() {
        let text = |result: Result<(), Refusal>| result.unwrap_err().text;
        let what = "queue 'q' in vhost '/'";
        assert_eq!(
            text(check_field("durable", what, &false, &true)),
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is \
             'false'"
        );
        let (one, two) = (Value::Int(1000), Value::Int(2000));
        assert_eq!(
            text(check_argument("x-message-ttl", what, Some(&one), Some(&two))),
            "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received '2000' but \
             current is '1000'"
        );
        assert_eq!(
            text(check_argument("x-message-ttl", what, Some(&one), None)),
            "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received none but \
             current is the value '1000' of type 'signedint'"
        );
        let classic = Value::Text(b"classic".to_vec());
        assert!(check_argument("x-queue-type", what, None, Some(&classic)).is_ok());
        assert!(check_argument("x-queue-type", what, Some(&classic), None).is_ok());
    }
}
