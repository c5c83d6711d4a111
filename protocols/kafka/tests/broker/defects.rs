//! Bytes that are not requests. The broker hangs up and lives on.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use inver_kafka::KafkaConfig;
use inver_kafka::codec::api::metadata::{MetadataRequest, MetadataResponse};
use inver_kafka::codec::api::produce::ProduceResponse;
use inver_kafka::codec::api_key::Api;

use crate::world::{Client, World, batch, encode, produce_request};

#[test]
fn what_is_not_a_request_ends_the_connection() {
    let world = World::new();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0\0\x04\0\x03\0\x09",
        b"\xff\xff\xff\xff",
        b"\x80\0\0\0\0\0",
        b"\0\0\0\0",
        b"\0\0\0\x0a\0\x03\x7f\xff\0\0\0\x01\0\0",
        b"\0\0\0\x0a\x7f\xff\0\0\0\0\0\x01\0\0",
        // Metadata that claims two thousand million topics.
        b"\0\0\0\x0e\0\x03\0\x01\0\0\0\x01\xff\xff\x7f\xff\xff\xff",
        // Metadata longer than any request but Produce may be.
        b"\x7f\xff\xff\xff\0\x03",
        // Produce longer than that.
        b"\x7f\xff\xff\xff\0\0",
    ] {
        let mut client = world.client();
        client.stream.write_all(bytes).unwrap();
        assert!(client.is_hung_up_on(), "{bytes:?}");
    }
    let _: MetadataResponse = world.client().call(&Api::Metadata, 9, &MetadataRequest::default());
}

#[test]
fn what_was_asked_before_is_still_answered() {
    let world = World::new();
    let mut client = world.with_topic("t", 1, &[]);
    client.send(&Api::Produce, 9, &produce_request("t", 0, -1, batch(&["a"]).into_bytes()));
    client.stream.write_all(b"\xff\xff\xff\xff").unwrap();
    let response: ProduceResponse = client.receive(&Api::Produce, 9);
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 0);
    assert!(client.is_hung_up_on());
}

#[test]
fn requests_may_come_in_any_pieces() {
    let world = World::new();
    let mut client = world.with_topic("t", 1, &[]);
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
        if step < 30 {
            std::thread::sleep(Duration::from_millis(1));
        }
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
fn silence_ends_a_connection() {
    let mut config = KafkaConfig::default();
    config.limits.idle_max = Duration::from_millis(200);
    let world = World::with(config);
    let mut client = world.client();
    assert!(client.is_hung_up_on());
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let mut config = KafkaConfig::default();
    config.limits.pipeline_requests_max = 4;
    config.limits.output_bytes_max = 1000;
    let world = World::with(config);
    let mut client = world.with_topic("t", 1, &[]);
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

/// A client whose request has begun to come in when this returns: what it sends arrives behind a small request in the
/// same piece, and that one is answered.
fn begin(client: &mut Client, bytes: &[u8]) {
    let mut piece = encode(&Api::Metadata, 9, 1, &MetadataRequest::default()).to_vec();
    piece.extend_from_slice(bytes);
    client.stream.write_all(&piece).unwrap();
    let _: MetadataResponse = client.receive(&Api::Metadata, 9);
}

/// A world with room for one of the large requests that come with it.
fn narrow(request_time_max: Duration) -> (World, Client, Vec<u8>) {
    let mut config = KafkaConfig { message_bytes_max: 10 << 20, ..KafkaConfig::default() };
    config.limits.large_requests_bytes_max = 3 << 20;
    config.limits.request_time_max = request_time_max;
    let world = World::with(config);
    let client = world.with_topic("t", 1, &[]);
    let large = "x".repeat(2 << 20);
    let request = produce_request("t", 0, 1, batch(&[&large]).into_bytes());
    (world, client, encode(&Api::Produce, 9, 1, &request).to_vec())
}

#[test]
fn large_requests_wait_for_each_other_and_may_not_take_for_ever() {
    let time_max = Duration::from_millis(600);
    let (world, mut slow, request) = narrow(time_max);
    // The first takes the room and does not go on; the second is let in when the first has been hung up on.
    let start = Instant::now();
    begin(&mut slow, &request[..100]);
    let mut patient = world.client();
    patient.stream.write_all(&request).unwrap();
    let response: ProduceResponse = patient.receive(&Api::Produce, 9);
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 0);
    assert!(start.elapsed() >= time_max);
    assert!(slow.is_hung_up_on());
}

#[test]
fn the_wait_for_room_is_not_the_clients() {
    let (world, mut slow, request) = narrow(Duration::from_millis(1500));
    // The length alone: the time of this request begins before that of the one that takes the room.
    let mut patient = world.client();
    begin(&mut patient, &request[..4]);
    begin(&mut slow, &request[..100]);
    patient.stream.write_all(&request[4..1000]).unwrap();
    assert!(slow.is_hung_up_on());
    patient.stream.write_all(&request[1000..]).unwrap();
    let response: ProduceResponse = patient.receive(&Api::Produce, 9);
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 0);
}

#[test]
fn a_request_that_drips_in_is_given_up() {
    let mut config = KafkaConfig::default();
    config.limits.request_time_max = Duration::from_millis(400);
    let world = World::with(config);
    let mut client = world.client();
    let request = encode(&Api::Metadata, 9, 1, &MetadataRequest::default());
    let start = Instant::now();
    // A byte at a time, each of which would renew an idle time; the last is never sent.
    let mut drips = request[..request.len() - 1].iter().cycle();
    client.stream.write_all(&1_000_000u32.to_be_bytes()).unwrap();
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let ended = loop {
        assert!(start.elapsed() < Duration::from_secs(15));
        if client.stream.write_all(&[*drips.next().unwrap()]).is_err() {
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
