//! Produce: what is stored, rejected, and deduplicated.

use bytes::{Bytes, BytesMut};
use inver_kafka::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use inver_kafka::api::produce::ProduceResponse;
use inver_kafka::codec::api::Api;
use inver_kafka::codec::error_code::ErrorCode;
use inver_kafka::{KafkaConfig, Limits};
use inver_storage::batch::{Batch, BatchBuilder, Compression, ProducerStamp};

use crate::test_broker::{Client, TestBroker, batch, produce_request, values};

#[test]
fn records_of_every_produce_version_are_read_in_every_fetch_version() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let mut next = 0;
    for version in 3..=12 {
        let response = client.produce(version, "t", 0, batch(&["a", "b"]).into_bytes());
        assert_eq!((response.error_code, response.base_offset), (ErrorCode::NONE, next), "v{version}");
        next += 2;
    }
    for version in 4..=12 {
        let response = client.fetch(version, "t", 0, 0);
        let partition = &response.responses[0].partitions[0];
        assert_eq!((partition.error_code, partition.high_watermark), (ErrorCode::NONE, next));
        assert_eq!(values(partition.records.as_ref().unwrap()).len(), next as usize, "v{version}");
    }
}

#[test]
fn a_batch_is_stored_as_received() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let mut builder = BatchBuilder::new(4096);
    for _ in 0..50 {
        builder.push(5, None, &[(b"h", None), (b"h", Some(b"twice"))], Some(&[7; 100]));
    }
    for compression in
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        for _ in 0..50 {
            builder.push(5, None, &[(b"h", None), (b"h", Some(b"twice"))], Some(&[7; 100]));
        }
        let sent = builder.finish_as(compression, None);
        let response = client.produce(9, "t", 0, sent.bytes().clone());
        assert_eq!(response.error_code, ErrorCode::NONE, "{compression:?}: {:?}", response.error_message);
        let fetched = client.fetch(12, "t", 0, response.base_offset);
        let mut records = fetched.responses[0].partitions[0].records.clone().unwrap();
        let kept = Batch::split_first(&mut records).unwrap();
        assert_eq!(kept.header().base_offset, response.base_offset);
        assert_eq!(kept.bytes().slice(16..), sent.bytes().slice(16..), "{compression:?}");
    }
}

#[test]
fn records_that_are_not_one_valid_batch_are_rejected() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[("max.message.bytes", "200")]);
    let valid = batch(&["a"]).into_bytes();
    let changed = |place: usize, value: u8| {
        let mut bytes = BytesMut::from(&valid[..]);
        bytes[place] = value;
        bytes.freeze()
    };
    let twice = Bytes::from([&valid[..], &valid[..]].concat());
    let cases = [
        (Bytes::new(), ErrorCode::INVALID_RECORD),
        (valid.slice(..30), ErrorCode::CORRUPT_MESSAGE),
        (valid.slice(..valid.len() - 1), ErrorCode::CORRUPT_MESSAGE),
        (changed(valid.len() - 1, 0x55), ErrorCode::CORRUPT_MESSAGE),
        (changed(16, 1), ErrorCode::INVALID_RECORD),
        (changed(16, 0), ErrorCode::INVALID_RECORD),
        (changed(16, 3), ErrorCode::CORRUPT_MESSAGE),
        (twice, ErrorCode::INVALID_RECORD),
        (batch(&[&"x".repeat(200)]).into_bytes(), ErrorCode::MESSAGE_TOO_LARGE),
    ];
    for (number, (bytes, expected)) in cases.into_iter().enumerate() {
        let response = client.produce(9, "t", 0, bytes);
        assert_eq!(response.error_code, expected, "case {number}: {:?}", response.error_message);
        assert_eq!(response.base_offset, -1);
    }
    assert_eq!(client.produce(9, "t", 7, valid.clone()).error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(client.produce(9, "t", -1, valid.clone()).error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(client.produce(9, "none", 0, valid.clone()).error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let response: ProduceResponse = client.call(&Api::Produce, 9, &produce_request("t", 0, 2, valid));
    let code = response.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::INVALID_REQUIRED_ACKS);
    assert!(client.values("t", 0, 0).is_empty());
}

#[test]
fn old_versions_are_decoded_and_old_formats_rejected() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let mut old = vec![0; 40];
    old[16] = 1;
    for version in 0..3 {
        let code = client.produce(version, "t", 0, old.clone().into()).error_code;
        assert_eq!(code, ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT);
    }
}

#[test]
fn acks_0_gets_no_response_and_pipelined_requests_stay_in_order() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    for number in 0..200 {
        let acks = if number % 3 == 0 { 0 } else { -1 };
        let value = number.to_string();
        client.send(&Api::Produce, 9, &produce_request("t", 0, acks, batch(&[&value]).into_bytes()));
    }
    for number in (0..200).filter(|number| number % 3 != 0) {
        let response: ProduceResponse = client.receive(&Api::Produce, 9);
        assert_eq!(response.responses[0].partition_responses[0].base_offset, number);
    }
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(client.values("t", 0, 0), expected);
}

