//! The node that clients see: state that all connections share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use inver_access::Tags;
use inver_broker::{Admission, AdmitError, Broker, ConnectionHandle, Endpoints, Namespace, PermissionScope};
use inver_storage::SubmitError;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::access::Access;
use crate::budget::Budget;
use crate::codec::api::Api;
use crate::codec::text::Str;
use crate::config::KafkaConfig;
use crate::metrics::{Metrics, NAME};
use crate::namespace_node::{self, NamespaceNode};

/// Table of the rows below.
const TABLE: &str = "kafka";
const CLUSTER_ID: &[u8] = b"cluster-id";

/// Characters of a cluster id.
const CLUSTER_ID_CHARS: usize = 22;

/// Leader epoch of every partition: its leader never changes.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// Requests that take long and are handled at a time: a core has others to serve.
fn long_requests_max() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// State that all connections share.
pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) config: KafkaConfig,
    pub(crate) cluster_id: Str,
    /// The APIs answered.
    pub(crate) apis: &'static [Api],
    pub(crate) metrics: Metrics,
    /// Turns of requests that take long: so many are handled at a time, on other threads.
    pub(crate) long_requests: Arc<Semaphore>,
    /// Places of share sessions.
    pub(crate) share_sessions: Arc<Semaphore>,
    /// Memory for large requests being received.
    pub(crate) large_requests: Budget,
    /// Memory for records read from disk for a fetch.
    pub(crate) cold_reads: Budget,
    /// Memory for records read ahead.
    pub(crate) ahead_reads: Budget,
    /// Memory for records in responses that are not sent yet.
    pub(crate) fetched: Budget,
    /// What the connections of each namespace share, by the namespace's number; made for its first connection.
    namespaces: Mutex<HashMap<u32, Arc<NamespaceNode>>>,
    /// What a client has before it is authenticated: nothing that is answered then uses it.
    before_login: Access,
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
        namespace_node::sweep(&broker)?;
        let default = broker.default_namespace();
        let node = Arc::new(NamespaceNode::new(&broker, default.clone(), &config));
        let nobody = PermissionScope {
            user: None,
            external_tags: Some(Tags::default()),
            client_id: "".into(),
            namespace: default.shared_name(),
            protocol: NAME,
            peer: SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let node = Node {
            namespaces: Mutex::new(HashMap::from([(default.id(), node.clone())])),
            before_login: Access {
                node,
                namespace: default,
                permissions: broker.access().permissions(nobody),
            },
            cluster_id: Str::from_utf8(cluster_id).unwrap_or_default(),
            apis,
            metrics: Metrics::new(apis),
            long_requests: Arc::new(Semaphore::new(long_requests_max())),
            share_sessions: Arc::new(Semaphore::new(config.limits.share_sessions_max)),
            large_requests: Budget::new(config.limits.large_requests_bytes_max),
            cold_reads: Budget::new(config.limits.fetched_bytes_max),
            ahead_reads: Budget::new(config.limits.read_ahead_bytes_max),
            fetched: Budget::new(config.limits.fetched_bytes_max),
            broker,
            config,
        };
        node.add_memory_shares();
        Ok(node)
    }

    /// Has the broker show what the buffers of all connections use.
    fn add_memory_shares(&self) {
        let shares = [
            ("kafka_requests", vec![self.large_requests.clone()]),
            ("kafka_fetches", vec![self.cold_reads.clone(), self.ahead_reads.clone(), self.fetched.clone()]),
        ];
        for (share, budgets) in shares {
            let used_bytes = move || budgets.iter().map(Budget::used_bytes).sum();
            self.broker.add_memory_share(share, used_bytes);
        }
    }

    /// Admits an authenticated client.
    pub(crate) fn admit(&self, admission: &Admission<'_>) -> Result<(Access, ConnectionHandle), AdmitError> {
        let admitted = self.broker.admit(admission)?;
        let (namespace, permissions) = (admitted.sessions.namespace(), admitted.permissions);
        let node = self.namespace_node(namespace);
        let namespace = namespace.on_behalf_of(&permissions);
        Ok((Access { node, namespace, permissions }, admitted.connection))
    }

    /// What the connections of a namespace share.
    fn namespace_node(&self, namespace: &Namespace) -> Arc<NamespaceNode> {
        if !self.namespaces.lock().contains_key(&namespace.id()) {
            self.forget_deleted();
        }
        let mut namespaces = self.namespaces.lock();
        if let Some(known) = namespaces.get(&namespace.id()) {
            return known.clone();
        }
        let new = Arc::new(NamespaceNode::new(&self.broker, namespace.clone(), &self.config));
        namespaces.insert(namespace.id(), new.clone());
        new
    }

    /// Drops what belongs to namespaces that were deleted.
    pub(crate) fn forget_deleted(&self) {
        self.namespaces.lock().retain(|_, node| {
            let is_deleted = node.namespace.is_deleted();
            if is_deleted {
                node.coordinator.end();
            }
            !is_deleted
        });
    }

    /// What a client has before it is authenticated.
    pub(crate) fn before_login(&self) -> Access {
        self.before_login.clone()
    }

    /// The host and port advertised to a client.
    pub(crate) fn advertised_address(&self, endpoints: &Endpoints) -> (Str, i32) {
        let local = endpoints.local;
        match &endpoints.listener.advertised {
            Some((host, port)) => (Str::from(host.as_str()), i32::from(*port)),
            None => (Str::from(local.ip().to_canonical().to_string()), i32::from(local.port())),
        }
    }

    /// Wall-clock time in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.broker.clock().now_ms()
    }
}
