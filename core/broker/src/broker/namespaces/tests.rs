use std::net::SocketAddr;
use std::sync::Arc;

use inver_access::User;
use inver_storage::{BatchBuilder, CommitPolicy, Log, LogOptions, TableId};

use super::*;
use crate::broker::{Admission, AdmitError, Admitted};
use crate::committed_offsets::CommittedOffset;
use crate::identity::Identity;
use crate::listener::{Endpoints, ListenerInfo};
use crate::mailbox::Mailbox;
use crate::message::{Headers, Message};
use crate::namespace::{BindDestination, QueueError};
use crate::publisher::{Publisher, Target};
use crate::session::{SessionSpec, SessionTerms};
use crate::spec::{
    BrokerConfig, ExchangeKind, ExchangeSpec, Expiry, Mode, NamespaceLimits, PublisherId, QueueSpec, Start,
    SubscriptionOptions, TopicConfig, TopicError, TopicSpec,
};
use crate::value::Arguments;

fn open(folder: &tempfile::TempDir) -> Broker {
    let log = open_log(folder);
    Broker::open(log, BrokerConfig::default()).unwrap()
}

fn open_log(folder: &tempfile::TempDir) -> Log {
    let options = LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() };
    Log::open(folder.path(), options).unwrap()
}

/// Closes the log as a process that ends, whatever it was doing.
fn reopen(folder: &tempfile::TempDir, broker: Broker) -> Broker {
    broker.log().shutdown().unwrap();
    drop(broker);
    open(folder)
}

fn create(broker: &Broker, name: &str) -> Namespace {
    broker.create_namespace(name, NamespaceSpec::default()).unwrap().0
}

fn message(value: &[u8]) -> Message<'_> {
    Message {
        timestamp_ms: 1,
        key: None,
        value: Some(value),
        headers: Headers::default(),
        guaranteed: true,
        lookup: None,
    }
}

/// Something of every kind that is stored. The durable session is away afterwards.
async fn fill(sessions: &Sessions) {
    let namespace = sessions.namespace();
    let spec = TopicSpec { partitions: 2, config: TopicConfig::new() };
    let (topic, _) = namespace.create_topic("t", &spec).unwrap();
    let durable = QueueSpec { durable: true, ..QueueSpec::default() };
    namespace.declare_queue("q", durable).unwrap();
    namespace.declare_queue("passing", QueueSpec::default()).unwrap();
    let exchange = ExchangeSpec {
        kind: ExchangeKind::Direct,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Arguments::new(),
    };
    namespace.declare_exchange("e", exchange).unwrap();
    let bind = |to| namespace.bind("e", to, b"k", &Arguments::new()).unwrap();
    let _ = bind(BindDestination::Queue("q"));
    let _ = bind(BindDestination::Exchange("e"));
    let _ = namespace.bind("amq.topic", BindDestination::Queue("q"), b"a.*", &Arguments::new()).unwrap();
    namespace.subscribe(&topic, "s", Mode::Shared, true, Start::Earliest).unwrap();
    let offset = CommittedOffset { offset: 1, leader_epoch: -1, metadata: None, committed_ms: 0 };
    namespace.committed_offsets().commit(namespace.log(), "g", &[("t", 0, offset)]).unwrap();
    let terms = Arc::new(SessionTerms {
        inbox_token: 1,
        live_token: 2,
        taken_over_token: 3,
        live_messages_max: 100,
        live_bytes_max: 1 << 20,
    });
    let spec = SessionSpec {
        client_id: "c",
        clean_start: false,
        expiry: Expiry::Never,
        mailbox: Mailbox::new(),
        terms: &terms,
        permissions: sessions.access().permissions(crate::PermissionScope {
            user: None,
            external_tags: None,
            client_id: "c".into(),
            namespace: namespace.name().into(),
            protocol: "test",
            peer: ([127, 0, 0, 1], 0).into(),
        }),
    };
    let mut session = sessions.open(spec).await.unwrap().session;
    let options = SubscriptionOptions { guaranteed: true, ..SubscriptionOptions::default() };
    session.subscribe(b"a/+", &options).unwrap();
    let consumer = crate::ConsumerSpec::new(Mailbox::new(), 9);
    session.join(b"$share/g/a/b", &options, Mode::Shared, consumer).unwrap();
    let _ = session.put(Bytes::from_static(b"key"), Bytes::from_static(b"value")).unwrap();
    drop(session);
    publish_to_hub(namespace, b"a/b");
}

