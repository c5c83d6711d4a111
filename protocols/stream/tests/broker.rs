//! Connections over a real log, byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::time::Duration;

use inver_broker::{Broker, BrokerConfig, Connection, Limits, ProtocolPlugin};
use inver_storage::{Batch, BatchBuilder, CommitPolicy, Log, LogOptions};
use inver_stream::codec::frame::{Code, key, put, split};
use inver_stream::codec::wire::{Reader, put_map, put_string};
use inver_stream::{StreamConfig, StreamProtocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

/// A broker, and its folder.
fn broker(limits: Limits) -> (Broker, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() };
    let log = Log::open(dir.path(), options).unwrap();
    let config = BrokerConfig { origins: vec!["stream"], limits, ..BrokerConfig::default() };
    (Broker::open(log, config).unwrap(), dir)
}

struct Client {
    io: DuplexStream,
    received: Vec<u8>,
    correlation: u32,
}

/// A frame of the broker: its key, and what follows the version.
type Frame = (u16, Vec<u8>);

impl Client {
    /// A client whose connection is not logged in.
    fn connect(broker: &Broker, config: StreamConfig) -> Client {
        let (io, server) = tokio::io::duplex(1 << 20);
        let address = "127.0.0.1:1".parse().unwrap();
        let connection = Connection::plain(server, address, address, CancellationToken::new());
        let (protocol, broker) = (StreamProtocol::new(config), broker.clone());
        tokio::spawn(async move { protocol.serve(connection, broker).await });
        Client { io, received: Vec::new(), correlation: 0 }
    }

    async fn open(broker: &Broker, config: StreamConfig) -> Client {
        let mut client = Client::connect(broker, config);
        assert_eq!(
            client
                .request(key::SASL_AUTHENTICATE, |out| {
                    put_string(out, "PLAIN");
                    out.extend_from_slice(&12_u32.to_be_bytes());
                    out.extend_from_slice(b"\0guest\0guest");
                })
                .await
                .0,
            Code::Ok as u16
        );
        let (key, tune) = client.frame().await.unwrap();
        assert_eq!(key, key::TUNE);
        client.send(key::TUNE, 1, |out| out.extend_from_slice(&tune)).await;
        assert_eq!(client.request(key::OPEN, |out| put_string(out, "/")).await.0, Code::Ok as u16);
        client
    }

    async fn send(&mut self, key: u16, version: u16, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        put(&mut out, key, version, write);
        self.io.write_all(&out).await.unwrap();
    }

    /// The next frame; none at the end of the connection.
    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((length, frame)) = split(&self.received) {
                let mut reader = Reader(frame);
                let (key, _version) = (reader.u16().unwrap(), reader.u16().unwrap());
                let frame = (key, reader.0.to_vec());
                self.received.drain(..length);
                return Some(frame);
            }
            let mut buffer = vec![0; 64 * 1024];
            let read = tokio::time::timeout(Duration::from_secs(60), self.io.read(&mut buffer));
            match read.await.expect("an answer in time").unwrap() {
                0 => return None,
                read => self.received.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// The code of the response, and what follows it.
    async fn request(&mut self, command: u16, write: impl FnOnce(&mut Vec<u8>)) -> (u16, Vec<u8>) {
        self.correlation += 1;
        let correlation = self.correlation;
        self.send(command, 1, |out| {
            out.extend_from_slice(&correlation.to_be_bytes());
            write(out);
        })
        .await;
        let (key, content) = self.frame().await.unwrap();
        let mut reader = Reader(&content);
        assert_eq!((key, reader.u32().unwrap()), (key::RESPONSE | command, correlation));
        (reader.u16().unwrap(), reader.0.to_vec())
    }

    async fn create(&mut self, name: &str) {
        let (code, _) = self
            .request(key::CREATE, |out| {
                put_string(out, name);
                put_map(out, &[]);
            })
            .await;
        assert_eq!(code, Code::Ok as u16);
    }

    async fn declare(&mut self, id: u8, reference: &str, stream: &str) -> u16 {
        let write = |out: &mut Vec<u8>| {
            out.push(id);
            put_string(out, reference);
            put_string(out, stream);
        };
        self.request(key::DECLARE_PUBLISHER, write).await.0
    }

    async fn publish(&mut self, id: u8, messages: &[(u64, &[u8])]) {
        self.send(key::PUBLISH, 1, |out| {
            out.push(id);
            out.extend_from_slice(&(messages.len() as u32).to_be_bytes());
            for (number, message) in messages {
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&(message.len() as u32).to_be_bytes());
                out.extend_from_slice(message);
            }
        })
        .await;
    }

