//! What requests do. No sockets.
//!
//! A [`Session`] takes whole requests ([`Session::handle`]) and gives whole responses ([`Session::advance`]), in the
//! order of the requests, each as soon as all before it are out and its own condition holds: the log has committed
//! what it acknowledges, the fetch has found enough, the group's coordinator has spoken. A request that waits never
//! keeps later ones from being taken up.
//!
//! One file a family of requests. The rooms with a life of their own: [`group`] (groups of members), `fetch_plan`
//! (what a client wants to read, kept between its fetches).

pub mod group;

mod cluster;
mod configs;
mod fetch;
mod fetch_answer;
mod fetch_cold;
mod fetch_plan;
mod fetch_slot;
mod group_admin;
mod groups;
mod leaders;
mod log_dirs;
mod node_settings;
mod offsets;
mod permissions;
mod pipeline;
mod positions;
mod produce;
mod producers;
mod sasl;
mod settings;
#[cfg(test)]
mod tests;
mod topics;
mod versions;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use inver_broker::{Identity, Mailbox, Topic, TopicId};
use inver_storage::Lsn;

use self::fetch::Fetcher;
use self::pipeline::Pipeline;
use self::sasl::Access;
pub(crate) use self::sasl::Credentials;
use crate::codec::api_key::{Api, key};
use crate::codec::frame::{Frame, FrameWriter, Output, respond};
use crate::codec::header::{self, Header, RequestHeader};
use crate::codec::reader::Reader;
use crate::codec::text::Str;
use crate::codec::wire::{Uuid, Version, Wire};
use crate::error::ConnectionError;
use crate::node::Node;
use crate::ticket::{Claim, Ticket};

/// A request whose header was read.
pub(crate) struct Call {
    pub(crate) header: RequestHeader,
    body: Reader,
    pub(crate) now: Instant,
}

impl Call {
    /// The body. Bytes after its end are ignored, as Kafka does.
    fn read<T: Wire>(&mut self) -> Result<T, ConnectionError> {
        T::read(&mut self.body, self.header.version).map_err(|source| ConnectionError::Malformed {
            api: self.header.api.name,
            version: self.header.version.number,
            source,
        })
    }

    fn version(&self) -> i16 {
        self.header.version.number
    }
}

/// One connection's side of the protocol.
pub(crate) struct Session {
    node: Arc<Node>,
    peer: SocketAddr,
    local: SocketAddr,
    access: Access,
    mailbox: Arc<Mailbox>,
    pipeline: Pipeline,
    fetcher: Fetcher,
    by_id: TopicsById,
    /// Memory that small responses share.
    arena: BytesMut,
}

/// Topics that this connection named by identity, until the topology changes.
#[derive(Default)]
struct TopicsById {
    version: u64,
    topics: HashMap<Uuid, Option<Arc<Topic>>>,
}

/// Topics that a connection remembers by identity.
const TOPICS_BY_ID_MAX: usize = 10_000;

impl Session {
    /// `identity` is who the client is without saying so, if strangers are let in.
    pub(crate) fn new(
        node: Arc<Node>,
        peer: SocketAddr,
        local: SocketAddr,
        identity: Option<Identity>,
        mailbox: Arc<Mailbox>,
    ) -> Session {
        Session {
            peer,
            local,
            access: Access::new(identity),
            fetcher: Fetcher::new(mailbox.clone(), &node),
            mailbox,
            pipeline: Pipeline::default(),
            by_id: TopicsById::default(),
            arena: BytesMut::new(),
            node,
        }
    }

    /// The other end.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the client may ask for everything: it has shown who it is, or need not.
    pub(crate) fn is_open(&self) -> bool {
        self.access.is_open()
    }

    /// Bytes that the next request may have, by what its first bytes say.
    pub(crate) fn request_bytes_max(&self, first_bytes: &[u8]) -> usize {
        let limits = &self.node.config.limits;
        let api_key = first_bytes.first_chunk().map(|chunk| i16::from_be_bytes(*chunk));
        match api_key {
            _ if !self.is_open() => limits.unauthenticated_request_bytes_max,
            Some(key::Produce) => limits.produce_bytes_max,
            _ => limits.request_bytes_max,
        }
    }