fn publish_to_hub(namespace: &Namespace, address: &[u8]) {
    let mut publisher = Publisher::new(namespace.clone(), PublisherId::default());
    publisher.publish(Target::Hub(address), &message(b"x")).unwrap();
    publisher.retain(address, &message(b"x")).unwrap();
    let _ = publisher.flush().unwrap();
}

/// What a namespace holds, by kind.
fn content(sessions: &Sessions) -> [usize; 6] {
    let namespace = sessions.namespace();
    [
        namespace.topic_count(),
        namespace.queue_count(),
        namespace.exchanges().len(),
        sessions.len(),
        namespace.retained().len(),
        namespace.committed_offsets().len(),
    ]
}

/// Two topics (one is a queue's), the two durable queues, the predeclared exchanges and one more, and one of the others.
const FILLED: [usize; 6] = [2, 2, 7, 1, 1, 1];

/// The same in the default namespace, which has the exchange of events.
const FILLED_DEFAULT: [usize; 6] = [2, 2, 8, 1, 1, 1];

/// The numbers of streams, cursors, and rows of all tables.
fn stored(folder: &tempfile::TempDir) -> (usize, usize, Vec<usize>) {
    let log = open_log(folder);
    let rows = (1..=20).map(|table| log.recovered_state(TableId(table)).len()).collect();
    let counted = (log.stream_ids().len(), log.cursor_ids().len(), rows);
    log.shutdown().unwrap();
    counted
}

#[tokio::test]
async fn a_namespace_and_what_is_known_of_it_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder);
    let spec = NamespaceSpec {
        description: "of the plant".into(),
        tags: vec!["plant".into()],
        limits: NamespaceLimits { queues_max: Some(3), ..NamespaceLimits::default() },
        ..NamespaceSpec::default()
    };
    let (namespace, _) = broker.create_namespace("plant", spec.clone()).unwrap();
    fill(&broker.sessions("plant").unwrap()).await;
    let _ = broker.alter_namespace("/", |spec| spec.description = "all others".into()).unwrap();
    let id = namespace.id();
    drop(namespace);
    let broker = reopen(&folder, broker);
    let all = broker.namespaces();
    let names: Vec<&str> = all.iter().map(|namespace| namespace.name()).collect();
    assert_eq!(names, ["/", "plant"]);
    assert_eq!((all[0].spec().description, all[1].spec(), all[1].id()), ("all others".into(), spec, id));
    assert_eq!(content(&broker.sessions("plant").unwrap()), FILLED);
    assert_eq!(content(&broker.default_sessions()), [0, 0, 7, 0, 0, 0]);
}

#[tokio::test]
async fn nothing_crosses_namespaces() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder);
    let (one, two) = (create(&broker, "one"), create(&broker, "two"));
    for name in ["one", "two"] {
        fill(&broker.sessions(name).unwrap()).await;
    }
    let waiting = |namespace: &Namespace| namespace.queue("q").unwrap().depth().ready;
    assert_eq!((waiting(&one), waiting(&two)), (1, 1));
    publish_to_hub(&one, b"a/c");
    assert_eq!((waiting(&one), waiting(&two)), (2, 1));
    assert_eq!((one.retained().len(), two.retained().len()), (2, 1));
    one.committed_offsets().delete(one.log(), "g", |_, _| true).unwrap();
    assert_eq!((one.committed_offsets().len(), two.committed_offsets().len()), (0, 1));
    one.delete_topic("t").unwrap();
    assert!(two.topic("t").is_some());
}

#[tokio::test]
async fn deleting_leaves_nothing_in_the_log_and_nothing_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder);
    fill(&broker.default_sessions()).await;
    broker.log().shutdown().unwrap();
    drop(broker);
    let before = stored(&folder);
    let broker = open(&folder);
    let namespace = create(&broker, "n");
    fill(&broker.sessions("n").unwrap()).await;
    let weak = Arc::downgrade(&namespace.exchange("e").unwrap());
    let completion = broker.delete_namespace("n").await.unwrap();
    broker.log().wait_committed(completion.lsn().unwrap()).await.unwrap();
    assert!(broker.namespace("n").is_none() && namespace.is_deleted());
    drop(namespace);
    assert!(weak.upgrade().is_none(), "an exchange that is bound to itself");
    // The name is free again, for another namespace.
    assert_eq!(create(&broker, "n").id(), 2);
    broker.delete_namespace("n").await.unwrap();
    let broker = reopen(&folder, broker);
    assert_eq!(content(&broker.default_sessions()), FILLED_DEFAULT);
    assert_eq!(create(&broker, "n").id(), 3, "a number is not given twice");
    broker.delete_namespace("n").await.unwrap();
    let broker = reopen(&folder, broker);
    broker.log().shutdown().unwrap();
    drop(broker);
    let (streams, cursors, mut rows) = stored(&folder);
    // What counts the numbers of namespaces.
    rows[14] -= 1;
    assert_eq!((streams, cursors, rows), before);
}

