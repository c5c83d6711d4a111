//! Fetch and ListOffsets: waits, limits, sessions, and lookups by time.

use std::time::Duration;
use tokio::time::Instant;

use inver_kafka::api::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic};
use inver_kafka::api::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use inver_kafka::api::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use inver_kafka::codec::api::Api;
use inver_kafka::codec::error_code::ErrorCode;
use inver_kafka::codec::wire::Uuid;

use crate::test_broker::{Client, TestBroker, batch, fetch_request, values};

#[test]
fn an_offset_inside_a_batch_returns_the_whole_batch() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    client.produce(9, "t", 0, batch(&["a", "b", "c"]).into_bytes());
    client.produce(9, "t", 0, batch(&["d"]).into_bytes());
    assert_eq!(client.values("t", 0, 2), ["a", "b", "c", "d"]);
    assert_eq!(client.values("t", 0, 3), ["d"]);
    assert!(client.values("t", 0, 4).is_empty());
    for outside in [-1, 5] {
        let response = client.fetch(12, "t", 0, outside);
        assert_eq!(response.responses[0].partitions[0].error_code, ErrorCode::OFFSET_OUT_OF_RANGE);
    }
}

#[test]
fn unknown_partitions_and_topics_are_errors() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    for (topic, index) in [("t", 1), ("none", 0)] {
        let response = client.fetch(12, topic, index, 0);
        let code = response.responses[0].partitions[0].error_code;
        assert_eq!(code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
    let mut request = fetch_request("", &[(0, 0)]);
    request.topics[0].topic_id = Uuid(7);
    let response: FetchResponse = client.call(&Api::Fetch, 13, &request);
    assert_eq!(response.responses[0].partitions[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID);
}

#[test]
fn topics_are_fetched_by_id() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    client.produce(9, "t", 0, batch(&["a"]).into_bytes());
    let topic = MetadataRequestTopic { name: Some("t".into()), ..MetadataRequestTopic::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() };
    let response: MetadataResponse = client.call(&Api::Metadata, 12, &request);
    let id = response.topics[0].topic_id;
    for version in 13..=18 {
        let mut request = fetch_request("", &[(0, 0)]);
        request.topics[0].topic_id = id;
        let response: FetchResponse = client.call(&Api::Fetch, version, &request);
        assert_eq!(response.responses[0].topic_id, id);
        let records = response.responses[0].partitions[0].records.as_ref().unwrap();
        assert_eq!(values(records), ["a"], "v{version}");
    }
}

#[test]
fn a_fetch_waits_for_min_bytes_up_to_max_wait() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 2, &[]);
    let waits = FetchRequest { max_wait_ms: 300, ..fetch_request("t", &[(0, 0), (1, 0)]) };
    let start = Instant::now();
    let response: FetchResponse = client.call(&Api::Fetch, 11, &waits);
    assert!(start.elapsed() >= Duration::from_millis(290));
    assert_eq!(response.responses[0].partitions.len(), 2);

    let waits = FetchRequest { max_wait_ms: 15_000, ..waits };
    client.send(&Api::Fetch, 11, &waits);
    broker.client().produce(9, "t", 1, batch(&["woken"]).into_bytes());
    let start = Instant::now();
    let response: FetchResponse = client.receive(&Api::Fetch, 11);
    assert!(start.elapsed() < Duration::from_secs(5));
    let records = response.responses[0].partitions[1].records.as_ref().unwrap();
    assert_eq!(values(records), ["woken"]);

    // Too few bytes do not end the wait.
    let start = Instant::now();
    let more = FetchRequest { max_wait_ms: 300, min_bytes: 1 << 20, ..waits };
    let response: FetchResponse = client.call(&Api::Fetch, 11, &more);
    assert!(start.elapsed() >= Duration::from_millis(290));
    assert_eq!(values(response.responses[0].partitions[1].records.as_ref().unwrap()), ["woken"]);
}

#[test]
fn a_waiting_fetch_does_not_hold_up_the_handling_of_later_requests() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    client.send(&Api::Fetch, 11, &FetchRequest { max_wait_ms: 15_000, ..fetch_request("t", &[(0, 0)]) });
    client.send(
        &Api::Produce,
        9,
        &crate::test_broker::produce_request("t", 0, -1, batch(&["mine"]).into_bytes()),
    );
    let start = Instant::now();
    let response: FetchResponse = client.receive(&Api::Fetch, 11);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(values(response.responses[0].partitions[0].records.as_ref().unwrap()), ["mine"]);
    let _: inver_kafka::api::produce::ProduceResponse = client.receive(&Api::Produce, 9);
}

