//! What sessions may publish and receive, and whom they belong to.

use inver_access::{Effect, Operation, Operations, Pattern, Principal, ResourceKind, Rule, RuleId, User};
use inver_broker::message::Property;
use inver_broker::{
    BindDestination, Broker, BrokerConfig, ConsumerSpec, DeadLetter, Expiry, Filter, HUB, HeaderWriter,
    Mailbox, Message, Mode, Opened, PublishError, QueueLimits, QueueSpec, Session, SessionError, SessionSpec,
    SubscribeError, Target, TopicConfig, TopicSpec, Will,
};
use inver_storage::BatchBuilder;
use inver_storage::batch::records;

use crate::fixture::*;

fn rule(user: &str, kind: ResourceKind, filter: &str, operations: &[Operation], effect: Effect) -> Rule {
    Rule {
        id: RuleId(0),
        principal: Principal::User(user.into()),
        namespace: None,
        kind,
        pattern: Pattern::Filter(filter.into()),
        operations: Operations::of(operations),
        effect,
        host: None,
        dialect: String::new(),
    }
}

/// `ann` subscribes to everything, receives `a/#` without `a/secret`, and publishes to `a/#`; `bob` has no rule.
fn with_users(broker: &Broker) {
    let access = broker.access();
    for user in ["ann", "bob"] {
        access.put_user(User::new(user)).unwrap();
    }
    let address = |filter, operations: &[Operation], effect| {
        rule("ann", ResourceKind::Address, filter, operations, effect)
    };
    let rules = vec![
        address("#", &[Operation::Subscribe], Effect::Allow),
        address("a/#", &[Operation::Receive, Operation::Write], Effect::Allow),
        address("a/secret", &[Operation::Receive], Effect::Deny),
    ];
    access.add_rules(rules).unwrap();
}

async fn open_as(
    broker: &Broker,
    user: Option<&str>,
    client_id: &str,
    clean: bool,
) -> Result<Opened, SessionError> {
    let sessions = broker.default_sessions();
    let spec = SessionSpec {
        client_id,
        clean_start: clean,
        expiry: Expiry::Never,
        mailbox: Mailbox::new(),
        terms: &session_terms(),
        permissions: permissions(&sessions, user, client_id),
    };
    sessions.open(spec).await
}

/// Publishes without a permission.
fn publish_at(broker: &Broker, address: &str, guaranteed: bool, retain: bool) {
    let namespace = broker.default_namespace();
    let mut writer = HeaderWriter::default();
    writer.begin("test", None);
    writer.put(Property::Address(address.as_bytes()));
    let message = Message { headers: writer.headers(), guaranteed, ..message(address.as_bytes()) };
    let mut publisher = publisher(&namespace);
    if retain {
        publisher.retain(address.as_bytes(), &message).unwrap();
    }
    publisher.publish(Target::Hub(address.as_bytes()), &message).unwrap();
    committed(&namespace, publisher.flush().unwrap());
}

async fn inbox(session: &mut Session, expected: usize) -> Vec<String> {
    let mut pulled = Vec::new();
    until("the inbox has its messages", || {
        session.pull_inbox(100, 1 << 20, &mut pulled);
        pulled.len() >= expected
    })
    .await;
    values(&pulled)
}

fn live(session: &mut Session) -> Vec<String> {
    let mut batches = Vec::new();
    session.pull_live(1 << 20, &mut batches);
    let all = batches.iter().flat_map(|batch| records(&batch.bytes).unwrap()).map(Result::unwrap);
    all.map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap()).into_owned()).collect()
}

