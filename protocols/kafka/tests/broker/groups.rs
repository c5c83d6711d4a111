//! Groups: members, committed offsets, administration, restarts.

use std::time::Duration;
use tokio::time::Instant;

use bytes::Bytes;
use inver_broker::Clock;
use inver_kafka::KafkaConfig;
use inver_kafka::api::delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
use inver_kafka::api::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
use inver_kafka::api::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
use inver_kafka::api::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use inver_kafka::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use inver_kafka::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use inver_kafka::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberIdentity};
use inver_kafka::api::list_groups::{ListGroupsRequest, ListGroupsResponse};
use inver_kafka::api::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
};
use inver_kafka::api::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic, OffsetDeleteResponse,
};
use inver_kafka::api::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponse,
};
use inver_kafka::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use inver_kafka::codec::api::Api;
use inver_kafka::codec::error_code::ErrorCode;

use crate::test_broker::{Client, TestBroker};

fn join_request(member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\0\0\0\0"),
        }],
        ..JoinGroupRequest::default()
    }
}

/// Joins a group of one member, and syncs as its leader.
fn join_and_sync(client: &mut Client, version: i16) -> (String, i32) {
    join_and_sync_for(client, version, 10_000)
}

fn join_and_sync_for(client: &mut Client, version: i16, session_timeout_ms: i32) -> (String, i32) {
    let join_request = |member_id: &str| JoinGroupRequest { session_timeout_ms, ..join_request(member_id) };
    let mut joined: JoinGroupResponse = client.call(&Api::JoinGroup, version, &join_request(""));
    if version >= 4 {
        assert_eq!(joined.error_code, ErrorCode::MEMBER_ID_REQUIRED);
        joined = client.call(&Api::JoinGroup, version, &join_request(&joined.member_id));
    }
    assert_eq!(joined.error_code, ErrorCode::NONE, "{joined:?}");
    assert_eq!(joined.leader, joined.member_id.as_str());
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from_static(b"work"),
        }],
        ..SyncGroupRequest::default()
    };
    let synced: SyncGroupResponse = client.call(&Api::SyncGroup, version.min(5), &request);
    assert_eq!((synced.error_code, synced.assignment), (ErrorCode::NONE, Bytes::from_static(b"work")));
    (joined.member_id.to_string(), joined.generation_id)
}

fn heartbeat(client: &mut Client, member_id: &str, generation_id: i32) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: "g".into(),
        generation_id,
        member_id: member_id.into(),
        ..HeartbeatRequest::default()
    };
    client.call::<_, HeartbeatResponse>(&Api::Heartbeat, 4, &request).error_code
}

fn leave(client: &mut Client, version: i16, member_id: &str) -> ErrorCode {
    let members = vec![MemberIdentity { member_id: member_id.into(), ..MemberIdentity::default() }];
    let request = LeaveGroupRequest { group_id: "g".into(), member_id: member_id.into(), members };
    let response: LeaveGroupResponse = client.call(&Api::LeaveGroup, version, &request);
    response.members.first().map_or(response.error_code, |member| member.error_code)
}

fn commit(client: &mut Client, member_id: &str, generation: i32, offset: i64) -> ErrorCode {
    commit_to(client, "g", member_id, generation, offset)
}

fn commit_to(client: &mut Client, group: &str, member_id: &str, generation: i32, offset: i64) -> ErrorCode {
    let partition = OffsetCommitRequestPartition {
        committed_offset: offset,
        committed_leader_epoch: 0,
        committed_metadata: Some("note".into()),
        ..OffsetCommitRequestPartition::default()
    };
    let topic =
        OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: generation,
        member_id: member_id.into(),
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    let response: OffsetCommitResponse = client.call(&Api::OffsetCommit, 8, &request);
    response.topics[0].partitions[0].error_code
}

fn committed(client: &mut Client, version: i16) -> (i64, String) {
    let partition_indexes = vec![0];
    let topics = OffsetFetchRequestTopic { name: "t".into(), partition_indexes: partition_indexes.clone() };
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![OffsetFetchRequestTopics {
            name: "t".into(),
            partition_indexes,
            ..Default::default()
        }]),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest {
        group_id: "g".into(),
        topics: Some(vec![topics]),
        groups: vec![group],
        require_stable: true,
    };
    let response: OffsetFetchResponse = client.call(&Api::OffsetFetch, version, &request);
    if version < 8 {
        let partition = &response.topics[0].partitions[0];
        (partition.committed_offset, partition.metadata.as_ref().unwrap().to_string())
    } else {
        let partition = &response.groups[0].topics[0].partitions[0];
        (partition.committed_offset, partition.metadata.as_ref().unwrap().to_string())
    }
}

