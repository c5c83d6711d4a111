//! Log topics in the hub: named, open, off, and internal ones.

use crate::fixture::*;
use inver_broker::{
    Address, BindDestination, BrokerConfig, CaptureRule, ExchangeKind, ExchangeSpec, Filter, Form, HUB,
    HubMode, Namespace, Queue, QueueSpec, Target, Topic, TopicConfig, TopicError, TopicSpec,
};
use inver_storage::BatchBuilder;
use std::sync::Arc;

const ADDRESS_HEADER: &[u8] = b"to-address";

fn config(hub_default: HubMode) -> BrokerConfig {
    BrokerConfig { hub_default, address_header: "to-address".into(), ..BrokerConfig::default() }
}

fn topic(namespace: &Namespace, name: &str, mode: Option<&str>) -> Arc<Topic> {
    let set = |mode: &str| ("inver.hub".to_owned(), mode.to_owned());
    let config = mode.map(set).into_iter().collect();
    namespace.create_topic(name, &TopicSpec { partitions: 1, config }).unwrap().0
}

/// A queue bound to the hub, which reads what the binding received.
fn bound(namespace: &Namespace, key: &str) -> Arc<Queue> {
    let queue = declare(namespace, &format!("q:{key}"), QueueSpec::default());
    bind(namespace, HUB, BindDestination::Queue(queue.name()), key);
    queue
}

fn bind(namespace: &Namespace, source: &str, to: BindDestination<'_>, key: &str) {
    let bound = namespace.bind(source, to, key.as_bytes(), &Default::default()).unwrap();
    committed(namespace, bound);
}

/// Produces one record, which may name an address.
fn produce(namespace: &Namespace, topic: &Topic, value: &str, address: Option<&str>) {
    let mut builder = BatchBuilder::new(0);
    let header = address.map(|address| (ADDRESS_HEADER, Some(address.as_bytes())));
    builder.push(1, Some(b"k"), header.as_slice(), Some(value.as_bytes()));
    let submitted = namespace.produce(topic, &topic.partition(0).unwrap(), builder.finish()).unwrap();
    committed(namespace, Some(submitted.lsn));
}

fn received(queue: &Queue) -> Vec<String> {
    let (_, mut consumer) = attach(queue.subscription());
    let got = pull_now(&mut consumer);
    consumer.ack(&got.iter().map(|delivery| delivery.id).collect::<Vec<_>>()).unwrap();
    values(&got)
}

fn records_in(topic: &Topic) -> u64 {
    topic.partition(0).unwrap().stream().next_offset().0
}

#[tokio::test]
async fn a_named_topic_meets_bindings_without_wildcards() {
    let fixture = Fixture::with(config(HubMode::Named));
    let ns = fixture.namespace();
    let t = topic(&ns, "a.b", None);
    let exact = bound(&ns, "a.b");
    let wild: Vec<_> = ["#", "a.#", "a.*", "*.b", "a.b.#"].map(|key| bound(&ns, key)).into();
    produce(&ns, &t, "record", None);
    assert_eq!(received(&exact), ["record"]);
    for queue in &wild {
        assert!(received(queue).is_empty(), "{}", queue.name());
    }
    // A publish at the address is appended, and routed to all bindings, as any other.
    publish(&ns, Target::Hub(b"a/b"), "publish");
    publish(&ns, exchange(HUB, "a.b"), "again");
    assert_eq!(records_in(&t), 3);
    assert_eq!(received(&wild[0]), ["publish", "again"]);
    assert_eq!(received(&exact), ["publish", "again"]);
}

#[tokio::test]
async fn an_exchange_bound_by_name_passes_a_named_topics_records_on() {
    let fixture = Fixture::with(config(HubMode::Named));
    let ns = fixture.namespace();
    let t = topic(&ns, "a.b", None);
    for (name, kind) in [("named", ExchangeKind::Topic), ("wild", ExchangeKind::Fanout)] {
        let spec = ExchangeSpec { kind, ..durable_exchange() };
        ns.declare_exchange(name, spec).unwrap();
    }
    let (by_name, by_wildcard) =
        (declare(&ns, "x", QueueSpec::default()), declare(&ns, "y", QueueSpec::default()));
    bind(&ns, HUB, BindDestination::Exchange("named"), "a.b");
    bind(&ns, HUB, BindDestination::Exchange("wild"), "a.*");
    bind(&ns, "named", BindDestination::Queue("x"), "#");
    bind(&ns, "named", BindDestination::Exchange(HUB), "#");
    bind(&ns, "wild", BindDestination::Queue("y"), "");
    produce(&ns, &t, "record", None);
    assert_eq!((received(&by_name), received(&by_wildcard)), (vec!["record".to_owned()], vec![]));
    assert_eq!(records_in(&t), 1);
}

