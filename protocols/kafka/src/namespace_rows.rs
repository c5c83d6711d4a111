//! Rows of the protocol's tables, by namespace.
//!
//! Rows of the namespace `/` have their plain key in a table, as they had before there were other namespaces. Those of
//! the others are in a second table, under the namespace's number and the key.

use bytes::Bytes;
use inver_broker::{Broker, Namespace, StateChange};
use inver_storage::{Lsn, SubmitError};

/// The namespace that always exists.
const DEFAULT_NAMESPACE: &str = "/";

/// Bytes of a namespace's number before a key.
const ID_BYTES: usize = 4;

/// The tables of one kind of row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    /// Rows of the namespace `/`.
    pub(crate) plain: &'static str,
    /// Rows of all other namespaces.
    pub(crate) numbered: &'static str,
}

/// The rows of one namespace.
pub(crate) struct NamespaceRows {
    broker: Broker,
    tables: Tables,
    /// None: the namespace `/`.
    id: Option<u32>,
}

impl NamespaceRows {
    pub(crate) fn new(broker: Broker, tables: Tables, namespace: &Namespace) -> NamespaceRows {
        let id = (namespace.name() != DEFAULT_NAMESPACE).then(|| namespace.id());
        NamespaceRows { broker, tables, id }
    }

    fn table(&self) -> &'static str {
        if self.id.is_some() { self.tables.numbered } else { self.tables.plain }
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        match self.id {
            Some(id) => [&id.to_be_bytes(), key].concat(),
            None => key.to_vec(),
        }
    }

    /// All rows, by key.
    pub(crate) fn all(&self) -> Vec<(Bytes, Bytes)> {
        let rows = self.broker.states(self.table());
        let Some(id) = self.id else { return rows };
        let own = rows.into_iter().filter(|(key, _)| key.starts_with(&id.to_be_bytes()));
        own.map(|(key, value)| (key.slice(ID_BYTES..), value)).collect()
    }

    /// Sets a row.
    pub(crate) fn put(&self, key: &[u8], value: Bytes) -> Result<Lsn, SubmitError> {
        self.broker.put_state(self.table(), &self.key(key), value)
    }

    /// Sets a row to a function of its present value.
    pub(crate) fn update(
        &self,
        key: &[u8],
        update: impl FnOnce(Option<&Bytes>) -> Bytes,
    ) -> Result<(Bytes, Lsn), SubmitError> {
        self.broker.update_state(self.table(), &self.key(key), update)
    }

    /// A change of a row, to be made together with others: a new value, or none.
    pub(crate) fn change(&self, key: &[u8], value: Option<Bytes>) -> StateChange {
        StateChange::new(self.table(), &self.key(key), value)
    }

    /// Deletes a row.
    pub(crate) fn delete(&self, key: &[u8]) -> Result<Lsn, SubmitError> {
        self.broker.delete_state(self.table(), &self.key(key))
    }
}

/// Deletes the rows of namespaces that are gone.
pub(crate) fn sweep(broker: &Broker, tables: Tables) -> Result<(), SubmitError> {
    let present: Vec<u32> = broker.namespaces().iter().map(Namespace::id).collect();
    for (key, _) in broker.states(tables.numbered) {
        let id = key.first_chunk::<ID_BYTES>().map(|id| u32::from_be_bytes(*id));
        if id.is_none_or(|id| !present.contains(&id)) {
            broker.delete_state(tables.numbered, &key)?;
        }
    }
    Ok(())
}
