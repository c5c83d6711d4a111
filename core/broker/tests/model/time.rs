//! Time: consumers that wait, TTL, queue expiry.

use std::time::{Duration, Instant};

use crate::fixture::*;
use inver_broker::{
    BindDestination, BrokerConfig, Consumer, ConsumerSpec, HeaderWriter, Mailbox, Message, Pull, QueueLimits,
    QueueSpec, TopicSpec,
};
use inver_storage::BatchBuilder;

fn passive(queue: &inver_broker::Queue) -> Consumer {
    let spec = ConsumerSpec { passive: true, ..ConsumerSpec::new(Mailbox::new(), 1) };
    queue.subscription().attach(spec).unwrap()
}

fn expiring(after_ms: i64) -> HeaderWriter {
    let mut headers = HeaderWriter::default();
    headers.begin("test", Some(inver_broker::now_ms() + after_ms));
    headers
}

#[tokio::test]
async fn a_passive_consumer_gets_nothing_while_another_waits() {
    for spec in [QueueSpec::default(), durable(QueueLimits::default())] {
        let fixture = Fixture::new();
        let ns = fixture.namespace();
        let q = declare(&ns, "q", spec);
        let mut passive = passive(&q);
        publish(&ns, queue("q"), "0");
        assert_eq!(values(&pull_now(&mut passive)), ["0"], "no consumer waits");
        let (mailbox, mut consumer) = attach(q.subscription());
        assert_eq!(consumer.pull(1, usize::MAX, &mut Vec::new()), Pull::default());
        publish(&ns, queue("q"), "1");
        assert!(pull_now(&mut passive).is_empty(), "it is reserved for the consumer");
        assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["1"]);
        publish(&ns, queue("q"), "2");
        assert_eq!(values(&pull_now(&mut passive)), ["2"], "the consumer pulled all it has room for");
    }
}

#[tokio::test]
async fn a_ttl_of_zero_delivers_only_to_a_waiting_consumer() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let _housekeeping = fixture.housekeep();
    let limits =
        QueueLimits { message_ttl_ms: Some(0), dead_letter: dead_letter_to("dead"), ..Default::default() };
    let dead = declare(&ns, "dead", QueueSpec::default());
    let by_queue = declare(&ns, "ttl", durable(limits));
    let by_message = declare(
        &ns,
        "own",
        durable(QueueLimits { dead_letter: dead_letter_to("dead"), ..QueueLimits::default() }),
    );
    for (q, mut dropped) in [(by_queue, 0), (by_message, 2)] {
        let send = |value: &str| {
            let headers = if q.name() == "own" { expiring(0) } else { HeaderWriter::default() };
            publish_with(&ns, queue(q.name()), value, &headers);
        };
        send("for nobody");
        dropped += 1;
        until("it is dead-lettered", || dead.depth().ready == dropped).await;
        let (mailbox, mut consumer) = attach(q.subscription());
        assert_eq!(consumer.pull(1, usize::MAX, &mut Vec::new()), Pull::default());
        send("for the consumer");
        let got = take(&mailbox, &mut consumer, 1).await;
        assert_eq!(values(&got), ["for the consumer"]);
        // The consumer waits again, but a requeued message has no grace period.
        assert!(!consumer.pull(1, usize::MAX, &mut Vec::new()).more);
        let _ = consumer.requeue(&[got[0].id]).unwrap();
        dropped += 1;
        until("it is dead-lettered", || dead.depth().ready == dropped).await;
        assert!(pull_now(&mut consumer).is_empty());
    }
}

#[tokio::test]
async fn expired_messages_are_dead_lettered_in_time() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let _housekeeping = fixture.housekeep();
    let dead = declare(&ns, "dead", durable(QueueLimits::default()));
    let limits = QueueLimits {
        message_ttl_ms: Some(1),
        dead_letter: dead_letter_to("dead"),
        ..QueueLimits::default()
    };
    for (name, spec) in
        [("m", QueueSpec { limits: limits.clone(), ..QueueSpec::default() }), ("d", durable(limits))]
    {
        declare(&ns, name, spec);
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let before = dead.depth().ready;
            let since = Instant::now();
            publish(&ns, queue(name), "x");
            until("it is dead-lettered", || dead.depth().ready == before + 1).await;
            fastest = fastest.min(since.elapsed());
        }
        assert!(fastest < Duration::from_millis(100), "{name}: {fastest:?}");
    }
}

