//! What clients may use: maximum QoS, retained messages, kinds of subscriptions; and QoS beyond that of the publish.

use inver_broker::ListenerInfo;
use inver_mqtt::codec::*;
use inver_mqtt::{ClientRule, ClientRules, MqttConfig};

use crate::support::*;

fn at(qos: Qos) -> SubscribeOptions {
    SubscribeOptions { qos, ..Default::default() }
}

fn narrow() -> MqttConfig {
    MqttConfig {
        maximum_qos: 1,
        retain_available: false,
        wildcard_subscriptions: false,
        shared_subscriptions: false,
        keep_alive_s_max: Some(30),
        response_information: "answers/{client_id}/".into(),
        client_limits: ClientRules(vec![ClientRule {
            listener: Some("wide".into()),
            maximum_qos: Some(2),
            retain_available: Some(true),
            wildcard_subscriptions: Some(true),
            shared_subscriptions: Some(true),
            keep_alive_s_max: Some(0),
            ..ClientRule::default()
        }]),
        ..MqttConfig::default()
    }
}

#[tokio::test]
async fn clients_are_told_what_is_available() {
    let server = Server::with(narrow()).await;
    let options = || ConnectOptions {
        client_id: "c",
        properties: vec![Property::RequestResponseInformation(1)],
        ..Default::default()
    };
    let (client, connack) = server.connect(Version::V5, options()).await;
    let told: Vec<_> = connack.properties.iter().collect();
    for property in [
        Property::MaximumQos(1),
        Property::RetainAvailable(0),
        Property::WildcardSubscriptionAvailable(0),
        Property::SharedSubscriptionAvailable(0),
        Property::ServerKeepAlive(30),
        Property::ResponseInformation("answers/c/"),
    ] {
        assert!(told.contains(&property), "{property:?} in {told:?}");
    }
    drop(client);
    let wide = ListenerInfo { name: "wide".into(), ..ListenerInfo::default() };
    let mut client = server.dial_as(Version::V5, wide, None);
    client.send_connect(&ConnectOptions { client_id: "d", ..Default::default() }).await;
    let connack = client.connack().await;
    let limits = |property: &Property<'_>| {
        matches!(
            property,
            Property::MaximumQos(_)
                | Property::RetainAvailable(_)
                | Property::WildcardSubscriptionAvailable(_)
                | Property::ServerKeepAlive(_)
                | Property::ResponseInformation(_)
        )
    };
    assert!(!connack.properties.iter().any(|property| limits(&property)));
    client.subscribe_at("b/#", Qos::ExactlyOnce).await;
    client.publish_retained("a", "x", Qos::ExactlyOnce).await;
}

#[tokio::test]
async fn what_is_not_available_is_refused() {
    let server = Server::with(narrow()).await;
    let mut client = server.client(Version::V5, "c").await;
    let filters = [
        ("a/#", at(Qos::AtMostOnce)),
        ("$share/g/a", at(Qos::AtMostOnce)),
        ("$queue/a", at(Qos::AtMostOnce)),
        ("a", at(Qos::ExactlyOnce)),
    ];
    assert_eq!(
        client.subscribe(&filters, &[]).await.reasons,
        [
            Reason::WildcardSubscriptionsNotSupported,
            Reason::SharedSubscriptionsNotSupported,
            Reason::SharedSubscriptionsNotSupported,
            Reason::GrantedQos1,
        ]
    );
    for version in [Version::V5, Version::V311] {
        for (qos, retain, reason) in [
            (Qos::ExactlyOnce, false, Reason::QosNotSupported),
            (Qos::AtLeastOnce, true, Reason::RetainNotSupported),
        ] {
            let mut client = server.client(version, "p").await;
            let packet_id = 7;
            client.send(Packet::Publish(Publish { packet_id, retain, ..message("a", "x", qos) })).await;
            client.expect_close(reason).await;
            // An MQTT 5 client with such a will is refused, an older one gets one that is allowed.
            let will = Will { qos, retain, topic: "w", payload: b"gone", properties: Properties::EMPTY };
            let mut client = server.dial(version).await;
            client
                .send_connect(&ConnectOptions { client_id: "w", will: Some(will), ..Default::default() })
                .await;
            let expected = if version == Version::V5 { reason } else { Reason::Success };
            assert_eq!(client.connack().await.reason, expected);
            if version == Version::V311 {
                client.drop_connection().await;
            }
        }
    }
    assert!(server.broker.default_namespace().retained().is_empty());
}

#[tokio::test]
async fn messages_are_upgraded_to_the_qos_of_the_subscription() {
    let server = Server::with(MqttConfig { upgrade_outgoing_qos: true, ..MqttConfig::default() }).await;
    let mut client = server.client(Version::V5, "c").await;
    client
        .subscribe(
            &[("a", at(Qos::ExactlyOnce)), ("b", at(Qos::AtMostOnce)), ("$share/g/c", at(Qos::AtLeastOnce))],
            &[],
        )
        .await;
    let mut publisher = server.client(Version::V311, "p").await;
    for (topic, qos) in [("a", Qos::ExactlyOnce), ("b", Qos::AtMostOnce), ("c", Qos::AtLeastOnce)] {
        publisher.publish_text(topic, "x", Qos::AtMostOnce).await;
        let got = client.receive().await;
        assert_eq!((got.topic, got.qos), (topic, qos));
    }
}

#[tokio::test]
async fn a_client_that_connects_too_often_is_banned_for_a_while() {
    let config = MqttConfig { flapping_connects_max: Some(3), ..MqttConfig::default() };
    let server = Server::with(config).await;
    for _ in 0..3 {
        server.client(Version::V5, "c").await.disconnect().await;
    }
    let mut fourth = server.client(Version::V5, "c").await;
    fourth.expect_close(Reason::AdministrativeAction).await;
    let mut fifth = server.dial(Version::V5).await;
    fifth.send_connect(&ConnectOptions { client_id: "c", ..Default::default() }).await;
    assert_eq!(fifth.connack().await.reason, Reason::Banned);
    server.client(Version::V5, "other").await.disconnect().await;
}
