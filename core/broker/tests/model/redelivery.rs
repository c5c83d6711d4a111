//! What was delivered before the process ended comes back as such: as often as it was returned, and once more if it was with a
//! consumer at the end. The process is killed: nothing is written at its end.

use std::sync::Arc;

use crate::fixture::*;
use inver_broker::{
    Broker, BrokerConfig, Delivery, Expiry, Mailbox, Mode, Namespace, QueueLimits, SessionSpec, Start,
    TopicSpec, Will,
};
use inver_storage::medium::fake::FakeMedium;
use inver_storage::{BatchBuilder, Log, LogOptions, SystemClock};

fn open_on(medium: &FakeMedium) -> Broker {
    let options = LogOptions { preallocate: false, ..LogOptions::default() };
    let log = Log::open_on(Arc::new(medium.clone()), Arc::new(SystemClock), options).expect("the log opens");
    Broker::open(log, BrokerConfig::default()).expect("the broker opens")
}

/// What a process that is killed now leaves.
fn killed(broker: &Broker, medium: &FakeMedium) -> FakeMedium {
    let log = broker.log();
    log.wait_committed_blocking(log.submitted()).unwrap();
    medium.image()
}

fn counts(deliveries: &[Delivery]) -> Vec<u32> {
    deliveries.iter().map(|delivery| delivery.redelivered).collect()
}

fn publish_many(namespace: &Namespace, count: usize) {
    let mut p = publisher(namespace);
    for n in 0..count {
        p.publish(queue("q"), &message(n.to_string().as_bytes())).unwrap();
    }
    committed(namespace, p.flush().unwrap());
}

#[tokio::test]
async fn what_is_with_a_consumer_at_a_crash_counts_as_delivered() {
    let mut medium = FakeMedium::new(3);
    let broker = open_on(&medium);
    declare(&broker.default_namespace(), "q", durable(QueueLimits::default()));
    publish_many(&broker.default_namespace(), 5);
    medium = killed(&broker, &medium);
    for life in 0..4 {
        let broker = open_on(&medium);
        let queue = broker.default_namespace().queue("q").unwrap();
        let (mailbox, mut consumer) = attach(queue.subscription());
        assert_eq!(counts(&take(&mailbox, &mut consumer, 2).await), [life; 2]);
        medium = killed(&broker, &medium);
    }
    let broker = open_on(&medium);
    let (mailbox, mut consumer) = attach(broker.default_namespace().queue("q").unwrap().subscription());
    assert_eq!(counts(&take(&mailbox, &mut consumer, 5).await), [4, 4, 0, 0, 0]);
}

#[tokio::test]
async fn messages_that_a_consumer_returned_keep_their_count() {
    let medium = FakeMedium::new(4);
    let broker = open_on(&medium);
    let ns = broker.default_namespace();
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    // More than are counted one by one.
    publish_many(&ns, 3000);
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 2500).await;
    let _ = consumer.ack(&[got[0].id]).unwrap();
    drop(consumer);
    for _ in 0..2 {
        let (mailbox, mut consumer) = attach(q.subscription());
        take(&mailbox, &mut consumer, 10).await;
        drop(consumer);
    }
    let broker = open_on(&killed(&broker, &medium));
    let (mailbox, mut consumer) = attach(broker.default_namespace().queue("q").unwrap().subscription());
    let found = counts(&take(&mailbox, &mut consumer, 2999).await);
    assert_eq!((found[0], found[9], found[10], found[2498], found[2499]), (3, 3, 1, 1, 0));
    assert!(found[2499..].iter().all(|count| *count == 0), "these were never delivered");
}

#[tokio::test]
async fn named_subscriptions_count_too_and_deleted_ones_leave_nothing() {
    let medium = FakeMedium::new(5);
    let broker = open_on(&medium);
    let ns = broker.default_namespace();
    let (topic, _) = ns.create_topic("t", &TopicSpec { partitions: 2, config: Default::default() }).unwrap();
    for name in ["kept", "deleted"] {
        let subscription = ns.subscribe(&topic, name, Mode::Shared, true, Start::Earliest).unwrap();
        for partition in 0..2 {
            let mut batch = BatchBuilder::new(0);
            batch.push(0, None, &[], Some(b"x"));
            let lsn = ns.produce(&topic, &topic.partition(partition).unwrap(), batch.finish()).unwrap().lsn;
            committed(&ns, Some(lsn));
        }
        let (mailbox, mut consumer) = attach(&subscription);
        take(&mailbox, &mut consumer, 2).await;
        std::mem::forget(consumer);
    }
    let _ = ns.delete_subscription(&topic, "deleted", false).unwrap();
    let broker = open_on(&killed(&broker, &medium));
    let ns = broker.default_namespace();
    let topic = ns.topic("t").unwrap();
    let (mailbox, mut consumer) = attach(&ns.subscription(&topic, "kept").unwrap());
    let mut found = counts(&take(&mailbox, &mut consumer, 4).await);
    found.sort_unstable();
    assert_eq!(found, [0, 0, 1, 1]);
}