#[test]
fn a_failed_produce_with_acks_0_closes_the_connection() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    client.send(&Api::Produce, 9, &produce_request("none", 0, 0, batch(&["a"]).into_bytes()));
    assert!(client.is_disconnected());
}

fn producer_id(client: &mut Client) -> i64 {
    let response: InitProducerIdResponse =
        client.call(&Api::InitProducerId, 4, &InitProducerIdRequest::default());
    assert_eq!((response.error_code, response.producer_epoch), (ErrorCode::NONE, 0));
    response.producer_id
}

fn stamped(id: i64, epoch: i16, sequence: i32, value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(256);
    builder.push(1, None, &[], Some(value.as_bytes()));
    let stamp = ProducerStamp { id, epoch, base_sequence: sequence, transactional: false, control: false };
    builder.finish_as(Compression::None, Some(stamp)).into_bytes()
}

#[test]
fn retries_of_an_idempotent_producer_are_stored_once() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let (id, other) = (producer_id(&mut client), producer_id(&mut client));
    assert_ne!(id, other);
    for sequence in 0..8 {
        assert_eq!(client.produce(9, "t", 0, stamped(id, 0, sequence, "x")).base_offset, i64::from(sequence));
    }
    // On another connection, as after a lost response.
    let mut again = broker.client();
    let response = again.produce(9, "t", 0, stamped(id, 0, 6, "x"));
    assert_eq!((response.error_code, response.base_offset), (ErrorCode::NONE, 6));
    let gap = again.produce(9, "t", 0, stamped(id, 0, 10, "x")).error_code;
    assert_eq!(gap, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(again.produce(9, "t", 0, stamped(id, 1, 0, "y")).base_offset, 8);
    let stale = again.produce(9, "t", 0, stamped(id, 0, 8, "x")).error_code;
    assert_eq!(stale, ErrorCode::INVALID_PRODUCER_EPOCH);
    assert_eq!(again.values("t", 0, 0).len(), 9);
}

#[test]
fn producer_ids_and_sequences_survive_a_restart() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let id = producer_id(&mut client);
    client.produce(9, "t", 0, stamped(id, 0, 0, "x"));
    drop(client);
    let broker = broker.restart(Default::default());
    let mut client = broker.client();
    let response = client.produce(9, "t", 0, stamped(id, 0, 0, "x"));
    assert_eq!((response.error_code, response.base_offset), (ErrorCode::NONE, 0));
    assert_eq!(client.values("t", 0, 0), ["x"]);
    assert!(producer_id(&mut client) > id);
}

#[test]
fn the_broker_assigns_timestamps_where_the_topic_asks_for_it() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let response = client.produce(9, "t", 0, batch(&["a", "b"]).into_bytes());
    assert!(response.log_append_time_ms > 1_600_000_000_000);
    let fetched = client.fetch(12, "t", 0, 0);
    let mut records = fetched.responses[0].partitions[0].records.clone().unwrap();
    let kept = Batch::split_first(&mut records).unwrap();
    assert_eq!(kept.header().max_timestamp, response.log_append_time_ms);
    for record in inver_storage::batch::records(kept.bytes()).unwrap() {
        assert_eq!(record.unwrap().timestamp_ms, response.log_append_time_ms);
    }
}

#[test]
fn a_compacted_topic_requires_keys() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[("cleanup.policy", "compact")]);
    let mut builder = BatchBuilder::new(256);
    builder.push(1, Some(b"k"), &[], Some(b"keyed"));
    builder.push(1, None, &[], Some(b"no key"));
    let response = client.produce(9, "t", 0, builder.finish().into_bytes());
    assert_eq!(response.error_code, ErrorCode::INVALID_RECORD);
    assert_eq!(response.record_errors.len(), 1);
    assert_eq!(response.record_errors[0].batch_index, 1);
    assert_eq!(client.produce(9, "t", 0, batch(&["keyed"]).into_bytes()).error_code, ErrorCode::NONE);
}

#[test]
fn malformed_records_are_not_acknowledged() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    // A record with a key of length -3, but valid count and checksum.
    let valid = batch(&[""]).into_bytes();
    let mut forged = BytesMut::from(&valid[..61]);
    forged.extend_from_slice(&[2 * 6, 0, 0, 0, 5, 1, 0]);
    let batch_length = forged.len() as i32 - 12;
    forged[8..12].copy_from_slice(&batch_length.to_be_bytes());
    let crc = crc32c::crc32c(&forged[21..]);
    forged[17..21].copy_from_slice(&crc.to_be_bytes());
    let refused = client.produce(9, "t", 0, forged.freeze());
    assert_eq!(refused.error_code, ErrorCode::INVALID_RECORD, "{refused:?}");
    assert_eq!(client.produce(9, "t", 0, valid).base_offset, 0);
}