#[test]
fn byte_limits_hold_except_for_the_first_batch() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 3, &[]);
    let large = "x".repeat(1000);
    for index in 0..3 {
        for _ in 0..3 {
            client.produce(9, "t", index, batch(&[&large]).into_bytes());
        }
    }
    let count = |client: &mut Client, max_bytes, partition_max_bytes| -> Vec<usize> {
        let mut request = FetchRequest { max_bytes, ..fetch_request("t", &[(0, 0), (1, 0), (2, 0)]) };
        request.topics[0].partitions.iter_mut().for_each(|p| p.partition_max_bytes = partition_max_bytes);
        let response: FetchResponse = client.call(&Api::Fetch, 11, &request);
        let partitions = response.responses[0].partitions.iter();
        partitions.map(|p| values(p.records.as_ref().unwrap()).len()).collect()
    };
    assert_eq!(count(&mut client, 1 << 20, 1 << 20), [3, 3, 3]);
    assert_eq!(count(&mut client, 1 << 20, 2500), [2, 2, 2]);
    assert_eq!(count(&mut client, 2500, 1 << 20), [2, 0, 0]);
    assert_eq!(count(&mut client, 10, 10), [1, 0, 0]);
    assert_eq!(count(&mut client, 0, 0), [1, 0, 0]);
    assert_eq!(count(&mut client, 1 << 20, 10), [1, 0, 0]);
}

fn session(client: &mut Client, id: i32, epoch: i32, topics: Vec<FetchTopic>) -> FetchResponse {
    let request = FetchRequest {
        session_id: id,
        session_epoch: epoch,
        topics,
        min_bytes: 0,
        ..fetch_request("t", &[])
    };
    client.call(&Api::Fetch, 12, &request)
}

fn topic(partitions: &[(i32, i64)]) -> Vec<FetchTopic> {
    fetch_request("t", partitions).topics
}

#[test]
fn a_session_reports_only_changes() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 3, &[]);
    let first = session(&mut client, 0, 0, topic(&[(0, 0), (1, 0), (2, 0)]));
    assert_eq!(first.responses[0].partitions.len(), 3);
    let id = first.session_id;
    assert!(id > 0);
    assert!(session(&mut client, id, 1, Vec::new()).responses.is_empty());
    client.produce(9, "t", 1, batch(&["a"]).into_bytes());
    let response = session(&mut client, id, 2, Vec::new());
    assert_eq!(response.responses[0].partitions.len(), 1);
    assert_eq!(response.responses[0].partitions[0].partition_index, 1);
    // Records are sent again until the client fetches a later offset.
    let response = session(&mut client, id, 3, Vec::new());
    assert_eq!(values(response.responses[0].partitions[0].records.as_ref().unwrap()), ["a"]);
    assert!(session(&mut client, id, 4, topic(&[(1, 1)])).responses.is_empty());
    // Forgotten partitions are not reported.
    client.produce(9, "t", 2, batch(&["b"]).into_bytes());
    let forget = FetchRequest {
        session_id: id,
        session_epoch: 5,
        forgotten_topics_data: vec![ForgottenTopic {
            topic: "t".into(),
            partitions: vec![2],
            ..Default::default()
        }],
        min_bytes: 0,
        ..FetchRequest::default()
    };
    let response: FetchResponse = client.call(&Api::Fetch, 12, &forget);
    assert!(response.responses.is_empty());
    assert_eq!(session(&mut client, id, 4, Vec::new()).error_code, ErrorCode::INVALID_FETCH_SESSION_EPOCH);
    assert_eq!(session(&mut client, id + 1, 6, Vec::new()).error_code, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
    // A final epoch ends it.
    assert_eq!(session(&mut client, id, -1, topic(&[(0, 0)])).session_id, 0);
    assert_eq!(session(&mut client, id, 6, Vec::new()).error_code, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
}

#[test]
fn a_session_serves_all_partitions_in_turn() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 3, &[]);
    let large = "x".repeat(1000);
    for index in 0..3 {
        client.produce(9, "t", index, batch(&[&large]).into_bytes());
    }
    let mut seen = Vec::new();
    let (mut id, mut epoch, mut topics) = (0, 0, topic(&[(0, 0), (1, 0), (2, 0)]));
    for _ in 0..3 {
        let request = FetchRequest {
            session_id: id,
            session_epoch: epoch,
            topics: std::mem::take(&mut topics),
            max_bytes: 1100,
            ..fetch_request("t", &[])
        };
        let response: FetchResponse = client.call(&Api::Fetch, 12, &request);
        (id, epoch) = (response.session_id, epoch + 1);
        let partitions = response.responses.iter().flat_map(|t| t.partitions.iter());
        let full = partitions.filter(|p| p.records.as_ref().is_some_and(|r| !r.is_empty()));
        seen.extend(full.map(|p| p.partition_index));
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn a_session_finds_a_topic_that_is_created_later() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    let first = session(&mut client, 0, 0, topic(&[(0, 0)]));
    let id = first.session_id;
    assert_eq!(first.responses[0].partitions[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    broker.with_topic("t", 1, &[]).produce(9, "t", 0, batch(&["a"]).into_bytes());
    let response = session(&mut client, id, 1, Vec::new());
    assert_eq!(values(response.responses[0].partitions[0].records.as_ref().unwrap()), ["a"]);
}

#[test]
fn unknown_leader_epochs_are_errors() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let mut request = fetch_request("t", &[(0, 0)]);
    request.topics[0].partitions[0] =
        FetchPartition { current_leader_epoch: 1, ..request.topics[0].partitions[0].clone() };
    let response: FetchResponse = client.call(&Api::Fetch, 12, &request);
    assert_eq!(response.responses[0].partitions[0].error_code, ErrorCode::UNKNOWN_LEADER_EPOCH);
}

fn offset_at(client: &mut Client, version: i16, timestamp: i64) -> (ErrorCode, i64, i64) {
    let partition = ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() };
    let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
    let request = ListOffsetsRequest { topics: vec![topic], ..ListOffsetsRequest::default() };
    let response: ListOffsetsResponse = client.call(&Api::ListOffsets, version, &request);
    let answer = &response.topics[0].partitions[0];
    (answer.error_code, answer.offset, answer.timestamp)
}

