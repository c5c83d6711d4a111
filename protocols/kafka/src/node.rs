//! The node that clients see: state that all connections share.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use inver_broker::{Broker, Namespace};
use inver_storage::{Lsn, SubmitError};
use parking_lot::Mutex;

use crate::budget::Budget;
use crate::codec::api::Api;
use crate::codec::text::Str;
use crate::config::KafkaConfig;
use crate::coordinator::Coordinator;
use crate::metrics::Metrics;

/// Table of the rows below.
const TABLE: &str = "kafka";
const CLUSTER_ID: &[u8] = b"cluster-id";
const NEXT_PRODUCER_ID: &[u8] = b"next-producer-id";

/// Characters of a cluster id.
const CLUSTER_ID_CHARS: usize = 22;

/// Producer ids reserved with one write.
const PRODUCER_ID_BLOCK: u64 = 1000;

/// Leader epoch of every partition: its leader never changes.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// State that all connections share.
pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) namespace: Namespace,
    pub(crate) config: KafkaConfig,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) cluster_id: Str,
    /// The APIs answered.
    pub(crate) apis: &'static [Api],
    pub(crate) metrics: Metrics,
    /// Memory for large requests being received.
    pub(crate) large_requests: Budget,
    /// Memory for records read from disk for a fetch.
    pub(crate) cold_reads: Budget,
    /// Memory for records read ahead.
    pub(crate) ahead_reads: Budget,
    /// Memory for records in responses that are not sent yet.
    pub(crate) fetched: Budget,
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

impl Node {
    /// The node with its stored state.
    pub(crate) fn new(
        broker: Broker,
        config: KafkaConfig,
        apis: &'static [Api],
    ) -> Result<Node, SubmitError> {
        let cluster_id = match broker.state(TABLE, CLUSTER_ID) {
            Some(id) => id,
            None => {
                let new = uuid::Uuid::new_v4().simple().to_string();
                let new = Bytes::from(new).slice(..CLUSTER_ID_CHARS);
                broker.put_state(TABLE, CLUSTER_ID, new.clone())?;
                new
            }
        };
        let namespace = broker.default_namespace();
        let coordinator = Coordinator::new(
            broker.clone(),
            namespace.clone(),
            config.groups.clone(),
            config.limits.groups_max,
        );
        Ok(Node {
            namespace,
            coordinator,
            cluster_id: Str::from_utf8(cluster_id).unwrap_or_default(),
            apis,
            metrics: Metrics::new(apis),
            large_requests: Budget::new(config.limits.large_requests_bytes_max),
            cold_reads: Budget::new(config.limits.fetched_bytes_max),
            ahead_reads: Budget::new(config.limits.read_ahead_bytes_max),
            fetched: Budget::new(config.limits.fetched_bytes_max),
            producer_ids: Mutex::default(),
            broker,
            config,
        })
    }

    /// The host and port advertised to a client that connected to `local`.
    pub(crate) fn advertised_address(&self, local: SocketAddr) -> (Str, i32) {
        match &self.config.advertised {
            Some((host, port)) => (Str::from(host.as_str()), i32::from(*port)),
            None => (Str::from(local.ip().to_canonical().to_string()), i32::from(local.port())),
        }
    }

    /// Wall-clock time in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.broker.clock().now_ms()
    }

    /// A new producer id, to be sent once the log has committed the position.
    pub(crate) fn producer_id(&self) -> Result<(i64, Lsn), SubmitError> {
        let mut ids = self.producer_ids.lock();
        if ids.next == ids.end {
            let stored = |value: Option<&Bytes>| {
                value.and_then(|value| value.first_chunk()).map_or(0, |chunk| u64::from_be_bytes(*chunk))
            };
            let mut start = 0;
            let (_, lsn) = self.broker.update_state(TABLE, NEXT_PRODUCER_ID, |value| {
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
