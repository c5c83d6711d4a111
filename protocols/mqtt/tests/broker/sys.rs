//! What the broker says of itself.

use std::collections::HashMap;

use inver_mqtt::codec::*;

use crate::support::*;

#[tokio::test]
async fn values_come_on_subscribing_and_again() {
    let server = Server::with(inver_mqtt::MqttConfig { sys_interval_s: 1, ..Default::default() }).await;
    let mut other = server.client(Version::V311, "other").await;
    other.say("a", "1", Qos::AtLeastOnce).await;
    other.retain("a", "kept", Qos::AtLeastOnce).await;
    let mut client = server.client(Version::V5, "c").await;
    let all = SubscribeOptions { qos: Qos::ExactlyOnce, ..Default::default() };
    client.subscribe(&[("$SYS/#", all)], &[Property::SubscriptionIdentifier(3)]).await;
    let mut values = HashMap::new();
    for _ in 0..8 {
        let message = client.take().await;
        assert!(message.retain && message.qos == Qos::AtMostOnce);
        assert_eq!(message.properties.iter().collect::<Vec<_>>(), [Property::SubscriptionIdentifier(3)]);
        let (topic, value, _) = seen(&message);
        values.insert(topic, value);
    }
    assert!(values["$SYS/broker/version"].starts_with("inver version "));
    assert!(values["$SYS/broker/uptime"].ends_with(" seconds"));
    assert_eq!(values["$SYS/broker/clients/connected"], "2");
    assert_eq!(values["$SYS/broker/publish/messages/received"], "2");
    assert_eq!(values["$SYS/broker/retained messages/count"], "1");
    other.leave().await;
    // The next ones are no retained messages; the client that left is not counted any more.
    loop {
        let message = client.take().await;
        assert!(!message.retain);
        if seen(&message).0 == "$SYS/broker/clients/connected" && seen(&message).1 == "1" {
            break;
        }
    }
}

#[tokio::test]
async fn a_filter_gets_what_it_matches_and_other_wildcards_nothing() {
    let server = Server::with(inver_mqtt::MqttConfig { sys_interval_s: 0, ..Default::default() }).await;
    let mut client = server.client(Version::V311, "c").await;
    client.sub("#", Qos::AtMostOnce).await;
    client.sub("+/broker/uptime", Qos::AtMostOnce).await;
    client.sub("$SYS/broker/clients/+", Qos::AtMostOnce).await;
    let mut topics = vec![seen(&client.take().await).0, seen(&client.take().await).0];
    topics.sort_unstable();
    assert_eq!(topics, ["$SYS/broker/clients/connected", "$SYS/broker/clients/maximum"]);
    client.nothing().await;
}

#[tokio::test]
async fn a_session_that_comes_back_hears_them_again() {
    let server = Server::with(inver_mqtt::MqttConfig { sys_interval_s: 1, ..Default::default() }).await;
    let opening = Opening {
        clean_start: false,
        properties: vec![Property::SessionExpiryInterval(100)],
        ..Default::default()
    };
    let (mut client, _) = server.open(Version::V5, opening.clone()).await;
    client.sub("$SYS/broker/uptime", Qos::AtMostOnce).await;
    client.take().await;
    client.breaks().await;
    let (mut client, connack) = server.open(Version::V5, opening).await;
    assert!(connack.session_present);
    assert_eq!(client.take().await.topic, "$SYS/broker/uptime");
}

#[tokio::test]
async fn clients_cannot_publish_there_by_a_will_either() {
    let server = Server::start().await;
    let will = Will {
        qos: Qos::AtLeastOnce,
        retain: true,
        topic: "$SYS/broker/uptime",
        payload: b"forged",
        properties: Properties::EMPTY,
    };
    for version in [Version::V311, Version::V5] {
        let mut client = server.dial(version).await;
        client.connect(&Opening { will: Some(will.clone()), ..Default::default() }).await;
        assert_eq!(client.connack().await.reason, Reason::NotAuthorized);
    }
}
