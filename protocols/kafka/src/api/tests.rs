//! Handlers, called with a request and a context.

mod acls;
mod authorization;
mod consumer_groups;
mod delegation;
mod mutations;
mod namespaces;
mod scram;
mod share_groups;
mod transactions;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use inver_access::{
    Effect, Operation, Operations, Pattern, Principal, ResourceKind, Rule, RuleId, Tag, Tags, TokenSecret,
    User,
};
use inver_broker::{
    Admission, AppliedQuotas, Broker, BrokerConfig, Completion, ConnectionHandle, DelegationConfig,
    Endpoints, Identity, ListenerInfo, Mailbox, TopicSpec,
};
use inver_storage::batch::BatchBuilder;
use inver_storage::{Log, LogOptions};

use super::context::TopicCache;
use super::*;
use crate::access::Access;
use crate::codec::error_code::ErrorCode;
use crate::codec::header::ResponseHeader;
use crate::codec::wire::Wire;
use crate::config::{KafkaConfig, ReplicationFactor};
use crate::fetch::Fetcher;
use crate::node::Node;
use crate::sasl::Sasl;
use crate::share::Sharer;
use crate::ticket::Claimed;

/// What a connection would provide.
struct Fixture {
    node: Arc<Node>,
    endpoints: Endpoints,
    /// Its place among the live connections.
    place: Option<ConnectionHandle>,
    access: Access,
    sasl: Sasl,
    fetcher: Fetcher,
    sharer: Option<Box<Sharer>>,
    topics: TopicCache,
    quotas: Option<Arc<AppliedQuotas>>,
    /// What the last response told, if it has such a field.
    throttle_time_ms: i32,
    mailbox: Arc<Mailbox>,
    _folder: tempfile::TempDir,
}

/// A node with topic `t` of two partitions, and an anonymous client.
fn fixture() -> Fixture {
    fixture_with(KafkaConfig::default())
}

fn fixture_with(kafka: KafkaConfig) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), LogOptions::default()).unwrap();
    let delegation = DelegationConfig { secret: TokenSecret::random(), ..DelegationConfig::default() };
    let config = BrokerConfig { delegation, ..BrokerConfig::default() };
    let broker = Broker::open(log, config).unwrap();
    let spec = TopicSpec { partitions: 2, config: Default::default() };
    broker.default_namespace().create_topic("t", &spec).unwrap();
    let node = Arc::new(Node::new(broker, kafka, Api::ALL).unwrap());
    let mailbox = Mailbox::new();
    let address: SocketAddr = "127.0.0.1:9092".parse().unwrap();
    Fixture {
        sasl: Sasl::new(),
        endpoints: Endpoints { peer: address, local: address, encrypted: false, listener: Arc::default() },
        place: None,
        access: node.before_login(),
        fetcher: Fetcher::new(node.clone(), node.before_login(), mailbox.clone()),
        sharer: None,
        topics: TopicCache::default(),
        quotas: None,
        throttle_time_ms: 0,
        mailbox,
        node,
        _folder: folder,
    }
}

impl Fixture {
    /// Creates a user unless there is one, with rules that allow it operations on resources.
    fn allow(&self, name: &str, allowed: &[(ResourceKind, &str, Operation)]) {
        let rules = allowed.iter().map(|(kind, resource, operation)| Rule {
            id: RuleId(0),
            principal: Principal::User(name.into()),
            namespace: Some("/".into()),
            kind: *kind,
            pattern: Pattern::Literal((*resource).into()),
            operations: Operations::of(&[*operation]),
            effect: Effect::Allow,
            host: None,
            dialect: String::new(),
        });
        let access = self.node.broker.access();
        if access.user(name).is_none() {
            access.put_user(User::new(name)).unwrap();
        }
        access.add_rules(rules.collect()).unwrap();
    }

