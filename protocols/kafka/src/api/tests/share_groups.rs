//! Share groups: sessions, acknowledgements, redelivery and its limit, what consumers of other protocols get of a shared topic,
//! and what other APIs tell of such a group.

use std::time::Duration;

use bytes::BytesMut;
use inver_broker::{Consumer, ConsumerSpec, Delivery, Mode, Start};
use tokio::time::Instant;

use super::*;
use crate::api::alter_share_group_offsets::*;
use crate::api::consumer_group_heartbeat::{ConsumerGroupHeartbeat, ConsumerGroupHeartbeatRequest};
use crate::api::delete_groups::{DeleteGroups, DeleteGroupsRequest};
use crate::api::delete_share_group_offsets::*;
use crate::api::describe_configs::*;
use crate::api::describe_groups::{DescribeGroups, DescribeGroupsRequest};
use crate::api::describe_share_group_offsets::*;
use crate::api::incremental_alter_configs as alter;
use crate::api::list_groups::*;
use crate::api::share_acknowledge::{
    AcknowledgePartition, AcknowledgeTopic, ShareAcknowledge, ShareAcknowledgeRequest,
};
use crate::api::share_fetch::*;
use crate::api::share_group_describe::{ShareGroupDescribe, ShareGroupDescribeRequest};
use crate::api::share_group_heartbeat::{
    ShareGroupHeartbeat, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
};
use crate::codec::reader::Reader;
use crate::codec::wire::Uuid;

/// Bytes before the body of a response: length, correlation id, no tagged fields.
const HEAD_BYTES: usize = 9;

const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;

fn config(lock: Duration, deliveries: u32) -> KafkaConfig {
    let mut config = KafkaConfig::default();
    config.groups.share_record_lock_duration = lock;
    config.groups.share_deliveries_max = deliveries;
    config
}

fn join() -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        subscribed_topic_names: Some(vec!["t".into()]),
        ..ShareGroupHeartbeatRequest::default()
    }
}

impl Fixture {
    fn share_beat(&mut self, request: ShareGroupHeartbeatRequest) -> ShareGroupHeartbeatResponse {
        self.answer::<ShareGroupHeartbeat>(1, request)
    }

    fn topic_id(&self) -> Uuid {
        Uuid(self.node.broker.default_namespace().topic("t").unwrap().id().0)
    }

    /// Partitions of `t`, each with what is acknowledged of it.
    fn wanted(&self, partitions: &[(i32, &[AcknowledgementBatch])]) -> Vec<FetchTopic> {
        let partitions = partitions.iter().map(|(partition_index, batches)| FetchPartition {
            partition_index: *partition_index,
            acknowledgement_batches: batches.to_vec(),
            ..FetchPartition::default()
        });
        vec![FetchTopic { topic_id: self.topic_id(), partitions: partitions.collect() }]
    }

    fn fetch_as(&mut self, member: &str, epoch: i32, topics: Vec<FetchTopic>) -> ShareFetchResponse {
        let request = ShareFetchRequest {
            group_id: Some("g".into()),
            member_id: Some(member.into()),
            share_session_epoch: epoch,
            max_records: 100,
            topics,
            ..ShareFetchRequest::default()
        };
        match self.call::<ShareFetch>(2, request) {
            Reply::ShareFetch(number) => {
                let sharer = self.sharer.as_mut().unwrap();
                let (answered, frame, _) = sharer.poll(&mut BytesMut::new(), Instant::now()).unwrap();
                assert_eq!(answered, number);
                let mut body = Reader::new(frame.to_bytes().slice(HEAD_BYTES..));
                ShareFetchResponse::read(&mut body, Api::ShareFetch.version(2).unwrap()).unwrap()
            }
            Reply::Response(response, _) => response,
            _ => panic!("no response"),
        }
    }

    fn fetch(&mut self, epoch: i32, topics: Vec<FetchTopic>) -> ShareFetchResponse {
        self.fetch_as("m", epoch, topics)
    }

    fn acknowledge(&mut self, epoch: i32, batches: &[AcknowledgementBatch]) -> (ErrorCode, ErrorCode) {
        let partitions =
            vec![AcknowledgePartition { partition_index: 0, acknowledgement_batches: batches.to_vec() }];
        let request = ShareAcknowledgeRequest {
            group_id: Some("g".into()),
            member_id: Some("m".into()),
            share_session_epoch: epoch,
            topics: vec![AcknowledgeTopic { topic_id: self.topic_id(), partitions }],
            ..ShareAcknowledgeRequest::default()
        };
        let response = self.answer::<ShareAcknowledge>(2, request);
        let of_partition = response.responses.first().map(|topic| topic.partitions[0].error_code);
        (response.error_code, of_partition.unwrap_or_default())
    }