#[test]
fn timestamps_too_far_from_the_clock_are_rejected() {
    let broker = TestBroker::new();
    let mut client = broker.with_topic("t", 1, &[]);
    let mut lax = broker.with_topic("lax", 1, &[("message.timestamp.after.max.ms", "9223372036854775807")]);
    let mut strict = broker.with_topic("strict", 1, &[("message.timestamp.before.max.ms", "1000")]);
    let at = |ms: i64| {
        let mut builder = BatchBuilder::new(100);
        builder.push(ms, None, &[], Some(b"a"));
        builder.finish().into_bytes()
    };
    let now = inver_broker::now_ms();
    assert_eq!(client.produce(9, "t", 0, at(now + 1_800_000)).error_code, ErrorCode::NONE);
    let refused = client.produce(9, "t", 0, at(now + 7_200_000));
    assert_eq!(refused.error_code, ErrorCode::INVALID_TIMESTAMP);
    assert_eq!(refused.record_errors[0].batch_index, 0);
    assert_eq!(lax.produce(9, "lax", 0, at(now + 7_200_000)).error_code, ErrorCode::NONE);
    assert_eq!(strict.produce(9, "strict", 0, at(now)).error_code, ErrorCode::NONE);
    assert_eq!(strict.produce(9, "strict", 0, at(now - 60_000)).error_code, ErrorCode::INVALID_TIMESTAMP);
}

/// A batch of one record of zeros, which compresses a thousandfold.
fn zeros(bytes: usize, compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(4096);
    builder.push(5, None, &[], Some(&vec![0; bytes]));
    builder.finish_as(compression, None).into_bytes()
}

#[test]
fn what_a_request_decompresses_to_is_bounded_in_sum() {
    let limits = Limits { inflated_bytes_max: 3_500_000, ..Default::default() };
    let broker = TestBroker::with(KafkaConfig { limits, ..KafkaConfig::default() });
    let mut client = broker.with_topic("t", 1, &[]);
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let one = client.produce(9, "t", 0, zeros(1_000_000, compression));
        assert_eq!(one.error_code, ErrorCode::NONE, "{compression:?}");
        let mut request = produce_request("t", 0, -1, zeros(1_000_000, compression));
        let partition = request.topic_data[0].partition_data[0].clone();
        request.topic_data[0].partition_data = vec![partition; 5];
        client.send(&Api::Produce, 9, &request);
        // A later request is handled after it, and others are not kept waiting.
        client.send(&Api::Produce, 9, &produce_request("t", 0, -1, batch(&["after"]).into_bytes()));
        let answered: ProduceResponse = client.receive(&Api::Produce, 9);
        let answers = &answered.responses[0].partition_responses;
        let codes: Vec<ErrorCode> = answers.iter().map(|answer| answer.error_code).collect();
        let (fine, large) = (ErrorCode::NONE, ErrorCode::MESSAGE_TOO_LARGE);
        assert_eq!(codes, [fine, fine, fine, large, large], "{compression:?}");
        assert!(answers[4].error_message.as_ref().unwrap().contains("3500000 bytes"));
        let after: ProduceResponse = client.receive(&Api::Produce, 9);
        let after = &after.responses[0].partition_responses[0];
        assert_eq!((after.error_code, after.base_offset), (ErrorCode::NONE, answers[2].base_offset + 1));
    }
}

#[test]
fn a_record_that_names_a_very_long_address_is_refused_while_the_hub_is_heard() {
    let broker = TestBroker::with_addresses();
    let mut client = broker.with_topic("t", 1, &[]);
    let produce = |client: &mut Client, address: &[u8]| {
        let mut builder = BatchBuilder::new(4096);
        builder.push(5, None, &[], Some(b"v"));
        builder.push(5, None, &[(b"mqtt-topic", Some(address))], Some(b"v"));
        client.produce(9, "t", 0, builder.finish_as(Compression::Zstd, None).into_bytes())
    };
    let long = [b'/'; 256];
    assert_eq!(produce(&mut client, &long).error_code, ErrorCode::NONE, "nobody hears it");
    broker.hear("dev.#");
    let refused = produce(&mut client, &long);
    assert_eq!(refused.error_code, ErrorCode::INVALID_RECORD);
    assert!(refused.error_message.unwrap().contains("at most 256 levels in an address"));
    assert_eq!(refused.record_errors[0].batch_index, 1);
    assert_eq!(produce(&mut client, &long[1..]).error_code, ErrorCode::NONE);
    assert_eq!(produce(&mut client, &[b'a'; 65_536]).error_code, ErrorCode::INVALID_RECORD);
    assert_eq!(produce(&mut client, &[b'a'; 65_535]).error_code, ErrorCode::NONE);
}
