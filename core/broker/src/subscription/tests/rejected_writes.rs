//! Writes that the log rejects: every durable verb returns the log's error, never "nothing to wait for".

use inver_storage::medium::fake::Fault;
use inver_storage::{CommitPolicy, Entry, LogOptions, Offset, Read, SubmitError};

use super::fixture::{Fixture, TestQueue, batch, dead_letter, until};
use crate::Mailbox;
use crate::completion::Completion;
use crate::spec::{DeliveryId, DropReason, QueueLimits};
use crate::subscription::{Consumer, ConsumerSpec};

const HELD: usize = 5;

/// A queue with ten messages, half of them unacknowledged at a consumer.
fn consumed(limits: QueueLimits) -> (Fixture, TestQueue, Consumer, Vec<DeliveryId>) {
    let fixture = Fixture::with(LogOptions { commit: CommitPolicy::Always, ..LogOptions::default() });
    let queue = fixture.queue(fixture.create(), limits);
    fixture.append(&queue, 1, 10, 100);
    let mut consumer = queue.subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap();
    let mut got = Vec::new();
    consumer.pull(HELD, usize::MAX, &mut got);
    let ids: Vec<DeliveryId> = got.iter().map(|d| d.id).collect();
    assert_eq!(ids.len(), HELD);
    (fixture, queue, consumer, ids)
}

/// The next write to the disk fails, after which the log accepts nothing.
fn fail_log(fixture: &Fixture, queue: &TestQueue) {
    fixture.medium.schedule(0, Fault::Fail(std::io::ErrorKind::Other));
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(&queue.stream), batch(1, 1, 1));
    // Something else may have met the fault already.
    if let Ok(submitted) = fixture.log().submit(entry) {
        fixture.log().wait_committed_blocking(submitted.lsn).unwrap_err();
    }
}

fn is_rejected<T: std::fmt::Debug>(outcome: Result<T, SubmitError>) {
    assert!(matches!(outcome, Err(SubmitError::Log(_))), "{outcome:?}");
}

#[test]
fn an_accepted_verb_completes_when_the_log_has_committed_it() {
    let (fixture, queue, consumer, ids) = consumed(QueueLimits::default());
    let completions = [
        consumer.ack(&ids[..1]).unwrap(),
        consumer.reject(&ids[1..2]).unwrap(),
        consumer.requeue(&ids[2..3]).unwrap(),
        queue.subscription.purge().unwrap().1,
    ];
    for completion in completions {
        fixture.log().wait_committed_blocking(completion.lsn().expect("a position")).unwrap();
    }
    assert_eq!(consumer.ack(&ids[..1]).unwrap(), Completion::Now, "it was acknowledged before");
}

#[test]
fn an_acknowledgement_that_the_log_rejects_is_an_error() {
    let (fixture, queue, consumer, ids) = consumed(QueueLimits::default());
    fail_log(&fixture, &queue);
    is_rejected(consumer.ack(&ids));
}

#[test]
fn a_rejection_that_the_log_rejects_is_an_error() {
    for dead_letter in [None, dead_letter()] {
        let limits = QueueLimits { dead_letter, ..QueueLimits::default() };
        let (fixture, queue, consumer, ids) = consumed(limits);
        fail_log(&fixture, &queue);
        is_rejected(consumer.reject(&ids));
    }
}

/// All have left the consumer: what is in memory is dropped, and what is not is read for it.
#[tokio::test]
async fn a_rejection_drops_all_though_the_count_of_some_is_an_error() {
    let fixture = Fixture::cold(CommitPolicy::Always);
    let limits = QueueLimits { dead_letter: dead_letter(), ..QueueLimits::default() };
    let queue = fixture.queue(fixture.create(), limits);
    fixture.append(&queue, 40, 1, 100_000);
    let mut consumer = queue.subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap();
    let mut got = Vec::new();
    until("all are delivered", || {
        consumer.pull(40, usize::MAX, &mut got);
        got.len() == 40
    })
    .await;
    until("the first left the memory", || matches!(queue.stream.read(Offset(0), 1), Ok(Read::Cold(_)))).await;
    fail_log(&fixture, &queue);
    let (first, last) = (got[0].id, got[39].id);
    is_rejected(consumer.reject(&[last, first]));
    let dropped = |id: DeliveryId| queue.calls.dropped.lock().contains(&(id.offset, DropReason::Rejected));
    assert!(dropped(last));
    until("the first is read and dropped", || dropped(first)).await;
}

#[test]
fn a_requeue_that_the_log_rejects_is_an_error() {
    let (fixture, queue, consumer, ids) = consumed(QueueLimits::default());
    fail_log(&fixture, &queue);
    is_rejected(consumer.requeue(&ids));
}

#[test]
fn a_purge_that_the_log_rejects_is_an_error() {
    let (fixture, queue, _consumer, _) = consumed(QueueLimits::default());
    fail_log(&fixture, &queue);
    is_rejected(queue.subscription.purge());
}

#[test]
fn a_verb_on_a_log_that_was_closed_is_an_error() {
    let (fixture, queue, consumer, ids) = consumed(QueueLimits::default());
    fixture.log().shutdown().unwrap();
    is_rejected(consumer.ack(&ids[..1]));
    is_rejected(consumer.reject(&ids[1..2]));
    is_rejected(consumer.requeue(&ids[2..3]));
    is_rejected(queue.subscription.purge());
}