fn list(client: &mut Client) -> Vec<(String, String)> {
    let response: ListGroupsResponse = client.call(&Api::ListGroups, 5, &ListGroupsRequest::default());
    response.groups.iter().map(|g| (g.group_id.to_string(), g.group_state.to_string())).collect()
}

#[test]
fn a_member_joins_syncs_and_leaves_in_every_version() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    for version in 0..=9 {
        let (member, generation) = join_and_sync(&mut client, version);
        assert_eq!(heartbeat(&mut client, &member, generation), ErrorCode::NONE);
        assert_eq!(leave(&mut client, version.min(5), &member), ErrorCode::NONE, "v{version}");
        assert_eq!(heartbeat(&mut client, &member, generation), ErrorCode::UNKNOWN_MEMBER_ID);
    }
    assert_eq!(list(&mut client), [("g".to_owned(), "Empty".to_owned())]);
}

#[test]
fn the_coordinator_is_this_node() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    for version in 0..=6 {
        let request = FindCoordinatorRequest {
            key: "g".into(),
            key_type: 0,
            coordinator_keys: vec!["g".into(), "h".into()],
        };
        let response: FindCoordinatorResponse = client.call(&Api::FindCoordinator, version, &request);
        let port = if version < 4 { response.port } else { response.coordinators[1].port };
        assert_eq!(port, i32::from(broker.address.port()), "v{version}");
    }
}

#[test]
fn a_connection_lost_during_a_join_leaves_no_member() {
    let broker = TestBroker::new();
    let mut first = broker.client();
    let (member, generation) = join_and_sync(&mut first, 0);
    let mut lost = broker.client();
    lost.send(&Api::JoinGroup, 3, &join_request(""));
    wait_until("the join starts a rebalance", || {
        heartbeat(&mut first, &member, generation) == ErrorCode::REBALANCE_IN_PROGRESS
    });
    drop(lost);
    let describe = DescribeGroupsRequest { groups: vec!["g".into()], ..DescribeGroupsRequest::default() };
    wait_until("the lost member is removed", || {
        let response: DescribeGroupsResponse = first.call(&Api::DescribeGroups, 5, &describe);
        response.groups[0].members.len() == 1
    });
    let joined: JoinGroupResponse = first.call(&Api::JoinGroup, 0, &join_request(&member));
    assert_eq!((joined.error_code, joined.members.len()), (ErrorCode::NONE, 1));
}

/// A broker with a manual clock, in which groups do not wait for further members.
fn with_clock(mut config: KafkaConfig) -> (TestBroker, Clock) {
    config.groups.initial_delay = Duration::ZERO;
    let clock = Clock::manual(1_700_000_000_000);
    (TestBroker::with_clock(config, &clock), clock)
}

/// Repeats a check until it holds.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(15), "not in time: {what}");
    }
}

