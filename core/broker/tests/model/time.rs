//! What time does, and who is counted on: consumers that wait, messages that grow too old.

use std::time::{Duration, Instant};

use crate::fixture::*;
use inver_broker::{
    BindDestination, BrokerConfig, Consumer, ConsumerSpec, HeaderWriter, Mailbox, Message, Pull, QueueLimits,
    QueueSpec, TopicSpec,
};
use inver_storage::BatchBuilder;

fn asking(queue: &inver_broker::Queue) -> Consumer {
    let spec = ConsumerSpec { passive: true, ..ConsumerSpec::new(Mailbox::new(), 1) };
    queue.subscription().attach(spec).unwrap()
}

fn expiring(after_ms: i64) -> HeaderWriter {
    let mut headers = HeaderWriter::default();
    headers.begin("test", Some(inver_broker::now_ms() + after_ms));
    headers
}

#[tokio::test]
async fn who_only_asks_gets_nothing_while_a_consumer_waits() {
    for spec in [QueueSpec::default(), durable(QueueLimits::default())] {
        let fixture = Fixture::new();
        let ns = fixture.namespace();
        let q = declare(&ns, "q", spec);
        let mut asking = asking(&q);
        publish(&ns, queue("q"), "0");
        assert_eq!(values(&pull_now(&mut asking)), ["0"], "nobody waits");
        let (mailbox, mut consumer) = attach(q.subscription());
        assert_eq!(consumer.pull(1, usize::MAX, &mut Vec::new()), Pull::default());
        publish(&ns, queue("q"), "1");
        assert!(pull_now(&mut asking).is_empty(), "it is on its way to the consumer");
        assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["1"]);
        publish(&ns, queue("q"), "2");
        assert_eq!(values(&pull_now(&mut asking)), ["2"], "the consumer took all it wanted");
    }
}

#[tokio::test]
async fn what_has_no_time_to_live_reaches_who_waits_and_nobody_else() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let _house = fixture.housekeep();
    let limits = QueueLimits { message_ttl_ms: Some(0), dead_letter: dead_to("dead"), ..Default::default() };
    let dead = declare(&ns, "dead", QueueSpec::default());
    let by_queue = declare(&ns, "ttl", durable(limits));
    let by_message =
        declare(&ns, "own", durable(QueueLimits { dead_letter: dead_to("dead"), ..QueueLimits::default() }));
    for (q, mut died) in [(by_queue, 0), (by_message, 2)] {
        let send = |value: &str| {
            let headers = if q.name() == "own" { expiring(0) } else { HeaderWriter::default() };
            publish_with(&ns, queue(q.name()), value, &headers);
        };
        send("for nobody");
        died += 1;
        until("it died", || dead.depth().ready == died).await;
        let (mailbox, mut consumer) = attach(q.subscription());
        assert_eq!(consumer.pull(1, usize::MAX, &mut Vec::new()), Pull::default());
        send("for the consumer");
        let got = take(&mailbox, &mut consumer, 1).await;
        assert_eq!(values(&got), ["for the consumer"]);
        // It waits again, but what comes back has no grace.
        assert!(!consumer.pull(1, usize::MAX, &mut Vec::new()).more);
        consumer.requeue(&[got[0].id]);
        died += 1;
        until("it died", || dead.depth().ready == died).await;
        assert!(pull_now(&mut consumer).is_empty());
    }
}

#[tokio::test]
async fn the_dead_are_buried_when_their_time_has_come() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let _house = fixture.housekeep();
    let dead = declare(&ns, "dead", durable(QueueLimits::default()));
    let limits =
        QueueLimits { message_ttl_ms: Some(1), dead_letter: dead_to("dead"), ..QueueLimits::default() };
    for (name, spec) in
        [("m", QueueSpec { limits: limits.clone(), ..QueueSpec::default() }), ("d", durable(limits))]
    {
        declare(&ns, name, spec);
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let before = dead.depth().ready;
            let since = Instant::now();
            publish(&ns, queue(name), "x");
            until("it died", || dead.depth().ready == before + 1).await;
            fastest = fastest.min(since.elapsed());
        }
        assert!(fastest < Duration::from_millis(100), "{name}: {fastest:?}");
    }
}

