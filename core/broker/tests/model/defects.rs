//! Regression tests, each named after the behaviour that was broken.

use crate::fixture::*;
use bytes::Bytes;
use inver_broker::{
    BindDestination, BrokerConfig, CaptureRule, DeadLetter, Filter, HUB, HeaderWriter, HubMode, Limits,
    Mailbox, Mode, OwnerId, Pull, QueueLimits, QueueSpec, Start, SubscriptionOptions, Target, TopicSpec,
};
use inver_storage::{BatchBuilder, CommitPolicy, Compression, LogOptions, ProducerStamp};

/// A consumer that pulled all it had room for stayed on the waiting list; the next wake-up went to it while others were
/// idle.
#[tokio::test]
async fn a_busy_consumer_is_not_woken_in_place_of_an_idle_one() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", QueueSpec::default());
    let (busy_mailbox, mut busy) = attach(q.subscription());
    let (idle_mailbox, mut idle) = attach(q.subscription());
    publish(&ns, queue("q"), "0");
    let mut got = Vec::new();
    busy.pull(1, usize::MAX, &mut got);
    assert_eq!(got.len(), 1);
    assert_eq!(idle.pull(1, usize::MAX, &mut got), Pull::default());
    busy_mailbox.drain(&mut Vec::new());
    publish(&ns, queue("q"), "1");
    let mut tokens = Vec::new();
    idle_mailbox.drain(&mut tokens);
    assert_eq!(tokens, [1]);
    busy_mailbox.drain(&mut tokens);
    assert!(tokens.is_empty(), "it has no room until it pulls");
}

/// A consumer that was woken and had no room left the message undelivered.
#[tokio::test]
async fn a_woken_consumer_without_room_releases_the_message() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", QueueSpec::default());
    let (first_mailbox, mut first) = attach(q.subscription());
    let (second_mailbox, mut second) = attach(q.subscription());
    assert!(pull_now(&mut first).is_empty() && pull_now(&mut second).is_empty());
    publish(&ns, queue("q"), "0");
    let mut tokens = Vec::new();
    first_mailbox.drain(&mut tokens);
    assert_eq!(tokens, [1]);
    assert!(first.pull(0, usize::MAX, &mut Vec::new()).more);
    second_mailbox.drain(&mut tokens);
    assert_eq!(tokens, [1]);
}

/// After a spill was consumed, memory filled again and spilled again: the spilled messages were delivered first.
#[tokio::test]
async fn messages_in_memory_are_delivered_before_those_spilled_later() {
    let config = BrokerConfig { queue_memory_bytes_max: 400, ..BrokerConfig::default() };
    let fixture = Fixture::with(config);
    let ns = fixture.namespace();
    let q = declare(&ns, "q", QueueSpec::default());
    let (mailbox, mut consumer) = attach(q.subscription());
    let mut all = Vec::new();
    for round in 0..3 {
        for i in 0..20 {
            publish(&ns, queue("q"), &format!("{round}-{i:02}"));
        }
        all.extend(take(&mailbox, &mut consumer, 20).await);
    }
    let wanted: Vec<String> = (0..3).flat_map(|r| (0..20).map(move |i| format!("{r}-{i:02}"))).collect();
    assert_eq!(values(&all), wanted);
    // Requeued messages keep the order too, in memory and in the log.
    let ids: Vec<_> = all.iter().rev().map(|d| d.id).collect();
    let _ = consumer.requeue(&ids).unwrap();
    assert_eq!(values(&take(&mailbox, &mut consumer, 60).await), wanted);
}

/// The topic of a Kafka batch is the address of its messages, also of those that spilled.
#[tokio::test]
async fn a_spilled_batch_keeps_its_topic() {
    let config =
        BrokerConfig { queue_memory_bytes_max: 100, hub_default: HubMode::Open, ..BrokerConfig::default() };
    let fixture = Fixture::with(config);
    let ns = fixture.namespace();
    let spec = TopicSpec { partitions: 1, config: Default::default() };
    let topics = ["a.b", "a.c"].map(|name| ns.create_topic(name, &spec).unwrap().0);
    let q = declare(&ns, "q", QueueSpec::default());
    ns.bind(HUB, BindDestination::Queue("q"), b"a.#", &Default::default()).unwrap();
    for i in 0..12 {
        let topic = &topics[i / 2 % 2];
        let mut builder = BatchBuilder::new(0);
        builder.push(1, None, &[], Some(i.to_string().as_bytes()));
        let submitted = ns.produce(topic, &topic.partition(0).unwrap(), builder.finish()).unwrap();
        committed(&ns, Some(submitted.lsn));
    }
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 12).await;
    let names: Vec<_> = got.iter().map(|d| d.topic.as_deref().unwrap_or_default()).collect();
    assert_eq!(names, (0..12).map(|i| ["a.b", "a.c"][i / 2 % 2]).collect::<Vec<_>>());
}