/// The will of a client whose session ends with its connection was lost with the process.
#[tokio::test]
async fn the_will_of_a_client_without_a_lasting_session_is_published_after_a_crash() {
    let medium = FakeMedium::new(6);
    let broker = open_on(&medium);
    let (ns, sessions, terms) = (broker.default_namespace(), broker.default_sessions(), session_terms());
    declare(&ns, "wills", durable(QueueLimits::default()));
    let to = inver_broker::BindDestination::Queue("wills");
    committed(&ns, ns.bind(inver_broker::HUB, to, b"w", &Default::default()).unwrap());
    let mut held = Vec::new();
    for client_id in ["crashed", "left", "died"] {
        let spec = SessionSpec {
            client_id,
            clean_start: true,
            expiry: Expiry::AtDetach,
            mailbox: Mailbox::new(),
            terms: &terms,
            permissions: permissions(&sessions, None, client_id),
        };
        let session = sessions.open(spec).await.unwrap().session;
        let will = Will { retain: true, ..will(client_id.as_bytes(), 5) };
        committed(&ns, session.set_will(Some(will)).unwrap());
        held.push(session);
    }
    // One ended with a DISCONNECT, one without.
    let _ = held[1].set_will(None).unwrap();
    held.drain(1..);
    let mut medium = killed(&broker, &medium);
    for _ in 0..2 {
        let broker = open_on(&medium);
        broker.run_due();
        medium = killed(&broker, &medium);
        let ns = broker.default_namespace();
        let (mailbox, mut consumer) = attach(ns.queue("wills").unwrap().subscription());
        assert_eq!(values(&take(&mailbox, &mut consumer, 2).await), ["died", "crashed"]);
        assert!(pull_now(&mut consumer).is_empty(), "each is published once");
        assert_eq!(ns.retained().len(), 1);
    }
}

/// The client cancelled its will by coming back, although its connection had ended with the process and the will had no delay.
#[tokio::test]
async fn a_will_without_a_delay_is_published_though_its_client_is_back_at_once_after_a_crash() {
    let medium = FakeMedium::new(7);
    let broker = open_on(&medium);
    let terms = session_terms();
    let (ns, sessions) = (broker.default_namespace(), broker.default_sessions());
    declare(&ns, "wills", durable(QueueLimits::default()));
    let to = inver_broker::BindDestination::Queue("wills");
    committed(&ns, ns.bind(inver_broker::HUB, to, b"w", &Default::default()).unwrap());
    let spec = |sessions: &inver_broker::Sessions| SessionSpec {
        client_id: "back",
        clean_start: false,
        expiry: Expiry::Never,
        mailbox: Mailbox::new(),
        terms: &terms,
        permissions: permissions(sessions, None, "back"),
    };
    let session = sessions.open(spec(&sessions)).await.unwrap().session;
    committed(&ns, session.set_will(Some(will(b"gone", 0))).unwrap());
    let killed = killed(&broker, &medium);
    let broker = open_on(&killed);
    let sessions = broker.default_sessions();
    let opened = sessions.open(spec(&sessions)).await.unwrap();
    assert!(opened.present);
    let wills = broker.default_namespace().queue("wills").unwrap();
    committed(&broker.default_namespace(), broker.log().submitted());
    assert_eq!(wills.depth().ready, 1);
    std::mem::forget(session);
}

/// The will that a client set after it was back was in the row of the one that was still to be published.
#[tokio::test]
async fn each_of_two_crashes_publishes_its_will_though_the_client_sets_the_next_at_once() {
    let medium = FakeMedium::new(9);
    let mut broker = open_on(&medium);
    let mut medium = medium;
    let terms = session_terms();
    let ns = broker.default_namespace();
    declare(&ns, "wills", durable(QueueLimits::default()));
    let to = inver_broker::BindDestination::Queue("wills");
    committed(&ns, ns.bind(inver_broker::HUB, to, b"w", &Default::default()).unwrap());
    let mut held = Vec::new();
    for text in ["first", "second"] {
        let (ns, sessions) = (broker.default_namespace(), broker.default_sessions());
        let spec = SessionSpec {
            client_id: "back",
            clean_start: true,
            expiry: Expiry::AtDetach,
            mailbox: Mailbox::new(),
            terms: &terms,
            permissions: permissions(&sessions, None, "back"),
        };
        let session = sessions.open(spec).await.unwrap().session;
        committed(&ns, session.set_will(Some(will(text.as_bytes(), 0))).unwrap());
        held.push(session);
        // As at a start: before any client, and long before the first round of housekeeping.
        medium = killed(&broker, &medium);
        broker = open_on(&medium);
        broker.publish_recovered_wills();
    }
    let ns = broker.default_namespace();
    committed(&ns, broker.log().submitted());
    let (mailbox, mut consumer) = attach(ns.queue("wills").unwrap().subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 2).await), ["first", "second"]);
    std::mem::forget(held);
}

/// The reserve of the row that tells what is with consumers counted as delivered what was published later.
#[tokio::test]
async fn what_is_published_after_a_restart_was_not_delivered_before() {
    let medium = FakeMedium::new(8);
    let broker = open_on(&medium);
    let ns = broker.default_namespace();
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    let (mailbox, mut consumer) = attach(q.subscription());
    for _ in 0..20 {
        publish_many(&ns, 1);
        take(&mailbox, &mut consumer, 1).await;
    }
    let broker = open_on(&killed(&broker, &medium));
    std::mem::forget(consumer);
    let ns = broker.default_namespace();
    publish_many(&ns, 5);
    let (mailbox, mut consumer) = attach(ns.queue("q").unwrap().subscription());
    let found = counts(&take(&mailbox, &mut consumer, 25).await);
    assert!(
        found[..20].iter().all(|count| *count == 1) && found[20..].iter().all(|count| *count == 0),
        "{found:?}"
    );
}
