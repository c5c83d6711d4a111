//! Limits of a queue whose head is no longer in memory: what is dropped, in how many checks and reads.
//!
//! One batch a check was read, nothing repeated the check at the end of the load, and only a growing interval did: a
//! message or a batch a second was dropped. Here no interval runs: what the end of a load does not cause never happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use inver_storage::{BatchBuilder, CommitPolicy, Entry, LogOptions};

use super::fixture::{Fixture, TestQueue, batch, dead_letter, until};
use crate::Mailbox;
use crate::spec::{DropReason, QueueLimits};
use crate::subscription::limits::Scope;
use crate::subscription::source::READ_BYTES;
use crate::subscription::{ConsumerSpec, NextCheck};

const MESSAGES: u64 = 200_000;
const BATCHES: usize = 2_000;
const VALUE_BYTES: usize = 100;

fn expires(dead_letters: bool) -> QueueLimits {
    let dead_letter = dead_letter().filter(|_| dead_letters);
    QueueLimits { message_ttl_ms: Some(1000), dead_letter, ..QueueLimits::default() }
}

fn bounded(messages_max: u64, dead_letters: bool) -> QueueLimits {
    let dead_letter = dead_letter().filter(|_| dead_letters);
    QueueLimits { messages_max: Some(messages_max), dead_letter, ..QueueLimits::default() }
}

/// A queue of [`MESSAGES`] whose head is on the disk only: pushed out of memory, or after a restart.
fn filled(commit: CommitPolicy, restart: bool, limits: QueueLimits) -> (Fixture, TestQueue) {
    let mut fixture = Fixture::cold(commit);
    let ids = fixture.create();
    let queue = fixture.queue(ids, QueueLimits::default());
    fixture.append(&queue, BATCHES, MESSAGES as usize / BATCHES, VALUE_BYTES);
    drop(queue);
    if restart {
        fixture = fixture.restart();
    }
    let queue = fixture.queue(ids, limits);
    assert_eq!(queue.ready(), MESSAGES);
    (fixture, queue)
}

fn variants() -> impl Iterator<Item = (CommitPolicy, bool)> {
    let policies = [CommitPolicy::Always, CommitPolicy::Os];
    policies.into_iter().flat_map(|commit| [false, true].map(|restart| (commit, restart)))
}

/// Checks for reading a number of bytes, with a few small reads before the large ones.
fn checks_max(bytes: u64) -> usize {
    2 * (bytes as usize).div_ceil(READ_BYTES) + 8
}

#[tokio::test]
async fn expired_messages_on_the_disk_are_dead_lettered_at_read_speed() {
    for (commit, restart) in variants() {
        let (fixture, queue) = filled(commit, restart, expires(true));
        assert_eq!(queue.drive(&fixture, true).await, 0, "none is due");
        fixture.advance_ms(1000);
        assert_eq!(queue.drive(&fixture, true).await, MESSAGES);
        let expected = (0..MESSAGES).map(|offset| (offset, DropReason::Expired));
        assert!(queue.calls.dropped.lock().iter().copied().eq(expected), "all of them, in order");
        let (checks, max) = (queue.checks(), checks_max(queue.stream.bytes()));
        assert!(checks <= max, "{checks} checks, at most {max}");
        assert_eq!(queue.ready(), 0);
    }
}

#[tokio::test]
async fn expired_single_messages_on_the_disk_are_dead_lettered_at_read_speed() {
    let fixture = Fixture::cold(CommitPolicy::Os);
    let queue = fixture.queue(fixture.create(), expires(true));
    fixture.append(&queue, 20_000, 1, VALUE_BYTES);
    fixture.advance_ms(1000);
    assert_eq!(queue.drive(&fixture, true).await, 20_000);
    let (checks, max) = (queue.checks(), checks_max(queue.stream.bytes()));
    assert!(checks <= max, "{checks} checks, at most {max}");
}

#[tokio::test]
async fn expired_messages_are_dropped_unread_without_dead_letters() {
    for (commit, restart) in variants() {
        let (fixture, queue) = filled(commit, restart, expires(false));
        fixture.advance_ms(500);
        fixture.append(&queue, 1, 10, VALUE_BYTES);
        fixture.advance_ms(500);
        // Reads of what is dropped would fail.
        fixture.medium.schedule_reads(0, u64::MAX / 2);
        let checked = queue.check(&fixture, true);
        fixture.medium.schedule_reads(0, 0);
        assert_eq!((checked.dropped, checked.next), (MESSAGES, NextCheck::At(fixture.now_ms() + 500)));
        assert_eq!(queue.ready(), 10);
        fixture.advance_ms(500);
        assert_eq!(queue.drive(&fixture, true).await, 10);
        assert_eq!(queue.ready(), 0);
    }
}

