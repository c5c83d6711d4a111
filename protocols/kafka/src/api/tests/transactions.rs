//! Transactions: errors by version, permissions, isolation, and what requests of both protocols do.

use inver_storage::batch::{Batch, Compression, ProducerStamp};

use super::*;
use crate::api::add_offsets_to_txn::*;
use crate::api::add_partitions_to_txn::*;
use crate::api::describe_producers::*;
use crate::api::describe_transactions::*;
use crate::api::end_txn::*;
use crate::api::init_producer_id::*;
use crate::api::list_offsets::*;
use crate::api::list_transactions::*;
use crate::api::offset_fetch::*;
use crate::api::produce::*;
use crate::api::txn_offset_commit::*;
use crate::api::write_txn_markers::*;

const ID: &str = "id";

fn init(fixture: &mut Fixture, expected: Option<(i64, i16)>, version: i16) -> InitProducerIdResponse {
    let (producer_id, producer_epoch) = expected.unwrap_or((-1, -1));
    let request = InitProducerIdRequest {
        transactional_id: Some(ID.into()),
        transaction_timeout_ms: 60_000,
        producer_id,
        producer_epoch,
        ..InitProducerIdRequest::default()
    };
    fixture.answer::<InitProducerId>(version, request)
}

fn begin(fixture: &mut Fixture) -> (i64, i16) {
    let response = init(fixture, None, 5);
    assert_eq!(response.error_code, ErrorCode::NONE);
    (response.producer_id, response.producer_epoch)
}

fn add(fixture: &mut Fixture, (id, epoch): (i64, i16), topic: &str, version: i16) -> ErrorCode {
    let topics = vec![AddPartitionsToTxnTopic { name: topic.into(), partitions: vec![0] }];
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: ID.into(),
        v3_and_below_producer_id: id,
        v3_and_below_producer_epoch: epoch,
        v3_and_below_topics: topics,
        ..AddPartitionsToTxnRequest::default()
    };
    let response = fixture.answer::<AddPartitionsToTxn>(version, request);
    response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
}

fn part((id, epoch): (i64, i16), base_sequence: i32) -> Batch {
    let mut builder = BatchBuilder::new(64);
    builder.push(inver_broker::now_ms(), None, &[], Some(b"v"));
    let stamp = ProducerStamp { id, epoch, base_sequence, transactional: true, control: false };
    builder.finish_as(Compression::None, Some(stamp))
}

fn produce(
    fixture: &mut Fixture,
    producer: (i64, i16),
    sequence: i32,
    transactional_id: Option<&str>,
    version: i16,
) -> ErrorCode {
    let records = Some(part(producer, sequence).into_bytes());
    let partition_data = vec![PartitionProduceData { index: 0, records }];
    let data = TopicProduceData { name: "t".into(), partition_data, ..TopicProduceData::default() };
    let request = ProduceRequest {
        transactional_id: transactional_id.map(Into::into),
        acks: -1,
        timeout_ms: 1000,
        topic_data: vec![data],
    };
    let response = fixture.answer::<Produce>(version, request);
    response.responses[0].partition_responses[0].error_code
}

fn end(fixture: &mut Fixture, (id, epoch): (i64, i16), committed: bool, version: i16) -> EndTxnResponse {
    let request =
        EndTxnRequest { transactional_id: ID.into(), producer_id: id, producer_epoch: epoch, committed };
    fixture.answer::<EndTxn>(version, request)
}

/// The latest offset of a partition for an isolation level, once what was submitted is committed.
fn latest(fixture: &mut Fixture, isolation_level: i8) -> i64 {
    let log = fixture.node.broker.log();
    log.wait_committed_blocking(log.submitted()).unwrap();
    let partitions = vec![ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() }];
    let topics = vec![ListOffsetsTopic { name: "t".into(), partitions }];
    let request = ListOffsetsRequest { isolation_level, topics, ..ListOffsetsRequest::default() };
    fixture.answer::<ListOffsets>(9, request).topics[0].partitions[0].offset
}