/// The process ends after each step of a deletion.
#[tokio::test]
async fn a_deletion_that_was_not_finished_is_finished_by_the_next_start() {
    for steps in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        let broker = open(&folder);
        fill(&broker.default_sessions()).await;
        broker.log().shutdown().unwrap();
        drop(broker);
        let before = stored(&folder);
        let broker = open(&folder);
        create(&broker, "n");
        let held = broker.sessions("n").unwrap();
        fill(&held).await;
        let (sessions, _) = broker.begin_deletion("n").unwrap();
        if steps >= 2 {
            let mut removal = Removal::new(broker.log());
            sessions.remove_all(&mut removal).unwrap();
            removal.finish().unwrap();
        }
        if steps >= 3 {
            broker.remove_namespace(&sessions).unwrap();
            // A connection that did not end yet.
            publish_to_hub(held.namespace(), b"late");
            let offset = CommittedOffset { offset: 1, leader_epoch: -1, metadata: None, committed_ms: 0 };
            let namespace = held.namespace();
            namespace.committed_offsets().commit(namespace.log(), "g", &[("t", 0, offset)]).unwrap();
        }
        drop((sessions, held));
        let broker = reopen(&folder, broker);
        assert!(broker.namespace("n").is_none());
        broker.log().shutdown().unwrap();
        drop(broker);
        let (streams, cursors, mut rows) = stored(&folder);
        rows[14] -= 1;
        assert_eq!((streams, cursors, rows), before, "after {steps} steps");
    }
}

#[tokio::test]
async fn wrong_names_and_changes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_log(&folder);
    let broker = Broker::open(log, BrokerConfig { namespaces_max: 3, ..BrokerConfig::default() }).unwrap();
    let refused = |name: &str| broker.create_namespace(name, NamespaceSpec::default()).unwrap_err();
    for name in ["", "a\nb", &"n".repeat(256)] {
        assert_eq!(refused(name), NamespaceError::InvalidName);
    }
    let long = NamespaceSpec { description: "d".repeat(4097), ..NamespaceSpec::default() };
    assert_eq!(broker.create_namespace("a", long).unwrap_err(), NamespaceError::InvalidSpec);
    create(&broker, &"n".repeat(255));
    create(&broker, "a");
    assert_eq!(refused("a"), NamespaceError::Exists("a".into()));
    assert_eq!(refused("b"), NamespaceError::Limit(LimitReached { what: "namespaces", max: 3 }));
    let tags = |spec: &mut NamespaceSpec| spec.tags = vec![String::new(); 101];
    assert_eq!(broker.alter_namespace("a", tags).unwrap_err(), NamespaceError::InvalidSpec);
    assert_eq!(broker.alter_namespace("b", |_| ()).unwrap_err(), NamespaceError::Unknown("b".into()));
    assert_eq!(broker.delete_namespace("b").await.unwrap_err(), NamespaceError::Unknown("b".into()));
    assert_eq!(broker.delete_namespace("/").await.unwrap_err(), NamespaceError::Default);
    let _ = broker.alter_namespace("a", |spec| spec.is_protected = true).unwrap();
    assert_eq!(broker.delete_namespace("a").await.unwrap_err(), NamespaceError::Protected("a".into()));
    let _ = broker.alter_namespace("a", |spec| spec.is_protected = false).unwrap();
    broker.delete_namespace("a").await.unwrap();
    create(&broker, "b");
}

