//! What each API asks for, and the error of a client that may not.

use bytes::BytesMut;
use tokio::time::Instant;

use super::*;
use crate::codec::reader::Reader;

const TOPIC: ResourceKind = ResourceKind::Topic;
const GROUP: ResourceKind = ResourceKind::Group;
const CLUSTER: ResourceKind = ResourceKind::Cluster;
const NO_TOPIC: ErrorCode = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
const NO_GROUP: ErrorCode = ErrorCode::GROUP_AUTHORIZATION_FAILED;
const NO_CLUSTER: ErrorCode = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;

/// A call, the error without permission, and sets of permissions with each of which there is no such error.
struct Case {
    name: &'static str,
    refused: ErrorCode,
    enough: &'static [&'static [(ResourceKind, &'static str, Operation)]],
    call: fn(&mut Fixture) -> ErrorCode,
}

fn case(
    name: &'static str,
    refused: ErrorCode,
    enough: &'static [&'static [(ResourceKind, &'static str, Operation)]],
    call: fn(&mut Fixture) -> ErrorCode,
) -> Case {
    Case { name, refused, enough, call }
}

fn produced(fixture: &mut Fixture) -> ErrorCode {
    let response = fixture.answer::<produce::Produce>(9, produce("t", -1));
    response.responses[0].partition_responses[0].error_code
}

fn fetched(fixture: &mut Fixture) -> ErrorCode {
    use fetch::{FetchPartition, FetchRequest, FetchTopic};
    let partition = FetchPartition { partition_max_bytes: 1000, ..FetchPartition::default() };
    let topic = FetchTopic { topic: "t".into(), partitions: vec![partition], ..FetchTopic::default() };
    let request = FetchRequest { topics: vec![topic], ..FetchRequest::default() };
    fixture.call::<fetch::Fetch>(12, request);
    let (_, frame) = fixture.fetcher.poll(&mut BytesMut::new(), Instant::now()).unwrap();
    let bytes = frame.to_bytes();
    let response = decoded::<fetch::FetchResponse>(&Api::Fetch, 12, bytes);
    response.responses[0].partitions[0].error_code
}

/// The body of a flexible response with its length and header.
fn decoded<T: Wire>(api: &'static Api, version: i16, bytes: Bytes) -> T {
    let mut reader = Reader::new(bytes);
    reader.i32().unwrap();
    reader.i32().unwrap();
    reader.skip_tagged_fields().unwrap();
    T::read(&mut reader, api.version(version).unwrap()).unwrap()
}

fn joined(fixture: &mut Fixture) -> ErrorCode {
    let request = join_group::JoinGroupRequest { group_id: "g".into(), ..Default::default() };
    let Reply::Member { mut claim, .. } = fixture.call::<join_group::JoinGroup>(9, request) else { panic!() };
    let Claimed::Frame(frame) = claim.take() else { panic!("not answered") };
    let bytes = frame.to_bytes();
    decoded::<join_group::JoinGroupResponse>(&Api::JoinGroup, 9, bytes).error_code
}

fn beaten(fixture: &mut Fixture) -> ErrorCode {
    let request = consumer_group_heartbeat::ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        rebalance_timeout_ms: 1000,
        subscribed_topic_names: Some(vec!["t".into()]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    fixture.answer::<consumer_group_heartbeat::ConsumerGroupHeartbeat>(1, request).error_code
}

/// Fetches the topic as a member of a group that the client may read.
fn share_fetched(fixture: &mut Fixture) -> ErrorCode {
    use share_fetch::{FetchPartition, FetchTopic, ShareFetchRequest, ShareFetchResponse};
    fixture.allow("bob", &[(GROUP, "g", Operation::Read)]);
    let partitions = vec![FetchPartition::default()];
    let topic_id =
        crate::codec::wire::Uuid(fixture.node.broker.default_namespace().topic("t").unwrap().id().0);
    let request = ShareFetchRequest {
        group_id: Some("g".into()),
        member_id: Some("m".into()),
        max_records: 1,
        topics: vec![FetchTopic { topic_id, partitions }],
        ..ShareFetchRequest::default()
    };
    fixture.call::<share_fetch::ShareFetch>(2, request);
    let sharer = fixture.sharer.as_mut().unwrap();
    let (_, frame, _) = sharer.poll(&mut BytesMut::new(), Instant::now()).unwrap();
    let bytes = frame.to_bytes();
    decoded::<ShareFetchResponse>(&Api::ShareFetch, 2, bytes).responses[0].partitions[0].error_code
}

fn synced(fixture: &mut Fixture) -> ErrorCode {
    let request = sync_group::SyncGroupRequest { group_id: "g".into(), ..Default::default() };
    let Reply::Member { mut claim, .. } = fixture.call::<sync_group::SyncGroup>(5, request) else { panic!() };
    let Claimed::Frame(frame) = claim.take() else { panic!("not answered") };
    let bytes = frame.to_bytes();
    decoded::<sync_group::SyncGroupResponse>(&Api::SyncGroup, 5, bytes).error_code
}

fn committed(fixture: &mut Fixture) -> ErrorCode {
    use offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let partitions = vec![OffsetCommitRequestPartition { committed_offset: 1, ..Default::default() }];
    let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }];
    let request = offset_commit::OffsetCommitRequest { group_id: "g".into(), topics, ..Default::default() };
    let response = fixture.answer::<offset_commit::OffsetCommit>(8, request);
    response.topics[0].partitions[0].error_code
}

fn offset_fetched(fixture: &mut Fixture) -> ErrorCode {
    use offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
    let topic =
        OffsetFetchRequestTopics { name: "t".into(), partition_indexes: vec![0], ..Default::default() };
    let group =
        OffsetFetchRequestGroup { group_id: "g".into(), topics: Some(vec![topic]), ..Default::default() };
    let request = offset_fetch::OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let response = fixture.answer::<offset_fetch::OffsetFetch>(9, request);
    let group = &response.groups[0];
    group.topics.first().map_or(group.error_code, |topic| topic.partitions[0].error_code)
}

fn config_described(fixture: &mut Fixture, resource_type: i8, name: &str) -> ErrorCode {
    let resource = describe_configs::DescribeConfigsResource {
        resource_type,
        resource_name: name.into(),
        configuration_keys: None,
    };
    let request =
        describe_configs::DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    fixture.answer::<describe_configs::DescribeConfigs>(4, request).results[0].error_code
}

fn created(fixture: &mut Fixture) -> ErrorCode {
    let topic = create_topics::CreatableTopic {
        name: "new".into(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let request = create_topics::CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    fixture.answer::<create_topics::CreateTopics>(7, request).topics[0].error_code
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    use Operation::{Alter, AlterConfigs, Create, Delete, Describe, DescribeConfigs, IdempotentWrite, Read, Write};
    vec![
        case("Produce", NO_TOPIC, &[&[(TOPIC, "t", Write)]], produced),
        case("Fetch", NO_TOPIC, &[&[(TOPIC, "t", Read)]], fetched),
        case("ListOffsets", NO_TOPIC, &[&[(TOPIC, "t", Describe)], &[(TOPIC, "t", Read)]], |fixture| {
            let partitions = vec![list_offsets::ListOffsetsPartition { timestamp: -1, ..Default::default() }];
            let topics = vec![list_offsets::ListOffsetsTopic { name: "t".into(), partitions }];
            let request = list_offsets::ListOffsetsRequest { topics, ..Default::default() };
            fixture.answer::<list_offsets::ListOffsets>(6, request).topics[0].partitions[0].error_code
        }),
        case("OffsetForLeaderEpoch", NO_TOPIC, &[&[(TOPIC, "t", Describe)]], |fixture| {
            let partitions = vec![offset_for_leader_epoch::OffsetForLeaderPartition::default()];
            let topics = vec![offset_for_leader_epoch::OffsetForLeaderTopic { topic: "t".into(), partitions }];
            let request = offset_for_leader_epoch::OffsetForLeaderEpochRequest { topics, ..Default::default() };
            fixture.answer::<offset_for_leader_epoch::OffsetForLeaderEpoch>(4, request).topics[0].partitions[0].error_code
        }),
        case("Metadata", NO_TOPIC, &[&[(TOPIC, "t", Describe)], &[(TOPIC, "t", Write)]], |fixture| metadata_of(fixture, "t", false)),
        case("Metadata that creates", NO_TOPIC,
            &[&[(TOPIC, "new", Describe), (TOPIC, "new", Create)], &[(TOPIC, "new", Describe), (CLUSTER, "", Create)]],
            |fixture| metadata_of(fixture, "new", true)),
        case("OffsetCommit", NO_GROUP, &[&[(GROUP, "g", Read), (TOPIC, "t", Read)]], committed),
        case("OffsetFetch", NO_GROUP, &[&[(GROUP, "g", Describe), (TOPIC, "t", Describe)]], offset_fetched),
        case("FindCoordinator", NO_GROUP, &[&[(GROUP, "g", Describe)], &[(GROUP, "g", Read)]], |fixture| {
            let request = find_coordinator::FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
            fixture.answer::<find_coordinator::FindCoordinator>(4, request).coordinators[0].error_code
        }),
        case("JoinGroup", NO_GROUP, &[&[(GROUP, "g", Read)]], joined),
        case("SyncGroup", NO_GROUP, &[&[(GROUP, "g", Read)]], synced),
        case("Heartbeat", NO_GROUP, &[&[(GROUP, "g", Read)]], |fixture| {
            let request = heartbeat::HeartbeatRequest { group_id: "g".into(), ..Default::default() };
            fixture.answer::<heartbeat::Heartbeat>(4, request).error_code
        }),
        case("LeaveGroup", NO_GROUP, &[&[(GROUP, "g", Read)]], |fixture| {
            let request = leave_group::LeaveGroupRequest { group_id: "g".into(), ..Default::default() };
            fixture.answer::<leave_group::LeaveGroup>(5, request).error_code
        }),
        case("DescribeGroups", NO_GROUP, &[&[(GROUP, "g", Describe)]], |fixture| {
            let request = describe_groups::DescribeGroupsRequest { groups: vec!["g".into()], ..Default::default() };
            fixture.answer::<describe_groups::DescribeGroups>(6, request).groups[0].error_code
        }),
        case("ConsumerGroupHeartbeat", NO_GROUP, &[&[(GROUP, "g", Read), (TOPIC, "t", Describe)]], beaten),
        case("ShareGroupHeartbeat", NO_GROUP, &[&[(GROUP, "g", Read), (TOPIC, "t", Read)]], |fixture| {
            let request = share_group_heartbeat::ShareGroupHeartbeatRequest { group_id: "g".into(), member_id: "m".into(), subscribed_topic_names: Some(vec!["t".into()]), ..Default::default() };
            fixture.answer::<share_group_heartbeat::ShareGroupHeartbeat>(1, request).error_code
        }),
        case("ShareGroupDescribe", NO_GROUP, &[&[(GROUP, "g", Describe)]], |fixture| {
            let request = share_group_describe::ShareGroupDescribeRequest { group_ids: vec!["g".into()], ..Default::default() };
            fixture.answer::<share_group_describe::ShareGroupDescribe>(1, request).groups[0].error_code
        }),
        case("ShareFetch", NO_GROUP, &[&[(GROUP, "g", Read)]], |fixture| {
            let request = share_fetch::ShareFetchRequest { group_id: Some("g".into()), member_id: Some("m".into()), ..Default::default() };
            match fixture.call::<share_fetch::ShareFetch>(2, request) {
                Reply::Response(response, _) => response.error_code,
                _ => ErrorCode::NONE,
            }
        }),
        case("ShareFetch of a topic", NO_TOPIC, &[&[(TOPIC, "t", Read)]], share_fetched),
        case("ShareAcknowledge", NO_GROUP, &[&[(GROUP, "g", Read)]], |fixture| {
            let request = share_acknowledge::ShareAcknowledgeRequest { group_id: Some("g".into()), member_id: Some("m".into()), ..Default::default() };
            fixture.answer::<share_acknowledge::ShareAcknowledge>(2, request).error_code
        }),
        case("DescribeShareGroupOffsets", NO_GROUP, &[&[(GROUP, "g", Describe)]], |fixture| {
            let asked = describe_share_group_offsets::DescribeShareGroupOffsetsRequestGroup { group_id: "g".into(), topics: None };
            let request = describe_share_group_offsets::DescribeShareGroupOffsetsRequest { groups: vec![asked] };
            fixture.answer::<describe_share_group_offsets::DescribeShareGroupOffsets>(1, request).groups[0].error_code
        }),
        case("AlterShareGroupOffsets", NO_GROUP, &[&[(GROUP, "g", Read)]], |fixture| {
            let request = alter_share_group_offsets::AlterShareGroupOffsetsRequest { group_id: "g".into(), ..Default::default() };
            fixture.answer::<alter_share_group_offsets::AlterShareGroupOffsets>(0, request).error_code
        }),
        case("DeleteShareGroupOffsets", NO_GROUP, &[&[(GROUP, "g", Delete)]], |fixture| {
            let request = delete_share_group_offsets::DeleteShareGroupOffsetsRequest { group_id: "g".into(), ..Default::default() };
            fixture.answer::<delete_share_group_offsets::DeleteShareGroupOffsets>(0, request).error_code
        }),
        case("ConsumerGroupDescribe", NO_GROUP, &[&[(GROUP, "g", Describe)]], |fixture| {
            let request = consumer_group_describe::ConsumerGroupDescribeRequest { group_ids: vec!["g".into()], ..Default::default() };
            fixture.answer::<consumer_group_describe::ConsumerGroupDescribe>(1, request).groups[0].error_code
        }),
        case("DeleteGroups", NO_GROUP, &[&[(GROUP, "g", Delete)]], |fixture| {
            let request = delete_groups::DeleteGroupsRequest { groups_names: vec!["g".into()] };
            fixture.answer::<delete_groups::DeleteGroups>(3, request).results[0].error_code
        }),
        case("OffsetDelete", NO_GROUP, &[&[(GROUP, "g", Delete)]], |fixture| {
            let request = offset_delete::OffsetDeleteRequest { group_id: "g".into(), ..Default::default() };
            fixture.answer::<offset_delete::OffsetDelete>(0, request).error_code
        }),
        case("CreateTopics", NO_TOPIC, &[&[(TOPIC, "new", Create)], &[(CLUSTER, "", Create)]], created),
        case("DeleteTopics", NO_TOPIC, &[&[(TOPIC, "t", Delete)]], |fixture| {
            let request = delete_topics::DeleteTopicsRequest { topic_names: vec!["t".into()], ..Default::default() };
            fixture.answer::<delete_topics::DeleteTopics>(4, request).responses[0].error_code
        }),
        case("DeleteRecords", NO_TOPIC, &[&[(TOPIC, "t", Delete)]], |fixture| {
            let partitions = vec![delete_records::DeleteRecordsPartition::default()];
            let topics = vec![delete_records::DeleteRecordsTopic { name: "t".into(), partitions }];
            let request = delete_records::DeleteRecordsRequest { topics, timeout_ms: 0 };
            fixture.answer::<delete_records::DeleteRecords>(2, request).topics[0].partitions[0].error_code
        }),
        case("CreatePartitions", NO_TOPIC, &[&[(TOPIC, "t", Alter)]], |fixture| {
            let topics = vec![create_partitions::CreatePartitionsTopic { name: "t".into(), count: 3, assignments: None }];
            let request = create_partitions::CreatePartitionsRequest { topics, ..Default::default() };
            fixture.answer::<create_partitions::CreatePartitions>(3, request).results[0].error_code
        }),
        case("DescribeConfigs of a topic", NO_TOPIC, &[&[(TOPIC, "t", DescribeConfigs)], &[(TOPIC, "t", AlterConfigs)]],
            |fixture| config_described(fixture, 2, "t")),
        case("DescribeConfigs of the broker", NO_CLUSTER, &[&[(CLUSTER, "", DescribeConfigs)]], |fixture| config_described(fixture, 4, "1")),
        case("DescribeConfigs of a group", NO_GROUP, &[&[(GROUP, "g", DescribeConfigs)]], |fixture| config_described(fixture, 32, "g")),
        case("AlterConfigs", NO_TOPIC, &[&[(TOPIC, "t", AlterConfigs)]], |fixture| {
            let resource = alter_configs::AlterConfigsResource { resource_type: 2, resource_name: "t".into(), configs: Vec::new() };
            let request = alter_configs::AlterConfigsRequest { resources: vec![resource], validate_only: false };
            fixture.answer::<alter_configs::AlterConfigs>(2, request).responses[0].error_code
        }),
        case("IncrementalAlterConfigs of the broker", NO_CLUSTER, &[&[(CLUSTER, "", AlterConfigs)]], |fixture| {
            let resource = incremental_alter_configs::AlterConfigsResource { resource_type: 4, resource_name: "1".into(), configs: Vec::new() };
            let request = incremental_alter_configs::IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
            fixture.answer::<incremental_alter_configs::IncrementalAlterConfigs>(1, request).responses[0].error_code
        }),
        case("ListConfigResources", NO_CLUSTER, &[&[(CLUSTER, "", DescribeConfigs)]], |fixture| {
            fixture.answer::<list_config_resources::ListConfigResources>(1, Default::default()).error_code
        }),
        case("DescribeClientQuotas", NO_CLUSTER, &[&[(CLUSTER, "", DescribeConfigs)]], |fixture| {
            fixture.answer::<describe_client_quotas::DescribeClientQuotas>(1, Default::default()).error_code
        }),
        case("AlterClientQuotas", NO_CLUSTER, &[&[(CLUSTER, "", AlterConfigs)]], |fixture| {
            let entity = vec![alter_client_quotas::EntityData { entity_type: "user".into(), entity_name: None }];
            let entries = vec![alter_client_quotas::EntryData { entity, ops: Vec::new() }];
            let request = alter_client_quotas::AlterClientQuotasRequest { entries, validate_only: false };
            fixture.answer::<alter_client_quotas::AlterClientQuotas>(1, request).entries[0].error_code
        }),
        case("DescribeLogDirs", NO_CLUSTER, &[&[(CLUSTER, "", Describe)]], |fixture| {
            fixture.answer::<describe_log_dirs::DescribeLogDirs>(4, Default::default()).error_code
        }),
        case("DescribeQuorum", NO_CLUSTER, &[&[(CLUSTER, "", Describe)]], |fixture| {
            fixture.answer::<describe_quorum::DescribeQuorum>(2, Default::default()).error_code
        }),
        case("UpdateFeatures", NO_CLUSTER, &[&[(CLUSTER, "", Alter)]], |fixture| {
            fixture.answer::<update_features::UpdateFeatures>(2, Default::default()).error_code
        }),
        case("AlterReplicaLogDirs", NO_CLUSTER, &[&[(CLUSTER, "", Alter)]], |fixture| {
            let topics = vec![alter_replica_log_dirs::AlterReplicaLogDirTopic { name: "t".into(), partitions: vec![0] }];
            let dirs = vec![alter_replica_log_dirs::AlterReplicaLogDir { path: "log".into(), topics }];
            let request = alter_replica_log_dirs::AlterReplicaLogDirsRequest { dirs };
            fixture.answer::<alter_replica_log_dirs::AlterReplicaLogDirs>(2, request).results[0].partitions[0].error_code
        }),
        case("ElectLeaders", NO_CLUSTER, &[&[(CLUSTER, "", Alter)]], |fixture| {
            fixture.answer::<elect_leaders::ElectLeaders>(2, Default::default()).error_code
        }),
        case("AlterPartitionReassignments", NO_CLUSTER, &[&[(CLUSTER, "", Alter)]], |fixture| {
            fixture.answer::<alter_partition_reassignments::AlterPartitionReassignments>(0, Default::default()).error_code
        }),
        case("ListPartitionReassignments", NO_CLUSTER, &[&[(CLUSTER, "", Describe)]], |fixture| {
            fixture.answer::<list_partition_reassignments::ListPartitionReassignments>(0, Default::default()).error_code
        }),
        case("DescribeProducers", NO_TOPIC, &[&[(TOPIC, "t", Read)]], |fixture| {
            let topics = vec![describe_producers::TopicRequest { name: "t".into(), partition_indexes: vec![0] }];
            let request = describe_producers::DescribeProducersRequest { topics };
            fixture.answer::<describe_producers::DescribeProducers>(0, request).topics[0].partitions[0].error_code
        }),
        case("DescribeTopicPartitions", NO_TOPIC, &[&[(TOPIC, "t", Describe)]], |fixture| {
            let topics = vec![describe_topic_partitions::TopicRequest { name: "t".into() }];
            let request = describe_topic_partitions::DescribeTopicPartitionsRequest { topics, ..Default::default() };
            fixture.answer::<describe_topic_partitions::DescribeTopicPartitions>(0, request).topics[0].error_code
        }),
        case("InitProducerId", NO_CLUSTER, &[&[(CLUSTER, "", IdempotentWrite)], &[(TOPIC, "any", Write)]], |fixture| {
            fixture.answer::<init_producer_id::InitProducerId>(5, Default::default()).error_code
        }),
        case("DescribeAcls", NO_CLUSTER, &[&[(CLUSTER, "", Describe)], &[(CLUSTER, "", Alter)]], |fixture| {
            let request = describe_acls::DescribeAclsRequest { resource_type_filter: 1, pattern_type_filter: 1, operation: 1, permission_type: 1, ..Default::default() };
            fixture.answer::<describe_acls::DescribeAcls>(3, request).error_code
        }),
        case("CreateAcls", NO_CLUSTER, &[&[(CLUSTER, "", Alter)]], |fixture| {
            let request = create_acls::CreateAclsRequest { creations: vec![create_acls::AclCreation::default()] };
            fixture.answer::<create_acls::CreateAcls>(3, request).results[0].error_code
        }),
        case("DeleteAcls", NO_CLUSTER, &[&[(CLUSTER, "", Alter)]], |fixture| {
            let request = delete_acls::DeleteAclsRequest { filters: vec![delete_acls::DeleteAclsFilter::default()] };
            fixture.answer::<delete_acls::DeleteAcls>(3, request).filter_results[0].error_code
        }),
        case("DescribeUserScramCredentials", NO_CLUSTER, &[&[(CLUSTER, "", Describe)]], |fixture| {
            fixture.answer::<describe_user_scram_credentials::DescribeUserScramCredentials>(0, Default::default()).error_code
        }),
        case("AlterUserScramCredentials", NO_CLUSTER, &[&[(CLUSTER, "", Alter)]], |fixture| {
            let deletions = vec![alter_user_scram_credentials::ScramCredentialDeletion { name: "x".into(), mechanism: 1 }];
            let request = alter_user_scram_credentials::AlterUserScramCredentialsRequest { deletions, ..Default::default() };
            fixture.answer::<alter_user_scram_credentials::AlterUserScramCredentials>(0, request).results[0].error_code
        }),
    ]
}

fn metadata_of(fixture: &mut Fixture, name: &str, create: bool) -> ErrorCode {
    use metadata::{Metadata, MetadataRequest, MetadataRequestTopic};
    let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: create,
        ..MetadataRequest::default()
    };
    fixture.answer::<Metadata>(9, request).topics[0].error_code
}

#[test]
fn each_api_asks_for_its_permission_and_names_what_was_refused() {
    let refusals = [NO_TOPIC, NO_GROUP, NO_CLUSTER];
    for case in cases() {
        let mut refused = fixture();
        refused.become_user("bob", &[]);
        assert_eq!((case.call)(&mut refused), case.refused, "{} without permission", case.name);
        for enough in case.enough {
            let mut allowed = fixture();
            allowed.become_user("bob", enough);
            let code = (case.call)(&mut allowed);
            assert!(!refusals.contains(&code), "{} with {enough:?}: {code:?}", case.name);
            for lacking in 0..enough.len() {
                let mut rest = enough.to_vec();
                rest.remove(lacking);
                let mut refused = fixture();
                refused.become_user("bob", &rest);
                let code = (case.call)(&mut refused);
                assert!(refusals.contains(&code), "{} with {rest:?}: {code:?}", case.name);
            }
        }
        let mut administrator = fixture();
        administrator.become_administrator();
        let code = (case.call)(&mut administrator);
        assert!(!refusals.contains(&code), "{} by an administrator: {code:?}", case.name);
    }
}

#[test]
fn what_a_client_may_not_see_is_not_listed() {
    use metadata::{Metadata, MetadataRequest};
    let mut fixture = fixture();
    fixture
        .access
        .node
        .namespace
        .create_topic("u", &TopicSpec { partitions: 1, config: Default::default() })
        .unwrap();
    fixture.become_administrator();
    assert_eq!(committed(&mut fixture), ErrorCode::NONE);
    let all = |fixture: &mut Fixture| -> Vec<String> {
        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
        let response = fixture.answer::<Metadata>(9, request);
        response.topics.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect()
    };
    let groups = |fixture: &mut Fixture| -> usize {
        fixture.answer::<list_groups::ListGroups>(5, Default::default()).groups.len()
    };
    let pages = |fixture: &mut Fixture| -> usize {
        let request = describe_topic_partitions::DescribeTopicPartitionsRequest::default();
        fixture.answer::<describe_topic_partitions::DescribeTopicPartitions>(0, request).topics.len()
    };
    let mut names = all(&mut fixture);
    names.sort();
    assert_eq!((names, groups(&mut fixture), pages(&mut fixture)), (vec!["t".into(), "u".into()], 1, 2));
    fixture.become_user("bob", &[(TOPIC, "u", Operation::Write)]);
    assert_eq!((all(&mut fixture), groups(&mut fixture), pages(&mut fixture)), (vec!["u".into()], 0, 1));
    // One that does not exist is refused like one that does.
    assert_eq!(metadata_of(&mut fixture, "t", false), NO_TOPIC);
    assert_eq!(metadata_of(&mut fixture, "missing", true), NO_TOPIC);
    fixture.become_user("bob", &[(GROUP, "g", Operation::Describe)]);
    assert_eq!(groups(&mut fixture), 1);
    fixture.become_user("eve", &[(CLUSTER, "", Operation::Describe)]);
    assert_eq!(groups(&mut fixture), 1);
}

#[test]
fn authorized_operations_are_those_that_are_allowed() {
    use describe_cluster::{DescribeCluster, DescribeClusterRequest};
    use describe_groups::{DescribeGroups, DescribeGroupsRequest};
    use metadata::{Metadata, MetadataRequest};
    let told = |fixture: &mut Fixture| {
        let request = MetadataRequest {
            topics: None,
            include_topic_authorized_operations: true,
            ..MetadataRequest::default()
        };
        let topics = fixture.answer::<Metadata>(9, request).topics;
        let request =
            DescribeClusterRequest { include_cluster_authorized_operations: true, ..Default::default() };
        let cluster = fixture.answer::<DescribeCluster>(1, request).cluster_authorized_operations;
        let request = DescribeGroupsRequest { groups: vec!["g".into()], include_authorized_operations: true };
        let groups = fixture.answer::<DescribeGroups>(5, request).groups;
        (
            topics.first().map(|topic| topic.topic_authorized_operations),
            cluster,
            groups[0].authorized_operations,
        )
    };
    let mut all = fixture();
    all.become_administrator();
    assert_eq!(told(&mut all), (Some(0b1101_1111_1000), 0b1_1111_1010_0000, 0b1101_0100_1000));
    let mut some = fixture();
    some.become_user("bob", &[(TOPIC, "t", Operation::Read), (GROUP, "g", Operation::Read)]);
    assert_eq!(told(&mut some), (Some(0b1_0000_1000), 0, 0b1_0000_1000));
    some.become_user("bob", &[(CLUSTER, "", Operation::Describe), (CLUSTER, "", Operation::Create)]);
    assert_eq!(told(&mut some).1, 0b1_0010_0000);
}

#[test]
fn created_topics_keep_their_settings_to_themselves() {
    let mut fixture = fixture();
    fixture.become_user("bob", &[(TOPIC, "new", Operation::Create)]);
    let topic = create_topics::CreatableTopic {
        name: "new".into(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let request = create_topics::CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let response = fixture.answer::<create_topics::CreateTopics>(7, request);
    let topic = &response.topics[0];
    assert_eq!((topic.error_code, topic.topic_config_error_code), (ErrorCode::NONE, NO_TOPIC));
    assert_eq!((topic.num_partitions, topic.configs.as_ref()), (-1, None));
}

#[test]
fn a_waiting_fetch_notices_that_its_permission_is_revoked() {
    use fetch::{FetchPartition, FetchRequest, FetchTopic};
    let mut fixture = fixture();
    fixture.become_user("bob", &[(TOPIC, "t", Operation::Read)]);
    let request = |session_id, session_epoch, topics| FetchRequest {
        session_id,
        session_epoch,
        max_wait_ms: 60_000,
        min_bytes: 1,
        max_bytes: 1000,
        topics,
        ..FetchRequest::default()
    };
    let partition = FetchPartition { partition_max_bytes: 1000, ..FetchPartition::default() };
    let topic = FetchTopic { topic: "t".into(), partitions: vec![partition], ..FetchTopic::default() };
    fixture.call::<fetch::Fetch>(12, request(0, 0, vec![topic]));
    let now = Instant::now();
    assert!(fixture.fetcher.poll(&mut BytesMut::new(), now).is_none());
    let poll = |fixture: &mut Fixture| {
        let (_, frame) = fixture.fetcher.poll(&mut BytesMut::new(), now).unwrap();
        let bytes = frame.to_bytes();
        decoded::<fetch::FetchResponse>(&Api::Fetch, 12, bytes)
    };
    fixture.node.broker.access().delete_rules(|_| true).unwrap();
    let namespace = &fixture.access.node.namespace;
    let topic = namespace.topic("t").unwrap();
    let bytes = batch();
    namespace
        .produce(&topic, &topic.partition(0).unwrap(), inver_storage::batch::Batch::parse(bytes).unwrap())
        .unwrap();
    fixture.node.broker.log().sync().unwrap();
    fixture.fetcher.wake(&[0], now);
    let response = poll(&mut fixture);
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, NO_TOPIC);
    assert!(partition.records.as_ref().is_none_or(Bytes::is_empty), "records are sent no more");
    // The session goes on: allowed again, the records arrive.
    fixture.call::<fetch::Fetch>(12, request(response.session_id, 1, Vec::new()));
    assert_eq!(poll(&mut fixture).responses[0].partitions[0].error_code, NO_TOPIC);
    fixture.allow("bob", &[(TOPIC, "t", Operation::Read)]);
    fixture.call::<fetch::Fetch>(12, request(response.session_id, 2, Vec::new()));
    let response = poll(&mut fixture);
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, ErrorCode::NONE);
    assert!(partition.records.as_ref().is_some_and(|records| !records.is_empty()));
}