#[tokio::test]
async fn a_length_limit_without_dead_letters_holds_at_each_commit() {
    for (commit, restart) in variants() {
        let (fixture, queue) = filled(commit, restart, bounded(1000, false));
        let checked = queue.check(&fixture, false);
        assert_eq!((checked.dropped, checked.depth.ready), (MESSAGES - 1000, 1000));
        for _ in 0..5 {
            fixture.append(&queue, 20, 100, VALUE_BYTES);
            // Without a check; the log's thread may still be telling its listeners.
            until("the limit holds", || queue.ready() == 1000).await;
        }
        assert_eq!(queue.check(&fixture, false).dropped, 5 * 2000);
        let position = queue.subscription.locked(|state| state.positions()[0].1);
        assert_eq!(position.0, MESSAGES + 5 * 2000 - 1000, "what was dropped is acknowledged");
    }
}

#[tokio::test]
async fn a_length_limit_counts_neither_acknowledged_nor_unacknowledged_messages() {
    let mut fixture = Fixture::cold(CommitPolicy::Os);
    let ids = fixture.create();
    let queue = fixture.queue(ids, QueueLimits::default());
    fixture.append(&queue, 100, 10, VALUE_BYTES);
    let mut consumer = queue.subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap();
    let mut got = Vec::new();
    consumer.pull(30, usize::MAX, &mut got);
    let odd: Vec<_> = got.iter().map(|d| d.id).filter(|id| id.offset % 2 == 1).collect();
    assert_eq!(odd.len(), 15);
    consumer.ack(&odd).unwrap();
    drop((consumer, queue));
    fixture = fixture.restart();
    let queue = fixture.queue(ids, bounded(500, false));
    assert_eq!(queue.ready(), 985);
    let checked = queue.check(&fixture, false);
    assert_eq!((checked.dropped, queue.ready()), (485, 500));
    // The rest is delivered as it is.
    let mut consumer = queue.subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap();
    let mut got = Vec::new();
    until("all are delivered", || {
        while consumer.pull(1000, usize::MAX, &mut got).more {}
        got.len() == 500
    })
    .await;
    assert!(got.iter().map(|d| d.id.offset).eq(500..1000));
    // Requeued messages are older than those in the log: they are dropped first.
    fixture.append(&queue, 1, 100, VALUE_BYTES);
    let requeued: Vec<_> = got.iter().map(|d| d.id).collect();
    consumer.requeue(&requeued).unwrap();
    assert_eq!(queue.check(&fixture, false).dropped, 100);
    got.clear();
    until("all are delivered", || {
        while consumer.pull(1000, usize::MAX, &mut got).more {}
        got.len() == 500
    })
    .await;
    assert!(got.iter().map(|d| d.id.offset).eq(600..1100));
}

#[tokio::test]
async fn a_length_limit_on_the_disk_is_enforced_at_read_speed() {
    for (commit, restart) in variants() {
        let (fixture, queue) = filled(commit, restart, bounded(1000, true));
        let bytes = queue.stream.bytes();
        assert_eq!(queue.drive(&fixture, false).await, MESSAGES - 1000);
        let expected = (0..MESSAGES - 1000).map(|offset| (offset, DropReason::MaxLength));
        assert!(queue.calls.dropped.lock().iter().copied().eq(expected), "the oldest, in order");
        let (checks, max) = (queue.checks(), checks_max(bytes));
        assert!(checks <= max, "{checks} checks, at most {max}");
        fixture.append(&queue, 1, 1, VALUE_BYTES);
        until("the commit asks for a check", || queue.is_check_wanted()).await;
        assert_eq!(queue.drive(&fixture, false).await, 1);
    }
}

#[tokio::test]
async fn a_byte_limit_on_the_disk_is_enforced_at_read_speed() {
    for dead_letters in [false, true] {
        let dead_letter = dead_letter().filter(|_| dead_letters);
        let bytes_max = Some(1000 * VALUE_BYTES as u64);
        let limits = QueueLimits { bytes_max, dead_letter, ..QueueLimits::default() };
        let (fixture, queue) = filled(CommitPolicy::Os, true, limits);
        let bytes = queue.stream.bytes();
        // The first check estimates the bytes of what was there, from the first message.
        assert_eq!(queue.drive(&fixture, false).await, MESSAGES - 1000);
        assert_eq!(queue.calls.dropped.lock().len() as u64, if dead_letters { MESSAGES - 1000 } else { 0 });
        assert_eq!(queue.ready(), 1000);
        let (checks, max) = (queue.checks(), checks_max(bytes));
        assert!(checks <= max, "{checks} checks, at most {max}");
    }
}

/// A check found the queue empty and set its bytes to zero while a publisher had counted messages that it was about to
/// enqueue: the limit let that many more wait, for ever.
#[tokio::test]
async fn bytes_counted_before_their_messages_are_enqueued_stay_counted() {
    let fixture = Fixture::new();
    let limits = QueueLimits { bytes_max: Some(1000), ..QueueLimits::default() };
    let queue = fixture.queue(fixture.create(), limits);
    queue.subscription.add_bytes(20 * VALUE_BYTES);
    assert_eq!(queue.check(&fixture, false).next, NextCheck::Never);
    fixture.append(&queue, 20, 1, VALUE_BYTES);
    assert_eq!((queue.drive(&fixture, false).await, queue.ready()), (10, 10));
}

