//! Bindings to queues and to exchanges.

use inver_broker::{Arguments, BindDestination, BindError, Completion, ExchangeKind, HUB};

use super::Client;
use super::access::Access;
use super::arguments;
use super::names::{REPLY_TO, check_not_default, without_line_ends};

use crate::error::Refusal;

/// The hub has RabbitMQ's name of the default topic exchange.
const _: () = assert!(matches!(HUB.as_bytes(), b"amq.topic"));

/// The operation on a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Bind,
    /// Unbinding what is not bound is not an error.
    Unbind,
}

/// The destination of a binding.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Destination<'a> {
    Queue(&'a str),
    Exchange(&'a str),
}

/// A binding as a client names it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding<'a> {
    pub(crate) source: &'a str,
    pub(crate) to: Destination<'a>,
    pub(crate) key: &'a str,
    pub(crate) arguments: &'a Arguments,
}

impl Binding<'_> {
    /// Adds or removes the binding.
    pub(crate) fn apply(self, act: Act, client: &Client) -> Result<Completion, Refusal> {
        let source = without_line_ends(self.source);
        let name = self.checked_destination(&source, client)?;
        let to = match self.to {
            Destination::Queue(_) => BindDestination::Queue(&name),
            Destination::Exchange(_) => BindDestination::Exchange(&name),
        };
        if let Some(exchange) = client.namespace.exchange(&source) {
            client.check_binding_key(&exchange, self.key)?;
        }
        let (key, arguments) = (self.key.as_bytes(), self.arguments);
        let result = match act {
            Act::Bind => {
                let binder = Some(&client.permissions).filter(|_| !client.is_broker);
                let Some(exchange) = client.namespace.exchange(&source) else {
                    return Err(Refusal::no_such("exchange", &source, client.vhost()));
                };
                if exchange.spec().kind == ExchangeKind::Headers {
                    arguments::check_header_match(arguments)?;
                }
                if exchange.spec().kind == ExchangeKind::ConsistentHash {
                    arguments::check_weight(self.key)?;
                }
                if exchange.spec().kind == ExchangeKind::LocalRandom && !self.key.is_empty() {
                    let key = self.key;
                    let text = format_args!("Non empty binding '{key}' key not permitted");
                    return Err(Refusal::precondition_failed(text));
                }
                client.namespace.bind_as(binder, &source, to, key, arguments)
            }
            Act::Unbind => client.namespace.unbind(&source, to, key, arguments),
        };
        match (result, act) {
            (Ok(done), _) => Ok(done),
            (Err(error @ BindError::Log(_)), _) => Err(Refusal::internal(error)),
            (Err(BindError::Limit(limit)), _) => Err(Refusal::precondition_failed(limit)),
            (Err(BindError::NotAllowed(name)), _) => Err(client.every_key_refused(&name)),
            // With either end missing, nothing is bound.
            (Err(_), Act::Unbind) => Ok(Completion::Now),
            (Err(BindError::NoSource(name) | BindError::NoExchange(name)), Act::Bind) => {
                Err(Refusal::no_such("exchange", &name, client.vhost()))
            }
            (Err(BindError::NoQueue(name)), Act::Bind) => {
                Err(Refusal::no_such("queue", &name, client.vhost()))
            }
        }
    }

    /// Checks the names of both ends and the owner of an exclusive queue; returns the destination's name.
    fn checked_destination(self, source: &str, client: &Client) -> Result<String, Refusal> {
        let name = match self.to {
            Destination::Queue(name) => {
                let name = without_line_ends(name);
                if name == REPLY_TO {
                    return Err(Refusal::no_such("queue", &name, client.vhost()));
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
            Destination::Queue(_) => client.check_queue(&name, Access::Write)?,
            Destination::Exchange(_) => client.check_exchange(&name, Access::Write)?,
        }
        check_not_default(source)?;
        client.check_exchange(source, Access::Read)?;
        if let (Destination::Queue(_), Some(queue)) = (self.to, client.namespace.queue(&name)) {
            client.check_owner(&queue)?;
        }
        Ok(name)
    }
}