    /// Makes the client a user of the broker, with such rules.
    fn become_user(&mut self, name: &str, allowed: &[(ResourceKind, &str, Operation)]) {
        self.allow(name, allowed);
        self.admit(Identity::user(name));
    }

    fn become_administrator(&mut self) {
        let tags = Tags::from_iter([Tag::Administrator]);
        self.node.broker.access().put_user(User { tags, ..User::new("root") }).unwrap();
        self.admit(Identity::user("root"));
    }

    fn admit(&mut self, identity: Identity) {
        let admission = Admission {
            protocol: "kafka",
            identity: &identity,
            endpoints: &self.endpoints,
            namespace: None,
            client_id: "",
            mailbox: &self.mailbox,
            wait_max: std::time::Duration::ZERO,
        };
        let (access, place) = self.node.admit(&admission).unwrap();
        (self.access, self.place) = (access, Some(place));
        self.sharer = None;
        self.fetcher = Fetcher::new(self.node.clone(), self.access.clone(), self.mailbox.clone());
        self.sasl.accept(identity);
    }

    fn call<H: Handler>(&mut self, version: i16, request: H::Request) -> Reply<H::Response> {
        self.with_context::<H, _>(version, |cx| H::handle(cx, request))
    }

    fn with_context<H: Handler, R>(
        &mut self,
        version: i16,
        act: impl FnOnce(&mut RequestContext<'_>) -> R,
    ) -> R {
        let api = find(H::KEY).unwrap();
        let header = ResponseHeader { api, version: api.version(version).unwrap(), correlation_id: 1 };
        let mut cx = RequestContext {
            header,
            client_id: Some("client".into()),
            node: &self.node,
            endpoints: &self.endpoints,
            access: &self.access,
            sasl: &mut self.sasl,
            fetcher: &mut self.fetcher,
            sharer: &mut self.sharer,
            quotas: self.quotas.as_deref(),
            held_until: None,
            request_bytes: 0,
            now: tokio::time::Instant::now(),
            topics: &mut self.topics,
            mailbox: &self.mailbox,
            is_detached: false,
        };
        let reply = act(&mut cx);
        self.throttle_time_ms = cx.throttle_time_ms();
        reply
    }

    /// The response of a handler that answers at once.
    fn answer<H: Handler>(&mut self, version: i16, request: H::Request) -> H::Response {
        match self.call::<H>(version, request) {
            Reply::Response(response, _) => response,
            _ => panic!("no response"),
        }
    }

    fn completion<H: Handler>(&mut self, version: i16, request: H::Request) -> Completion {
        match self.call::<H>(version, request) {
            Reply::Response(_, completion) => completion,
            _ => panic!("no response"),
        }
    }
}

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(256);
    builder.push(1000, Some(b"k"), &[], Some(b"v"));
    builder.finish().into_bytes()
}

fn produce(topic: &str, acks: i16) -> produce::ProduceRequest {
    let partition_data = vec![produce::PartitionProduceData { index: 0, records: Some(batch()) }];
    let data = produce::TopicProduceData { name: topic.into(), partition_data, ..Default::default() };
    produce::ProduceRequest { acks, topic_data: vec![data], ..Default::default() }
}

#[test]
fn apis_are_ordered_by_key_and_found_by_it() {
    assert!(Api::ALL.is_sorted_by_key(|api| api.key));
    for api in Api::ALL {
        assert_eq!(find(api.key), Some(api));
    }
    assert_eq!(find(4), None);
}

#[test]
fn api_versions_lists_every_api() {
    let request = api_versions::ApiVersionsRequest::default();
    let response = fixture().answer::<api_versions::ApiVersions>(0, request);
    let listed: Vec<(i16, i16, i16)> =
        response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
    let all: Vec<(i16, i16, i16)> =
        Api::ALL.iter().map(|api| (api.key, api.version_min, api.version_max)).collect();
    assert_eq!(listed, all);
}

