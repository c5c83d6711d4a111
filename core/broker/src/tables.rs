//! The tables that the model stores in the log, and the form of their keys and rows.
//!
//! A row is a `serde` value in the `postcard` encoding, after one byte for its version.

use bytes::Bytes;
use inver_storage::TableId;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Namespaces: name → `NamespaceRow`.
pub(crate) const NAMESPACES: TableId = TableId(1);
/// Topics: namespace, name → `TopicRow`.
pub(crate) const TOPICS: TableId = TableId(2);
/// Exchanges: namespace, name → `ExchangeSpec`.
pub(crate) const EXCHANGES: TableId = TableId(3);
/// Bindings: namespace, number → `BindingRow`.
pub(crate) const BINDINGS: TableId = TableId(4);
/// Named subscriptions of log topics: namespace, topic, 0, name → `SubscriptionRow`.
pub(crate) const SUBSCRIPTIONS: TableId = TableId(5);
/// Sessions: namespace, client id → `SessionRow`.
pub(crate) const SESSIONS: TableId = TableId(6);
/// Subscriptions of sessions: namespace, client id with its length, filter's text → `SessionFilterRow`.
pub(crate) const SESSION_FILTERS: TableId = TableId(7);
/// State of protocols for sessions: namespace, client id with its length, key → bytes.
pub(crate) const SESSION_STATE: TableId = TableId(8);
/// Retained values: namespace, slashed address → a batch of one record.
pub(crate) const RETAINED: TableId = TableId(9);
/// Committed offsets: namespace, group, 0, topic, 0, partition → `CommittedOffset`.
pub(crate) const COMMITTED_OFFSETS: TableId = TableId(10);
/// State of protocols: table, 0, key → bytes.
pub(crate) const OPAQUE: TableId = TableId(11);

/// Streams that in-memory queues spilled to: stream → nothing. Deleted at start.
pub(crate) const SPILLS: TableId = TableId(12);
/// Users: name → what is known of the user.
pub(crate) const USERS: TableId = TableId(13);
/// Permission rules: id → `Rule`.
pub(crate) const RULES: TableId = TableId(14);
/// Numbers of namespaces, none of which is given twice: under an empty key the one that the next namespace gets; under the
/// numbers of namespaces that were deleted since the last start: nothing.
pub(crate) const NAMESPACE_IDS: TableId = TableId(15);

/// Quotas: `QuotaEntity` in the form of a row → `QuotaLimits`.
pub(crate) const QUOTAS: TableId = TableId(16);

/// Delegation tokens: id → what is known of the token.
pub(crate) const DELEGATION_TOKENS: TableId = TableId(17);
/// What may have been delivered and was not acknowledged: a cursor → `DeliveredRow`.
pub(crate) const DELIVERED: TableId = TableId(18);
/// The broker's clock: an empty key → the last steady time that is known, milliseconds since 1970.
pub(crate) const CLOCK: TableId = TableId(19);

/// Wills of clients whose sessions end with their connections: namespace, client id → `WillRow`.
pub(crate) const WILLS: TableId = TableId(20);

/// Bans: `BanTarget` in the form of a row → `Ban`.
pub(crate) const BANS: TableId = TableId(21);

/// Policies: namespace, kind (0: ordinary, 1: operator), name → `PolicySpec`.
pub(crate) const POLICIES: TableId = TableId(22);

/// Transactions: namespace, transactional id → which producer holds it, and its state.
pub(crate) const TRANSACTIONS: TableId = TableId(23);
/// What open transactions have changed: namespace, transactional id with its length, part → what is known of the part.
pub(crate) const TRANSACTION_PARTS: TableId = TableId(24);

/// How far named publishers have come in streams: namespace, stream, publisher → the greatest number stored.
pub(crate) const PUBLISHER_SEQUENCES: TableId = TableId(25);

const ROW_VERSION: u8 = 1;

/// A row cannot be read: it was written by another version, or is damaged in a way that no checksum detects.
#[derive(Debug, thiserror::Error)]
#[error("a row of table {table} cannot be read: {reason}")]
pub struct RowError {
    table: u16,
    reason: String,
}

pub(crate) fn encode<T: Serialize>(row: &T) -> Bytes {
    encode_as(ROW_VERSION, row)
}

/// Encodes a row of a table whose rows have this version.
pub(crate) fn encode_as<T: Serialize>(version: u8, row: &T) -> Bytes {
    let start = vec![version];
    // Writing to memory fails only for values without a postcard form; rows have none.
    postcard::to_extend(row, start).map(Bytes::from).unwrap_or_default()
}

pub(crate) fn decode<T: DeserializeOwned>(table: TableId, row: &[u8]) -> Result<T, RowError> {
    decode_as(ROW_VERSION, table, row)
}

/// Decodes a row of a table whose rows have this version.
pub(crate) fn decode_as<T: DeserializeOwned>(version: u8, table: TableId, row: &[u8]) -> Result<T, RowError> {
    let error = |reason: String| RowError { table: table.0, reason };
    match row.split_first() {
        Some((of_row, rest)) if *of_row == version => {
            postcard::from_bytes(rest).map_err(|e| error(e.to_string()))
        }
        Some((of_row, _)) => Err(error(format!("its version is {of_row}, this program writes {version}"))),
        None => Err(error("it is empty".to_owned())),
    }
}

/// A key: the namespace's id, then the parts.
pub(crate) fn key(namespace: u32, parts: &[&[u8]]) -> Bytes {
    let mut out = namespace.to_be_bytes().to_vec();
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out.into()
}

/// Splits a key into the namespace's id and the rest.
pub(crate) fn split_key(key: &Bytes) -> Option<(u32, Bytes)> {
    let number = key.get(..4)?.try_into().ok()?;
    Some((u32::from_be_bytes(number), key.slice(4..)))
}

/// A part of a key with its length before it.
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