    /// Appends so many records to partition 0.
    fn append(&mut self, count: usize) {
        for _ in 0..count {
            self.completion::<produce::Produce>(9, produce("t", -1));
        }
        self.node.broker.log().sync().unwrap();
    }
}

fn batch_of(first_offset: i64, last_offset: i64, kind: i8) -> AcknowledgementBatch {
    AcknowledgementBatch { first_offset, last_offset, acknowledge_types: vec![kind] }
}

/// What was acquired: first and last offset, and how often it was delivered.
fn acquired(response: &ShareFetchResponse) -> Vec<(i64, i64, i16)> {
    assert_eq!(response.error_code, ErrorCode::NONE);
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions
        .flat_map(|partition| &partition.acquired_records)
        .map(|of| (of.first_offset, of.last_offset, of.delivery_count))
        .collect()
}

fn offsets(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.id.offset).collect()
}

/// A consumer as clients of other protocols have it.
fn consumer(fixture: &Fixture) -> Consumer {
    let namespace = fixture.node.broker.default_namespace();
    let topic = namespace.topic("t").unwrap();
    let shared = namespace.subscribe(&topic, "g", Mode::Shared, true, Start::Earliest).unwrap();
    shared.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap()
}

#[test]
fn a_session_is_opened_continued_and_closed() {
    let mut fixture = fixture();
    let joined = fixture.share_beat(join());
    let assignment = joined.assignment.unwrap().topic_partitions;
    assert_eq!((joined.error_code, joined.member_epoch), (ErrorCode::NONE, 1));
    assert_eq!((assignment[0].topic_id, &assignment[0].partitions[..]), (fixture.topic_id(), &[0, 1][..]));
    assert_eq!(fixture.fetch(1, Vec::new()).error_code, ErrorCode::SHARE_SESSION_NOT_FOUND);
    assert_eq!(fixture.fetch(-1, Vec::new()).error_code, ErrorCode::SHARE_SESSION_NOT_FOUND);
    let both = fixture.wanted(&[(0, &[]), (1, &[])]);
    let with_acknowledgements = fixture.wanted(&[(0, &[batch_of(0, 0, ACCEPT)])]);
    assert_eq!(fixture.fetch(0, with_acknowledgements).error_code, ErrorCode::INVALID_REQUEST);
    assert_eq!(acquired(&fixture.fetch(0, both)), []);
    assert_eq!(fixture.fetch(2, Vec::new()).error_code, ErrorCode::INVALID_SHARE_SESSION_EPOCH);
    assert_eq!(fixture.acknowledge(0, &[]).0, ErrorCode::INVALID_SHARE_SESSION_EPOCH);
    fixture.append(2);
    let fetched = fixture.fetch(1, Vec::new());
    assert_eq!((acquired(&fetched), fetched.acquisition_lock_timeout_ms), (vec![(0, 1, 1)], 30_000));
    let records = fetched.responses[0].partitions[0].records.clone().unwrap();
    let read: Vec<_> =
        inver_storage::batch::records(&records).unwrap().map(|record| record.unwrap()).collect();
    assert_eq!((read.len(), read[0].value.as_deref()), (2, Some(&b"v"[..])));
    assert_eq!(fixture.acknowledge(2, &[batch_of(0, 0, ACCEPT)]), (ErrorCode::NONE, ErrorCode::NONE));
    assert_eq!(
        fixture.acknowledge(3, &[batch_of(0, 1, ACCEPT)]),
        (ErrorCode::NONE, ErrorCode::INVALID_RECORD_STATE)
    );
    // What is held when a session ends is delivered again.
    assert_eq!(fixture.acknowledge(-1, &[]), (ErrorCode::NONE, ErrorCode::NONE));
    assert_eq!(fixture.acknowledge(-1, &[]).0, ErrorCode::SHARE_SESSION_NOT_FOUND);
    let both = fixture.wanted(&[(0, &[]), (1, &[])]);
    assert_eq!(acquired(&fixture.fetch_as("other", 0, both)), [(1, 1, 2)]);
}