#[test]
fn only_sasl_and_api_versions_are_answered_before_authentication() {
    let open: Vec<&str> =
        Api::ALL.iter().filter(|api| api.before_authentication).map(|api| api.name).collect();
    assert_eq!(open, ["SaslHandshake", "ApiVersions", "SaslAuthenticate"]);
}

#[test]
fn produce_waits_for_the_log_unless_acks_is_0() {
    let mut fixture = fixture();
    let Reply::Response(response, Completion::At(lsn)) =
        fixture.call::<produce::Produce>(9, produce("t", -1))
    else {
        panic!("no response at a log position")
    };
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 0);
    assert!(lsn > inver_storage::Lsn::default());
    assert!(matches!(fixture.call::<produce::Produce>(9, produce("t", 0)), Reply::None));
    let failed = fixture.call::<produce::Produce>(9, produce("missing", 0));
    assert!(matches!(failed, Reply::Close(None, ConnectionError::ProduceWithoutAcks(_))));
    let rejected = fixture.completion::<produce::Produce>(9, produce("missing", 1));
    assert_eq!(rejected, Completion::Now);
}

#[test]
fn metadata_creates_missing_topics_only_if_the_client_allows_it() {
    use metadata::{Metadata, MetadataRequest, MetadataRequestTopic};
    let mut fixture = fixture();
    let request = |create| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: Some("new".into()), ..Default::default() }]),
        allow_auto_topic_creation: create,
        ..MetadataRequest::default()
    };
    let response = fixture.answer::<Metadata>(9, request(false));
    assert_eq!(response.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert!(matches!(fixture.completion::<Metadata>(9, request(true)), Completion::At(_)));
    assert_eq!(fixture.completion::<Metadata>(9, request(true)), Completion::Now);
}

#[test]
fn clients_of_a_listener_are_told_its_own_address() {
    let mut fixture = fixture();
    let told = |fixture: &mut Fixture| {
        let response = fixture.answer::<metadata::Metadata>(9, metadata::MetadataRequest::default());
        (response.brokers[0].host.to_string(), response.brokers[0].port)
    };
    assert_eq!(told(&mut fixture), ("127.0.0.1".into(), 9092));
    let listener = ListenerInfo { advertised: Some(("outside".into(), 19_094)), ..ListenerInfo::default() };
    fixture.endpoints.listener = Arc::new(listener);
    assert_eq!(told(&mut fixture), ("outside".into(), 19_094));
}

