//! Messages that cannot be read: what consumers meet, and what is stepped over with them.

use std::sync::Arc;

use inver_storage::{CommitPolicy, Offset, ReadError};

use super::fixture::{Fixture, TestQueue, batch, dead_letter, until};
use crate::Mailbox;
use crate::spec::{Delivery, DeliveryId, DropReason, Mode, OnDamage, QueueLimits};
use crate::subscription::source::Offer;
use crate::subscription::state::Load;
use crate::subscription::{Consumer, ConsumerSpec, MemoryBounds, Pull, Subscription, WhenFull};

pub(super) const BATCHES: usize = 20;
pub(super) const MESSAGES_A_BATCH: usize = 10;
pub(super) const VALUE_BYTES: usize = 20_000;
/// Each costs about a microsecond, and the damaged read itself waits for all of them.
const YIELDS_MAX: usize = 200_000;

/// A queue whose first batches are on the disk only.
pub(super) fn filled(on_damage: OnDamage) -> (Fixture, TestQueue) {
    let fixture = Fixture::cold(CommitPolicy::Os);
    fixture.context.stops_at_damage.set(on_damage == OnDamage::Stop).unwrap();
    let queue = fixture.queue(fixture.create(), QueueLimits::default());
    fixture.append(&queue, BATCHES, MESSAGES_A_BATCH, VALUE_BYTES);
    (fixture, queue)
}

/// Flips a byte in the middle of the stored batch of this number.
pub(super) fn damage(fixture: &Fixture, batch: usize) {
    damage_message(fixture, batch * MESSAGES_A_BATCH, VALUE_BYTES);
}

/// Flips a byte in the middle of the stored message of this number.
fn damage_message(fixture: &Fixture, number: usize, value_bytes: usize) {
    let least = value_bytes.min(1000);
    for name in fixture.medium.names() {
        let mut bytes = fixture.medium.content(&name).unwrap();
        let mut starts = (0..bytes.len().saturating_sub(least)).filter(|&at| {
            bytes[at] == b'x'
                && (at == 0 || bytes[at - 1] != b'x')
                && bytes[at..at + least].iter().all(|&b| b == b'x')
        });
        if let Some(at) = starts.nth(number) {
            bytes[at + least / 2] ^= 1;
            fixture.medium.set_content(&name, bytes);
            return;
        }
    }
    panic!("no message {number}");
}

pub(super) fn attach(queue: &TestQueue) -> (Arc<Mailbox>, Consumer) {
    let mailbox = Mailbox::new();
    (mailbox.clone(), queue.subscription.attach(ConsumerSpec::new(mailbox, 7)).unwrap())
}

/// Pulls until it has this many messages or cannot read the next one.
pub(super) async fn pull(consumer: &mut Consumer, messages: usize) -> (Vec<u64>, bool) {
    let (mut got, mut last): (Vec<Delivery>, Pull) = (Vec::new(), Pull::default());
    until("the messages, or an error", || {
        last = consumer.pull(messages - got.len(), usize::MAX, &mut got);
        got.len() == messages || last.unreadable
    })
    .await;
    (got.iter().map(|delivery| delivery.id.offset).collect(), last.unreadable)
}

pub(super) fn ack(consumer: &Consumer, offsets: impl IntoIterator<Item = u64>) {
    consumer.ack(&ids(offsets)).unwrap();
}

#[tokio::test]
async fn consumers_are_stopped_at_damage_until_it_is_stepped_over() {
    let (fixture, queue) = filled(OnDamage::Stop);
    damage(&fixture, 1);
    damage(&fixture, 2);
    let (_mailbox, mut first) = attach(&queue);
    let (waiting, mut second) = attach(&queue);
    let (got, _) = pull(&mut first, 10).await;
    assert_eq!(got, (0..10).collect::<Vec<u64>>());
    ack(&first, got);
    assert!(!second.pull(1, usize::MAX, &mut Vec::new()).unreadable, "nobody knows yet");
    assert_eq!(pull(&mut first, 1).await, (Vec::new(), true));
    let mut tokens = Vec::new();
    waiting.drain(&mut tokens);
    assert!(tokens.contains(&7), "the other one is woken to be told");
    assert!(second.pull(1, usize::MAX, &mut Vec::new()).unreadable);
    drop((first, second));
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
        assert!(!queue.subscription.meet_unreadable(&ahead, &error));
        let (_mailbox, mut consumer) = attach(&queue);
        let (got, _) = pull(&mut consumer, 30).await;
        assert_eq!(got, (0..30).collect::<Vec<u64>>());
        ack(&consumer, got);
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
    drop(consumer);
    let (_mailbox, mut consumer) = attach(&queue);
    assert_eq!(pull(&mut consumer, 10).await.0, (0..10).collect::<Vec<u64>>());
}