#[test]
fn records_come_again_until_they_are_given_up() {
    let mut fixture = fixture_with(config(Duration::ZERO, 3));
    fixture.share_beat(join());
    fixture.append(3);
    let wanted = fixture.wanted(&[(0, &[])]);
    assert_eq!(acquired(&fixture.fetch(0, wanted)), [(0, 2, 1)]);
    // Of those whose time is over, what is acknowledged is not held any more.
    let late = fixture.wanted(&[(0, &[batch_of(0, 2, ACCEPT)])]);
    let fetched = fixture.fetch(1, late);
    assert_eq!(fetched.responses[0].partitions[0].acknowledge_error_code, ErrorCode::INVALID_RECORD_STATE);
    assert_eq!(acquired(&fixture.fetch(2, Vec::new())), [(0, 2, 2)]);
    fixture.sharer.as_mut().unwrap().wake(&[], Instant::now());
    assert_eq!(acquired(&fixture.fetch(3, Vec::new())), [(0, 2, 3)]);
    fixture.sharer.as_mut().unwrap().wake(&[], Instant::now());
    assert_eq!(acquired(&fixture.fetch(4, Vec::new())), []);
    fixture.append(1);
    assert_eq!(acquired(&fixture.fetch(5, Vec::new())), [(3, 3, 1)]);
}

#[test]
fn a_topic_is_shared_with_consumers_of_other_protocols() {
    let mut fixture = fixture();
    fixture.append(1);
    // It has its position before the share group begins.
    let mut other = consumer(&fixture);
    fixture.share_beat(join());
    let mut deliveries = Vec::new();
    other.pull(1, usize::MAX, &mut deliveries);
    assert_eq!(offsets(&deliveries), [0]);
    fixture.append(3);
    let wanted = fixture.wanted(&[(0, &[])]);
    assert_eq!(acquired(&fixture.fetch(0, wanted)), [(1, 3, 1)]);
    // Released by the one, delivered to the other; rejected and accepted ones are gone.
    let kinds = AcknowledgementBatch {
        first_offset: 1,
        last_offset: 3,
        acknowledge_types: vec![RELEASE, REJECT, ACCEPT],
    };
    fixture.acknowledge(1, &[kinds]);
    deliveries.clear();
    other.pull(1, usize::MAX, &mut deliveries);
    assert_eq!((offsets(&deliveries), deliveries[0].redelivered), (vec![1], 1));
    // What the other leaves comes to the member.
    drop(other);
    assert_eq!(acquired(&fixture.fetch(2, Vec::new())), [(0, 0, 2), (1, 1, 3)]);
}

