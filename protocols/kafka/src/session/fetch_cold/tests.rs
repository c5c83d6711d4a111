//! Reading ahead, with nothing in the tail cache.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use inver_broker::{Broker, BrokerConfig, Identity, TopicSpec};
use inver_storage::batch::BatchBuilder;
use inver_storage::{Entry, Log, LogOptions};

use super::*;
use crate::codec::api::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use crate::codec::api_key::Api;
use crate::codec::error_code::ErrorCode;
use crate::codec::frame::Output;
use crate::codec::reader::Reader;
use crate::codec::wire::{Version, Wire};
use crate::config::KafkaConfig;
use crate::session::Session;

/// Batches of one record in the partition, and what a fetch takes of them.
const BATCHES: i64 = 12;
const BATCH_BYTES: usize = 10_000;
const FETCH_BYTES: i32 = 2 * BATCH_BYTES as i32 + 1000;

struct World {
    session: Session,
    mailbox: Arc<Mailbox>,
    node: Arc<Node>,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

fn world(read_ahead_bytes_max: usize) -> World {
    let folder = tempfile::tempdir().unwrap();
    let options = LogOptions { tail_cache_bytes_max: 0, ..LogOptions::default() };
    let log = Log::open(folder.path(), options).unwrap();
    let broker = Broker::open(log.clone(), BrokerConfig::default()).unwrap();
    let spec = TopicSpec { partitions: 1, config: Default::default() };
    broker.default_namespace().create_topic("t", &spec).unwrap();
    let topic = broker.default_namespace().topic("t").unwrap();
    let stream = topic.partition(0).unwrap().stream().clone();
    for number in 0..BATCHES {
        let mut builder = BatchBuilder::new(BATCH_BYTES);
        builder.push(number, None, &[], Some(&[number as u8; BATCH_BYTES - 100]));
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), builder.finish());
        log.submit(entry).unwrap();
    }
    log.sync().unwrap();
    let mut config = KafkaConfig::default();
    config.limits.read_ahead_bytes_max = read_ahead_bytes_max;
    let node = Arc::new(Node::new(broker, config).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address: SocketAddr = "127.0.0.1:9092".parse().unwrap();
    let mailbox = Mailbox::new();
    let identity = Some(Identity::anonymous());
    let session = Session::new(node.clone(), address, address, identity, mailbox.clone());
    World { session, mailbox, node, runtime, _folder: folder }
}

impl World {
    /// Asks, and gives the answer if it is there at once.
    fn ask(&mut self, offset: i64) -> Option<Vec<u8>> {
        self.ask_for(offset, FETCH_BYTES)
    }

    fn ask_for(&mut self, offset: i64, partition_max_bytes: i32) -> Option<Vec<u8>> {
        let partition =
            FetchPartition { fetch_offset: offset, partition_max_bytes, ..FetchPartition::default() };
        let topic = FetchTopic { topic: "t".into(), partitions: vec![partition], ..FetchTopic::default() };
        let message = FetchRequest {
            max_wait_ms: 60_000,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let version = Api::Fetch.version(12).unwrap();
        let mut bytes = BytesMut::new();
        bytes.put_i16(1);
        bytes.put_i16(12);
        bytes.put_i32(7);
        bytes.put_slice(&[0, 1, b'c', 0]);
        message.write(&mut bytes, version);
        let entered = self.runtime.enter();
        self.session.handle(bytes.freeze(), Instant::now()).unwrap();
        drop(entered);
        self.answer(version)
    }

    fn answer(&mut self, version: Version) -> Option<Vec<u8>> {
        let mut output = Output::default();
        self.session.advance(&mut output).unwrap();
        let mut written = BytesMut::new();
        while output.pending_bytes() > 0 {
            let mut slices = [std::io::IoSlice::new(&[]); 8];
            let count = output.slices(&mut slices);
            let before = written.len();
            slices[..count].iter().for_each(|slice| written.extend_from_slice(slice));
            output.advance(written.len() - before);
        }
        // Length, correlation id, no tagged fields.
        let body: Bytes = (written.len() > 9).then(|| written.freeze().slice(9..))?;
        let response = FetchResponse::read(&mut Reader::new(body), version).unwrap();
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::NONE);
        let mut records = partition.records.clone().unwrap();
        let mut numbers = Vec::new();
        while !records.is_empty() {
            let length = 12 + u32::from_be_bytes(*records[8..].first_chunk().unwrap()) as usize;
            numbers.push(records[7]);
            assert_eq!(records[length - 10], records[7]);
            records = records.split_off(length);
        }
        Some(numbers)
    }

