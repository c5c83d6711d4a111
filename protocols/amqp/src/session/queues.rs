//! The `queue` class.

use std::sync::Arc;

use inver_broker::{Queue, QueueError, QueueSpec, TopicKind};
use inver_storage::Lsn;

use super::arguments;
use super::bindings::{Act, Binding, Destination};
use super::channel::{Channel, Outcome};
use super::equivalence::same_queue;
use super::names::{REPLY_TO, generated_name, in_vhost, not_reserved, stripped};
use super::shared::{Shared, log_ended};
use crate::codec::{Method, Table, write};
use crate::error::Refusal;
use crate::map::core_arguments;

/// The queue of this name, if this connection may use it.
pub(super) fn accessible_queue(name: &str, shared: &Shared) -> Result<Arc<Queue>, Refusal> {
    let queue =
        shared.namespace.queue(name).ok_or_else(|| Refusal::no_such("queue", name, shared.vhost()))?;
    check_owner(&queue, shared)?;
    queue.touch();
    Ok(queue)
}

/// An exclusive queue is for its own connection.
pub(super) fn check_owner(queue: &Queue, shared: &Shared) -> Result<(), Refusal> {
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
    pub(super) fn queue_method(
        &mut self,
        method: &Method<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        let number = self.number;
        match *method {
            Method::QueueDeclare { nowait, .. } => {
                if !nowait && !shared.own_writes_are_committed() {
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
                if !shared.own_writes_are_committed() {
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
                if !shared.own_writes_are_committed() {
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
                let lsn = self.queue_binding(Act::Bind, queue, exchange, routing_key, arguments, shared)?;
                if !nowait {
                    shared.reply(lsn, out, |out| write::method(out, number, &Method::QueueBindOk {}));
                }
            }
            Method::QueueUnbind { queue, exchange, routing_key, arguments, .. } => {
                let lsn = self.queue_binding(Act::Unbind, queue, exchange, routing_key, arguments, shared)?;
                shared.reply(lsn, out, |out| write::method(out, number, &Method::QueueUnbindOk {}));
            }
            _ => return Err(Refusal::command_invalid("unimplemented method")),
        }
        Ok(Outcome::Done)
    }

    fn queue_binding(
        &self,
        act: Act,
        queue: &str,
        source: &str,
        routing_key: &str,
        arguments: Table<'_>,
        shared: &Shared,
    ) -> Result<Option<Lsn>, Refusal> {
        let name = self.queue_name(queue)?;
        // An empty key with the queue declared last means that queue's name.
        let key = if queue.is_empty() && routing_key.is_empty() { &name } else { routing_key };
        Binding { source, to: Destination::Queue(&name), key, arguments }.apply(act, shared)
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
        } else {
            not_reserved("queue", &name)?;
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
                | QueueError::NotEmpty(_)
                | QueueError::Limit(_)),
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
            same_queue(declared.it.spec(), &spec, &in_vhost("queue", &name, shared))?;
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
    lsn: Option<Lsn>,
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
) -> Result<(u64, Option<Lsn>), Refusal> {
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
