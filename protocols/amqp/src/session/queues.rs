//! The `queue` class.

use std::sync::Arc;

use inver_broker::{Completion, Queue, QueueSpec, TopicKind};

use super::channel::{Channel, Outcome};
use super::shared::Shared;
use crate::codec::{Method, Table, write};
use crate::error::Refusal;
use crate::map::core_arguments;
use crate::topology::access::Access;
use crate::topology::bindings::{Act, Binding, Destination};
use crate::topology::names::{REPLY_TO, check_not_reserved, generated_name, without_line_ends};
use crate::topology::queues::NewQueue;

/// Declares the queue behind `amq.rabbitmq.reply-to`. It is hidden and deleted with its consumer.
pub(super) fn declare_reply_queue(shared: &Shared) -> Result<Arc<Queue>, Refusal> {
    let name = generated_name(&format!("{REPLY_TO}."));
    let spec =
        QueueSpec { auto_delete: true, hidden: true, owner: Some(shared.owner), ..QueueSpec::default() };
    let declared = shared.namespace.declare_queue(&name, spec).map_err(Refusal::internal)?;
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
                    return Ok(Outcome::Retry);
                }
                let declared = self.declare_queue(method, shared)?;
                self.last_queue.clone_from(&declared.name);
                if !nowait {
                    let reply = Method::QueueDeclareOk {
                        queue: &declared.name,
                        message_count: declared.messages,
                        consumer_count: declared.consumers,
                    };
                    shared.reply(declared.done, out, |out| write::method(out, number, &reply));
                }
            }
            Method::QueueDelete { queue, if_unused, if_empty, nowait, .. } => {
                if !shared.own_writes_are_committed() {
                    return Ok(Outcome::Retry);
                }
                let name = self.queue_name(&without_line_ends(queue))?;
                if !name.starts_with(REPLY_TO) {
                    shared.check_queue(&name, Access::Delete)?;
                }
                let (messages, done) = shared.delete_queue(&name, if_unused, if_empty)?;
                shared.exclusive.remove(&name);
                if !nowait {
                    let reply = Method::QueueDeleteOk { message_count: count(messages) };
                    shared.reply(done, out, |out| write::method(out, number, &reply));
                }
            }
            Method::QueuePurge { queue, nowait, .. } => {
                if !shared.own_writes_are_committed() {
                    return Ok(Outcome::Retry);
                }
                let name = self.queue_name(queue)?;
                let (messages, done) = shared.purge_queue(&name)?;
                if !nowait {
                    let reply = Method::QueuePurgeOk { message_count: count(messages) };
                    shared.reply(done, out, |out| write::method(out, number, &reply));
                }
            }
            Method::QueueBind { queue, exchange, routing_key, nowait, arguments, .. } => {
                let done = self.queue_binding(Act::Bind, queue, exchange, routing_key, arguments, shared)?;
                if !nowait {
                    shared.reply(done, out, |out| write::method(out, number, &Method::QueueBindOk {}));
                }
            }
            Method::QueueUnbind { queue, exchange, routing_key, arguments, .. } => {
                let done =
                    self.queue_binding(Act::Unbind, queue, exchange, routing_key, arguments, shared)?;
                shared.reply(done, out, |out| write::method(out, number, &Method::QueueUnbindOk {}));
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
    ) -> Result<Completion, Refusal> {
        let name = self.queue_name(queue)?;
        // An empty routing key with an empty queue name denotes the queue's name.
        let key = if queue.is_empty() && routing_key.is_empty() { &name } else { routing_key };
        let arguments = &core_arguments(arguments);
        Binding { source, to: Destination::Queue(&name), key, arguments }.apply(act, shared)
    }

    fn declare_queue(&mut self, method: &Method<'_>, shared: &mut Shared) -> Result<DeclaredQueue, Refusal> {
        let Method::QueueDeclare { queue, passive, durable, exclusive, auto_delete, arguments, .. } = *method
        else {
            return Err(Refusal::command_invalid("unimplemented method"));
        };
        let mut name = without_line_ends(queue);
        if name == REPLY_TO {
            // The pseudo-queue always exists; RabbitMQ answers so, whether or not the channel consumes from it.
            return Ok(DeclaredQueue { name, messages: 0, consumers: 1, done: Completion::Now });
        }
        if name.starts_with(REPLY_TO) {
            return match shared.namespace.queue(&name) {
                Some(_) => Ok(DeclaredQueue { name, messages: 0, consumers: 1, done: Completion::Now }),
                None => Err(Refusal::no_such("queue", &name, shared.vhost())),
            };
        }
        if passive {
            // An empty name denotes the queue declared last.
            let name = if name.is_empty() { self.queue_name("")? } else { name };
            shared.check_queue(&name, Access::Inspect)?;
            return inspect(name, shared);
        }
        if name.is_empty() {
            name = generated_name("amq.gen-");
        } else {
            check_not_reserved("queue", &name)?;
        }
        if exclusive && shared.exclusive.len() >= shared.limits.exclusive_queues_max {
            return Err(Refusal::precondition_failed(format_args!(
                "limit reached: at most {} exclusive queues per connection",
                shared.limits.exclusive_queues_max
            )));
        }
        let new = NewQueue { durable, exclusive, auto_delete, arguments: core_arguments(arguments) };
        let declared = shared.declare_queue(&name, queue.is_empty(), new)?;
        if declared.created && exclusive {
            shared.exclusive.insert(name.clone());
        }
        let depth = declared.it.depth();
        let consumers = u32::try_from(depth.consumers).unwrap_or(u32::MAX);
        Ok(DeclaredQueue { name, messages: count(depth.ready), consumers, done: declared.completion })
    }
}

struct DeclaredQueue {
    name: String,
    messages: u32,
    consumers: u32,
    done: Completion,
}

fn count(messages: u64) -> u32 {
    u32::try_from(messages).unwrap_or(u32::MAX)
}

/// Inspects a queue (a passive declaration), or a log topic, which can be consumed from as well.
fn inspect(name: String, shared: &Shared) -> Result<DeclaredQueue, Refusal> {
    if let Some(queue) = shared.namespace.queue(&name) {
        shared.check_owner(&queue)?;
        queue.touch();
        let depth = queue.depth();
        let consumers = u32::try_from(depth.consumers).unwrap_or(u32::MAX);
        return Ok(DeclaredQueue { name, messages: count(depth.ready), consumers, done: Completion::Now });
    }
    let Some(topic) = shared.namespace.topic(&name).filter(|topic| topic.kind() == TopicKind::Log) else {
        return Err(Refusal::no_such("queue", &name, shared.vhost()));
    };
    let partitions = topic.partitions();
    let kept =
        partitions.iter().map(|p| p.stream().high_watermark().0.saturating_sub(p.stream().start().0)).sum();
    Ok(DeclaredQueue { name, messages: count(kept), consumers: 0, done: Completion::Now })
}