#[tokio::test]
async fn a_session_is_opened_by_its_user_only() {
    let fixture = Fixture::new();
    with_users(&fixture.broker);
    drop(open_as(&fixture.broker, Some("ann"), "c", false).await.unwrap());
    let fixture = fixture.restart();
    for clean in [false, true] {
        let refused = open_as(&fixture.broker, Some("bob"), "c", clean).await;
        assert_eq!(refused.err(), Some(SessionError::OtherOwner));
        let refused = open_as(&fixture.broker, None, "c", clean).await;
        assert_eq!(refused.err(), Some(SessionError::OtherOwner));
    }
    let held = open_as(&fixture.broker, Some("ann"), "c", false).await.unwrap();
    assert!(held.present);
    let refused = open_as(&fixture.broker, Some("bob"), "c", false).await;
    assert_eq!(refused.err(), Some(SessionError::OtherOwner), "the connection that holds it stays");
    drop(held);
    let resume = rule("bob", ResourceKind::Session, "c", &[Operation::Resume], Effect::Allow);
    fixture.broker.access().add_rules(vec![resume]).unwrap();
    assert!(open_as(&fixture.broker, Some("bob"), "c", false).await.unwrap().present);
    assert!(open_as(&fixture.broker, Some("ann"), "c", false).await.unwrap().present, "it stays hers");
}

#[tokio::test]
async fn a_session_of_nobody_becomes_that_of_the_next_user() {
    let fixture = Fixture::new();
    drop(open_as(&fixture.broker, Some("guest"), "c", false).await.unwrap());
    with_users(&fixture.broker);
    assert!(open_as(&fixture.broker, Some("ann"), "c", false).await.unwrap().present);
    assert_eq!(open_as(&fixture.broker, Some("bob"), "c", false).await.err(), Some(SessionError::OtherOwner));
    drop(open_as(&fixture.broker, None, "d", false).await.unwrap());
    assert!(
        open_as(&fixture.broker, Some("bob"), "d", false).await.is_ok(),
        "anonymous sessions are nobody's"
    );
}

#[tokio::test]
async fn only_permitted_messages_are_received_and_a_change_holds_at_once() {
    let fixture = Fixture::new();
    let broker = &fixture.broker;
    with_users(broker);
    let mut session = open_as(broker, Some("ann"), "c", false).await.unwrap().session;
    session.subscribe(b"#", &guaranteed()).unwrap();
    let all = ["b/1", "a/1", "a/secret", "a/2", "a"];
    for address in all {
        publish_at(broker, address, true, false);
        publish_at(broker, address, false, false);
    }
    assert_eq!(inbox(&mut session, 3).await, ["a/1", "a/2", "a"]);
    assert_eq!(live(&mut session), ["a/1", "a/2", "a"]);
    // Messages that wait already, of a session that is away too.
    drop(session);
    publish_at(broker, "a/3", true, true);
    publish_at(broker, "b/3", true, true);
    let deny = rule("ann", ResourceKind::Address, "a/+", &[Operation::Receive], Effect::Deny);
    let (ids, _) = broker.access().add_rules(vec![deny]).unwrap();
    let mut session = open_as(broker, Some("ann"), "c", false).await.unwrap().session;
    let retained = |session: &mut Session| {
        let mut found = Vec::new();
        session.scan_retained(&Filter::slashed(b"#"), None, 10, &mut found);
        found.len()
    };
    assert_eq!(retained(&mut session), 0);
    publish_at(broker, "a", true, false);
    // Unacknowledged ones are delivered again; those that may not be received any more are gone.
    assert_eq!(inbox(&mut session, 2).await, ["a", "a"]);
    broker.access().delete_rules(|rule| rule.id == ids[0]).unwrap();
    assert_eq!(retained(&mut session), 1);
    publish_at(broker, "a/4", true, false);
    assert_eq!(inbox(&mut session, 1).await, ["a/4"]);
}

