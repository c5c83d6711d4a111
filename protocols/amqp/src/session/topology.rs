//! The `exchange` and `queue` classes.

use std::sync::Arc;

use inver_broker::{
    Arguments, BindDestination, BindError, ExchangeError, ExchangeKind, ExchangeSpec, HUB, Queue, QueueError,
    QueueSpec, TopicKind,
};

use super::arguments::{self, generated_name};
use super::channel::{Channel, Outcome};
use super::shared::{Shared, log_ended};
use crate::codec::{Method, Table, write};
use crate::error::Refusal;
use crate::map::core_arguments;

/// The pseudo-queue that stands for a channel's own replies.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Names that clients may not give.
const RESERVED: &str = "amq.";

/// `queue 'q' in vhost '/'`
pub(super) fn in_vhost(kind: &str, name: &str, shared: &Shared) -> String {
    format!("{kind} '{name}' in vhost '{}'", shared.vhost())
}

/// Line ends cannot be part of a name.
fn stripped(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
}

fn not_the_default(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::access_refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

/// The queue of this name, if this connection may use it.
pub(super) fn accessible_queue(name: &str, shared: &Shared) -> Result<Arc<Queue>, Refusal> {
    let queue =
        shared.namespace.queue(name).ok_or_else(|| Refusal::no_such("queue", name, shared.vhost()))?;
    check_owner(&queue, shared)?;
    queue.touch();
    Ok(queue)
}

fn check_owner(queue: &Queue, shared: &Shared) -> Result<(), Refusal> {
    match queue.spec().owner {
        Some(owner) if owner != shared.owner => Err(locked(queue.name(), shared)),
        _ => Ok(()),
    }
}

fn locked(name: &str, shared: &Shared) -> Refusal {
    Refusal::resource_locked(format_args!(
        "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the \
         exclusive property value does not match that of the original declaration.",
        in_vhost("queue", name, shared)
    ))
}

/// Makes the queue that replies to a channel go to. It is hidden and goes with its consumer.
pub(super) fn declare_reply_queue(shared: &Shared) -> Result<Arc<Queue>, Refusal> {
    let name = generated_name(&format!("{REPLY_TO}."));
    let spec =
        QueueSpec { auto_delete: true, hidden: true, owner: Some(shared.owner), ..QueueSpec::default() };
    let declared = shared.namespace.declare_queue(&name, spec).map_err(log_ended)?;
    Ok(declared.it)
}

impl Channel {
    pub(super) fn exchange_method(
        &mut self,
        method: &Method<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        let number = self.number;
        let (lsn, reply) = match *method {
            Method::ExchangeDeclare { exchange, passive: true, nowait, .. } => {
                let name = stripped(exchange);
                not_the_default(&name)?;
                if shared.namespace.exchange(&name).is_none() {
                    return Err(Refusal::no_such("exchange", &name, shared.vhost()));
                }
                (None, (!nowait).then_some(Method::ExchangeDeclareOk {}))
            }
            Method::ExchangeDeclare {
                exchange,
                kind,
                durable,
                auto_delete,
                internal,
                nowait,
                arguments,
                ..
            } => {
                let kind: ExchangeKind = kind.parse().map_err(|()| {
                    Refusal::precondition_failed(format_args!("unknown exchange type '{kind}'"))
                })?;
                let spec = ExchangeSpec {
                    kind,
                    durable,
                    auto_delete,
                    internal,
                    arguments: core_arguments(arguments),
                };
                (
                    declare_exchange(&stripped(exchange), &spec, shared)?,
                    (!nowait).then_some(Method::ExchangeDeclareOk {}),
                )
            }
            Method::ExchangeDelete { exchange, if_unused, nowait, .. } => {
                let name = stripped(exchange);
                not_the_default(&name)?;
                if name.starts_with(RESERVED) {
                    return Err(Refusal::access_refused(format_args!(
                        "deletion of system {} not allowed",
                        in_vhost("exchange", &name, shared)
                    )));
                }
                let lsn = match shared.namespace.delete_exchange(&name, if_unused) {
                    Ok(lsn) => lsn,
                    // Deleting is idempotent.
                    Err(ExchangeError::Unknown(_)) => None,
                    Err(ExchangeError::InUse(_)) => {
                        let what = in_vhost("exchange", &name, shared);
                        return Err(Refusal::precondition_failed(format_args!("{what} in use")));
                    }
                    Err(error) => return Err(log_ended(error)),
                };
                (lsn, (!nowait).then_some(Method::ExchangeDeleteOk {}))
            }
            Method::ExchangeBind { destination, source, routing_key, nowait, arguments, .. } => {
                let lsn = bind(source, Destination::Exchange(destination), routing_key, arguments, shared)?;
                (lsn, (!nowait).then_some(Method::ExchangeBindOk {}))
            }
            Method::ExchangeUnbind { destination, source, routing_key, nowait, arguments, .. } => {
                let lsn = unbind(source, Destination::Exchange(destination), routing_key, arguments, shared)?;
                (lsn, (!nowait).then_some(Method::ExchangeUnbindOk {}))
            }
            _ => (None, None),
        };
        if let Some(reply) = reply {
            shared.reply(lsn, out, |out| write::method(out, number, &reply));
        }
        Ok(Outcome::Done)
    }

    pub(super) fn queue_method(
        &mut self,
        method: &Method<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        let number = self.number;
        match *method {
            Method::QueueDeclare { nowait, .. } => {
                if !nowait && !shared.is_caught_up() {
                    return Ok(Outcome::Again);
                }
                let declared = self.declare_queue(method, shared)?;
                self.last_queue.clone_from(&declared.name);
                if !nowait {
                    let reply = Method::QueueDeclareOk {
                        queue: &declared.name,
                        message_count: declared.messages,
                        consumer_count: declared.consumers,
                    };
                    shared.reply(declared.lsn, out, |out| write::method(out, number, &reply));
                }
            }
            Method::QueueDelete { queue, if_unused, if_empty, nowait, .. } => {
                if !shared.is_caught_up() {
                    return Ok(Outcome::Again);
                }
                let name = self.queue_name(&stripped(queue))?;
                let (messages, lsn) = delete_queue(&name, if_unused, if_empty, shared)?;
                if !nowait {
                    let reply = Method::QueueDeleteOk { message_count: count(messages) };
                    shared.reply(lsn, out, |out| write::method(out, number, &reply));
                }
            }
            Method::QueuePurge { queue, nowait, .. } => {
                if !shared.is_caught_up() {
                    return Ok(Outcome::Again);
                }
                let name = self.queue_name(queue)?;
                let (messages, lsn) = accessible_queue(&name, shared)?.subscription().purge();
                if !nowait {
                    let reply = Method::QueuePurgeOk { message_count: count(messages) };
                    shared.reply(lsn, out, |out| write::method(out, number, &reply));
                }
            }
            Method::QueueBind { queue, exchange, routing_key, nowait, arguments, .. } => {
                let name = self.queue_name(queue)?;
                let key = if queue.is_empty() && routing_key.is_empty() { &name } else { routing_key };
                let lsn = bind(exchange, Destination::Queue(&name), key, arguments, shared)?;
                if !nowait {
                    shared.reply(lsn, out, |out| write::method(out, number, &Method::QueueBindOk {}));
                }
            }
            Method::QueueUnbind { queue, exchange, routing_key, arguments, .. } => {
                let name = self.queue_name(queue)?;
                let key = if queue.is_empty() && routing_key.is_empty() { &name } else { routing_key };
                let lsn = unbind(exchange, Destination::Queue(&name), key, arguments, shared)?;
                shared.reply(lsn, out, |out| write::method(out, number, &Method::QueueUnbindOk {}));
            }
            _ => {}
        }
        Ok(Outcome::Done)
    }

    fn declare_queue(&mut self, method: &Method<'_>, shared: &mut Shared) -> Result<DeclaredQueue, Refusal> {
        let Method::QueueDeclare { queue, passive, durable, exclusive, auto_delete, arguments, .. } = *method
        else {
            return Err(Refusal::internal("not a declaration"));
        };
        let mut name = stripped(queue);
        if name.starts_with(REPLY_TO) {
            return match shared.namespace.queue(&name) {
                Some(_) => Ok(DeclaredQueue { name, messages: 0, consumers: 1, lsn: None }),
                None => Err(Refusal::no_such("queue", &name, shared.vhost())),
            };
        }
        if passive {
            // An empty name means the queue declared last, here as elsewhere.
            let name = if name.is_empty() { self.queue_name("")? } else { name };
            return inspect(name, shared);
        }
        let arguments = core_arguments(arguments);
        let mut spec = arguments::queue_spec(&name, &arguments, shared)?;
        if name.is_empty() {
            name = generated_name("amq.gen-");
        } else if name.starts_with(RESERVED) {
            return Err(Refusal::access_refused(format_args!(
                "queue name '{name}' contains reserved prefix 'amq.*'"
            )));
        }
        arguments::check_quorum(
            &arguments,
            durable,
            exclusive,
            auto_delete,
            &in_vhost("queue", &name, shared),
        )?;
        spec.auto_delete = auto_delete;
        // An exclusive queue ends with its connection, which does not survive a restart.
        spec.durable = durable && !exclusive;
        if exclusive {
            spec.owner = Some(shared.owner);
            spec.hidden = true;
            if shared.exclusive.len() >= shared.limits.exclusive_queues_max {
                return Err(Refusal::precondition_failed(format_args!(
                    "connection has {} exclusive queues, which is the most",
                    shared.limits.exclusive_queues_max
                )));
            }
        }
        spec.hidden |= queue.is_empty();
        let declared = match shared.namespace.declare_queue(&name, spec.clone()) {
            Ok(declared) => declared,
            Err(QueueError::IsLogTopic(_)) => {
                return Err(Refusal::precondition_failed(format_args!(
                    "inequivalent arg 'x-queue-type' for {}: received 'classic' but current is a log topic",
                    in_vhost("queue", &name, shared)
                )));
            }
            Err(
                error @ (QueueError::BadName(_)
                | QueueError::Unknown(_)
                | QueueError::InUse(_)
                | QueueError::NotEmpty(_)),
            ) => {
                return Err(Refusal::precondition_failed(error));
            }
            Err(error) => return Err(log_ended(error)),
        };
        if declared.created {
            if exclusive {
                shared.exclusive.insert(name.clone());
            }
        } else {
            if declared.it.spec().owner != spec.owner {
                return Err(locked(&name, shared));
            }
            arguments::same_queue(declared.it.spec(), &spec, &in_vhost("queue", &name, shared))?;
            declared.it.touch();
        }
        let depth = declared.it.depth();
        let consumers = u32::try_from(depth.consumers).unwrap_or(u32::MAX);
        Ok(DeclaredQueue { name, messages: count(depth.ready), consumers, lsn: declared.lsn })
    }
}

struct DeclaredQueue {
    name: String,
    messages: u32,
    consumers: u32,
    lsn: Option<inver_storage::Lsn>,
}

fn count(messages: u64) -> u32 {
    u32::try_from(messages).unwrap_or(u32::MAX)
}

/// A passive declaration: of a queue, or of a log topic, which can be consumed as well.
fn inspect(name: String, shared: &Shared) -> Result<DeclaredQueue, Refusal> {
    if let Some(queue) = shared.namespace.queue(&name) {
        check_owner(&queue, shared)?;
        queue.touch();
        let depth = queue.depth();
        let consumers = u32::try_from(depth.consumers).unwrap_or(u32::MAX);
        return Ok(DeclaredQueue { name, messages: count(depth.ready), consumers, lsn: None });
    }
    let Some(topic) = shared.namespace.topic(&name).filter(|topic| topic.kind() == TopicKind::Log) else {
        return Err(Refusal::no_such("queue", &name, shared.vhost()));
    };
    let partitions = topic.partitions();
    let kept =
        partitions.iter().map(|p| p.stream().high_watermark().0.saturating_sub(p.stream().start().0)).sum();
    Ok(DeclaredQueue { name, messages: count(kept), consumers: 0, lsn: None })
}

fn delete_queue(
    name: &str,
    if_unused: bool,
    if_empty: bool,
    shared: &mut Shared,
) -> Result<(u64, Option<inver_storage::Lsn>), Refusal> {
    let Some(queue) = shared.namespace.queue(name) else {
        // Deleting is idempotent.
        return Ok((0, None));
    };
    check_owner(&queue, shared)?;
    let what = |shared: &Shared| in_vhost("queue", name, shared);
    match shared.namespace.delete_queue(name, if_unused, if_empty) {
        Ok(deleted) => {
            shared.exclusive.remove(name);
            Ok(deleted)
        }
        Err(QueueError::Unknown(_)) => Ok((0, None)),
        Err(QueueError::InUse(_)) => {
            Err(Refusal::precondition_failed(format_args!("{} in use", what(shared))))
        }
        Err(QueueError::NotEmpty(_)) => {
            Err(Refusal::precondition_failed(format_args!("{} not empty", what(shared))))
        }
        Err(error) => Err(log_ended(error)),
    }
}

fn declare_exchange(
    name: &str,
    spec: &ExchangeSpec,
    shared: &Shared,
) -> Result<Option<inver_storage::Lsn>, Refusal> {
    not_the_default(name)?;
    let what = in_vhost("exchange", name, shared);
    if let Some(present) = shared.namespace.exchange(name) {
        arguments::same_exchange(present.spec(), spec, &what)?;
        return Ok(present.made());
    }
    if name.starts_with(RESERVED) {
        return Err(Refusal::access_refused(format_args!(
            "exchange name '{name}' contains reserved prefix 'amq.*'"
        )));
    }
    arguments::check_alternate(&spec.arguments, &what)?;
    let declared = shared.namespace.declare_exchange(name, spec.clone()).map_err(log_ended)?;
    if !declared.created {
        arguments::same_exchange(declared.it.spec(), spec, &what)?;
    }
    Ok(declared.lsn)
}

/// Where a binding leads.
#[derive(Clone, Copy)]
enum Destination<'a> {
    Queue(&'a str),
    Exchange(&'a str),
}

fn bind(
    source: &str,
    to: Destination<'_>,
    key: &str,
    arguments: Table<'_>,
    shared: &Shared,
) -> Result<Option<inver_storage::Lsn>, Refusal> {
    let source = stripped(source);
    let (destination, name) = check_ends(&source, to, shared)?;
    let arguments = core_arguments(arguments);
    let Some(exchange) = shared.namespace.exchange(&source) else {
        return Err(Refusal::no_such("exchange", &source, shared.vhost()));
    };
    if exchange.spec().kind == ExchangeKind::Headers {
        arguments::check_header_match(&arguments)?;
    }
    let result = shared.namespace.bind(&source, destination.named(&name), key.as_bytes(), &arguments);
    result.map_err(|error| bind_refusal(error, shared))
}

fn unbind(
    source: &str,
    to: Destination<'_>,
    key: &str,
    arguments: Table<'_>,
    shared: &Shared,
) -> Result<Option<inver_storage::Lsn>, Refusal> {
    let source = stripped(source);
    let (destination, name) = check_ends(&source, to, shared)?;
    let arguments: Arguments = core_arguments(arguments);
    match shared.namespace.unbind(&source, destination.named(&name), key.as_bytes(), &arguments) {
        Ok(lsn) => Ok(lsn),
        Err(BindError::Log(error)) => Err(log_ended(error)),
        // Nothing is bound where an end is missing: unbinding is idempotent.
        Err(_) => Ok(None),
    }
}

impl<'a> Destination<'a> {
    fn named(self, name: &'a str) -> BindDestination<'a> {
        match self {
            Destination::Queue(_) => BindDestination::Queue(name),
            Destination::Exchange(_) => BindDestination::Exchange(name),
        }
    }
}

/// Checks both ends as far as names go, and that an exclusive queue is our own.
fn check_ends<'a>(
    source: &str,
    to: Destination<'a>,
    shared: &Shared,
) -> Result<(Destination<'a>, String), Refusal> {
    let name = match to {
        Destination::Queue(name) => {
            let name = stripped(name);
            if name.starts_with(REPLY_TO) {
                return Err(Refusal::access_refused(
                    "cannot bind or unbind to a volatile (direct reply-to) queue",
                ));
            }
            name
        }
        Destination::Exchange(name) => {
            let name = stripped(name);
            not_the_default(&name)?;
            name
        }
    };
    not_the_default(source)?;
    if let (Destination::Queue(_), Some(queue)) = (to, shared.namespace.queue(&name)) {
        check_owner(&queue, shared)?;
    }
    Ok((to, name))
}

fn bind_refusal(error: BindError, shared: &Shared) -> Refusal {
    match error {
        BindError::NoSource(name) | BindError::NoExchange(name) => {
            Refusal::no_such("exchange", &name, shared.vhost())
        }
        BindError::NoQueue(name) => Refusal::no_such("queue", &name, shared.vhost()),
        BindError::Log(error) => log_ended(error),
    }
}

/// The hub is the exchange that all protocols meet at; its name is RabbitMQ's.
const _: () = assert!(matches!(HUB.as_bytes(), b"amq.topic"));
