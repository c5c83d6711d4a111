//! Groups whose assignment the broker makes: what requests are refused, and what other APIs tell of such a group.

use inver_broker::QueueSpec;
use inver_storage::Share;

use super::*;
use crate::api::consumer_group_describe::*;
use crate::api::consumer_group_heartbeat::*;
use crate::api::describe_groups::*;
use crate::api::list_groups::*;
use crate::api::offset_commit::*;
use crate::api::offset_fetch::*;
use crate::codec::text::Str;
use crate::coordinator::consumer::{Heartbeat, JOIN};
use crate::coordinator::{CONSUMER_TABLES, Coordinator};
use crate::namespace_rows::NamespaceRows;

fn join() -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        rebalance_timeout_ms: 1000,
        subscribed_topic_names: Some(vec!["t".into()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

fn beat(fixture: &mut Fixture, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
    fixture.answer::<ConsumerGroupHeartbeat>(1, request)
}

fn leave(fixture: &mut Fixture) {
    assert_eq!(
        beat(fixture, ConsumerGroupHeartbeatRequest { member_epoch: -1, ..join() }).error_code,
        ErrorCode::NONE
    );
}

/// Joins by the classic protocol. From version 4 on a new member is told its id first.
fn join_classic(fixture: &mut Fixture, version: i16) -> ErrorCode {
    let protocol = join_group::JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() };
    let request = join_group::JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..Default::default()
    };
    let Reply::Member { mut claim, .. } = fixture.call::<join_group::JoinGroup>(version, request) else {
        panic!()
    };
    match claim.take() {
        // After the length, the correlation id, an empty set of tags and the time to wait.
        Claimed::Frame(frame) => ErrorCode(i16::from_be_bytes(frame.to_bytes()[13..15].try_into().unwrap())),
        _ => panic!("not answered"),
    }
}

fn coordinator_after_a_restart(fixture: &Fixture) -> Arc<Coordinator> {
    coordinator_with(fixture, KafkaConfig::default().limits.groups_max)
}

fn coordinator_with(fixture: &Fixture, groups_max: usize) -> Arc<Coordinator> {
    let mut config = KafkaConfig::default();
    config.limits.groups_max = groups_max;
    Coordinator::new(fixture.node.broker.clone(), fixture.access.node.namespace.clone(), &config)
}

/// The heartbeat by which a member joins, for the coordinator.
fn joining(topic: Str) -> Heartbeat {
    Heartbeat {
        member_id: "m".into(),
        epoch: JOIN,
        instance_id: None,
        rack_id: None,
        client_id: Str::default(),
        client_host: Str::default(),
        rebalance_timeout: None,
        names: Some(vec![topic]),
        pattern: None,
        assignor: None,
        owned: Some(Default::default()),
    }
}

fn commit(fixture: &mut Fixture, version: i16, epoch: i32) -> ErrorCode {
    let partitions = vec![OffsetCommitRequestPartition { committed_offset: 5, ..Default::default() }];
    let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }];
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        generation_id_or_member_epoch: epoch,
        topics,
        ..Default::default()
    };
    fixture.answer::<OffsetCommit>(version, request).topics[0].partitions[0].error_code
}

