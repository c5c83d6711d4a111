//! Permissions: what clients are refused, in both versions' codes.

use std::num::NonZeroU32;

use inver_access::{
    Credential, Digest, Effect, Operation, Operations, Pattern, Principal, ResourceKind, Rule, RuleId, User,
};
use inver_broker::{Anonymous, ClientCertificate, ListenerInfo, NamespaceSpec};
use inver_mqtt::codec::*;
use inver_mqtt::{ClientIdBinding, MqttConfig};

use crate::support::*;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

fn allow(user: &str, filter: &str, operations: &[Operation]) -> Rule {
    rule(user, ResourceKind::Address, filter, operations, Effect::Allow)
}

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

/// A server with the users `ann` and `bob`, whose passwords are their names.
async fn server(config: MqttConfig) -> Server {
    let server = Server::with(config).await;
    for name in ["ann", "bob"] {
        let mut user = User::new(name);
        let iterations = NonZeroU32::new(16).unwrap();
        user.credentials.push(Credential::scram(Digest::Sha256, name.as_bytes(), iterations).unwrap());
        server.broker.access().put_user(user).unwrap();
    }
    server
}

fn rules(server: &Server, rules: Vec<Rule>) {
    server.broker.access().add_rules(rules).unwrap();
}

fn login<'a>(user: &'a str, client_id: &'a str) -> ConnectOptions<'a> {
    let password = user.rsplit(':').next().unwrap_or_default().as_bytes();
    ConnectOptions { client_id, user: Some((user, password)), ..ConnectOptions::default() }
}

/// A session that stays.
fn kept<'a>(version: Version, user: &'a str, client_id: &'a str) -> ConnectOptions<'a> {
    let properties = match version {
        Version::V5 => vec![Property::SessionExpiryInterval(600)],
        _ => Vec::new(),
    };
    ConnectOptions { clean_start: false, properties, ..login(user, client_id) }
}

async fn refused(server: &Server, version: Version, options: ConnectOptions<'_>) -> Reason {
    let mut client = server.dial(version).await;
    client.send_connect(&options).await;
    client.connack().await.reason
}

#[tokio::test]
async fn a_denied_publish_is_dropped_and_mqtt_5_says_so() {
    let server = server(MqttConfig::default()).await;
    rules(
        &server,
        vec![
            allow("ann", "#", &[Operation::Subscribe, Operation::Receive]),
            allow("ann", "a/+", &[Operation::Write]),
        ],
    );
    for version in VERSIONS {
        let (mut client, _) = server.connect(version, login("ann", "c")).await;
        client.subscribe_at("#", Qos::AtMostOnce).await;
        let denied = if version == Version::V5 { Reason::NotAuthorized } else { Reason::Success };
        assert_eq!(client.publish_text("b", "x", Qos::AtMostOnce).await, Reason::Success);
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            assert_eq!(client.publish_text("b", "x", qos).await, denied, "{version:?} {qos:?}");
            assert_eq!(client.publish_retained("b", "x", qos).await, denied);
        }
        client.send(Packet::Publish(message("a/1", "y", Qos::AtMostOnce))).await;
        assert_eq!(client.receive().await.topic, "a/1", "the connection goes on, nothing of `b` came");
        client.disconnect().await;
    }
    assert!(server.broker.default_namespace().retained().is_empty());
}

#[tokio::test]
async fn a_topic_alias_is_no_way_round() {
    let server = server(MqttConfig::default()).await;
    rules(&server, vec![allow("ann", "a", &[Operation::Write])]);
    let (mut client, _) = server.connect(Version::V5, login("ann", "c")).await;
    let aliased = |topic, alias| Publish {
        properties: properties(&[Property::TopicAlias(alias)]),
        ..message(topic, "x", Qos::AtLeastOnce)
    };
    assert_eq!(client.publish(aliased("b", 1)).await, Reason::NotAuthorized);
    assert_eq!(client.publish(aliased("", 1)).await, Reason::NotAuthorized);
    assert_eq!(client.publish(aliased("a", 1)).await, Reason::NoMatchingSubscribers);
    assert_eq!(client.publish(aliased("", 1)).await, Reason::NoMatchingSubscribers);
}

