//! Queues as their consumers see them: order, sharing, requeues, dead letters, restarts.

use crate::fixture::*;
use inver_broker::message::{Death, HeaderView, Property};
use inver_broker::{BindDestination, DeadLetter, DropReason, HeaderWriter, Overflow, QueueLimits, QueueSpec};

#[tokio::test]
async fn messages_are_delivered_in_order_and_requeued_in_place() {
    for durable in [false, true] {
        let fixture = Fixture::new();
        let ns = fixture.namespace();
        let q = declare(&ns, "q", QueueSpec { durable, ..QueueSpec::default() });
        for i in 0..5 {
            assert_eq!(publish(&ns, queue("q"), &i.to_string()), 1);
        }
        let (mailbox, mut consumer) = attach(q.subscription());
        let first = take(&mailbox, &mut consumer, 3).await;
        assert_eq!(values(&first), ["0", "1", "2"]);
        let _ = consumer.requeue(&[first[1].id]).unwrap();
        let rest = take(&mailbox, &mut consumer, 3).await;
        assert_eq!(values(&rest), ["1", "3", "4"], "durable: {durable}");
        assert_eq!(rest[0].redelivered, 1);
        assert_eq!((q.depth().ready, q.depth().unacked), (0, 5));
    }
}

#[tokio::test]
async fn unacked_messages_of_a_consumer_are_requeued_when_it_leaves() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    let (mailbox_a, mut a) = attach(q.subscription());
    let (mailbox_b, mut b) = attach(q.subscription());
    for i in 0..4 {
        publish(&ns, queue("q"), &i.to_string());
    }
    let got_a = take(&mailbox_a, &mut a, 2).await;
    assert_eq!(values(&got_a), ["0", "1"]);
    let _ = a.ack(&[got_a[0].id]).unwrap();
    drop(a);
    let got_b = take(&mailbox_b, &mut b, 3).await;
    assert_eq!(values(&got_b), ["1", "2", "3"]);
}

#[tokio::test]
async fn an_acknowledged_message_is_never_redelivered() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    let mut p = publisher(&ns);
    for i in 0..2000 {
        p.publish(queue("q"), &message(format!("{i}").as_bytes())).unwrap();
    }
    committed(&ns, p.flush().unwrap());
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 2000).await;
    let odd: Vec<_> = got.iter().filter(|d| d.id.offset % 2 == 1).map(|d| d.id).collect();
    committed(&ns, consumer.ack(&odd).unwrap());
    drop((consumer, q, ns, p));
    let fixture = fixture.restart();
    let q = fixture.namespace().queue("q").expect("the queue is there again");
    assert_eq!(q.depth().ready, 1000);
    let (mailbox, mut consumer) = attach(q.subscription());
    let again = take(&mailbox, &mut consumer, 1000).await;
    assert!(again.iter().all(|d| d.id.offset % 2 == 0));
    assert!(pull_now(&mut consumer).is_empty());
}

#[tokio::test]
async fn a_write_batch_reaches_every_queue_in_publishing_order() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (a, b) =
        (declare(&ns, "a", durable(QueueLimits::default())), declare(&ns, "b", QueueSpec::default()));
    for q in ["a", "b"] {
        ns.bind("amq.fanout", BindDestination::Queue(q), b"", &Default::default()).unwrap();
    }
    let mut p = publisher(&ns);
    for i in 0..30 {
        let to = match i % 3 {
            0 => queue("a"),
            1 => exchange("amq.fanout", ""),
            _ => queue("b"),
        };
        p.publish(to, &message(format!("{i:02}").as_bytes())).unwrap();
    }
    committed(&ns, p.flush().unwrap());
    let wanted =
        |keep: fn(i32) -> bool| (0..30).filter(|i| keep(*i)).map(|i| format!("{i:02}")).collect::<Vec<_>>();
    let (mailbox, mut consumer) = attach(a.subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 20).await), wanted(|i| i % 3 != 2));
    let (mailbox, mut consumer) = attach(b.subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 20).await), wanted(|i| i % 3 != 0));
}

