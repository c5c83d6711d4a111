//! Delivery from queues in memory: bounds of what a consumer holds, wake-ups, best-effort messages.

use std::sync::Arc;

use super::fixture::{Fixture, batch};
use crate::Mailbox;
use crate::context::Timed;
use crate::spec::{DeliveryId, Mode};
use crate::subscription::{Consumer, ConsumerSpec, MemoryBounds, Pull, Subscription, WhenFull};

fn memory(fixture: &Fixture) -> Arc<Subscription> {
    let bounds =
        MemoryBounds { messages_max: u64::MAX, bytes_max: u64::MAX, when_full: WhenFull::DropNewest };
    Subscription::in_memory(&fixture.context, "s", Mode::Shared, bounds)
}

#[test]
fn a_consumer_that_never_acknowledges_is_given_no_more_at_its_bound() {
    let fixture = Fixture::new();
    let subscription = memory(&fixture);
    let mailbox = Mailbox::new();
    let mut consumer = subscription.attach(ConsumerSpec::new(mailbox.clone(), 7)).unwrap();
    let batch = batch(1, 1, 1 << 20);
    // The bytes are shared: this is one megabyte.
    (0..300).for_each(|_| subscription.push(&batch, None));
    let mut got = Vec::new();
    while consumer.pull(64, usize::MAX, &mut got).more {}
    assert_eq!(got.len(), 256);
    mailbox.drain(&mut Vec::new());
    assert_eq!(consumer.pull(64, usize::MAX, &mut got), Pull::default());
    let ids: Vec<DeliveryId> = got.iter().take(10).map(|d| d.id).collect();
    let _ = consumer.ack(&ids).unwrap();
    let mut tokens = Vec::new();
    mailbox.drain(&mut tokens);
    assert_eq!(tokens, [7], "it is woken when there is room again");
    while consumer.pull(64, usize::MAX, &mut got).more {}
    assert_eq!(got.len(), 266);
}

#[test]
fn waking_many_takes_one_walk_and_the_highest_priority_first() {
    let fixture = Fixture::new();
    let subscription = memory(&fixture);
    let mut consumers: Vec<(Arc<Mailbox>, Consumer)> = (0..5)
        .map(|i| {
            let mailbox = Mailbox::new();
            let spec = ConsumerSpec { priority: i % 2, ..ConsumerSpec::new(mailbox.clone(), 1) };
            let consumer = subscription.attach(spec).unwrap();
            (mailbox, consumer)
        })
        .collect();
    for (_, consumer) in &mut consumers {
        assert_eq!(consumer.pull(1, 1, &mut Vec::new()), Pull::default());
    }
    let woken = || {
        let mut tokens = Vec::new();
        let is_woken = |(mailbox, _): &(Arc<Mailbox>, Consumer)| {
            mailbox.drain(&mut tokens);
            !tokens.is_empty()
        };
        consumers.iter().map(is_woken).collect::<Vec<bool>>()
    };
    subscription.push(&batch(1, 1, 1), None);
    assert_eq!(woken(), [false, true, false, false, false]);
    subscription.push(&batch(1, 1, 1), None);
    assert_eq!(woken(), [false, false, false, true, false]);
    subscription.push(&batch(1, 1, 1), None);
    assert_eq!(woken(), [false; 5], "those of lower priority wait until the others took what they want");
    assert_eq!(consumers[0].1.pull(9, usize::MAX, &mut Vec::new()), Pull::default());
    let mut got = Vec::new();
    for i in [1, 3] {
        assert!(consumers[i].1.pull(1, usize::MAX, &mut got).more);
    }
    assert_eq!(got.len(), 2);
    let mut tokens = Vec::new();
    let mut woken = Vec::new();
    for (i, (mailbox, _)) in consumers.iter().enumerate() {
        mailbox.drain(&mut tokens);
        woken.extend((!tokens.is_empty()).then_some(i));
    }
    assert_eq!(woken, [2], "the one that waits the longest, for the one message that is left");
    consumers[2].1.pull(9, usize::MAX, &mut got);
    assert_eq!(got.len(), 3);
}

#[test]
fn a_refused_best_effort_message_is_counted() {
    let fixture = Fixture::new();
    let bounds = MemoryBounds { messages_max: 2, bytes_max: u64::MAX, when_full: WhenFull::DropNewest };
    let subscription = Subscription::in_memory(&fixture.context, "s", Mode::Shared, bounds);
    let _consumer = subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap();
    (0..5).for_each(|_| subscription.push(&batch(1, 1, 1), None));
    assert_eq!((subscription.depth().ready, subscription.dropped()), (2, 3));
}

#[test]
fn best_effort_messages_for_nobody_are_not_kept() {
    let fixture = Fixture::new();
    let subscription = memory(&fixture);
    subscription.push(&batch(1, 1, 1), None);
    assert_eq!((subscription.depth().ready, subscription.dropped()), (0, 1));
    let mut consumer = subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap();
    subscription.push(&batch(1, 1, 1), None);
    let mut got = Vec::new();
    assert!(!consumer.pull_batches(1, &mut got).cancelled);
    assert_eq!((got.len(), subscription.depth().ready), (1, 0));
    drop(consumer);
    subscription.push(&batch(1, 1, 1), None);
    assert_eq!((subscription.depth().ready, subscription.dropped()), (0, 2));
}

#[test]
fn consumers_behind_reservations_are_checked_once() {
    let fixture = Fixture::new();
    let subscription = memory(&fixture);
    let mut consumers: Vec<_> =
        (0..3).map(|token| subscription.attach(ConsumerSpec::new(Mailbox::new(), token)).unwrap()).collect();
    let timers = &subscription.context.timers;
    for consumer in &mut consumers {
        consumer.pull(1, usize::MAX, &mut Vec::new());
    }
    (0..100).for_each(|_| subscription.push(&batch(1, 1, 1), None));
    // All were woken and none waits behind them; two pull again and wait behind the third.
    assert!(timers.take(i64::MAX).len() <= 1);
    for consumer in &mut consumers[..2] {
        while consumer.pull(100, usize::MAX, &mut Vec::new()).more {}
    }
    for _ in 0..10 {
        subscription.push(&batch(1, 1, 1), None);
        subscription.clone().due(0, subscription.context.clock.now_ms());
    }
    assert_eq!(timers.take(i64::MAX).len(), 1);
}
