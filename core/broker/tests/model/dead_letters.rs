//! Dead letters: their death records, and cycles.

use crate::fixture::*;
use inver_broker::{BindDestination, DeadLetter, Overflow, QueueLimits, QueueSpec};

/// An escape of the queue's name in the death record was undone wrongly, so the cycle was not detected.
#[tokio::test]
async fn a_message_that_a_queue_dead_letters_to_itself_by_ttl_is_dropped() {
    for is_durable in [false, true] {
        let fixture = Fixture::new();
        let ns = fixture.namespace();
        let _housekeeping = fixture.housekeep();
        ns.declare_exchange("dlx", durable_exchange()).unwrap();
        let copies = declare(&ns, "copies", durable(QueueLimits::default()));
        for (n, name) in ["loop", r"loop\new", "loop\nnew", r"loop\\new", r"loop\"].into_iter().enumerate() {
            let limits = QueueLimits {
                message_ttl_ms: Some(1),
                dead_letter: Some(DeadLetter { exchange: "dlx".into(), routing_key: Some(b"k".to_vec()) }),
                ..QueueLimits::default()
            };
            let q = declare(&ns, name, QueueSpec { durable: is_durable, limits, ..QueueSpec::default() });
            for to in [name, "copies"] {
                ns.bind("dlx", BindDestination::Queue(to), b"k", &Default::default()).unwrap();
            }
            publish(&ns, queue(name), "x");
            until("the message is dead-lettered", || copies.depth().ready > n as u64).await;
            until("the cycle ends", || q.depth().ready == 0).await;
            assert_eq!(copies.depth().ready, n as u64 + 1, "{name:?} dead-letters to itself once");
            ns.unbind("dlx", BindDestination::Queue(name), b"k", &Default::default()).unwrap();
        }
    }
}

/// A sender that repeats what nobody has did so without end, and each attempt was dead-lettered once more.
#[tokio::test]
async fn a_refused_message_that_is_dead_lettered_is_not_one_that_nobody_has() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let dead = declare(&ns, "dead", durable(QueueLimits::default()));
    let bounded = |overflow, dead_letter| QueueLimits {
        messages_max: Some(1),
        overflow,
        dead_letter,
        ..QueueLimits::default()
    };
    let refusing = [
        ("full", bounded(Overflow::RejectPublish, None), false),
        ("to nobody", bounded(Overflow::RejectPublishDeadLetter, None), false),
        ("to full", bounded(Overflow::RejectPublishDeadLetter, dead_letter_to("full")), false),
        ("to dead", bounded(Overflow::RejectPublishDeadLetter, dead_letter_to("dead")), true),
        ("to dead by two", bounded(Overflow::RejectPublishDeadLetter, dead_letter_to("to dead")), true),
    ];
    for (name, limits, is_split) in refusing {
        declare(&ns, name, durable(limits));
        publish(&ns, queue(name), "before");
        let routed = publisher(&ns).publish(queue(name), &message(b"refused")).unwrap();
        assert_eq!((routed.refused, routed.is_split), (true, is_split), "{name}");
    }
    until("both are dead-lettered", || dead.counts().ready == 2).await;
}

/// Each refusal published within the one before, without end: the stack was too small for it.
#[tokio::test]
async fn full_queues_that_dead_letter_to_each_other_end_it() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let full = |dead_letter| QueueLimits {
        messages_max: Some(1),
        overflow: Overflow::RejectPublishDeadLetter,
        dead_letter,
        ..QueueLimits::default()
    };
    // More of them than deaths are told of.
    let ring = 40;
    for at in 0..ring {
        let name = format!("q{at}");
        declare(
            &ns,
            &name,
            QueueSpec {
                limits: full(dead_letter_to(&format!("q{}", (at + 1) % ring))),
                ..QueueSpec::default()
            },
        );
        publish(&ns, queue(&name), "before");
    }
    let routed = publisher(&ns).publish(queue("q0"), &message(b"refused")).unwrap();
    assert_eq!((routed.refused, routed.is_split), (true, false));
    // A message that was rejected may come to a queue again.
    declare(&ns, "again", QueueSpec { limits: full(dead_letter_to("again")), ..QueueSpec::default() });
    publish(&ns, queue("again"), "before");
    let limits = QueueLimits { dead_letter: dead_letter_to("again"), ..QueueLimits::default() };
    let rejecting = declare(&ns, "rejecting", QueueSpec { limits, ..QueueSpec::default() });
    publish(&ns, queue("rejecting"), "rejected");
    let (mailbox, mut consumer) = attach(rejecting.subscription());
    let got = take(&mailbox, &mut consumer, 1).await;
    let _ = consumer.reject(&[got[0].id]).unwrap();
    until("the rejected message is gone", || rejecting.counts().ready + rejecting.counts().unacked == 0)
        .await;
    assert_eq!(ns.queue("again").unwrap().counts().ready, 1);
}