#[tokio::test]
async fn the_limits_of_a_namespace_are_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder);
    let limits = NamespaceLimits {
        queues_max: Some(1),
        topics_max: Some(2),
        sessions_max: Some(0),
        ..NamespaceLimits::default()
    };
    let spec = NamespaceSpec { limits, ..NamespaceSpec::default() };
    let (namespace, _) = broker.create_namespace("n", spec).unwrap();
    namespace.declare_queue("a", QueueSpec::default()).unwrap();
    let queues = QueueError::Limit(LimitReached { what: "queues", max: 1 });
    assert_eq!(namespace.declare_queue("b", QueueSpec::default()).unwrap_err(), queues);
    let one = TopicSpec { partitions: 1, config: TopicConfig::new() };
    namespace.create_topic("t", &one).unwrap();
    namespace.create_topic("u", &one).unwrap();
    let topics = TopicError::Limit(LimitReached { what: "topics", max: 2 });
    assert_eq!(namespace.create_topic("v", &one).err(), Some(topics));
    assert_eq!(namespace.sessions_max(), 0);
    // Others are not concerned, and a changed limit holds at once.
    broker.default_namespace().declare_queue("a", QueueSpec::default()).unwrap();
    broker.default_namespace().declare_queue("b", QueueSpec::default()).unwrap();
    let _ = broker.alter_namespace("n", |spec| spec.limits.queues_max = None).unwrap();
    namespace.declare_queue("b", QueueSpec::default()).unwrap();
}

#[tokio::test]
async fn a_full_namespace_refuses_what_would_be_stored() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder);
    let namespace = create(&broker, "n");
    namespace.declare_queue("q", QueueSpec { durable: true, ..QueueSpec::default() }).unwrap();
    namespace.declare_queue("passing", QueueSpec::default()).unwrap();
    let publish = |queue: &str| {
        let mut publisher = Publisher::new(namespace.clone(), PublisherId::default());
        let to = Target::Exchange { name: "", routing_key: queue.as_bytes(), more_keys: &[] };
        let routed = publisher.publish(to, &message(&[b'x'; 1000])).unwrap();
        if let Completion::At(lsn) = publisher.flush().unwrap() {
            namespace.log().wait_committed_blocking(lsn).unwrap();
        }
        routed.refused
    };
    assert!(!publish("q") && broker.sessions("n").unwrap().stored_bytes() >= 1000);
    let _ = broker.alter_namespace("n", |spec| spec.limits.bytes_max = Some(1500)).unwrap();
    assert!(!publish("q"));
    broker.check_bytes();
    let full = LimitReached { what: "bytes of messages in this namespace", max: 1500 };
    assert_eq!(namespace.check_room(), Err(full));
    let mut publisher = Publisher::new(namespace.clone(), PublisherId::default());
    assert_eq!(publisher.retain(b"a", &message(b"x")), Err(full));
    assert!(publish("q") && !publish("passing"));
    assert!(broker.default_namespace().check_room().is_ok());
    assert_eq!(namespace.queue("q").unwrap().depth().ready, 2);
    // What is purged is not stored any more, although its segment is still there.
    let _ = namespace.queue("q").unwrap().subscription().purge().unwrap();
    broker.trim();
    broker.log().sync().unwrap();
    assert_eq!(broker.sessions("n").unwrap().stored_bytes(), 0);
    broker.check_bytes();
    assert!(!publish("q") && !publish("q"));
    broker.check_bytes();
    let _ = broker.alter_namespace("n", |spec| spec.limits.bytes_max = None).unwrap();
    assert!(!publish("q"));
}

/// A client's connection as its protocol has it.
struct Connected {
    mailbox: Arc<Mailbox>,
    admitted: Result<Admitted, AdmitError>,
}

fn connect(broker: &Broker, user: &str, namespace: Option<&str>) -> Connected {
    let address: SocketAddr = "127.0.0.1:5000".parse().unwrap();
    let endpoints = Endpoints {
        peer: address,
        local: address,
        encrypted: false,
        listener: Arc::new(ListenerInfo::default()),
    };
    let mailbox = Mailbox::new();
    let admitted = broker.admit(&Admission {
        protocol: "p",
        identity: &Identity::user(user),
        endpoints: &endpoints,
        namespace,
        client_id: "c",
        mailbox: &mailbox,
        wait_max: Duration::ZERO,
    });
    Connected { mailbox, admitted }
}

fn administrator(name: &str) -> User {
    User { tags: [inver_access::Tag::Administrator].into_iter().collect(), ..User::new(name) }
}

