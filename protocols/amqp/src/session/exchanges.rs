//! The `exchange` class.

use inver_broker::{ExchangeError, ExchangeKind, ExchangeSpec};
use inver_storage::Lsn;

use super::arguments;
use super::bindings::{Act, Binding, Destination};
use super::channel::{Channel, Outcome};
use super::equivalence::same_exchange;
use super::names::{RESERVED, in_vhost, not_reserved, not_the_default, stripped};
use super::shared::{Shared, log_ended};
use crate::codec::{Method, write};
use crate::error::Refusal;
use crate::map::core_arguments;

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
                let to = Destination::Exchange(destination);
                let binding = Binding { source, to, key: routing_key, arguments };
                (binding.apply(Act::Bind, shared)?, (!nowait).then_some(Method::ExchangeBindOk {}))
            }
            Method::ExchangeUnbind { destination, source, routing_key, nowait, arguments, .. } => {
                let to = Destination::Exchange(destination);
                let binding = Binding { source, to, key: routing_key, arguments };
                (binding.apply(Act::Unbind, shared)?, (!nowait).then_some(Method::ExchangeUnbindOk {}))
            }
            _ => return Err(Refusal::command_invalid("unimplemented method")),
        };
        if let Some(reply) = reply {
            shared.reply(lsn, out, |out| write::method(out, number, &reply));
        }
        Ok(Outcome::Done)
    }
}

fn declare_exchange(name: &str, spec: &ExchangeSpec, shared: &Shared) -> Result<Option<Lsn>, Refusal> {
    not_the_default(name)?;
    let what = in_vhost("exchange", name, shared);
    if let Some(present) = shared.namespace.exchange(name) {
        same_exchange(present.spec(), spec, &what)?;
        return Ok(present.made());
    }
    not_reserved("exchange", name)?;
    arguments::check_alternate(&spec.arguments, &what)?;
    let declared = shared.namespace.declare_exchange(name, spec.clone()).map_err(|error| match error {
        ExchangeError::Limit(limit) => Refusal::precondition_failed(limit),
        error => log_ended(error),
    })?;
    if !declared.created {
        same_exchange(declared.it.spec(), spec, &what)?;
    }
    Ok(declared.lsn)
}
