//! Dead letters without a receiver: when they are tried again, and what is kept for that.

use inver_storage::{CommitPolicy, Entry, LogOptions, Offset, Read};

use super::fixture::{Fixture, START_MS, TestQueue, batch, dead_letter, until};
use crate::Mailbox;
use crate::spec::{Delivery, DropReason, QueueLimits};
use crate::subscription::{Consumer, ConsumerSpec, NextCheck};

fn limits() -> QueueLimits {
    QueueLimits { dead_letter: dead_letter(), ..QueueLimits::default() }
}

/// A queue that keeps dead letters, `max` at most.
fn keeping(fixture: &Fixture, max: usize, limits: QueueLimits) -> TestQueue {
    let queue = fixture.queue(fixture.create(), limits);
    *queue.calls.keeps.lock() = Some(max);
    queue
}

fn attach(queue: &TestQueue) -> Consumer {
    queue.subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap()
}

fn pull(consumer: &mut Consumer, messages: usize) -> Vec<Delivery> {
    let mut got = Vec::new();
    consumer.pull(messages, usize::MAX, &mut got);
    got
}

/// Appends messages, which a consumer rejects.
fn reject(fixture: &Fixture, queue: &TestQueue, messages: usize) {
    fixture.append(queue, 1, messages, 10);
    let mut consumer = attach(queue);
    let ids: Vec<_> = pull(&mut consumer, messages).iter().map(|d| d.id).collect();
    assert_eq!(ids.len(), messages);
    let _ = consumer.reject(&ids).unwrap();
}

/// Submits a message that nobody can read yet.
fn submit(fixture: &Fixture, queue: &TestQueue) {
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(&queue.stream), batch(fixture.now_ms(), 1, 10));
    fixture.log().submit(entry).unwrap();
}

/// They were never tried again: the check of a queue without a time to live had no next time.
#[test]
fn the_next_try_is_known_while_the_log_has_no_room() {
    let fixture = Fixture::manual(LogOptions { submit_entries_max: 1, ..LogOptions::default() });
    let queue = keeping(&fixture, 10, limits());
    reject(&fixture, &queue, 1);
    submit(&fixture, &queue);
    assert!(!fixture.log().has_room());
    let checked = queue.check(&fixture, false);
    assert_eq!((checked.next, checked.retry_ms), (NextCheck::Soon, Some(START_MS + 250)));
    fixture.advance_ms(10_000);
    assert_eq!(queue.check(&fixture, false).retry_ms, Some(START_MS + 10_250));
}

/// The head was next checked when the dead letters were tried again, up to 30 s later.
#[test]
fn a_head_that_cannot_be_read_is_checked_soon_beside_dead_letters() {
    let fixture = Fixture::manual(LogOptions::default());
    let queue = keeping(&fixture, 10, limits());
    reject(&fixture, &queue, 1);
    submit(&fixture, &queue);
    let checked = queue.check(&fixture, true);
    assert_eq!((checked.next, checked.retry_ms), (NextCheck::Soon, Some(START_MS + 250)));
}

#[test]
fn the_pause_grows_up_to_its_bound_and_is_short_again_once_all_have_left() {
    let fixture = Fixture::new();
    let queue = keeping(&fixture, 10, limits());
    reject(&fixture, &queue, 2);
    let next_try = || queue.check(&fixture, false).retry_ms.map(|at_ms| at_ms - fixture.now_ms());
    for pause_ms in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        assert_eq!(next_try(), Some(pause_ms));
        fixture.advance_ms(pause_ms as u64);
        next_try();
    }
    *queue.calls.keeps.lock() = None;
    fixture.advance_ms(30_000);
    next_try();
    assert_eq!(queue.ready(), 0);
    fixture.advance_ms(250);
    assert_eq!(next_try(), None, "a queue without any is not checked for them");
    assert!(queue.subscription.locked(|state| state.undelivered.is_none()));
    *queue.calls.keeps.lock() = Some(10);
    reject(&fixture, &queue, 1);
    assert_eq!(next_try(), Some(250));
}

/// Each pull discarded what the retry had read, and the retry read it again.
#[tokio::test]
async fn a_pull_leaves_what_a_retry_reads_and_its_load_asks_for_a_check() {
    let fixture = Fixture::cold(CommitPolicy::Os);
    let queue = keeping(&fixture, 10, limits());
    fixture.append(&queue, 40, 1, 100_000);
    let mut consumer = attach(&queue);
    let mut got = Vec::new();
    until("all but the last two are delivered", || {
        consumer.pull(38 - got.len(), usize::MAX, &mut got);
        got.len() == 38
    })
    .await;
    until("the first left the memory", || matches!(queue.stream.read(Offset(0), 1), Ok(Read::Cold(_)))).await;
    let id = got[0].id;
    let _ = consumer.reject(&[id]).unwrap();
    let is_kept = || queue.subscription.locked(|state| state.undelivered.is_some());
    until("it is read, rejected and kept", || is_kept() && queue.is_check_wanted()).await;
    queue.calls.dropped.lock().clear();
    *queue.calls.keeps.lock() = None;
    fixture.advance_ms(250);
    assert_eq!(queue.check(&fixture, true).next, NextCheck::Later, "the head stays");
    assert!(queue.calls.dropped.lock().is_empty(), "it is on the disk");
    until("the end of the load asks for a check", || queue.is_check_wanted()).await;
    assert_eq!(pull(&mut consumer, 1).len(), 1);
    let _ = queue.check(&fixture, true);
    assert_eq!(*queue.calls.dropped.lock(), [(id.offset, DropReason::Rejected)]);
}

#[test]
fn rejected_messages_beyond_the_bound_are_delivered_again() {
    let fixture = Fixture::new();
    let queue = keeping(&fixture, 2, limits());
    reject(&fixture, &queue, 5);
    assert_eq!(queue.ready(), 5);
    let mut consumer = attach(&queue);
    let got = pull(&mut consumer, 5);
    let again: Vec<_> = got.iter().map(|d| (d.id.offset, d.redelivered)).collect();
    assert_eq!(again, [(2, 1), (3, 1), (4, 1)]);
}

#[test]
fn messages_stay_and_do_not_expire_while_there_are_as_many_dead_letters_as_may_be() {
    let fixture = Fixture::new();
    let limits = QueueLimits { message_ttl_ms: Some(100), ..limits() };
    let queue = keeping(&fixture, 2, limits);
    fixture.append(&queue, 1, 5, 10);
    fixture.advance_ms(200);
    let _ = queue.check(&fixture, true);
    assert_eq!(queue.calls.dropped.lock().len(), 5, "their receiver was tried once");
    assert_eq!((queue.check(&fixture, true).next, queue.ready()), (NextCheck::Later, 5));
    assert_eq!(queue.calls.dropped.lock().len(), 5, "no more is dropped");
    let mut consumer = attach(&queue);
    assert_eq!(pull(&mut consumer, 1)[0].id.offset, 2);
    drop(consumer);
    *queue.calls.keeps.lock() = None;
    fixture.advance_ms(250);
    while queue.check(&fixture, true).next == NextCheck::Now {}
    assert_eq!(queue.ready(), 0, "once there is room they expire");
}
