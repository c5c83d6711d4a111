//! Unacked messages: kept without their records, which are read again when they are requeued; many consumers.

use std::time::Duration;

use crate::fixture::*;
use inver_broker::{
    BindDestination, BrokerConfig, ConsumerSpec, Delivery, DeliveryId, Mailbox, Mode, QueueLimits, QueueSpec,
    Start, TopicSpec,
};
use inver_storage::{BatchBuilder, LogOptions, Share};

fn padded(i: usize) -> String {
    format!("{i:04}{}", "x".repeat(1000))
}

fn numbers(got: &[Delivery]) -> Vec<usize> {
    values(got).iter().map(|v| v[..4].parse().unwrap()).collect()
}

fn ids(got: &[Delivery]) -> Vec<DeliveryId> {
    got.iter().map(|d| d.id).collect()
}

#[tokio::test]
async fn requeued_messages_are_read_from_disk_in_their_order() {
    let fixture = Fixture::cold();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    let mut p = publisher(&ns);
    for i in 0..60 {
        p.publish(queue("q"), &message(padded(i).as_bytes())).unwrap();
        // Batches of one and of several records.
        if i % 7 < 3 {
            committed(&ns, p.flush().unwrap());
        }
    }
    committed(&ns, p.flush().unwrap());
    let (mailbox, mut first) = attach(q.subscription());
    let got = take(&mailbox, &mut first, 60).await;
    let odd: Vec<DeliveryId> = ids(&got).into_iter().skip(1).step_by(2).collect();
    let _ = first.ack(&odd).unwrap();
    drop((first, got));
    let (mailbox, mut second) = attach(q.subscription());
    let again = take(&mailbox, &mut second, 30).await;
    assert_eq!(numbers(&again), (0..60).step_by(2).collect::<Vec<_>>());
    assert!(again.iter().all(|d| d.redelivered == 1));
    let depth = q.depth();
    assert_eq!((depth.ready, depth.unacked), (0, 30));
    committed(&ns, second.ack(&ids(&again)).unwrap());
    assert_eq!(q.depth().unacked, 0);
}

#[tokio::test]
async fn rejected_messages_on_disk_are_dead_lettered() {
    let fixture = Fixture::cold();
    let ns = fixture.namespace();
    let dead = declare(&ns, "dead", durable(QueueLimits::default()));
    let limits = QueueLimits { dead_letter: dead_letter_to("dead"), ..QueueLimits::default() };
    let q = declare(&ns, "q", durable(limits));
    for i in 0..20 {
        publish(&ns, queue("q"), &padded(i));
    }
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 20).await;
    let _ = consumer.reject(&ids(&got)).unwrap();
    until("all are dead-lettered", || dead.depth().ready == 20).await;
    assert_eq!((q.depth().ready, q.depth().unacked), (0, 0));
    let (mailbox, mut consumer) = attach(dead.subscription());
    assert_eq!(numbers(&take(&mailbox, &mut consumer, 20).await), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_requeued_message_that_was_trimmed_is_dropped() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let spec = TopicSpec { partitions: 1, config: Default::default() };
    let (topic, _) = ns.create_topic("t", &spec).unwrap();
    for mode in [Mode::Shared, Mode::KeyShared] {
        let s = ns.subscribe(&topic, mode.as_str(), mode, true, Start::Earliest).unwrap();
        let partition = topic.partition(0).unwrap();
        let from = partition.stream().next_offset().0;
        for i in 0..10 {
            let mut builder = BatchBuilder::new(0);
            builder.push(inver_broker::now_ms(), Some(b"k"), &[], Some(padded(i).as_bytes()));
            committed(&ns, Some(ns.produce(&topic, &partition, builder.finish()).unwrap().lsn));
        }
        let (mailbox, mut first) = attach(&s);
        assert_eq!(take(&mailbox, &mut first, 10).await.len(), 10);
        committed(&ns, Some(ns.delete_records(&topic, 0, (from + 7).into()).unwrap()));
        drop(first);
        let (mailbox, mut second) = attach(&s);
        assert_eq!(numbers(&take(&mailbox, &mut second, 3).await), [7, 8, 9]);
        assert_eq!((s.depth().ready, s.depth().unacked), (0, 3));
    }
}

/// Attaching or detaching a consumer cost a pass over all others.
#[tokio::test]
async fn twenty_thousand_consumers_attach_and_detach() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    for single_active in [false, true] {
        let q = declare(&ns, "q", QueueSpec { single_active, ..QueueSpec::default() });
        for i in 0..50 {
            publish(&ns, queue("q"), &i.to_string());
        }
        grows_with_the_number("consumers", 20_000, |count| {
            let mailbox = Mailbox::new();
            let attach = |i: usize| {
                let token = i.try_into().unwrap();
                q.subscription().attach(ConsumerSpec::new(mailbox.clone(), token)).unwrap()
            };
            let mut consumers: Vec<_> = (0..count).map(attach).collect();
            let mut got = Vec::new();
            for consumer in &mut consumers {
                consumer.pull(1, usize::MAX, &mut got);
            }
            assert_eq!(got.len(), if single_active { 1 } else { 50 });
        });
        assert_eq!(q.depth().ready, 50);
        ns.delete_queue("q", false, false).unwrap();
    }
}

