//! The quota of partitions created and deleted (KIP-599).

use super::*;
use create_partitions::{CreatePartitions, CreatePartitionsRequest, CreatePartitionsTopic};
use create_topics::{CreatableTopic, CreateTopics, CreateTopicsRequest};
use delete_topics::{DeleteTopics, DeleteTopicsRequest};
use inver_broker::{EntityName, QuotaEntity};

/// A client whose user may create and delete one partition a second, and 11 at once.
fn limited() -> Fixture {
    let mut fixture = fixture();
    fixture.become_administrator();
    let entity = QuotaEntity::Client { user: Some(EntityName::Named("root".into())), client_id: None };
    let quotas = fixture.node.broker.quotas();
    quotas.update(&entity, |limits| limits.mutations = Some(1.0)).unwrap();
    fixture.quotas = fixture.place.as_ref().unwrap().quotas();
    fixture
}

fn create(fixture: &mut Fixture, version: i16, name: &str, validate_only: bool) -> ErrorCode {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 8,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], validate_only, ..Default::default() };
    fixture.answer::<CreateTopics>(version, request).topics[0].error_code
}

fn delete(fixture: &mut Fixture, version: i16, name: &str) -> ErrorCode {
    let request = DeleteTopicsRequest { topic_names: vec![name.into()], ..Default::default() };
    fixture.answer::<DeleteTopics>(version, request).responses[0].error_code
}

fn add(fixture: &mut Fixture, version: i16, name: &str, count: i32) -> ErrorCode {
    let topic = CreatePartitionsTopic { name: name.into(), count, ..Default::default() };
    let request = CreatePartitionsRequest { topics: vec![topic], ..Default::default() };
    fixture.answer::<CreatePartitions>(version, request).results[0].error_code
}

#[test]
fn new_versions_are_refused_while_the_quota_is_used_up() {
    const FULL: ErrorCode = ErrorCode::THROTTLING_QUOTA_EXCEEDED;
    let mut fixture = limited();
    assert_eq!(create(&mut fixture, 7, "a", false), ErrorCode::NONE);
    assert_eq!(create(&mut fixture, 7, "v", true), ErrorCode::NONE, "nothing is created");
    assert_eq!(create(&mut fixture, 6, "b", false), ErrorCode::NONE, "more than is left is accepted once");
    assert_eq!(fixture.throttle_time_ms, 0);
    assert_eq!(create(&mut fixture, 7, "c", false), FULL);
    assert!((1000..=5000).contains(&fixture.throttle_time_ms), "{}", fixture.throttle_time_ms);
    assert_eq!((delete(&mut fixture, 5, "a"), add(&mut fixture, 3, "a", 9)), (FULL, FULL));
    assert_eq!(
        create(&mut fixture, 7, "a", false),
        ErrorCode::TOPIC_ALREADY_EXISTS,
        "other errors come first"
    );
    assert!(
        fixture.node.broker.default_namespace().topic("a").is_some_and(|topic| topic.partition_count() == 8)
    );
}

#[test]
fn old_versions_are_held_back_instead() {
    let mut fixture = limited();
    for (name, is_held) in [("a", false), ("b", true), ("c", true)] {
        assert_eq!(create(&mut fixture, 5, name, false), ErrorCode::NONE);
        assert_eq!(fixture.throttle_time_ms > 0, is_held, "{name}");
    }
    assert_eq!(add(&mut fixture, 2, "a", 9), ErrorCode::NONE);
    assert_eq!(delete(&mut fixture, 4, "a"), ErrorCode::NONE);
    assert_eq!(fixture.throttle_time_ms, 20_000, "a debt counts for 20 seconds at most");
}
