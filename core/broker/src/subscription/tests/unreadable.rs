//! Messages that cannot be read, beside others that can: who is stopped, who tries again, and what is stepped over by hand.

use std::sync::Arc;

use inver_storage::{CommitPolicy, Entry, Offset, ReadError};

use super::damage::{
    BATCHES, MESSAGES_A_BATCH, VALUE_BYTES, ack, attach, damage, filled, ids, pull, spilled,
};
use super::fixture::{Fixture, TestQueue, dead_letter, until};
use crate::Mailbox;
use crate::spec::{DropReason, OnDamage, QueueLimits};
use crate::subscription::source::Offer;
use crate::subscription::state::{Load, State};
use crate::subscription::{Consumer, ConsumerSpec};

/// The message that waited again was looked for in the spilled part, by its number in the queue, and all in front of the
/// damage there was dropped.
#[tokio::test]
async fn skipping_takes_nothing_in_front_of_damage_in_the_spilled_part() {
    let fixture = Fixture::cold(CommitPolicy::Os);
    let (subscription, in_memory) = spilled(&fixture).await;
    damage(&fixture, 1);
    let mut consumer = subscription.attach(ConsumerSpec::new(Mailbox::new(), 7)).unwrap();
    let (got, _) = pull(&mut consumer, in_memory as usize).await;
    assert_eq!(got.len(), 20);
    ack(&consumer, 0..15);
    consumer.requeue(&ids(15..20)).unwrap();
    assert_eq!(subscription.skip_damaged().unwrap().0, 0, "the first batch is good");
    assert_eq!(subscription.depth().ready, 185);
    let (got, _) = pull(&mut consumer, 175).await;
    assert_eq!(got, (15..30).chain(40..200).collect::<Vec<u64>>());
}

/// The load that failed asked for a check, which read the message again, without end.
#[tokio::test]
async fn a_rejected_message_that_cannot_be_read_is_read_once_until_consumers_try_again() {
    let fixture = Fixture::cold(CommitPolicy::Os);
    let limits = QueueLimits { dead_letter: dead_letter(), ..QueueLimits::default() };
    let queue = fixture.queue(fixture.create(), limits);
    fixture.append(&queue, BATCHES, MESSAGES_A_BATCH, VALUE_BYTES);
    let (_mailbox, mut consumer) = attach(&queue);
    let (got, _) = pull(&mut consumer, 30).await;
    ack(&consumer, got.into_iter().skip(1));
    fixture.medium.schedule_reads(0, u64::MAX / 2);
    let before = fixture.medium.hits();
    let _ = consumer.reject(&ids([0])).unwrap();
    let is_idle = |state: &mut State| state.unreadable && !state.sources[0].is_loading();
    until("the read failed", || queue.subscription.locked(is_idle)).await;
    for _ in 0..20_000 {
        std::thread::yield_now();
    }
    // A load reads more than once.
    let reads = fixture.medium.hits() - before;
    assert!(reads < 20, "{reads} reads");
    fixture.medium.schedule_reads(0, 0);
    drop(consumer);
    let (_mailbox, mut consumer) = attach(&queue);
    assert_eq!(pull(&mut consumer, 1).await.0, [30]);
    let dropped = || queue.calls.dropped.lock().clone();
    until("it is dead-lettered", || dropped() == [(0, DropReason::Rejected)]).await;
}

/// It had been told to wait, and nobody woke it.
#[tokio::test]
async fn a_consumer_that_attaches_has_the_others_try_again() {
    let (fixture, queue) = filled(OnDamage::Stop);
    fixture.medium.schedule_reads(0, u64::MAX / 2);
    let (mailbox, mut first) = attach(&queue);
    assert_eq!(pull(&mut first, 1).await, (Vec::new(), true));
    mailbox.drain(&mut Vec::new());
    fixture.medium.schedule_reads(0, 0);
    let alone = ConsumerSpec { exclusive: true, ..ConsumerSpec::new(Mailbox::new(), 8) };
    assert!(queue.subscription.attach(alone).is_err());
    assert!(queue.subscription.locked(|state| state.unreadable), "nobody has tried");
    let (_mailbox, _second) = attach(&queue);
    let mut tokens = Vec::new();
    mailbox.drain(&mut tokens);
    assert_eq!(tokens, [7]);
    assert_eq!(pull(&mut first, 1).await, (vec![0], false));
}

