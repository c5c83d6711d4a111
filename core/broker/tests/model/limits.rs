//! Every bound of a namespace, at the bound.

use crate::fixture::*;
use inver_broker::{
    BindDestination, BindError, BrokerConfig, CommittedOffset, ExchangeError, ExchangeKind, ExchangeSpec,
    LimitReached, Limits, Mode, Namespace, QueueError, QueueLimits, QueueSpec, SessionError, Start,
    SubscribeError, SubscriptionError, Target, TopicError, TopicSpec,
};

fn fixture(limits: Limits) -> (Fixture, Namespace) {
    let fixture = Fixture::with(BrokerConfig { limits, ..BrokerConfig::default() });
    let namespace = fixture.namespace();
    (fixture, namespace)
}

fn one_partition() -> TopicSpec {
    TopicSpec { partitions: 1, config: Default::default() }
}

#[tokio::test]
async fn topics_queues_exchanges_and_bindings_are_bounded() {
    let limits =
        Limits { topics_max: 2, queues_max: 2, exchanges_max: 8, bindings_max: 2, ..Limits::default() };
    let (_fixture, ns) = fixture(limits);
    ns.create_topic("t", &one_partition()).unwrap();
    declare(&ns, "a", durable(QueueLimits::default()));
    let topics = LimitReached { what: "topics", max: 2 };
    assert_eq!(ns.create_topic("u", &one_partition()).err(), Some(TopicError::Limit(topics)));
    let refused = ns.declare_queue("b", durable(QueueLimits::default()));
    assert_eq!(refused.err(), Some(QueueError::Limit(topics)), "it would be a topic");
    declare(&ns, "b", QueueSpec::default());
    let refused = ns.declare_queue("c", QueueSpec::default());
    assert_eq!(refused.err(), Some(QueueError::Limit(LimitReached { what: "queues", max: 2 })));
    declare(&ns, "b", QueueSpec::default());

    ns.declare_exchange("e", durable_exchange()).unwrap();
    let refused = ns.declare_exchange("f", durable_exchange());
    assert_eq!(refused.err(), Some(ExchangeError::Limit(LimitReached { what: "exchanges", max: 8 })));
    let bind = |queue: &str, key: &str| {
        ns.bind("e", BindDestination::Queue(queue), key.as_bytes(), &Default::default())
    };
    bind("a", "1").unwrap();
    bind("b", "1").unwrap();
    let refused = BindError::Limit(LimitReached { what: "bindings", max: 2 });
    assert_eq!(bind("a", "2").err(), Some(refused));
    bind("a", "1").expect("what is there stays");
}

#[tokio::test]
async fn sessions_and_their_subscriptions_are_bounded() {
    let (fixture, _ns) = fixture(Limits { sessions_max: 2, bindings_max: 2, ..Limits::default() });
    let (_, mut first) = open(&fixture.sessions(), "a", true).await;
    let (_, second) = open(&fixture.sessions(), "b", false).await;
    let terms = session_terms();
    let spec = |client_id| inver_broker::SessionSpec {
        client_id,
        clean_start: true,
        expiry: inver_broker::Expiry::AtDetach,
        mailbox: inver_broker::Mailbox::new(),
        terms: &terms,
        permissions: permissions(&fixture.sessions(), None, client_id),
    };
    let refused = fixture.sessions().open(spec("c")).await;
    assert_eq!(refused.err(), Some(SessionError::Limit(LimitReached { what: "sessions", max: 2 })));
    drop(second);
    fixture.sessions().open(spec("c")).await.expect("there is room again");
    first.session.subscribe(b"x", &guaranteed()).unwrap();
    first.session.subscribe(b"y", &guaranteed()).unwrap();
    first.session.subscribe(b"y", &Default::default()).expect("what is there can be changed");
    let refused = first.session.subscribe(b"z", &guaranteed());
    assert_eq!(refused.err(), Some(SubscribeError::Limit(LimitReached { what: "bindings", max: 2 })));
}

#[tokio::test]
async fn named_subscriptions_are_bounded_and_can_be_deleted() {
    let (fixture, ns) = fixture(Limits { subscriptions_max: 1, ..Limits::default() });
    let (topic, _) = ns.create_topic("t", &one_partition()).unwrap();
    let first = ns.subscribe(&topic, "s", Mode::Shared, true, Start::Earliest).unwrap();
    let refused = ns.subscribe(&topic, "u", Mode::Shared, true, Start::Earliest);
    let limit = LimitReached { what: "subscriptions", max: 1 };
    assert_eq!(refused.err(), Some(SubscriptionError::Limit(limit)));
    let (_, consumer) = attach(&first);
    assert_eq!(ns.delete_subscription(&topic, "s", true), Err(SubscriptionError::InUse("s".into())));
    drop(consumer);
    committed(&ns, ns.delete_subscription(&topic, "s", true).unwrap());
    assert_eq!(ns.delete_subscription(&topic, "s", true), Err(SubscriptionError::Unknown("s".into())));
    let passing = ns.subscribe(&topic, "u", Mode::Shared, false, Start::Earliest).unwrap();
    let (_, _consumer) = attach(&passing);
    let refused = ns.subscribe(&topic, "u", Mode::Shared, true, Start::Earliest);
    assert_eq!(refused.err(), Some(SubscriptionError::NotDurable));
    drop((ns, topic, first, passing));
    let ns = fixture.restart().namespace();
    assert!(ns.subscription(&ns.topic("t").unwrap(), "s").is_none());
}

