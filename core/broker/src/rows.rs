//! Rows of the model's tables.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::spec::{Mode, NamespaceSpec, QueueSpec, TopicConfig, TopicKind};
use crate::tables;
use crate::value::Arguments;

pub use crate::tables::RowError;
pub(crate) use crate::tables::{
    BINDINGS, COMMITTED_OFFSETS, EXCHANGES, NAMESPACE_IDS, NAMESPACES, OPAQUE, RETAINED, SESSION_FILTERS,
    SESSION_STATE, SESSIONS, SPILLS, SUBSCRIPTIONS, TOPICS, counted, decode, encode, key, split_counted,
    split_key,
};

/// Version of the rows of namespaces; those of version 1 have a number only.
const NAMESPACE_VERSION: u8 = 2;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NamespaceRow {
    pub(crate) id: u32,
    pub(crate) spec: NamespaceSpec,
}

impl NamespaceRow {
    pub(crate) fn encode(&self) -> Bytes {
        tables::encode_as(NAMESPACE_VERSION, self)
    }

    pub(crate) fn decode(row: &[u8]) -> Result<NamespaceRow, RowError> {
        #[derive(Deserialize)]
        struct Version1 {
            id: u32,
        }
        if row.first() == Some(&1) {
            let Version1 { id } = tables::decode_as(1, NAMESPACES, row)?;
            return Ok(NamespaceRow { id, spec: NamespaceSpec::default() });
        }
        tables::decode_as(NAMESPACE_VERSION, NAMESPACES, row)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::NamespaceLimits;

    #[test]
    fn namespaces_of_both_versions_are_read() {
        let read = NamespaceRow::decode(&[1, 0x85, 0x02]).unwrap();
        assert_eq!(read, NamespaceRow { id: 261, spec: NamespaceSpec::default() });
        let spec = NamespaceSpec {
            description: "d".into(),
            tags: vec!["t".into()],
            default_queue_type: Some("q".into()),
            limits: NamespaceLimits { queues_max: Some(3), ..NamespaceLimits::default() },
            is_protected: true,
        };
        let bytes = [2, 0x85, 0x02, 1, b'd', 1, 1, b't', 1, 1, b'q', 0, 1, 3, 0, 0, 0, 1];
        let row = NamespaceRow { id: 261, spec };
        assert_eq!(row.encode(), bytes.as_slice());
        assert_eq!(NamespaceRow::decode(&bytes).unwrap(), row);
        assert!(NamespaceRow::decode(&[3, 0]).is_err() && NamespaceRow::decode(&[]).is_err());
    }
}