/// As [`with_users`]; `ann` also receives `c/#` and `e/#` and reads every log topic, so that nothing of these filters is kept
/// from her.
fn with_whole_filters(broker: &Broker) {
    with_users(broker);
    let topics = Rule {
        pattern: Pattern::Any,
        ..rule("ann", ResourceKind::Topic, "#", &[Operation::Read], Effect::Allow)
    };
    let receive = |filter| rule("ann", ResourceKind::Address, filter, &[Operation::Receive], Effect::Allow);
    broker.access().add_rules(vec![topics, receive("c/#"), receive("e/#")]).unwrap();
    let permissions = permissions(&broker.default_sessions(), Some("ann"), "c");
    assert!(permissions.receives_all_of("c/#") && !permissions.receives_all_of("a/#"));
}

#[tokio::test]
async fn a_filter_that_is_allowed_whole_is_decided_again_when_rules_change() {
    let fixture = Fixture::new();
    let broker = &fixture.broker;
    with_whole_filters(broker);
    let mut session = open_as(broker, Some("ann"), "c", false).await.unwrap().session;
    session.subscribe(b"c/#", &guaranteed()).unwrap();
    let send = || ["c/1", "c/2"].map(|address| publish_at(broker, address, false, false));
    send();
    assert_eq!(live(&mut session), ["c/1", "c/2"]);
    // What waits when the rule comes is kept back too.
    send();
    let deny = rule("ann", ResourceKind::Address, "c/2", &[Operation::Receive], Effect::Deny);
    let (ids, _) = broker.access().add_rules(vec![deny]).unwrap();
    send();
    assert_eq!(live(&mut session), ["c/1", "c/1"]);
    broker.access().delete_rules(|rule| rule.id == ids[0]).unwrap();
    send();
    assert_eq!(live(&mut session), ["c/1", "c/2"]);
    // Another filter, of which a part is denied.
    session.subscribe(b"a/#", &guaranteed()).unwrap();
    send();
    for address in ["a/1", "a/secret"] {
        publish_at(broker, address, false, false);
    }
    assert_eq!(live(&mut session), ["c/1", "c/2", "a/1"]);
}

#[tokio::test]
async fn messages_of_a_removed_filter_are_decided_by_what_it_let_in() {
    let fixture = Fixture::new();
    let broker = &fixture.broker;
    with_whole_filters(broker);
    let mut session = open_as(broker, Some("ann"), "c", false).await.unwrap().session;
    for filter in ["c/#", "e/#"] {
        session.subscribe(filter.as_bytes(), &guaranteed()).unwrap();
    }
    for address in ["c/1", "e/1", "e/2"] {
        publish_at(broker, address, false, false);
    }
    session.unsubscribe(b"e/#").unwrap();
    let deny = rule("ann", ResourceKind::Address, "e/1", &[Operation::Receive], Effect::Deny);
    broker.access().add_rules(vec![deny]).unwrap();
    assert_eq!(live(&mut session), ["c/1", "e/2"]);
}

#[tokio::test]
async fn a_dead_letter_that_names_a_denied_address_is_not_received() {
    let fixture = Fixture::new();
    let broker = &fixture.broker;
    with_whole_filters(broker);
    let mut session = open_as(broker, Some("ann"), "c", false).await.unwrap().session;
    session.subscribe(b"c/#", &guaranteed()).unwrap();
    publish_at(broker, "c/1", false, false);
    assert_eq!(live(&mut session), ["c/1"]);
    // The message keeps the address that it was published at, and is routed from another.
    let namespace = broker.default_namespace();
    let to_hub = DeadLetter { exchange: HUB.into(), routing_key: Some(b"c.2".to_vec()) };
    let limits = QueueLimits { dead_letter: Some(to_hub), ..QueueLimits::default() };
    let queue = declare(&namespace, "q", QueueSpec { limits, ..QueueSpec::default() });
    let to = BindDestination::Queue("q");
    let _ = namespace.bind(HUB, to, b"a.secret", &Default::default()).unwrap();
    publish_at(broker, "a/secret", false, false);
    let (mailbox, mut consumer) = attach(queue.subscription());
    let ids: Vec<_> = take(&mailbox, &mut consumer, 1).await.iter().map(|delivery| delivery.id).collect();
    committed(&namespace, consumer.reject(&ids).unwrap());
    publish_at(broker, "c/3", false, false);
    assert_eq!(live(&mut session), ["c/3"]);
}

