//! What exchanges keep of the messages published, for queues that are bound later.

use inver_storage::LogOptions;

use super::*;
use crate::namespace::{BindDestination, BindError};
use crate::spec::{BrokerConfig, ExchangeSpec, Overflow, QueueLimits, QueueSpec};
use crate::testing;
use crate::value::{Arguments, Value};

fn exchange(namespace: &Namespace, name: &str, kind: ExchangeKind, alternate: Option<&str>) -> Arc<Exchange> {
    let alternate = alternate.map(|to| ("alternate-exchange".to_owned(), Value::Text(to.into())));
    let arguments = alternate.into_iter().collect();
    let spec = ExchangeSpec { kind, durable: true, auto_delete: false, internal: false, arguments };
    namespace.declare_exchange(name, spec).unwrap().it
}

fn queue(namespace: &Namespace, name: &str, limits: QueueLimits) -> Arc<Queue> {
    let spec = QueueSpec { durable: true, limits, ..QueueSpec::default() };
    namespace.declare_queue(name, spec).unwrap().it
}

fn bind(namespace: &Namespace, source: &str, to: BindDestination<'_>) -> Result<Completion, BindError> {
    namespace.bind(source, to, b"#", &Arguments::new())
}

fn publisher(namespace: &Namespace) -> Publisher {
    Publisher::new(namespace.clone(), PublisherId::default())
}

fn publish(publisher: &mut Publisher, to: Target<'_>, value: &[u8]) -> Routed {
    let (headers, value) = (Headers::default(), Some(value));
    let message = Message { timestamp_ms: 1, key: None, value, headers, guaranteed: true, lookup: None };
    publisher.publish(to, &message).unwrap()
}

fn to(name: &str) -> Target<'_> {
    Target::Exchange { name, routing_key: b"a", more_keys: &[] }
}

fn kept(exchange: &Exchange) -> Vec<Vec<u8>> {
    let all = exchange.history().unwrap().messages();
    all.iter().flat_map(|one| records(one).unwrap()).map(|r| r.unwrap().value.unwrap().to_vec()).collect()
}

/// Messages given to a queue, and their bytes.
fn given(queue: &Queue) -> (u64, u64) {
    queue.subscription().submitted()
}

#[test]
fn what_was_not_published_is_not_kept() {
    let namespace = testing::namespace(BrokerConfig::default());
    let last = exchange(&namespace, "last", ExchangeKind::RecentHistory, None);
    let mut publisher = publisher(&namespace);
    publish(&mut publisher, to("last"), b"discarded");
    publisher.discard();
    publish(&mut publisher, to("last"), b"flushed");
    assert!(!publisher.is_empty(), "there is something to flush though no queue is bound");
    assert_eq!(kept(&last), Vec::<Vec<u8>>::new(), "before the flush");
    let _ = publisher.flush().unwrap();
    assert_eq!(kept(&last), [b"flushed"]);

    let full =
        QueueLimits { messages_max: Some(1), overflow: Overflow::RejectPublish, ..QueueLimits::default() };
    let queue = queue(&namespace, "q", full);
    let _ = bind(&namespace, "last", BindDestination::Queue("q")).unwrap();
    assert_eq!(given(&queue).0, 1);
    assert!(publish(&mut publisher, to("last"), b"refused").refused);
    let _ = publisher.flush().unwrap();
    assert_eq!(kept(&last), [b"flushed"]);

    let ex = Target::Exchange { name: "last", routing_key: b"a", more_keys: &[b"b"] };
    let _ = namespace.delete_queue("q", false, false);
    publish(&mut publisher, ex, b"keys");
    namespace.log().shutdown().unwrap();
    publish(&mut publisher, to("last"), b"rejected by the log");
    publisher.attach(|entry| entry.put(crate::rows::SPILLS, Bytes::from_static(b"key"), Bytes::new()));
    publisher.flush().unwrap_err();
    assert_eq!(kept(&last), [b"flushed"]);
}

