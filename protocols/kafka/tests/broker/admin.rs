//! Topics, settings, and the description of the node.

use inver_broker::ListenerInfo;
use inver_kafka::KafkaConfig;
use inver_kafka::api::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use inver_kafka::api::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
};
use inver_kafka::api::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
    CreateTopicsResponse,
};
use inver_kafka::api::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
};
use inver_kafka::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use inver_kafka::api::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use inver_kafka::api::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};
use inver_kafka::api::describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use inver_kafka::api::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};
use inver_kafka::api::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use inver_kafka::api::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use inver_kafka::api::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use inver_kafka::codec::api::Api;
use inver_kafka::codec::error_code::ErrorCode;

use crate::test_broker::{Client, TestBroker, batch};

fn metadata(client: &mut Client, version: i16, names: Option<&[&str]>, create: bool) -> MetadataResponse {
    let topic = |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
    let request = MetadataRequest {
        topics: names.map(|names| names.iter().map(topic).collect()),
        allow_auto_topic_creation: create,
        ..MetadataRequest::default()
    };
    client.call(&Api::Metadata, version, &request)
}

#[test]
fn metadata_of_very_many_partitions_is_the_same_whether_all_or_named_topics_are_asked_for() {
    let broker = TestBroker::new();
    drop(broker.with_topic("big", 1500, &[]));
    let mut client = broker.with_topic("small", 1, &[]);
    for version in 0..=13 {
        let all = if version == 0 { Some(&[][..]) } else { None };
        let all = metadata(&mut client, version, all, false);
        let named = metadata(&mut client, version, Some(&["big", "small"]), false);
        assert_eq!(all, named, "v{version}");
        assert_eq!(all.topics[0].partitions.len(), 1500);
    }
    // Later requests are answered after long ones.
    let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
    (0..5).for_each(|_| client.send(&Api::Metadata, 9, &request));
    client.send(&Api::ApiVersions, 0, &ApiVersionsRequest::default());
    for _ in 0..5 {
        let response: MetadataResponse = client.receive(&Api::Metadata, 9);
        assert_eq!(response.topics.len(), 2);
    }
    let response: ApiVersionsResponse = client.receive(&Api::ApiVersions, 0);
    assert_eq!(response.error_code, ErrorCode::NONE);
}

#[test]
fn an_api_versions_request_that_is_too_new_is_answered_in_version_0() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    let request = ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1".into(),
        ..ApiVersionsRequest::default()
    };
    for version in 0..=4 {
        let response: ApiVersionsResponse = client.call(&Api::ApiVersions, version, &request);
        assert_eq!((response.error_code, response.api_keys.len()), (ErrorCode::NONE, Api::ALL.len()));
        let produce = response.api_keys.iter().find(|api| api.api_key == 0).unwrap();
        assert_eq!(produce.min_version, 0);
    }
    client.send(&Api::ApiVersions, 99, &request);
    let response: ApiVersionsResponse = client.receive(&Api::ApiVersions, 0);
    assert_eq!(response.error_code, ErrorCode::UNSUPPORTED_VERSION);
    assert_eq!(response.api_keys[0].api_key, 18);
    let nameless: ApiVersionsResponse = client.call(&Api::ApiVersions, 3, &ApiVersionsRequest::default());
    assert_eq!(nameless.error_code, ErrorCode::INVALID_REQUEST);
}