#[test]
fn producers_before_kip_890_add_their_partitions() {
    let mut fixture = fixture();
    let producer = begin(&mut fixture);
    assert_eq!(produce(&mut fixture, producer, 0, Some(ID), 10), ErrorCode::INVALID_TXN_STATE);
    assert_eq!(produce(&mut fixture, producer, 0, Some(ID), 11), ErrorCode::TRANSACTION_ABORTABLE);
    assert_eq!(add(&mut fixture, producer, "t", 3), ErrorCode::NONE);
    assert_eq!(produce(&mut fixture, producer, 0, Some(ID), 11), ErrorCode::NONE);
    assert_eq!((latest(&mut fixture, 0), latest(&mut fixture, 1)), (1, 0));
    assert_eq!(end(&mut fixture, producer, true, 3).error_code, ErrorCode::NONE);
    assert_eq!((latest(&mut fixture, 0), latest(&mut fixture, 1)), (2, 2));
    assert_eq!(end(&mut fixture, producer, true, 3).error_code, ErrorCode::NONE, "repeated");
    assert_eq!(end(&mut fixture, producer, false, 3).error_code, ErrorCode::INVALID_TXN_STATE);
}

#[test]
fn later_producers_do_not_and_get_an_epoch_for_each_transaction() {
    let mut fixture = fixture();
    let producer = begin(&mut fixture);
    assert_eq!(produce(&mut fixture, producer, 0, Some(ID), 12), ErrorCode::NONE);
    let ended = end(&mut fixture, producer, true, 5);
    assert_eq!((ended.error_code, ended.producer_id), (ErrorCode::NONE, producer.0));
    assert_eq!(ended.producer_epoch, producer.1 + 1);
    assert_eq!(produce(&mut fixture, producer, 1, Some(ID), 12), ErrorCode::INVALID_PRODUCER_EPOCH);
    assert_eq!(end(&mut fixture, producer, true, 5).producer_epoch, producer.1 + 1, "repeated");
    let next = (ended.producer_id, ended.producer_epoch);
    assert_eq!(produce(&mut fixture, next, 0, Some(ID), 12), ErrorCode::NONE);
    assert_eq!(end(&mut fixture, next, false, 5).error_code, ErrorCode::NONE);
}

#[test]
fn a_fenced_producer_is_told_so_by_version() {
    let mut fixture = fixture();
    let old = begin(&mut fixture);
    let new = begin(&mut fixture);
    assert_eq!(new, (old.0, old.1 + 1));
    for (version, code) in [(0, ErrorCode::INVALID_PRODUCER_EPOCH), (2, ErrorCode::PRODUCER_FENCED)] {
        assert_eq!(add(&mut fixture, old, "t", version), code);
        assert_eq!(end(&mut fixture, old, true, version).error_code, code);
    }
    assert_eq!(init(&mut fixture, Some(old), 4).error_code, ErrorCode::PRODUCER_FENCED);
    assert_eq!(init(&mut fixture, Some(old), 3).error_code, ErrorCode::INVALID_PRODUCER_EPOCH);
    let unknown = (old.0 + 77, new.1);
    assert_eq!(add(&mut fixture, unknown, "t", 3), ErrorCode::INVALID_PRODUCER_ID_MAPPING);
}

