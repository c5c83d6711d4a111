//! The `exchange` class.

use inver_broker::{Completion, ExchangeSpec};

use super::channel::{Channel, Outcome};
use super::shared::Shared;
use crate::codec::{Method, write};
use crate::error::Refusal;
use crate::map::core_arguments;
use crate::topology::access::Access;
use crate::topology::bindings::{Act, Binding, Destination};
use crate::topology::exchanges::kind_named;
use crate::topology::names::{check_not_default, without_line_ends};

impl Channel {
    pub(super) fn exchange_method(
        &mut self,
        method: &Method<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        let number = self.number;
        let (done, reply) = match *method {
            Method::ExchangeDeclare { exchange, passive: true, nowait, .. } => {
                let name = without_line_ends(exchange);
                check_not_default(&name)?;
                shared.check_exchange(&name, Access::Inspect)?;
                if shared.namespace.exchange(&name).is_none() {
                    return Err(Refusal::no_such("exchange", &name, shared.vhost()));
                }
                (Completion::Now, (!nowait).then_some(Method::ExchangeDeclareOk {}))
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
                let mut arguments = core_arguments(arguments);
                let kind = kind_named(kind, &mut arguments)?;
                let spec = ExchangeSpec { kind, durable, auto_delete, internal, arguments };
                (
                    shared.declare_exchange(&without_line_ends(exchange), &spec)?.completion,
                    (!nowait).then_some(Method::ExchangeDeclareOk {}),
                )
            }
            Method::ExchangeDelete { exchange, if_unused, nowait, .. } => {
                let name = without_line_ends(exchange);
                let done = shared.delete_exchange(&name, if_unused)?;
                (done, (!nowait).then_some(Method::ExchangeDeleteOk {}))
            }
            Method::ExchangeBind { destination, source, routing_key, nowait, arguments, .. } => {
                let to = Destination::Exchange(destination);
                let arguments = &core_arguments(arguments);
                let binding = Binding { source, to, key: routing_key, arguments };
                (binding.apply(Act::Bind, shared)?, (!nowait).then_some(Method::ExchangeBindOk {}))
            }
            Method::ExchangeUnbind { destination, source, routing_key, nowait, arguments, .. } => {
                let to = Destination::Exchange(destination);
                let arguments = &core_arguments(arguments);
                let binding = Binding { source, to, key: routing_key, arguments };
                (binding.apply(Act::Unbind, shared)?, (!nowait).then_some(Method::ExchangeUnbindOk {}))
            }
            _ => return Err(Refusal::command_invalid("unimplemented method")),
        };
        if let Some(reply) = reply {
            shared.reply(done, out, |out| write::method(out, number, &reply));
        }
        Ok(Outcome::Done)
    }
}
