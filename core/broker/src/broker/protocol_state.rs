//! State that protocols keep in the log: opaque rows in tables of their choice.

use bytes::Bytes;
use inver_storage::{Entry, Lsn, SubmitError};

use super::Broker;
use crate::{Completion, rows};

/// A change of a row of a protocol's table.
#[derive(Clone, Debug)]
pub struct StateChange {
    key: Bytes,
    value: Option<Bytes>,
}

impl StateChange {
    /// Sets a row of a table, or deletes it.
    #[must_use]
    pub fn new(table: &str, key: &[u8], value: Option<Bytes>) -> StateChange {
        StateChange { key: row_key(table, key), value }
    }
}

impl Broker {
    /// A row of a protocol's table.
    #[must_use]
    pub fn state(&self, table: &str, key: &[u8]) -> Option<Bytes> {
        self.0.protocol_state.read().get(&row_key(table, key)).cloned()
    }

    /// All rows of a protocol's table, by key.
    #[must_use]
    pub fn states(&self, table: &str) -> Vec<(Bytes, Bytes)> {
        let prefix = row_key(table, b"");
        let state = self.0.protocol_state.read();
        let of_table = state.iter().filter(|(key, _)| key.starts_with(&prefix));
        of_table.map(|(key, value)| (key.slice(prefix.len()..), value.clone())).collect()
    }

    /// Deletes a row; durable once the log has committed the returned position.
    pub fn delete_state(&self, table: &str, key: &[u8]) -> Result<Lsn, SubmitError> {
        self.submit_states(vec![StateChange::new(table, key, None)])
    }

    /// Changes rows, of one table or of several, all or none of them.
    pub fn change_states(&self, changes: Vec<StateChange>) -> Result<Completion, SubmitError> {
        match changes.is_empty() {
            true => Ok(Completion::Now),
            false => self.submit_states(changes).map(Completion::At),
        }
    }

    fn submit_states(&self, changes: Vec<StateChange>) -> Result<Lsn, SubmitError> {
        let mut state = self.0.protocol_state.write();
        let mut entry = Entry::new();
        for StateChange { key, value } in &changes {
            match value {
                Some(value) => entry.put(rows::OPAQUE, key.clone(), value.clone()),
                None => entry.delete(rows::OPAQUE, key.clone()),
            }
        }
        let submitted = self.0.parts.log.submit(entry)?;
        for StateChange { key, value } in changes {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
        Ok(submitted.lsn)
    }

    /// Sets a row; durable once the log has committed the returned position.
    pub fn put_state(&self, table: &str, key: &[u8], value: Bytes) -> Result<Lsn, SubmitError> {
        self.update_state(table, key, |_| value).map(|(_, lsn)| lsn)
    }

    /// Sets a row to a function of its present value; the function runs under a lock.
    pub fn update_state(
        &self,
        table: &str,
        key: &[u8],
        update: impl FnOnce(Option<&Bytes>) -> Bytes,
    ) -> Result<(Bytes, Lsn), SubmitError> {
        let key = row_key(table, key);
        let mut state = self.0.protocol_state.write();
        let value = update(state.get(&key));
        let mut entry = Entry::new();
        entry.put(rows::OPAQUE, key.clone(), value.clone());
        let submitted = self.0.parts.log.submit(entry)?;
        state.insert(key, value.clone());
        Ok((value, submitted.lsn))
    }
}

fn row_key(table: &str, key: &[u8]) -> Bytes {
    [table.as_bytes(), &[0], key].concat().into()
}
