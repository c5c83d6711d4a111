//! Permissions where log topics meet the hub: who receives a topic's records, who publishes at an address by a record.

use std::net::SocketAddr;
use std::sync::Arc;

use inver_access::{Effect, Operation, Operations, Pattern, Principal, ResourceKind, Rule, RuleId, User};
use inver_broker::{
    BindDestination, Broker, BrokerConfig, HUB, Namespace, PermissionScope, Permissions, QueueSpec, Topic,
    TopicConfig, TopicSpec,
};
use inver_storage::BatchBuilder;

use crate::fixture::*;

const ADDRESS_HEADER: &[u8] = b"to-address";

fn fixture() -> Fixture {
    let fixture =
        Fixture::with(BrokerConfig { address_header: "to-address".into(), ..BrokerConfig::default() });
    for user in ["ann", "bob"] {
        let _ = fixture.broker.access().put_user(User::new(user)).unwrap();
    }
    fixture
}

fn rule(user: &str, kind: ResourceKind, name: &str, operation: Operation, effect: Effect) -> Rule {
    Rule {
        id: RuleId(0),
        principal: Principal::User(user.into()),
        namespace: None,
        kind,
        pattern: Pattern::Literal(name.into()),
        operations: Operations::of(&[operation]),
        effect,
        host: None,
        dialect: String::new(),
    }
}

fn allow(broker: &Broker, user: &str, kind: ResourceKind, name: &str, operation: Operation) {
    let _ = broker.access().add_rules(vec![rule(user, kind, name, operation, Effect::Allow)]).unwrap();
}

fn permissions(broker: &Broker, user: &str) -> Arc<Permissions> {
    broker.access().permissions(PermissionScope {
        user: Some(user.into()),
        external_tags: None,
        client_id: "".into(),
        namespace: "/".into(),
        protocol: "test",
        peer: SocketAddr::from(([127, 0, 0, 1], 0)),
    })
}

fn topic(namespace: &Namespace, name: &str, mode: &str) -> Arc<Topic> {
    let config = TopicConfig::from([("inver.hub".to_owned(), mode.to_owned())]);
    namespace.create_topic(name, &TopicSpec { partitions: 1, config }).unwrap().0
}

/// Binds a durable queue of this name to the hub as a user.
fn bind_as(broker: &Broker, user: &str, queue: &str, key: &str) {
    let ns = broker.default_namespace();
    declare(&ns, queue, QueueSpec { durable: true, ..QueueSpec::default() });
    let client = permissions(broker, user);
    let to = BindDestination::Queue(queue);
    committed(&ns, ns.bind_as(Some(&client), HUB, to, key.as_bytes(), &Default::default()).unwrap());
}

fn produce(
    namespace: &Namespace,
    client: Option<&Permissions>,
    topic: &Topic,
    records: &[(&str, Option<&str>)],
) {
    let mut builder = BatchBuilder::new(0);
    for (value, address) in records {
        let header = address.map(|address| (ADDRESS_HEADER, Some(address.as_bytes())));
        builder.push(1, None, header.as_slice(), Some(value.as_bytes()));
    }
    let partition = topic.partition(0).unwrap();
    committed(
        namespace,
        Some(namespace.produce_as(client, topic, &partition, builder.finish()).unwrap().lsn),
    );
}

fn received(namespace: &Namespace, queue: &str) -> Vec<String> {
    let (_, mut consumer) = attach(namespace.queue(queue).unwrap().subscription());
    let got = pull_now(&mut consumer);
    committed(namespace, consumer.ack(&got.iter().map(|delivery| delivery.id).collect::<Vec<_>>()).unwrap());
    values(&got)
}

#[tokio::test]
async fn a_binding_passes_on_what_its_client_may_read() {
    let mut fixture = fixture();
    for (mode, ann, bob) in [("named", "a.b", "a.b"), ("open", "a.#", "a.*")] {
        let broker = &fixture.broker;
        let ns = broker.default_namespace();
        let t = topic(&ns, "a.b", mode);
        allow(broker, "ann", ResourceKind::Topic, "a.b", Operation::Read);
        bind_as(broker, "ann", "anns", ann);
        bind_as(broker, "bob", "bobs", bob);
        let both = |ns: &Namespace| (received(ns, "anns"), received(ns, "bobs"));
        let of = |anns: &[&str], bobs: &[&str]| {
            let text = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
            (text(anns), text(bobs))
        };
        produce(&ns, None, &t, &[("1", None)]);
        assert_eq!(both(&ns), of(&["1"], &[]), "{mode}");
        // In a batch in which another record names its address.
        produce(&ns, None, &t, &[("2", None), ("elsewhere", Some("c"))]);
        assert_eq!(both(&ns), of(&["2"], &[]), "{mode}");
        // A change of the rules holds at once.
        allow(broker, "bob", ResourceKind::Topic, "a.b", Operation::Read);
        produce(&ns, None, &t, &[("3", None)]);
        assert_eq!(both(&ns), of(&["3"], &["3"]), "{mode}");
        let denied = rule("ann", ResourceKind::Topic, "a.b", Operation::Read, Effect::Deny);
        let _ = broker.access().add_rules(vec![denied]).unwrap();
        produce(&ns, None, &t, &[("4", None)]);
        assert_eq!(both(&ns), of(&[], &["4"]), "{mode}");
        // A publish at the address is no record of the topic.
        publish(&ns, inver_broker::Target::Hub(b"a/b"), "5");
        assert_eq!(both(&ns), of(&["5"], &["5"]), "{mode}");
        // Bindings keep their clients across a restart.
        drop((ns, t));
        fixture = fixture.restart();
        let (broker, ns) = (&fixture.broker, fixture.namespace());
        let t = ns.topic("a.b").unwrap();
        produce(&ns, None, &t, &[("6", None)]);
        assert_eq!(both(&ns), of(&[], &["6"]), "{mode}");
        let _ = broker.access().delete_rules(|_| true).unwrap();
        for queue in ["anns", "bobs"] {
            let _ = ns.delete_queue(queue, false, false).unwrap();
        }
        let _ = ns.delete_topic("a.b").unwrap();
    }
}