#[tokio::test]
async fn idle_named_subscriptions_are_deleted() {
    let config = BrokerConfig { subscription_idle_ms: Some(1), ..BrokerConfig::default() };
    let fixture = Fixture::with(config);
    let ns = fixture.namespace();
    let (topic, _) = ns.create_topic("t", &one_partition()).unwrap();
    let idle = ns.subscribe(&topic, "idle", Mode::Shared, true, Start::Earliest).unwrap();
    let busy = ns.subscribe(&topic, "busy", Mode::Shared, true, Start::Earliest).unwrap();
    let (_, _consumer) = attach(&busy);
    until("it went", || {
        fixture.broker.keep_bounds();
        ns.subscription(&topic, "idle").is_none()
    })
    .await;
    assert!(ns.subscription(&topic, "busy").is_some());
    assert!(idle.attach(inver_broker::ConsumerSpec::new(inver_broker::Mailbox::new(), 1)).is_err());
}

#[tokio::test]
async fn retained_values_are_bounded_by_number_and_bytes() {
    let limits = Limits { retained_values_max: 2, retained_bytes_max: 400, ..Limits::default() };
    let (fixture, ns) = fixture(limits);
    let retain = |address: &str, value: &[u8], expires_ms: Option<i64>| {
        let mut headers = inver_broker::HeaderWriter::default();
        headers.begin("test", expires_ms);
        let mut p = publisher(&ns);
        let message = inver_broker::Message { headers: headers.headers(), ..message(value) };
        let retained = p.retain(address.as_bytes(), &message);
        committed(&ns, p.flush().unwrap());
        retained
    };
    retain("a", b"1", None).unwrap();
    retain("b", b"1", Some(inver_broker::now_ms() - 1)).unwrap();
    let refused = LimitReached { what: "retained values", max: 2 };
    assert_eq!(retain("c", b"1", None), Err(refused));
    retain("a", b"2", None).expect("what is there can be replaced");
    // One whose time is over makes room.
    fixture.broker.keep_bounds();
    assert_eq!(ns.retained().len(), 1);
    let refused = LimitReached { what: "bytes of retained values", max: 400 };
    assert_eq!(retain("c", &[b'x'; 300], None), Err(refused));
    retain("a", b"", None).unwrap();
    retain("c", &[b'x'; 250], None).unwrap();
}

#[test]
fn committed_offsets_are_bounded() {
    let (_fixture, ns) = fixture(Limits { committed_offsets_max: 2, ..Limits::default() });
    let offset = CommittedOffset { offset: 1, leader_epoch: -1, metadata: None, committed_ms: 0 };
    let two = [("t", 0, offset.clone()), ("t", 1, offset)];
    let offsets = ns.committed_offsets();
    offsets.room_for("g", &two).unwrap();
    offsets.commit(ns.log(), "g", &two).unwrap();
    offsets.room_for("g", &two).expect("what is there can be set again");
    let refused = LimitReached { what: "committed offsets", max: 2 };
    assert_eq!(offsets.room_for("h", &two[..1]), Err(refused));
    let _ = offsets.delete(ns.log(), "g", |_, partition| partition == 0).unwrap();
    offsets.room_for("h", &two[..1]).unwrap();
    assert_eq!(offsets.len(), 1);
}

/// Beyond the bound a part of the receivers was silently left out.
#[test]
fn a_publish_that_would_visit_too_many_exchanges_is_refused() {
    const VISITED_MAX: usize = 65_536;
    let (_fixture, ns) = fixture(Limits::default());
    let spec = || ExchangeSpec { kind: ExchangeKind::Fanout, durable: false, ..durable_exchange() };
    declare(&ns, "q", QueueSpec::default());
    let none = Default::default();
    let _ = ns.bind("amq.fanout", BindDestination::Queue("q"), b"", &none).unwrap();
    let mut last = "amq.fanout".to_owned();
    let mut refused = Vec::new();
    for n in 1..=VISITED_MAX {
        if n == 300 || n >= VISITED_MAX - 1 {
            let to = Target::Exchange { name: &last, routing_key: b"k", more_keys: &[] };
            let mut p = publisher(&ns);
            let routed = p.publish(to, &message(b"x")).unwrap();
            refused.push((routed.refused, p.is_empty()));
            p.discard();
        }
        let name = format!("e{n}");
        ns.declare_exchange(&name, spec()).unwrap();
        let _ = ns.bind(&name, BindDestination::Exchange(&last), b"", &none).unwrap();
        last = name;
    }
    let to = Target::Exchange { name: &last, routing_key: b"k", more_keys: &[] };
    let mut p = publisher(&ns);
    refused.push((p.publish(to, &message(b"x")).unwrap().refused, p.is_empty()));
    assert_eq!(refused, [(false, false), (false, false), (false, false), (true, true)]);
}
