//! Where the address spaces meet: captures, topics by name, records that name an address, sessions, retained.

use crate::fixture::*;
use bytes::Bytes;
use inver_broker::{
    BindDestination, BindError, BrokerConfig, CaptureRule, DeadLetter, Delivery, Expiry, Filter, HUB,
    InboxBounds, LimitReached, Limits, Mailbox, Message, Namespace, PublishError, QueueError, QueueLimits,
    QueueSpec, Session, SubscribeError, Target, TopicSpec, Will,
};
use inver_storage::{BatchBuilder, Read, records};

fn config() -> BrokerConfig {
    BrokerConfig {
        captures: vec![CaptureRule {
            origin: Some("test".into()),
            filter: Filter::slashed(b"#"),
            topic: "captured".into(),
            key: "{address}".into(),
            tombstones: false,
            passes_on: false,
        }],
        topics: vec![("captured".into(), 1)],
        address_header: "to-address".into(),
        origins: vec!["test"],
        ..BrokerConfig::default()
    }
}

async fn inbox(mailbox: &Mailbox, session: &mut Session, count: usize) -> Vec<Delivery> {
    let mut got = Vec::new();
    while got.len() < count {
        session.pull_inbox(count, usize::MAX, &mut got);
        if got.len() < count {
            let wait = tokio::time::timeout(std::time::Duration::from_secs(60), mailbox.wait());
            assert!(wait.await.is_ok(), "waited for {count}, got {}", got.len());
            mailbox.drain(&mut Vec::new());
        }
    }
    got
}

#[tokio::test]
async fn a_publish_is_captured_under_its_address_and_reaches_the_topic_of_its_name() {
    let fixture = Fixture::with(config());
    let ns = fixture.namespace();
    ns.create_topic("a.b%2Fc.d", &TopicSpec { partitions: 1, config: Default::default() }).unwrap();
    ns.create_topic("s.r.t", &TopicSpec { partitions: 1, config: Default::default() }).unwrap();
    publish(&ns, Target::Hub(b"s/r/t"), "1");
    publish(&ns, exchange(HUB, "s.r.t"), "2");
    publish(&ns, Target::Hub(b"$own/x"), "3");
    let value = |value: &str| Some(value.to_owned());
    assert_eq!(stored(&ns, "captured"), [("s/r/t".into(), value("1")), ("s/r/t".into(), value("2"))]);
    let of_topic: Vec<Option<String>> = stored(&ns, "s.r.t").into_iter().map(|(_, v)| v).collect();
    assert_eq!(of_topic, [value("1"), value("2")]);
}

#[tokio::test]
async fn queues_and_sessions_receive_produced_batches_once() {
    let fixture = Fixture::with(config());
    let ns = fixture.namespace();
    let (topic, _) = ns
        .create_topic("a.b.c", &TopicSpec { partitions: 1, ..settings_of(&[("inver.hub", "open")]) })
        .unwrap();
    let q = ns.declare_queue("q", QueueSpec { durable: true, ..QueueSpec::default() }).unwrap().it;
    ns.bind(HUB, BindDestination::Queue("q"), b"a.#", &Default::default()).unwrap();
    ns.bind(HUB, BindDestination::Queue("q"), b"*.b.*", &Default::default()).unwrap();
    let (mailbox, mut opened) = open(&fixture.sessions(), "c1", true).await;
    opened.session.subscribe(b"a/+/c", &guaranteed()).unwrap();
    let mut builder = BatchBuilder::new(0);
    builder.push(1, Some(b"k"), &[], Some(b"plain"));
    builder.push(2, Some(b"k"), &[], Some(b"second"));
    let partition = topic.partition(0).unwrap();
    let submitted = ns.produce(&topic, &partition, builder.finish()).unwrap();
    committed(&ns, Some(submitted.lsn));
    let got = inbox(&mailbox, &mut opened.session, 2).await;
    assert_eq!(values(&got), ["plain", "second"]);
    assert_eq!(got[0].topic.as_deref(), Some("a.b.c"));
    let (mailbox, mut consumer) = attach(q.subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 2).await), ["plain", "second"]);
    assert!(pull_now(&mut consumer).is_empty());
    assert!(stored(&ns, "captured").is_empty(), "what a topic's producer sent is not captured");
}

