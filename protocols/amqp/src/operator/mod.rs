//! Operators: who manages exchanges, queues, bindings and messages without a connection, by the rules of AMQP clients and
//! with their error texts.

mod messages;

use std::sync::Arc;

use inver_broker::{
    Arguments, BindDestination, Completion, Declared, Exchange, ExchangeSpec, Namespace, Permissions, Queue,
};

pub use messages::{GotMessage, MessageProperties, NewMessage, Settle};

use crate::error::{Refusal, ReplyCode};
use crate::topology::Client;
use crate::topology::bindings::{Act, Binding, Destination};
use crate::topology::exchanges::kind_named;
use crate::topology::names::{check_not_reserved, without_line_ends};
use crate::topology::queues::NewQueue;

/// An operator in a virtual host.
pub struct Operator(Client);

/// Why an operation is refused: what a channel would be closed with.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// The kind of refusal.
    pub kind: RefusedKind,
    /// The explanation, without the name of the reply code.
    pub text: String,
}

/// The kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedKind {
    /// 403: a permission, or a reserved name.
    Access,
    /// 404
    NotFound,
    /// Any other that is about the request.
    Request,
    /// 541: the broker failed.
    Internal,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        let kind = match refusal.code {
            ReplyCode::AccessRefused => RefusedKind::Access,
            ReplyCode::NotFound => RefusedKind::NotFound,
            ReplyCode::InternalError => RefusedKind::Internal,
            _ => RefusedKind::Request,
        };
        let prefix = format!("{} - ", refusal.code.name());
        let text = refusal.text.strip_prefix(&prefix).unwrap_or(&refusal.text).to_owned();
        Refused { kind, text }
    }
}

impl Operator {
    /// An operator with these permissions.
    #[must_use]
    pub fn new(namespace: Namespace, permissions: Arc<Permissions>) -> Operator {
        Operator(Client::new(namespace, permissions))
    }

    /// The broker itself, with permissions that allow everything; its bindings are nobody's.
    #[must_use]
    pub fn of_broker(namespace: Namespace, permissions: Arc<Permissions>) -> Operator {
        Operator(Client { is_broker: true, ..Client::new(namespace, permissions) })
    }

    /// Declares a queue, or finds the one that is there as declared.
    ///
    /// # Errors
    /// The arguments are wrong, differ from those of the queue that is there, or it is not permitted.
    pub fn declare_queue(
        &self,
        name: &str,
        durable: bool,
        auto_delete: bool,
        arguments: Arguments,
    ) -> Result<Declared<Arc<Queue>>, Refused> {
        let name = without_line_ends(name);
        check_not_reserved("queue", &name)?;
        let new = NewQueue { durable, exclusive: false, auto_delete, arguments };
        Ok(self.0.declare_queue(&name, false, new)?)
    }

    /// Deletes a queue with its messages; one that is not there is no error. Returns how many messages it had.
    ///
    /// # Errors
    /// It is used, not empty, exclusive to a connection, or it is not permitted.
    pub fn delete_queue(
        &self,
        name: &str,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<(u64, Completion), Refused> {
        self.0.check_queue(name, crate::topology::access::Access::Delete)?;
        Ok(self.0.delete_queue(name, if_unused, if_empty)?)
    }

    /// Removes the ready messages of a queue. Returns their number.
    ///
    /// # Errors
    /// There is no such queue, or it is not permitted.
    pub fn purge_queue(&self, name: &str) -> Result<(u64, Completion), Refused> {
        Ok(self.0.purge_queue(name)?)
    }

    /// Declares an exchange of a type, or finds the one that is there as declared.
    ///
    /// # Errors
    /// There is no such type, it is there otherwise, or it is not permitted.
    pub fn declare_exchange(
        &self,
        name: &str,
        kind: &str,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        mut arguments: Arguments,
    ) -> Result<Declared<Arc<Exchange>>, Refused> {
        let kind = kind_named(kind, &mut arguments)?;
        let spec = ExchangeSpec { kind, durable, auto_delete, internal, arguments };
        Ok(self.0.declare_exchange(&without_line_ends(name), &spec)?)
    }

    /// Deletes an exchange with its bindings; one that is not there is no error.
    ///
    /// # Errors
    /// It is used, predeclared, or it is not permitted.
    pub fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<Completion, Refused> {
        Ok(self.0.delete_exchange(name, if_unused)?)
    }

    /// Adds a binding; one that is there stays.
    ///
    /// # Errors
    /// One of its ends is not there, the arguments are wrong, or it is not permitted.
    pub fn bind(
        &self,
        source: &str,
        to: BindDestination<'_>,
        key: &str,
        arguments: &Arguments,
    ) -> Result<Completion, Refused> {
        self.binding(Act::Bind, source, to, key, arguments)
    }

    /// Removes a binding; one that is not there is no error.
    ///
    /// # Errors
    /// It is not permitted.
    pub fn unbind(
        &self,
        source: &str,
        to: BindDestination<'_>,
        key: &str,
        arguments: &Arguments,
    ) -> Result<Completion, Refused> {
        self.binding(Act::Unbind, source, to, key, arguments)
    }

    fn binding(
        &self,
        act: Act,
        source: &str,
        to: BindDestination<'_>,
        key: &str,
        arguments: &Arguments,
    ) -> Result<Completion, Refused> {
        let to = match to {
            BindDestination::Queue(name) => Destination::Queue(name),
            BindDestination::Exchange(name) => Destination::Exchange(name),
        };
        Ok(Binding { source, to, key, arguments }.apply(act, &self.0)?)
    }
}
