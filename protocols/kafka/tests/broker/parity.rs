//! Answers that are Kafka's to the code, where clients and tools meet them.

use inver_kafka::KafkaConfig;
use inver_kafka::api::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use inver_kafka::api::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
};
use inver_kafka::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use inver_kafka::api::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
};
use inver_kafka::api::describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use inver_kafka::api::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, DescribedPartition, DescribedTopic,
};
use inver_kafka::api::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use inver_kafka::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use inver_kafka::api::list_config_resources::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use inver_kafka::api::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use inver_kafka::api::metadata::{MetadataRequest, MetadataResponse};
use inver_kafka::codec::api::Api;
use inver_kafka::codec::error_code::ErrorCode;
use inver_kafka::codec::wire::Uuid;
use inver_storage::batch::{BatchBuilder, Compression, ProducerStamp};

use crate::test_broker::{Client, TestBroker, batch, fetch_request};

fn list_offsets(
    client: &mut Client,
    version: i16,
    wanted: &[(i32, i64)],
    isolation_level: i8,
) -> Vec<ErrorCode> {
    let partition = |(partition_index, timestamp): &(i32, i64)| ListOffsetsPartition {
        partition_index: *partition_index,
        timestamp: *timestamp,
        ..ListOffsetsPartition::default()
    };
    let partitions = wanted.iter().map(partition).collect();
    let topics = vec![ListOffsetsTopic { name: "t".into(), partitions }];
    let request = ListOffsetsRequest { isolation_level, topics, ..ListOffsetsRequest::default() };
    let response: ListOffsetsResponse = client.call(&Api::ListOffsets, version, &request);
    response.topics[0].partitions.iter().map(|partition| partition.error_code).collect()
}

#[test]
fn special_timestamps_are_known_from_their_versions_on() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 2, &[]);
    for (timestamp, since) in [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11), (-7, 99), (-100, 99)] {
        for version in 1..=11 {
            let expected = if version < since { ErrorCode::UNSUPPORTED_VERSION } else { ErrorCode::NONE };
            let found = list_offsets(&mut client, version, &[(0, timestamp)], 0);
            assert_eq!(found, [expected], "{timestamp} in version {version}");
        }
    }
    let twice = list_offsets(&mut client, 7, &[(0, -1), (1, -1), (0, -2)], 0);
    assert_eq!(twice, [ErrorCode::INVALID_REQUEST, ErrorCode::NONE]);
    assert_eq!(list_offsets(&mut client, 7, &[(0, -1)], 7), [ErrorCode::UNKNOWN_SERVER_ERROR]);
}

#[test]
fn fetches_of_replicas_of_unknown_epochs_and_isolation_levels_fail() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    client.produce(9, "t", 0, batch(&["a"]).into_bytes());
    let mut error = |change: &dyn Fn(&mut inver_kafka::api::fetch::FetchRequest)| {
        let mut request = fetch_request("t", &[(0, 0)]);
        change(&mut request);
        let response: inver_kafka::api::fetch::FetchResponse = client.call(&Api::Fetch, 12, &request);
        let partition = response.responses.first().map(|topic| topic.partitions[0].error_code);
        (response.error_code, partition)
    };
    assert_eq!(error(&|_| {}), (ErrorCode::NONE, Some(ErrorCode::NONE)));
    let replica = error(&|request| request.replica_id = 5);
    assert_eq!(replica, (ErrorCode::NONE, Some(ErrorCode::NOT_LEADER_OR_FOLLOWER)));
    let epoch = |epoch| {
        move |request: &mut inver_kafka::api::fetch::FetchRequest| {
            request.topics[0].partitions[0].last_fetched_epoch = epoch;
        }
    };
    assert_eq!(error(&epoch(0)), (ErrorCode::NONE, Some(ErrorCode::NONE)));
    assert_eq!(error(&epoch(9)), (ErrorCode::NONE, Some(ErrorCode::OFFSET_OUT_OF_RANGE)));
    let isolation = error(&|request| request.isolation_level = 7);
    assert_eq!(isolation, (ErrorCode::UNKNOWN_SERVER_ERROR, None));
}