#[test]
fn a_member_is_answered_through_its_claim() {
    use join_group::{JoinGroup, JoinGroupRequest, JoinGroupRequestProtocol};
    let mut fixture = fixture();
    let request = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), ..Default::default() }],
        ..JoinGroupRequest::default()
    };
    // A new member must join again with the id that it gets.
    let Reply::Member { mut claim, group, member_id } = fixture.call::<JoinGroup>(5, request.clone()) else {
        panic!("not a member's reply")
    };
    assert_eq!(group, "g");
    assert!(member_id.starts_with("client-"), "{member_id}");
    assert!(matches!(claim.take(), Claimed::Frame(_)));
    // With the initial delay, the response to the second join is not complete yet.
    let request = JoinGroupRequest { member_id: member_id.clone(), ..request };
    let Reply::Member { mut claim, .. } = fixture.call::<JoinGroup>(5, request) else {
        panic!("not a member's reply")
    };
    assert!(matches!(claim.take(), Claimed::Waiting));
    let leave = leave_group::LeaveGroupRequest { group_id: "g".into(), member_id, members: Vec::new() };
    let response = fixture.answer::<leave_group::LeaveGroup>(2, leave);
    assert_eq!(response.error_code, ErrorCode::NONE);
    assert!(matches!(claim.take(), Claimed::Frame(_)));
    let heartbeat = heartbeat::HeartbeatRequest { group_id: "g".into(), ..Default::default() };
    let response = fixture.answer::<heartbeat::Heartbeat>(4, heartbeat);
    assert_eq!(response.error_code, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn groups_and_transactions_have_a_coordinator() {
    use find_coordinator::{FindCoordinator, FindCoordinatorRequest};
    let mut fixture = fixture();
    let (one, none) = (ErrorCode::NONE, ErrorCode::INVALID_REQUEST);
    for (key_type, expected) in [(0, one), (1, one), (2, none), (9, none)] {
        let request =
            FindCoordinatorRequest { key_type, coordinator_keys: vec!["k".into()], ..Default::default() };
        let response = fixture.answer::<FindCoordinator>(4, request);
        assert_eq!(response.coordinators[0].error_code, expected);
    }
}

#[test]
fn committed_offsets_are_fetched_and_deleted() {
    use offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let mut fixture = fixture();
    let commit = |partition_index, committed_offset| {
        let partitions =
            vec![OffsetCommitRequestPartition { partition_index, committed_offset, ..Default::default() }];
        let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }];
        offset_commit::OffsetCommitRequest { group_id: "g".into(), topics, ..Default::default() }
    };
    assert!(matches!(fixture.completion::<offset_commit::OffsetCommit>(8, commit(1, 7)), Completion::At(_)));
    let response = fixture.answer::<offset_commit::OffsetCommit>(8, commit(2, 7));
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let all = offset_fetch::OffsetFetchRequest { group_id: "g".into(), ..Default::default() };
    let all = offset_fetch::OffsetFetchRequest { topics: None, ..all };
    let response = fixture.answer::<offset_fetch::OffsetFetch>(5, all.clone());
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.partition_index, partition.committed_offset), (1, 7));
    let partitions = vec![offset_delete::OffsetDeleteRequestPartition { partition_index: 1 }];
    let topics = vec![offset_delete::OffsetDeleteRequestTopic { name: "t".into(), partitions }];
    let delete = offset_delete::OffsetDeleteRequest { group_id: "g".into(), topics };
    let deleted = fixture.completion::<offset_delete::OffsetDelete>(0, delete.clone());
    assert!(matches!(deleted, Completion::At(_)));
    assert_eq!(fixture.answer::<offset_fetch::OffsetFetch>(5, all).topics, []);
    let response = fixture.answer::<offset_delete::OffsetDelete>(0, delete);
    assert_eq!(response.error_code, ErrorCode::GROUP_ID_NOT_FOUND);
}

#[test]
fn the_only_leader_epoch_ends_at_the_high_watermark() {
    use offset_for_leader_epoch::{
        OffsetForLeaderEpoch, OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
    };
    let mut fixture = fixture();
    fixture.call::<produce::Produce>(9, produce("t", -1));
    fixture.node.broker.log().sync().unwrap();
    let mut end = |partition, current_leader_epoch, leader_epoch| {
        let partitions = vec![OffsetForLeaderPartition { partition, current_leader_epoch, leader_epoch }];
        let topics = vec![OffsetForLeaderTopic { topic: "t".into(), partitions }];
        let request = OffsetForLeaderEpochRequest { topics, ..Default::default() };
        let response = fixture.answer::<OffsetForLeaderEpoch>(4, request);
        let answer = &response.topics[0].partitions[0];
        (answer.error_code, answer.end_offset)
    };
    assert_eq!(end(0, -1, 0), (ErrorCode::NONE, 1));
    assert_eq!(end(0, -1, 3), (ErrorCode::NONE, -1));
    assert_eq!(end(0, 3, 0), (ErrorCode::UNKNOWN_LEADER_EPOCH, -1));
    assert_eq!(end(9, -1, 0), (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, -1));
}