#[test]
fn a_member_gets_only_partitions_that_it_wants_and_that_the_group_may_hold() {
    let mut config = KafkaConfig::default();
    config.groups.share_record_locks_max = 2;
    let mut fixture = fixture_with(config);
    fixture.share_beat(join());
    fixture.append(3);
    let second = fixture.wanted(&[(1, &[])]);
    assert_eq!(acquired(&fixture.fetch(0, second)), []);
    let first = fixture.wanted(&[(0, &[])]);
    assert_eq!(acquired(&fixture.fetch(1, first)), [(0, 1, 1)]);
    let both = fixture.wanted(&[(0, &[]), (1, &[])]);
    assert_eq!(acquired(&fixture.fetch_as("other", 0, both)), []);
    fixture.acknowledge(2, &[batch_of(0, 0, ACCEPT)]);
    assert_eq!(acquired(&fixture.fetch_as("other", 1, Vec::new())), [(2, 2, 1)]);
    let missing = fixture.wanted(&[(7, &[])]);
    let fetched = fixture.fetch_as("other", 2, missing);
    let partition = &fetched.responses[0].partitions[0];
    assert_eq!((partition.partition_index, partition.error_code), (7, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
}

#[test]
fn sessions_are_bounded() {
    let mut config = KafkaConfig::default();
    config.limits.share_sessions_max = 1;
    let mut fixture = fixture_with(config);
    assert_eq!(fixture.fetch(0, Vec::new()).error_code, ErrorCode::NONE);
    assert_eq!(fixture.fetch_as("other", 0, Vec::new()).error_code, ErrorCode::SHARE_SESSION_LIMIT_REACHED);
    // In place of the one that it has.
    assert_eq!(fixture.fetch(0, Vec::new()).error_code, ErrorCode::NONE);
    assert_eq!(fixture.fetch(-1, Vec::new()).error_code, ErrorCode::NONE);
    assert_eq!(fixture.fetch_as("other", 0, Vec::new()).error_code, ErrorCode::NONE);
}

#[test]
fn a_share_group_is_of_its_own_kind() {
    let mut fixture = fixture();
    fixture.share_beat(join());
    let of_consumers = ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "c".into(),
        rebalance_timeout_ms: 1000,
        subscribed_topic_names: Some(vec!["t".into()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let refused = fixture.answer::<ConsumerGroupHeartbeat>(1, of_consumers.clone());
    assert_eq!(refused.error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    fixture.answer::<ConsumerGroupHeartbeat>(
        1,
        ConsumerGroupHeartbeatRequest { group_id: "c".into(), ..of_consumers },
    );
    let refused = fixture.share_beat(ShareGroupHeartbeatRequest { group_id: "c".into(), ..join() });
    assert_eq!(refused.error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    let listed = fixture.answer::<ListGroups>(5, ListGroupsRequest::default()).groups;
    let listed: Vec<_> =
        listed.iter().map(|group| (group.group_id.as_str(), group.group_type.as_str())).collect();
    assert_eq!(listed, [("c", "consumer"), ("g", "share")]);
    let described = DescribeGroupsRequest { groups: vec!["g".into()], ..DescribeGroupsRequest::default() };
    let described = fixture.answer::<DescribeGroups>(6, described);
    assert_eq!(described.groups[0].error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    let describe = |ids: &[&str]| ShareGroupDescribeRequest {
        group_ids: ids.iter().map(|id| (*id).into()).collect(),
        ..ShareGroupDescribeRequest::default()
    };
    let groups = fixture.answer::<ShareGroupDescribe>(1, describe(&["g", "c"])).groups;
    assert_eq!((groups[0].group_state.as_str(), groups[0].members.len()), ("Stable", 1));
    assert_eq!(groups[1].error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    let delete = || DeleteGroupsRequest { groups_names: vec!["g".into()] };
    let refused = fixture.answer::<DeleteGroups>(2, delete());
    assert_eq!(refused.results[0].error_code, ErrorCode::NON_EMPTY_GROUP);
    fixture.share_beat(ShareGroupHeartbeatRequest {
        member_epoch: -1,
        subscribed_topic_names: None,
        ..join()
    });
    let deleted = fixture.answer::<DeleteGroups>(2, delete());
    assert_eq!(deleted.results[0].error_code, ErrorCode::NONE);
    let namespace = fixture.node.broker.default_namespace();
    assert!(namespace.subscription(&namespace.topic("t").unwrap(), "g").is_none());
}

#[test]
fn heartbeats_are_checked() {
    let mut fixture = fixture();
    let wrong = [
        ShareGroupHeartbeatRequest { group_id: " ".into(), ..join() },
        ShareGroupHeartbeatRequest { member_id: "".into(), ..join() },
        ShareGroupHeartbeatRequest { rack_id: Some("".into()), ..join() },
        ShareGroupHeartbeatRequest { member_epoch: -2, ..join() },
        ShareGroupHeartbeatRequest { subscribed_topic_names: None, ..join() },
    ];
    for request in wrong {
        assert_eq!(fixture.share_beat(request.clone()).error_code, ErrorCode::INVALID_REQUEST, "{request:?}");
    }
    // A member that is not known joins again, whether its group is known or not.
    let going_on = ShareGroupHeartbeatRequest { member_epoch: 3, ..join() };
    assert_eq!(fixture.share_beat(going_on).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    // A subscription of another mode, with a consumer.
    let namespace = fixture.node.broker.default_namespace();
    let topic = namespace.topic("t").unwrap();
    let exclusive = namespace.subscribe(&topic, "g", Mode::Exclusive, true, Start::Earliest).unwrap();
    let _consumer = exclusive.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap();
    assert_eq!(fixture.share_beat(join()).error_code, ErrorCode::INVALID_REQUEST);
}

#[test]
fn groups_have_settings() {
    let mut fixture = fixture();
    let set = |name: &str, value: &str| {
        let config =
            alter::AlterableConfig { name: name.into(), value: Some(value.into()), ..Default::default() };
        let resource = alter::AlterConfigsResource {
            resource_type: 32,
            resource_name: "g".into(),
            configs: vec![config],
        };
        alter::IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() }
    };
    let mut error = |name: &str, value: &str| {
        fixture.answer::<alter::IncrementalAlterConfigs>(1, set(name, value)).responses[0].error_code
    };
    assert_eq!(error("share.auto.offset.reset", "earliest"), ErrorCode::NONE);
    assert_eq!(error("share.delivery.count.limit", "11"), ErrorCode::INVALID_CONFIG);
    assert_eq!(error("share.nothing", "1"), ErrorCode::INVALID_CONFIG);
    let resource =
        DescribeConfigsResource { resource_type: 32, resource_name: "g".into(), configuration_keys: None };
    let request = DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() };
    let described = fixture.answer::<DescribeConfigs>(4, request);
    let of_group = &described.results[0].configs[0];
    assert_eq!(
        (of_group.name.as_str(), of_group.value.as_deref()),
        ("share.auto.offset.reset", Some("earliest"))
    );
    assert_eq!((of_group.config_source, described.results[0].configs.len()), (8, 8));
    fixture.append(2);
    fixture.share_beat(join());
    let wanted = fixture.wanted(&[(0, &[])]);
    assert_eq!(acquired(&fixture.fetch(0, wanted)), [(0, 1, 1)]);
}

#[test]
fn start_offsets_are_told_set_and_deleted() {
    let mut fixture = fixture();
    fixture.share_beat(join());
    fixture.append(5);
    let wanted = fixture.wanted(&[(0, &[])]);
    assert_eq!(acquired(&fixture.fetch(0, wanted)), [(0, 4, 1)]);
    fixture.acknowledge(1, &[batch_of(0, 1, ACCEPT), batch_of(3, 3, ACCEPT)]);
    let describe = || {
        let group_id = "g".into();
        let groups = vec![DescribeShareGroupOffsetsRequestGroup { group_id, topics: None }];
        DescribeShareGroupOffsetsRequest { groups }
    };
    let told = fixture.answer::<DescribeShareGroupOffsets>(1, describe());
    let partition = &told.groups[0].topics[0].partitions[0];
    assert_eq!((partition.start_offset, partition.lag), (2, 2));
    let alter = || AlterShareGroupOffsetsRequest {
        group_id: "g".into(),
        topics: vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: "t".into(),
            partitions: vec![AlterShareGroupOffsetsRequestPartition { partition_index: 0, start_offset: 1 }],
        }],
    };
    assert_eq!(fixture.answer::<AlterShareGroupOffsets>(0, alter()).error_code, ErrorCode::NON_EMPTY_GROUP);
    fixture.share_beat(ShareGroupHeartbeatRequest {
        member_epoch: -1,
        subscribed_topic_names: None,
        ..join()
    });
    // A session outlives the membership, as in Kafka; its consumer holds the position.
    let altered = fixture.answer::<AlterShareGroupOffsets>(0, alter());
    assert_eq!(altered.responses[0].partitions[0].error_code, ErrorCode::NON_EMPTY_GROUP);
    fixture.acknowledge(-1, &[]);
    let altered = fixture.answer::<AlterShareGroupOffsets>(0, alter());
    assert_eq!(altered.responses[0].partitions[0].error_code, ErrorCode::NONE);
    let told = fixture.answer::<DescribeShareGroupOffsets>(1, describe());
    let partition = &told.groups[0].topics[0].partitions[0];
    assert_eq!((partition.start_offset, partition.lag), (1, 4));
    fixture.share_beat(join());
    let wanted = fixture.wanted(&[(0, &[])]);
    assert_eq!(acquired(&fixture.fetch(0, wanted)).first().map(|(first, ..)| *first), Some(1));
    fixture.acknowledge(-1, &[]);
    fixture.share_beat(ShareGroupHeartbeatRequest {
        member_epoch: -1,
        subscribed_topic_names: None,
        ..join()
    });
    let topics = vec![DeleteShareGroupOffsetsRequestTopic { topic_name: "t".into() }];
    let delete = DeleteShareGroupOffsetsRequest { group_id: "g".into(), topics };
    let deleted = fixture.answer::<DeleteShareGroupOffsets>(0, delete);
    assert_eq!(deleted.responses[0].error_code, ErrorCode::NONE);
    let told = fixture.answer::<DescribeShareGroupOffsets>(1, describe());
    assert!(told.groups[0].topics.is_empty());
}

#[test]
fn a_group_and_its_settings_outlive_a_restart() {
    let mut fixture = fixture();
    fixture.share_beat(join());
    let settings = [("share.delivery.count.limit".to_owned(), "2".to_owned())].into();
    fixture.access.node.coordinator.set_values(&"g".into(), settings).unwrap();
    let coordinator = crate::coordinator::Coordinator::new(
        fixture.node.broker.clone(),
        fixture.node.broker.default_namespace(),
        &KafkaConfig::default(),
    );
    assert!(coordinator.has_share_group("g"));
    assert_eq!(coordinator.share_settings("g").deliveries_max, 2);
}