#[test]
fn a_member_joins_commits_and_leaves() {
    let mut fixture = fixture();
    let joined = beat(&mut fixture, join());
    assert_eq!((joined.error_code, joined.member_epoch), (ErrorCode::NONE, 1), "{:?}", joined.error_message);
    assert_eq!((joined.member_id, joined.heartbeat_interval_ms), (Some("m".into()), 5000));
    let assigned = joined.assignment.unwrap().topic_partitions;
    assert_eq!((assigned.len(), assigned[0].partitions.first()), (1, Some(&0)));
    assert_eq!(commit(&mut fixture, 9, 2), ErrorCode::STALE_MEMBER_EPOCH);
    assert_eq!(commit(&mut fixture, 8, 2), ErrorCode::UNSUPPORTED_VERSION);
    assert_eq!(commit(&mut fixture, 9, 1), ErrorCode::NONE);
    let offsets = |fixture: &mut Fixture, member_epoch| {
        let group = OffsetFetchRequestGroup {
            group_id: "g".into(),
            member_id: Some("m".into()),
            member_epoch,
            topics: None,
        };
        let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
        fixture.answer::<OffsetFetch>(9, request).groups[0].error_code
    };
    assert_eq!(offsets(&mut fixture, 1), ErrorCode::NONE);
    assert_eq!(offsets(&mut fixture, 0), ErrorCode::STALE_MEMBER_EPOCH);

    let request = ListGroupsRequest { types_filter: vec!["Consumer".into()], ..Default::default() };
    let listed = fixture.answer::<ListGroups>(5, request).groups;
    let listed: Vec<[&str; 4]> = (listed.iter())
        .map(|group| {
            [&group.group_id, &group.protocol_type, &group.group_state, &group.group_type].map(|s| &**s)
        })
        .collect();
    assert_eq!(listed, [["g", "consumer", "Stable", "consumer"]]);
    let request =
        ConsumerGroupDescribeRequest { group_ids: vec!["g".into(), "x".into()], ..Default::default() };
    let groups = fixture.answer::<ConsumerGroupDescribe>(1, request).groups;
    assert_eq!((&*groups[0].group_state, &*groups[0].assignor_name), ("Stable", "uniform"));
    let member = &groups[0].members[0];
    assert_eq!((member.member_type, member.assignment.topic_partitions[0].topic_name.as_str()), (1, "t"));
    assert_eq!(member.assignment, member.target_assignment);
    assert_eq!(groups[1].error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    let request = DescribeGroupsRequest { groups: vec!["g".into()], ..Default::default() };
    let classic = &fixture.answer::<DescribeGroups>(6, request).groups[0];
    assert_eq!(classic.error_code, ErrorCode::GROUP_ID_NOT_FOUND);

    let request = |groups| delete_groups::DeleteGroupsRequest { groups_names: groups };
    let delete = |fixture: &mut Fixture| {
        fixture.answer::<delete_groups::DeleteGroups>(3, request(vec!["g".into()])).results[0].error_code
    };
    assert_eq!(delete(&mut fixture), ErrorCode::NON_EMPTY_GROUP);
    let leaving = ConsumerGroupHeartbeatRequest { member_epoch: -1, ..join() };
    assert_eq!(beat(&mut fixture, leaving).member_epoch, -1);
    assert_eq!(delete(&mut fixture), ErrorCode::NONE);
    assert!(!fixture.access.node.coordinator.has_consumer_group(&"g".into()));
    assert!(!fixture.access.node.coordinator.has_committed_offsets("g"));
}

#[test]
fn wrong_requests_are_refused() {
    let mut fixture = fixture();
    let mut code = |change: fn(&mut ConsumerGroupHeartbeatRequest)| {
        let mut request = join();
        change(&mut request);
        beat(&mut fixture, request).error_code
    };
    let wrong: [fn(&mut ConsumerGroupHeartbeatRequest); 9] = [
        |request| request.group_id = " ".into(),
        |request| request.member_id = Str::default(),
        |request| request.instance_id = Some(Str::default()),
        |request| request.rack_id = Some(Str::default()),
        |request| request.rebalance_timeout_ms = -1,
        |request| request.topic_partitions = None,
        |request| request.subscribed_topic_names = None,
        |request| request.member_epoch = -2,
        |request| request.member_epoch = -3,
    ];
    for change in wrong {
        assert_eq!(code(change), ErrorCode::INVALID_REQUEST);
    }
    assert_eq!(code(|request| request.server_assignor = Some("x".into())), ErrorCode::UNSUPPORTED_ASSIGNOR);
    assert_eq!(
        code(|request| request.subscribed_topic_regex = Some("(".into())),
        ErrorCode::INVALID_REGULAR_EXPRESSION
    );
    assert_eq!(code(|request| request.member_epoch = 1), ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(code(|_| {}), ErrorCode::NONE);
}

#[test]
fn topics_that_a_member_may_not_see_are_refused_or_left_out() {
    let mut fixture = fixture();
    let group = (ResourceKind::Group, "g", Operation::Read);
    fixture.become_user("bob", &[group]);
    assert_eq!(beat(&mut fixture, join()).error_code, ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    let by_pattern = || ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: None,
        subscribed_topic_regex: Some("t".into()),
        ..join()
    };
    let seen = beat(&mut fixture, by_pattern());
    assert_eq!((seen.error_code, seen.assignment.unwrap().topic_partitions.len()), (ErrorCode::NONE, 0));
    fixture.become_user("eve", &[group, (ResourceKind::Topic, "t", Operation::Describe)]);
    let other = ConsumerGroupHeartbeatRequest { member_id: "n".into(), ..by_pattern() };
    assert_eq!(beat(&mut fixture, other).assignment.unwrap().topic_partitions.len(), 1);
}

#[test]
fn a_group_has_one_protocol_while_it_has_members() {
    let mut fixture = fixture();
    beat(&mut fixture, join());
    assert_eq!(join_classic(&mut fixture, 9), ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    assert!(fixture.access.node.coordinator.has_consumer_group(&"g".into()));
    leave(&mut fixture);
    // It is told a member id, with which it would join.
    assert_eq!(join_classic(&mut fixture, 9), ErrorCode::MEMBER_ID_REQUIRED);
    assert!(!fixture.access.node.coordinator.has_consumer_group(&"g".into()));
    assert_eq!(beat(&mut fixture, join()).error_code, ErrorCode::GROUP_ID_NOT_FOUND);
}

#[test]
fn heartbeats_leave_the_turn_when_topics_have_changed() {
    let mut fixture = fixture();
    let goes_on = || ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        member_epoch: 1,
        ..Default::default()
    };
    let is_long = |fixture: &mut Fixture, request: ConsumerGroupHeartbeatRequest| {
        fixture
            .with_context::<ConsumerGroupHeartbeat, _>(1, |cx| ConsumerGroupHeartbeat::is_long(cx, &request))
    };
    assert!(is_long(&mut fixture, join()));
    assert!(!is_long(&mut fixture, goes_on()), "there is no group");
    beat(&mut fixture, join());
    assert!(!is_long(&mut fixture, goes_on()));
    let spec = TopicSpec { partitions: 2, config: Default::default() };
    fixture.access.node.namespace.create_topic("other", &spec).unwrap();
    assert!(is_long(&mut fixture, goes_on()));
    assert_eq!(beat(&mut fixture, goes_on()).error_code, ErrorCode::NONE);
    assert!(!is_long(&mut fixture, goes_on()));
    fixture.access.node.namespace.declare_queue("q", QueueSpec::default()).unwrap();
    assert!(!is_long(&mut fixture, goes_on()), "what is in memory only is no topic");
    let coordinator = fixture.access.node.coordinator.clone();
    let other_is_handled = coordinator.with_consumer_group(&"g".into(), |_| is_long(&mut fixture, goes_on()));
    assert_eq!(other_is_handled, Some(true), "it waits for another one's end");
}

#[test]
fn offsets_leave_the_turn_while_another_request_holds_the_group() {
    let mut fixture = fixture();
    beat(&mut fixture, join());
    let commit = OffsetCommitRequest { group_id: "g".into(), ..Default::default() };
    let in_transaction =
        txn_offset_commit::TxnOffsetCommitRequest { group_id: "g".into(), ..Default::default() };
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        member_id: Some("m".into()),
        member_epoch: 1,
        topics: Some(Vec::new()),
    };
    let fetch = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let coordinator = fixture.access.node.coordinator.clone();
    let mut are_long = || {
        [
            fixture.with_context::<OffsetCommit, _>(9, |cx| OffsetCommit::is_long(cx, &commit)),
            fixture.with_context::<txn_offset_commit::TxnOffsetCommit, _>(5, |cx| {
                txn_offset_commit::TxnOffsetCommit::is_long(cx, &in_transaction)
            }),
            fixture.with_context::<OffsetFetch, _>(9, |cx| OffsetFetch::is_long(cx, &fetch)),
        ]
    };
    assert_eq!(are_long(), [false; 3]);
    assert_eq!(coordinator.with_consumer_group(&"g".into(), |_| are_long()), Some([true; 3]));
}

#[test]
fn a_member_whose_instance_id_another_row_has_is_gone_after_a_restart() {
    let mut fixture = fixture();
    let rows =
        NamespaceRows::new(fixture.node.broker.clone(), CONSUMER_TABLES, &fixture.access.node.namespace);
    let fixed = ConsumerGroupHeartbeatRequest { instance_id: Some("i".into()), ..join() };
    assert_eq!(beat(&mut fixture, fixed).error_code, ErrorCode::NONE);
    let all = rows.all();
    let (key, row) = all.iter().find(|(key, _)| key.ends_with(b"gm")).unwrap();
    let other = [&key[..key.len() - 1], b"n"].concat();
    rows.put(&other, row.clone()).unwrap();
    assert_eq!(rows.all().len(), 3);
    let restarted = coordinator_after_a_restart(&fixture);
    let members = restarted.with_consumer_group(&"g".into(), |group| group.members().count());
    assert_eq!(members, Some(1));
    assert_eq!(rows.all().len(), 2, "the group's, and the member's");
}

#[test]
fn topics_are_described_by_id_beside_an_empty_name() {
    let mut fixture = fixture();
    let topic_id = crate::codec::wire::Uuid(fixture.access.node.namespace.topic("t").unwrap().id().0);
    let wanted = metadata::MetadataRequestTopic { topic_id, name: Some(Str::default()) };
    let request = metadata::MetadataRequest { topics: Some(vec![wanted]), ..Default::default() };
    let topics = fixture.answer::<metadata::Metadata>(13, request).topics;
    assert_eq!((topics[0].error_code, topics[0].name.as_deref()), (ErrorCode::NONE, Some("t")));
}

#[test]
fn a_deletion_is_answered_when_it_is_durable() {
    let mut fixture = fixture();
    beat(&mut fixture, join());
    leave(&mut fixture);
    let request = delete_groups::DeleteGroupsRequest { groups_names: vec!["g".into()] };
    let completion = fixture.completion::<delete_groups::DeleteGroups>(2, request);
    assert!(matches!(completion, Completion::At(_)), "it has no offsets: only its row is deleted");
    assert!(!coordinator_after_a_restart(&fixture).has_consumer_group(&"g".into()));
}

#[test]
fn the_time_of_the_last_leave_outlives_a_change_of_protocol() {
    let mut fixture = fixture();
    let emptied = |coordinator: &Coordinator| {
        let classic = coordinator.with_group(&"g".into(), |group| group.emptied_ms());
        classic.or_else(|| coordinator.with_consumer_group(&"g".into(), |group| group.emptied_ms())).flatten()
    };
    beat(&mut fixture, join());
    assert_eq!(commit(&mut fixture, 9, 1), ErrorCode::NONE);
    leave(&mut fixture);
    let left = emptied(&fixture.access.node.coordinator);
    assert!(left.is_some());
    // A client of the classic protocol asks for a member id, and no more.
    assert_eq!(join_classic(&mut fixture, 9), ErrorCode::MEMBER_ID_REQUIRED);
    assert!(!fixture.access.node.coordinator.has_consumer_group(&"g".into()));
    assert_eq!(emptied(&fixture.access.node.coordinator), left);
    let restarted = coordinator_after_a_restart(&fixture);
    assert_eq!(emptied(&restarted), left);
    // A client of the other one wants more than there is room for: it does not get in.
    let refused = joining("n".repeat(65 << 20).into());
    let refused = restarted.consumer_heartbeat(&"g".into(), refused, &|_| Vec::new());
    assert_eq!(refused.unwrap_err().code, ErrorCode::GROUP_MAX_SIZE_REACHED);
    assert!(restarted.has_consumer_group(&"g".into()));
    assert_eq!(emptied(&restarted), left);
    let restarted = coordinator_after_a_restart(&fixture);
    assert!(restarted.has_consumer_group(&"g".into()));
    assert_eq!(emptied(&restarted), left);
}

#[test]
fn a_group_for_which_there_is_no_room_does_not_change_its_protocol() {
    let mut fixture = fixture();
    beat(&mut fixture, join());
    assert_eq!(commit(&mut fixture, 9, 1), ErrorCode::NONE);
    leave(&mut fixture);
    assert_eq!(join_classic(&mut fixture, 9), ErrorCode::MEMBER_ID_REQUIRED);
    let beat = |coordinator: &Coordinator| {
        coordinator.consumer_heartbeat(&"g".into(), joining("t".into()), &|_| Vec::new())
    };
    let refused = beat(&coordinator_with(&fixture, 0)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::COORDINATOR_NOT_AVAILABLE);
    let restarted = coordinator_after_a_restart(&fixture);
    assert!(
        restarted.with_group(&"g".into(), |_| {}).is_some() && !restarted.has_consumer_group(&"g".into())
    );
    let last = coordinator_with(&fixture, 1);
    assert!(beat(&last).is_ok(), "it takes its own place");
    assert!(last.has_consumer_group(&"g".into()));
}

#[test]
fn members_join_no_group_while_the_memory_of_groups_is_used_up() {
    let mut fixture = fixture();
    beat(&mut fixture, join());
    let memory = fixture.node.broker.log().memory().clone();
    let mut held = memory.holder(Share::Groups);
    held.force(memory.limit(Share::Groups) + 1);
    let other = || ConsumerGroupHeartbeatRequest { member_id: "n".into(), ..join() };
    assert_eq!(beat(&mut fixture, other()).error_code, ErrorCode::COORDINATOR_NOT_AVAILABLE);
    let goes_on = ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        member_epoch: 1,
        ..Default::default()
    };
    assert_eq!(beat(&mut fixture, goes_on).error_code, ErrorCode::NONE);
    drop(held);
    assert_eq!(beat(&mut fixture, other()).error_code, ErrorCode::NONE);
}
