//! Exchanges and bindings of a namespace: declaring, deleting, binding.
//!
//! Every change is written to the log under the topology lock.

use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use inver_storage::batch::records;
use inver_storage::{Entry, Lsn, SubmitError};

use super::events::BindingFacts;
use super::leaving::Leaving;
use super::origins::Origin;
use super::passing_on::may_pass_on;
use super::{Declared, Namespace};
use crate::access::Permissions;
use crate::audit::AuditKind;
use crate::bindings::{BindTarget, Binding, BindingTerms, Readers};
use crate::completion::Completion;
use crate::exchange::{Exchange, RouteTarget};
use crate::history::History;
use crate::limit_checks::LimitChecks;
use crate::limits::{self, LimitReached};
use crate::message::Message;
use crate::peek;
use crate::queue::Queue;
use crate::receivers::ReceiverSet;
use crate::rows::{self, BindingOwner, BindingRow};
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::ExchangeSpec;
use crate::value::{Arguments, Value};
use crate::write_batch::WriteBatch;

/// Clients that a binding belongs to; when one more declares it, the earliest no longer counts.
const BINDING_CLIENTS_MAX: usize = 16;

/// Bytes of an exchange's last messages in one entry; one larger message is an entry alone.
const HISTORY_PART_BYTES_MAX: usize = 1 << 20;