/// Told before, it would lose what it holds, get it again, be told again, and never reach the damage.
#[tokio::test]
async fn a_consumer_is_told_once_it_holds_nothing() {
    let (fixture, queue) = filled(OnDamage::Stop);
    damage(&fixture, 1);
    let (mailbox, mut consumer) = attach(&queue);
    let mut got = Vec::new();
    until("the consumers are stopped", || {
        assert!(!consumer.pull(100, usize::MAX, &mut got).unreadable);
        queue.subscription.locked(|state| state.unreadable)
    })
    .await;
    assert_eq!(got.len(), 10);
    let ids: Vec<_> = got.drain(..).map(|delivery| delivery.id).collect();
    consumer.ack(&ids[..9]).unwrap();
    assert_eq!(consumer.pull(100, usize::MAX, &mut got), Pull { pending: true, ..Pull::default() });
    mailbox.drain(&mut Vec::new());
    consumer.ack(&ids[9..]).unwrap();
    let mut tokens = Vec::new();
    mailbox.drain(&mut tokens);
    assert_eq!(tokens, [7], "it is woken to be told");
    assert!(consumer.pull(100, usize::MAX, &mut got).unreadable);
    // What comes back is delivered before anybody is told.
    let (fixture, queue) = filled(OnDamage::Stop);
    damage(&fixture, 1);
    let (_mailbox, mut first) = attach(&queue);
    assert_eq!(pull(&mut first, 10).await.0.len(), 10);
    let (_mailbox, mut second) = attach(&queue);
    assert_eq!(pull(&mut second, 1).await, (Vec::new(), true));
    drop(first);
    assert_eq!(pull(&mut second, 10).await.0, (0..10).collect::<Vec<u64>>());
}

/// What was read and not taken yet was acknowledged with the damaged batch behind it.
#[tokio::test]
async fn damage_that_is_read_ahead_takes_no_dead_letter_in_front_of_it() {
    // A read has more messages than one round drops: the next read is started while some of them wait.
    let (batches, messages, value_bytes) = (20, 300, 100);
    let fixture = Fixture::cold(CommitPolicy::Os);
    let limits = QueueLimits { message_ttl_ms: Some(1000), dead_letter: dead_letter(), ..Default::default() };
    let ids = fixture.create();
    let queue = fixture.queue(ids, QueueLimits::default());
    fixture.append(&queue, batches, messages, value_bytes);
    drop(queue);
    let fixture = fixture.restart();
    let queue = fixture.queue(ids, limits);
    damage_message(&fixture, 8 * messages, value_bytes);
    fixture.advance_ms(1000);
    // What was read is dropped once the next read has ended.
    *queue.calls.before_drop.lock() = Some(Box::new({
        let (subscription, checking) = (queue.subscription.clone(), std::thread::current().id());
        move || {
            let is_loading = || subscription.locked(|state| state.sources[0].is_loading());
            let is_checking = std::thread::current().id() == checking;
            // The read itself drops what is damaged. If it waits for this, the test fails and does not hang.
            for _ in 0..if is_checking { YIELDS_MAX } else { 0 } {
                if !is_loading() {
                    return;
                }
                std::thread::yield_now();
            }
        }
    }));
    let mut dropped = 0;
    until("all are dropped", || {
        dropped += queue.check(&fixture, true).dropped;
        queue.ready() == 0
    })
    .await;
    let (all, damaged) = ((batches * messages) as u64, 2400..2700);
    assert_eq!(dropped, all - 300);
    let mut letters = queue.calls.dropped.lock().clone();
    letters.sort_unstable_by_key(|(offset, reason)| (*reason == DropReason::Damaged, *offset));
    let read =
        (0..all).filter(|offset| !damaged.contains(offset)).map(|offset| (offset, DropReason::Expired));
    assert!(letters.into_iter().eq(read.chain([(damaged.start, DropReason::Damaged)])));
}

/// The index had them already: they were read again without end, and never stepped over.
#[tokio::test]
async fn damaged_messages_of_a_queue_with_priorities_are_stepped_over() {
    for (on_damage, returned) in [(OnDamage::StepOver, 0), (OnDamage::StepOver, 5), (OnDamage::Stop, 5)] {
        let (fixture, queue) = filled(on_damage);
        queue.subscription.order_by_priority(5);
        let (_mailbox, mut consumer) = attach(&queue);
        // All are in the index once one is delivered.
        let (got, _) = pull(&mut consumer, 30).await;
        assert_eq!(got, (0..30).collect::<Vec<u64>>());
        ack(&consumer, got.into_iter().filter(|offset| !(10..10 + returned).contains(offset)));
        drop(consumer);
        damage(&fixture, 1);
        damage(&fixture, 4);
        let (_mailbox, mut consumer) = attach(&queue);
        if on_damage == OnDamage::Stop {
            assert_eq!(pull(&mut consumer, 1).await, (Vec::new(), true));
            assert_eq!(queue.subscription.skip_damaged().unwrap().0, returned);
            let (got, _) = pull(&mut consumer, 10).await;
            ack(&consumer, got);
            assert_eq!(pull(&mut consumer, 1).await, (Vec::new(), true));
            assert_eq!(queue.subscription.skip_damaged().unwrap().0, 10);
            assert_eq!(pull(&mut consumer, 10).await.0, (50..60).collect::<Vec<u64>>());
        } else {
            assert_eq!(pull(&mut consumer, 20).await.0, (30..40).chain(50..60).collect::<Vec<u64>>());
        }
        assert_eq!(queue.subscription.depth().ready, 140);
    }
}

