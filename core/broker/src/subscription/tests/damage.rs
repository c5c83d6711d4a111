//! Messages that cannot be read: what consumers meet, and stepping over them by hand.

use std::sync::Arc;

use inver_storage::{CommitPolicy, Offset, ReadError};

use super::fixture::{Fixture, TestQueue, until};
use crate::Mailbox;
use crate::spec::{Delivery, OnDamage, QueueLimits};
use crate::subscription::state::Load;
use crate::subscription::{Consumer, ConsumerSpec, Pull};

const BATCHES: usize = 20;
const MESSAGES_A_BATCH: usize = 10;
const VALUE_BYTES: usize = 20_000;

/// A queue whose first batches are on the disk only.
fn filled(on_damage: OnDamage) -> (Fixture, TestQueue) {
    let fixture = Fixture::cold(CommitPolicy::Os);
    fixture.context.stops_at_damage.set(on_damage == OnDamage::Stop).unwrap();
    let queue = fixture.queue(fixture.create(), QueueLimits::default());
    fixture.append(&queue, BATCHES, MESSAGES_A_BATCH, VALUE_BYTES);
    (fixture, queue)
}

/// Flips a byte in the middle of the stored batch of this number.
fn damage(fixture: &Fixture, batch: usize) {
    for name in fixture.medium.names() {
        let mut bytes = fixture.medium.content(&name).unwrap();
        let mut starts = (0..bytes.len().saturating_sub(1000)).filter(|&at| {
            bytes[at..at + 1000].iter().all(|&b| b == b'x') && (at == 0 || bytes[at - 1] != b'x')
        });
        if let Some(at) = starts.nth(batch * MESSAGES_A_BATCH) {
            bytes[at + 500] ^= 1;
            fixture.medium.set_content(&name, bytes);
            return;
        }
    }
    panic!("no batch {batch}");
}

fn attach(queue: &TestQueue) -> (Arc<Mailbox>, Consumer) {
    let mailbox = Mailbox::new();
    (mailbox.clone(), queue.subscription.attach(ConsumerSpec::new(mailbox, 7)).unwrap())
}

/// Pulls until it has this many messages or cannot read the next one.
async fn pull(consumer: &mut Consumer, messages: usize) -> (Vec<u64>, bool) {
    let (mut got, mut last): (Vec<Delivery>, Pull) = (Vec::new(), Pull::default());
    until("the messages, or an error", || {
        last = consumer.pull(messages - got.len(), usize::MAX, &mut got);
        got.len() == messages || last.unreadable
    })
    .await;
    (got.iter().map(|delivery| delivery.id.offset).collect(), last.unreadable)
}

#[tokio::test]
async fn consumers_are_stopped_at_damage_until_it_is_stepped_over() {
    let (fixture, queue) = filled(OnDamage::Stop);
    damage(&fixture, 1);
    damage(&fixture, 2);
    let (_mailbox, mut first) = attach(&queue);
    let (waiting, mut second) = attach(&queue);
    assert_eq!(pull(&mut first, 10).await.0, (0..10).collect::<Vec<u64>>());
    assert!(!second.pull(1, usize::MAX, &mut Vec::new()).unreadable, "nobody knows yet");
    assert_eq!(pull(&mut first, 1).await, (Vec::new(), true));
    let mut tokens = Vec::new();
    waiting.drain(&mut tokens);
    assert!(tokens.contains(&7), "the other one is woken to be told");
    assert!(second.pull(1, usize::MAX, &mut Vec::new()).unreadable);
    // One that comes later tries again, and is told.
    let (_mailbox, mut third) = attach(&queue);
    assert_eq!(pull(&mut third, 1).await, (Vec::new(), true));
    assert_eq!(queue.subscription.depth().ready, 190, "nothing is lost without a word");
    let (skipped, _) = queue.subscription.skip_damaged().unwrap();
    assert_eq!(skipped, 20, "both batches");
    assert_eq!(queue.subscription.skip_damaged().unwrap().0, 0);
    assert_eq!(pull(&mut third, 5).await.0, (30..35).collect::<Vec<u64>>());
}

#[tokio::test]
async fn damaged_messages_that_wait_again_are_stepped_over() {
    let (fixture, queue) = filled(OnDamage::Stop);
    let (_mailbox, mut consumer) = attach(&queue);
    let (got, _) = pull(&mut consumer, 20).await;
    drop(consumer);
    damage(&fixture, 0);
    assert_eq!(got.len(), 20);
    let (_mailbox, mut consumer) = attach(&queue);
    assert_eq!(pull(&mut consumer, 1).await, (Vec::new(), true));
    assert_eq!(queue.subscription.skip_damaged().unwrap().0, 10);
    assert_eq!(pull(&mut consumer, 20).await.0, (10..30).collect::<Vec<u64>>());
}

#[tokio::test]
async fn damage_behind_messages_that_are_not_delivered_takes_none_of_them() {
    for on_damage in [OnDamage::StepOver, OnDamage::Stop] {
        let (fixture, queue) = filled(on_damage);
        damage(&fixture, 3);
        let ahead = Load { source: 0, again: false, read: queue.stream.read_later(Offset(30), 1) };
        let error = ahead.read.run().unwrap_err();
        assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
        assert!(!queue.subscription.meet_damage(&ahead, &error));
        let (_mailbox, mut consumer) = attach(&queue);
        assert_eq!(pull(&mut consumer, 30).await.0, (0..30).collect::<Vec<u64>>());
        let (got, is_stopped) = pull(&mut consumer, 1).await;
        assert_eq!(is_stopped, on_damage == OnDamage::Stop);
        assert_eq!(got, if is_stopped { vec![] } else { vec![40] });
    }
}

#[tokio::test]
async fn consumers_are_told_of_a_disk_that_fails_and_try_again() {
    let (fixture, queue) = filled(OnDamage::StepOver);
    let (_mailbox, mut consumer) = attach(&queue);
    fixture.medium.schedule_reads(0, u64::MAX / 2);
    assert_eq!(pull(&mut consumer, 1).await, (Vec::new(), true));
    assert!(queue.subscription.skip_damaged().is_err(), "it is not known to be damaged");
    fixture.medium.schedule_reads(0, 0);
    let (_mailbox, mut consumer) = attach(&queue);
    assert_eq!(pull(&mut consumer, 10).await.0, (0..10).collect::<Vec<u64>>());
}