/// Acknowledgements within an entry (of a transaction, a session's state) did not advance the cursor.
#[tokio::test]
async fn messages_acknowledged_within_an_entry_are_trimmed() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    // What was registered at the declaration is trimmed.
    fixture.broker.trim();
    publish(&ns, queue("q"), "0");
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 1).await;
    let mut p = publisher(&ns);
    p.attach_ack(&consumer, &[got[0].id]);
    committed(&ns, p.flush().unwrap());
    let partition = q.topic().unwrap().partition(0).unwrap();
    fixture.broker.trim();
    until("it is trimmed", || partition.stream().start().0 == 1).await;
}

/// The bytes of a durable queue were estimated from its stream, which keeps consumed messages for a while.
#[tokio::test]
async fn a_byte_limit_does_not_count_consumed_messages() {
    for durable in [false, true] {
        let fixture = Fixture::new();
        let ns = fixture.namespace();
        let limits = QueueLimits { bytes_max: Some(1000), ..QueueLimits::default() };
        let q = declare(&ns, "q", QueueSpec { durable, limits, ..QueueSpec::default() });
        let (mailbox, mut consumer) = attach(q.subscription());
        for _ in 0..20 {
            publish(&ns, queue("q"), &"x".repeat(400));
            let got = take(&mailbox, &mut consumer, 1).await;
            committed(&ns, consumer.ack(&[got[0].id]).unwrap());
        }
        let mut p = publisher(&ns);
        for i in 0..5 {
            p.publish(queue("q"), &message(format!("{i}{}", "x".repeat(399)).as_bytes())).unwrap();
        }
        committed(&ns, p.flush().unwrap());
        assert_eq!(q.depth().ready, 2);
        let got = take(&mailbox, &mut consumer, 2).await;
        assert!(values(&got)[0].starts_with('3'));
        // After a restart, ready messages are counted again.
        publish(&ns, queue("q"), &"x".repeat(400));
        publish(&ns, queue("q"), &"x".repeat(400));
        drop((consumer, q, p, ns));
        if durable {
            let fixture = fixture.restart();
            let q = fixture.namespace().queue("q").unwrap();
            // The first of them is read from disk in the background.
            let weighed = async {
                while q.depth().ready != 2 {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(60), weighed).await.expect("weighed");
        }
    }
}

/// Messages that were routed and then discarded, as by a transaction that cannot be committed, stayed counted.
#[tokio::test]
async fn a_byte_limit_does_not_count_discarded_messages() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let limits = QueueLimits { bytes_max: Some(10), ..QueueLimits::default() };
    let q = declare(&ns, "q", QueueSpec { limits, ..QueueSpec::default() });
    publish(&ns, queue("q"), "1234");
    let mut given_up = publisher(&ns);
    given_up.publish(queue("q"), &message(b"12345678")).unwrap();
    given_up.discard();
    publish(&ns, queue("q"), "5678");
    let (mailbox, mut consumer) = attach(q.subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 2).await), ["1234", "5678"]);
}