#[tokio::test]
async fn a_filter_must_be_allowed_as_a_whole() {
    let fixture = Fixture::new();
    let broker = &fixture.broker;
    with_users(broker);
    let mut ann = open_as(broker, Some("ann"), "c", false).await.unwrap().session;
    let mut bob = open_as(broker, Some("bob"), "d", false).await.unwrap().session;
    assert_eq!(bob.subscribe(b"a/1", &guaranteed()).err(), Some(SubscribeError::NotAllowed));
    assert!(ann.subscribe(b"+/1", &guaranteed()).is_ok());
    assert_eq!(ann.subscribe(b"$SYS/#", &guaranteed()).err(), Some(SubscribeError::NotAllowed));
    // A message of a group goes to one member: each must be allowed to receive what the filter matches.
    let join = |session: &Session, text: &[u8]| {
        session
            .join(text, &guaranteed(), Mode::Shared, ConsumerSpec::new(Mailbox::new(), 9))
            .map(|joined| joined.0)
    };
    assert_eq!(join(&ann, b"$share/g/#").err(), Some(SubscribeError::NotAllowed));
    assert_eq!(join(&bob, b"$share/g/a/#").err(), Some(SubscribeError::NotAllowed));
    let mut consumer = join(&ann, b"$share/g/a/#").unwrap();
    for address in ["a/1", "a/secret", "a/2"] {
        publish_at(broker, address, true, false);
    }
    let mut pulled = Vec::new();
    ann.pull_shared(b"$share/g/a/#", &mut consumer, 10, 1 << 20, &mut pulled);
    assert_eq!(values(&pulled), ["a/1", "a/2"]);
    // Without the permission it takes part no more, and the messages wait for other members.
    broker.access().delete_rules(|rule| rule.pattern == Pattern::Filter("a/#".into())).unwrap();
    publish_at(broker, "a/3", true, false);
    let pull = ann.pull_shared(b"$share/g/a/#", &mut consumer, 10, 1 << 20, &mut pulled);
    assert_eq!((pulled.len(), pull.more), (2, false));
    assert_eq!(consumer.subscription().depth().ready, 1);
}

#[tokio::test]
async fn a_named_subscription_needs_the_permission_of_its_name() {
    let fixture = Fixture::new();
    let broker = &fixture.broker;
    with_users(broker);
    let spec = TopicSpec { partitions: 1, config: TopicConfig::new() };
    broker.default_namespace().create_topic("b.t", &spec).unwrap();
    let allow = |kind, name| {
        let rule = Rule {
            pattern: Pattern::Literal(name),
            ..rule("ann", kind, "x", &[Operation::Read], Effect::Allow)
        };
        broker.access().add_rules(vec![rule]).unwrap();
    };
    let ann = open_as(broker, Some("ann"), "c", false).await.unwrap().session;
    let join = || {
        let consumer = ConsumerSpec::new(Mailbox::new(), 9);
        ann.join(b"$share/g/b/t", &guaranteed(), Mode::Shared, consumer).map(|_| ())
    };
    allow(ResourceKind::Topic, "b.t".into());
    assert_eq!(join().err(), Some(SubscribeError::NotAllowed), "its members may be other clients");
    allow(ResourceKind::Group, "g".into());
    assert!(join().is_ok());
}

