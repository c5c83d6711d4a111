//! Rows of the model's tables.

use serde::{Deserialize, Serialize};

use crate::spec::{Mode, QueueSpec, TopicConfig, TopicKind};
use crate::value::Arguments;

pub use crate::tables::RowError;
pub(crate) use crate::tables::{
    BINDINGS, COMMITTED_OFFSETS, EXCHANGES, NAMESPACES, OPAQUE, RETAINED, SESSION_FILTERS, SESSION_STATE,
    SESSIONS, SPILLS, SUBSCRIPTIONS, TOPICS, counted, decode, encode, key, split_counted, split_key,
};

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
    /// The key is a slashed filter; else its form is that of the exchange's kind.
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
    /// Seconds that it outlives its connection; none: never expires.
    pub(crate) expiry_s: Option<u32>,
    /// When its connection ended, milliseconds since 1970; none while it has one.
    pub(crate) detached_ms: Option<i64>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SessionFilterRow {
    pub(crate) guaranteed: bool,
    pub(crate) no_local: bool,
    pub(crate) opaque: Vec<u8>,
}