#[test]
fn a_metadata_request_creates_a_missing_topic_if_the_client_allows_it() {
    let broker = TestBroker::with(KafkaConfig { default_partitions: 3, ..KafkaConfig::default() });
    let mut client = broker.client();
    let response = metadata(&mut client, 9, Some(&["new"]), false);
    assert_eq!(response.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let response = metadata(&mut client, 9, Some(&["new", "not a name"]), true);
    assert_eq!(response.topics[0].error_code, ErrorCode::NONE);
    assert_eq!(response.topics[0].partitions.len(), 3);
    assert_eq!(response.topics[1].error_code, ErrorCode::INVALID_TOPIC_EXCEPTION);
    for version in 0..=13 {
        let response = metadata(&mut client, version, None, false);
        assert_eq!(response.brokers[0].port, i32::from(broker.address.port()));
        assert_eq!(response.brokers[0].host, "127.0.0.1");
        assert_eq!(response.topics.len(), 1, "v{version}");
        assert_eq!(response.topics[0].partitions[2].leader_id, response.brokers[0].node_id);
    }
    assert!(metadata(&mut client, 9, Some(&[]), false).topics.is_empty());
    // The operator can turn it off.
    let broker = TestBroker::with(KafkaConfig { auto_create_topics: false, ..KafkaConfig::default() });
    let response = metadata(&mut broker.client(), 9, Some(&["new"]), true);
    assert_eq!(response.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn the_listener_s_advertised_address_is_sent_and_the_cluster_id_survives_a_restart() {
    let config = KafkaConfig::default();
    let advertised = Some(("broker.example".into(), 19092));
    let listener = ListenerInfo { advertised, ..ListenerInfo::default() };
    let broker = TestBroker::with(config.clone()).listening(listener.clone());
    let response = metadata(&mut broker.client(), 9, None, false);
    assert_eq!((response.brokers[0].host.as_str(), response.brokers[0].port), ("broker.example", 19092));
    let cluster_id = response.cluster_id.unwrap();
    assert_eq!(cluster_id.len(), 22);
    let broker = broker.restart(config).listening(listener);
    let mut client = broker.client();
    assert_eq!(metadata(&mut client, 9, None, false).cluster_id, Some(cluster_id.clone()));
    for version in 0..=6 {
        let request = FindCoordinatorRequest {
            key: "group".into(),
            coordinator_keys: vec!["group".into()],
            ..FindCoordinatorRequest::default()
        };
        let response: FindCoordinatorResponse = client.call(&Api::FindCoordinator, version, &request);
        let found = match response.coordinators.first() {
            Some(coordinator) => (coordinator.host.to_string(), coordinator.port),
            None => (response.host.to_string(), response.port),
        };
        assert_eq!(found, ("broker.example".into(), 19092), "version {version}");
    }
    for version in 0..=2 {
        let request = DescribeClusterRequest { endpoint_type: 1, ..DescribeClusterRequest::default() };
        let response: DescribeClusterResponse = client.call(&Api::DescribeCluster, version, &request);
        assert_eq!((response.cluster_id, response.brokers[0].port), (cluster_id.clone(), 19092));
    }
}

fn create(client: &mut Client, topics: Vec<CreatableTopic>, validate_only: bool) -> Vec<ErrorCode> {
    let request = CreateTopicsRequest { topics, validate_only, ..CreateTopicsRequest::default() };
    let response: CreateTopicsResponse = client.call(&Api::CreateTopics, 7, &request);
    response.topics.iter().map(|topic| topic.error_code).collect()
}

fn wanted(name: &str) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions: -1,
        replication_factor: -1,
        ..CreatableTopic::default()
    }
}

#[test]
fn topics_are_created_or_rejected_with_an_error_code() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    let config = |name: &str, value: Option<&str>| CreatableTopicConfig {
        name: name.into(),
        value: value.map(Into::into),
    };
    let assigned = |node: i32| CreatableTopic {
        assignments: vec![CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![node] }],
        ..wanted("assigned")
    };
    assert_eq!(create(&mut client, vec![wanted("dry")], true), [ErrorCode::NONE]);
    let cases = vec![
        (wanted("dry"), ErrorCode::NONE),
        (wanted("dry"), ErrorCode::TOPIC_ALREADY_EXISTS),
        (wanted("no/slash"), ErrorCode::INVALID_TOPIC_EXCEPTION),
        (CreatableTopic { num_partitions: 0, ..wanted("a") }, ErrorCode::INVALID_PARTITIONS),
        (CreatableTopic { num_partitions: i32::MAX, ..wanted("a") }, ErrorCode::POLICY_VIOLATION),
        (CreatableTopic { replication_factor: 0, ..wanted("a") }, ErrorCode::INVALID_REPLICATION_FACTOR),
        (CreatableTopic { replication_factor: 3, ..wanted("replicated") }, ErrorCode::NONE),
        (wanted("__consumer_offsets"), ErrorCode::INVALID_REQUEST),
        (
            CreatableTopic { configs: vec![config("nonsense", Some("1"))], ..wanted("a") },
            ErrorCode::INVALID_CONFIG,
        ),
        (
            CreatableTopic { configs: vec![config("retention.ms", None)], ..wanted("a") },
            ErrorCode::INVALID_CONFIG,
        ),
        (assigned(7), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
        (assigned(1), ErrorCode::NONE),
    ];
    for (number, (topic, expected)) in cases.into_iter().enumerate() {
        assert_eq!(create(&mut client, vec![topic], false), [expected], "case {number}");
    }
    let twice = create(&mut client, vec![wanted("b"), wanted("b")], false);
    assert_eq!(twice, [ErrorCode::INVALID_REQUEST]);
    for version in 2..=7 {
        let topic =
            CreatableTopic { num_partitions: 2, replication_factor: 1, ..wanted(&format!("v{version}")) };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let response: CreateTopicsResponse = client.call(&Api::CreateTopics, version, &request);
        assert_eq!(response.topics[0].error_code, ErrorCode::NONE, "v{version}");
    }
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("a", 1, &[]);
    broker.with_topic("b", 1, &[]);
    let id = metadata(&mut client, 12, Some(&["b"]), false).topics[0].topic_id;
    let request = DeleteTopicsRequest {
        topic_names: vec!["a".into(), "none".into()],
        ..DeleteTopicsRequest::default()
    };
    let response: DeleteTopicsResponse = client.call(&Api::DeleteTopics, 4, &request);
    assert_eq!(response.responses[0].error_code, ErrorCode::NONE);
    assert_eq!(response.responses[1].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicState { name: None, topic_id: id }],
        ..DeleteTopicsRequest::default()
    };
    let response: DeleteTopicsResponse = client.call(&Api::DeleteTopics, 6, &request);
    assert_eq!(response.responses[0].name, Some("b".into()));
    assert_eq!(response.responses[0].error_code, ErrorCode::NONE);
    let response: DeleteTopicsResponse = client.call(&Api::DeleteTopics, 6, &request);
    assert_eq!(response.responses[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID);
    assert!(metadata(&mut client, 9, None, false).topics.is_empty());
}