#[tokio::test]
async fn the_connections_of_a_deleted_namespace_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder);
    create(&broker, "n");
    let (inside, outside) = (connect(&broker, "ann", Some("n")), connect(&broker, "ann", None));
    assert_eq!(inside.admitted.as_ref().unwrap().connection.namespace(), "n");
    let deleting = tokio::spawn({
        let broker = broker.clone();
        async move { broker.delete_namespace("n").await }
    });
    inside.mailbox.wait().await;
    assert_eq!(inside.mailbox.closing(), Some(CloseReason::NamespaceDeleted("n".into())));
    assert_eq!(outside.mailbox.closing(), None);
    // Nobody comes in, and the name is not free, while the last connection is there.
    let refused = connect(&broker, "ann", Some("n")).admitted.err();
    assert_eq!(refused, Some(AdmitError::NoSuchNamespace("n".into())));
    let being_deleted = NamespaceError::BeingDeleted("n".into());
    assert_eq!(broker.create_namespace("n", NamespaceSpec::default()).unwrap_err(), being_deleted);
    assert!(!deleting.is_finished());
    drop(inside);
    deleting.await.unwrap().unwrap();
    create(&broker, "n");
    assert_eq!(broker.connections().len(), 1);
}

#[tokio::test]
async fn connections_of_users_are_limited_and_end_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder);
    create(&broker, "n");
    let access = broker.access();
    let limits = inver_access::UserLimits { connections_max: Some(2), ..Default::default() };
    access.put_user(User { limits, ..administrator("ann") }).unwrap();
    access.put_user(administrator("bob")).unwrap();
    let _ = broker.alter_namespace("n", |spec| spec.limits.connections_max = Some(1)).unwrap();
    let (first, second) = (connect(&broker, "ann", Some("n")), connect(&broker, "ann", None));
    let of_user = AdmitError::UserConnections { user: "ann".into(), max: 2 };
    assert_eq!(connect(&broker, "ann", None).admitted.err(), Some(of_user));
    let of_namespace = AdmitError::NamespaceConnections { namespace: "n".into(), max: 1 };
    assert_eq!(connect(&broker, "bob", Some("n")).admitted.err(), Some(of_namespace));
    let bob = connect(&broker, "bob", None);
    assert_eq!((broker.connections().count_of_user("ann"), broker.connections().len()), (2, 3));
    // A changed password closes nothing.
    access.update_user("ann", |user| user.credentials.clear()).unwrap();
    assert_eq!(first.mailbox.closing(), None);
    access.update_user("ann", |user| user.disabled = true).unwrap();
    let disabled = Some(CloseReason::UserDisabled("ann".into()));
    assert_eq!((first.mailbox.closing(), second.mailbox.closing()), (disabled.clone(), disabled));
    assert_eq!(connect(&broker, "ann", None).admitted.err(), Some(AdmitError::Disabled));
    access.delete_user("bob").unwrap();
    assert_eq!(bob.mailbox.closing(), Some(CloseReason::UserDeleted("bob".into())));
}

#[tokio::test]
async fn namespaces_of_the_configuration_are_created_and_changed_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let spec =
        |description: &str| NamespaceSpec { description: description.into(), ..NamespaceSpec::default() };
    let configured = |description| BrokerConfig {
        namespaces: vec![("n".to_owned(), spec(description)), ("/".to_owned(), spec("all"))],
        ..BrokerConfig::default()
    };
    for description in ["first", "second"] {
        let broker = Broker::open(open_log(&folder), configured(description)).unwrap();
        let namespaces = broker.namespaces();
        assert_eq!(namespaces.len(), 2);
        assert_eq!((namespaces[0].spec(), namespaces[1].spec()), (spec("all"), spec(description)));
        assert_eq!(namespaces[1].id(), 1);
        broker.log().shutdown().unwrap();
    }
}

/// More than fits in one entry of the log.
#[tokio::test]
async fn a_namespace_with_many_topics_is_deleted_in_several_entries() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder);
    let namespace = create(&broker, "n");
    let many = TopicSpec { partitions: 1000, config: TopicConfig::new() };
    for name in ["a", "b", "c", "d", "e", "f"] {
        namespace.create_topic(name, &many).unwrap();
    }
    let topic = namespace.topic("a").unwrap();
    let mut batch = BatchBuilder::new(0);
    batch.push(1, None, &[], Some(b"x"));
    namespace.produce(&topic, &topic.partition(0).unwrap(), batch.finish()).unwrap();
    broker.delete_namespace("n").await.unwrap();
    assert_eq!(broker.log().stream_ids(), []);
}