#[test]
fn altering_configs_replaces_all_settings_of_a_topic() {
    use alter_configs::{AlterConfigs, AlterConfigsRequest, AlterConfigsResource, AlterableConfig};
    let mut fixture = fixture();
    let request = |name: &str, value: &str, validate_only| {
        let configs = vec![AlterableConfig { name: name.into(), value: Some(value.into()) }];
        let resource = AlterConfigsResource { resource_type: 2, resource_name: "t".into(), configs };
        AlterConfigsRequest { resources: vec![resource], validate_only }
    };
    let config = |fixture: &Fixture| (*fixture.access.node.namespace.topic("t").unwrap().config()).clone();
    assert_eq!(fixture.completion::<AlterConfigs>(2, request("retention.ms", "5", true)), Completion::Now);
    assert!(config(&fixture).is_empty(), "only validated");
    for name in ["retention.ms", "retention.bytes"] {
        let altered = fixture.completion::<AlterConfigs>(2, request(name, "5", false));
        assert!(matches!(altered, Completion::At(_)));
        let names: Vec<String> = config(&fixture).keys().cloned().collect();
        assert_eq!(names, [name]);
    }
    let response = fixture.answer::<AlterConfigs>(2, request("retention.ms", "soon", false));
    assert_eq!(response.responses[0].error_code, ErrorCode::INVALID_CONFIG);
}

#[test]
fn config_resources_are_the_topics_and_the_broker() {
    use list_config_resources::{ListConfigResources, ListConfigResourcesRequest};
    let mut fixture = fixture();
    let mut list = |version, resource_types| -> Vec<(String, i8)> {
        let request = ListConfigResourcesRequest { resource_types };
        let response = fixture.answer::<ListConfigResources>(version, request);
        let resources = response.config_resources.iter();
        resources.map(|resource| (resource.resource_name.to_string(), resource.resource_type)).collect()
    };
    assert_eq!(list(1, Vec::new()), [("t".into(), 2), ("1".into(), 4)]);
    assert_eq!(list(1, vec![4]), [("1".into(), 4)]);
    assert_eq!(list(0, Vec::new()), []);
}

#[test]
fn no_reassignment_is_ever_in_progress() {
    use list_partition_reassignments::{ListPartitionReassignments, ListPartitionReassignmentsRequest};
    let request = ListPartitionReassignmentsRequest::default();
    let response = fixture().answer::<ListPartitionReassignments>(0, request);
    assert_eq!((response.error_code, response.topics), (ErrorCode::NONE, Vec::new()));
}

#[test]
fn a_fetch_is_answered_by_the_fetcher() {
    let Reply::Fetch(first) = fixture().call::<fetch::Fetch>(12, fetch::FetchRequest::default()) else {
        panic!("not a fetch")
    };
    assert_eq!(first, 1);
}

#[test]
fn each_error_code_in_a_response_is_found() {
    let partition = |error_code| produce::PartitionProduceResponse { error_code, ..Default::default() };
    let partition_responses =
        [ErrorCode::NONE, ErrorCode::CORRUPT_MESSAGE, ErrorCode::INVALID_RECORD].map(partition).to_vec();
    let topic = produce::TopicProduceResponse { partition_responses, ..Default::default() };
    let response = produce::ProduceResponse { responses: vec![topic], throttle_time_ms: 0 };
    let mut found = Vec::new();
    response.each_error(&mut |code| found.push(code));
    assert_eq!(found, [ErrorCode::CORRUPT_MESSAGE, ErrorCode::INVALID_RECORD]);
}