/// The destination of a binding, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindDestination<'a> {
    /// A queue.
    Queue(&'a str),
    /// An exchange.
    Exchange(&'a str),
}

/// Why a binding cannot be created or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// No exchange has the source's name.
    #[error("no exchange '{0}'")]
    NoSource(String),
    /// No queue has the destination's name.
    #[error("no queue '{0}'")]
    NoQueue(String),
    /// No exchange has the destination's name.
    #[error("no exchange '{0}'")]
    NoExchange(String),
    /// The client may not have messages with any routing key passed on to the destination.
    #[error("no permission to write to exchange '{0}' with every routing key")]
    NotAllowed(String),
    /// A bound is reached.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// Why an exchange cannot be declared or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// No exchange has that name.
    #[error("no exchange '{0}'")]
    Unknown(String),
    /// It has bindings.
    #[error("exchange '{0}' is in use")]
    InUse(String),
    /// The client may not have messages with any routing key passed on to its alternate exchange.
    #[error("no permission to write to exchange '{0}' with every routing key")]
    NotAllowed(String),
    /// A bound is reached.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

impl Namespace {
    /// The exchange of this name. The default exchange, whose name is empty, is not one of these.
    #[must_use]
    pub fn exchange(&self, name: &str) -> Option<Arc<Exchange>> {
        self.0.exchanges.read().get(name).cloned()
    }

    /// All exchanges, in the order of their names.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Arc<Exchange>> {
        let mut all = self.exchanges_unordered();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// All exchanges, in no order.
    #[must_use]
    pub fn exchanges_unordered(&self) -> Vec<Arc<Exchange>> {
        self.0.exchanges.read().values().cloned().collect()
    }

    /// Creates an exchange, or returns the present one of that name unchanged; the caller compares it with the spec.
    pub fn declare_exchange(
        &self,
        name: &str,
        spec: ExchangeSpec,
    ) -> Result<Declared<Arc<Exchange>>, ExchangeError> {
        let present = |it: Arc<Exchange>| Declared { completion: it.made(), it, created: false };
        if let Some(it) = self.exchange(name) {
            return Ok(present(it));
        }
        let _topology = self.topology();
        if let Some(it) = self.exchange(name) {
            return Ok(present(it));
        }
        let alternate = spec.arguments.get("alternate-exchange").and_then(Value::as_str);
        if let Some(alternate) = alternate.filter(|to| !may_pass_on(self.client().map(|it| &**it), to)) {
            return Err(ExchangeError::NotAllowed(alternate.to_owned()));
        }
        let seen_max = self.limits().exchange_seen_max;
        limits::check("values that an exchange remembers", spec.seen_max().unwrap_or(1) - 1, seen_max)?;
        let max = self.own_max(self.limits().exchanges_max, |_| None);
        limits::check("exchanges", self.0.exchanges.read().len(), max)?;
        let mut completion = Completion::Now;
        if spec.durable {
            let mut entry = Entry::new();
            let key = rows::key(self.0.id, &[name.as_bytes()]);
            entry.put(rows::EXCHANGES, key, rows::encode(&spec));
            completion = Completion::At(self.log().submit(entry)?.lsn);
        }
        let it = self.enter_exchange(name, spec);
        completion.lsn().into_iter().for_each(|lsn| it.set_made(lsn));
        self.audit_exchange(AuditKind::Topology, "create", &it);
        self.tell_exchange("exchange.created", &it);
        Ok(Declared { it, created: true, completion })
    }

    pub(crate) fn enter_exchange(&self, name: &str, spec: ExchangeSpec) -> Arc<Exchange> {
        if spec.arguments.contains_key("alternate-exchange") {
            self.0.may_reach_headers.store(true, Ordering::Release);
        }
        let exchange = match self.0.exchanges.write().entry(name.into()) {
            MapEntry::Occupied(present) => present.get().clone(),
            MapEntry::Vacant(slot) => slot.insert(Exchange::new(name, spec)).clone(),
        };
        self.police_exchange(&exchange);
        self.changed();
        exchange
    }

    /// Deletes an exchange with its bindings.
    pub fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<Completion, ExchangeError> {
        let _topology = self.topology();
        let exchange = self.exchange(name).ok_or_else(|| ExchangeError::Unknown(name.to_owned()))?;
        if if_unused && exchange.binding_count() > 0 {
            return Err(ExchangeError::InUse(name.to_owned()));
        }
        let mut leaving = Leaving::default();
        leaving.exchange(&exchange);
        let lsn =
            self.write_leaving(&mut leaving, Entry::new(), |entry| Ok(self.log().submit(entry)?.lsn))?;
        self.take_out(leaving);
        self.changed();
        self.audit_exchange(AuditKind::Deleted, "delete", &exchange);
        Ok(lsn.into())
    }

    /// Adds a binding that passes everything on; a present one stays.
    pub fn bind(
        &self,
        source: &str,
        to: BindDestination<'_>,
        key: &[u8],
        arguments: &Arguments,
    ) -> Result<Completion, BindError> {
        self.bind_as(None, source, to, key, arguments)
    }

    /// Adds a binding of a client: while permissions are enforced, it passes on a log topic's records only as long as that
    /// client may read the topic. One that is present belongs to this client too, unless it is anyone's.
    pub fn bind_as(
        &self,
        client: Option<&Arc<Permissions>>,
        source: &str,
        to: BindDestination<'_>,
        key: &[u8],
        arguments: &Arguments,
    ) -> Result<Completion, BindError> {
        self.limits().check_address(b'.', key)?;
        let reader = client.filter(|permissions| permissions.is_enforced());
        let _topology = self.topology();
        let (exchange, target) = self.ends(source, to)?;
        if let BindDestination::Exchange(name) = to
            && !may_pass_on(client.map(|client| &**client), name)
        {
            return Err(BindError::NotAllowed(name.to_owned()));
        }
        let durable = exchange.spec().durable
            && match &target {
                RouteTarget::Queue(q) => q.spec().durable,
                RouteTarget::Exchange(e) => e.spec().durable,
                RouteTarget::Inbox { .. } => false,
            };
        let readers = reader.cloned().map_or(Readers::Anyone, Readers::One);
        let mut declared =
            Box::new(BindingTerms { arguments: arguments.clone(), row: None, made: None, readers });
        let binding = |declared| Binding {
            target: target.clone(),
            key: key.into(),
            slashed: false,
            declared: Some(declared),
        };
        if let Some(mut present) =
            exchange.present(&binding(declared.clone()), |present| present.terms().clone())
        {
            let Some(readers) = reader.and_then(|reader| with_reader(&present.readers, reader)) else {
                return Ok(present.made.into());
            };
            present.readers = readers;
            let entry = present.row.map(|row| self.binding_entry(row, source, to, key, &present));
            let lsn = entry.map(|entry| Ok::<_, BindError>(self.log().submit(entry)?.lsn)).transpose()?;
            present.made = lsn.or(present.made);
            let made = present.made;
            exchange.rebind(binding(Box::new(present)));
            self.changed();
            self.audit_binding(client, "bind", &exchange, &target, key);
            return Ok(made.into());
        }
        limits::check("bindings", exchange.binding_count(), self.limits().bindings_max)?;
        let mut entry = Entry::new();
        if durable {
            let row = self.0.next_binding.fetch_add(1, Ordering::Relaxed);
            declared.row = Some(row);
            entry = self.binding_entry(row, source, to, key, &declared);
        }
        let done = match (exchange.history(), &target) {
            (Some(history), RouteTarget::Queue(queue)) => self.give_history(history, queue, entry)?,
            _ if durable => Completion::At(self.log().submit(entry)?.lsn),
            _ => Completion::Now,
        };
        declared.made = done.lsn().filter(|_| durable);
        // The topology lock is held: it is still new.
        let _new = self.enter_binding(&exchange, binding(declared));
        self.audit_binding(client, "bind", &exchange, &target, key);
        self.tell_binding("binding.created", &BindingFacts { source, target: &target, key, arguments });
        Ok(done)
    }

    /// Gives a queue the last messages of an exchange, as far as its limits let it take them, in entries of a bounded size, and
    /// submits `entry` with the last of them: a binding is there only if all of them are.
    fn give_history(
        &self,
        history: &History,
        queue: &Arc<Queue>,
        entry: Entry,
    ) -> Result<Completion, BindError> {
        let mut set = ReceiverSet::default();
        set.add_queue(queue);
        let set = Arc::new(set);
        let (mut batch, mut checks) = (WriteBatch::default(), LimitChecks::default());
        let flush = |batch: &mut WriteBatch, checks: &mut LimitChecks, entry: Entry| {
            let flushed = batch.flush(self.log(), entry);
            checks.schedule(flushed.is_ok());
            flushed
        };
        let mut given = Completion::Now;
        let part_bytes_max = HISTORY_PART_BYTES_MAX.min(self.log().entry_bytes_max() / 2);
        for record in history.messages().iter().filter_map(|one| records(one).ok()).flatten().flatten() {
            let message = Message::of_record(&record, true);
            if batch.bytes() + peek::size(&record) > part_bytes_max {
                given = given.and(flush(&mut batch, &mut checks, Entry::new())?);
            }
            // None is dead-lettered: the topology lock is held.
            if LimitChecks::are_needed(&set, &message)
                && !checks.apply(&batch, &set, &message, true, &mut None).by.is_empty()
            {
                continue;
            }
            batch.add(&set, None, &message);
        }
        if batch.bytes() > part_bytes_max {
            given = given.and(flush(&mut batch, &mut checks, Entry::new())?);
        }
        Ok(given.and(flush(&mut batch, &mut checks, entry)?))
    }

    /// An entry with the row of a binding.
    fn binding_entry(
        &self,
        row: u64,
        source: &str,
        to: BindDestination<'_>,
        key: &[u8],
        declared: &BindingTerms,
    ) -> Entry {
        let (to_exchange, destination) = match to {
            BindDestination::Queue(name) => (false, name.to_owned()),
            BindDestination::Exchange(name) => (true, name.to_owned()),
        };
        let value = BindingRow {
            source: source.to_owned(),
            to_exchange,
            destination,
            key: key.to_vec(),
            slashed: false,
            arguments: declared.arguments.clone(),
        };
        let owners: Vec<BindingOwner> =
            declared.readers.clients().iter().map(|client| BindingOwner::of(client)).collect();
        let mut entry = Entry::new();
        let value = rows::encode_binding(&value, &owners);
        let table = if is_seeded(Bug::ForgetBinding) { rows::SPILLS } else { rows::BINDINGS };
        entry.put(table, rows::key(self.0.id, &[&row.to_be_bytes()]), value);
        entry
    }

    /// Binds a queue to the hub by a slashed filter. The binding has no row of its own: its owner restores it.
    pub(crate) fn bind_slashed(&self, queue: &Arc<Queue>, filter: &[u8]) {
        let _topology = self.topology();
        let target = RouteTarget::Queue(queue.clone());
        let binding = Binding { target, key: filter.into(), slashed: true, declared: None };
        let _may_be_there = self.enter_binding(&self.hub(), binding);
    }

    fn enter_binding(
        &self,
        exchange: &Arc<Exchange>,
        binding: Binding<RouteTarget>,
    ) -> Result<(), Option<Lsn>> {
        match &binding.target {
            RouteTarget::Exchange(next) if !next.routes_by_key() => {
                self.0.may_reach_headers.store(true, Ordering::Release);
            }
            _ => {}
        }
        let (target, origin) = (binding.target.identity(), Origin::new(exchange, &binding));
        let new = exchange.bind(binding);
        if new.is_ok() {
            self.0.origins.add(target, origin);
        }
        self.note_listeners();
        self.changed();
        new
    }

    /// Restores a binding; false if it leads from or to nothing.
    pub(crate) fn recover_binding(
        &self,
        number: u64,
        row: &BindingRow,
        readers: Vec<Arc<Permissions>>,
    ) -> bool {
        self.0.next_binding.fetch_max(number + 1, Ordering::Relaxed);
        let to = if row.to_exchange {
            BindDestination::Exchange(&row.destination)
        } else {
            BindDestination::Queue(&row.destination)
        };
        let Ok((exchange, target)) = self.ends(&row.source, to) else { return false };
        let (key, arguments) = (row.key.clone().into_boxed_slice(), row.arguments.clone());
        let readers = Readers::of(readers);
        let declared = BindingTerms { arguments, row: Some(number), made: None, readers };
        let (slashed, declared) = (row.slashed, Some(Box::new(declared)));
        let binding = Binding { target, key, slashed, declared };
        let _each_is_once_in_the_log = self.enter_binding(&exchange, binding);
        true
    }

    /// Removes a binding; a missing one is no error.
    pub fn unbind(
        &self,
        source: &str,
        to: BindDestination<'_>,
        key: &[u8],
        arguments: &Arguments,
    ) -> Result<Completion, BindError> {
        let _topology = self.topology();
        let (exchange, target) = self.ends(source, to)?;
        let Some(row) = exchange.present_row(&target, key, arguments) else { return Ok(Completion::Now) };
        let mut leaving = Leaving::default();
        leaving.binding(&exchange, row);
        let lsn =
            self.write_leaving(&mut leaving, Entry::new(), |entry| Ok(self.log().submit(entry)?.lsn))?;
        for binding in &exchange.unbind(&target, false, key, arguments) {
            self.0.origins.remove(&exchange, binding);
            self.audit_binding(None, "unbind", &exchange, &target, key);
            self.tell_binding("binding.deleted", &BindingFacts { source, target: &target, key, arguments });
        }
        self.take_out(leaving);
        self.changed();
        Ok(lsn.into())
    }

    fn ends(&self, source: &str, to: BindDestination<'_>) -> Result<(Arc<Exchange>, RouteTarget), BindError> {
        let target = match to {
            BindDestination::Queue(name) => {
                RouteTarget::Queue(self.queue(name).ok_or_else(|| BindError::NoQueue(name.to_owned()))?)
            }
            BindDestination::Exchange(name) => RouteTarget::Exchange(
                self.exchange(name).ok_or_else(|| BindError::NoExchange(name.to_owned()))?,
            ),
        };
        let exchange = self.exchange(source).ok_or_else(|| BindError::NoSource(source.to_owned()))?;
        Ok((exchange, target))
    }

    fn audit_exchange(&self, kind: AuditKind, operation: &str, exchange: &Exchange) {
        let is_lasting = exchange.spec().durable && !exchange.spec().auto_delete;
        let kind = if is_lasting { kind } else { AuditKind::Transient };
        self.audit(kind, operation, "exchange", exchange.name());
    }

    fn audit_binding(
        &self,
        client: Option<&Arc<Permissions>>,
        operation: &str,
        source: &Exchange,
        target: &RouteTarget,
        key: &[u8],
    ) {
        let (resource, name, is_lasting) = match target {
            RouteTarget::Queue(queue) => {
                let spec = queue.spec();
                let is_lasting = spec.durable && spec.owner.is_none() && !spec.auto_delete;
                ("queue", queue.name(), is_lasting)
            }
            RouteTarget::Exchange(exchange) => {
                ("exchange", exchange.name(), exchange.spec().durable && !exchange.spec().auto_delete)
            }
            RouteTarget::Inbox { .. } => return,
        };
        let kind =
            if is_lasting && source.spec().durable { AuditKind::Topology } else { AuditKind::Transient };
        if !self.audits(kind) {
            return;
        }
        let key = String::from_utf8_lossy(key);
        let name = format!("{} -> {resource} {name} ({key})", source.name());
        self.audit_by(client.or(self.client()).map(|client| &**client), kind, operation, "binding", &name);
    }
}

/// The clients of a binding with one that declares it again; none if that changes nothing.
fn with_reader(readers: &Readers, reader: &Arc<Permissions>) -> Option<Readers> {
    let clients = readers.clients();
    let owner = BindingOwner::of(reader);
    if clients.is_empty() || clients.iter().any(|client| BindingOwner::of(client) == owner) {
        return None;
    }
    let skipped = (clients.len() + 1).saturating_sub(BINDING_CLIENTS_MAX);
    let kept = clients.iter().skip(skipped).chain([reader]);
    Some(Readers::of(kept.cloned().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ExchangeKind;
    use crate::{Broker, BrokerConfig};
    use inver_storage::{Log, LogOptions};

    #[tokio::test]
    async fn an_exchange_bound_to_itself_is_freed_when_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), LogOptions::default()).unwrap();
        let broker = Broker::open(log, BrokerConfig::default()).unwrap();
        let namespace = broker.default_namespace();
        let spec = ExchangeSpec {
            kind: ExchangeKind::Fanout,
            durable: false,
            auto_delete: true,
            internal: false,
            arguments: Arguments::new(),
        };
        namespace.declare_exchange("x", spec).unwrap();
        let _ = namespace.bind("x", BindDestination::Exchange("x"), b"k", &Arguments::new()).unwrap();
        let exchange = Arc::downgrade(&namespace.exchange("x").unwrap());
        let _ = namespace.delete_exchange("x", false).unwrap();
        assert!(exchange.upgrade().is_none());
    }
}