#[tokio::test]
async fn the_oldest_messages_are_dropped_beyond_the_length_limit() {
    for durable in [false, true] {
        let fixture = Fixture::new();
        let ns = fixture.namespace();
        let limits = QueueLimits { messages_max: Some(2), ..QueueLimits::default() };
        let q = declare(&ns, "q", QueueSpec { durable, limits, ..QueueSpec::default() });
        for i in 0..5 {
            publish(&ns, queue("q"), &i.to_string());
        }
        assert_eq!(q.depth().ready, 2);
        let (mailbox, mut consumer) = attach(q.subscription());
        assert_eq!(values(&take(&mailbox, &mut consumer, 2).await), ["3", "4"]);
    }
}

#[tokio::test]
async fn a_full_queue_can_reject_publishes() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let limits =
        QueueLimits { messages_max: Some(2), overflow: Overflow::RejectPublish, ..QueueLimits::default() };
    let q = declare(&ns, "q", durable(limits));
    let mut p = publisher(&ns);
    let refused: Vec<bool> = (0..4).map(|_| p.publish(queue("q"), &message(b"x")).unwrap().refused).collect();
    committed(&ns, p.flush().unwrap());
    assert_eq!(refused, [false, false, true, true]);
    assert_eq!(q.depth().ready, 2);
}

#[tokio::test]
async fn dead_letters_carry_death_records() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let dead = declare(&ns, "dead", durable(QueueLimits::default()));
    let limits = QueueLimits {
        dead_letter: Some(DeadLetter { exchange: String::new(), routing_key: Some(b"dead".to_vec()) }),
        ..QueueLimits::default()
    };
    let q = declare(&ns, "q", durable(limits));
    let mut headers = HeaderWriter::default();
    headers.begin("test", Some(inver_broker::now_ms() - 1));
    headers.user(b"mine", None);
    publish_with(&ns, queue("q"), "expired", &headers);
    publish(&ns, queue("q"), "rejected");
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 1).await;
    assert_eq!(values(&got), ["rejected"]);
    let _ = consumer.reject(&[got[0].id]).unwrap();
    let (mailbox, mut consumer) = attach(dead.subscription());
    let dead_letters = take(&mailbox, &mut consumer, 2).await;
    assert_eq!(values(&dead_letters), ["expired", "rejected"]);
    let mut properties = HeaderView::of(&dead_letters[0].record).typed_properties();
    let death =
        properties.find_map(|p| if let Property::Death(death) = p { Death::decode(death) } else { None });
    let death = death.expect("a death record");
    assert_eq!((&*death.queue, death.reason, death.count), ("q", DropReason::Expired, 1));
    assert_eq!((&*death.exchange, &*death.routing_key), (&b""[..], &b"q"[..]));
    assert_eq!((q.depth().ready, q.depth().unacked), (0, 0));
}

#[tokio::test]
async fn a_transient_queue_spills_to_the_log_when_it_is_full() {
    let config = inver_broker::BrokerConfig { queue_memory_bytes_max: 10_000, ..Default::default() };
    let fixture = Fixture::with(config);
    let ns = fixture.namespace();
    let q = declare(&ns, "q", QueueSpec::default());
    for i in 0..300 {
        publish(&ns, queue("q"), &format!("{i:0100}"));
    }
    assert_eq!(q.depth().ready, 300);
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 300).await;
    assert_eq!(values(&got), (0..300).map(|i| format!("{i:0100}")).collect::<Vec<_>>());
    publish(&ns, queue("q"), "after");
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["after"]);
}

#[tokio::test]
async fn auto_delete_queues_are_deleted_with_their_last_consumer() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let spec = QueueSpec { auto_delete: true, ..QueueSpec::default() };
    let q = ns.declare_queue("q", spec).unwrap().it;
    ns.bind("amq.direct", BindDestination::Queue("q"), b"k", &Default::default()).unwrap();
    let (_, a) = attach(q.subscription());
    let (_, b) = attach(q.subscription());
    drop(a);
    assert!(ns.queue("q").is_some());
    drop(b);
    assert!(ns.queue("q").is_none());
    assert_eq!(publish(&ns, exchange("amq.direct", "k"), "x"), 0);
}