/// The second declaration of a binding counted for nothing: the binding stopped when the first user was deleted, or could
/// not read the topic in the first place.
#[tokio::test]
async fn a_binding_passes_on_what_one_of_its_clients_may_read() {
    let fixture = fixture();
    let (broker, ns) = (&fixture.broker, fixture.namespace());
    let t = topic(&ns, "a.b", "named");
    allow(broker, "bob", ResourceKind::Topic, "a.b", Operation::Read);
    bind_as(broker, "ann", "q", "a.b");
    produce(&ns, None, &t, &[("1", None)]);
    assert_eq!(received(&ns, "q"), Vec::<String>::new(), "ann may not read the topic");
    bind_as(broker, "bob", "q", "a.b");
    bind_as(broker, "bob", "q", "a.b");
    produce(&ns, None, &t, &[("2", None)]);
    assert_eq!(received(&ns, "q"), ["2"], "bob may");
    allow(broker, "ann", ResourceKind::Topic, "a.b", Operation::Read);
    let _ = broker.access().delete_user("bob").unwrap();
    produce(&ns, None, &t, &[("3", None)]);
    assert_eq!(received(&ns, "q"), ["3"], "ann may now");
    drop((ns, t));
    // Both are its clients after a restart too.
    let fixture = fixture.restart();
    let (broker, ns) = (&fixture.broker, fixture.namespace());
    let t = ns.topic("a.b").unwrap();
    let denied = rule("ann", ResourceKind::Topic, "a.b", Operation::Read, Effect::Deny);
    let _ = broker.access().add_rules(vec![denied]).unwrap();
    produce(&ns, None, &t, &[("4", None)]);
    assert_eq!(received(&ns, "q"), Vec::<String>::new(), "nobody may");
    let _ = broker.access().put_user(User::new("bob")).unwrap();
    allow(broker, "bob", ResourceKind::Topic, "a.b", Operation::Read);
    produce(&ns, None, &t, &[("5", None)]);
    assert_eq!(received(&ns, "q"), ["5"], "bob may again");
    // Unbound for all, by any client that may unbind.
    let to = BindDestination::Queue("q");
    committed(&ns, ns.unbind(HUB, to, b"a.b", &Default::default()).unwrap());
    produce(&ns, None, &t, &[("6", None)]);
    assert_eq!(received(&ns, "q"), Vec::<String>::new());
}

/// Creating the first user must not stop what ran before.
#[tokio::test]
async fn a_binding_from_before_there_were_users_passes_everything_on() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let t = topic(&ns, "a.b", "named");
    bind_as(&fixture.broker, "ann", "q", "a.b");
    let _ = fixture.broker.access().put_user(User::new("ann")).unwrap();
    // Declared again by a client that may not read the topic.
    bind_as(&fixture.broker, "ann", "q", "a.b");
    produce(&ns, None, &t, &[("1", None)]);
    assert_eq!(received(&ns, "q"), ["1"]);
    drop((ns, t));
    let fixture = fixture.restart();
    let ns = fixture.namespace();
    let t = ns.topic("a.b").unwrap();
    produce(&ns, None, &t, &[("2", None)]);
    assert_eq!(received(&ns, "q"), ["2"]);
    // Made again, it is ann's.
    let to = BindDestination::Queue("q");
    committed(&ns, ns.unbind(HUB, to, b"a.b", &Default::default()).unwrap());
    bind_as(&fixture.broker, "ann", "q", "a.b");
    produce(&ns, None, &t, &[("3", None)]);
    assert_eq!(received(&ns, "q"), Vec::<String>::new());
}

#[tokio::test]
async fn a_record_names_only_an_address_where_its_producer_may_publish() {
    let fixture = fixture();
    let (broker, ns) = (&fixture.broker, fixture.namespace());
    let (commands, device) = (topic(&ns, "commands", "named"), topic(&ns, "device.1", "named"));
    let q = declare(&ns, "q", QueueSpec::default());
    ns.bind(HUB, BindDestination::Queue(q.name()), b"#", &Default::default()).unwrap();
    allow(broker, "ann", ResourceKind::Address, "device/1", Operation::Write);
    let ann = permissions(broker, "ann");
    let records = [("on", Some("device/1")), ("forbidden", Some("device/2"))];
    produce(&ns, Some(&ann), &commands, &records);
    assert_eq!(received(&ns, "q"), ["on"]);
    let stored = |topic: &Topic| topic.partition(0).unwrap().stream().next_offset().0;
    assert_eq!((stored(&commands), stored(&device)), (2, 0), "she may not write the topic of the address");
    allow(broker, "ann", ResourceKind::Topic, "device.1", Operation::Write);
    produce(&ns, Some(&ann), &commands, &records);
    assert_eq!((received(&ns, "q"), stored(&device)), (vec!["on".to_owned()], 1));
    produce(&ns, None, &commands, &records);
    assert_eq!(received(&ns, "q"), ["on", "forbidden"]);
}
