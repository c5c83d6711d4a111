//! Removes what is left in the log of namespaces that were deleted: by a deletion that was not finished, or by a connection
//! that did not end in time.

use std::collections::HashSet;

use inver_storage::{Log, TableId};

use super::BrokerError;
use crate::removal::Removal;
use crate::rows::{self, SubscriptionRow, TopicRow, decode, split_key};

/// Tables whose rows begin with the number of their namespace and name no stream.
const PLAIN: [TableId; 11] = [
    rows::EXCHANGES,
    rows::BINDINGS,
    rows::SESSION_FILTERS,
    rows::SESSION_STATE,
    rows::WILLS,
    rows::RETAINED,
    rows::COMMITTED_OFFSETS,
    rows::PUBLISHER_SEQUENCES,
    rows::POLICIES,
    rows::TRANSACTION_PARTS,
    rows::TRANSACTIONS,
];

/// Removes everything of the namespaces of these numbers, and then the notes of their deletion.
pub(super) fn sweep(log: &Log, deleted: &HashSet<u32>) -> Result<(), BrokerError> {
    let rows_of = |table: TableId| {
        let all = log.recovered_state(table).into_iter();
        all.filter(|(key, _)| split_key(key).is_some_and(|(namespace, _)| deleted.contains(&namespace)))
    };
    let mut removal = Removal::new(log);
    // Cursors before the streams that they are on.
    for (key, row) in rows_of(rows::SUBSCRIPTIONS) {
        let row: SubscriptionRow = decode(rows::SUBSCRIPTIONS, &row)?;
        row.cursors.into_iter().for_each(|cursor| removal.cursor(cursor));
        removal.row(rows::SUBSCRIPTIONS, key);
        removal.end_of_object()?;
    }
    for (key, row) in rows_of(rows::SESSIONS) {
        let row = rows::decode_session(&row)?;
        removal.cursor(row.cursor);
        removal.stream(row.stream);
        removal.row(rows::SESSIONS, key);
        removal.end_of_object()?;
    }
    for (key, row) in rows_of(rows::TOPICS) {
        let row: TopicRow = decode(rows::TOPICS, &row)?;
        row.queue.into_iter().for_each(|(_, cursor)| removal.cursor(cursor));
        row.streams.into_iter().for_each(|stream| removal.stream(stream));
        removal.row(rows::TOPICS, key);
        removal.end_of_object()?;
    }
    for table in PLAIN {
        for (key, _) in rows_of(table) {
            removal.row(table, key);
            removal.end_of_object()?;
        }
    }
    // Last: what comes before is in the log before it.
    for namespace in deleted {
        removal.row(rows::NAMESPACE_IDS, rows::key(*namespace, &[]));
    }
    let _at_start = removal.finish()?;
    Ok(())
}
