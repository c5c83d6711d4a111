//! Recovery: restores the namespaces and their sessions from the rows in the log.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use inver_storage::{Entry, Log, SubmitError, TableId};

use super::{BrokerError, Parts, sweep};
use crate::access::Permissions;
use crate::namespace::Namespace;
use crate::removal::Removal;
use crate::rows::{
    self, BindingOwner, DeliveredRow, NamespaceRow, RowError, decode, split_counted, split_key,
};
use crate::session::{SessionCore, Sessions, WillRow};

/// Namespaces, with their sessions, by id.
type ById = HashMap<u32, Sessions>;

/// What was restored.
pub(super) struct Recovered {
    /// All namespaces by name.
    pub(super) namespaces: HashMap<Box<str>, Sessions>,
    /// The number that the next namespace gets.
    pub(super) next_id: u32,
    /// Wills of clients whose sessions ended with the process, with their client ids.
    pub(super) wills: Vec<(Sessions, String, WillRow)>,
}

/// Restores all namespaces.
pub(super) fn recover(parts: &Parts) -> Result<Recovered, BrokerError> {
    let log = &parts.log;
    let mut next_id = 1;
    let mut deleted = HashSet::new();
    for (key, row) in log.recovered_state(rows::NAMESPACE_IDS) {
        match split_key(&key) {
            Some((id, _)) => {
                deleted.insert(id);
            }
            None => next_id = decode(rows::NAMESPACE_IDS, &row)?,
        }
    }
    let mut retained: HashMap<u32, Vec<(Vec<u8>, Bytes)>> = HashMap::new();
    for (key, value) in log.recovered_state(rows::RETAINED) {
        if let Some((namespace, address)) = split_key(&key) {
            retained.entry(namespace).or_default().push((address.to_vec(), value));
        }
    }
    let mut by_id = ById::new();
    let mut by_name = HashMap::new();
    for (name, row) in log.recovered_state(rows::NAMESPACES) {
        let row = NamespaceRow::decode(&row)?;
        next_id = next_id.max(row.id.saturating_add(1));
        let name = String::from_utf8_lossy(&name).into_owned();
        let sessions =
            parts.make_namespace(row.id, &name, row.spec, retained.remove(&row.id).unwrap_or_default());
        by_id.insert(row.id, sessions.clone());
        by_name.insert(name.into(), sessions);
    }
    if !deleted.is_empty() {
        sweep::sweep(log, &deleted)?;
    }
    recover_deliveries(parts)?;
    recover_topology(parts, &by_id)?;
    recover_offsets(log, &by_id)?;
    recover_sequences(log, &by_id)?;
    recover_transactions(log, &by_id)?;
    recover_sessions(log, &by_id)?;
    by_id.values().for_each(Sessions::end_empty_groups);
    by_id.values().for_each(|sessions| sessions.namespace().end_owned_queues());
    let mut wills = Vec::new();
    each(log, rows::WILLS, &by_id, |sessions, key, row| {
        wills.push((sessions.clone(), text(&key), decode(rows::WILLS, &row)?));
        Ok(())
    })?;
    sweep_spills(log)?;
    for sessions in by_id.values() {
        let namespace = sessions.namespace();
        tracing::info!(
            namespace = namespace.name(),
            topics = namespace.topic_count(),
            queues = namespace.queue_count(),
            sessions = sessions.len(),
            "restored namespace"
        );
    }
    Ok(Recovered { namespaces: by_name, next_id, wills })
}

/// Counts what was with consumers when an earlier process ended as delivered, and forgets what is acknowledged.
fn recover_deliveries(parts: &Parts) -> Result<(), BrokerError> {
    let log = &parts.log;
    let mut entry = Entry::new();
    let mut redeliveries = parts.redeliveries.lock();
    for (key, value) in log.recovered_state(rows::DELIVERED) {
        let cursor = key.first_chunk::<8>().map(|id| u64::from_be_bytes(*id));
        let mut row: DeliveredRow = decode(rows::DELIVERED, &value)?;
        let before = row.clone();
        // A row may be written in the moment in which its cursor is deleted.
        let cursor_of = |id: u64| {
            let cursor = log.cursor(id.into())?;
            Some((cursor.position().0, log.stream(cursor.stream())?.next_offset().0))
        };
        match cursor.and_then(cursor_of) {
            Some((position, end)) => row.recover(position, end),
            None => row = DeliveredRow::default(),
        }
        if row.is_empty() {
            entry.delete(rows::DELIVERED, key);
            continue;
        }
        let value = rows::encode(&row);
        if row != before {
            entry.put(rows::DELIVERED, key, value.clone());
        }
        redeliveries.extend(cursor.map(|id| (id, value)));
    }
    if !entry.is_empty() {
        log.submit(entry)?;
    }
    Ok(())
}

