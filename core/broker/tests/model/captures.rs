//! Captures: tombstones, and rules whose topic cannot be created.

use crate::fixture::*;
use inver_broker::{
    BrokerConfig, CaptureRule, Filter, Namespace, Publisher, PublisherId, Target, TopicConfig, TopicSpec,
};

fn rule(filter: &str, topic: &str, passes_on: bool) -> CaptureRule {
    CaptureRule {
        origin: None,
        filter: Filter::slashed(filter.as_bytes()),
        topic: topic.into(),
        key: "{address}".into(),
        tombstones: true,
        passes_on,
    }
}

fn retain(namespace: &Namespace, address: &str, value: &str) {
    let mut publisher = Publisher::new(namespace.clone(), PublisherId::default());
    let (_, retained) = publisher.publish_retained(address.as_bytes(), &message(value.as_bytes())).unwrap();
    retained.unwrap();
    committed(namespace, publisher.flush().unwrap());
}

#[tokio::test]
async fn a_cleared_retained_value_is_captured_as_a_tombstone() {
    let fixture =
        Fixture::with(BrokerConfig { captures: vec![rule("a/+", "last", false)], ..BrokerConfig::default() });
    let ns = fixture.namespace();
    let own =
        [("inver.capture.filter", "b/+"), ("inver.capture.tombstones", "true"), ("inver.headers", "none")];
    let plain = [("inver.capture.filter", "c/+")];
    for (name, settings) in [("own", &own[..]), ("plain", &plain)] {
        let config: TopicConfig =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ns.create_topic(name, &TopicSpec { partitions: 1, config }).unwrap();
    }
    let queue = declare(&ns, "q", durable(Default::default()));
    ns.bind("amq.topic", inver_broker::BindDestination::Queue("q"), b"#", &Default::default()).unwrap();
    for address in ["a/1", "b/1", "c/1"] {
        retain(&ns, address, "on");
        publish(&ns, Target::Hub(address.as_bytes()), "");
        retain(&ns, address, "");
    }
    let wanted = |address: &str, last: Option<&str>| {
        [Some("on"), Some(""), last].map(|value| (address.to_owned(), value.map(str::to_owned))).to_vec()
    };
    assert_eq!(stored(&ns, "last"), wanted("a/1", None));
    assert_eq!(stored(&ns, "own"), wanted("b/1", None));
    assert_eq!(stored(&ns, "plain"), wanted("c/1", Some("")));
    assert!(ns.retained().is_empty());
    // The others get the message as it was published.
    let (_, mut consumer) = attach(queue.subscription());
    let got = pull_now(&mut consumer);
    assert!(got.iter().all(|delivery| delivery.record.value.is_some()) && got.len() == 9);
}

#[tokio::test]
async fn what_cannot_be_captured_goes_to_the_next_rule_or_is_refused() {
    let captures = vec![rule("a/+", "x-{1}", true), rule("b/+", "x-{1}", false), rule("+/#", "rest", false)];
    let fixture = Fixture::with(BrokerConfig { captures, ..BrokerConfig::default() });
    let ns = fixture.namespace();
    let long = "l".repeat(250);
    let refused = |address: &str| {
        let mut publisher = publisher(&ns);
        let routed = publisher.publish(Target::Hub(address.as_bytes()), &message(b"v")).unwrap();
        committed(&ns, publisher.flush().unwrap());
        routed.refused
    };
    assert!(!refused("a/1") && !refused(&format!("a/{long}")) && refused(&format!("b/{long}")));
    assert_eq!(stored(&ns, "x-1").len(), 1);
    assert_eq!(stored(&ns, "rest"), [(format!("a/{long}"), Some("v".to_owned()))]);
}

#[tokio::test]
async fn a_message_that_is_refused_neither_sets_nor_clears_a_retained_value() {
    let captures = vec![rule("b/+", "x-{1}", false)];
    let fixture = Fixture::with(BrokerConfig { captures, ..BrokerConfig::default() });
    let ns = fixture.namespace();
    let mut publisher = publisher(&ns);
    let (kept, other) = (format!("b/{}", "k".repeat(250)), format!("b/{}", "o".repeat(250)));
    publisher.retain(kept.as_bytes(), &message(b"on")).unwrap();
    for (address, value) in [(&kept, ""), (&other, "on")] {
        let message = message(value.as_bytes());
        let (routed, retained) = publisher.publish_retained(address.as_bytes(), &message).unwrap();
        assert!(routed.refused && retained.is_ok());
    }
    committed(&ns, publisher.flush().unwrap());
    let (found, _) = ns.retained().list(&Filter::slashed(b"#"), None, 10, 100);
    let found: Vec<_> = found.iter().map(|(address, _)| &address[..]).collect();
    assert_eq!(found, [kept.as_bytes()]);
}

#[tokio::test]
async fn a_rule_that_passes_on_to_none_refuses() {
    let captures = vec![rule("a/+", "x-{1}", true)];
    let fixture = Fixture::with(BrokerConfig { captures, ..BrokerConfig::default() });
    let ns = fixture.namespace();
    let mut publisher = publisher(&ns);
    let address = format!("a/{}", "l".repeat(250));
    let routed = publisher.publish(Target::Hub(address.as_bytes()), &message(b"v")).unwrap();
    assert!(routed.refused);
}

#[tokio::test]
async fn records_of_a_topic_that_retains_set_and_clear_retained_values() {
    let config = BrokerConfig { address_header: "to-address".into(), ..BrokerConfig::default() };
    let fixture = Fixture::with(config);
    let ns = fixture.namespace();
    let settings = TopicConfig::from([("inver.hub.retain".to_owned(), "true".to_owned())]);
    let (retains, _) = ns.create_topic("commands", &TopicSpec { partitions: 1, config: settings }).unwrap();
    let plain = TopicSpec { partitions: 1, config: Default::default() };
    let (plain, _) = ns.create_topic("plain", &plain).unwrap();
    let send = |topic: &inver_broker::Topic, address: &str, retain: &str, value: &str| {
        let mut batch = inver_storage::BatchBuilder::new(0);
        let headers: [(&[u8], Option<&[u8]>); 2] =
            [(b"to-address", Some(address.as_bytes())), (b"mqtt-retain", Some(retain.as_bytes()))];
        batch.push(1, None, &headers, Some(value.as_bytes()));
        let partition = topic.partition(0).unwrap();
        let submitted = ns.produce(topic, &partition, batch.finish()).unwrap();
        committed(&ns, inver_broker::Completion::At(submitted.lsn));
    };
    send(&plain, "d/0", "1", "no");
    send(&retains, "d/0", "0", "no");
    send(&retains, "$SYS/d", "1", "no");
    assert!(ns.retained().is_empty());
    send(&retains, "d/1", "1", "on");
    send(&retains, "d/2", "true", "on");
    send(&retains, "d/1", "1", "");
    drop(ns);
    let fixture = fixture.restart();
    let (found, _) = fixture.namespace().retained().list(&Filter::slashed(b"#"), None, 10, 100);
    let found: Vec<_> =
        found.iter().map(|(address, record)| (&address[..], record.value.as_deref())).collect();
    assert_eq!(found, [(&b"d/2"[..], Some(&b"on"[..]))]);
}