#[test]
fn sasl_tokens_are_passed_on_to_be_checked() {
    use sasl_authenticate::{SaslAuthenticate, SaslAuthenticateRequest};
    use sasl_handshake::{SaslHandshake, SaslHandshakeRequest};
    let mut fixture = fixture();
    let token = |bytes: &'static [u8]| SaslAuthenticateRequest { auth_bytes: Bytes::from_static(bytes) };
    let early = fixture.call::<SaslAuthenticate>(2, token(b"\0ann\0secret"));
    let Reply::Close(Some(response), ConnectionError::AuthenticationFailed) = early else {
        panic!("not closed")
    };
    assert_eq!(response.error_code, ErrorCode::ILLEGAL_SASL_STATE);
    for (mechanism, expected) in
        [("GSSAPI", ErrorCode::UNSUPPORTED_SASL_MECHANISM), ("PLAIN", ErrorCode::NONE)]
    {
        let request = SaslHandshakeRequest { mechanism: mechanism.into() };
        assert_eq!(fixture.answer::<SaslHandshake>(1, request).error_code, expected);
    }
    let Reply::Authenticate(credentials) = fixture.call::<SaslAuthenticate>(2, token(b"\0ann\0secret"))
    else {
        panic!("no credentials")
    };
    assert_eq!((credentials.user.as_str(), &credentials.password[..]), ("ann", &b"secret"[..]));
}

#[test]
fn creating_and_deleting_topics_waits_for_the_log() {
    use create_topics::{CreatableTopic, CreateTopics, CreateTopicsRequest};
    use delete_topics::{DeleteTopics, DeleteTopicsRequest};
    let mut fixture = fixture();
    let request = |validate_only| CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: "new".into(),
            num_partitions: 2,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        validate_only,
        ..CreateTopicsRequest::default()
    };
    assert_eq!(fixture.completion::<CreateTopics>(7, request(true)), Completion::Now);
    assert!(matches!(fixture.completion::<CreateTopics>(7, request(false)), Completion::At(_)));
    let response = fixture.answer::<CreateTopics>(7, request(false));
    assert_eq!(response.topics[0].error_code, ErrorCode::TOPIC_ALREADY_EXISTS);
    let delete = DeleteTopicsRequest { topic_names: vec!["new".into()], ..Default::default() };
    assert!(matches!(fixture.completion::<DeleteTopics>(4, delete.clone()), Completion::At(_)));
    assert_eq!(fixture.completion::<DeleteTopics>(4, delete), Completion::Now);
}

