//! Publishing with the permissions of a client, and the limits of users.

use std::sync::Arc;

use inver_access::{
    Effect, Operation, Operations, Pattern, Principal, ResourceKind, Rule, RuleId, User, UserLimits,
};
use inver_broker::{
    Admission, AdmitError, Admitted, Broker, BrokerConfig, Endpoints, HUB, Identity, LoginRefusal, Mailbox,
    Permissions, PublishError, Publisher, PublisherId, QueueSpec, Target, TopicConfig, TopicSpec,
};
use inver_storage::{LogOptions, Share};

use crate::fixture::{Fixture, message};

const BY: PublisherId = PublisherId { origin: "test", session: None };

fn admit(broker: &Broker, user: &str) -> Result<Admitted, AdmitError> {
    broker.admit(&Admission {
        protocol: "test",
        identity: &Identity::user(user),
        endpoints: &Endpoints {
            peer: ([127, 0, 0, 1], 1).into(),
            local: ([127, 0, 0, 1], 2).into(),
            encrypted: false,
            listener: Arc::default(),
        },
        namespace: Some("/"),
        client_id: "",
        mailbox: &Mailbox::new(),
        wait_max: std::time::Duration::ZERO,
    })
}

/// Gives the user the permission to write to exchanges and topics whose name matches, with keys of these exchanges that
/// match; for the hub the addresses are those of its keys.
fn set(broker: &Broker, write: &str, keys: &[(&str, &str)]) {
    let rule = |kind, pattern| Rule {
        id: RuleId(0),
        principal: Principal::User("ann".into()),
        namespace: Some("/".into()),
        kind,
        pattern,
        operations: Operations::of(&[Operation::Write]),
        effect: Effect::Allow,
        host: None,
        dialect: String::new(),
    };
    let mut rules = vec![
        rule(ResourceKind::Exchange, Pattern::Regex(write.into())),
        rule(ResourceKind::Topic, Pattern::Regex(write.into())),
    ];
    for (exchange, expression) in keys {
        let keys = Box::new(Pattern::Regex((*expression).into()));
        rules.push(rule(ResourceKind::RoutingKey, Pattern::Within { exchange: (*exchange).into(), keys }));
    }
    let hub = keys.iter().find(|(exchange, _)| *exchange == HUB);
    let addresses = hub.map_or(Pattern::Any, |(_, expression)| Pattern::Dotted((*expression).into()));
    rules.push(rule(ResourceKind::Address, addresses));
    let _ = broker.access().replace_rules(|_| true, rules).unwrap();
}

fn publisher(broker: &Broker, permissions: &Arc<Permissions>) -> Publisher {
    Publisher::new(broker.default_namespace(), BY).with_permissions(permissions.clone())
}

fn publish(by: &mut Publisher, name: &str, key: &str) -> Result<usize, PublishError> {
    let to = Target::Exchange { name, routing_key: key.as_bytes(), more_keys: &[] };
    by.publish(to, &message(b"m")).map(|routed| routed.destinations)
}

fn is_refused<T>(result: &Result<T, PublishError>) -> bool {
    matches!(result, Err(PublishError::Refused(_) | PublishError::KeyRefused { .. }))
}