/// Restores topics, queues, exchanges, bindings and subscriptions, in an order in which each finds what it refers to.
fn recover_topology(parts: &Parts, by_id: &ById) -> Result<(), BrokerError> {
    let log = &parts.log;
    // One for all bindings of a client.
    let mut readers: HashMap<(String, BindingOwner), Arc<Permissions>> = HashMap::new();
    // Bindings that lead from or to nothing, by namespace.
    let mut dangling: HashMap<u32, Vec<u64>> = HashMap::new();
    let mut is_whole = true;
    // Before what they apply to.
    each_in_namespace(log, rows::POLICIES, by_id, |namespace, key, row| {
        namespace.recover_policy(&key, decode(rows::POLICIES, &row)?);
        Ok(())
    })?;
    by_id.values().for_each(|sessions| sessions.namespace().recovered_policies());
    each_in_namespace(log, rows::TOPICS, by_id, |namespace, key, row| {
        is_whole &= namespace.recover_topic(&text(&key), &decode(rows::TOPICS, &row)?);
        Ok(())
    })?;
    each_in_namespace(log, rows::EXCHANGES, by_id, |namespace, key, row| {
        namespace.enter_exchange(&text(&key), decode(rows::EXCHANGES, &row)?);
        Ok(())
    })?;
    each_in_namespace(log, rows::BINDINGS, by_id, |namespace, key, row| {
        if let Some(number) = key.first_chunk::<8>() {
            let (row, owners) = rows::decode_binding(&row)?;
            let readers = owners.into_iter().map(|owner| {
                let key = (namespace.name().to_owned(), owner);
                let reader = readers.entry(key).or_insert_with_key(|(namespace, owner)| {
                    parts.access.permissions(owner.scope(namespace))
                });
                reader.clone()
            });
            let readers = readers.collect();
            let number = u64::from_be_bytes(*number);
            if !namespace.recover_binding(number, &row, readers) {
                dangling.entry(namespace.id()).or_default().push(number);
            }
        }
        Ok(())
    })?;
    for (namespace, rows) in dangling {
        let bindings = rows.len();
        match by_id.get(&namespace).filter(|_| is_whole) {
            Some(sessions) => {
                sessions.namespace().remove_dangling(&rows)?;
                tracing::info!(bindings, "removed bindings whose queue or exchange was deleted");
            }
            // A queue whose messages are missing may be restored from a backup, and its bindings with it.
            None => tracing::error!(bindings, "bindings skipped in recovery: source or destination missing"),
        }
    }
    each_in_namespace(log, rows::SUBSCRIPTIONS, by_id, |namespace, key, row| {
        namespace.recover_subscription(&key, &decode(rows::SUBSCRIPTIONS, &row)?);
        Ok(())
    })?;
    Ok(())
}

fn recover_offsets(log: &Log, by_id: &ById) -> Result<(), RowError> {
    each_in_namespace(log, rows::COMMITTED_OFFSETS, by_id, |namespace, key, row| {
        let mut parts = key.splitn(3, |b| *b == 0);
        if let (Some(group), Some(topic), Some(partition)) = (parts.next(), parts.next(), parts.next())
            && let Ok(partition) = <[u8; 4]>::try_from(partition)
        {
            let offset = decode(rows::COMMITTED_OFFSETS, &row)?;
            let (group, topic) = (String::from_utf8_lossy(group), String::from_utf8_lossy(topic));
            namespace.committed_offsets().recover(&group, &topic, u32::from_be_bytes(partition), offset);
        }
        Ok(())
    })
}