#[test]
fn batches_that_kafka_refuses_are_refused() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let stamped = |base_sequence, transactional| {
        let stamp = ProducerStamp { id: 5, epoch: 0, base_sequence, transactional, control: false };
        let mut builder = BatchBuilder::new(64);
        builder.push(5, Some(b"k"), &[], None);
        builder.finish_as(Compression::None, Some(stamp)).into_bytes()
    };
    let mut elsewhere = batch(&["a"]).into_bytes().to_vec();
    // The checksum does not cover the base offset.
    elsewhere[7] = 7;
    let mut code = |batch| client.produce(9, "t", 0, batch).error_code;
    assert_eq!(code(elsewhere.into()), ErrorCode::INVALID_RECORD);
    assert_eq!(code(stamped(-1, false)), ErrorCode::INVALID_RECORD);
    assert_eq!(code(stamped(0, true)), ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    assert_eq!(code(stamped(0, false)), ErrorCode::NONE);
    let request =
        InitProducerIdRequest { transactional_id: Some("".into()), ..InitProducerIdRequest::default() };
    let response: InitProducerIdResponse = client.call(&Api::InitProducerId, 4, &request);
    assert_eq!(response.error_code, ErrorCode::INVALID_REQUEST);
}

fn topic_ids(client: &mut Client) -> Vec<(String, Uuid)> {
    let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
    let response: MetadataResponse = client.call(&Api::Metadata, 12, &request);
    response
        .topics
        .iter()
        .map(|topic| (topic.name.clone().unwrap_or_default().to_string(), topic.topic_id))
        .collect()
}

#[test]
fn topics_named_twice_are_not_deleted() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("a", 1, &[]);
    for name in ["b", "c"] {
        broker.with_topic(name, 1, &[]);
    }
    let id = topic_ids(&mut client)[0].1;
    let named = |name: &str| DeleteTopicState { name: Some(name.into()), topic_id: Uuid::ZERO };
    let by_id = |topic_id| DeleteTopicState { name: None, topic_id };
    let both = DeleteTopicState { name: Some("a".into()), topic_id: id };
    let mut delete = |topics: Vec<DeleteTopicState>| {
        let request = DeleteTopicsRequest { topics, ..DeleteTopicsRequest::default() };
        let response: DeleteTopicsResponse = client.call(&Api::DeleteTopics, 6, &request);
        let text =
            |text: &Option<inver_kafka::codec::text::Str>| text.clone().unwrap_or_default().to_string();
        let answers = response.responses.iter().map(|topic| (topic.error_code, text(&topic.error_message)));
        answers.collect::<Vec<_>>()
    };
    let refused = |text: &str| (ErrorCode::INVALID_REQUEST, text.to_owned());
    assert_eq!(delete(vec![named("a"), named("a")]), [refused("Duplicate topic name.")]);
    assert_eq!(delete(vec![by_id(id), by_id(id)]), [refused("Duplicate topic id.")]);
    assert_eq!(delete(vec![both]), [refused("You may not specify both topic name and topic id.")]);
    assert_eq!(delete(vec![by_id(Uuid::ZERO)]), [refused("Neither topic name nor id were specified.")]);
    let text = "The provided topic name maps to an ID that was already supplied.";
    assert_eq!(delete(vec![named("a"), by_id(id)]), [refused(text)]);
    let mixed = delete(vec![named("b"), named("b"), named("c")]);
    assert_eq!(mixed, [refused("Duplicate topic name."), (ErrorCode::NONE, String::new())]);
    let unknown = "This server does not host this topic ID.".to_owned();
    assert_eq!(delete(vec![by_id(Uuid(7))]), [(ErrorCode::UNKNOWN_TOPIC_ID, unknown)]);
    assert_eq!(topic_ids(&mut client).len(), 2);
}

#[test]
fn topics_named_twice_get_no_partitions() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let topic = |count| CreatePartitionsTopic { name: "t".into(), count, assignments: None };
    let request =
        CreatePartitionsRequest { topics: vec![topic(2), topic(3)], ..CreatePartitionsRequest::default() };
    let response: CreatePartitionsResponse = client.call(&Api::CreatePartitions, 3, &request);
    let codes: Vec<ErrorCode> = response.results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [ErrorCode::INVALID_REQUEST]);
    assert_eq!(list_offsets(&mut client, 7, &[(1, -1)], 0), [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]);
}