#[tokio::test]
async fn an_open_topic_meets_wildcards_and_one_that_is_off_meets_nobody() {
    let fixture = Fixture::with(config(HubMode::Open));
    let ns = fixture.namespace();
    let (open, off) = (topic(&ns, "a.open", None), topic(&ns, "a.off", Some("off")));
    let (all, exact) = (bound(&ns, "#"), bound(&ns, "a.off"));
    for t in [&open, &off] {
        produce(&ns, t, t.name(), None);
        produce(&ns, t, t.name(), Some("device/1"));
    }
    assert_eq!(received(&all), ["a.open", "a.open"]);
    assert!(received(&exact).is_empty());
    assert_eq!(publish(&ns, Target::Hub(b"a/open"), "p"), 2);
    assert_eq!(publish(&ns, Target::Hub(b"a/off"), "p"), 2, "the two queues");
    assert_eq!((records_in(&open), records_in(&off)), (3, 2));
    // The setting can be changed while clients are subscribed, and is kept across a restart.
    let change = |ns: &Namespace, name: &str, mode: &str| {
        let config = TopicConfig::from([("inver.hub".to_owned(), mode.to_owned())]);
        committed(ns, Some(ns.alter_config(name, config).unwrap()));
    };
    received(&all);
    change(&ns, "a.off", "open");
    change(&ns, "a.open", "off");
    produce(&ns, &off, "now open", None);
    produce(&ns, &open, "now off", None);
    assert_eq!(received(&all), ["now open"]);
    drop((ns, all, exact, open, off));
    let ns = fixture.restart().namespace();
    let mode = |name| ns.topic(name).unwrap().hub();
    assert_eq!((mode("a.off"), mode("a.open")), (HubMode::Open, HubMode::Off));
}

#[tokio::test]
async fn internal_topics_are_always_off() {
    let fixture = Fixture::with(config(HubMode::Open));
    let ns = fixture.namespace();
    let schemas = topic(&ns, "_schemas", None);
    let (all, exact) = (bound(&ns, "#"), bound(&ns, "_schemas"));
    produce(&ns, &schemas, "secret", None);
    produce(&ns, &schemas, "secret", Some("_schemas"));
    assert_eq!(publish(&ns, Target::Hub(b"_schemas"), "poison"), 2);
    assert_eq!((received(&all), received(&exact)), (vec!["poison".to_owned()], vec!["poison".to_owned()]));
    assert_eq!(records_in(&schemas), 2);
    for mode in ["named", "open"] {
        let config = TopicConfig::from([("inver.hub".to_owned(), mode.to_owned())]);
        let refused = ns.alter_config("_schemas", config.clone());
        assert!(matches!(refused, Err(TopicError::BadConfig(_))), "{refused:?}");
        let refused = ns.create_topic("app-store-changelog", &TopicSpec { partitions: 1, config });
        assert!(matches!(refused, Err(TopicError::BadConfig(_))), "{mode}");
    }
}

#[tokio::test]
async fn a_record_that_names_its_address_is_published_there_whatever_the_mode_but_off() {
    for (mode, goes) in [("named", true), ("open", true), ("off", false)] {
        let fixture = Fixture::with(config(HubMode::Named));
        let ns = fixture.namespace();
        let (from, to) = (topic(&ns, "commands", Some(mode)), topic(&ns, "device.1", None));
        let (wild, own) = (bound(&ns, "device.#"), bound(&ns, "commands"));
        let mut builder = BatchBuilder::new(0);
        builder.push(1, None, &[], Some(b"plain"));
        builder.push(1, None, &[(ADDRESS_HEADER, Some(b"device/1"))], Some(b"on"));
        let submitted = ns.produce(&from, &from.partition(0).unwrap(), builder.finish()).unwrap();
        committed(&ns, Some(submitted.lsn));
        let wanted = |value: &str| if goes { vec![value.to_owned()] } else { vec![] };
        assert_eq!((received(&wild), received(&own)), (wanted("on"), wanted("plain")), "{mode}");
        assert_eq!((records_in(&from), records_in(&to)), (2, u64::from(goes)), "{mode}");
    }
}

#[tokio::test]
async fn captures_take_the_records_of_named_topics_and_not_of_those_that_are_off() {
    let capture = CaptureRule {
        origin: None,
        filter: Filter::slashed(b"#"),
        topic: "all".into(),
        key: "{address}".into(),
        tombstones: false,
        passes_on: false,
    };
    let fixture = Fixture::with(BrokerConfig { captures: vec![capture], ..config(HubMode::Named) });
    let ns = fixture.namespace();
    let (named, schemas) = (topic(&ns, "a", None), topic(&ns, "_schemas", None));
    produce(&ns, &schemas, "secret", None);
    assert!(ns.topic("all").is_none());
    produce(&ns, &named, "record", None);
    assert_eq!(records_in(&ns.topic("all").unwrap()), 1);
}

#[tokio::test]
async fn a_queue_is_not_heard_under_its_name() {
    let fixture = Fixture::with(config(HubMode::Open));
    let ns = fixture.namespace();
    let queue = declare(&ns, "work", durable(Default::default()));
    let (all, exact, device) = (bound(&ns, "#"), bound(&ns, "work"), bound(&ns, "device"));
    let t = ns.topic("work").unwrap();
    produce(&ns, &t, "job", None);
    produce(&ns, &t, "command", Some("device"));
    assert_eq!(received(&queue), ["job", "command"]);
    assert_eq!((received(&all), received(&exact)), (vec!["command".to_owned()], vec![]));
    assert_eq!(received(&device), ["command"]);
}

#[test]
fn an_exact_filter_is_one_address() {
    let exact = Filter::dotted(b"a%2Eb.c").as_address();
    assert_eq!(exact, Some(Address::parse(Form::Slashed, b"a.b/c")));
}