/// They were not read yet.
#[tokio::test]
async fn a_queue_with_priorities_reads_on_behind_damage() {
    for on_damage in [OnDamage::StepOver, OnDamage::Stop] {
        let (fixture, queue) = filled(on_damage);
        queue.subscription.order_by_priority(5);
        damage(&fixture, 2);
        let (_mailbox, mut consumer) = attach(&queue);
        if on_damage == OnDamage::Stop {
            // Any of what cannot be read may come first.
            assert_eq!(pull(&mut consumer, 1).await, (Vec::new(), true));
            assert_eq!(queue.subscription.skip_damaged().unwrap().0, 10);
        }
        let (got, _) = pull(&mut consumer, 190).await;
        assert_eq!(got, (0..20).chain(30..200).collect::<Vec<u64>>());
    }
}

/// They were tried again without end.
#[tokio::test]
async fn damaged_dead_letters_without_a_receiver_are_stepped_over() {
    let fixture = Fixture::cold(CommitPolicy::Os);
    let limits = QueueLimits { message_ttl_ms: Some(1000), dead_letter: dead_letter(), ..Default::default() };
    let queue = fixture.queue(fixture.create(), limits);
    *queue.calls.keeps.lock() = Some(usize::MAX);
    fixture.append(&queue, BATCHES, MESSAGES_A_BATCH, VALUE_BYTES);
    fixture.advance_ms(1000);
    until("all are kept", || {
        queue.check(&fixture, true);
        queue.calls.dropped.lock().len() == BATCHES * MESSAGES_A_BATCH
    })
    .await;
    damage(&fixture, 0);
    *queue.calls.keeps.lock() = None;
    queue.calls.dropped.lock().clear();
    until("all are dead-lettered", || {
        fixture.advance_ms(1000);
        queue.check(&fixture, true);
        queue.subscription.depth().ready == 0
    })
    .await;
    let letters = queue.calls.dropped.lock().clone();
    assert_eq!(letters.len(), 191, "a marker in the place of ten");
    assert_eq!(letters.iter().filter(|(_, reason)| *reason == DropReason::Damaged).count(), 1);
}

/// A queue in memory, all of whose messages but the first are in its spilled part. The number of the first spilled one.
pub(super) async fn spilled(fixture: &Fixture) -> (Arc<Subscription>, u64) {
    let bounds = MemoryBounds { messages_max: 20, bytes_max: u64::MAX, when_full: WhenFull::Spill };
    let subscription = Subscription::in_memory(&fixture.context, "q", Mode::Shared, bounds);
    let plain = batch(1, MESSAGES_A_BATCH, VALUE_BYTES);
    for _ in 0..BATCHES {
        Subscription::push_to_all(std::slice::from_ref(&subscription), &plain, &plain, None);
    }
    let stream =
        subscription.locked(|state| state.memory().and_then(|m| m.spilled_stream().cloned())).unwrap();
    until("the spilled part is readable", || stream.high_watermark() == stream.next_offset()).await;
    let in_memory = 200 - stream.next_offset().0;
    (subscription, in_memory)
}

pub(super) fn ids(offsets: impl IntoIterator<Item = u64>) -> Vec<DeliveryId> {
    offsets.into_iter().map(|offset| DeliveryId { partition: 0, offset }).collect()
}

/// Their offsets are those of the stream, and messages of these offsets in the queue were taken for them.
#[tokio::test]
async fn damage_in_the_spilled_part_of_a_queue_in_memory_takes_no_other_message() {
    let fixture = Fixture::cold(CommitPolicy::Os);
    let (subscription, in_memory) = spilled(&fixture).await;
    damage(&fixture, 0);
    let mut consumer = subscription.attach(ConsumerSpec::new(Mailbox::new(), 7)).unwrap();
    let (got, _) = pull(&mut consumer, in_memory as usize).await;
    // They come back while the spilled part is read.
    let offer = subscription.locked(|state| state.sources[0].take(1));
    let Offer::Load(read) = offer else { panic!("it is on the disk") };
    let load = Load { source: 0, again: false, read };
    consumer.requeue(&ids(got)).unwrap();
    assert!(subscription.meet_unreadable(&load, &load.read.run().unwrap_err()));
    subscription.locked(|state| state.loaded(0, false, Vec::new()));
    let (got, _) = pull(&mut consumer, 190).await;
    assert_eq!(got, (0..in_memory).chain(in_memory + 10..200).collect::<Vec<u64>>());
}