#[tokio::test]
async fn a_filter_is_granted_as_a_whole_or_refused() {
    let server = server(MqttConfig::default()).await;
    rules(&server, vec![allow("ann", "a/#", &[Operation::Subscribe, Operation::Receive])]);
    for version in VERSIONS {
        let (mut client, _) = server.connect(version, login("ann", "c")).await;
        let options = SubscribeOptions { qos: Qos::AtLeastOnce, ..Default::default() };
        let filters = ["a/b", "a/+", "a/#", "a", "+/b", "#", "$SYS/#", "$share/g/a/b", "$share/g/b"];
        let asked: Vec<_> = filters.iter().map(|filter| (*filter, options)).collect();
        let suback = client.subscribe(&asked, &[]).await;
        let refused = if version == Version::V5 { Reason::NotAuthorized } else { Reason::Unspecified };
        let (yes, no) = (Reason::GrantedQos1, refused);
        assert_eq!(suback.reasons, [yes, yes, yes, yes, no, no, no, yes, no]);
        client.disconnect().await;
    }
}

#[tokio::test]
async fn what_is_received_follows_every_change() {
    let server = server(MqttConfig::default()).await;
    let both = [Operation::Receive, Operation::Write];
    rules(
        &server,
        vec![
            allow("ann", "#", &[Operation::Subscribe]),
            allow("ann", "$SYS/broker/uptime", &[Operation::Subscribe, Operation::Receive]),
            allow("ann", "a/#", &both),
            allow("bob", "#", &[Operation::Write]),
        ],
    );
    for version in VERSIONS {
        let (mut bob, _) = server.connect(version, login("bob", "d")).await;
        bob.publish_retained("a/kept", "r", Qos::AtLeastOnce).await;
        bob.publish_retained("b/kept", "r", Qos::AtLeastOnce).await;
        let (mut ann, _) = server.connect(version, kept(version, "ann", "c")).await;
        ann.subscribe_at("#", Qos::AtLeastOnce).await;
        assert_eq!(summary(&ann.receive().await), ("a/kept", "r", 1));
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            bob.publish_text("b/1", "x", qos).await;
            bob.publish_text("a/1", "x", qos).await;
            assert_eq!(summary(&ann.receive().await), ("a/1", "x", qos as u8));
        }
        // What waits for a session that is away is decided when it is sent.
        ann.drop_connection().await;
        bob.publish_text("a/2", "x", Qos::AtLeastOnce).await;
        bob.publish_text("a/3", "x", Qos::AtLeastOnce).await;
        let deny = rule("ann", ResourceKind::Address, "a/2", &[Operation::Receive], Effect::Deny);
        rules(&server, vec![deny]);
        let (mut ann, connack) = server.connect(version, kept(version, "ann", "c")).await;
        assert!(connack.session_present);
        assert_eq!(ann.receive().await.topic, "a/3");
        // A subscription that is there is no permission.
        bob.publish_text("a/2", "x", Qos::AtMostOnce).await;
        bob.publish_text("a/4", "x", Qos::AtMostOnce).await;
        assert_eq!(ann.receive().await.topic, "a/4");
        server.broker.access().delete_rules(|rule| rule.effect == Effect::Deny).unwrap();
        bob.publish_text("a/2", "x", Qos::AtMostOnce).await;
        assert_eq!(ann.receive().await.topic, "a/2");
        ann.unsubscribe("#").await;
        ann.subscribe_at("$SYS/broker/uptime", Qos::AtMostOnce).await;
        assert_eq!(ann.receive().await.topic, "$SYS/broker/uptime");
        server.broker.access().delete_rules(|rule| rule.effect == Effect::Deny).unwrap();
        ann.disconnect().await;
        bob.publish_retained("a/kept", "", Qos::AtLeastOnce).await;
    }
}

