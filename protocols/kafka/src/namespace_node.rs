//! What the connections of one namespace share: to its clients it is a cluster of its own.

mod shared_answer;

use std::sync::Arc;

use bytes::Bytes;
use inver_broker::{Broker, Namespace};
use inver_storage::{Lsn, SubmitError};
use parking_lot::Mutex;

use self::shared_answer::SharedAnswer;
use crate::config::KafkaConfig;
use crate::coordinator::{self, Coordinator};
use crate::namespace_rows::{self, NamespaceRows, Tables};

/// Tables of the row below.
const TABLES: Tables = Tables { plain: "kafka", numbered: "kafka-of" };
const NEXT_PRODUCER_ID: &[u8] = b"next-producer-id";

/// Producer ids reserved with one write.
const PRODUCER_ID_BLOCK: u64 = 1000;

/// What the connections of one namespace share.
pub(crate) struct NamespaceNode {
    pub(crate) namespace: Namespace,
    pub(crate) coordinator: Arc<Coordinator>,
    /// The topics in responses to Metadata, by the topology's version, the message's, and whether operations are told.
    pub(crate) topics: SharedAnswer<(u64, i16, bool)>,
    rows: NamespaceRows,
    producer_ids: Mutex<ProducerIds>,
}

/// Producer ids that are reserved and not assigned yet.
#[derive(Default)]
struct ProducerIds {
    next: u64,
    end: u64,
    /// Log position of the reservation.
    lsn: Lsn,
}

impl NamespaceNode {
    /// The part of a namespace, with its stored state.
    pub(crate) fn new(broker: &Broker, namespace: Namespace, config: &KafkaConfig) -> NamespaceNode {
        NamespaceNode {
            coordinator: Coordinator::new(broker.clone(), namespace.clone(), config),
            rows: NamespaceRows::new(broker.clone(), TABLES, &namespace),
            producer_ids: Mutex::default(),
            topics: SharedAnswer::default(),
            namespace,
        }
    }

    /// A new producer id, to be sent once the log has committed the position.
    pub(crate) fn producer_id(&self) -> Result<(i64, Lsn), SubmitError> {
        let mut ids = self.producer_ids.lock();
        if ids.next == ids.end {
            let stored = |value: Option<&Bytes>| {
                value.and_then(|value| value.first_chunk()).map_or(0, |chunk| u64::from_be_bytes(*chunk))
            };
            let mut start = 0;
            let (_, lsn) = self.rows.update(NEXT_PRODUCER_ID, |value| {
                start = stored(value);
                Bytes::copy_from_slice(&(start + PRODUCER_ID_BLOCK).to_be_bytes())
            })?;
            *ids = ProducerIds { next: start, end: start + PRODUCER_ID_BLOCK, lsn };
        }
        let id = ids.next;
        ids.next += 1;
        Ok((i64::try_from(id).unwrap_or(i64::MAX), ids.lsn))
    }
}

/// Deletes the rows of namespaces that are gone.
pub(crate) fn sweep(broker: &Broker) -> Result<(), SubmitError> {
    namespace_rows::sweep(broker, TABLES)?;
    namespace_rows::sweep(broker, coordinator::TABLES)?;
    namespace_rows::sweep(broker, coordinator::CONSUMER_TABLES)?;
    namespace_rows::sweep(broker, coordinator::SHARE_TABLES)?;
    namespace_rows::sweep(broker, coordinator::SETTING_TABLES)
}