    /// Waits until a read from the disk is done, and takes it up.
    fn wake(&mut self) {
        let mut tokens = Vec::new();
        self.runtime.block_on(self.mailbox.wait());
        self.mailbox.drain(&mut tokens);
        let _entered = self.runtime.enter();
        self.session.wake(&tokens, Instant::now());
    }

    /// As [`World::ask`], and waits for the disk if need be.
    fn fetch(&mut self, offset: i64) -> Vec<u8> {
        let mut answer = self.ask(offset);
        while answer.is_none() {
            self.wake();
            answer = self.answer(Api::Fetch.version(12).unwrap());
        }
        answer.unwrap()
    }

    fn aheads(&self) -> usize {
        self.session.fetcher.cold.aheads
    }

    fn is_all_memory_free(&self) -> bool {
        let limits = &self.node.config.limits;
        self.node.ahead_reads.try_take(limits.read_ahead_bytes_max).is_some()
            && self.node.cold_reads.try_take(limits.fetched_bytes_max).is_some()
    }
}

#[test]
fn who_reads_on_is_answered_with_what_was_read_ahead() {
    let mut world = world(1 << 20);
    assert_eq!(world.fetch(0), [0, 1]);
    for first in [2, 4, 6, 8] {
        assert_eq!(world.aheads(), 1);
        world.wake();
        // No read is under way: it is there.
        assert_eq!(world.aheads(), 0);
        assert_eq!(world.ask(first), Some(vec![first as u8, first as u8 + 1]));
    }
    // The fetch came before the disk was done, and waits for that very read.
    assert_eq!(world.ask(10), None);
    assert_eq!(world.aheads(), 1);
    // Even if memory is to be given back meanwhile.
    world.session.tidy();
    world.wake();
    assert_eq!(world.answer(Api::Fetch.version(12).unwrap()), Some(vec![10, 11]));
    // There is no more.
    assert_eq!(world.aheads(), 0);
    assert!(world.is_all_memory_free());
}

#[test]
fn who_reads_elsewhere_gets_what_was_asked_for() {
    let mut world = world(1 << 20);
    assert_eq!(world.fetch(0), [0, 1]);
    world.wake();
    assert_eq!(world.fetch(6), [6, 7]);
    // Nothing tells yet that it is read on from here.
    assert_eq!(world.aheads(), 0);
    assert!(world.is_all_memory_free());
    assert_eq!(world.fetch(8), [8, 9]);
    assert_eq!(world.aheads(), 1);
    // Elsewhere while the read ahead is under way.
    assert_eq!(world.fetch(3), [3, 4]);
    assert_eq!(world.fetch(5), [5, 6]);
    assert_eq!(world.fetch(7), [7, 8]);
}

/// A fetch that had less room than was being read for it let go of the rest, which was read again.
#[test]
fn what_a_fetch_that_waited_has_no_room_for_is_there_for_the_next_one() {
    let mut world = world(1 << 20);
    assert_eq!(world.fetch(0), [0, 1]);
    assert_eq!(world.ask_for(2, BATCH_BYTES as i32 + 1000), None);
    world.wake();
    assert_eq!(world.answer(Api::Fetch.version(12).unwrap()), Some(vec![2]));
    assert_eq!(world.aheads(), 0);
    assert!(!world.is_all_memory_free(), "what is kept counts");
    assert_eq!(world.ask(3), Some(vec![3]));
    world.wake();
    assert_eq!(world.ask(4), Some(vec![4, 5]));
    world.wake();
    world.session.tidy();
    assert!(world.is_all_memory_free());
}

#[test]
fn what_was_read_ahead_is_let_go_in_silence() {
    let mut world = world(1 << 20);
    assert_eq!(world.fetch(0), [0, 1]);
    world.wake();
    assert!(!world.is_all_memory_free());
    world.session.tidy();
    assert!(world.is_all_memory_free());
    assert_eq!(world.fetch(2), [2, 3]);
}

#[test]
fn no_more_is_read_ahead_than_may_be() {
    let mut none = world(0);
    for first in [0, 2, 4] {
        assert_eq!(none.fetch(first), [first as u8, first as u8 + 1]);
        assert_eq!(none.aheads(), 0);
    }
    // Room for one batch.
    let mut little = world(BATCH_BYTES + 1000);
    assert_eq!(little.fetch(0), [0, 1]);
    little.wake();
    assert_eq!(little.ask(2), Some(vec![2]));
    // It was on its way out still when the next read would have begun.
    assert_eq!(little.aheads(), 0);
    // Somebody else has all of it.
    let taken = little.node.ahead_reads.try_take(BATCH_BYTES + 1000);
    assert!(taken.is_some());
    assert_eq!(little.fetch(3), [3, 4]);
    assert_eq!(little.aheads(), 0);
    drop(taken);
    assert_eq!(little.fetch(5), [5, 6]);
    assert_eq!(little.aheads(), 1);
}
