//! The context of a request: everything that its handler may use beside the request itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use inver_access::Operation;
use inver_broker::{
    AppliedQuotas, Endpoints, Identity, Mailbox, Namespace, Partition, QuotaKind, Topic, TopicId,
};
use tokio::time::Instant;

use super::reply::Refusal;
use crate::access::Access;
use crate::codec::error_code::ErrorCode;
use crate::codec::header::ResponseHeader;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::config::KafkaConfig;
use crate::coordinator::Coordinator;
use crate::fetch::Fetcher;
use crate::map::partition::partition_index;
use crate::node::Node;
use crate::response::throttle_ms;
use crate::sasl::Sasl;
use crate::share::Sharer;
use crate::ticket::{Claim, Ticket};
use crate::traced::TracedClient;

/// The context of one request.
pub(crate) struct RequestContext<'a> {
    /// Header of the response: API, version, correlation id.
    pub(crate) header: ResponseHeader,
    /// Name that the client gives itself.
    pub(crate) client_id: Option<Str>,
    /// What all connections share.
    pub(crate) node: &'a Node,
    /// The connection's two ends.
    pub(crate) endpoints: &'a Endpoints,
    /// The client's namespace, and what it may do.
    pub(crate) access: &'a Access,
    /// The connection's authentication; for the SASL APIs.
    pub(crate) sasl: &'a mut Sasl,
    /// The connection's fetches; for Fetch.
    pub(crate) fetcher: &'a mut Fetcher,
    /// The connection's share sessions, once it has one; for ShareFetch and ShareAcknowledge.
    pub(crate) sharer: &'a mut Option<Box<Sharer>>,
    /// The quotas that concern the client.
    pub(crate) quotas: Option<&'a AppliedQuotas>,
    /// Until when the connection is not read after this request.
    pub(crate) held_until: Option<Instant>,
    /// Bytes of the request.
    pub(crate) request_bytes: usize,
    /// When it came.
    pub(crate) now: Instant,
    pub(crate) topics: &'a mut TopicCache,
    pub(crate) mailbox: &'a Arc<Mailbox>,
    /// Whether it is handled on a thread where it may take long.
    pub(crate) is_detached: bool,
}

impl<'a> RequestContext<'a> {
    /// Version of the request.
    pub(crate) fn version(&self) -> i16 {
        self.header.version.number
    }

    /// The authenticated client; `None` before authentication.
    pub(crate) fn principal(&self) -> Option<&Identity> {
        self.sasl.identity()
    }

