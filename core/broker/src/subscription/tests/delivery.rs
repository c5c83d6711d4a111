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

/// Pulls whenever a consumer is woken, in the order of the consumers, until nobody is; how many each got.
fn pull_when_woken(consumers: &mut [(Arc<Mailbox>, Consumer)], messages_max: usize, given: &mut [usize]) {
    let mut tokens = Vec::new();
    let (mut is_any_woken, mut rounds) = (true, 0);
    while std::mem::take(&mut is_any_woken) {
        rounds += 1;
        assert!(rounds < 1000, "they wake each other without an end");
        for ((mailbox, consumer), given) in consumers.iter_mut().zip(given.iter_mut()) {
            mailbox.drain(&mut tokens);
            if tokens.is_empty() {
                continue;
            }
            tokens.clear();
            is_any_woken = true;
            let mut got = Vec::new();
            while consumer.pull(messages_max, usize::MAX, &mut got).more && messages_max > 0 {}
            *given += got.len();
        }
    }
}

#[test]
fn a_burst_goes_to_the_consumers_in_turn() {
    for (count, burst) in [(2, 6), (3, 90), (16, 64)] {
        let fixture = Fixture::new();
        let subscription = memory(&fixture);
        let mut consumers: Vec<(Arc<Mailbox>, Consumer)> = (0..count)
            .map(|_| {
                let mailbox = Mailbox::new();
                let consumer = subscription.attach(ConsumerSpec::new(mailbox.clone(), 1)).unwrap();
                (mailbox, consumer)
            })
            .collect();
        for (_, consumer) in &mut consumers {
            consumer.pull(100, usize::MAX, &mut Vec::new());
        }
        for round in 1..4 {
            let mut given = vec![0; count];
            for message in 0..burst {
                subscription.push(&batch(1, 1, 1), None);
                // Consumers run now and then while the burst arrives.
                if message % 5 == round {
                    pull_when_woken(&mut consumers, 100, &mut given);
                }
            }
            pull_when_woken(&mut consumers, 100, &mut given);
            assert_eq!(given, vec![burst / count; count], "{burst} to {count}");
        }
    }
}

#[test]
fn what_a_consumer_let_pass_is_not_made_up_for() {
    let fixture = Fixture::new();
    let subscription = memory(&fixture);
    let attach = || {
        let mailbox = Mailbox::new();
        let consumer = subscription.attach(ConsumerSpec::new(mailbox.clone(), 1)).unwrap();
        (mailbox, consumer)
    };
    let mut consumers = vec![attach(), attach()];
    for (_, consumer) in &mut consumers {
        consumer.pull(100, usize::MAX, &mut Vec::new());
    }
    // The second one has no room.
    let (mut first, mut second) = (vec![0], vec![0]);
    for _ in 0..40 {
        subscription.push(&batch(1, 1, 1), None);
        pull_when_woken(&mut consumers[1..], 0, &mut second);
        pull_when_woken(&mut consumers[..1], 100, &mut first);
    }
    assert_eq!((first, second), (vec![40], vec![0]));
    consumers[1].1.pull(100, usize::MAX, &mut Vec::new());
    consumers.push(attach());
    consumers[2].1.pull(100, usize::MAX, &mut Vec::new());
    let mut given = vec![0; 3];
    for _ in 0..30 {
        subscription.push(&batch(1, 1, 1), None);
        pull_when_woken(&mut consumers, 100, &mut given);
    }
    assert_eq!(given, [10, 10, 10]);
}

#[test]
fn a_consumer_that_was_woken_and_does_not_pull_holds_the_others_up_for_a_moment_only() {
    let fixture = Fixture::new();
    let subscription = memory(&fixture);
    let mut consumers: Vec<_> =
        (0..2).map(|_| subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap()).collect();
    for consumer in &mut consumers {
        consumer.pull(100, usize::MAX, &mut Vec::new());
    }
    (0..6).for_each(|_| subscription.push(&batch(1, 1, 1), None));
    let mut got = Vec::new();
    while consumers[0].pull(100, usize::MAX, &mut got).more {}
    assert_eq!(got.len(), 3);
    fixture.advance_ms(60);
    while consumers[0].pull(100, usize::MAX, &mut got).more {}
    assert_eq!(got.len(), 6);
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