fn recover_sequences(log: &Log, by_id: &ById) -> Result<(), BrokerError> {
    let mut stale = Vec::new();
    each_in_namespace(log, rows::PUBLISHER_SEQUENCES, by_id, |namespace, key, row| {
        // Rows are deleted after their stream; what was not done by the end of the process is done now.
        let stream = key.first_chunk::<8>().map(|id| u64::from_be_bytes(*id).into());
        if stream.is_some_and(|id| log.stream(id).is_some()) {
            namespace.publisher_sequences().recover(&key, decode(rows::PUBLISHER_SEQUENCES, &row)?);
        } else {
            stale.push(rows::key(namespace.id(), &[&key]));
        }
        Ok(())
    })?;
    let mut removal = Removal::new(log);
    for key in stale {
        removal.row(rows::PUBLISHER_SEQUENCES, key);
        removal.end_of_object()?;
    }
    let _at_start = removal.finish()?;
    Ok(())
}

/// Restores transactions; those that were open go on.
fn recover_transactions(log: &Log, by_id: &ById) -> Result<(), RowError> {
    each_in_namespace(log, rows::TRANSACTIONS, by_id, |namespace, key, row| {
        namespace.transactions().recover(&text(&key), &row)
    })?;
    each_in_namespace(log, rows::TRANSACTION_PARTS, by_id, |namespace, key, row| {
        namespace.transactions().recover_part(&key, &row)
    })
}

fn recover_sessions(log: &Log, by_id: &ById) -> Result<(), BrokerError> {
    let mut recovered: BTreeMap<(u32, Bytes), Arc<SessionCore>> = BTreeMap::new();
    each(log, rows::SESSIONS, by_id, |sessions, key, row| {
        let client_id = text(&key);
        match sessions.recover(&client_id, &rows::decode_session(&row)?) {
            Some(core) => {
                recovered.insert((sessions.namespace().id(), key), core);
            }
            None => tracing::error!(client_id, "session skipped in recovery: inbox missing"),
        }
        Ok(())
    })?;
    let of = |sessions: &Sessions, key: &Bytes| {
        let (client_id, rest) = split_counted(key)?;
        Some((recovered.get(&(sessions.namespace().id(), client_id))?, rest))
    };
    each(log, rows::SESSION_FILTERS, by_id, |sessions, key, row| {
        if let Some((core, filter)) = of(sessions, &key) {
            core.recover_filter(&filter, rows::decode_filter(&row)?);
        }
        Ok(())
    })?;
    each(log, rows::SESSION_STATE, by_id, |sessions, key, value| {
        if let Some((core, key)) = of(sessions, &key) {
            core.recover_blob(&key, value);
        }
        Ok(())
    })?;
    for core in recovered.values() {
        let _ = core.recovered()?;
    }
    Ok(())
}

/// Deletes what queues in memory of an earlier process spilled to the log.
fn sweep_spills(log: &Log) -> Result<(), SubmitError> {
    let mut entry = Entry::new();
    for (key, _) in log.recovered_state(rows::SPILLS) {
        if let Some(id) = key.first_chunk::<8>() {
            entry.delete_stream(u64::from_be_bytes(*id).into());
        }
        entry.delete(rows::SPILLS, key);
    }
    if entry.is_empty() { Ok(()) } else { log.submit(entry).map(|_| ()) }
}

fn each_in_namespace(
    log: &Log,
    table: TableId,
    by_id: &ById,
    mut f: impl FnMut(&Namespace, Bytes, Bytes) -> Result<(), RowError>,
) -> Result<(), RowError> {
    each(log, table, by_id, |sessions, key, value| f(sessions.namespace(), key, value))
}

fn each(
    log: &Log,
    table: TableId,
    by_id: &ById,
    mut f: impl FnMut(&Sessions, Bytes, Bytes) -> Result<(), RowError>,
) -> Result<(), RowError> {
    for (key, value) in log.recovered_state(table) {
        if let Some((id, rest)) = split_key(&key)
            && let Some(sessions) = by_id.get(&id)
        {
            f(sessions, rest, value)?;
        }
    }
    Ok(())
}

fn text(key: &Bytes) -> String {
    String::from_utf8_lossy(key).into_owned()
}