#[tokio::test]
async fn a_session_is_its_users() {
    let server = server(MqttConfig::default()).await;
    rules(&server, vec![allow("ann", "#", &[Operation::Subscribe, Operation::Receive])]);
    for version in VERSIONS {
        let (mut ann, _) = server.connect(version, kept(version, "ann", "device")).await;
        ann.subscribe_at("x", Qos::AtLeastOnce).await;
        for options in [login("bob", "device"), kept(version, "bob", "device")] {
            assert_eq!(refused(&server, version, options).await, Reason::NotAuthorized);
        }
        ann.ping().await;
        ann.disconnect().await;
        assert_eq!(refused(&server, version, kept(version, "bob", "device")).await, Reason::NotAuthorized);
        let (ann, connack) = server.connect(version, kept(version, "ann", "device")).await;
        assert!(connack.session_present);
        ann.disconnect().await;
        assert_eq!(refused(&server, version, login("ann", "device")).await, Reason::Success);
    }
    let resume = rule("bob", ResourceKind::Session, "device", &[Operation::Resume], Effect::Allow);
    rules(&server, vec![resume]);
    let (ann, _) = server.connect(Version::V5, kept(Version::V5, "ann", "device")).await;
    let (_bob, connack) = server.connect(Version::V5, kept(Version::V5, "bob", "device")).await;
    assert!(connack.session_present);
    drop(ann);
}

#[tokio::test]
async fn client_ids_are_bound_to_users_if_the_configuration_says_so() {
    let cases = [
        (ClientIdBinding::User, "ann", true),
        (ClientIdBinding::User, "ann-1", false),
        (ClientIdBinding::Prefix, "ann-1", true),
        (ClientIdBinding::Prefix, "anna", false),
        (ClientIdBinding::None, "anna", true),
    ];
    for (client_id_binding, client_id, is_allowed) in cases {
        let server = server(MqttConfig { client_id_binding, ..Default::default() }).await;
        for version in VERSIONS {
            let expected = if is_allowed { Reason::Success } else { Reason::ClientIdNotValid };
            assert_eq!(refused(&server, version, login("ann", client_id)).await, expected, "{client_id}");
        }
        let (_client, connack) = server.connect(Version::V5, login("ann", "")).await;
        let assigned = connack.properties.iter().find_map(|property| match property {
            Property::AssignedClientIdentifier(id) => Some(id),
            _ => None,
        });
        let prefix = if client_id_binding == ClientIdBinding::None { "auto-" } else { "ann" };
        assert!(assigned.unwrap().starts_with(prefix), "{assigned:?}");
    }
}

#[tokio::test]
async fn the_user_name_chooses_a_namespace() {
    let server = server(MqttConfig::default()).await;
    rules(&server, vec![allow("ann", "#", &[Operation::Subscribe, Operation::Receive, Operation::Write])]);
    for version in VERSIONS {
        let (mut client, _) = server.connect(version, login("/:ann", "c")).await;
        client.subscribe_at("t", Qos::AtMostOnce).await;
        client.publish_text("t", "x", Qos::AtMostOnce).await;
        assert_eq!(summary(&client.receive().await).1, "x");
        client.disconnect().await;
        // A user without rules there may not connect; a namespace that is not there is refused in the same way.
        for user in ["/:bob", "none:ann"] {
            assert_eq!(refused(&server, version, login(user, "d")).await, Reason::NotAuthorized, "{user}");
        }
        // Nobody asked for it: the user may connect and do nothing.
        assert_eq!(refused(&server, version, login("bob", "d")).await, Reason::Success);
        // Listeners can be bound to one.
        let bound = ListenerInfo { namespace: Some("none".into()), ..ListenerInfo::default() };
        for user in ["ann", "/:ann"] {
            let mut client = server.dial_as(version, bound.clone(), None);
            client.send_connect(&login(user, "d")).await;
            assert_eq!(client.connack().await.reason, Reason::NotAuthorized, "{user}");
        }
        // Another namespace has its own rules, subscriptions and retained messages.
        if server.broker.namespace("plant").is_none() {
            server.broker.create_namespace("plant", NamespaceSpec::default()).unwrap();
            let mut there = allow("bob", "#", &[Operation::Subscribe, Operation::Receive, Operation::Write]);
            there.namespace = Some("plant".into());
            rules(&server, vec![there]);
        }
        let (mut bob, _) = server.connect(version, login("plant:bob", "c")).await;
        let (mut ann, _) = server.connect(version, login("ann", "c")).await;
        ann.subscribe_at("t", Qos::AtMostOnce).await;
        bob.publish_retained("t", "there", Qos::AtLeastOnce).await;
        bob.subscribe_at("t", Qos::AtMostOnce).await;
        assert_eq!(summary(&bob.receive().await).1, "there");
        ann.publish_text("t", "here", Qos::AtMostOnce).await;
        assert_eq!(summary(&ann.receive().await).1, "here");
        ann.disconnect().await;
        bob.disconnect().await;
        // The name of a user as a whole comes first.
        let mut named = User::new("/:eve");
        let iterations = NonZeroU32::new(16).unwrap();
        named.credentials.push(Credential::scram(Digest::Sha256, b"eve", iterations).unwrap());
        server.broker.access().put_user(named).unwrap();
        assert_eq!(refused(&server, version, login("/:eve", "d")).await, Reason::Success);
    }
}