#[tokio::test]
async fn a_log_topic_of_that_name_needs_a_permission_of_its_own() {
    let fixture = Fixture::new();
    let broker = &fixture.broker;
    with_users(broker);
    let namespace = broker.default_namespace();
    let spec = TopicSpec { partitions: 1, config: TopicConfig::new() };
    let (topic, _) = namespace.create_topic("a.t", &spec).unwrap();
    let stream = topic.partitions()[0].stream().clone();
    let session = open_as(broker, Some("ann"), "c", false).await.unwrap().session;
    let mut publisher = publisher(&namespace).with_permissions(session.permissions().clone());
    let refused = publisher.publish(Target::Hub(b"b/t"), &message(b"x"));
    assert!(matches!(refused, Err(PublishError::KeyRefused { .. })));
    publisher.retain(b"b/t", &message(b"x")).unwrap();
    publisher.publish(Target::Hub(b"a/t"), &message(b"x")).unwrap();
    committed(&namespace, publisher.flush().unwrap());
    assert!(namespace.retained().is_empty());
    assert_eq!(stream.high_watermark().0, 0);
    // The route is remembered until the permissions change.
    let write = rule("ann", ResourceKind::Topic, "a.t", &[Operation::Write], Effect::Allow);
    broker.access().add_rules(vec![write]).unwrap();
    publisher.publish(Target::Hub(b"a/t"), &message(b"x")).unwrap();
    committed(&namespace, publisher.flush().unwrap());
    assert_eq!(stream.high_watermark().0, 1);
}

#[tokio::test]
async fn a_record_beside_one_with_an_address_is_heard_by_those_who_may_read_its_topic() {
    let config = BrokerConfig { address_header: "to-address".into(), ..BrokerConfig::default() };
    let fixture = Fixture::with(config);
    let broker = &fixture.broker;
    with_users(broker);
    let namespace = broker.default_namespace();
    let spec = TopicSpec { partitions: 1, config: TopicConfig::new() };
    let (topic, _) = namespace.create_topic("a.t", &spec).unwrap();
    let mut session = open_as(broker, Some("ann"), "c", false).await.unwrap().session;
    for filter in ["a/t", "a/other"] {
        session.subscribe(filter.as_bytes(), &guaranteed()).unwrap();
    }
    let produce = || {
        let mut builder = BatchBuilder::new(0);
        builder.push(1, None, &[], Some(b"plain"));
        builder.push(1, None, &[(b"to-address", Some(&b"a/other"[..]))], Some(b"named"));
        let partition = topic.partition(0).unwrap();
        committed(&namespace, namespace.produce(&topic, &partition, builder.finish()).unwrap().lsn);
    };
    produce();
    assert_eq!(inbox(&mut session, 1).await, ["named"], "ann may not read the topic");
    let read = rule("ann", ResourceKind::Topic, "a.t", &[Operation::Read], Effect::Allow);
    broker.access().add_rules(vec![read]).unwrap();
    produce();
    assert_eq!(inbox(&mut session, 2).await, ["plain", "named"]);
}

#[tokio::test]
async fn a_will_is_published_if_its_client_may_still_publish_it() {
    let fixture = Fixture::new();
    with_users(&fixture.broker);
    let will_at = |address: &str, delay_s| {
        Some(Will { address: address.into(), retain: true, ..will(address.as_bytes(), delay_s) })
    };
    let retained = |fixture: &Fixture| fixture.namespace().retained().len();
    for (client_id, address) in [("c", "a/will"), ("d", "b/will")] {
        let session = open_as(&fixture.broker, Some("ann"), client_id, false).await.unwrap().session;
        let _ = session.set_will(will_at(address, 0)).unwrap();
    }
    assert_eq!(retained(&fixture), 1, "one of two");
    // After a restart what its user may do counts.
    for (client_id, address) in [("e", "a/later"), ("f", "b/later")] {
        let session = open_as(&fixture.broker, Some("ann"), client_id, false).await.unwrap().session;
        let _ = session.set_will(will_at(address, 3600)).unwrap();
    }
    let fixture = fixture.restart();
    for client_id in ["e", "f"] {
        // A clean start ends the session and publishes its will.
        drop(open_as(&fixture.broker, Some("ann"), client_id, true).await.unwrap());
    }
    assert_eq!(retained(&fixture), 2);
}