#[test]
fn partitions_can_be_added_but_not_removed() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 2, &[]);
    let mut create_partitions = |count| {
        let topic = CreatePartitionsTopic { name: "t".into(), count, assignments: None };
        let request = CreatePartitionsRequest { topics: vec![topic], ..CreatePartitionsRequest::default() };
        let response: CreatePartitionsResponse = client.call(&Api::CreatePartitions, 3, &request);
        response.results[0].error_code
    };
    assert_eq!(create_partitions(2), ErrorCode::INVALID_PARTITIONS);
    assert_eq!(create_partitions(1), ErrorCode::INVALID_PARTITIONS);
    assert_eq!(create_partitions(5), ErrorCode::NONE);
    assert_eq!(client.produce(9, "t", 4, batch(&["a"]).into_bytes()).error_code, ErrorCode::NONE);
}

#[test]
fn records_before_an_offset_are_deleted() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    client.produce(9, "t", 0, batch(&["a", "b", "c"]).into_bytes());
    let mut delete = |offset| {
        let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
        let topics = vec![DeleteRecordsTopic { name: "t".into(), partitions }];
        let request = DeleteRecordsRequest { topics, timeout_ms: 1000 };
        let response: DeleteRecordsResponse = client.call(&Api::DeleteRecords, 2, &request);
        let answer = &response.topics[0].partitions[0];
        (answer.error_code, answer.low_watermark)
    };
    assert_eq!(delete(2), (ErrorCode::NONE, 2));
    assert_eq!(delete(1), (ErrorCode::NONE, 2));
    assert_eq!(delete(9), (ErrorCode::OFFSET_OUT_OF_RANGE, -1));
    assert_eq!(delete(-1), (ErrorCode::NONE, 3));
    let response = client.fetch(12, "t", 0, 2);
    assert_eq!(response.responses[0].partitions[0].error_code, ErrorCode::OFFSET_OUT_OF_RANGE);
    let response = client.fetch(12, "t", 0, 3);
    assert_eq!(response.responses[0].partitions[0].log_start_offset, 3);
}

