//! The subscription that a consumer attaches to: that of a queue, or one of a log topic, chosen by the arguments
//! `x-subscription`, `x-subscription-type` and `x-stream-offset`.

use std::sync::Arc;

use inver_broker::{Mode, Start, Subscription, SubscriptionError, TopicKind};

use super::shared::Shared;
use super::streams;
use crate::codec::Table;
use crate::codec::table::Value as Field;
use crate::error::Refusal;
use crate::topology::access::Access;
use crate::topology::equivalence::inequivalent;
use crate::topology::names::generated_name;

/// The consumer priority in the arguments.
pub(super) fn priority(queue: &str, arguments: Table<'_>, shared: &Shared) -> Result<i32, Refusal> {
    match arguments.get("x-priority") {
        None => Ok(0),
        Some(value) => match value.as_integer() {
            Some(n) => Ok(i32::try_from(n).unwrap_or(if n < 0 { i32::MIN } else { i32::MAX })),
            None => Err(Refusal::precondition_failed(format_args!(
                "invalid arg 'x-priority' for {}: \"expected integer, got {}\"",
                shared.in_vhost("queue", queue),
                value.type_name()
            ))),
        },
    }
}

/// The subscription for a consumer of this queue or log topic, and the time before which the consumer leaves messages out.
pub(super) fn subscription(
    name: &str,
    exclusive: bool,
    arguments: Table<'_>,
    shared: &Shared,
) -> Result<(Arc<Subscription>, Option<i64>), Refusal> {
    shared.check_queue(name, Access::Read)?;
    let requested = text_argument(arguments, "x-subscription", name, shared)?;
    let topic = shared.namespace.topic(name).filter(|topic| topic.kind() == TopicKind::Log);
    let Some(topic) = topic else {
        let queue = shared.accessible_queue(name)?;
        return match requested {
            Some(requested) if requested != name => Err(Refusal::precondition_failed(format_args!(
                "invalid arg 'x-subscription' for {}: a queue has one subscription, of its own name",
                shared.in_vhost("queue", name)
            ))),
            _ => Ok((queue.subscription().clone(), None)),
        };
    };
    let (start, mut from_ms) = match streams::start(&topic, arguments, shared)? {
        Some((start, from_ms)) => (Some(start), from_ms),
        None => (None, None),
    };
    if let Some(requested) = requested.filter(|_| from_ms.is_some()) {
        shared.check_subscription(requested)?;
        // One that is there stays where it is; of another, all members would have to leave out what is older.
        if shared.namespace.subscription(&topic, requested).is_none() {
            return Err(Refusal::precondition_failed(format_args!(
                "invalid arg 'x-stream-offset' for subscription '{requested}' of {}: where the time begins is not known; use an offset",
                shared.in_vhost("topic", name)
            )));
        }
        from_ms = None;
    }
    let subscription = match requested {
        Some(requested) => {
            shared.check_subscription(requested)?;
            let default = if exclusive { Mode::Exclusive } else { Mode::Shared };
            let mode = match text_argument(arguments, "x-subscription-type", name, shared)? {
                None => default,
                Some(text) => text.parse().map_err(|()| {
                    Refusal::precondition_failed(format_args!(
                        "invalid arg 'x-subscription-type' for {}: expected exclusive, shared, failover or key_shared",
                        shared.in_vhost("topic", name)
                    ))
                })?,
            };
            shared
                .namespace
                .subscribe(&topic, requested, mode, true, start.unwrap_or(Start::Earliest))
                .map_err(|error| match error {
                    SubscriptionError::ModeClash(current) => inequivalent(
                        "x-subscription-type",
                        &format!("subscription '{requested}' of {}", shared.in_vhost("topic", name)),
                        &format!("'{}'", mode.as_str()),
                        &format!("'{}'", current.as_str()),
                    ),
                    error @ (SubscriptionError::NotDurable | SubscriptionError::Limit(_)) => {
                        Refusal::precondition_failed(error)
                    }
                    error => Refusal::internal(error),
                })
        }
        // A subscription of the consumer's own, deleted with it, as for RabbitMQ's streams.
        None => shared
            .namespace
            .subscribe(
                &topic,
                &generated_name("amqp-"),
                Mode::Exclusive,
                false,
                start.unwrap_or(Start::Latest),
            )
            .map_err(Refusal::internal),
    }?;
    Ok((subscription, from_ms))
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
            shared.in_vhost("topic", of),
            other.type_name()
        ))),
    }
}