/// One change of a setting: operation and value.
fn alter(
    client: &mut Client,
    kind: i8,
    name: &str,
    changes: &[(&str, i8, Option<&str>)],
) -> (ErrorCode, String) {
    let change = |(name, config_operation, value): &(&str, i8, Option<&str>)| AlterableConfig {
        name: (*name).into(),
        config_operation: *config_operation,
        value: value.map(Into::into),
    };
    let configs = changes.iter().map(change).collect();
    let resource = AlterConfigsResource { resource_type: kind, resource_name: name.into(), configs };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let response: IncrementalAlterConfigsResponse = client.call(&Api::IncrementalAlterConfigs, 1, &request);
    let answer = &response.responses[0];
    (answer.error_code, answer.error_message.clone().unwrap_or_default().to_string())
}

fn describe(
    client: &mut Client,
    kind: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> Vec<DescribeConfigsResourceResult> {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).into()).collect()),
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        ..DescribeConfigsRequest::default()
    };
    let mut response: DescribeConfigsResponse = client.call(&Api::DescribeConfigs, 4, &request);
    std::mem::take(&mut response.results[0].configs)
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;

#[test]
fn contradictory_changes_of_settings_are_refused() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let refused = |text: &str| (ErrorCode::INVALID_REQUEST, text.to_owned());
    let twice = [("retention.ms", SET, Some("5")), ("retention.ms", SET, Some("6"))];
    assert_eq!(alter(&mut client, TOPIC, "t", &twice), refused("Error due to duplicate config keys"));
    let null = alter(&mut client, TOPIC, "t", &[("retention.ms", SET, None)]);
    assert_eq!(null, refused("Null value not supported for : retention.ms"));
    let lags = [("min.compaction.lag.ms", SET, Some("50")), ("max.compaction.lag.ms", SET, Some("5"))];
    assert_eq!(alter(&mut client, TOPIC, "t", &lags).0, ErrorCode::INVALID_CONFIG);
    assert_eq!(alter(&mut client, TOPIC, "t", &[("retention.ms", SET, Some(" 7000 "))]).0, ErrorCode::NONE);
    let set = describe(&mut client, TOPIC, "t", Some(&["retention.ms"]));
    assert_eq!(set[0].value.as_deref(), Some("7000"));
}

#[test]
fn throttles_of_replication_are_kept() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    const RATE: &str = "leader.replication.throttled.rate";
    let value = |client: &mut Client, name: &str| {
        describe(client, BROKER, name, Some(&[RATE]))
            .first()
            .map(|set| (set.value.clone().unwrap_or_default().to_string(), set.config_source))
    };
    assert_eq!(value(&mut client, "1"), None);
    assert_eq!(alter(&mut client, BROKER, "", &[(RATE, SET, Some("500"))]).0, ErrorCode::NONE);
    assert_eq!(alter(&mut client, BROKER, "1", &[(RATE, SET, Some("1000"))]).0, ErrorCode::NONE);
    assert_eq!(value(&mut client, "1"), Some(("1000".into(), 2)));
    assert_eq!(value(&mut client, ""), Some(("500".into(), 3)));
    drop(client);
    let broker = broker.restart(KafkaConfig::default());
    let mut client = broker.client();
    assert_eq!(value(&mut client, "1"), Some(("1000".into(), 2)));
    assert_eq!(
        alter(&mut client, BROKER, "1", &[(RATE, DELETE, None), ("other", DELETE, None)]).0,
        ErrorCode::NONE
    );
    assert_eq!(value(&mut client, "1"), Some(("500".into(), 3)));
    let text =
        "Invalid value x for configuration leader.replication.throttled.rate: Not a number of type LONG";
    let wrong = alter(&mut client, BROKER, "1", &[(RATE, SET, Some("x"))]);
    assert_eq!(wrong, (ErrorCode::INVALID_REQUEST, text.to_owned()));
    assert_eq!(
        alter(&mut client, BROKER, "1", &[("process.roles", SET, Some("x"))]).0,
        ErrorCode::POLICY_VIOLATION
    );
    assert_eq!(alter(&mut client, BROKER, "9", &[(RATE, SET, Some("1"))]).0, ErrorCode::INVALID_REQUEST);
}

