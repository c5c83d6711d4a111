//! Bindings to queues and to exchanges.

use inver_broker::{BindDestination, BindError, Completion, ExchangeKind, HUB};

use super::access::Access;
use super::arguments;
use super::names::{REPLY_TO, check_not_default, without_line_ends};
use super::shared::Shared;
use crate::codec::Table;
use crate::error::Refusal;
use crate::map::core_arguments;

/// The hub has RabbitMQ's name of the default topic exchange.
const _: () = assert!(matches!(HUB.as_bytes(), b"amq.topic"));

/// The operation on a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Bind,
    /// Unbinding what is not bound is not an error.
    Unbind,
}

/// The destination of a binding.
#[derive(Debug, Clone, Copy)]
pub(super) enum Destination<'a> {
    Queue(&'a str),
    Exchange(&'a str),
}

/// A binding as a method names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binding<'a> {
    pub(super) source: &'a str,
    pub(super) to: Destination<'a>,
    pub(super) key: &'a str,
    pub(super) arguments: Table<'a>,
}

impl Binding<'_> {
    /// Adds or removes the binding.
    pub(super) fn apply(self, act: Act, shared: &Shared) -> Result<Completion, Refusal> {
        let source = without_line_ends(self.source);
        let name = self.checked_destination(&source, shared)?;
        let to = match self.to {
            Destination::Queue(_) => BindDestination::Queue(&name),
            Destination::Exchange(_) => BindDestination::Exchange(&name),
        };
        if let Some(exchange) = shared.namespace.exchange(&source) {
            shared.check_binding_key(&exchange, self.key)?;
        }
        let (key, arguments) = (self.key.as_bytes(), core_arguments(self.arguments));
        let result = match act {
            Act::Bind => {
                let Some(exchange) = shared.namespace.exchange(&source) else {
                    return Err(Refusal::no_such("exchange", &source, shared.vhost()));
                };
                if exchange.spec().kind == ExchangeKind::Headers {
                    arguments::check_header_match(&arguments)?;
                }
                shared.namespace.bind_as(Some(&shared.permissions), &source, to, key, &arguments)
            }
            Act::Unbind => shared.namespace.unbind(&source, to, key, &arguments),
        };
        match (result, act) {
            (Ok(done), _) => Ok(done),
            (Err(error @ BindError::Log(_)), _) => Err(Refusal::internal(error)),
            (Err(BindError::Limit(limit)), _) => Err(Refusal::precondition_failed(limit)),
            (Err(BindError::NotAllowed(name)), _) => Err(shared.every_key_refused(&name)),
            // With either end missing, nothing is bound.
            (Err(_), Act::Unbind) => Ok(Completion::Now),
            (Err(BindError::NoSource(name) | BindError::NoExchange(name)), Act::Bind) => {
                Err(Refusal::no_such("exchange", &name, shared.vhost()))
            }
            (Err(BindError::NoQueue(name)), Act::Bind) => {
                Err(Refusal::no_such("queue", &name, shared.vhost()))
            }
        }
    }

    /// Checks the names of both ends and the owner of an exclusive queue; returns the destination's name.
    fn checked_destination(self, source: &str, shared: &Shared) -> Result<String, Refusal> {
        let name = match self.to {
            Destination::Queue(name) => {
                let name = without_line_ends(name);
                if name == REPLY_TO {
                    return Err(Refusal::no_such("queue", &name, shared.vhost()));
                }
                if name.starts_with(REPLY_TO) {
                    return Err(Refusal::access_refused(
                        "cannot bind or unbind to a volatile (direct reply-to) queue",
                    ));
                }
                name
            }
            Destination::Exchange(name) => {
                let name = without_line_ends(name);
                check_not_default(&name)?;
                name
            }
        };
        match self.to {
            Destination::Queue(_) => shared.check_queue(&name, Access::Write)?,
            Destination::Exchange(_) => shared.check_exchange(&name, Access::Write)?,
        }
        check_not_default(source)?;
        shared.check_exchange(source, Access::Read)?;
        if let (Destination::Queue(_), Some(queue)) = (self.to, shared.namespace.queue(&name)) {
            shared.check_owner(&queue)?;
        }
        Ok(name)
    }
}