#[test]
fn a_publish_needs_the_permission_to_write_also_when_its_route_is_cached() {
    let fixture = Fixture::new();
    let broker = &fixture.broker;
    broker.access().put_user(User::new("ann")).unwrap();
    broker.default_namespace().declare_queue("q", QueueSpec::default()).unwrap();
    set(broker, "^amq\\.default$", &[]);
    let admitted = admit(broker, "ann").unwrap();
    let mut by = publisher(broker, &admitted.permissions);
    assert_eq!(publish(&mut by, "", "q"), Ok(1));
    assert!(is_refused(&publish(&mut by, "amq.fanout", "")));
    assert_eq!(
        publish(&mut by, "none", ""),
        Err(PublishError::Refused("none".into())),
        "not: no such exchange"
    );
    set(broker, "^amq\\.(topic|headers)$", &[(HUB, "^up\\.")]);
    assert!(is_refused(&publish(&mut by, "", "q")), "the cached route is not used any more");
    assert_eq!(publish(&mut by, HUB, "up.a"), Ok(0));
    assert_eq!(
        publish(&mut by, HUB, "down.a"),
        Err(PublishError::KeyRefused { exchange: HUB.into(), routing_key: "down.a".into() })
    );
    let hub = |by: &mut Publisher, address: &str| {
        by.publish(Target::Hub(address.as_bytes()), &message(b"m")).map(|routed| routed.destinations)
    };
    assert!(hub(&mut by, "up/a").is_ok() && is_refused(&hub(&mut by, "down/a")));
    let more: &[&[u8]] = &[b"down.b"];
    let to = Target::Exchange { name: HUB, routing_key: b"up.a", more_keys: more };
    assert!(is_refused(&by.publish(to, &message(b"m"))) && is_refused(&by.check(to)));
    assert_eq!(publish(&mut by, "amq.headers", "any"), Ok(0), "keys matter in topic exchanges only");
}

#[test]
fn the_hub_reaches_a_log_topic_only_with_permission_to_write_to_it() {
    let fixture = Fixture::new();
    let broker = &fixture.broker;
    let spec = TopicSpec { partitions: 1, config: TopicConfig::new() };
    broker.default_namespace().create_topic("metrics.a", &spec).unwrap();
    broker.access().put_user(User::new("ann")).unwrap();
    set(broker, "^amq\\.topic$", &[]);
    let admitted = admit(broker, "ann").unwrap();
    let mut by = publisher(broker, &admitted.permissions);
    assert_eq!(publish(&mut by, HUB, "metrics.a"), Ok(0));
    set(broker, "^(amq\\.topic|metrics\\.a)$", &[]);
    assert_eq!(publish(&mut by, HUB, "metrics.a"), Ok(1));
}

#[test]
fn a_user_has_as_many_channels_as_its_limit_allows() {
    let fixture = Fixture::new();
    let access = fixture.broker.access();
    let limits = UserLimits { connections_max: None, channels_max: Some(2) };
    access.put_user(User { limits, ..User::new("ann") }).unwrap();
    let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
    let first = access.open_channel(&ann).unwrap();
    let second = access.open_channel(&ann).unwrap();
    assert_eq!(access.open_channel(&ann).err().map(|reached| reached.max), Some(2));
    assert!(access.open_channel(&bob).is_ok(), "another user");
    drop(first);
    assert!(access.open_channel(&ann).is_ok());
    drop(second);
}

#[test]
fn a_deleted_user_is_revoked() {
    let fixture = Fixture::new();
    let broker = &fixture.broker;
    for name in ["ann", "bob"] {
        broker.access().put_user(User::new(name)).unwrap();
    }
    set(broker, "^$", &[]);
    let admitted = admit(broker, "ann").unwrap();
    assert!(!admitted.permissions.is_revoked());
    broker.access().delete_user("ann").unwrap();
    assert!(admitted.permissions.is_revoked());
    assert_eq!(admit(broker, "ann").err(), Some(AdmitError::Disabled));
}

#[test]
fn no_client_is_admitted_while_memory_is_nearly_used_up() {
    let options = LogOptions { memory_limit: Some(1 << 20), ..LogOptions::default() };
    let fixture = Fixture::over(BrokerConfig::default(), options);
    fixture.broker.access().put_user(User::new("ann")).unwrap();
    set(&fixture.broker, "^$", &[]);
    let mut held = fixture.broker.log().memory().holder(Share::Offsets);
    held.force(1 << 20);
    let error = admit(&fixture.broker, "ann").err().unwrap();
    assert_eq!((error.is_passing(), error.login_refusal()), (true, LoginRefusal::Unavailable));
    assert_eq!(error, AdmitError::NoMemory);
    held.force(0);
    assert!(admit(&fixture.broker, "ann").is_ok());
}
