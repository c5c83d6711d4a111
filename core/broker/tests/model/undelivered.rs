//! Dead letters without a receiver, in queues that keep them until there is one.

use std::sync::Arc;

use crate::fixture::*;
use crate::refused::fail;
use inver_broker::{
    BindDestination, Broker, BrokerConfig, Clock, ConsumerSpec, DeadLetter, ExchangeSpec, Mailbox, Overflow,
    QueueLimits, QueueSpec, Value,
};
use inver_storage::medium::fake::FakeMedium;
use inver_storage::{CommitPolicy, Log, LogOptions, SystemClock};

fn at_least_once(exchange: &str) -> QueueSpec {
    let text = |text: &str| Value::Text(text.as_bytes().to_vec());
    let limits = QueueLimits {
        dead_letter: Some(DeadLetter { exchange: exchange.into(), routing_key: Some(b"k".to_vec()) }),
        overflow: Overflow::RejectPublish,
        ..QueueLimits::default()
    };
    let arguments = [("x-queue-type", "quorum"), ("x-dead-letter-strategy", "at-least-once")];
    let arguments = arguments.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
    QueueSpec { arguments, ..durable(limits) }
}

/// A marker took its place, which had no route either and was kept: the next try met the damage again, without end.
#[tokio::test]
async fn a_dead_letter_without_a_route_leaves_once_it_cannot_be_read() {
    let clock = Clock::manual(1_700_000_000_000);
    let config = BrokerConfig { clock: clock.clone(), ..BrokerConfig::default() };
    let cold = LogOptions { commit: CommitPolicy::Os, tail_cache_bytes_max: 1024, ..LogOptions::default() };
    let fixture = Fixture::over(config, cold);
    let _housekeeping = fixture.housekeep();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", at_least_once("nowhere"));
    let value = "x".repeat(5000);
    publish(&ns, queue("q"), &value);
    for _ in 0..10 {
        publish(&ns, queue("q"), &"y".repeat(5000));
    }
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 1).await;
    assert!(damage(&fixture, value.as_bytes()), "it is in a file");
    let _ = consumer.reject(&[got[0].id]).unwrap();
    until("it has left", || {
        clock.advance(std::time::Duration::from_millis(500));
        q.counts().ready == 10
    })
    .await;
}

/// Flips a bit of what is stored as this in the log. Whether it is found.
fn damage(fixture: &Fixture, stored: &[u8]) -> bool {
    let files = std::fs::read_dir(fixture.dir.path()).unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "seg")) {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(stored.len()).position(|found| found == stored) {
            bytes[at + stored.len() / 2] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_dead_letter_without_a_route_stays_until_there_is_one() {
    let (fixture, clock) = Fixture::manual();
    let _housekeeping = fixture.housekeep();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", at_least_once("dlx"));
    for value in ["a", "b", "c"] {
        publish(&ns, queue("q"), value);
    }
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 3).await;
    let _ = consumer.reject(&[got[0].id, got[1].id]).unwrap();
    let _ = consumer.ack(&[got[2].id]).unwrap();
    assert_eq!((q.counts().ready, q.counts().unacked), (2, 0));
    assert!(pull_now(&mut consumer).is_empty(), "no consumer gets them");
    let spec = ConsumerSpec { passive: true, ..ConsumerSpec::new(Mailbox::new(), 1) };
    let mut getter = q.subscription().attach(spec).unwrap();
    assert!(!getter.pull(1, usize::MAX, &mut Vec::new()).pending, "one who asks once is not kept waiting");
    let spec = ExchangeSpec { kind: inver_broker::ExchangeKind::Fanout, ..durable_exchange() };
    let declared = ns.declare_exchange("dlx", spec).unwrap();
    committed(&ns, declared.completion);
    let dead = declare(&ns, "dead", durable(QueueLimits::default()));
    assert_eq!(dead.depth().ready, 0);
    ns.bind("dlx", BindDestination::Queue("dead"), b"", &Default::default()).unwrap();
    until("they are delivered", || {
        clock.advance(std::time::Duration::from_millis(500));
        dead.counts().ready == 2
    })
    .await;
    until("they have left", || q.counts().ready == 0).await;
    let (mailbox, mut consumer) = attach(dead.subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 2).await), ["a", "b"]);
}

#[tokio::test]
async fn a_full_target_gets_its_dead_letters_once_it_has_room_and_no_other_gets_them_twice() {
    let (fixture, clock) = Fixture::manual();
    let _housekeeping = fixture.housekeep();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", at_least_once("amq.fanout"));
    let other = declare(&ns, "other", durable(QueueLimits::default()));
    let limits =
        QueueLimits { messages_max: Some(1), overflow: Overflow::RejectPublish, ..QueueLimits::default() };
    let full = declare(&ns, "full", durable(limits));
    for name in ["other", "full"] {
        ns.bind("amq.fanout", BindDestination::Queue(name), b"", &Default::default()).unwrap();
    }
    publish(&ns, queue("full"), "before");
    publish(&ns, queue("q"), "a");
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 1).await;
    let _ = consumer.reject(&[got[0].id]).unwrap();
    for _ in 0..20 {
        clock.advance(std::time::Duration::from_millis(500));
        tokio::task::yield_now().await;
    }
    until("it is back", || q.counts().ready == 1).await;
    assert_eq!((other.counts().ready, full.counts().ready), (0, 1));
    let (mailbox, mut consumer) = attach(full.subscription());
    let got = take(&mailbox, &mut consumer, 1).await;
    let _ = consumer.ack(&[got[0].id]).unwrap();
    until("it is delivered, to each once", || {
        clock.advance(std::time::Duration::from_millis(5000));
        (q.counts().ready, other.counts().ready, full.counts().ready) == (0, 1, 1)
    })
    .await;
}

#[tokio::test]
async fn an_undelivered_dead_letter_survives_a_restart_and_counts_against_the_length() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let mut spec = at_least_once("nowhere");
    spec.limits.messages_max = Some(1);
    let q = declare(&ns, "q", spec);
    publish(&ns, queue("q"), "a");
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 1).await;
    let _ = consumer.reject(&[got[0].id]).unwrap();
    let mut publisher = publisher(&ns);
    let routed = publisher.publish(queue("q"), &message(b"b")).unwrap();
    assert!(routed.refused, "the queue is full of it");
    drop((consumer, q, publisher, ns));
    let fixture = fixture.restart();
    let q = fixture.namespace().queue("q").unwrap();
    let (mailbox, mut consumer) = attach(q.subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["a"]);
}

/// It was neither with a consumer nor in the queue until the next restart.
#[tokio::test]
async fn dead_letters_that_the_log_rejects_stay_in_the_queue() {
    let medium = FakeMedium::new(7);
    let log = Log::open_on(Arc::new(medium.clone()), Arc::new(SystemClock), LogOptions::default()).unwrap();
    let broker = Broker::open(log.clone(), BrokerConfig::default()).unwrap();
    let ns = broker.default_namespace();
    let q = declare(&ns, "q", at_least_once("dlx"));
    declare(&ns, "dead", durable(QueueLimits::default()));
    ns.declare_exchange("dlx", durable_exchange()).unwrap();
    ns.bind("dlx", BindDestination::Queue("dead"), b"k", &Default::default()).unwrap();
    for value in ["a", "b"] {
        publish(&ns, queue("q"), value);
    }
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 2).await;
    fail(&log, &medium, &broker).await;
    consumer.reject(&[got[0].id, got[1].id]).unwrap_err();
    assert_eq!((q.counts().ready, q.counts().unacked), (2, 0));
}