#[tokio::test]
async fn a_record_is_routed_to_the_address_it_names() {
    let fixture = Fixture::with(config());
    let ns = fixture.namespace();
    let (topic, _) =
        ns.create_topic("commands", &TopicSpec { partitions: 1, config: Default::default() }).unwrap();
    let (mailbox, mut opened) = open(&fixture.sessions(), "device", true).await;
    opened.session.subscribe(b"dev/1/#", &guaranteed()).unwrap();
    let mut builder = BatchBuilder::new(0);
    builder.push(1, None, &[(b"to-address", Some(b"dev/1/on"))], Some(b"yes"));
    builder.push(1, None, &[(b"to-address", Some(b"dev/2/on"))], Some(b"no"));
    let partition = topic.partition(0).unwrap();
    committed(&ns, Some(ns.produce(&topic, &partition, builder.finish()).unwrap().lsn));
    assert_eq!(values(&inbox(&mailbox, &mut opened.session, 1).await), ["yes"]);
    assert_eq!(stored(&ns, "commands").len(), 2);
}

#[tokio::test]
async fn a_durable_session_finds_what_it_missed_across_a_restart() {
    let fixture = Fixture::with(config());
    let ns = fixture.namespace();
    {
        let (_, mut opened) = open(&fixture.sessions(), "c1", true).await;
        opened.session.subscribe(b"a/#", &guaranteed()).unwrap();
        let _ = opened.session.put(Bytes::from("k"), Bytes::from("v")).unwrap();
    }
    publish(&ns, Target::Hub(b"a/1"), "offline");
    publish(&ns, Target::Hub(b"b/1"), "not mine");
    drop(ns);
    let fixture = fixture.restart();
    let ns = fixture.namespace();
    publish(&ns, Target::Hub(b"a/2"), "after the restart");
    let (mailbox, mut opened) = open(&fixture.sessions(), "c1", true).await;
    assert!(opened.present);
    assert_eq!(opened.subscriptions.len(), 1);
    assert_eq!(opened.state, [(Bytes::from("k"), Bytes::from("v"))]);
    let got = inbox(&mailbox, &mut opened.session, 2).await;
    assert_eq!(values(&got), ["offline", "after the restart"]);
    committed(&ns, opened.session.ack(&[got[0].id.offset]).unwrap());
    drop(opened);
    let (mailbox, mut opened) = open(&fixture.sessions(), "c1", true).await;
    assert_eq!(values(&inbox(&mailbox, &mut opened.session, 1).await), ["after the restart"]);
}

/// Housekeeping, which trims the inboxes that a connection reads, does not run.
#[tokio::test]
async fn acknowledged_messages_are_trimmed_when_a_session_detaches() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (_, mut opened) = open(&fixture.sessions(), "c", true).await;
    opened.session.subscribe(b"a/#", &guaranteed()).unwrap();
    drop(opened);
    let sent: Vec<String> = (0..5).map(|i| i.to_string()).collect();
    for value in &sent {
        publish(&ns, Target::Hub(b"a/1"), value);
    }
    let is_inbox = |stream: &inver_storage::Stream| stream.next_offset().0 == 5;
    let inbox_stream =
        (0..100).filter_map(|id: u64| fixture.broker.log().stream(id.into())).find(is_inbox).unwrap();

    let (mailbox, mut opened) = open(&fixture.sessions(), "c", true).await;
    let got = inbox(&mailbox, &mut opened.session, 5).await;
    assert_eq!(values(&got), sent);
    let _ = opened.session.ack(&[0, 1, 2, 4]).unwrap();
    assert_eq!(inbox_stream.start().0, 0);
    drop(opened);
    until("it is trimmed", || inbox_stream.start().0 == 3).await;

    // One that leaves for good takes all of it along.
    let (mailbox, mut opened) = open(&fixture.sessions(), "c", true).await;
    assert_eq!(values(&inbox(&mailbox, &mut opened.session, 1).await), ["3"]);
    let _ = opened.session.set_expiry(Expiry::AtDetach).unwrap();
    drop(opened);
    until("it is gone", || fixture.broker.log().stream(inbox_stream.id()).is_none()).await;
    assert_eq!(fixture.sessions().len(), 0);
}

