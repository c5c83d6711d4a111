//! What leaves the topology with a queue, an exchange or a binding: bindings, and auto-delete exchanges that lose their
//! last one. It is found before anything changes, so that the log has the change first: a write that the log rejects
//! leaves memory as it was.

use std::sync::Arc;

use inver_storage::{Entry, Lsn, SubmitError};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Namespace;
use crate::exchange::{Exchange, RouteTarget};
use crate::rows;

/// Rows of bindings that are deleted in one entry. An object with more is deleted with the first of them: the next start
/// removes bindings that lead from or to nothing.
const ROWS_PER_ENTRY: usize = 1024;

/// What leaves; nothing of it has changed yet.
#[derive(Default)]
pub(super) struct Leaving {
    exchanges: Vec<Arc<Exchange>>,
    /// Rows of bindings.
    rows: Vec<u64>,
    /// Bindings that each auto-delete exchange loses, by its address.
    lost: FxHashMap<usize, usize>,
    /// Auto-delete exchanges that lost their last binding.
    unbound: Vec<Arc<Exchange>>,
}

impl Leaving {
    /// A binding leaves, with its exchange if that deletes itself.
    pub(super) fn binding(&mut self, source: &Arc<Exchange>, row: Option<u64>) {
        self.rows.extend(row);
        if !source.spec().auto_delete {
            return;
        }
        let lost = self.lost.entry(Arc::as_ptr(source).addr()).or_default();
        *lost += 1;
        if *lost == source.binding_count() {
            self.unbound.push(source.clone());
        }
    }

    /// An exchange leaves.
    pub(super) fn exchange(&mut self, exchange: &Arc<Exchange>) {
        self.unbound.push(exchange.clone());
    }
}

impl Namespace {
    /// Adds the bindings that lead to a target.
    pub(super) fn leave_bindings_to(&self, target: &RouteTarget, leaving: &mut Leaving) {
        self.0.origins.for_each_to(target, |source, row| leaving.binding(source, row));
    }

    /// Writes what leaves to the log: its rows with those in `entry`. The position of the last write; none if nothing of
    /// it is in the log. Called under the topology lock.
    pub(super) fn write_leaving(
        &self,
        leaving: &mut Leaving,
        mut entry: Entry,
        submit: impl FnOnce(Entry) -> Result<Lsn, SubmitError>,
    ) -> Result<Option<Lsn>, SubmitError> {
        self.follow_unbound(leaving);
        for exchange in leaving.exchanges.iter().filter(|exchange| exchange.spec().durable) {
            entry.delete(rows::EXCHANGES, rows::key(self.0.id, &[exchange.name().as_bytes()]));
        }
        let (first, others) = leaving.rows.split_at(leaving.rows.len().min(ROWS_PER_ENTRY));
        self.delete_binding_rows(first, &mut entry);
        if entry.is_empty() {
            return Ok(None);
        }
        let mut lsn = submit(entry)?;
        for rows in others.chunks(ROWS_PER_ENTRY) {
            let mut entry = Entry::new();
            self.delete_binding_rows(rows, &mut entry);
            lsn = self.log().submit(entry)?.lsn;
        }
        Ok(Some(lsn))
    }

    /// Takes what leaves out of memory, once the log has it.
    pub(super) fn take_out(&self, leaving: Leaving) {
        for exchange in leaving.exchanges {
            self.0.exchanges.write().remove(exchange.name());
            self.tell_exchange("exchange.deleted", &exchange);
            self.tell_bindings_to(&RouteTarget::Exchange(exchange.clone()));
            self.tell_bindings_from(&exchange);
            // First: an exchange that is bound to itself would keep itself alive.
            self.0.origins.unbind_all(&RouteTarget::Exchange(exchange.clone()));
            exchange.for_each_binding(|binding| self.0.origins.remove(&exchange, binding));
        }
        self.note_listeners();
    }

    /// Adds what leaves with exchanges, until no further one does.
    fn follow_unbound(&self, leaving: &mut Leaving) {
        let mut seen: FxHashSet<usize> = FxHashSet::default();
        while let Some(exchange) = leaving.unbound.pop() {
            if !seen.insert(Arc::as_ptr(&exchange).addr()) {
                continue;
            }
            exchange.for_each_binding(|binding| leaving.rows.extend(binding.terms().row));
            self.0.origins.for_each_to(&RouteTarget::Exchange(exchange.clone()), |source, row| {
                if !seen.contains(&Arc::as_ptr(source).addr()) {
                    leaving.binding(source, row);
                }
            });
            leaving.exchanges.push(exchange);
        }
    }

    fn delete_binding_rows(&self, rows: &[u64], entry: &mut Entry) {
        for row in rows {
            entry.delete(rows::BINDINGS, rows::key(self.0.id, &[&row.to_be_bytes()]));
        }
    }

    /// Removes rows of bindings that lead from or to nothing: what they belonged to was deleted, and the process ended
    /// before the last of them was.
    pub(crate) fn remove_dangling(&self, rows: &[u64]) -> Result<(), SubmitError> {
        for rows in rows.chunks(ROWS_PER_ENTRY) {
            let mut entry = Entry::new();
            self.delete_binding_rows(rows, &mut entry);
            self.log().submit(entry)?;
        }
        Ok(())
    }
}