/// Batches of a topic's producer that were refused stayed counted, each time that they were sent.
#[tokio::test]
async fn a_byte_limit_does_not_count_refused_batches() {
    const HEADER: &[u8] = b"to-address";
    let limits = Limits { address_bytes_max: 20, ..Limits::default() };
    let hub_default = HubMode::Open;
    let config =
        BrokerConfig { address_header: "to-address".into(), hub_default, limits, ..BrokerConfig::default() };
    let options = LogOptions { commit: CommitPolicy::Os, entry_bytes_max: 64 << 10, ..LogOptions::default() };
    let fixture = Fixture::over(config, options);
    let ns = fixture.namespace();
    let spec = TopicSpec { partitions: 1, config: Default::default() };
    let topic = ns.create_topic("t", &spec).unwrap().0;
    let partition = topic.partition(0).unwrap();
    let long_address = "l".repeat(21);
    let batch = |records: &[(Option<&str>, &str)], base_sequence: Option<i32>| {
        let mut builder = BatchBuilder::new(0);
        for (address, value) in records {
            let header = address.map(|address| (HEADER, Some(address.as_bytes())));
            builder.push(inver_broker::now_ms(), None, header.as_slice(), Some(value.as_bytes()));
        }
        let stamp = base_sequence.map(|base_sequence| ProducerStamp {
            id: 1,
            epoch: 0,
            base_sequence,
            transactional: false,
            control: false,
        });
        builder.finish_as(Compression::None, stamp)
    };
    let long = "v".repeat(40 << 10);
    let refused = [
        batch(&[(Some("a/b"), "12345678"), (Some(&long_address), "")], None),
        batch(&[(Some("a/b"), &long), (Some("a/b"), &long)], None),
        batch(&[(Some("a/b"), "12345678"), (Some("c"), &long), (Some("c"), &long)], None),
        batch(&[(Some("a/b"), "12345678")], Some(5)),
        batch(&[(None, "12345678")], Some(5)),
    ];
    for durable in [true, false] {
        let limits = QueueLimits { bytes_max: Some(10), ..QueueLimits::default() };
        let q = declare(&ns, "q", QueueSpec { durable, limits, ..QueueSpec::default() });
        for key in [&b"a.b"[..], b"t"] {
            let bound = ns.bind(HUB, BindDestination::Queue("q"), key, &Default::default()).unwrap();
            committed(&ns, bound);
        }
        // The producer's sequence begins again.
        let first = ns.produce(&topic, &partition, batch(&[(None, "")], Some(i32::from(!durable))));
        committed(&ns, first.unwrap().lsn);
        for batch in &refused {
            ns.produce(&topic, &partition, batch.clone()).unwrap_err();
        }
        let kept = ns.produce(&topic, &partition, batch(&[(Some("a/b"), "kept")], None)).unwrap();
        committed(&ns, kept.lsn);
        let (mailbox, mut consumer) = attach(q.subscription());
        assert_eq!(values(&take(&mailbox, &mut consumer, 2).await), ["", "kept"]);
        drop(consumer);
        ns.delete_queue("q", false, false).unwrap();
    }
}

/// One entry for all messages that expired at once could exceed the log's limit, and a check had no bound.
#[tokio::test]
async fn many_messages_that_expire_at_once_are_all_dead_lettered() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let dead = declare(&ns, "dead", durable(QueueLimits::default()));
    let to_dead = DeadLetter { exchange: String::new(), routing_key: Some(b"dead".to_vec()) };
    let limits = QueueLimits { dead_letter: Some(to_dead), ..QueueLimits::default() };
    let q = declare(&ns, "q", durable(limits));
    let mut headers = HeaderWriter::default();
    headers.begin("test", Some(inver_broker::now_ms() - 1));
    let mut p = publisher(&ns);
    for i in 0..5000 {
        let value = i.to_string();
        let mut message = message(value.as_bytes());
        message.headers = headers.headers();
        p.publish(queue("q"), &message).unwrap();
    }
    committed(&ns, p.flush().unwrap());
    publish(&ns, queue("q"), "kept");
    let (mailbox, mut consumer) = attach(q.subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["kept"]);
    let (mailbox, mut consumer) = attach(dead.subscription());
    let got = take(&mailbox, &mut consumer, 5000).await;
    assert_eq!(values(&got), (0..5000).map(|i| i.to_string()).collect::<Vec<_>>());
}

/// Dead-lettering published under the topology lock, which a capture's new topic needs as well.
#[test]
fn deleting_a_queue_whose_dead_letters_create_a_topic_completes() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let rule = CaptureRule {
            origin: None,
            filter: Filter::slashed(b"#"),
            topic: "of.{address}".into(),
            key: "{address}".into(),
            tombstones: false,
            passes_on: false,
        };
        let fixture = Fixture::with(BrokerConfig { captures: vec![rule], ..BrokerConfig::default() });
        let ns = fixture.namespace();
        let to_hub = DeadLetter { exchange: HUB.into(), routing_key: Some(b"graves".to_vec()) };
        let limits =
            QueueLimits { messages_max: Some(1), dead_letter: Some(to_hub), ..QueueLimits::default() };
        declare(&ns, "q", durable(limits));
        for _ in 0..3 {
            publish(&ns, queue("q"), "x");
        }
        ns.delete_queue("q", false, false).unwrap();
        assert!(ns.topic("of.graves").is_some());
        done.send(()).unwrap();
    });
    ended.recv_timeout(std::time::Duration::from_secs(60)).expect("it ends");
}