#[test]
fn offsets_are_found_by_time() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    assert_eq!(offset_at(&mut client, 7, -3), (ErrorCode::NONE, -1, -1));
    // Timestamps 1000, 1001, 1002 in one batch, twice.
    for _ in 0..2 {
        client.produce(9, "t", 0, batch(&["a", "b", "c"]).into_bytes());
    }
    for version in 1..=11 {
        assert_eq!(offset_at(&mut client, version, -1), (ErrorCode::NONE, 6, -1));
        assert_eq!(offset_at(&mut client, version, -2), (ErrorCode::NONE, 0, -1));
        assert_eq!(offset_at(&mut client, version, 0), (ErrorCode::NONE, 0, 1000));
        assert_eq!(offset_at(&mut client, version, 1001), (ErrorCode::NONE, 1, 1001));
        assert_eq!(offset_at(&mut client, version, 1003), (ErrorCode::NONE, -1, -1));
    }
    assert_eq!(offset_at(&mut client, 7, -3), (ErrorCode::NONE, 2, 1002));
    assert_eq!(offset_at(&mut client, 8, -4), (ErrorCode::NONE, 0, -1));
    assert_eq!(offset_at(&mut client, 9, -5), (ErrorCode::NONE, -1, -1));
    assert_eq!(offset_at(&mut client, 9, -9).0, ErrorCode::UNSUPPORTED_VERSION);
}

#[test]
fn records_that_are_only_on_disk_are_read_from_it() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 8, &[]);
    let large = "x".repeat(50_000);
    for number in 0..40 {
        let value = format!("{number} {large}");
        client.produce(9, "t", number % 8, batch(&[&value]).into_bytes());
    }
    drop(client);
    // With little memory for reads, and few of them at a time.
    let mut config = inver_kafka::KafkaConfig::default();
    config.limits.fetched_bytes_max = 200_000;
    config.limits.cold_reads_max = 2;
    let broker = broker.restart(config);
    let mut client = broker.client();
    let mut next = [0; 8];
    let mut seen = 0;
    while seen < 40 {
        let wanted: Vec<(i32, i64)> = (0..8).map(|index| (index, next[index as usize])).collect();
        let request = FetchRequest { max_wait_ms: 2000, ..fetch_request("t", &wanted) };
        let response: FetchResponse = client.call(&Api::Fetch, 12, &request);
        let before = seen;
        for partition in &response.responses[0].partitions {
            assert_eq!(partition.error_code, ErrorCode::NONE);
            let got = values(partition.records.as_ref().unwrap());
            next[partition.partition_index as usize] += got.len() as i64;
            seen += got.len();
        }
        assert!(seen > before, "{next:?}");
    }
    assert_eq!(next, [5; 8]);
    assert_eq!(offset_at(&mut client, 7, 1000), (ErrorCode::NONE, 0, 1000));
    assert_eq!(offset_at(&mut client, 7, 1001), (ErrorCode::NONE, -1, -1));
}