/// A read ahead of them stopped the consumers, although what came next was in memory.
#[tokio::test]
async fn a_disk_that_fails_for_a_read_ahead_stops_nobody() {
    let (fixture, queue) = filled(OnDamage::Stop);
    fixture.medium.schedule_reads(0, u64::MAX / 2);
    let ahead = Load { source: 0, again: false, read: queue.stream.read_later(Offset(30), 1) };
    let error = ahead.read.run().unwrap_err();
    assert!(matches!(error, ReadError::Io { .. }), "{error}");
    assert!(!queue.subscription.meet_unreadable(&ahead, &error));
    assert!(!queue.subscription.locked(|state| state.unreadable));
    let next = Load { source: 0, again: false, read: queue.stream.read_later(Offset(0), 1) };
    assert!(!queue.subscription.meet_unreadable(&next, &error));
    assert!(queue.subscription.locked(|state| state.unreadable));
}

/// A consumer that had taken what was in front of it meanwhile waited for this read, and nobody woke it.
#[tokio::test]
async fn a_read_ahead_that_fails_wakes_a_consumer_that_has_come_to_its_place() {
    let (fixture, queue) = filled(OnDamage::StepOver);
    damage(&fixture, 1);
    let subscription = &queue.subscription;
    let Offer::Load(first) = subscription.locked(|state| state.sources[0].take(1)) else {
        panic!("it is on the disk");
    };
    let first = first.run().unwrap();
    subscription.locked(|state| state.loaded(0, false, first));
    let read = subscription.locked(|state| state.sources[0].read_ahead(usize::MAX)).unwrap();
    let ahead = Load { source: 0, again: false, read };
    assert!(!subscription.meet_unreadable(&ahead, &ahead.read.run().unwrap_err()));
    let (mailbox, mut consumer) = attach(&queue);
    assert_eq!(pull(&mut consumer, 10).await.0, (0..10).collect::<Vec<u64>>());
    let mut got = Vec::new();
    consumer.pull(1, usize::MAX, &mut got);
    assert!(got.is_empty(), "it waits for the read");
    mailbox.drain(&mut Vec::new());
    ahead.end(subscription, Vec::new(), false, true);
    let mut tokens = Vec::new();
    mailbox.drain(&mut tokens);
    assert_eq!(tokens, [7]);
    assert_eq!(pull(&mut consumer, 1).await, (vec![20], false));
}

/// What was trimmed between the read and the look for its end was told as damage.
#[tokio::test]
async fn damage_that_is_trimmed_meanwhile_stops_nobody() {
    let (fixture, queue) = filled(OnDamage::StepOver);
    damage(&fixture, 0);
    let load = Load { source: 0, again: false, read: queue.stream.read_later(Offset(0), 1) };
    let error = load.read.run().unwrap_err();
    assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
    let mut entry = Entry::new();
    entry.trim(&queue.stream, Offset(10));
    fixture.commit(entry);
    assert!(queue.subscription.meet_unreadable(&load, &error));
    assert!(!queue.subscription.locked(|state| state.unreadable));
    let (_mailbox, mut consumer) = attach(&queue);
    assert_eq!(pull(&mut consumer, 1).await, (vec![10], false));
}

