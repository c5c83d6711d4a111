//! The one node that clients see: what all connections share.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use inver_broker::{Broker, Namespace};
use inver_storage::{Lsn, SubmitError};
use parking_lot::Mutex;

use crate::budget::Budget;
use crate::codec::api_key::Api;
use crate::codec::text::Str;
use crate::config::KafkaConfig;
use crate::coordinator::Coordinator;

/// Table of the small facts below.
const TABLE: &str = "kafka";
const CLUSTER_ID: &[u8] = b"cluster-id";
const NEXT_PRODUCER_ID: &[u8] = b"next-producer-id";

/// Producer ids that are set aside in one go.
const PRODUCER_ID_BLOCK: u64 = 1000;

/// A partition's leader never changes, so its epoch is always the first.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// What all connections share.
pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) namespace: Namespace,
    pub(crate) config: KafkaConfig,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) cluster_id: Str,
    pub(crate) metrics: Metrics,
    /// Room for large requests on their way in, for what was read from the disk or is
    /// read before it is asked for, and for what is on its way out.
    pub(crate) large_requests: Budget,
    pub(crate) cold_reads: Budget,
    pub(crate) ahead_reads: Budget,
    pub(crate) fetched: Budget,
    producer_ids: Mutex<ProducerIds>,
}

/// Ids set aside and not given yet.
#[derive(Default)]
struct ProducerIds {
    next: u64,
    end: u64,
    /// They may be used when the log has committed this.
    lsn: Lsn,
}

/// Counters, looked up once.
pub(crate) struct Metrics {
    requests: Vec<metrics::Counter>,
    pub(crate) produced_bytes: metrics::Counter,
    pub(crate) produced_records: metrics::Counter,
    pub(crate) fetched_bytes: metrics::Counter,
}

impl Metrics {
    fn new() -> Metrics {
        let request = |api: &Api| metrics::counter!("inver_kafka_requests_total", "api" => api.name);
        Metrics {
            requests: Api::ALL.iter().map(request).collect(),
            produced_bytes: metrics::counter!("inver_kafka_produced_bytes_total"),
            produced_records: metrics::counter!("inver_kafka_produced_records_total"),
            fetched_bytes: metrics::counter!("inver_kafka_fetched_bytes_total"),
        }
    }

    pub(crate) fn request(&self, api: &Api) {
        let place = Api::ALL.iter().position(|known| known.key == api.key);
        if let Some(counter) = place.and_then(|place| self.requests.get(place)) {
            counter.increment(1);
        }
    }
}

impl Node {
    /// Takes up what an earlier run of the broker left.
    pub(crate) fn new(broker: Broker, config: KafkaConfig) -> Result<Node, SubmitError> {
        let cluster_id = match broker.state(TABLE, CLUSTER_ID) {
            Some(id) => id,
            None => {
                let fresh = uuid::Uuid::new_v4().simple().to_string();
                let fresh = Bytes::from(fresh).slice(..22);
                broker.put_state(TABLE, CLUSTER_ID, fresh.clone())?;
                fresh
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
            metrics: Metrics::new(),
            large_requests: Budget::new(config.limits.large_requests_bytes_max),
            cold_reads: Budget::new(config.limits.fetched_bytes_max),
            ahead_reads: Budget::new(config.limits.read_ahead_bytes_max),
            fetched: Budget::new(config.limits.fetched_bytes_max),
            producer_ids: Mutex::default(),
            broker,
            config,
        })
    }

    /// Where the client that reached `local` is told to connect to.
    pub(crate) fn address(&self, local: SocketAddr) -> (Str, i32) {
        match &self.config.advertised {
            Some((host, port)) => (Str::from(host.as_str()), i32::from(*port)),
            None => (Str::from(local.ip().to_canonical().to_string()), i32::from(local.port())),
        }
    }

    /// An id for a producer that nobody had before; to be told when the log has committed the position.
    pub(crate) fn producer_id(&self) -> Result<(i64, Lsn), SubmitError> {
        let mut ids = self.producer_ids.lock();
        if ids.next == ids.end {
            let first = |value: Option<&Bytes>| {
                value.and_then(|value| value.first_chunk()).map_or(0, |chunk| u64::from_be_bytes(*chunk))
            };
            let mut start = 0;
            let (_, lsn) = self.broker.update_state(TABLE, NEXT_PRODUCER_ID, |value| {
                start = first(value);
                Bytes::copy_from_slice(&(start + PRODUCER_ID_BLOCK).to_be_bytes())
            })?;
            *ids = ProducerIds { next: start, end: start + PRODUCER_ID_BLOCK, lsn };
        }
        let id = ids.next;
        ids.next += 1;
        Ok((i64::try_from(id).unwrap_or(i64::MAX), ids.lsn))
    }
}
