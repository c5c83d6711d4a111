//! Subscriptions of topics with partitions: pulls from some of the streams, and a delivery limit of their own.

use std::sync::Arc;

use inver_storage::{Entry, Offset, Stream};

use super::fixture::{Fixture, batch, until};
use crate::Mailbox;
use crate::spec::{Delivery, DeliveryId, Mode};
use crate::subscription::{Consumer, ConsumerSpec, Subscription, Trim};

/// A subscription of two streams, with so many messages in each.
fn shared(fixture: &Fixture, messages: usize) -> (Arc<Subscription>, Vec<Stream>) {
    let mut sources = Vec::new();
    for _ in 0..2 {
        let (stream, cursor) = fixture.create();
        let stream = fixture.log().stream(stream).unwrap();
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), batch(1, messages, 10));
        fixture.commit(entry);
        sources.push((stream, fixture.log().cursor(cursor), Offset(0)));
    }
    let streams = sources.iter().map(|(stream, ..)| stream.clone()).collect();
    (Subscription::over_streams(&fixture.context, "s", Mode::Shared, sources, Trim::Never), streams)
}

fn attach(subscription: &Arc<Subscription>, token: u64) -> (Arc<Mailbox>, Consumer) {
    let mailbox = Mailbox::new();
    (mailbox.clone(), subscription.attach(ConsumerSpec::new(mailbox, token)).unwrap())
}

fn ids(deliveries: &[Delivery]) -> Vec<(u32, u64)> {
    let mut ids: Vec<(u32, u64)> = deliveries.iter().map(|d| (d.id.partition, d.id.offset)).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_pull_takes_from_streams_with_room_only() {
    let fixture = Fixture::new();
    let (subscription, streams) = shared(&fixture, 3);
    let (mailbox, mut consumer) = attach(&subscription, 1);
    let mut pull = |rooms: &[(u32, u32)]| {
        let mut got = Vec::new();
        let pull = consumer.pull_within(rooms.iter().copied(), 10, usize::MAX, &mut got);
        assert!(got.is_empty() || consumer.requeue(&[got[0].id]).is_ok());
        (ids(&got), pull.left)
    };
    assert_eq!(pull(&[]), (vec![], true));
    assert_eq!(pull(&[(1, 2)]), (vec![(1, 0), (1, 1)], true));
    // The first one is requeued each time.
    assert_eq!(pull(&[(0, 1), (1, 0)]), (vec![(0, 0)], true));
    assert_eq!(pull(&[(0, 9)]), (vec![(0, 0), (0, 1), (0, 2)], true));
    assert_eq!(pull(&[(1, 1)]), (vec![(1, 0)], true));
    // One that left messages does not wait: another that waits is woken.
    let (other_mailbox, mut other) = attach(&subscription, 2);
    let mut got = Vec::new();
    while other.pull(9, usize::MAX, &mut got).more {}
    assert_eq!(ids(&got), [(0, 0), (1, 0), (1, 2)]);
    let (mut tokens, mut others) = (Vec::new(), Vec::new());
    mailbox.drain(&mut tokens);
    other_mailbox.drain(&mut others);
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(&streams[0]), batch(1, 1, 10));
    fixture.commit(entry);
    until("the other is woken", || {
        other_mailbox.drain(&mut others);
        !others.is_empty()
    })
    .await;
    mailbox.drain(&mut tokens);
    assert_eq!((tokens, others), (vec![], vec![2]));
}

#[test]
fn a_subscription_without_a_queue_has_a_delivery_limit() {
    let fixture = Fixture::new();
    let (subscription, _streams) = shared(&fixture, 1);
    subscription.limit_deliveries(Some(1));
    let (_mailbox, mut consumer) = attach(&subscription, 1);
    for redelivered in 0..2 {
        let mut got = Vec::new();
        consumer.pull(2, usize::MAX, &mut got);
        assert_eq!(ids(&got), [(0, 0), (1, 0)]);
        assert!(got.iter().all(|delivery| delivery.redelivered == redelivered));
        let all: Vec<DeliveryId> = got.iter().map(|delivery| delivery.id).collect();
        let _ = consumer.requeue(&all).unwrap();
    }
    let mut got = Vec::new();
    consumer.pull(2, usize::MAX, &mut got);
    assert!(got.is_empty());
    fixture.log().sync().unwrap();
    assert!(
        subscription.positions().iter().all(|at| (at.offset, at.left) == (1, 0)),
        "they are acknowledged"
    );
    subscription.limit_deliveries(None);
    assert!(subscription.limits().is_none());
}
