//! The `exchange` class.

use inver_broker::{Completion, ExchangeError, ExchangeKind, ExchangeSpec};

use super::access::Access;
use super::arguments;
use super::bindings::{Act, Binding, Destination};
use super::channel::{Channel, Outcome};
use super::equivalence::check_exchange;
use super::names::{RESERVED, check_not_default, check_not_reserved, without_line_ends};
use super::shared::Shared;
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
                    declare_exchange(&without_line_ends(exchange), &spec, shared)?,
                    (!nowait).then_some(Method::ExchangeDeclareOk {}),
                )
            }
            Method::ExchangeDelete { exchange, if_unused, nowait, .. } => {
                let name = without_line_ends(exchange);
                check_not_default(&name)?;
                if name.starts_with(RESERVED) {
                    return Err(Refusal::access_refused(format_args!(
                        "deletion of system {} not allowed",
                        shared.in_vhost("exchange", &name)
                    )));
                }
                shared.check_exchange(&name, Access::Delete)?;
                let done = match shared.namespace.delete_exchange(&name, if_unused) {
                    Ok(done) => done,
                    // Deletion is idempotent.
                    Err(ExchangeError::Unknown(_)) => Completion::Now,
                    Err(ExchangeError::InUse(_)) => {
                        let what = shared.in_vhost("exchange", &name);
                        return Err(Refusal::precondition_failed(format_args!("{what} in use")));
                    }
                    Err(error) => return Err(Refusal::internal(error)),
                };
                (done, (!nowait).then_some(Method::ExchangeDeleteOk {}))
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
            shared.reply(done, out, |out| write::method(out, number, &reply));
        }
        Ok(Outcome::Done)
    }
}

fn declare_exchange(name: &str, spec: &ExchangeSpec, shared: &Shared) -> Result<Completion, Refusal> {
    check_not_default(name)?;
    shared.check_exchange(name, Access::Create)?;
    let what = shared.in_vhost("exchange", name);
    if let Some(present) = shared.namespace.exchange(name) {
        check_exchange(present.spec(), spec, &what)?;
        return Ok(present.made());
    }
    check_not_reserved("exchange", name)?;
    if let Some(alternate) = arguments::alternate(&spec.arguments, &what)? {
        shared.check_exchange(name, Access::Read)?;
        shared.check_exchange(alternate, Access::Write)?;
    }
    let declared = shared.namespace.declare_exchange(name, spec.clone()).map_err(|error| match error {
        ExchangeError::Limit(limit) => Refusal::precondition_failed(limit),
        ExchangeError::NotAllowed(alternate) => shared.every_key_refused(&alternate),
        error => Refusal::internal(error),
    })?;
    if !declared.created {
        check_exchange(declared.it.spec(), spec, &what)?;
    }
    Ok(declared.completion)
}
