//! Permissions: which operation needs what, with RabbitMQ's texts.
//!
//! | operation | needs |
//! |---|---|
//! | declare, delete | configure of the queue or exchange |
//! | a passive declaration | any of configure, write and read, as since RabbitMQ 4.3.1 |
//! | a new queue with a dead-letter exchange | read of the queue, write to that exchange |
//! | a new exchange with an alternate exchange | read of the exchange, write to that exchange |
//! | bind, unbind | write to the destination, read of the source, and of the routing key if the source is a topic exchange |
//! | publish | write to the exchange (`amq.default` for the default one), and to the routing key if it is a topic exchange |
//! | get, consume, purge | read of the queue |
//! | direct reply-to | nothing |
//!
//! Publishes are checked by the core's publisher. At the hub a routing key also needs the permission of its address; a
//! binding of an exchange to it, and it as an alternate or dead-letter exchange, that of every address.

use inver_access::{Operation, ResourceKind, Tag, key_name};
use inver_broker::{DEFAULT_EXCHANGE, Exchange, Permissions, PublishError, may_bind};

use super::Client;
use crate::error::Refusal;

/// What an operation does to a queue or an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Asks whether it exists.
    Inspect,
    /// Declares it.
    Create,
    /// Deletes it.
    Delete,
    /// Publishes to it, or binds it.
    Write,
    /// Consumes from it, or binds to it.
    Read,
}

impl Access {
    fn operation(self) -> Operation {
        match self {
            Access::Inspect => Operation::Describe,
            Access::Create => Operation::Create,
            Access::Delete => Operation::Delete,
            Access::Write => Operation::Write,
            Access::Read => Operation::Read,
        }
    }

    /// The permission's name in texts.
    fn name(self) -> &'static str {
        match self {
            Access::Inspect | Access::Create | Access::Delete => "configure",
            Access::Write => "write",
            Access::Read => "read",
        }
    }
}

impl Client {
    /// The user as texts show it.
    fn user(&self) -> &str {
        user(&self.permissions)
    }

    fn refused(&self, access: Access, what: &str) -> Refusal {
        Refusal::access_refused(format_args!(
            "{} access to {what} refused for user '{}'",
            access.name(),
            self.user()
        ))
    }

    /// Checks the permission for a queue, or a log topic.
    pub(crate) fn check_queue(&self, name: &str, access: Access) -> Result<(), Refusal> {
        if self.permissions.may(ResourceKind::Topic, name, access.operation()) {
            return Ok(());
        }
        self.permissions.denied(ResourceKind::Topic, name, access.operation());
        Err(self.refused(access, &self.in_vhost("queue", name)))
    }

    /// Checks the permission for an exchange. The empty name is the default exchange.
    pub(crate) fn check_exchange(&self, name: &str, access: Access) -> Result<(), Refusal> {
        let name = if name.is_empty() { DEFAULT_EXCHANGE } else { name };
        if self.permissions.may(ResourceKind::Exchange, name, access.operation()) {
            return Ok(());
        }
        self.permissions.denied(ResourceKind::Exchange, name, access.operation());
        Err(self.refused(access, &self.in_vhost("exchange", name)))
    }

    /// Checks the permission to bind to an exchange with a routing key.
    pub(crate) fn check_binding_key(&self, source: &Exchange, key: &str) -> Result<(), Refusal> {
        if may_bind(&self.permissions, source, key) {
            return Ok(());
        }
        Err(self.key_refused(Access::Read, source.name(), key))
    }

    /// The refusal of messages passed on to an exchange under keys that nobody checks.
    pub(crate) fn every_key_refused(&self, exchange: &str) -> Refusal {
        self.key_refused(Access::Write, exchange, "#")
    }

    /// Checks the permission to use a named subscription of a log topic.
    pub(crate) fn check_subscription(&self, name: &str) -> Result<(), Refusal> {
        if self.permissions.may(ResourceKind::Group, name, Operation::Read) {
            return Ok(());
        }
        self.permissions.denied(ResourceKind::Group, name, Operation::Read);
        Err(self.refused(Access::Read, &self.in_vhost("subscription", name)))
    }

    fn key_refused(&self, access: Access, exchange: &str, key: &str) -> Refusal {
        self.refused(access, &format!("topic '{key}' in {}", self.in_vhost("exchange", exchange)))
    }

    /// The refusal of a publish.
    pub(crate) fn publish_refused(&self, error: PublishError) -> Refusal {
        match error {
            PublishError::Refused(name) => {
                self.permissions.denied(ResourceKind::Exchange, &name, Operation::Write);
                self.refused(Access::Write, &self.in_vhost("exchange", &name))
            }
            PublishError::KeyRefused { exchange, routing_key } => {
                let key = key_name(&exchange, &routing_key);
                self.permissions.denied(ResourceKind::RoutingKey, &key, Operation::Write);
                self.key_refused(Access::Write, &exchange, &routing_key)
            }
            PublishError::TooLong(error) => Refusal::precondition_failed(error),
            PublishError::NoSuchExchange(name) => Refusal::no_such("exchange", &name, self.vhost()),
            PublishError::Internal(name) => Refusal::access_refused(format_args!(
                "cannot publish to internal {}",
                self.in_vhost("exchange", &name)
            )),
            error => Refusal::internal(error),
        }
    }
}

/// The user as texts show it.
fn user(permissions: &Permissions) -> &str {
    permissions.user().unwrap_or("none")
}

/// Checks the property `user-id`: the user's own name, unless the user may impersonate others.
pub(crate) fn check_user_id(claimed: &[u8], permissions: &Permissions) -> Result<(), Refusal> {
    let user = user(permissions);
    if claimed == user.as_bytes() || permissions.has_tag(&Tag::Impersonator) {
        return Ok(());
    }
    Err(Refusal::precondition_failed(format_args!(
        "user_id property set to '{}' but authenticated user was '{user}'",
        String::from_utf8_lossy(claimed)
    )))
}