/// A check was scheduled before the message was stored; one that ran in between found nothing, and no other followed.
#[tokio::test]
async fn a_message_that_arrives_while_another_expires_expires_too() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let _housekeeping = fixture.housekeep();
    let dead = declare(&ns, "dead", QueueSpec::default());
    let by_queue =
        QueueLimits { message_ttl_ms: Some(50), dead_letter: dead_letter_to("dead"), ..Default::default() };
    let by_message = QueueLimits { dead_letter: dead_letter_to("dead"), ..QueueLimits::default() };
    let specs = [by_queue, by_message]
        .map(|limits| [QueueSpec { limits: limits.clone(), ..QueueSpec::default() }, durable(limits)]);
    for (n, spec) in specs.into_iter().flatten().enumerate() {
        let q = declare(&ns, &n.to_string(), spec);
        publish_with(&ns, queue(q.name()), "first", &expiring(50));
        let mut late = publisher(&ns);
        let headers = expiring(50);
        let second = Message { headers: headers.headers(), ..message(b"second") };
        late.publish(queue(q.name()), &second).unwrap();
        until("the first is dead-lettered", || dead.depth().ready == 2 * n as u64 + 1).await;
        late.flush().unwrap();
        until("the second is dead-lettered", || dead.depth().ready == 2 * n as u64 + 2).await;
    }
}