/// It was noted when the queue is to be looked at before the message was in it: whoever looked between found nothing,
/// and nobody looked again.
#[tokio::test]
async fn one_that_comes_while_the_one_before_it_dies_is_not_forgotten() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let _house = fixture.housekeep();
    let dead = declare(&ns, "dead", QueueSpec::default());
    let by_queue =
        QueueLimits { message_ttl_ms: Some(50), dead_letter: dead_to("dead"), ..Default::default() };
    let by_message = QueueLimits { dead_letter: dead_to("dead"), ..QueueLimits::default() };
    let specs = [by_queue, by_message]
        .map(|limits| [QueueSpec { limits: limits.clone(), ..QueueSpec::default() }, durable(limits)]);
    for (n, spec) in specs.into_iter().flatten().enumerate() {
        let q = declare(&ns, &n.to_string(), spec);
        publish_with(&ns, queue(q.name()), "first", &expiring(50));
        let mut late = publisher(&ns);
        let headers = expiring(50);
        let second = Message { headers: headers.headers(), ..message(b"second") };
        late.publish(queue(q.name()), &second).unwrap();
        until("the first died", || dead.depth().ready == 2 * n as u64 + 1).await;
        late.flush().unwrap();
        until("the second died", || dead.depth().ready == 2 * n as u64 + 2).await;
    }
}

