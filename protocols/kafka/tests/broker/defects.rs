//! Invalid input, and limits on time. The broker closes the connection and keeps running.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;
use tokio::time::Instant;

use inver_kafka::KafkaConfig;
use inver_kafka::api::metadata::{MetadataRequest, MetadataResponse};
use inver_kafka::api::produce::ProduceResponse;
use inver_kafka::codec::api::Api;

use crate::test_broker::{Client, TestBroker, batch, encode, produce_request};

#[test]
fn invalid_input_closes_the_connection() {
    let broker = TestBroker::new();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0\0\x04\0\x03\0\x09",
        b"\xff\xff\xff\xff",
        b"\x80\0\0\0\0\0",
        b"\0\0\0\0",
        b"\0\0\0\x0a\0\x03\x7f\xff\0\0\0\x01\0\0",
        b"\0\0\0\x0a\x7f\xff\0\0\0\0\0\x01\0\0",
        // Metadata with a count of two billion topics.
        b"\0\0\0\x0e\0\x03\0\x01\0\0\0\x01\xff\xff\x7f\xff\xff\xff",
        // Metadata above its size limit.
        b"\x7f\xff\xff\xff\0\x03",
        // Produce above its size limit.
        b"\x7f\xff\xff\xff\0\0",
    ] {
        let mut client = broker.client();
        client.stream.write_all(bytes).unwrap();
        assert!(client.is_disconnected(), "{bytes:?}");
    }
    let _: MetadataResponse = broker.client().call(&Api::Metadata, 9, &MetadataRequest::default());
}

#[test]
fn requests_before_an_invalid_one_are_answered() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    client.send(&Api::Produce, 9, &produce_request("t", 0, -1, batch(&["a"]).into_bytes()));
    client.stream.write_all(b"\xff\xff\xff\xff").unwrap();
    let response: ProduceResponse = client.receive(&Api::Produce, 9);
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 0);
    assert!(client.is_disconnected());
}

#[test]
fn requests_may_arrive_in_pieces_of_any_size() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let large = "x".repeat(300_000);
    let mut bytes = Vec::new();
    for value in ["a", &large, "b", &large] {
        bytes.extend_from_slice(&encode(
            &Api::Produce,
            9,
            1,
            &produce_request("t", 0, 1, batch(&[value]).into_bytes()),
        ));
    }
    let mut step = 1;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(step.min(rest.len()));
        client.stream.write_all(now).unwrap();
        step = step * 3 / 2 + 1;
        rest = later;
    }
    for offset in 0..4 {
        let response: ProduceResponse = client.receive(&Api::Produce, 9);
        assert_eq!(response.responses[0].partition_responses[0].base_offset, offset);
    }
    assert_eq!(client.values("t", 0, 0), ["a", &large, "b", &large]);
}

#[test]
fn an_idle_connection_is_closed() {
    let mut config = KafkaConfig::default();
    config.limits.idle_max = Duration::from_millis(200);
    let broker = TestBroker::with(config);
    let mut client = broker.client();
    assert!(client.is_disconnected());
}

#[test]
fn pipelined_requests_are_all_answered() {
    let mut config = KafkaConfig::default();
    config.limits.pipeline_requests_max = 4;
    config.limits.output_bytes_max = 1000;
    let broker = TestBroker::with(config);
    let mut client = broker.with_topic("t", 1, &[]);
    for _ in 0..100 {
        client.send(&Api::Metadata, 9, &MetadataRequest::default());
        client.send(&Api::Produce, 9, &produce_request("t", 0, -1, batch(&["a"]).into_bytes()));
    }
    for offset in 0..100 {
        let _: MetadataResponse = client.receive(&Api::Metadata, 9);
        let response: ProduceResponse = client.receive(&Api::Produce, 9);
        assert_eq!(response.responses[0].partition_responses[0].base_offset, offset);
    }
}

/// Sends the start of a request. The broker has received it when this returns: a small request before it, in the same
/// piece, was answered.
fn begin(client: &mut Client, bytes: &[u8]) {
    let mut piece = encode(&Api::Metadata, 9, 1, &MetadataRequest::default()).to_vec();
    piece.extend_from_slice(bytes);
    client.stream.write_all(&piece).unwrap();
    let _: MetadataResponse = client.receive(&Api::Metadata, 9);
}

/// A broker with memory for one large request, a client, and such a request.
fn with_little_memory(request_time_max: Duration) -> (TestBroker, Client, Vec<u8>) {
    let mut config = KafkaConfig { message_bytes_max: 10 << 20, ..KafkaConfig::default() };
    config.limits.large_requests_bytes_max = 3 << 20;
    config.limits.request_time_max = request_time_max;
    let broker = TestBroker::with(config);
    let client = broker.with_topic("t", 1, &[]);
    let large = "x".repeat(2 << 20);
    let request = produce_request("t", 0, 1, batch(&[&large]).into_bytes());
    (broker, client, encode(&Api::Produce, 9, 1, &request).to_vec())
}

#[test]
fn large_requests_wait_for_memory_and_have_a_time_limit() {
    let time_max = Duration::from_millis(600);
    let (broker, mut slow, request) = with_little_memory(time_max);
    // The first takes the memory and stalls; the second is read once the first was disconnected.
    let start = Instant::now();
    begin(&mut slow, &request[..100]);
    let mut waiting = broker.client();
    waiting.stream.write_all(&request).unwrap();
    let response: ProduceResponse = waiting.receive(&Api::Produce, 9);
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 0);
    assert!(start.elapsed() >= time_max);
    assert!(slow.is_disconnected());
}

#[test]
fn waiting_for_memory_does_not_count_against_the_time_limit() {
    let (broker, mut slow, request) = with_little_memory(Duration::from_millis(1500));
    // The length only: the time of this request starts before that of the one that takes the memory.
    let mut waiting = broker.client();
    begin(&mut waiting, &request[..4]);
    begin(&mut slow, &request[..100]);
    waiting.stream.write_all(&request[4..1000]).unwrap();
    assert!(slow.is_disconnected());
    waiting.stream.write_all(&request[1000..]).unwrap();
    let response: ProduceResponse = waiting.receive(&Api::Produce, 9);
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 0);
}

#[test]
fn a_request_that_arrives_too_slowly_closes_the_connection() {
    let mut config = KafkaConfig::default();
    config.limits.request_time_max = Duration::from_millis(400);
    let broker = TestBroker::with(config);
    let mut client = broker.client();
    let request = encode(&Api::Metadata, 9, 1, &MetadataRequest::default());
    let start = Instant::now();
    // One byte at a time, each of which would renew an idle timeout; the last is never sent.
    let mut rest = request[..request.len() - 1].iter().cycle();
    client.stream.write_all(&1_000_000u32.to_be_bytes()).unwrap();
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let ended = loop {
        assert!(start.elapsed() < Duration::from_secs(15));
        if client.stream.write_all(&[*rest.next().unwrap()]).is_err() {
            break true;
        }
        let mut byte = [0];
        match client.stream.read(&mut byte) {
            Ok(0) => break true,
            Ok(_) => break false,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break true,
        }
    };
    assert!(ended);
    assert!(start.elapsed() > Duration::from_millis(300));
}