fn setting(client: &mut Client, resource_type: i8, resource: &str, name: &str) -> Option<(String, i8)> {
    let resource = DescribeConfigsResource {
        resource_type,
        resource_name: resource.into(),
        configuration_keys: Some(vec![name.into()]),
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
    };
    let response: DescribeConfigsResponse = client.call(&Api::DescribeConfigs, 4, &request);
    let found = response.results[0].configs.first()?;
    Some((found.value.as_ref()?.to_string(), found.config_source))
}

/// Changes a setting of a resource (type and name).
fn alter(
    client: &mut Client,
    (resource_type, resource_name): (i8, &str),
    name: &str,
    config_operation: i8,
    value: Option<&str>,
) -> AlterConfigsResourceResponse {
    let configs = vec![AlterableConfig { name: name.into(), config_operation, value: value.map(Into::into) }];
    let resource = AlterConfigsResource { resource_type, resource_name: resource_name.into(), configs };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let mut response: IncrementalAlterConfigsResponse =
        client.call(&Api::IncrementalAlterConfigs, 1, &request);
    response.responses.remove(0)
}

#[test]
fn altering_the_brokers_settings_is_rejected_with_a_hint() {
    let broker = TestBroker::new();
    let refused = alter(&mut broker.client(), (4, "1"), "num.partitions", 0, Some("2"));
    assert_eq!(refused.error_code, ErrorCode::POLICY_VIOLATION);
    let text = refused.error_message.unwrap();
    assert!(text.contains("configuration file or environment (`inver config keys` lists them)"), "{text}");
}

#[test]
fn settings_are_described_and_altered() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[("retention.ms", "5000")]);
    assert_eq!(setting(&mut client, 2, "t", "retention.ms"), Some(("5000".into(), 1)));
    assert_eq!(setting(&mut client, 2, "t", "max.message.bytes"), Some(("1048588".into(), 5)));
    assert_eq!(setting(&mut client, 2, "none", "retention.ms"), None);
    assert_eq!(setting(&mut client, 4, "1", "num.partitions"), Some(("1".into(), 4)));
    let mut alter =
        |name: &str, operation, value| alter(&mut client, (2, "t"), name, operation, value).error_code;
    assert_eq!(alter("max.message.bytes", 0, Some("300")), ErrorCode::NONE);
    assert_eq!(alter("cleanup.policy", 2, Some("compact")), ErrorCode::NONE);
    assert_eq!(alter("retention.ms", 1, None), ErrorCode::NONE);
    assert_eq!(alter("retention.ms", 0, Some("soon")), ErrorCode::INVALID_CONFIG);
    assert_eq!(alter("nonsense", 0, Some("1")), ErrorCode::INVALID_CONFIG);
    assert_eq!(setting(&mut client, 2, "t", "retention.ms"), Some(("604800000".into(), 5)));
    assert_eq!(setting(&mut client, 2, "t", "cleanup.policy"), Some(("delete,compact".into(), 1)));
    let large = batch(&[&"x".repeat(300)]).into_bytes();
    assert_eq!(client.produce(9, "t", 0, large).error_code, ErrorCode::MESSAGE_TOO_LARGE);
}

#[test]
fn log_dirs_have_sizes_and_partitions_are_described_in_pages() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("a", 3, &[]);
    broker.with_topic("b", 3, &[]);
    client.produce(9, "a", 0, batch(&["x"]).into_bytes());
    for version in 1..=5 {
        let request = DescribeLogDirsRequest::default();
        let response: DescribeLogDirsResponse = client.call(&Api::DescribeLogDirs, version, &request);
        assert!(response.results[0].topics[0].partitions[0].partition_size > 0, "v{version}");
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let request =
            DescribeTopicPartitionsRequest { response_partition_limit: 2, cursor, ..Default::default() };
        let response: DescribeTopicPartitionsResponse =
            client.call(&Api::DescribeTopicPartitions, 0, &request);
        for topic in &response.topics {
            let name = topic.name.clone().unwrap();
            seen.extend(
                topic.partitions.iter().map(|partition| format!("{name}{}", partition.partition_index)),
            );
        }
        cursor = response.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a0", "a1", "a2", "b0", "b1", "b2"]);
}