#[tokio::test]
async fn a_listener_lets_in_certificates_and_any_user_name() {
    let server = server(MqttConfig::default()).await;
    let certificate = ClientCertificate { user: Some("ann".into()), ..Default::default() };
    for version in VERSIONS {
        // The certificate's user counts, whatever the CONNECT says.
        let mut client = server.dial_as(version, ListenerInfo::default(), Some(certificate.clone()));
        client.send_connect(&ConnectOptions { user: Some(("?SDK=x", b"")), ..login("bob", "c") }).await;
        assert_eq!(client.connack().await.reason, Reason::Success);
        assert_eq!(server.broker.connections().list()[0].user(), Some("ann"));
        client.disconnect().await;
        let unknown = ClientCertificate { user: Some("eve".into()), ..Default::default() };
        let mut client = server.dial_as(version, ListenerInfo::default(), Some(unknown));
        client.send_connect(&ConnectOptions { user: None, ..login("eve", "c") }).await;
        assert_eq!(client.connack().await.reason, Reason::BadUserNameOrPassword);
        // Some clients send metrics as their user name.
        let open = ListenerInfo { anonymous: Anonymous::Always, any_user_name: true, ..Default::default() };
        let mut client = server.dial_as(version, open.clone(), None);
        client.send_connect(&ConnectOptions { user: Some(("?SDK=x&v=a:b", b"")), ..login("x", "e") }).await;
        assert_eq!(client.connack().await.reason, Reason::Success);
        // A wrong password is one on such a listener too.
        let mut client = server.dial_as(version, open, None);
        client.send_connect(&ConnectOptions { user: Some(("ann", b"no")), ..login("x", "f") }).await;
        assert_eq!(client.connack().await.reason, Reason::BadUserNameOrPassword);
    }
}

#[tokio::test]
async fn a_will_needs_the_permission_when_it_is_published() {
    let server = server(MqttConfig::default()).await;
    rules(
        &server,
        vec![
            allow("ann", "a", &[Operation::Write]),
            allow("bob", "#", &[Operation::Subscribe, Operation::Receive]),
        ],
    );
    for version in VERSIONS {
        let (mut bob, _) = server.connect(version, login("bob", "d")).await;
        bob.subscribe_at("#", Qos::AtLeastOnce).await;
        for topic in ["b", "a"] {
            let will = Will {
                qos: Qos::AtLeastOnce,
                retain: false,
                topic,
                payload: b"w",
                properties: Properties::EMPTY,
            };
            let options = ConnectOptions { will: Some(will), ..login("ann", "c") };
            let (ann, connack) = server.connect(version, options).await;
            assert_eq!(connack.reason, Reason::Success, "a will alone keeps no client out");
            ann.drop_connection().await;
        }
        assert_eq!(bob.receive().await.topic, "a");
        bob.disconnect().await;
    }
}
