//! Read-ahead, without a tail cache.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use inver_broker::{Broker, BrokerConfig, Mailbox, TopicSpec};
use inver_storage::batch::BatchBuilder;
use inver_storage::{Entry, Log, LogOptions};
use tokio::time::Instant;

use super::message::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use super::*;
use crate::codec::api::Api;
use crate::codec::error_code::ErrorCode;
use crate::codec::header::ResponseHeader;
use crate::codec::reader::Reader;
use crate::codec::wire::Wire;
use crate::config::KafkaConfig;
use crate::node::Node;

/// Batches of one record in the partition, and the size of a fetch of two.
const BATCHES: i64 = 12;
const BATCH_BYTES: usize = 10_000;
const FETCH_BYTES: i32 = 2 * BATCH_BYTES as i32 + 1000;

/// A fetcher, and a topic `t` whose records are only on disk.
struct TestFetcher {
    fetcher: Fetcher,
    mailbox: Arc<Mailbox>,
    node: Arc<Node>,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

fn test_fetcher(read_ahead_bytes_max: usize) -> TestFetcher {
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
    let node = Arc::new(Node::new(broker, config, Api::ALL).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mailbox = Mailbox::new();
    let fetcher = Fetcher::new(node.clone(), node.before_login(), mailbox.clone());
    TestFetcher { fetcher, mailbox, node, runtime, _folder: folder }
}

impl TestFetcher {
    /// Sends a fetch, and returns the numbers of the batches in its response if that is complete at once.
    fn request(&mut self, offset: i64) -> Option<Vec<u8>> {
        self.request_up_to(offset, FETCH_BYTES)
    }

    fn request_up_to(&mut self, offset: i64, partition_max_bytes: i32) -> Option<Vec<u8>> {
        let partition =
            FetchPartition { fetch_offset: offset, partition_max_bytes, ..FetchPartition::default() };
        let topic = FetchTopic { topic: "t".into(), partitions: vec![partition], ..FetchTopic::default() };
        let request = FetchRequest {
            max_wait_ms: 60_000,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let version = Api::Fetch.version(12).unwrap();
        self.fetcher.submit(ResponseHeader { api: &Api::Fetch, version, correlation_id: 7 }, request, 0);
        self.poll()
    }

    /// The numbers of the batches in the response, if it is complete.
    fn poll(&mut self) -> Option<Vec<u8>> {
        let _entered = self.runtime.enter();
        let (_, frame) = self.fetcher.poll(&mut BytesMut::new(), Instant::now())?;
        // Length, correlation id, no tagged fields.
        let body: Bytes = frame.to_bytes().slice(9..);
        let response = FetchResponse::read(&mut Reader::new(body), Api::Fetch.version(12).unwrap()).unwrap();
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

    /// Waits until a read from disk is done.
    fn wake(&mut self) {
        let mut tokens = Vec::new();
        self.runtime.block_on(self.mailbox.wait());
        self.mailbox.drain(&mut tokens);
        let _entered = self.runtime.enter();
        self.fetcher.wake(&tokens, Instant::now());
    }

    /// As [`TestFetcher::request`], and waits for the disk if need be.
    fn fetch(&mut self, offset: i64) -> Vec<u8> {
        let mut answer = self.request(offset);
        while answer.is_none() {
            self.wake();
            answer = self.poll();
        }
        answer.unwrap()
    }

    fn aheads(&self) -> usize {
        self.fetcher.cold.aheads
    }

    fn is_all_memory_free(&self) -> bool {
        let limits = &self.node.config.limits;
        self.node.ahead_reads.try_take(limits.read_ahead_bytes_max).is_some()
            && self.node.cold_reads.try_take(limits.fetched_bytes_max).is_some()
    }
}

#[test]
fn a_sequential_reader_is_served_from_read_ahead() {
    let mut test = test_fetcher(1 << 20);
    assert_eq!(test.fetch(0), [0, 1]);
    for first in [2, 4, 6, 8] {
        assert_eq!(test.aheads(), 1);
        test.wake();
        // The read is done.
        assert_eq!(test.aheads(), 0);
        assert_eq!(test.request(first), Some(vec![first as u8, first as u8 + 1]));
    }
    // A fetch that arrives while the read is in progress waits for it.
    assert_eq!(test.request(10), None);
    assert_eq!(test.aheads(), 1);
    // Releasing memory does not drop a read that a fetch waits for.
    test.fetcher.tidy();
    test.wake();
    assert_eq!(test.poll(), Some(vec![10, 11]));
    // There is no more.
    assert_eq!(test.aheads(), 0);
    assert!(test.is_all_memory_free());
}

#[test]
fn a_reader_that_seeks_gets_the_offset_requested() {
    let mut test = test_fetcher(1 << 20);
    assert_eq!(test.fetch(0), [0, 1]);
    test.wake();
    assert_eq!(test.fetch(6), [6, 7]);
    // The read is not known to be sequential yet.
    assert_eq!(test.aheads(), 0);
    assert!(test.is_all_memory_free());
    assert_eq!(test.fetch(8), [8, 9]);
    assert_eq!(test.aheads(), 1);
    // A seek while a read-ahead is in progress.
    assert_eq!(test.fetch(3), [3, 4]);
    assert_eq!(test.fetch(5), [5, 6]);
    assert_eq!(test.fetch(7), [7, 8]);
}

/// A fetch with less room than was read for it once dropped the rest, which was then read again.
#[test]
fn batches_read_ahead_that_do_not_fit_are_kept_for_the_next_fetch() {
    let mut test = test_fetcher(1 << 20);
    assert_eq!(test.fetch(0), [0, 1]);
    assert_eq!(test.request_up_to(2, BATCH_BYTES as i32 + 1000), None);
    test.wake();
    assert_eq!(test.poll(), Some(vec![2]));
    assert_eq!(test.aheads(), 0);
    assert!(!test.is_all_memory_free(), "kept batches count");
    assert_eq!(test.request(3), Some(vec![3]));
    test.wake();
    assert_eq!(test.request(4), Some(vec![4, 5]));
    test.wake();
    test.fetcher.tidy();
    assert!(test.is_all_memory_free());
}

#[test]
fn an_idle_connection_drops_its_read_ahead() {
    let mut test = test_fetcher(1 << 20);
    assert_eq!(test.fetch(0), [0, 1]);
    test.wake();
    assert!(!test.is_all_memory_free());
    test.fetcher.tidy();
    assert!(test.is_all_memory_free());
    assert_eq!(test.fetch(2), [2, 3]);
}

#[test]
fn read_ahead_stays_within_its_limit() {
    let mut none = test_fetcher(0);
    for first in [0, 2, 4] {
        assert_eq!(none.fetch(first), [first as u8, first as u8 + 1]);
        assert_eq!(none.aheads(), 0);
    }
    // Room for one batch.
    let mut little = test_fetcher(BATCH_BYTES + 1000);
    assert_eq!(little.fetch(0), [0, 1]);
    little.wake();
    assert_eq!(little.request(2), Some(vec![2]));
    // The batch was still in the response when the next read would have started.
    assert_eq!(little.aheads(), 0);
    // Another connection holds all of it.
    let taken = little.node.ahead_reads.try_take(BATCH_BYTES + 1000);
    assert!(taken.is_some());
    assert_eq!(little.fetch(3), [3, 4]);
    assert_eq!(little.aheads(), 0);
    drop(taken);
    assert_eq!(little.fetch(5), [5, 6]);
    assert_eq!(little.aheads(), 1);
}

#[test]
fn fetches_are_answered_in_order() {
    let mut test = test_fetcher(0);
    assert_eq!(test.request(0), None);
    // The second waits for the first, which waits for the disk.
    assert_eq!(test.request(11), None);
    let mut answers = Vec::new();
    while answers.len() < 2 {
        test.wake();
        while let Some(answer) = test.poll() {
            answers.push(answer);
        }
    }
    assert_eq!(answers, [vec![0, 1], vec![11]]);
}
