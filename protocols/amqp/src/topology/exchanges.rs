//! Exchanges: declaring and deleting them.

use std::sync::Arc;

use inver_broker::{
    Arguments, Completion, DELAYED_TYPE, DELAYING, Declared, Exchange, ExchangeError, ExchangeKind,
    ExchangeSpec, Value,
};

use super::access::Access;
use super::equivalence::check_exchange;
use super::names::{RESERVED, check_not_default, check_not_reserved};
use super::{Client, arguments};
use crate::error::Refusal;

/// How an exchange of this type routes. One that delays messages has the routing of another type; in the arguments of others
/// that type means nothing, and is left out.
pub(crate) fn kind_named(name: &str, arguments: &mut Arguments) -> Result<ExchangeKind, Refusal> {
    if name != DELAYING {
        arguments.remove(DELAYED_TYPE);
        let unknown = || Refusal::precondition_failed(format_args!("unknown exchange type '{name}'"));
        return name.parse().map_err(|()| unknown());
    }
    let routing = arguments.get(DELAYED_TYPE).and_then(Value::as_str).and_then(|name| name.parse().ok());
    routing.ok_or_else(|| {
        Refusal::precondition_failed(format_args!(
            "Invalid argument, '{DELAYED_TYPE}' must be an existing exchange type"
        ))
    })
}

impl Client {
    /// Declares an exchange, or finds the one that is there as declared.
    pub(crate) fn declare_exchange(
        &self,
        name: &str,
        spec: &ExchangeSpec,
    ) -> Result<Declared<Arc<Exchange>>, Refusal> {
        check_not_default(name)?;
        self.check_exchange(name, Access::Create)?;
        let what = self.in_vhost("exchange", name);
        if let Some(present) = self.namespace.exchange(name) {
            check_exchange(present.spec(), spec, &what)?;
            return Ok(Declared { completion: present.made(), it: present, created: false });
        }
        check_not_reserved("exchange", name)?;
        if spec.kind == ExchangeKind::ConsistentHash {
            arguments::check_hashed(&spec.arguments)?;
        }
        if spec.kind == ExchangeKind::RecentHistory {
            arguments::check_history(&spec.arguments)?;
        }
        if spec.kind == ExchangeKind::Deduplicating {
            arguments::check_seen(&spec.arguments)?;
        }
        if let Some(alternate) = arguments::alternate(&spec.arguments, &what)? {
            self.check_exchange(name, Access::Read)?;
            self.check_exchange(alternate, Access::Write)?;
        }
        let declared = self.namespace.declare_exchange(name, spec.clone()).map_err(|error| match error {
            ExchangeError::Limit(limit) => Refusal::precondition_failed(limit),
            ExchangeError::NotAllowed(alternate) => self.every_key_refused(&alternate),
            error => Refusal::internal(error),
        })?;
        if !declared.created {
            check_exchange(declared.it.spec(), spec, &what)?;
        }
        Ok(declared)
    }

    /// Deletes an exchange; one that is not there is no error.
    pub(crate) fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<Completion, Refusal> {
        check_not_default(name)?;
        if name.starts_with(RESERVED) {
            return Err(Refusal::access_refused(format_args!(
                "deletion of system {} not allowed",
                self.in_vhost("exchange", name)
            )));
        }
        self.check_exchange(name, Access::Delete)?;
        match self.namespace.delete_exchange(name, if_unused) {
            Ok(done) => Ok(done),
            // Deletion is idempotent.
            Err(ExchangeError::Unknown(_)) => Ok(Completion::Now),
            Err(ExchangeError::InUse(_)) => {
                let what = self.in_vhost("exchange", name);
                Err(Refusal::precondition_failed(format_args!("{what} in use")))
            }
            Err(error) => Err(Refusal::internal(error)),
        }
    }
}