#[test]
fn replication_factors_are_shown_as_the_setting_says() {
    use create_topics::{CreatableTopic, CreateTopics, CreateTopicsRequest};
    use describe_topic_partitions::{DescribeTopicPartitions, DescribeTopicPartitionsRequest, TopicRequest};
    let refused = ErrorCode::INVALID_REPLICATION_FACTOR;
    for (replication_factor, error_code, replicas) in [
        (ReplicationFactor::Accept, ErrorCode::NONE, 1),
        (ReplicationFactor::Show, ErrorCode::NONE, 3),
        (ReplicationFactor::Refuse, refused, 0),
    ] {
        let mut fixture = fixture_with(KafkaConfig { replication_factor, ..KafkaConfig::default() });
        let topic = CreatableTopic {
            name: "new".into(),
            num_partitions: 1,
            replication_factor: 3,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let created = fixture.answer::<CreateTopics>(7, request);
        assert_eq!(created.topics[0].error_code, error_code);
        if error_code != ErrorCode::NONE {
            continue;
        }
        assert_eq!(created.topics[0].replication_factor, replicas);
        let nodes = vec![1; replicas as usize];
        let answer = fixture.answer::<metadata::Metadata>(12, metadata::MetadataRequest::default());
        let told = answer.topics.iter().find(|topic| topic.name.as_deref() == Some("new")).unwrap();
        assert_eq!((&told.partitions[0].replica_nodes, &told.partitions[0].isr_nodes), (&nodes, &nodes));
        let topics = vec![TopicRequest { name: "new".into() }];
        let request = DescribeTopicPartitionsRequest { topics, response_partition_limit: 10, cursor: None };
        let answer = fixture.answer::<DescribeTopicPartitions>(0, request);
        assert_eq!(answer.topics[0].partitions[0].replica_nodes, nodes);
    }
}

#[test]
fn features_stay_at_their_level() {
    use update_features::{FeatureUpdateKey, UpdateFeatures, UpdateFeaturesRequest};
    let mut fixture = fixture();
    let request = |feature: &str, max_version_level| UpdateFeaturesRequest {
        feature_updates: vec![FeatureUpdateKey {
            feature: feature.into(),
            max_version_level,
            ..FeatureUpdateKey::default()
        }],
        ..UpdateFeaturesRequest::default()
    };
    for (feature, level, error_code) in [
        ("metadata.version", 33, ErrorCode::NONE),
        ("metadata.version", 34, ErrorCode::INVALID_UPDATE_VERSION),
        ("metadata.version", 20, ErrorCode::INVALID_UPDATE_VERSION),
        ("group.rainbow", 1, ErrorCode::INVALID_UPDATE_VERSION),
    ] {
        let answer = fixture.answer::<UpdateFeatures>(2, request(feature, level));
        assert_eq!(answer.error_code, error_code, "{feature} {level}");
        let answer = fixture.answer::<UpdateFeatures>(1, request(feature, level));
        assert_eq!((answer.error_code, answer.results[0].error_code), (ErrorCode::NONE, error_code));
    }
}

#[test]
fn producer_ids_are_unique_and_durable() {
    use init_producer_id::{InitProducerId, InitProducerIdRequest};
    let mut fixture = fixture();
    let mut ids = std::collections::HashSet::new();
    for _ in 0..1500 {
        let Reply::Response(response, Completion::At(_)) =
            fixture.call::<InitProducerId>(5, InitProducerIdRequest::default())
        else {
            panic!("not at a log position")
        };
        assert!(ids.insert(response.producer_id), "{} again", response.producer_id);
    }
}

#[test]
fn deleting_settings_that_are_not_set_succeeds() {
    use incremental_alter_configs::{AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest};
    let mut fixture = fixture();
    let mut alter = |resource_type, resource_name: &str, config_operation, name: &str| {
        let value = (config_operation == 0).then(|| "1".into());
        let configs = vec![AlterableConfig { name: name.into(), config_operation, value }];
        let resource = AlterConfigsResource { resource_type, resource_name: resource_name.into(), configs };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        let response = fixture.answer::<incremental_alter_configs::IncrementalAlterConfigs>(1, request);
        response.responses[0].error_code
    };
    // As kafka-reassign-partitions clears the throttles of a broker.
    assert_eq!(alter(4, "1", 1, "leader.replication.throttled.rate"), ErrorCode::NONE);
    assert_eq!(alter(4, "1", 0, "leader.replication.throttled.rate"), ErrorCode::NONE);
    assert_eq!(alter(4, "", 0, "log.retention.ms"), ErrorCode::POLICY_VIOLATION);
    assert_eq!(alter(4, "9", 1, "leader.replication.throttled.rate"), ErrorCode::INVALID_REQUEST);
    // As MirrorMaker deletes settings of a newer Kafka.
    assert_eq!(alter(2, "t", 1, "setting.of.a.newer.version"), ErrorCode::NONE);
    assert_eq!(alter(2, "t", 0, "setting.of.a.newer.version"), ErrorCode::INVALID_CONFIG);
}

#[test]
fn records_of_a_compacted_topic_are_not_deleted() {
    use delete_records::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
    let mut fixture = fixture();
    for (topic, policy, expected) in
        [("compacted", "compact", ErrorCode::POLICY_VIOLATION), ("both", "compact,delete", ErrorCode::NONE)]
    {
        let config = [("cleanup.policy".to_owned(), policy.to_owned())].into();
        let spec = TopicSpec { partitions: 1, config };
        fixture.access.node.namespace.create_topic(topic, &spec).unwrap();
        let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: 0 }];
        let topics = vec![DeleteRecordsTopic { name: topic.into(), partitions }];
        let request = DeleteRecordsRequest { topics, timeout_ms: 1000 };
        let response = fixture.answer::<delete_records::DeleteRecords>(2, request);
        assert_eq!(response.topics[0].partitions[0].error_code, expected, "{topic}");
    }
}