/// A batch of a topic's producer came into queues as if these had no limits.
#[tokio::test]
async fn what_a_topics_producer_sends_dies_as_any_other() {
    let config = BrokerConfig { address_header: "to-address".into(), ..BrokerConfig::default() };
    let fixture = Fixture::with(config);
    let ns = fixture.namespace();
    let _house = fixture.housekeep();
    let spec = TopicSpec { partitions: 1, config: Default::default() };
    let (topic, _) = ns.create_topic("t", &spec).unwrap();
    let dead = declare(&ns, "dead", QueueSpec::default());
    let by_time = QueueLimits { message_ttl_ms: Some(20), ..QueueLimits::default() };
    let by_number = QueueLimits { messages_max: Some(1), ..QueueLimits::default() };
    let by_bytes = QueueLimits { bytes_max: Some(5), ..QueueLimits::default() };
    let mut died = 0;
    for (limits, dies) in [(by_time, 3), (by_number, 2), (by_bytes, 2)] {
        for (key, header) in [("t", None), ("by.name", Some("by/name"))] {
            for is_durable in [false, true] {
                let limits = QueueLimits { dead_letter: dead_to("dead"), ..limits.clone() };
                let q = declare(&ns, "q", QueueSpec { durable: is_durable, limits, ..QueueSpec::default() });
                ns.bind("amq.topic", BindDestination::Queue("q"), key.as_bytes(), &Default::default())
                    .unwrap();
                let mut builder = BatchBuilder::new(0);
                for value in ["1234", "2345", "3456"] {
                    let header = header.map(|address| (&b"to-address"[..], Some(address.as_bytes())));
                    let headers: Vec<_> = header.into_iter().collect();
                    builder.push(inver_broker::now_ms(), None, &headers, Some(value.as_bytes()));
                }
                topic.partition(0).unwrap().produce(&ns, &topic, builder.finish()).unwrap();
                died += dies;
                until("they died", || dead.depth().ready == died).await;
                assert_eq!(q.depth().ready, 3 - dies);
                ns.delete_queue("q", false, false).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn one_that_lives_on_hides_the_dead_behind_it_until_it_is_taken() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let _house = fixture.housekeep();
    let dead = declare(&ns, "dead", QueueSpec::default());
    let q = declare(&ns, "q", durable(QueueLimits { dead_letter: dead_to("dead"), ..Default::default() }));
    publish(&ns, queue("q"), "lives");
    publish_with(&ns, queue("q"), "dies", &expiring(1));
    until("both wait", || q.depth().ready == 2).await;
    let (mailbox, mut consumer) = attach(q.subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["lives"]);
    until("it died", || dead.depth().ready == 1).await;
}

#[tokio::test]
async fn a_queue_that_nobody_uses_goes_in_its_time() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let _house = fixture.housekeep();
    let limits = QueueLimits { expires_after_ms: Some(50), ..QueueLimits::default() };
    let q = declare(&ns, "q", durable(limits));
    let (_mailbox, consumer) = attach(q.subscription());
    let since = Instant::now();
    until("100 ms have passed", || since.elapsed() > Duration::from_millis(100)).await;
    assert!(ns.queue("q").is_some(), "it has a consumer");
    drop(consumer);
    until("it is gone", || ns.queue("q").is_none()).await;
}

/// A look put the message that had come back in the place of the one that waited behind it, which was lost.
#[tokio::test]
async fn one_that_comes_back_before_one_that_was_looked_at_leaves_both() {
    for is_durable in [false, true] {
        let fixture = Fixture::new();
        let ns = fixture.namespace();
        let _house = fixture.housekeep();
        let dead = declare(&ns, "dead", QueueSpec::default());
        let limits =
            QueueLimits { message_ttl_ms: Some(400), dead_letter: dead_to("dead"), ..QueueLimits::default() };
        let q = declare(&ns, "q", QueueSpec { durable: is_durable, limits, ..QueueSpec::default() });
        publish(&ns, queue("q"), "1");
        let mut asking = asking(&q);
        let got = pull_now(&mut asking);
        publish(&ns, queue("q"), "2");
        // The look that the first message armed finds the second.
        let since = Instant::now();
        until("it was looked at", || since.elapsed() > Duration::from_millis(450) || dead.depth().ready > 0)
            .await;
        publish(&ns, queue("q"), "3");
        asking.requeue(&[got[0].id]);
        until("all died", || dead.depth().ready == 3).await;
        let (mailbox, mut mourner) = attach(dead.subscription());
        let mut all = values(&take(&mailbox, &mut mourner, 3).await);
        all.sort();
        assert_eq!(all, ["1", "2", "3"]);
    }
}

#[tokio::test]
async fn what_has_no_room_is_where_it_goes_when_somebody_asks_for_it() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let dead = declare(&ns, "dead", durable(QueueLimits::default()));
    let limits =
        QueueLimits { messages_max: Some(1), dead_letter: dead_to("dead"), ..QueueLimits::default() };
    declare(&ns, "q", durable(limits));
    for i in 0..3 {
        publish(&ns, queue("q"), &i.to_string());
    }
    let mailbox = Mailbox::new();
    let spec = ConsumerSpec { passive: true, ..ConsumerSpec::new(mailbox.clone(), 1) };
    let mut asking = dead.subscription().attach(spec).unwrap();
    let mut got = Vec::new();
    while got.len() < 2 {
        let pull = asking.pull(1, usize::MAX, &mut got);
        if pull.pending {
            tokio::time::timeout(Duration::from_secs(10), mailbox.wait()).await.unwrap();
            mailbox.drain(&mut Vec::new());
        } else {
            assert!(pull.more, "it was told that there is nothing");
        }
    }
    assert_eq!(values(&got), ["0", "1"]);
}

#[tokio::test]
async fn a_message_goes_to_another_when_the_consumer_that_was_called_never_comes() {
    for priority in [0, 1] {
        let fixture = Fixture::new();
        let ns = fixture.namespace();
        let _house = fixture.housekeep();
        let q = declare(&ns, "q", durable(QueueLimits::default()));
        let spec = ConsumerSpec { priority, ..ConsumerSpec::new(Mailbox::new(), 1) };
        let mut stuck = q.subscription().attach(spec).unwrap();
        let (mailbox, mut other) = attach(q.subscription());
        for consumer in [&mut stuck, &mut other] {
            assert_eq!(consumer.pull(1, usize::MAX, &mut Vec::new()), Pull::default());
        }
        publish(&ns, queue("q"), "1");
        tokio::time::timeout(Duration::from_secs(10), mailbox.wait()).await.expect("it is woken");
        assert_eq!(values(&pull_now(&mut other)), ["1"]);
    }
}
