//! The lock of a subscription: the log's writer does not wait for it, and no advance is missed; and the return of very many
//! unacknowledged messages.

use std::sync::mpsc;
use std::time::Duration;

use super::fixture::{Fixture, until};
use crate::Mailbox;
use crate::spec::QueueLimits;
use crate::subscription::ConsumerSpec;

#[tokio::test]
async fn commits_go_on_while_the_lock_is_held_and_the_advance_is_handled_after_it() {
    let fixture = Fixture::new();
    let queue = fixture.queue(fixture.create(), QueueLimits::default());
    let mailbox = Mailbox::new();
    let mut consumer = queue.subscription.attach(ConsumerSpec::new(mailbox.clone(), 1)).unwrap();
    let mut got = Vec::new();
    assert!(!consumer.pull(10, usize::MAX, &mut got).more, "it waits to be woken");
    let ((held, is_held), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
    let holder = {
        let subscription = queue.subscription.clone();
        std::thread::spawn(move || {
            subscription.locked(|_| {
                held.send(()).unwrap();
                // Until the commits below are through; were they not, the test fails there.
                released.recv_timeout(Duration::from_secs(30))
            })
        })
    };
    is_held.recv_timeout(Duration::from_secs(60)).unwrap();
    // Each waits for its commit.
    fixture.append(&queue, 10, 1, 8);
    assert!(!holder.is_finished(), "the lock is still held");
    release.send(()).unwrap();
    assert_eq!(holder.join().unwrap(), Ok(()));
    tokio::time::timeout(Duration::from_secs(60), mailbox.wait()).await.expect("it is woken");
    consumer.pull(100, usize::MAX, &mut got);
    assert_eq!(got.len(), 10);
}

#[tokio::test]
async fn very_many_messages_come_back_in_their_order_and_before_newer_ones() {
    let fixture = Fixture::new();
    let queue = fixture.queue(fixture.create(), QueueLimits::default());
    fixture.append(&queue, 30, 1_000, 8);
    let attach = || queue.subscription.attach(ConsumerSpec::new(Mailbox::new(), 1)).unwrap();
    let pull = |consumer: &mut crate::subscription::Consumer| {
        let mut got = Vec::new();
        while consumer.pull(usize::MAX, usize::MAX, &mut got).more {}
        got
    };
    let mut first = attach();
    assert_eq!(pull(&mut first).len(), 30_000);
    let mut second = attach();
    drop(first);
    fixture.append(&queue, 1, 1, 8);
    let mut got = Vec::new();
    until("all came back", || {
        got.extend(pull(&mut second));
        got.len() == 30_001
    })
    .await;
    assert!(got.iter().map(|delivery| delivery.id.offset).eq(0..30_001));
    assert!(got.iter().take(30_000).all(|delivery| delivery.redelivered == 1));
    let depth = queue.subscription.counts();
    assert_eq!((depth.ready, depth.unacked), (0, 30_001));
    // A subscription that ends meanwhile takes nothing back.
    drop(second);
    queue.subscription.close();
    until("nothing is left", || queue.subscription.locked(|state| state.returning) == 0).await;
    let depth = queue.subscription.counts();
    assert_eq!((depth.ready, depth.unacked), (0, 0));
}