    /// Takes a request, without its length. `Some` asks the caller to check credentials and then call
    /// [`Session::authenticated`] before anything else.
    pub(crate) fn handle(
        &mut self,
        request: Bytes,
        now: Instant,
    ) -> Result<Option<Credentials>, ConnectionError> {
        if self.access.expects_bare_token() {
            return self.bare_token(&request).map(Some);
        }
        let mut body = Reader::new(request);
        let header = match header::read(&mut body).map_err(ConnectionError::NotARequest)? {
            Header::Known(header) => header,
            Header::ApiVersionsTooNew { correlation_id } => {
                self.api_versions_too_new(correlation_id);
                return Ok(None);
            }
            Header::Unknown { api_key, api_version } => {
                return Err(ConnectionError::Unsupported { api_key, api_version });
            }
        };
        if !self.is_open()
            && !matches!(header.api.key, key::ApiVersions | key::SaslHandshake | key::SaslAuthenticate)
        {
            return Err(ConnectionError::NotAuthenticated { api: header.api.name });
        }
        self.node.metrics.request(header.api);
        tracing::trace!(
            api = header.api.name,
            version = header.version.number,
            header.correlation_id,
            "request"
        );
        self.dispatch(Call { header, body, now })
    }

    fn dispatch(&mut self, call: Call) -> Result<Option<Credentials>, ConnectionError> {
        match call.header.api.key {
            key::Produce => self.produce(call)?,
            key::Fetch => self.fetch(call)?,
            key::ListOffsets => self.list_offsets(call)?,
            key::Metadata => self.metadata(call)?,
            key::OffsetCommit => self.offset_commit(call)?,
            key::OffsetFetch => self.offset_fetch(call)?,
            key::FindCoordinator => self.find_coordinator(call)?,
            key::JoinGroup => self.join_group(call)?,
            key::Heartbeat => self.heartbeat(call)?,
            key::LeaveGroup => self.leave_group(call)?,
            key::SyncGroup => self.sync_group(call)?,
            key::DescribeGroups => self.describe_groups(call)?,
            key::ListGroups => self.list_groups(call)?,
            key::SaslHandshake => self.sasl_handshake(call)?,
            key::ApiVersions => self.api_versions(call)?,
            key::CreateTopics => self.create_topics(call)?,
            key::DeleteTopics => self.delete_topics(call)?,
            key::DeleteRecords => self.delete_records(call)?,
            key::InitProducerId => self.init_producer_id(call)?,
            key::OffsetForLeaderEpoch => self.offset_for_leader_epoch(call)?,
            key::DescribeAcls => self.describe_acls(call)?,
            key::CreateAcls => self.create_acls(call)?,
            key::DeleteAcls => self.delete_acls(call)?,
            key::DescribeConfigs => self.describe_configs(call)?,
            key::AlterConfigs => self.alter_configs(call)?,
            key::AlterReplicaLogDirs => self.alter_replica_log_dirs(call)?,
            key::DescribeLogDirs => self.describe_log_dirs(call)?,
            key::SaslAuthenticate => return self.sasl_authenticate(call).map(Some),
            key::CreatePartitions => self.create_partitions(call)?,
            key::DeleteGroups => self.delete_groups(call)?,
            key::ElectLeaders => self.elect_leaders(call)?,
            key::IncrementalAlterConfigs => self.incremental_alter_configs(call)?,
            key::AlterPartitionReassignments => self.alter_partition_reassignments(call)?,
            key::ListPartitionReassignments => self.list_partition_reassignments(call)?,
            key::OffsetDelete => self.offset_delete(call)?,
            key::DescribeClientQuotas => self.describe_client_quotas(call)?,
            key::DescribeUserScramCredentials => self.describe_user_scram_credentials(call)?,
            key::DescribeCluster => self.describe_cluster(call)?,
            key::DescribeProducers => self.describe_producers(call)?,
            key::ListTransactions => self.list_transactions(call)?,
            key::ListConfigResources => self.list_config_resources(call)?,
            key::DescribeTopicPartitions => self.describe_topic_partitions(call)?,
            api_key => {
                let api_version = call.version();
                return Err(ConnectionError::Unsupported { api_key, api_version });
            }
        }
        Ok(None)
    }