#[tokio::test]
async fn a_session_is_taken_over_and_a_transient_one_ends_with_its_connection() {
    let fixture = Fixture::with(config());
    let (mailbox, opened) = open(&fixture.sessions(), "c", false).await;
    let _ = opened.session.set_expiry(Expiry::AtDetach).unwrap();
    let holder = tokio::spawn(async move {
        let mut tokens = Vec::new();
        while !tokens.contains(&3) {
            mailbox.wait().await;
            mailbox.drain(&mut tokens);
        }
        drop(opened);
    });
    let (_, second) = open(&fixture.sessions(), "c", true).await;
    holder.await.unwrap();
    assert!(!second.present);
    assert_eq!(fixture.sessions().len(), 1);
}

#[tokio::test]
async fn a_will_is_published_unless_cleared_and_retained_values_are_found() {
    let fixture = Fixture::with(config());
    let ns = fixture.namespace();
    let last = || Will { address: b"status/c".to_vec(), retain: true, ..will(b"gone", 0) };
    let (_, opened) = open(&fixture.sessions(), "c", false).await;
    let _ = opened.session.set_will(Some(last())).unwrap();
    let _ = opened.session.set_will(None).unwrap();
    drop(opened);
    assert!(ns.retained().is_empty());
    let (_, opened) = open(&fixture.sessions(), "c", false).await;
    let _ = opened.session.set_will(Some(last())).unwrap();
    drop(opened);
    let mut found = Vec::new();
    assert_eq!(ns.retained().scan(&Filter::slashed(b"status/+"), None, 10, &mut found), None);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].value.as_deref(), Some(&b"gone"[..]));
    drop(ns);
    let fixture = fixture.restart();
    assert_eq!(fixture.namespace().retained().len(), 1);
    let ns = fixture.namespace();
    let mut p = publisher(&ns);
    p.retain(b"status/c", &Message { value: Some(b""), ..message(b"") }).unwrap();
    p.flush().unwrap();
    assert!(ns.retained().is_empty());
}

/// Who subscribes, and looks for retained values, while a retained message is routed but not stored yet, hears it.
#[tokio::test]
async fn a_subscription_during_a_retained_publish_receives_it() {
    let fixture = Fixture::with(config());
    let ns = fixture.namespace();
    let (earlier, mut before) = open(&fixture.sessions(), "before", true).await;
    before.session.subscribe(b"status/#", &guaranteed()).unwrap();
    let mut p = publisher(&ns);
    let news = Message { guaranteed: true, ..message(b"news") };
    p.retain(b"status/c", &news).unwrap();
    p.publish(Target::Hub(b"status/c"), &news).unwrap();
    let (mailbox, mut amid) = open(&fixture.sessions(), "amid", true).await;
    amid.session.subscribe(b"status/#", &guaranteed()).unwrap();
    let mut found = Vec::new();
    ns.retained().scan(&Filter::slashed(b"status/#"), None, 10, &mut found);
    assert!(found.is_empty());
    committed(&ns, p.flush().unwrap());
    assert_eq!(values(&inbox(&mailbox, &mut amid.session, 1).await), ["news"]);
    assert_eq!(values(&inbox(&earlier, &mut before.session, 1).await), ["news"]);
    publish(&ns, Target::Hub(b"status/d"), "once");
    assert_eq!(values(&inbox(&earlier, &mut before.session, 1).await), ["once"]);
}