/// Batches of a topic's producer entered queues as if these had no limits.
#[tokio::test]
async fn limits_apply_to_batches_of_a_topics_producer() {
    let config = BrokerConfig { address_header: "to-address".into(), ..BrokerConfig::default() };
    let fixture = Fixture::with(config);
    let ns = fixture.namespace();
    let _housekeeping = fixture.housekeep();
    let spec = TopicSpec { partitions: 1, config: Default::default() };
    let (topic, _) = ns.create_topic("t", &spec).unwrap();
    let dead = declare(&ns, "dead", QueueSpec::default());
    let by_time = QueueLimits { message_ttl_ms: Some(20), ..QueueLimits::default() };
    let by_number = QueueLimits { messages_max: Some(1), ..QueueLimits::default() };
    let by_bytes = QueueLimits { bytes_max: Some(5), ..QueueLimits::default() };
    let mut dropped = 0;
    for (limits, drops) in [(by_time, 3), (by_number, 2), (by_bytes, 2)] {
        for (key, header) in [("t", None), ("by.name", Some("by/name"))] {
            for is_durable in [false, true] {
                let limits = QueueLimits { dead_letter: dead_letter_to("dead"), ..limits.clone() };
                let q = declare(&ns, "q", QueueSpec { durable: is_durable, limits, ..QueueSpec::default() });
                ns.bind("amq.topic", BindDestination::Queue("q"), key.as_bytes(), &Default::default())
                    .unwrap();
                let mut builder = BatchBuilder::new(0);
                for value in ["1234", "2345", "3456"] {
                    let header = header.map(|address| (&b"to-address"[..], Some(address.as_bytes())));
                    let headers: Vec<_> = header.into_iter().collect();
                    builder.push(inver_broker::now_ms(), None, &headers, Some(value.as_bytes()));
                }
                ns.produce(&topic, &topic.partition(0).unwrap(), builder.finish()).unwrap();
                dropped += drops;
                until("they are dead-lettered", || dead.depth().ready == dropped).await;
                assert_eq!(q.depth().ready, 3 - drops);
                ns.delete_queue("q", false, false).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_message_at_the_head_hides_expired_ones_behind_it() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let _housekeeping = fixture.housekeep();
    let dead = declare(&ns, "dead", QueueSpec::default());
    let q =
        declare(&ns, "q", durable(QueueLimits { dead_letter: dead_letter_to("dead"), ..Default::default() }));
    publish(&ns, queue("q"), "kept");
    publish_with(&ns, queue("q"), "expiring", &expiring(1));
    until("both are ready", || q.depth().ready == 2).await;
    let (mailbox, mut consumer) = attach(q.subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["kept"]);
    until("it is dead-lettered", || dead.depth().ready == 1).await;
}

#[tokio::test]
async fn an_unused_queue_expires() {
    let (fixture, clock) = Fixture::manual();
    let ns = fixture.namespace();
    let limits = QueueLimits { expires_after_ms: Some(50), ..QueueLimits::default() };
    let q = declare(&ns, "q", durable(limits));
    let (_mailbox, consumer) = attach(q.subscription());
    for _ in 0..3 {
        clock.advance(Duration::from_millis(49));
        fixture.broker.run_due();
    }
    assert!(ns.queue("q").is_some(), "it has a consumer");
    drop(consumer);
    clock.advance(Duration::from_millis(49));
    fixture.broker.run_due();
    assert!(ns.queue("q").is_some(), "it was used 49 ms ago");
    clock.advance(Duration::from_millis(51));
    fixture.broker.run_due();
    assert!(ns.queue("q").is_none());
}

/// A check put a requeued message in the place of the peeked one behind it, which was lost.
#[tokio::test]
async fn a_message_requeued_before_a_peeked_one_loses_neither() {
    for is_durable in [false, true] {
        let (fixture, clock) = Fixture::manual();
        let ns = fixture.namespace();
        let dead = declare(&ns, "dead", QueueSpec::default());
        let limits = QueueLimits {
            message_ttl_ms: Some(400),
            dead_letter: dead_letter_to("dead"),
            ..QueueLimits::default()
        };
        let q = declare(&ns, "q", QueueSpec { durable: is_durable, limits, ..QueueSpec::default() });
        publish(&ns, queue("q"), "1");
        let mut passive = passive(&q);
        let got = pull_now(&mut passive);
        clock.advance(Duration::from_millis(1));
        publish(&ns, queue("q"), "2");
        // The check scheduled for the first message peeks at the second, which expires a millisecond later.
        clock.advance(Duration::from_millis(399));
        fixture.broker.run_due();
        assert_eq!(dead.depth().ready, 0);
        publish(&ns, queue("q"), "3");
        let _ = passive.requeue(&[got[0].id]).unwrap();
        until("all are dead-lettered", || {
            clock.advance(Duration::from_millis(100));
            fixture.broker.run_due();
            dead.depth().ready == 3
        })
        .await;
        let (mailbox, mut consumer) = attach(dead.subscription());
        let mut all = values(&take(&mailbox, &mut consumer, 3).await);
        all.sort();
        assert_eq!(all, ["1", "2", "3"]);
    }
}

#[tokio::test]
async fn a_message_beyond_the_length_limit_is_in_its_dead_letter_queue_when_pulled() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let dead = declare(&ns, "dead", durable(QueueLimits::default()));
    let limits =
        QueueLimits { messages_max: Some(1), dead_letter: dead_letter_to("dead"), ..QueueLimits::default() };
    declare(&ns, "q", durable(limits));
    for i in 0..3 {
        publish(&ns, queue("q"), &i.to_string());
    }
    let mailbox = Mailbox::new();
    let spec = ConsumerSpec { passive: true, ..ConsumerSpec::new(mailbox.clone(), 1) };
    let mut passive = dead.subscription().attach(spec).unwrap();
    let mut got = Vec::new();
    while got.len() < 2 {
        let pull = passive.pull(1, usize::MAX, &mut got);
        if pull.pending {
            tokio::time::timeout(Duration::from_secs(60), mailbox.wait()).await.unwrap();
            mailbox.drain(&mut Vec::new());
        } else {
            assert!(pull.more, "the pull found nothing");
        }
    }
    assert_eq!(values(&got), ["0", "1"]);
}

#[tokio::test]
async fn a_reserved_message_is_delivered_to_another_if_the_consumer_does_not_pull() {
    for priority in [0, 1] {
        let fixture = Fixture::new();
        let ns = fixture.namespace();
        let _housekeeping = fixture.housekeep();
        let q = declare(&ns, "q", durable(QueueLimits::default()));
        let spec = ConsumerSpec { priority, ..ConsumerSpec::new(Mailbox::new(), 1) };
        let mut stuck = q.subscription().attach(spec).unwrap();
        let (mailbox, mut other) = attach(q.subscription());
        for consumer in [&mut stuck, &mut other] {
            assert_eq!(consumer.pull(1, usize::MAX, &mut Vec::new()), Pull::default());
        }
        publish(&ns, queue("q"), "1");
        tokio::time::timeout(Duration::from_secs(60), mailbox.wait()).await.expect("it is woken");
        assert_eq!(values(&pull_now(&mut other)), ["1"]);
    }
}
