//! What clients do to exchanges, queues and bindings: the rules, permissions and error texts of AMQP clients.
//!
//! Channels use it, and [operators](crate::Operator), who are held to the same rules.

pub(crate) mod access;
mod arguments;
pub(crate) mod bindings;
pub(crate) mod equivalence;
pub(crate) mod exchanges;
pub(crate) mod kinds;
pub(crate) mod names;
pub(crate) mod queues;

use std::sync::Arc;

use inver_broker::{Namespace, OwnerId, Permissions, Queue};

use crate::error::Refusal;

/// A client in a virtual host.
pub(crate) struct Client {
    /// The virtual host.
    pub(crate) namespace: Namespace,
    /// What the client may do.
    pub(crate) permissions: Arc<Permissions>,
    /// The owner of its exclusive queues.
    pub(crate) owner: OwnerId,
    /// It is the broker itself: what it binds is nobody's.
    pub(crate) is_broker: bool,
}

impl Client {
    /// A client that owns no queue yet.
    pub(crate) fn new(namespace: Namespace, permissions: Arc<Permissions>) -> Client {
        Client { namespace, permissions, owner: inver_broker::next_owner(), is_broker: false }
    }

    /// The name of the virtual host, for error texts.
    pub(crate) fn vhost(&self) -> &str {
        self.namespace.name()
    }

    /// A name as error texts show it: `queue 'q' in vhost '/'`.
    pub(crate) fn in_vhost(&self, kind: &str, name: &str) -> String {
        format!("{kind} '{name}' in vhost '{}'", self.vhost())
    }

    /// Checks that a queue is not exclusive to another connection.
    pub(crate) fn check_owner(&self, queue: &Queue) -> Result<(), Refusal> {
        match queue.spec().is_usable_by(Some(self.owner)) {
            true => Ok(()),
            false => Err(self.locked(queue.name())),
        }
    }

    /// The error for a queue that is exclusive to another connection.
    pub(crate) fn locked(&self, name: &str) -> Refusal {
        Refusal::resource_locked(format_args!(
            "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the \
             exclusive property value does not match that of the original declaration.",
            self.in_vhost("queue", name)
        ))
    }
}