    /// The client, for its spans.
    pub(crate) fn traced_client(&self) -> TracedClient<'_> {
        let client_id = self.client_id.as_deref().unwrap_or_default().into();
        TracedClient { client_id, namespace: self.namespace() }
    }

    /// Takes what a produce request used of the client's quotas. Returns for how long its next requests wait, milliseconds.
    pub(crate) fn take_produced(&self, records: u64) -> i32 {
        let Some(quotas) = self.quotas else { return 0 };
        quotas.take(QuotaKind::BytesIn, self.request_bytes as f64, self.now);
        quotas.take(QuotaKind::MessagesIn, records as f64, self.now);
        throttle_ms(quotas.delay_in(self.now))
    }

    /// Takes partitions that are to be created or deleted from the client's quota (KIP-599). In versions of an API from
    /// `strict_since` on that is refused while the quota is used up.
    pub(crate) fn take_mutations(&mut self, partitions: usize, strict_since: i16) -> Result<(), Refusal> {
        let Some(quotas) = self.quotas else { return Ok(()) };
        let delay = quotas.delay_after(QuotaKind::Mutations, 0.0, self.now);
        if self.version() >= strict_since && !delay.is_zero() {
            self.hold(delay);
            let text = "The throttling quota has been exceeded.".to_owned();
            return Err((ErrorCode::THROTTLING_QUOTA_EXCEEDED, text));
        }
        quotas.take(QuotaKind::Mutations, partitions as f64, self.now);
        if self.version() < strict_since {
            self.hold(quotas.delay_after(QuotaKind::Mutations, 0.0, self.now));
        }
        Ok(())
    }

    /// Holds the connection back after this request.
    fn hold(&mut self, delay: Duration) {
        if !delay.is_zero() {
            self.held_until = self.held_until.max(Some(self.now + delay));
        }
    }

    /// For how long the client's next requests wait, milliseconds, as responses tell it; 0 where nothing limits it.
    pub(crate) fn throttle_time_ms(&self) -> i32 {
        let Some(quotas) = self.quotas else { return 0 };
        let held = self.held_until.map(|until| until.saturating_duration_since(self.now)).unwrap_or_default();
        // What the turn took so far is counted at its end.
        let used = if quotas.limits(QuotaKind::RequestTime) { self.now.elapsed() } else { Duration::ZERO };
        let time = quotas.delay_after(QuotaKind::RequestTime, used.as_secs_f64(), self.now);
        throttle_ms(held.max(time))
    }

    /// Settings of the protocol.
    pub(crate) fn config(&self) -> &'a KafkaConfig {
        &self.node.config
    }

    /// The namespace that the client's topics are in.
    pub(crate) fn namespace(&self) -> &'a Namespace {
        &self.access.namespace
    }

    /// The coordinator of all groups of the namespace.
    pub(crate) fn coordinator(&self) -> &'a Coordinator {
        &self.access.node.coordinator
    }

    /// The address at which the client reaches this node: host and port.
    pub(crate) fn advertised_address(&self) -> (Str, i32) {
        self.node.advertised_address(self.endpoints)
    }

    /// The topic with this id.
    pub(crate) fn topic_by_id(&mut self, id: Uuid) -> Option<Arc<Topic>> {
        self.topics.get(&self.access.node.namespace, id)
    }

    /// The topic that a request names: by id from version `by_id_since` on, by name before. A client that may not do
    /// `operation` to it does not learn whether it exists.
    pub(crate) fn topic_for(
        &mut self,
        operation: Operation,
        by_id_since: i16,
        name: &str,
        id: Uuid,
    ) -> Result<Arc<Topic>, ErrorCode> {
        if self.version() < by_id_since {
            return self.topic(operation, name);
        }
        let topic = self.topic_by_id(id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
        self.access.check_topic(topic.name(), operation)?;
        Ok(topic)
    }

    /// The topic with this name. A client that may not do `operation` to it does not learn whether it exists.
    pub(crate) fn topic(&self, operation: Operation, name: &str) -> Result<Arc<Topic>, ErrorCode> {
        self.access.check_topic(name, operation)?;
        self.namespace().topic(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// A partition of the topic with this name, likewise.
    pub(crate) fn partition_for(
        &self,
        operation: Operation,
        topic: &str,
        index: i32,
    ) -> Result<Arc<Partition>, ErrorCode> {
        let topic = self.topic(operation, topic)?;
        let partition = partition_index(index).and_then(|index| topic.partition(index));
        partition.ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// A partition of the topic with this name.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<Arc<Partition>> {
        self.namespace().topic(topic)?.partition(partition_index(index)?)
    }

    /// The connection's share sessions.
    pub(crate) fn sharer(&mut self) -> &mut Sharer {
        self.sharer.get_or_insert_with(|| {
            Box::new(Sharer::new(self.fetcher.node(), self.access.clone(), self.mailbox.clone()))
        })
    }

    /// A ticket for a response that another task gives, and the claim for the reply.
    pub(crate) fn defer(&self) -> (Ticket, Claim) {
        Ticket::new(self.mailbox)
    }
}

/// Topics that a connection remembers by id.
const TOPICS_MAX: usize = 10_000;

/// Topics that a connection named by id, until the topology changes. Holds at most [`TOPICS_MAX`].
#[derive(Default)]
pub(crate) struct TopicCache {
    /// The namespace's version that the topics were looked up in.
    version: u64,
    topics: HashMap<Uuid, Option<Arc<Topic>>>,
}

impl TopicCache {
    fn get(&mut self, namespace: &Namespace, id: Uuid) -> Option<Arc<Topic>> {
        let version = namespace.version();
        if self.version != version || self.topics.len() >= TOPICS_MAX {
            *self = TopicCache { version, topics: HashMap::new() };
        }
        self.topics.entry(id).or_insert_with(|| namespace.topic_by_id(TopicId(id.0))).clone()
    }
}