#[test]
fn settings_are_described_as_by_kafka() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    assert_eq!(
        describe(&mut client, TOPIC, "t", Some(&[])).len(),
        describe(&mut client, TOPIC, "t", None).len()
    );
    let synonyms = |client: &mut Client, name: &str| {
        let described = describe(client, TOPIC, "t", Some(&[name]));
        described[0].synonyms.iter().map(|synonym| synonym.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(synonyms(&mut client, "cleanup.policy"), ["log.cleanup.policy"]);
    assert_eq!(synonyms(&mut client, "retention.ms"), [""; 0]);
    let broker_settings = describe(&mut client, BROKER, "1", None);
    assert!(broker_settings.len() > 300);
    let value = |name: &str| {
        let setting = broker_settings.iter().find(|setting| setting.name == *name).unwrap();
        (setting.value.clone().unwrap_or_default().to_string(), setting.config_source)
    };
    assert_eq!(value("log.dirs"), ("log".into(), 4));
    assert_eq!(value("process.roles"), ("broker,controller".into(), 4));
    assert_eq!(value("log.retention.hours"), ("168".into(), 5));
    assert_eq!(describe(&mut client, BROKER, "", None).len(), 0, "nothing is set for all brokers");
}

#[test]
fn log_directories_have_sizes() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let request = DescribeLogDirsRequest { topics: None };
    let response: DescribeLogDirsResponse = client.call(&Api::DescribeLogDirs, 4, &request);
    let result = &response.results[0];
    assert!(result.total_bytes > 0 && result.usable_bytes > 0 && result.usable_bytes <= result.total_bytes);
}

#[test]
fn the_node_is_the_only_voter() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    let topic = |name: &str| DescribedTopic {
        topic_name: name.into(),
        partitions: vec![DescribedPartition { partition_index: 0 }],
    };
    let request = DescribeQuorumRequest { topics: vec![topic("__cluster_metadata"), topic("other")] };
    for version in 0..=2 {
        let response: DescribeQuorumResponse = client.call(&Api::DescribeQuorum, version, &request);
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_id), (ErrorCode::NONE, 1));
        assert_eq!(partition.current_voters.iter().map(|voter| voter.replica_id).collect::<Vec<_>>(), [1]);
        assert_eq!(response.topics[1].partitions[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(response.nodes.len(), usize::from(version == 2));
    }
}

#[test]
fn software_has_a_name_and_the_broker_features() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    let mut ask = |version, change: &dyn Fn(&mut ApiVersionsRequest)| {
        let mut request = ApiVersionsRequest {
            client_software_name: "apache-kafka-java".into(),
            client_software_version: "4.0.0".into(),
            ..ApiVersionsRequest::default()
        };
        change(&mut request);
        let response: ApiVersionsResponse = client.call(&Api::ApiVersions, version, &request);
        response
    };
    for name in ["my client", "a_b", "-a", "a.", "", "\u{e4}"] {
        let answer = ask(3, &|request| request.client_software_name = name.into());
        assert_eq!(answer.error_code, ErrorCode::INVALID_REQUEST, "{name:?}");
    }
    for version in 3..=5 {
        let answer = ask(version, &|_| {});
        assert_eq!((answer.error_code, answer.finalized_features_epoch), (ErrorCode::NONE, 0));
        assert_eq!(answer.finalized_features[0].name, "metadata.version");
    }
    let answer = ask(5, &|request| request.node_id = 1);
    assert_eq!(answer.error_code, ErrorCode::NONE);
    for change in [
        &(|request: &mut ApiVersionsRequest| request.node_id = 2) as &dyn Fn(&mut ApiVersionsRequest),
        &|request| request.cluster_id = Some("another".into()),
    ] {
        assert_eq!(ask(5, change).error_code, ErrorCode::REBOOTSTRAP_REQUIRED);
    }
}

#[test]
fn kinds_of_resources_are_known() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    let mut code = |resource_types: &[i8]| {
        let request = ListConfigResourcesRequest { resource_types: resource_types.to_vec() };
        let response: ListConfigResourcesResponse = client.call(&Api::ListConfigResources, 1, &request);
        response.error_code
    };
    assert_eq!(code(&[2, 4, 8, 16, 32]), ErrorCode::NONE);
    assert_eq!(code(&[2, 99]), ErrorCode::UNSUPPORTED_VERSION);
}