#[test]
fn what_is_wrong_in_a_request_has_its_code() {
    let mut fixture = fixture();
    let producer = begin(&mut fixture);
    for (timeout, code) in [
        (0, ErrorCode::INVALID_TRANSACTION_TIMEOUT),
        (-1, ErrorCode::INVALID_TRANSACTION_TIMEOUT),
        (900_001, ErrorCode::INVALID_TRANSACTION_TIMEOUT),
        (900_000, ErrorCode::NONE),
    ] {
        let request = InitProducerIdRequest {
            transactional_id: Some("other".into()),
            transaction_timeout_ms: timeout,
            ..InitProducerIdRequest::default()
        };
        assert_eq!(fixture.answer::<InitProducerId>(5, request).error_code, code, "{timeout}");
    }
    assert_eq!(init(&mut fixture, Some((producer.0, -1)), 5).error_code, ErrorCode::INVALID_REQUEST);
    assert_eq!(add(&mut fixture, producer, "missing", 3), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let without = produce(&mut fixture, producer, 0, None, 12);
    assert_eq!(without, ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    assert_eq!(end(&mut fixture, producer, true, 3).error_code, ErrorCode::INVALID_TXN_STATE);
    let topics =
        ["t", "missing"].map(|name| AddPartitionsToTxnTopic { name: name.into(), partitions: vec![0] });
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: ID.into(),
        v3_and_below_producer_id: producer.0,
        v3_and_below_producer_epoch: producer.1,
        v3_and_below_topics: topics.into(),
        ..AddPartitionsToTxnRequest::default()
    };
    let response = fixture.answer::<AddPartitionsToTxn>(3, request);
    let code = response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code;
    assert_eq!(code, ErrorCode::OPERATION_NOT_ATTEMPTED);
}

#[test]
fn other_nodes_ask_whether_partitions_are_in_a_transaction() {
    let mut fixture = fixture();
    let (producer_id, producer_epoch) = begin(&mut fixture);
    assert_eq!(add(&mut fixture, (producer_id, producer_epoch), "t", 3), ErrorCode::NONE);
    let topics = vec![AddPartitionsToTxnTopic { name: "t".into(), partitions: vec![0, 1] }];
    let transaction = AddPartitionsToTxnTransaction {
        transactional_id: ID.into(),
        producer_id,
        producer_epoch,
        verify_only: true,
        topics,
    };
    let request =
        AddPartitionsToTxnRequest { transactions: vec![transaction], ..AddPartitionsToTxnRequest::default() };
    for (version, missing) in [(4, ErrorCode::INVALID_TXN_STATE), (5, ErrorCode::TRANSACTION_ABORTABLE)] {
        let response = fixture.answer::<AddPartitionsToTxn>(version, request.clone());
        let results = &response.results_by_transaction[0].topic_results[0].results_by_partition;
        let codes: Vec<ErrorCode> = results.iter().map(|result| result.partition_error_code).collect();
        assert_eq!(codes, [ErrorCode::NONE, missing]);
    }
}

#[test]
fn offsets_wait_for_the_commit() {
    let mut fixture = fixture();
    let (producer_id, producer_epoch) = begin(&mut fixture);
    let commit = |fixture: &mut Fixture, version, epoch| {
        let partitions = vec![TxnOffsetCommitRequestPartition {
            committed_offset: 5,
            ..TxnOffsetCommitRequestPartition::default()
        }];
        let topic = TxnOffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() };
        let request = TxnOffsetCommitRequest {
            transactional_id: ID.into(),
            group_id: "g".into(),
            producer_id,
            producer_epoch: epoch,
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..TxnOffsetCommitRequest::default()
        };
        fixture.answer::<TxnOffsetCommit>(version, request).topics[0].partitions[0].error_code
    };
    let fetch = |fixture: &mut Fixture, require_stable| {
        let topics = vec![OffsetFetchRequestTopics {
            name: "t".into(),
            partition_indexes: vec![0],
            ..Default::default()
        }];
        let group =
            OffsetFetchRequestGroup { group_id: "g".into(), topics: Some(topics), ..Default::default() };
        let request = OffsetFetchRequest { groups: vec![group], require_stable, ..Default::default() };
        let mut response = fixture.answer::<OffsetFetch>(9, request);
        let partition = response.groups.remove(0).topics.remove(0).partitions.remove(0);
        (partition.error_code, partition.committed_offset)
    };
    assert_eq!(commit(&mut fixture, 3, producer_epoch), ErrorCode::INVALID_TXN_STATE);
    assert_eq!(commit(&mut fixture, 4, producer_epoch), ErrorCode::TRANSACTION_ABORTABLE);
    let group = AddOffsetsToTxnRequest {
        transactional_id: ID.into(),
        producer_id,
        producer_epoch,
        group_id: "g".into(),
    };
    assert_eq!(fixture.answer::<AddOffsetsToTxn>(4, group).error_code, ErrorCode::NONE);
    assert_eq!(commit(&mut fixture, 4, producer_epoch + 1), ErrorCode::INVALID_PRODUCER_EPOCH);
    assert_eq!(commit(&mut fixture, 4, producer_epoch), ErrorCode::NONE);
    assert_eq!(fetch(&mut fixture, true), (ErrorCode::UNSTABLE_OFFSET_COMMIT, -1));
    assert_eq!(fetch(&mut fixture, false), (ErrorCode::NONE, -1));
    assert_eq!(end(&mut fixture, (producer_id, producer_epoch), true, 5).error_code, ErrorCode::NONE);
    assert_eq!(fetch(&mut fixture, true), (ErrorCode::NONE, 5));
    // Nothing to commit begins no transaction.
    let request = TxnOffsetCommitRequest {
        transactional_id: ID.into(),
        group_id: "g".into(),
        producer_id,
        producer_epoch: producer_epoch + 1,
        generation_id_or_member_epoch: -1,
        ..TxnOffsetCommitRequest::default()
    };
    assert_eq!(fixture.answer::<TxnOffsetCommit>(5, request).topics, []);
    let info = fixture.node.broker.default_namespace().transactions().info(ID).unwrap();
    assert_eq!(info.state, inver_broker::TransactionState::Committed);
    // The group is added by the request itself.
    assert_eq!(commit(&mut fixture, 5, producer_epoch + 1), ErrorCode::NONE);
}