    async fn confirmed(&mut self) -> Vec<u64> {
        let (key, content) = self.frame().await.unwrap();
        assert_eq!(key, key::PUBLISH_CONFIRM, "{content:?}");
        let mut reader = Reader(&content[1..]);
        (0..reader.u32().unwrap()).map(|_| reader.u64().unwrap()).collect()
    }

    async fn subscribe(&mut self, id: u8, stream: &str, credit: u16) -> u16 {
        let write = |out: &mut Vec<u8>| {
            out.push(id);
            put_string(out, stream);
            out.extend_from_slice(&[0, 1]);
            out.extend_from_slice(&credit.to_be_bytes());
        };
        self.request(key::SUBSCRIBE, write).await.0
    }

    /// The first offset and the messages of the next chunk.
    async fn chunk(&mut self) -> (u64, Vec<Vec<u8>>) {
        let (key, content) = self.frame().await.unwrap();
        assert_eq!(key, key::DELIVER);
        let mut reader = Reader(&content[3..]);
        let entries = reader.u16().unwrap();
        reader.take(20).unwrap();
        let first = reader.u64().unwrap();
        reader.take(16).unwrap();
        let messages = (0..entries).map(|_| {
            let length = reader.u32().unwrap() as usize;
            reader.take(length).unwrap().to_vec()
        });
        (first, messages.collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_confirmed_and_delivered_by_credit() {
    let (broker, _dir) = broker(Limits::default());
    let mut client = Client::open(&broker, StreamConfig::default()).await;
    client.create("s").await;
    assert_eq!(client.declare(3, "", "s").await, Code::Ok as u16);
    client.publish(3, &[(7, b"a"), (8, b"b")]).await;
    assert_eq!(client.confirmed().await, [7, 8]);
    assert_eq!(client.subscribe(1, "s", 1).await, Code::Ok as u16);
    assert_eq!(client.chunk().await, (0, vec![b"a".to_vec(), b"b".to_vec()]));
    client.publish(3, &[(9, b"c")]).await;
    assert_eq!(client.confirmed().await, [9]);
    client.send(key::CREDIT, 1, |out| out.extend_from_slice(&[1, 0, 1])).await;
    assert_eq!(client.chunk().await, (2, vec![b"c".to_vec()]));
    // An unknown subscription is told with an answer that has no correlation id.
    client.send(key::CREDIT, 1, |out| out.extend_from_slice(&[9, 0, 1])).await;
    let code = Code::SubscriptionIdDoesNotExist as u8;
    assert_eq!(client.frame().await.unwrap(), (key::RESPONSE | key::CREDIT, vec![0, code, 9]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_is_told() {
    let (broker, _dir) = broker(Limits::default());
    let mut client = Client::open(&broker, StreamConfig::default()).await;
    client.create("s").await;
    assert_eq!(client.subscribe(1, "s", 1).await, Code::Ok as u16);
    client
        .send(key::DELETE, 1, |out| {
            out.extend_from_slice(&9_u32.to_be_bytes());
            put_string(out, "s");
        })
        .await;
    // In either order: the answer waits for the log.
    let mut got = [client.frame().await.unwrap(), client.frame().await.unwrap()];
    got.sort();
    let answer = (key::RESPONSE | key::DELETE, vec![0, 0, 0, 9, 0, Code::Ok as u8]);
    assert_eq!(got, [(key::METADATA_UPDATE, vec![0, 6, 0, 1, b's']), answer]);
    assert_eq!(client.request(key::UNSUBSCRIBE, |out| out.push(1)).await.0, 4);
}

/// Castagnoli's, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// As compaction leaves it: it was read again without end.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_ends_in_a_gap_is_passed() {
    let (broker, _dir) = broker(Limits::default());
    let mut client = Client::open(&broker, StreamConfig::default()).await;
    client.create("s").await;
    let namespace = broker.default_namespace();
    let topic = namespace.topic("s").unwrap();
    let mut builder = BatchBuilder::new(0);
    for (value, last_offset_delta) in [(b"a", 4_i32), (b"b", 0)] {
        builder.push(0, None, &[], Some(value));
        let mut bytes = builder.finish().into_bytes().to_vec();
        bytes[23..27].copy_from_slice(&last_offset_delta.to_be_bytes());
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let batch = Batch::parse(bytes.into()).unwrap();
        namespace.produce(&topic, &topic.partition(0).unwrap(), batch).unwrap();
    }
    assert_eq!(client.subscribe(1, "s", 2).await, Code::Ok as u16);
    assert_eq!((client.chunk().await.0, client.chunk().await.0), (0, 5));
}

/// Nobody but the stream tells a client without heartbeats.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_another_protocol_deletes_is_told_to_its_subscribers() {
    let (broker, _dir) = broker(Limits::default());
    let config = StreamConfig { heartbeat_s: 0, ..StreamConfig::default() };
    let mut client = Client::open(&broker, config).await;
    client.create("s").await;
    assert_eq!(client.subscribe(1, "s", 1).await, Code::Ok as u16);
    let _ = broker.default_namespace().delete_queue("s", false, false).unwrap();
    assert_eq!(client.frame().await.unwrap(), (key::METADATA_UPDATE, vec![0, 6, 0, 1, b's']));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_before_a_close_is_published() {
    let (broker, _dir) = broker(Limits::default());
    let mut client = Client::open(&broker, StreamConfig::default()).await;
    client.create("s").await;
    assert_eq!(client.declare(1, "", "s").await, Code::Ok as u16);
    let mut out = Vec::new();
    put(&mut out, key::PUBLISH, 1, |out| {
        out.extend_from_slice(&[1, 0, 0, 0, 1]);
        out.extend_from_slice(&7_u64.to_be_bytes());
        out.extend_from_slice(b"\0\0\0\x01a");
    });
    put(&mut out, key::CLOSE, 1, |out| {
        out.extend_from_slice(&9_u32.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        put_string(out, "OK");
    });
    client.io.write_all(&out).await.unwrap();
    while client.frame().await.is_some() {}
    let topic = broker.default_namespace().topic("s").unwrap();
    assert_eq!(topic.partition(0).unwrap().stream().next_offset().0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn named_publishers_are_bounded_and_store_an_id_once() {
    let (broker, _dir) = broker(Limits { publisher_sequences_max: 1, ..Limits::default() });
    let mut client = Client::open(&broker, StreamConfig::default()).await;
    client.create("s").await;
    assert_eq!(client.declare(1, "one", "s").await, Code::Ok as u16);
    assert_eq!(client.declare(2, "two", "s").await, Code::PreconditionFailed as u16);
    let mut other = Client::open(&broker, StreamConfig::default()).await;
    assert_eq!(other.declare(1, "one", "s").await, Code::Ok as u16);
    // Two connections of one publisher: what one of them has stored the other does not store again.
    client.publish(1, &[(1, b"a"), (2, b"b"), (2, b"b")]).await;
    assert_eq!(client.confirmed().await, [1, 2, 2]);
    other.publish(1, &[(2, b"b"), (3, b"c")]).await;
    assert_eq!(other.confirmed().await, [2, 3]);
    let (code, last) = other
        .request(key::QUERY_PUBLISHER_SEQUENCE, |out| {
            put_string(out, "one");
            put_string(out, "s");
        })
        .await;
    assert_eq!((code, last), (Code::Ok as u16, 3_u64.to_be_bytes().to_vec()));
    assert_eq!(
        broker.default_namespace().topic("s").unwrap().partition(0).unwrap().stream().next_offset().0,
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_and_chunks_are_bounded() {
    let (broker, _dir) = broker(Limits::default());
    let config =
        StreamConfig { decompressed_bytes_max: 2048, chunk_bytes_max: 1024, ..StreamConfig::default() };
    let mut client = Client::open(&broker, config).await;
    client.create("s").await;
    assert_eq!(client.declare(1, "", "s").await, Code::Ok as u16);
    let entry = |count: u16, bytes: u32| {
        let message = [&bytes.to_be_bytes()[..], &vec![b'm'; bytes as usize]].concat();
        let data = message.repeat(count.into());
        let length = (data.len() as u32).to_be_bytes();
        [&[0x80][..], &count.to_be_bytes(), &length, &length, &data].concat()
    };
    let refused = [&[1, 0, 0, 0, 1][..], &2_u64.to_be_bytes(), &[0, Code::PreconditionFailed as u8]].concat();
    for (number, bytes) in [(1_u64, 600_u32), (2, 700)] {
        client
            .send(key::PUBLISH, 1, |out| {
                out.extend_from_slice(&[1, 0, 0, 0, 1]);
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&entry(3, bytes));
            })
            .await;
        match number {
            1 => assert_eq!(client.confirmed().await, [1]),
            _ => assert_eq!(client.frame().await.unwrap(), (key::PUBLISH_ERROR, refused.clone())),
        }
    }
    // Of all batches of a frame together.
    client
        .send(key::PUBLISH, 1, |out| {
            out.extend_from_slice(&[1, 0, 0, 0, 2]);
            for number in [1_u64, 2] {
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&entry(2, 600));
            }
        })
        .await;
    let mut got = [client.frame().await.unwrap(), client.frame().await.unwrap()];
    got.sort();
    assert_eq!(got[0].0, key::PUBLISH_CONFIRM);
    assert_eq!(got[1], (key::PUBLISH_ERROR, refused));
    assert_eq!(client.subscribe(1, "s", 10).await, Code::Ok as u16);
    for offset in 0..5 {
        let (first, messages) = client.chunk().await;
        assert_eq!((first, messages.len(), messages[0].len()), (offset, 1, 600));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_bounded() {
    let (broker, _dir) = broker(Limits::default());
    let config = StreamConfig { frame_bytes_max: 9000, ..StreamConfig::default() };
    for is_open in [false, true] {
        let mut client = match is_open {
            true => Client::open(&broker, config.clone()).await,
            false => Client::connect(&broker, config.clone()),
        };
        let length: u32 = if is_open { 9001 } else { 8193 };
        client.io.write_all(&length.to_be_bytes()).await.unwrap();
        let (key, content) = client.frame().await.unwrap();
        assert_eq!((key, content[5]), (key::CLOSE, Code::FrameTooLarge as u8));
        assert_eq!(client.frame().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_before_the_login() {
    let (broker, _dir) = broker(Limits::default());
    let mut client = Client::connect(&broker, StreamConfig::default());
    client
        .send(key::CREATE, 1, |out| {
            out.extend_from_slice(&1_u32.to_be_bytes());
            put_string(out, "s");
            put_map(out, &[]);
        })
        .await;
    let (key, content) = client.frame().await.unwrap();
    assert_eq!((key, content[5]), (key::CLOSE, Code::UnknownFrame as u8));
    assert!(broker.default_namespace().topic("s").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_about_a_missing_stream_have_their_content() {
    let (broker, _dir) = broker(Limits::default());
    let mut client = Client::open(&broker, StreamConfig::default()).await;
    let missing = Code::StreamDoesNotExist as u16;
    let stats = client.request(key::STREAM_STATS, |out| put_string(out, "s")).await;
    assert_eq!(stats, (missing, vec![0; 4]));
    for command in [key::QUERY_PUBLISHER_SEQUENCE, key::QUERY_OFFSET] {
        let names = |out: &mut Vec<u8>| ["p", "s"].into_iter().for_each(|name| put_string(out, name));
        assert_eq!(client.request(command, names).await, (missing, vec![0; 8]));
    }
}