#[tokio::test]
async fn what_a_consumer_of_a_queue_in_memory_does_not_acknowledge_is_bounded_by_the_share_of_queues() {
    const COUNT: usize = 1000;
    let options = LogOptions { memory_limit: Some(4 << 20), ..LogOptions::default() };
    let fixture = Fixture::over(BrokerConfig::default(), options);
    let (ns, memory) = (fixture.namespace(), fixture.broker.log().memory());
    let q = declare(&ns, "q", QueueSpec::default());
    let body = vec![b'x'; 10_000];
    let mut p = publisher(&ns);
    for _ in 0..COUNT {
        p.publish(queue("q"), &message(&body)).unwrap();
        committed(&ns, p.flush().unwrap());
    }
    let (mailbox, mut consumer) = attach(q.subscription());
    let (mut taken, mut largest) = (0, 0);
    while taken < COUNT {
        let mut got = Vec::new();
        loop {
            let before = got.len();
            let pull = consumer.pull(usize::MAX, 64 << 10, &mut got);
            if got.len() == before && !pull.more {
                break;
            }
        }
        assert!(memory.used(Share::Queues) <= 2 << 20, "{memory:?}");
        if got.is_empty() {
            tokio::time::timeout(Duration::from_secs(60), mailbox.wait()).await.expect("more messages");
            mailbox.drain(&mut Vec::new());
        }
        largest = largest.max(got.len());
        taken += got.len();
        let _ = consumer.ack(&ids(&got)).unwrap();
    }
    assert!(largest < COUNT / 2, "{largest} at a time");
    assert!(memory.used(Share::Queues) <= 64 << 10, "{memory:?}");
}

#[tokio::test]
async fn a_message_that_many_queues_in_memory_have_is_counted_once_until_the_last_has_settled_it() {
    const QUEUES: usize = 20;
    let options = LogOptions { memory_limit: Some(64 << 20), ..LogOptions::default() };
    let fixture = Fixture::over(BrokerConfig::default(), options);
    let (ns, memory) = (fixture.namespace(), fixture.broker.log().memory());
    let names: Vec<String> = (0..QUEUES).map(|at| format!("q{at}")).collect();
    let mut consumers = Vec::new();
    for name in &names {
        let q = declare(&ns, name, QueueSpec::default());
        let _ = ns.bind("amq.fanout", BindDestination::Queue(name), b"", &Default::default()).unwrap();
        consumers.push(attach(q.subscription()));
    }
    let body = vec![b'x'; 100_000];
    let mut p = publisher(&ns);
    p.publish(exchange("amq.fanout", ""), &message(&body)).unwrap();
    committed(&ns, p.flush().unwrap());
    let is_once = |used: usize| (100_000..150_000).contains(&used);
    assert!(is_once(memory.used(Share::Queues)), "while it waits: {memory:?}");
    let mut taken = Vec::new();
    for (mailbox, consumer) in &mut consumers {
        taken.push(ids(&take(mailbox, consumer, 1).await));
    }
    assert!(is_once(memory.used(Share::Queues)), "while it is delivered: {memory:?}");
    for ((_, consumer), taken) in consumers.iter_mut().zip(&taken).skip(1) {
        let _ = consumer.ack(taken).unwrap();
    }
    assert!(is_once(memory.used(Share::Queues)), "while one has it: {memory:?}");
    let _ = consumers[0].1.ack(&taken[0]).unwrap();
    // The last consumer's queue has opened the batch, and lets it go when it is asked for more.
    for (_, consumer) in &mut consumers {
        consumer.pull(1, 1, &mut Vec::new());
    }
    assert_eq!(memory.used(Share::Queues), 0, "{memory:?}");
}

#[tokio::test]
async fn many_queues_in_memory_of_one_large_message_each_stay_within_their_share() {
    const MIB: usize = 1 << 20;
    let options = LogOptions { memory_limit: Some(64 * MIB), ..LogOptions::default() };
    let fixture = Fixture::over(BrokerConfig::default(), options);
    let (ns, memory) = (fixture.namespace(), fixture.broker.log().memory());
    let body = vec![b'x'; MIB];
    let mut p = publisher(&ns);
    let names: Vec<String> = (0..40).map(|at| format!("q{at}")).collect();
    for name in &names {
        declare(&ns, name, QueueSpec::default());
        p.publish(queue(name), &message(&body)).unwrap();
        committed(&ns, p.flush().unwrap());
    }
    assert!(memory.used(Share::Queues) <= memory.limit(Share::Queues) + 2 * MIB, "{memory:?}");
    for name in &names {
        let (mailbox, mut consumer) = attach(ns.queue(name).unwrap().subscription());
        assert_eq!(take(&mailbox, &mut consumer, 1).await.len(), 1, "{name}");
    }
}
