//! APIs that matter only with several nodes, permissions or transactions.

use inver_kafka::api::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignableTopic,
};
use inver_kafka::api::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse,
};
use inver_kafka::api::create_acls::{AclCreation, CreateAclsRequest, CreateAclsResponse};
use inver_kafka::api::delete_acls::{DeleteAclsFilter, DeleteAclsRequest, DeleteAclsResponse};
use inver_kafka::api::describe_acls::{DescribeAclsRequest, DescribeAclsResponse};
use inver_kafka::api::describe_client_quotas::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use inver_kafka::api::describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use inver_kafka::api::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, TopicRequest,
};
use inver_kafka::api::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse, UserName,
};
use inver_kafka::api::elect_leaders::{ElectLeadersRequest, ElectLeadersResponse, TopicPartitions};
use inver_kafka::api::list_transactions::{ListTransactionsRequest, ListTransactionsResponse};
use inver_kafka::codec::api::Api;
use inver_kafka::codec::error_code::ErrorCode;
use inver_storage::batch::{BatchBuilder, Compression, ProducerStamp};

use crate::test_broker::TestBroker;

#[test]
fn leaders_need_no_election() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 2, &[]);
    for version in 0..=2 {
        let named = TopicPartitions { topic: "t".into(), partitions: vec![1, 2] };
        let request =
            ElectLeadersRequest { topic_partitions: Some(vec![named]), ..ElectLeadersRequest::default() };
        let response: ElectLeadersResponse = client.call(&Api::ElectLeaders, version, &request);
        let results = &response.replica_election_results[0].partition_result;
        let codes: Vec<ErrorCode> = results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [ErrorCode::ELECTION_NOT_NEEDED, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]);
        let request = ElectLeadersRequest { topic_partitions: None, ..request };
        let response: ElectLeadersResponse = client.call(&Api::ElectLeaders, version, &request);
        assert_eq!(response.replica_election_results, []);
    }
}

#[test]
fn replicas_stay_where_they_are() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let mut reassign = |partition_index, replicas: Option<Vec<i32>>| {
        let partitions = vec![ReassignablePartition { partition_index, replicas }];
        let topics = vec![ReassignableTopic { name: "t".into(), partitions }];
        let request = AlterPartitionReassignmentsRequest { topics, ..Default::default() };
        let response: AlterPartitionReassignmentsResponse =
            client.call(&Api::AlterPartitionReassignments, 1, &request);
        response.responses[0].partitions[0].error_code
    };
    assert_eq!(reassign(0, Some(vec![1])), ErrorCode::NONE);
    assert_eq!(reassign(0, Some(vec![1, 2])), ErrorCode::INVALID_REPLICA_ASSIGNMENT);
    assert_eq!(reassign(0, None), ErrorCode::NO_REASSIGNMENT_IN_PROGRESS);
    assert_eq!(reassign(7, Some(vec![1])), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);

    let request = DescribeLogDirsRequest::default();
    let dirs: DescribeLogDirsResponse = client.call(&Api::DescribeLogDirs, 4, &request);
    let here = dirs.results[0].log_dir.to_string();
    for version in 1..=2 {
        for (path, expected) in [(here.as_str(), ErrorCode::NONE), ("/mnt", ErrorCode::LOG_DIR_NOT_FOUND)] {
            let topics = vec![AlterReplicaLogDirTopic { name: "t".into(), partitions: vec![0] }];
            let dirs = vec![AlterReplicaLogDir { path: path.into(), topics }];
            let request = AlterReplicaLogDirsRequest { dirs };
            let response: AlterReplicaLogDirsResponse =
                client.call(&Api::AlterReplicaLogDirs, version, &request);
            assert_eq!(response.results[0].partitions[0].error_code, expected, "{path}");
        }
    }
}

#[test]
fn there_is_no_authorizer() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    for version in 1..=3 {
        let response: DescribeAclsResponse =
            client.call(&Api::DescribeAcls, version, &DescribeAclsRequest::default());
        assert_eq!(response.error_code, ErrorCode::SECURITY_DISABLED);
        let request = CreateAclsRequest { creations: vec![AclCreation::default(); 2] };
        let response: CreateAclsResponse = client.call(&Api::CreateAcls, version, &request);
        let codes: Vec<ErrorCode> = response.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [ErrorCode::SECURITY_DISABLED; 2]);
        let request = DeleteAclsRequest { filters: vec![DeleteAclsFilter::default()] };
        let response: DeleteAclsResponse = client.call(&Api::DeleteAcls, version, &request);
        assert_eq!(response.filter_results[0].error_code, ErrorCode::SECURITY_DISABLED);
    }
}

#[test]
fn there_are_no_quotas_no_scram_users_and_no_transactions() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    for version in 0..=1 {
        let response: DescribeClientQuotasResponse =
            client.call(&Api::DescribeClientQuotas, version, &DescribeClientQuotasRequest::default());
        assert_eq!(response.entries, Some(Vec::new()));
    }
    let request = DescribeUserScramCredentialsRequest { users: Some(vec![UserName { name: "ann".into() }]) };
    let response: DescribeUserScramCredentialsResponse =
        client.call(&Api::DescribeUserScramCredentials, 0, &request);
    assert_eq!(response.results[0].error_code, ErrorCode::RESOURCE_NOT_FOUND);
    for version in 0..=2 {
        let state_filters = vec!["Ongoing".into(), "Odd".into()];
        let request = ListTransactionsRequest { state_filters, ..ListTransactionsRequest::default() };
        let response: ListTransactionsResponse = client.call(&Api::ListTransactions, version, &request);
        assert_eq!((response.error_code, response.transaction_states), (ErrorCode::NONE, Vec::new()));
        assert_eq!(response.unknown_state_filters, ["Odd"]);
    }
}

#[test]
fn producers_of_a_partition_are_described() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let mut builder = BatchBuilder::new(100);
    builder.push(1, None, &[], Some(b"a"));
    builder.push(2, None, &[], Some(b"b"));
    let stamp = ProducerStamp { id: 77, epoch: 3, base_sequence: 0, transactional: false, control: false };
    let batch = builder.finish_as(Compression::None, Some(stamp));
    assert_eq!(client.produce(9, "t", 0, batch.into_bytes()).error_code, ErrorCode::NONE);
    let topics = vec![TopicRequest { name: "t".into(), partition_indexes: vec![0, 1] }];
    let response: DescribeProducersResponse =
        client.call(&Api::DescribeProducers, 0, &DescribeProducersRequest { topics });
    let partitions = &response.topics[0].partitions;
    assert_eq!(partitions[1].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let producer = &partitions[0].active_producers[0];
    assert_eq!((producer.producer_id, producer.producer_epoch, producer.last_sequence), (77, 3, 1));
    assert!(producer.last_timestamp > 1_600_000_000_000);
}