/// What was stepped over before the disk failed was told to nobody, and the consumers stayed stopped.
#[tokio::test]
async fn skipping_tells_what_it_did_before_the_disk_fails() {
    let (fixture, queue) = filled(OnDamage::Stop);
    damage(&fixture, 0);
    let (_mailbox, mut consumer) = attach(&queue);
    assert_eq!(pull(&mut consumer, 1).await, (Vec::new(), true));
    fixture.medium.schedule_reads(0, u64::MAX / 2);
    assert!(queue.subscription.skip_damaged().is_err());
    assert!(!queue.subscription.locked(|state| state.unreadable), "they try again");
    // The read that finds the damage succeeds, and those behind it fail, from the one on that is met first.
    let mut reads = 0;
    let skipped = loop {
        fixture.medium.schedule_reads(reads, u64::MAX / 2);
        match queue.subscription.skip_damaged() {
            Ok((skipped, _)) => break skipped,
            Err(_) => reads += 1,
        }
        assert!(reads < 1000, "it never steps over the first batch");
    };
    assert_eq!(skipped, 10);
    fixture.medium.schedule_reads(0, 0);
    assert_eq!(pull(&mut consumer, 10).await.0, (10..20).collect::<Vec<u64>>());
}

/// A queue that keeps these rejected dead letters, which have no receiver, after its first 30 messages were taken; the first of
/// them is damaged and was found so.
async fn with_damaged_dead_letter(rejected: &[u64]) -> (Fixture, TestQueue, Arc<Mailbox>, Consumer) {
    let fixture = Fixture::cold(CommitPolicy::Os);
    fixture.context.stops_at_damage.set(true).unwrap();
    let limits = QueueLimits { dead_letter: dead_letter(), ..QueueLimits::default() };
    let queue = fixture.queue(fixture.create(), limits);
    *queue.calls.keeps.lock() = Some(usize::MAX);
    fixture.append(&queue, BATCHES, MESSAGES_A_BATCH, VALUE_BYTES);
    let (mailbox, mut consumer) = attach(&queue);
    let (got, _) = pull(&mut consumer, 30).await;
    ack(&consumer, got.into_iter().filter(|offset| !rejected.contains(offset)));
    let _ = consumer.reject(&ids(rejected.iter().copied())).unwrap();
    until("they are kept", || undelivered(&queue) == rejected.len() as u64).await;
    damage(&fixture, 0);
    fixture.advance_ms(1000);
    let asked_ms = fixture.now_ms();
    until("the first cannot be read", || {
        queue.check(&fixture, true).retry_ms.is_some_and(|retry_ms| retry_ms >= asked_ms + 30_000)
    })
    .await;
    (fixture, queue, mailbox, consumer)
}

fn undelivered(queue: &TestQueue) -> u64 {
    queue.subscription.locked(|state| state.undelivered.as_ref().map_or(0, |kept| kept.len()))
}

/// No consumer gets it, and none could be sent past it.
#[tokio::test]
async fn a_damaged_dead_letter_without_a_receiver_stops_nobody_and_can_be_skipped() {
    let (_fixture, queue, _mailbox, mut consumer) = with_damaged_dead_letter(&[0]).await;
    assert_eq!(pull(&mut consumer, 1).await, (vec![30], false));
    *queue.calls.keeps.lock() = None;
    assert_eq!(queue.subscription.skip_damaged().unwrap().0, 1);
    assert!(queue.calls.dropped.lock().contains(&(0, DropReason::Damaged)));
    assert_eq!(queue.subscription.depth().ready, 169);
}

/// It alone was tried from then on, and an operator's request was not for it but for the next one.
#[tokio::test]
async fn a_damaged_dead_letter_without_a_receiver_holds_up_no_other_and_is_the_one_that_is_skipped() {
    for is_skipped in [false, true] {
        let (fixture, queue, _mailbox, _consumer) = with_damaged_dead_letter(&[0, 10]).await;
        *queue.calls.keeps.lock() = None;
        queue.calls.dropped.lock().clear();
        if is_skipped {
            assert_eq!(queue.subscription.skip_damaged().unwrap().0, 1);
            assert_eq!(*queue.calls.dropped.lock(), [(0, DropReason::Damaged)]);
        }
        fixture.advance_ms(30_000);
        until("the other leaves", || {
            let _ = queue.check(&fixture, true);
            queue.calls.dropped.lock().contains(&(10, DropReason::Rejected))
        })
        .await;
        assert_eq!(undelivered(&queue), u64::from(!is_skipped));
    }
}