/// A second declaration was answered before the first one was on disk.
#[tokio::test]
async fn a_second_declaration_waits_for_the_first() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let made = ns.declare_queue("q", durable(QueueLimits::default())).unwrap();
    let found = ns.declare_queue("q", durable(QueueLimits::default())).unwrap();
    assert!(!found.created && found.completion.lsn().is_some() && found.completion == made.completion);
    let made = ns.declare_exchange("e", durable_exchange()).unwrap();
    let found = ns.declare_exchange("e", durable_exchange()).unwrap();
    assert!(found.completion.lsn().is_some() && found.completion == made.completion);
    let bind = || ns.bind("e", BindDestination::Queue("q"), b"k", &Default::default()).unwrap();
    let first = bind();
    assert!(first.lsn().is_some() && bind() == first);
    let (topic, _) = ns.create_topic("t", &TopicSpec { partitions: 1, config: Default::default() }).unwrap();
    let s = ns.subscribe(&topic, "s", Mode::Shared, true, Start::Earliest).unwrap();
    assert!(s.made().lsn().is_some());
    let (_, opened) = open(&fixture.sessions(), "c", false).await;
    let spec = inver_broker::ConsumerSpec::new(Mailbox::new(), 1);
    let (_consumer, _, lsn) = opened.session.join(b"$share/s/t", &guaranteed(), Mode::Shared, spec).unwrap();
    assert_eq!(lsn, s.made());
}

/// A rejection is complete when its dead letter is committed.
#[tokio::test]
async fn a_rejection_completes_with_its_dead_letter() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    declare(&ns, "dead", durable(QueueLimits::default()));
    let to_dead = DeadLetter { exchange: String::new(), routing_key: Some(b"dead".to_vec()) };
    let q = declare(&ns, "q", durable(QueueLimits { dead_letter: Some(to_dead), ..QueueLimits::default() }));
    publish(&ns, queue("q"), "x");
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 1).await;
    let completion = consumer.reject(&[got[0].id]).unwrap();
    assert!(completion.lsn().is_some());
    committed(&ns, completion);
    assert_eq!(ns.queue("dead").unwrap().depth().ready, 1);
}

/// Connection numbers restart with the process: a connection must not own a queue of an earlier one.
#[tokio::test]
async fn exclusive_queues_are_gone_after_a_restart() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let spec = QueueSpec { owner: Some(OwnerId(1)), ..durable(QueueLimits::default()) };
    declare(&ns, "mine", spec);
    declare(&ns, "all", durable(QueueLimits::default()));
    drop(ns);
    let ns = fixture.restart().namespace();
    assert!(ns.queue("mine").is_none() && ns.queue("all").is_some());
}

/// The old binding was removed before the new one existed.
#[tokio::test]
async fn subscribing_again_misses_nothing() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (mailbox, mut opened) = open(&fixture.sessions(), "c", false).await;
    opened.session.subscribe(b"a/#", &guaranteed()).unwrap();
    let publishing = std::thread::spawn({
        let ns = ns.clone();
        move || {
            let mut p = publisher(&ns);
            for i in 0..2000 {
                p.publish(Target::Hub(b"a/b"), &message(i.to_string().as_bytes())).unwrap();
                p.flush().unwrap();
            }
        }
    });
    let mut again = SubscriptionOptions { opaque: Bytes::from("0"), ..guaranteed() };
    for i in 0..500 {
        again.opaque = Bytes::from(i.to_string());
        opened.session.subscribe(b"a/#", &again).unwrap();
    }
    publishing.join().unwrap();
    let mut got = Vec::new();
    opened.session.pull_inbox(3000, usize::MAX, &mut got);
    assert_eq!(got.len(), 2000);
    drop(mailbox);
}

/// The session was given to the next connection while the consumers of the last one were attached.
#[tokio::test]
async fn a_connection_that_takes_a_session_over_can_pull() {
    let fixture = Fixture::new();
    let (mut mailbox, mut opened) = open(&fixture.sessions(), "c", true).await;
    for _ in 0..100 {
        let holder = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(mailbox.wait());
            drop(opened);
        });
        (mailbox, opened) = open(&fixture.sessions(), "c", true).await;
        holder.join().unwrap();
        assert!(!opened.session.pull_inbox(1, usize::MAX, &mut Vec::new()).cancelled);
        assert!(!opened.session.pull_live(usize::MAX, &mut Vec::new()).cancelled);
        mailbox.drain(&mut Vec::new());
    }
}

#[tokio::test]
async fn a_passive_consumer_is_woken_after_a_cold_read() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let spec = QueueSpec { durable: true, ..QueueSpec::default() };
    committed(&ns, ns.declare_queue("q", spec).unwrap().completion);
    publish(&ns, queue("q"), "kept");
    drop(ns);
    let fixture = fixture.restart();
    let q = fixture.namespace().queue("q").expect("the queue is there again");
    let mailbox = Mailbox::new();
    let spec =
        inver_broker::ConsumerSpec { passive: true, ..inver_broker::ConsumerSpec::new(mailbox.clone(), 1) };
    let mut passive = q.subscription().attach(spec).unwrap();
    assert_eq!(values(&take(&mailbox, &mut passive, 1).await), ["kept"]);
}