#[tokio::test]
async fn messages_with_their_own_expiry_are_read_and_expire() {
    let fixture = Fixture::cold(CommitPolicy::Os);
    let limits = QueueLimits { message_ttl_ms: Some(5000), ..QueueLimits::default() };
    let queue = fixture.queue(fixture.create(), limits);
    for number in 0..2_000 {
        let mut headers = crate::HeaderWriter::default();
        headers.begin("test", Some(fixture.now_ms() + 100));
        let headers = headers.headers();
        let mut builder = BatchBuilder::new(64);
        builder.push_with(fixture.now_ms(), None, headers.count as usize, headers.bytes, Some(&[7; 1000]));
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&queue.stream), builder.finish());
        let submitted = fixture.log().submit(entry).unwrap();
        if number == 1_999 {
            fixture.log().wait_committed_blocking(submitted.lsn).unwrap();
        }
    }
    fixture.append(&queue, 1, 10, VALUE_BYTES);
    fixture.advance_ms(100);
    assert_eq!(queue.drive(&fixture, true).await, 2_000);
    assert_eq!(queue.ready(), 10);
    fixture.advance_ms(5000);
    assert_eq!(queue.drive(&fixture, true).await, 10);
}

#[tokio::test]
async fn a_failed_read_is_not_retried_at_once() {
    let (fixture, queue) = filled(CommitPolicy::Os, true, expires(true));
    fixture.advance_ms(1000);
    fixture.medium.schedule_reads(0, u64::MAX / 2);
    assert_eq!(queue.check(&fixture, true).next, NextCheck::Soon);
    until("the read failed", || !queue.subscription.locked(|state| state.sources[0].is_loading())).await;
    assert!(!queue.is_check_wanted());
    fixture.medium.schedule_reads(0, 0);
    assert_eq!(queue.drive(&fixture, true).await, MESSAGES);
}

/// Every pass begins with a small read, and what was read ahead is released: many queues wait with a head on the disk.
#[tokio::test]
async fn a_queue_that_waits_keeps_no_more_than_its_first_batch() {
    let (fixture, queue) = filled(CommitPolicy::Os, true, expires(true));
    queue.drive(&fixture, true).await;
    fixture.append(&queue, 1, 1, VALUE_BYTES);
    let buffered = |queue: &TestQueue| queue.subscription.locked(|state| state.sources[0].buffered_batches());
    assert_eq!(buffered(&queue), 0);
    fixture.advance_ms(1000);
    fixture.append(&queue, 200, 100, VALUE_BYTES);
    assert_eq!(queue.drive(&fixture, true).await, MESSAGES + 1);
    assert_eq!((buffered(&queue), queue.ready()), (0, 20_000));
}

#[tokio::test]
async fn dead_letters_keep_their_order_when_two_threads_drop_messages() {
    let (fixture, queue) = filled(CommitPolicy::Os, false, bounded(1000, true));
    let (fixture, queue) = (Arc::new(fixture), Arc::new(queue));
    // The first call holds its thread until the other one has dropped messages, too.
    let (started, goes_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    *queue.calls.before_drop.lock() = Some(Box::new({
        let (started, goes_on) = (started.clone(), goes_on.clone());
        move || {
            started.store(true, Ordering::Release);
            while !goes_on.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        }
    }));
    let first = tokio::task::spawn_blocking({
        let (fixture, queue) = (fixture.clone(), queue.clone());
        let runtime = tokio::runtime::Handle::current();
        move || runtime.block_on(queue.drive(&fixture, false))
    });
    until("the first thread drops", || started.load(Ordering::Acquire)).await;
    let now_ms = fixture.now_ms();
    for _ in 0..3 {
        queue.subscription.enforce(now_ms, Scope::Depth, usize::MAX);
    }
    goes_on.store(true, Ordering::Release);
    first.await.unwrap();
    until("the rest was dropped", || queue.ready() == 1000).await;
    let dropped = queue.calls.dropped.lock();
    assert!(dropped.iter().map(|(offset, _)| *offset).eq(0..MESSAGES - 1000));
}

#[test]
fn dead_letters_wait_while_the_log_is_full() {
    let fixture = Fixture::manual(LogOptions { submit_bytes_max: 1024, ..LogOptions::default() });
    let queue = fixture.queue(fixture.create(), expires(true));
    fixture.append(&queue, 1, 10, VALUE_BYTES);
    fixture.advance_ms(1000);
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(&queue.stream), batch(fixture.now_ms(), 1, 2048));
    let unwritten = fixture.log().submit(entry).unwrap().lsn;
    let checked = queue.check(&fixture, true);
    assert_eq!((checked.dropped, checked.next), (0, NextCheck::Soon));
    fixture.log().wait_committed_blocking(unwritten).unwrap();
    assert_eq!(queue.check(&fixture, true).dropped, 10);
}
