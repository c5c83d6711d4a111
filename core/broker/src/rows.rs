//! What the model keeps as state in the log: the tables, their keys and rows.
//!
//! A row is a `serde` value in the `postcard` encoding, behind one byte that says its version.

use bytes::Bytes;
use inver_storage::TableId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::{Mode, QueueSpec, TopicConfig, TopicKind};
use crate::value::Arguments;

/// Namespaces: name → [`NamespaceRow`].
pub(crate) const NAMESPACES: TableId = TableId(1);
/// Topics: namespace, name → [`TopicRow`].
pub(crate) const TOPICS: TableId = TableId(2);
/// Exchanges: namespace, name → [`crate::ExchangeSpec`].
pub(crate) const EXCHANGES: TableId = TableId(3);
/// Bindings: namespace, number → [`BindingRow`].
pub(crate) const BINDINGS: TableId = TableId(4);
/// Named subscriptions of log topics: namespace, topic, 0, name → [`SubscriptionRow`].
pub(crate) const SUBSCRIPTIONS: TableId = TableId(5);
/// Sessions: namespace, client id → [`SessionRow`].
pub(crate) const SESSIONS: TableId = TableId(6);
/// What sessions subscribed to: namespace, client id with its length, filter's text → [`SessionFilterRow`].
pub(crate) const SESSION_FILTERS: TableId = TableId(7);
/// Opaque state of sessions: namespace, client id with its length, key → bytes.
pub(crate) const SESSION_STATE: TableId = TableId(8);
/// Retained values: namespace, slashed address → a batch of one record.
pub(crate) const RETAINED: TableId = TableId(9);
/// Committed offsets: namespace, group, 0, topic, 0, partition → [`crate::CommittedOffset`].
pub(crate) const COMMITTED_OFFSETS: TableId = TableId(10);
/// Opaque state of protocols: name, 0, key → bytes.
pub(crate) const OPAQUE: TableId = TableId(11);

/// Streams of queues in memory that went on in the log: stream → nothing. Deleted at a start.
pub(crate) const SPILLS: TableId = TableId(12);

const ROW_VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
pub(crate) struct NamespaceRow {
    pub(crate) id: u32,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct TopicRow {
    pub(crate) id: u128,
    pub(crate) kind: TopicKind,
    pub(crate) streams: Vec<u64>,
    pub(crate) config: TopicConfig,
    /// For queues: what it was declared as, and its cursor.
    pub(crate) queue: Option<(QueueSpec, u64)>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct BindingRow {
    pub(crate) source: String,
    pub(crate) to_exchange: bool,
    pub(crate) destination: String,
    pub(crate) key: Vec<u8>,
    /// The key is a slashed filter; else it is as the exchange's kind has it.
    pub(crate) slashed: bool,
    pub(crate) arguments: Arguments,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SubscriptionRow {
    pub(crate) mode: Mode,
    pub(crate) cursors: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SessionRow {
    pub(crate) stream: u64,
    pub(crate) cursor: u64,
    /// Seconds that it lives on without a connection; none for ever.
    pub(crate) expiry_s: Option<u32>,
    /// When its connection ended; none while there is one.
    pub(crate) detached_ms: Option<i64>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SessionFilterRow {
    pub(crate) guaranteed: bool,
    pub(crate) no_local: bool,
    pub(crate) opaque: Vec<u8>,
}

/// A row that cannot be read: written by another version, or damaged in a way that no checksum saw.
#[derive(Debug, thiserror::Error)]
#[error("a row of table {table} cannot be read: {reason}")]
pub struct RowError {
    table: u16,
    reason: String,
}

pub(crate) fn encode<T: Serialize>(row: &T) -> Bytes {
    let start = vec![ROW_VERSION];
    // Writing to memory fails for values that postcard has no form for; the rows have none of those.
    postcard::to_extend(row, start).map(Bytes::from).unwrap_or_default()
}

pub(crate) fn decode<T: DeserializeOwned>(table: TableId, row: &[u8]) -> Result<T, RowError> {
    let error = |reason: String| RowError { table: table.0, reason };
    match row.split_first() {
        Some((&ROW_VERSION, rest)) => postcard::from_bytes(rest).map_err(|e| error(e.to_string())),
        Some((version, _)) => {
            Err(error(format!("its version is {version}, this program writes {ROW_VERSION}")))
        }
        None => Err(error("it is empty".to_owned())),
    }
}

/// A key: the namespace's number, then the parts.
pub(crate) fn key(namespace: u32, parts: &[&[u8]]) -> Bytes {
    let mut out = namespace.to_be_bytes().to_vec();
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out.into()
}

/// The namespace's number of a key, and the rest.
pub(crate) fn split_key(key: &Bytes) -> Option<(u32, Bytes)> {
    let number = key.get(..4)?.try_into().ok()?;
    Some((u32::from_be_bytes(number), key.slice(4..)))
}

/// A part with its length before it.
pub(crate) fn counted(part: &[u8]) -> Vec<u8> {
    let mut out = (part.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(part);
    out
}

/// Splits off a part written by [`counted`].
pub(crate) fn split_counted(key: &Bytes) -> Option<(Bytes, Bytes)> {
    let len = u32::from_be_bytes(key.get(..4)?.try_into().ok()?) as usize;
    (key.len() >= 4 + len).then(|| (key.slice(4..4 + len), key.slice(4 + len..)))
}
