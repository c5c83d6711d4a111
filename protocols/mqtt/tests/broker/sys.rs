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
    let all = SubscribeOptions { qos: Qos::AtLeastOnce, ..Default::default() };
    client.subscribe(&[("$SYS/#", all)], &[Property::SubscriptionIdentifier(3)]).await;
    let mut values = HashMap::new();
    while values.len() < 53 {
        let message = client.receive().await;
        assert!(message.retain && message.qos == Qos::AtLeastOnce);
        assert_eq!(message.properties.iter().collect::<Vec<_>>(), [Property::SubscriptionIdentifier(3)]);
        let (topic, value, _) = summary(&message);
        values.insert(topic, value);
    }
    assert!(values["$SYS/broker/version"].starts_with("inver version "));
    assert!(values["$SYS/broker/uptime"].ends_with(" seconds"));
    assert_eq!(values["$SYS/broker/clients/connected"], "2");
    assert_eq!(values["$SYS/broker/publish/messages/received"], "2");
    assert_eq!(values["$SYS/broker/retained messages/count"], "1");
    assert_eq!(values["$SYS/broker/subscriptions/count"], "1");
    assert_eq!(values["$SYS/broker/publish/bytes/received"], "5");
    assert_eq!(values["$SYS/broker/load/connections/15min"].rsplit_once('.').unwrap().1.len(), 2);
    assert!(values["$SYS/broker/heap/current"].parse::<u64>().unwrap() > 0);
    other.disconnect().await;
    // Later values are not retained messages; the disconnected client is no longer counted.
    loop {
        let message = client.receive().await;
        assert!(!message.retain && message.qos == Qos::AtLeastOnce);
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
    client.subscribe_at("$SYS/broker/store/messages/+", Qos::AtMostOnce).await;
    let mut topics = vec![summary(&client.receive().await).0, summary(&client.receive().await).0];
    topics.sort_unstable();
    assert_eq!(topics, ["$SYS/broker/store/messages/bytes", "$SYS/broker/store/messages/count"]);
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

#[tokio::test]
async fn only_values_that_changed_are_sent_again() {
    let server = Server::with(inver_mqtt::MqttConfig { sys_interval_s: 1, ..Default::default() }).await;
    let mut client = server.client(Version::V5, "c").await;
    let once = SubscribeOptions { qos: Qos::AtLeastOnce, ..Default::default() };
    let filters = [("$SYS/broker/subscriptions/count", once), ("$SYS/broker/uptime", once)];
    client.subscribe(&filters, &[]).await;
    let mut counts = Vec::new();
    let mut uptimes = 0;
    while uptimes < 4 {
        let message = client.receive().await;
        match message.topic {
            "$SYS/broker/uptime" => uptimes += 1,
            _ => counts.push(summary(&message).1.to_owned()),
        }
    }
    // The first as if it were retained, and the first of an interval.
    assert_eq!(counts, ["2", "2"]);
}

#[tokio::test]
async fn what_the_namespace_holds_is_counted() {
    let server = Server::start().await;
    let options = ConnectOptions {
        client_id: "away",
        clean_start: false,
        properties: vec![Property::SessionExpiryInterval(1000)],
        ..Default::default()
    };
    let (mut away, _) = server.connect(Version::V5, options).await;
    away.subscribe_at("a", Qos::AtLeastOnce).await;
    away.subscribe_at("$share/g/b", Qos::AtLeastOnce).await;
    away.drop_connection().await;
    let mut client = server.client(Version::V5, "c").await;
    client.publish_text("a", "waits", Qos::AtLeastOnce).await;
    server.broker.keep_bounds();
    client.subscribe_at("$SYS/broker/#", Qos::AtMostOnce).await;
    let mut values = HashMap::new();
    while values.len() < 53 {
        let message = client.receive().await;
        values.insert(message.topic, summary(&message).1);
    }
    for (topic, value) in [
        ("clients/total", "2"),
        ("clients/disconnected", "1"),
        ("clients/inactive", "1"),
        ("clients/active", "1"),
        ("clients/expired", "0"),
        ("messages/stored", "1"),
        ("store/messages/count", "1"),
        ("subscriptions/count", "3"),
        ("shared_subscriptions/count", "1"),
    ] {
        assert_eq!(values[&*format!("$SYS/broker/{topic}")], value, "{topic}");
    }
}

#[tokio::test]
async fn connections_and_disconnections_are_told() {
    let config = inver_mqtt::MqttConfig { events_topic: "mqtt-events".into(), ..Default::default() };
    let server = Server::with(config).await;
    let mut watcher = server.client(Version::V5, "watcher").await;
    watcher.subscribe_at("$SYS/brokers/+/clients/#", Qos::AtLeastOnce).await;
    let client = server.client(Version::V311, "a/b+c").await;
    let told = watcher.receive().await;
    assert_eq!((told.topic, told.qos), ("$SYS/brokers/inver/clients/a%2Fb%2Bc/connected", Qos::AtLeastOnce));
    let text = std::str::from_utf8(told.payload).unwrap();
    for part in
        [r#""clientid":"a/b+c""#, r#""proto_ver":4"#, r#""clean_start":true"#, r#""ipaddress":"127.0.0.1""#]
    {
        assert!(text.contains(part), "{text}");
    }
    client.disconnect().await;
    let told = watcher.receive().await;
    assert_eq!(told.topic, "$SYS/brokers/inver/clients/a%2Fb%2Bc/disconnected");
    assert!(std::str::from_utf8(told.payload).unwrap().contains(r#""reason":"normal""#));
    let topic = server.broker.default_namespace().topic("mqtt-events").unwrap();
    let partition = topic.partition(0).unwrap();
    let records = || partition.stream().high_watermark().0;
    let two = async {
        while records() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, two).await;
    assert!(waited.is_ok(), "of the watcher and the client: {}", records());
    assert_eq!(
        watcher.publish_text("$SYS/brokers/inver/clients/x/connected", "x", Qos::AtLeastOnce).await,
        Reason::NotAuthorized
    );
}
