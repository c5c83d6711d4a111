//! `$SYS` topics.

use std::collections::HashMap;

use inver_mqtt::codec::*;

use crate::support::*;

#[tokio::test]
async fn values_are_sent_on_subscribing_and_at_every_interval() {
    let server = Server::with(inver_mqtt::MqttConfig { sys_interval_s: 1, ..Default::default() }).await;
    let mut other = server.client(Version::V311, "other").await;
    other.publish_text("a", "1", Qos::AtLeastOnce).await;
    other.publish_retained("a", "kept", Qos::AtLeastOnce).await;
    let mut client = server.client(Version::V5, "c").await;
    let all = SubscribeOptions { qos: Qos::ExactlyOnce, ..Default::default() };
    client.subscribe(&[("$SYS/#", all)], &[Property::SubscriptionIdentifier(3)]).await;
    let mut values = HashMap::new();
    for _ in 0..8 {
        let message = client.receive().await;
        assert!(message.retain && message.qos == Qos::AtMostOnce);
        assert_eq!(message.properties.iter().collect::<Vec<_>>(), [Property::SubscriptionIdentifier(3)]);
        let (topic, value, _) = summary(&message);
        values.insert(topic, value);
    }
    assert!(values["$SYS/broker/version"].starts_with("inver version "));
    assert!(values["$SYS/broker/uptime"].ends_with(" seconds"));
    assert_eq!(values["$SYS/broker/clients/connected"], "2");
    assert_eq!(values["$SYS/broker/publish/messages/received"], "2");
    assert_eq!(values["$SYS/broker/retained messages/count"], "1");
    other.disconnect().await;
    // Later values are not retained messages; the disconnected client is no longer counted.
    loop {
        let message = client.receive().await;
        assert!(!message.retain);
        if summary(&message).0 == "$SYS/broker/clients/connected" && summary(&message).1 == "1" {
            break;
        }
    }
}

#[tokio::test]
async fn filters_match_sys_topics_only_by_name() {
    let server = Server::with(inver_mqtt::MqttConfig { sys_interval_s: 0, ..Default::default() }).await;
    let mut client = server.client(Version::V311, "c").await;
    client.subscribe_at("#", Qos::AtMostOnce).await;
    client.subscribe_at("+/broker/uptime", Qos::AtMostOnce).await;
    client.subscribe_at("$SYS/broker/clients/+", Qos::AtMostOnce).await;
    let mut topics = vec![summary(&client.receive().await).0, summary(&client.receive().await).0];
    topics.sort_unstable();
    assert_eq!(topics, ["$SYS/broker/clients/connected", "$SYS/broker/clients/maximum"]);
    client.expect_silence().await;
}

#[tokio::test]
async fn a_resumed_session_receives_values_again() {
    let server = Server::with(inver_mqtt::MqttConfig { sys_interval_s: 1, ..Default::default() }).await;
    let options = ConnectOptions {
        clean_start: false,
        properties: vec![Property::SessionExpiryInterval(100)],
        ..Default::default()
    };
    let (mut client, _) = server.connect(Version::V5, options.clone()).await;
    client.subscribe_at("$SYS/broker/uptime", Qos::AtMostOnce).await;
    client.receive().await;
    client.drop_connection().await;
    let (mut client, connack) = server.connect(Version::V5, options).await;
    assert!(connack.session_present);
    assert_eq!(client.receive().await.topic, "$SYS/broker/uptime");
}