#[test]
fn a_member_without_heartbeats_is_removed() {
    let (broker, clock) = with_clock(KafkaConfig::default());
    let mut client = broker.client();
    let joined: JoinGroupResponse = client.call(&Api::JoinGroup, 3, &join_request(""));
    clock.advance(Duration::from_secs(9));
    assert_eq!(heartbeat(&mut client, &joined.member_id, 1), ErrorCode::NONE);
    clock.advance(Duration::from_secs(11));
    wait_until("the member is removed", || list(&mut client).iter().all(|(_, state)| state == "Empty"));
    assert_eq!(heartbeat(&mut client, &joined.member_id, 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn committed_offsets_are_stored_with_their_metadata() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    for version in 1..=9 {
        assert_eq!(committed(&mut client, version), (-1, String::new()));
    }
    assert_eq!(commit(&mut client, "", -1, 41), ErrorCode::NONE);
    let (member, generation) = join_and_sync(&mut client, 7);
    assert_eq!(commit(&mut client, &member, generation, 42), ErrorCode::NONE);
    assert_eq!(commit(&mut client, &member, generation + 1, 43), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(commit(&mut client, "unknown", generation, 43), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(commit(&mut client, "", -1, 43), ErrorCode::UNKNOWN_MEMBER_ID);
    for version in 1..=9 {
        assert_eq!(committed(&mut client, version), (42, "note".into()));
    }
    let all = OffsetFetchRequest { group_id: "g".into(), topics: None, ..OffsetFetchRequest::default() };
    let response: OffsetFetchResponse = client.call(&Api::OffsetFetch, 5, &all);
    assert_eq!(response.topics[0].partitions[0].committed_offset, 42);
}

#[test]
fn a_group_survives_a_restart() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let (member, generation) = join_and_sync(&mut client, 7);
    commit(&mut client, &member, generation, 5);
    drop(client);
    let broker = broker.restart(KafkaConfig::default());
    let mut client = broker.client();
    assert_eq!(heartbeat(&mut client, &member, generation), ErrorCode::NONE);
    assert_eq!(commit(&mut client, &member, generation, 6), ErrorCode::NONE);
    assert_eq!(committed(&mut client, 7).0, 6);
    assert_eq!(list(&mut client), [("g".into(), "Stable".into())]);
    leave(&mut client, 3, &member);
    drop(client);
    let broker = broker.restart(KafkaConfig::default());
    let mut client = broker.client();
    assert_eq!(list(&mut client), [("g".into(), "Empty".into())]);
    assert_eq!(committed(&mut client, 7).0, 6);
}

#[test]
fn groups_are_described_and_deleted() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let (member, generation) = join_and_sync(&mut client, 7);
    commit(&mut client, &member, generation, 5);
    let describe = DescribeGroupsRequest {
        groups: vec!["g".into(), "none".into()],
        include_authorized_operations: true,
    };
    for version in 0..=6 {
        let response: DescribeGroupsResponse = client.call(&Api::DescribeGroups, version, &describe);
        let group = &response.groups[0];
        assert_eq!((group.group_state.as_str(), group.protocol_data.as_str()), ("Stable", "range"));
        assert_eq!(group.members[0].member_assignment, "work");
        assert_eq!(group.members[0].client_host, "/127.0.0.1");
        let expected = if version < 6 { ErrorCode::NONE } else { ErrorCode::GROUP_ID_NOT_FOUND };
        assert_eq!(response.groups[1].error_code, expected);
        assert_eq!(response.groups[1].group_state, "Dead");
    }
    let delete = DeleteGroupsRequest { groups_names: vec!["g".into(), "none".into()] };
    let response: DeleteGroupsResponse = client.call(&Api::DeleteGroups, 2, &delete);
    assert_eq!(response.results[0].error_code, ErrorCode::NON_EMPTY_GROUP);
    assert_eq!(response.results[1].error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    // Offsets of a subscribed topic cannot be deleted.
    let partitions = vec![OffsetDeleteRequestPartition { partition_index: 0 }];
    let topics = vec![OffsetDeleteRequestTopic { name: "t".into(), partitions }];
    let offset_delete = OffsetDeleteRequest { group_id: "g".into(), topics };
    let response: OffsetDeleteResponse = client.call(&Api::OffsetDelete, 0, &offset_delete);
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC);
    leave(&mut client, 3, &member);
    let response: OffsetDeleteResponse = client.call(&Api::OffsetDelete, 0, &offset_delete);
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::NONE);
    assert_eq!(committed(&mut client, 7).0, -1);
    commit(&mut client, "", -1, 9);
    let response: DeleteGroupsResponse = client.call(&Api::DeleteGroups, 2, &delete);
    assert_eq!(response.results[0].error_code, ErrorCode::NONE);
    assert!(list(&mut client).is_empty());
    assert_eq!(committed(&mut client, 7).0, -1);
}

#[test]
fn a_group_whose_offsets_were_deleted_with_their_topic_is_deleted() {
    let (broker, clock) = with_clock(KafkaConfig::default());
    let mut client = broker.with_topic("t", 1, &[]);
    let (member_id, generation) = join_and_sync(&mut client, 5);
    assert_eq!(commit(&mut client, &member_id, generation, 5), ErrorCode::NONE);
    assert_eq!(leave(&mut client, 3, &member_id), ErrorCode::NONE);
    // After a restart no timeout of a former member is left: only the expiry check finds the group.
    drop(client);
    let broker = broker.restart(KafkaConfig::default());
    let mut client = broker.client();
    let delete = DeleteTopicsRequest { topic_names: vec!["t".into()], ..DeleteTopicsRequest::default() };
    let response: DeleteTopicsResponse = client.call(&Api::DeleteTopics, 4, &delete);
    assert_eq!(response.responses[0].error_code, ErrorCode::NONE);
    clock.advance(Duration::from_secs(601));
    wait_until("the group is deleted", || list(&mut client).is_empty());
    drop(client);
    let broker = broker.restart(KafkaConfig::default());
    assert_eq!(list(&mut broker.client()), [], "the row is deleted too");
}

#[test]
fn a_group_without_commits_is_empty_until_the_next_round_of_expiry() {
    let mut config = KafkaConfig::default();
    config.groups.initial_delay = Duration::ZERO;
    let (broker, clock) = with_clock(config.clone());
    let mut client = broker.client();
    let (member, _) = join_and_sync_for(&mut client, 5, 600_000);
    assert_eq!(leave(&mut client, 3, &member), ErrorCode::NONE);
    let describe = DescribeGroupsRequest { groups: vec!["g".into()], include_authorized_operations: false };
    let state = |client: &mut Client| {
        let response: DescribeGroupsResponse = client.call(&Api::DescribeGroups, 5, &describe);
        (response.groups[0].group_state.to_string(), response.groups[0].protocol_type.to_string())
    };
    assert_eq!(state(&mut client), ("Empty".into(), "consumer".into()));
    assert_eq!(list(&mut client).len(), 1);
    drop(client);
    let broker = broker.restart(config);
    let mut client = broker.client();
    assert_eq!(state(&mut client), ("Empty".into(), "consumer".into()), "a restart does not forget it");
    let delete = DeleteGroupsRequest { groups_names: vec!["g".into()] };
    let response: DeleteGroupsResponse = client.call(&Api::DeleteGroups, 2, &delete);
    assert_eq!(response.results[0].error_code, ErrorCode::NONE);
    let (member, _) = join_and_sync_for(&mut client, 5, 600_000);
    assert_eq!(leave(&mut client, 3, &member), ErrorCode::NONE);
    // The clients' connections are idle for too long by then.
    drop(client);
    clock.advance(Duration::from_secs(601));
    wait_until("the group is forgotten", || list(&mut broker.client()).is_empty());
}

#[test]
fn groups_that_wait_for_expiry_make_room_for_others() {
    let mut config = KafkaConfig::default();
    config.limits.groups_max = 2;
    let (broker, clock) = with_clock(config);
    let mut client = broker.client();
    for round in 0..4 {
        for group in ["a", "b", "c"] {
            let group = format!("{group}{round}");
            let request = |member_id: &str| JoinGroupRequest {
                group_id: group.as_str().into(),
                session_timeout_ms: 600_000,
                ..join_request(member_id)
            };
            let joined: JoinGroupResponse = client.call(&Api::JoinGroup, 3, &request(""));
            assert_eq!(joined.error_code, ErrorCode::NONE, "{group}");
            let leave = LeaveGroupRequest {
                group_id: group.as_str().into(),
                member_id: joined.member_id.clone(),
                ..LeaveGroupRequest::default()
            };
            let left: LeaveGroupResponse = client.call(&Api::LeaveGroup, 2, &leave);
            assert_eq!(left.error_code, ErrorCode::NONE);
            clock.advance(Duration::from_secs(1));
        }
    }
}

#[test]
fn committed_offsets_expire_after_the_last_member_left() {
    let mut config = KafkaConfig::default();
    config.groups.offsets_retention = Duration::from_secs(60);
    config.groups.initial_delay = Duration::ZERO;
    let (broker, clock) = with_clock(config.clone());
    let mut client = broker.with_topic("t", 1, &[]);
    let (member_id, generation) = join_and_sync_for(&mut client, 5, 600_000);
    assert_eq!(commit(&mut client, &member_id, generation, 5), ErrorCode::NONE);
    assert_eq!(commit_to(&mut client, "without members", "", -1, 5), ErrorCode::NONE);
    clock.advance(Duration::from_secs(90));
    let is_listed = |client: &mut Client, id: &str| list(client).iter().any(|(group, _)| group == id);
    wait_until("offsets of the group without members expire", || !is_listed(&mut client, "without members"));
    assert_eq!(committed(&mut client, 7).0, 5, "the group has a member");
    assert_eq!(leave(&mut client, 3, &member_id), ErrorCode::NONE);
    // The time of the leave survives a restart.
    drop(client);
    let broker = broker.restart(config);
    let mut client = broker.client();
    assert_eq!(committed(&mut client, 7).0, 5, "the member has just left");
    clock.advance(Duration::from_secs(61));
    wait_until("the offsets expire", || committed(&mut client, 7).0 == -1);
    assert!(!is_listed(&mut client, "g"));
}