#[test]
fn what_arrives_by_another_exchange_is_kept() {
    let namespace = testing::namespace(BrokerConfig::default());
    let last = exchange(&namespace, "last", ExchangeKind::RecentHistory, None);
    let second = exchange(&namespace, "second", ExchangeKind::RecentHistory, None);
    exchange(&namespace, "direct", ExchangeKind::Direct, Some("last"));
    for (source, to) in [(HUB, "last"), ("last", "second")] {
        let _ = bind(&namespace, source, BindDestination::Exchange(to)).unwrap();
    }
    let mut publisher = publisher(&namespace);
    publish(&mut publisher, to("direct"), b"alternate");
    // By the cached route too.
    publish(&mut publisher, to("direct"), b"again");
    publish(&mut publisher, Target::Hub(b"a/b"), b"hub");
    publish(&mut publisher, to(HUB), b"bound");
    publish(&mut publisher, to("last"), b"itself");
    let _ = publisher.flush().unwrap();
    let all: [&[u8]; 5] = [b"alternate", b"again", b"hub", b"bound", b"itself"];
    assert_eq!(kept(&last), all);
    assert_eq!(kept(&second), all);
}

#[test]
fn a_bind_whose_messages_the_log_rejects_leaves_nothing() {
    let namespace = testing::namespace(BrokerConfig::default());
    let last = exchange(&namespace, "last", ExchangeKind::RecentHistory, None);
    let queue = queue(&namespace, "q", QueueLimits { bytes_max: Some(1000), ..QueueLimits::default() });
    let mut publisher = publisher(&namespace);
    publish(&mut publisher, to("last"), b"message");
    let _ = publisher.flush().unwrap();
    namespace.log().shutdown().unwrap();
    let bound = bind(&namespace, "last", BindDestination::Queue("q"));
    assert!(matches!(bound, Err(BindError::Log(_))), "{bound:?}");
    assert_eq!(last.binding_count(), 0);
    assert_eq!(given(&queue), (0, 0));
}

#[test]
fn more_messages_than_an_entry_takes_are_given_in_parts() {
    let options = LogOptions { entry_bytes_max: 1 << 20, ..LogOptions::default() };
    let mut config = BrokerConfig::default();
    config.limits.exchange_history_bytes_max = 4 << 20;
    let namespace = testing::namespace_with(config, options);
    exchange(&namespace, "last", ExchangeKind::RecentHistory, None);
    let queue = queue(&namespace, "q", QueueLimits::default());
    let mut publisher = publisher(&namespace);
    for bytes in [400_000, 400_000, 1_000_000, 10, 400_000, 1_000_000] {
        publish(&mut publisher, to("last"), &vec![0; bytes]);
        let _ = publisher.flush().unwrap();
    }
    let _ = bind(&namespace, "last", BindDestination::Queue("q")).unwrap();
    assert_eq!(given(&queue).0, 6);
    assert_eq!(namespace.exchange("last").unwrap().binding_count(), 1);
}

#[test]
fn a_full_queue_gets_no_more_than_it_takes() {
    let namespace = testing::namespace(BrokerConfig::default());
    exchange(&namespace, "last", ExchangeKind::RecentHistory, None);
    let mut publisher = publisher(&namespace);
    for _ in 0..5 {
        publish(&mut publisher, to("last"), b"message");
    }
    let _ = publisher.flush().unwrap();
    for overflow in [Overflow::RejectPublish, Overflow::RejectPublishDeadLetter] {
        let name = format!("{overflow:?}");
        let queue = queue(
            &namespace,
            &name,
            QueueLimits { messages_max: Some(2), overflow, ..QueueLimits::default() },
        );
        let _ = bind(&namespace, "last", BindDestination::Queue(&name)).unwrap();
        assert_eq!(given(&queue).0, 2, "{name}");
    }
}