#[test]
fn administrators_see_and_end_transactions() {
    let mut fixture = fixture();
    let producer = begin(&mut fixture);
    assert_eq!(produce(&mut fixture, producer, 0, Some(ID), 12), ErrorCode::NONE);
    latest(&mut fixture, 1);
    let list = |fixture: &mut Fixture, request: ListTransactionsRequest| {
        let response = fixture.answer::<ListTransactions>(2, request);
        let states = response.transaction_states.into_iter();
        (response.error_code, states.map(|state| state.transaction_state.to_string()).collect::<Vec<_>>())
    };
    let wanted = ListTransactionsRequest { duration_filter: -1, ..ListTransactionsRequest::default() };
    let ongoing = (ErrorCode::NONE, vec!["Ongoing".to_owned()]);
    assert_eq!(list(&mut fixture, wanted.clone()), ongoing);
    for (pattern, listed) in [("i.", 1), ("i", 0), ("", 1), (r"\w+-?\w*-?\w*", 1)] {
        let request =
            ListTransactionsRequest { transactional_id_pattern: Some(pattern.into()), ..wanted.clone() };
        assert_eq!(list(&mut fixture, request).1.len(), listed, "{pattern}");
    }
    let broken = ListTransactionsRequest { transactional_id_pattern: Some("(".into()), ..wanted.clone() };
    assert_eq!(list(&mut fixture, broken).0, ErrorCode::INVALID_REGULAR_EXPRESSION);
    let others = ListTransactionsRequest { state_filters: vec!["Empty".into()], ..wanted };
    assert_eq!(list(&mut fixture, others).1.len(), 0);
    let request = DescribeTransactionsRequest { transactional_ids: vec![ID.into(), "unknown".into()] };
    let response = fixture.answer::<DescribeTransactions>(0, request);
    let [known, unknown] = &response.transaction_states[..] else { panic!("{response:?}") };
    assert_eq!(known.topics[0].partitions, [0]);
    assert_eq!(unknown.error_code, ErrorCode::TRANSACTIONAL_ID_NOT_FOUND);
    let topics = vec![TopicRequest { name: "t".into(), partition_indexes: vec![0] }];
    let response = fixture.answer::<DescribeProducers>(0, DescribeProducersRequest { topics });
    let active = &response.topics[0].partitions[0].active_producers[0];
    assert_eq!((active.producer_id, active.current_txn_start_offset), (producer.0, 0));
    let topics = vec![WritableTxnMarkerTopic { name: "t".into(), partition_indexes: vec![0, 7] }];
    let marker = WritableTxnMarker {
        producer_id: producer.0,
        producer_epoch: producer.1,
        transaction_result: false,
        topics,
        ..WritableTxnMarker::default()
    };
    let response = fixture.answer::<WriteTxnMarkers>(1, WriteTxnMarkersRequest { markers: vec![marker] });
    let results = &response.markers[0].topics[0].partitions;
    assert_eq!(results[0].error_code, ErrorCode::NONE);
    assert_eq!(results[1].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!((latest(&mut fixture, 0), latest(&mut fixture, 1)), (2, 2));
}

#[test]
fn markers_are_refused_by_partition() {
    let mut fixture = fixture();
    let producer = begin(&mut fixture);
    assert_eq!(produce(&mut fixture, producer, 0, Some(ID), 12), ErrorCode::NONE);
    let next = begin(&mut fixture);
    assert_eq!(produce(&mut fixture, next, 0, Some(ID), 12), ErrorCode::NONE);
    latest(&mut fixture, 1);
    let markers = [(producer, vec![1, 0]), (next, vec![0, 0])].map(|((id, epoch), partition_indexes)| {
        let topics = vec![WritableTxnMarkerTopic { name: "t".into(), partition_indexes }];
        WritableTxnMarker { producer_id: id, producer_epoch: epoch, topics, ..WritableTxnMarker::default() }
    });
    let response = fixture.answer::<WriteTxnMarkers>(1, WriteTxnMarkersRequest { markers: markers.into() });
    let codes = response.markers.iter().flat_map(|marker| &marker.topics[0].partitions);
    let codes: Vec<ErrorCode> = codes.map(|partition| partition.error_code).collect();
    let fenced = ErrorCode::INVALID_PRODUCER_EPOCH;
    assert_eq!(codes, [ErrorCode::NONE, fenced, ErrorCode::NONE, ErrorCode::NONE]);
    // Two batches, the marker of the first producer, and one marker of the second.
    assert_eq!((latest(&mut fixture, 0), latest(&mut fixture, 1)), (4, 4));
}

#[test]
fn markers_are_written_by_those_who_may_alter_the_cluster_or_act_as_brokers() {
    let mut fixture = fixture();
    let (producer_id, producer_epoch) = begin(&mut fixture);
    let mut write = |user: &str, allowed: &[(ResourceKind, &str, Operation)]| {
        fixture.become_user(user, allowed);
        let topics = vec![WritableTxnMarkerTopic { name: "t".into(), partition_indexes: vec![0] }];
        let marker =
            WritableTxnMarker { producer_id, producer_epoch, topics, ..WritableTxnMarker::default() };
        let request = WriteTxnMarkersRequest { markers: vec![marker] };
        let response = fixture.answer::<WriteTxnMarkers>(1, request);
        response.markers[0].topics[0].partitions[0].error_code
    };
    let cluster = |operation| [(ResourceKind::Cluster, "", operation)];
    assert_eq!(write("ann", &cluster(Operation::Describe)), ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    assert_eq!(write("bea", &cluster(Operation::Alter)), ErrorCode::NONE);
    assert_eq!(write("cid", &cluster(Operation::ClusterAction)), ErrorCode::NONE);
}

#[test]
fn transactional_ids_have_permissions() {
    let mut fixture = fixture();
    let refused = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    let producer = begin(&mut fixture);
    fixture.become_user("ann", &[(ResourceKind::Topic, "t", Operation::Write)]);
    assert_eq!(init(&mut fixture, None, 5).error_code, refused);
    assert_eq!(add(&mut fixture, producer, "t", 3), refused);
    assert_eq!(produce(&mut fixture, producer, 0, Some(ID), 12), refused);
    assert_eq!(end(&mut fixture, producer, true, 5).error_code, refused);
    let find = |fixture: &mut Fixture| {
        use crate::api::find_coordinator::{FindCoordinator, FindCoordinatorRequest};
        let request = FindCoordinatorRequest {
            key_type: 1,
            coordinator_keys: vec![ID.into()],
            ..FindCoordinatorRequest::default()
        };
        fixture.answer::<FindCoordinator>(4, request).coordinators[0].error_code
    };
    assert_eq!(find(&mut fixture), refused);
    fixture.allow("ann", &[(ResourceKind::TransactionalId, ID, Operation::Write)]);
    assert_eq!(find(&mut fixture), ErrorCode::NONE);
    let producer = begin(&mut fixture);
    assert_eq!(produce(&mut fixture, producer, 0, Some(ID), 12), ErrorCode::NONE);
    assert_eq!(end(&mut fixture, producer, true, 5).error_code, ErrorCode::NONE);
}
