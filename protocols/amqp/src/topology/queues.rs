//! Queues: declaring, purging and deleting them.

use std::sync::Arc;

use inver_broker::{Arguments, AuditKind, Completion, Declared, Queue, QueueError};

use super::access::Access;
use super::equivalence::check_queue;
use super::kinds::QueueKind;
use super::{Client, arguments};
use crate::error::Refusal;

/// A queue to declare.
#[derive(Debug, Clone)]
pub(crate) struct NewQueue {
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: Arguments,
}

impl Client {
    /// The queue of this name, if this client may use it.
    pub(crate) fn accessible_queue(&self, name: &str) -> Result<Arc<Queue>, Refusal> {
        let queue =
            self.namespace.queue(name).ok_or_else(|| Refusal::no_such("queue", name, self.vhost()))?;
        self.check_owner(&queue)?;
        queue.touch();
        Ok(queue)
    }

    /// Declares a queue, or finds the one that is there as declared. One that is `hidden` is not listed as a topic.
    pub(crate) fn declare_queue(
        &self,
        name: &str,
        hidden: bool,
        new: NewQueue,
    ) -> Result<Declared<Arc<Queue>>, Refusal> {
        self.check_queue(name, Access::Create)?;
        let NewQueue { durable, exclusive, auto_delete, mut arguments } = new;
        arguments::add_default_type(&mut arguments, durable && !exclusive && !auto_delete, self);
        let mut spec = arguments::queue_spec(name, &arguments, self)?;
        if let Some(dead_letter) = &spec.limits.dead_letter
            && self.namespace.queue(name).is_none()
        {
            self.check_queue(name, Access::Read)?;
            self.check_exchange(&dead_letter.exchange, Access::Write)?;
        }
        let kind = QueueKind::of(&arguments).unwrap_or(QueueKind::Classic);
        kind.check_properties(durable, exclusive, auto_delete, &self.in_vhost("queue", name))?;
        spec.auto_delete = auto_delete;
        // An exclusive queue is deleted with its connection, so it need not survive a restart.
        spec.durable = durable && !exclusive;
        if exclusive {
            spec.owner = Some(self.owner);
            spec.hidden = true;
        }
        // A stream is the topic of its name.
        spec.hidden |= hidden && !spec.is_stream();
        let declared = match self.namespace.declare_queue(name, spec.clone()) {
            Ok(declared) => declared,
            Err(QueueError::IsLogTopic(_)) => {
                return Err(Refusal::precondition_failed(format_args!(
                    "inequivalent arg 'x-queue-type' for {}: received '{}' but current is a log topic",
                    self.in_vhost("queue", name),
                    kind.as_str()
                )));
            }
            Err(QueueError::NotAllowed(exchange)) => return Err(self.every_key_refused(&exchange)),
            Err(QueueError::Limit(limit))
                if limit.what == "queues" && self.namespace.own_limits().queues_max.is_some() =>
            {
                return Err(Refusal::precondition_failed(format_args!(
                    "cannot declare queue '{name}': queue limit in vhost '{}' ({}) is reached",
                    self.vhost(),
                    limit.max
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
            Err(error) => return Err(Refusal::internal(error)),
        };
        if !declared.created {
            if declared.it.spec().owner != spec.owner {
                return Err(self.locked(name));
            }
            check_queue(declared.it.spec(), &spec, &self.in_vhost("queue", name))?;
            declared.it.touch();
        }
        Ok(declared)
    }

    /// Refuses a method that takes messages out of a queue, where that is a stream.
    pub(crate) fn check_not_stream(&self, queue: &Queue, method: &str) -> Result<(), Refusal> {
        if !queue.spec().is_stream() {
            return Ok(());
        }
        let what = self.in_vhost("queue", queue.name());
        Err(Refusal::not_implemented(format_args!("{method} not supported by stream queues {what}")))
    }

    /// Removes the ready messages of a queue; returns their number.
    pub(crate) fn purge_queue(&self, name: &str) -> Result<(u64, Completion), Refusal> {
        self.check_queue(name, Access::Read)?;
        let queue = self.accessible_queue(name)?;
        self.check_not_stream(&queue, "queue.purge")?;
        let purged = queue.subscription().purge().map_err(Refusal::internal)?;
        self.namespace.audit(AuditKind::Deleted, "purge", "queue", name);
        Ok(purged)
    }

    /// Deletes a queue with its messages; returns their number. One that is not there is no error.
    pub(crate) fn delete_queue(
        &self,
        name: &str,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<(u64, Completion), Refusal> {
        let Some(queue) = self.namespace.queue(name) else {
            // Deletion is idempotent.
            return Ok((0, Completion::Now));
        };
        self.check_owner(&queue)?;
        let what = self.in_vhost("queue", name);
        match self.namespace.delete_queue(name, if_unused, if_empty) {
            Ok(deleted) => Ok(deleted),
            Err(QueueError::Unknown(_)) => Ok((0, Completion::Now)),
            Err(QueueError::InUse(_)) => Err(Refusal::precondition_failed(format_args!("{what} in use"))),
            Err(QueueError::NotEmpty(_)) => {
                Err(Refusal::precondition_failed(format_args!("{what} not empty")))
            }
            Err(error) => Err(Refusal::internal(error)),
        }
    }
}