    /// Moves responses whose turn has come to `output`.
    pub(crate) fn advance(&mut self, output: &mut Output) -> Result<(), ConnectionError> {
        let limit = self.node.config.limits.output_bytes_max;
        self.pipeline.advance(self.node.broker.log().committed(), output, limit)
    }

    /// The position whose commit the next response waits for, if that is what it waits for.
    pub(crate) fn awaited_lsn(&self) -> Option<Lsn> {
        self.pipeline.awaited_lsn()
    }

    /// When the clock has to be looked at next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.fetcher.deadline()
    }

    /// Whether a further request may be taken: not while too many are unanswered, or too much waits to be sent.
    pub(crate) fn has_room(&self, output: &Output) -> bool {
        let limits = &self.node.config.limits;
        self.pipeline.len() < limits.pipeline_requests_max
            && self.pipeline.bytes() + output.pending_bytes() < limits.output_bytes_max
    }

    /// Gives back memory that is not in use.
    pub(crate) fn tidy(&mut self) {
        self.arena = BytesMut::new();
        self.pipeline.tidy();
        self.fetcher.tidy();
    }

    /// Something happened: these tokens were in the mailbox, and so late it is.
    pub(crate) fn wake(&mut self, tokens: &[u64], now: Instant) {
        self.continue_fetch(tokens, now);
    }

    fn respond<T: Wire>(&mut self, request: &RequestHeader, body: &T) -> Frame {
        respond(&mut self.arena, request, body)
    }

    /// Answers at once.
    fn answer<T: Wire>(&mut self, call: &Call, body: &T) {
        let frame = self.respond(&call.header, body);
        self.pipeline.push_ready(frame);
    }

    /// Answers when the log has committed `lsn`, if there is one to wait for.
    fn answer_after<T: Wire>(&mut self, call: &Call, body: &T, lsn: Option<Lsn>) {
        let frame = self.respond(&call.header, body);
        self.push_after(frame, lsn);
    }

    fn push_after(&mut self, frame: Frame, lsn: Option<Lsn>) {
        match lsn {
            Some(lsn) => self.pipeline.push_after(frame, lsn),
            None => self.pipeline.push_ready(frame),
        }
    }

    /// Someone else will answer.
    fn ticket(&mut self) -> (Ticket, Claim) {
        Ticket::new(&self.mailbox)
    }

    fn topic_by_id(&mut self, id: Uuid) -> Option<Arc<Topic>> {
        let namespace = &self.node.namespace;
        let version = namespace.version();
        if self.by_id.version != version || self.by_id.topics.len() >= TOPICS_BY_ID_MAX {
            self.by_id = TopicsById { version, topics: HashMap::new() };
        }
        self.by_id.topics.entry(id).or_insert_with(|| namespace.topic_by_id(TopicId(id.0))).clone()
    }

    /// The topic that a request names: by identity from `by_id_from` on, before by name.
    fn topic(&mut self, version: i16, by_id_from: i16, name: &str, id: Uuid) -> Option<Arc<Topic>> {
        if version >= by_id_from { self.topic_by_id(id) } else { self.node.namespace.topic(name) }
    }

    fn api_versions_too_new(&mut self, correlation_id: i32) {
        let version = Version { number: 0, flexible: false };
        let mut writer = FrameWriter::start(&mut self.arena, &Api::ApiVersions, version, correlation_id);
        versions::unsupported().write(writer.out(), version);
        let frame = writer.finish();
        self.pipeline.push_ready(frame);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let now = Instant::now();
        for (group, member_id, claim) in self.pipeline.abandon() {
            self.node.coordinator.hung_up(&group, &member_id, &claim, now);
        }
    }
}

/// The number of a partition as the core counts.
fn partition_index(index: i32) -> Option<u32> {
    u32::try_from(index).ok()
}

/// An offset as the wire has it.
fn offset(offset: inver_storage::Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

/// A text for people, beside an error code.
fn message(text: impl Into<String>) -> Option<Str> {
    Some(Str::from(text.into()))
}