#[tokio::test]
async fn an_inbox_beyond_its_bound_drops_the_oldest() {
    let inbox = InboxBounds { messages_max: 10, ..InboxBounds::default() };
    let fixture = Fixture::with(BrokerConfig { inbox, ..config() });
    let ns = fixture.namespace();
    {
        let (_, mut opened) = open(&fixture.sessions(), "c", true).await;
        opened.session.subscribe(b"a/#", &guaranteed()).unwrap();
    }
    for i in 0..25 {
        publish(&ns, Target::Hub(b"a/1"), &i.to_string());
    }
    // Found by the log at the commit, not in a round of housekeeping.
    fixture.broker.bound_full_inboxes();
    let (mailbox, mut opened) = open(&fixture.sessions(), "c", true).await;
    let got = self::inbox(&mailbox, &mut opened.session, 10).await;
    assert_eq!(values(&got), (15..25).map(|i: i32| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_inbox_beyond_its_bytes_drops_the_oldest() {
    let inbox = InboxBounds { bytes_max: 20_000, ..InboxBounds::default() };
    let fixture = Fixture::with(BrokerConfig { inbox, ..config() });
    let ns = fixture.namespace();
    {
        let (_, mut opened) = open(&fixture.sessions(), "c", true).await;
        opened.session.subscribe(b"a/#", &guaranteed()).unwrap();
    }
    for i in 0..100 {
        publish(&ns, Target::Hub(b"a/1"), &format!("{i:01000}"));
        fixture.broker.bound_full_inboxes();
    }
    let (mailbox, mut opened) = open(&fixture.sessions(), "c", true).await;
    let got = self::inbox(&mailbox, &mut opened.session, 10).await;
    let first: u32 = values(&got).first().unwrap().parse().unwrap();
    assert!((80..90).contains(&first), "the newest that fit are kept, from {first} on");
}

fn settings_of(of: &[(&str, &str)]) -> TopicSpec {
    let config = of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    TopicSpec { partitions: 2, config }
}

/// Key and header names of each record, and the batches' attributes.
fn shapes(namespace: &Namespace, topic: &str) -> Vec<(String, Vec<String>, i16)> {
    let topic = namespace.topic(topic).expect("the topic");
    let mut all = Vec::new();
    for partition in topic.partitions() {
        let stream = partition.stream();
        let Ok(Read::Ready(batches)) = stream.read(stream.start(), 1 << 20) else { continue };
        for batch in batches {
            let attributes = inver_storage::batch::BatchHeader::parse(&batch.bytes).unwrap().attributes;
            for record in records(&batch.bytes).unwrap() {
                let record = record.unwrap();
                let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
                let names =
                    inver_broker::message::RawHeaders::of(&record).map(|(name, _)| text(name)).collect();
                all.push((text(record.key.as_deref().unwrap_or_default()), names, attributes));
            }
        }
    }
    all
}

#[tokio::test]
async fn a_topics_settings_choose_its_captures_and_their_format() {
    let fixture = Fixture::with(config());
    let ns = fixture.namespace();
    for (name, headers) in [("whole", "all"), ("bare", "none"), ("some", "client-id, quality")] {
        let filter = format!("{name}/+/t");
        let settings = [
            ("inver.capture.filter", &*filter),
            ("inver.capture.key", "{1}"),
            ("inver.headers", headers),
            ("compression.type", "gzip"),
        ];
        ns.create_topic(name, &settings_of(&settings)).unwrap();
    }
    let mut headers = inver_broker::HeaderWriter::default();
    headers.begin("test", None);
    headers.property(b"to-address", b"x");
    headers.property(b"client-id", b"c");
    headers.user(b"mine", Some(&[b'm'; 2000]));
    let send = |address: &str| publish_with(&ns, Target::Hub(address.as_bytes()), "v", &headers);
    for name in ["whole", "bare", "some"] {
        send(&format!("{name}/k/t"));
        send(&format!("{name}/k/other"));
    }
    let wanted =
        |names: &[&str]| vec![("k".to_owned(), names.iter().map(|n| (*n).to_owned()).collect(), 1i16)];
    assert_eq!(shapes(&ns, "whole"), wanted(&["inver-origin", "to-address", "client-id", "mine"]));
    assert_eq!(shapes(&ns, "bare"), wanted(&["mine"]));
    assert_eq!(shapes(&ns, "some"), wanted(&["inver-origin", "client-id", "mine"]));
    // Changed, and still there after a restart.
    let changed = settings_of(&[("inver.capture.filter", "whole/+/other")]).config;
    committed(&ns, Some(ns.alter_config("whole", changed).unwrap()));
    send("whole/k/t");
    assert_eq!(shapes(&ns, "whole").len(), 1);
    send("whole/k/other");
    assert_eq!(shapes(&ns, "whole").len(), 2);
    drop(ns);
    let fixture = fixture.restart();
    let ns = fixture.namespace();
    publish_with(&ns, Target::Hub(b"whole/q/other"), "v", &headers);
    assert!(stored(&ns, "whole").iter().any(|(key, _)| key == "whole/q/other"));
    let refused = ns.alter_config("whole", settings_of(&[("inver.capture.filter", "a/#/b")]).config);
    assert!(matches!(refused, Err(inver_broker::TopicError::BadConfig(_))));
}

#[tokio::test]
async fn a_topic_does_not_capture_its_own_messages() {
    let fixture =
        Fixture::with(BrokerConfig { address_header: "to-address".into(), ..BrokerConfig::default() });
    let ns = fixture.namespace();
    let (all, _) = ns.create_topic("all", &settings_of(&[("inver.capture.filter", "#")])).unwrap();
    let (other, _) = ns.create_topic("other", &settings_of(&[])).unwrap();
    for topic in [&all, &other] {
        for headers in [&[][..], &[(&b"to-address"[..], Some(&b"a/b"[..]))]] {
            let mut builder = BatchBuilder::new(0);
            builder.push(1, Some(topic.name().as_bytes()), headers, Some(b"v"));
            let submitted = ns.produce(topic, &topic.partition(0).unwrap(), builder.finish()).unwrap();
            committed(&ns, Some(submitted.lsn));
        }
    }
    let keys: Vec<String> = shapes(&ns, "all").into_iter().map(|(key, ..)| key).collect();
    assert_eq!(keys.iter().filter(|k| *k == "all").count(), 2, "its own");
    assert_eq!(keys.len(), 4, "and each of the other's: {keys:?}");
    assert_eq!(shapes(&ns, "other").len(), 2);
}

#[tokio::test]
async fn the_version_of_topics_changes_with_topics_alone() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let mut last = ns.topics_version();
    let mut has_changed = || std::mem::replace(&mut last, ns.topics_version()) != ns.topics_version();
    ns.create_topic("t", &TopicSpec { partitions: 1, config: Default::default() }).unwrap();
    assert!(has_changed());
    ns.add_partitions("t", 2).unwrap();
    assert!(has_changed());
    ns.declare_queue("d", QueueSpec { durable: true, ..QueueSpec::default() }).unwrap();
    assert!(has_changed(), "readers of topics may read it");
    let routes = ns.version();
    let (_, mut opened) = open(&fixture.sessions(), "c", true).await;
    opened.session.subscribe(b"a/#", &guaranteed()).unwrap();
    ns.declare_queue("q", QueueSpec::default()).unwrap();
    assert_ne!(ns.version(), routes);
    assert!(!has_changed());
    ns.delete_topic("t").unwrap();
    assert!(has_changed());
}

#[tokio::test]
async fn routes_are_invalidated_by_a_resumed_session_only_if_they_used_its_queues() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let mut publisher = publisher(&ns);
    let mut send = |guaranteed| {
        publisher.publish(Target::Hub(b"a/b"), &Message { guaranteed, ..message(b"1") }).unwrap();
        committed(&ns, publisher.flush().unwrap());
    };
    let (_, mut opened) = open(&fixture.sessions(), "c", true).await;
    opened.session.subscribe(b"a/#", &guaranteed()).unwrap();
    drop(opened);
    send(true);
    let version = ns.version();
    let (_, opened) = open(&fixture.sessions(), "c", true).await;
    assert_eq!(
        ns.version(),
        version,
        "a durable message goes to its stream, whichever connection has the session"
    );
    // Of both ways: a queue was there when the route was found, and none.
    let mut held = Some(opened);
    for finds_a_queue in [true, false, true] {
        if !finds_a_queue {
            held = None;
        }
        send(false);
        drop(held.take());
        let (_, mut opened) = open(&fixture.sessions(), "c", true).await;
        send(false);
        let mut heard = Vec::new();
        opened.session.pull_live(usize::MAX, &mut heard);
        assert_eq!(heard.iter().map(|batch| batch.messages).sum::<u64>(), 1);
        held = Some(opened);
    }
}

#[tokio::test]
async fn addresses_keys_and_patterns_are_bounded() {
    let limits = Limits { address_levels_max: 3, address_bytes_max: 20, ..Limits::default() };
    let fixture = Fixture::with(BrokerConfig { limits, ..config() });
    let ns = fixture.namespace();
    let is = |error: &LimitReached, what: &str| error.what == what;
    let levels = |error: PublishError| matches!(error, PublishError::TooLong(error) if is(&error, "levels in an address"));
    let bytes = |error: PublishError| matches!(error, PublishError::TooLong(error) if is(&error, "bytes in an address"));
    let mut publisher = publisher(&ns);
    let mut send = |target: Target<'_>| publisher.publish(target, &message(b"x"));
    assert!(send(Target::Hub(b"a/b/c")).is_ok());
    assert!(levels(send(Target::Hub(b"a/b/c/d")).unwrap_err()));
    assert!(bytes(send(Target::Hub(b"aaaaaaaaaaaaaaaaaaaaa")).unwrap_err()));
    assert!(send(exchange(HUB, "a.b.c")).is_ok());
    assert!(levels(send(exchange(HUB, "a.b.c.d")).unwrap_err()));
    let more = Target::Exchange { name: HUB, routing_key: b"a", more_keys: &[b"b", b"a.b.c.d"] };
    assert!(levels(send(more).unwrap_err()));
    ns.declare_queue("q", QueueSpec::default()).unwrap();
    let bind = |key: &[u8]| ns.bind(HUB, BindDestination::Queue("q"), key, &Default::default());
    assert!(bind(b"*.#.c").is_ok());
    assert!(matches!(bind(b"a.*.c.#"), Err(BindError::Limit(error)) if is(&error, "levels in an address")));
    let dead_letter = DeadLetter { exchange: HUB.into(), routing_key: Some(b"a.b.c.d".to_vec()) };
    let limits = QueueLimits { dead_letter: Some(dead_letter), ..QueueLimits::default() };
    let refused = ns.declare_queue("dead", QueueSpec { limits, ..QueueSpec::default() });
    assert!(matches!(refused, Err(QueueError::Limit(error)) if is(&error, "levels in an address")));
    let (_, mut opened) = open(&fixture.sessions(), "c", true).await;
    assert!(opened.session.subscribe(b"a/+/#", &guaranteed()).is_ok());
    assert!(matches!(opened.session.subscribe(b"a/+/c/#", &guaranteed()), Err(SubscribeError::Limit(_))));
}
