//! Publishing and delivery: QoS, acknowledgements, receive maximum, topic aliases, properties, limits.

use std::time::Duration;

use inver_mqtt::MqttConfig;
use inver_mqtt::codec::*;

use crate::support::*;

const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

#[tokio::test]
async fn a_message_is_delivered_at_the_lower_of_published_and_granted_qos() {
    let server = Server::start().await;
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut publisher = server.client(version, "publisher").await;
        for granted in QOS {
            let mut subscriber = server.client(version, "subscriber").await;
            subscriber.subscribe_at("a/+", granted).await;
            for qos in QOS {
                publisher.publish_text("a/b", "x", qos).await;
                assert_eq!(summary(&subscriber.receive().await), ("a/b", "x", qos.min(granted) as u8));
            }
            subscriber.expect_silence().await;
            subscriber.disconnect().await;
        }
    }
}

#[tokio::test]
async fn mqtt_5_clients_learn_of_no_matching_subscribers() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    assert_eq!(client.publish_text("nobody", "x", Qos::AtLeastOnce).await, Reason::NoMatchingSubscribers);
    assert_eq!(client.publish_text("nobody", "x", Qos::ExactlyOnce).await, Reason::NoMatchingSubscribers);
    let mut old = server.client(Version::V311, "d").await;
    assert_eq!(old.publish_text("nobody", "x", Qos::AtLeastOnce).await, Reason::Success);
}

#[tokio::test]
async fn a_repeated_qos_2_message_is_published_once() {
    let server = Server::start().await;
    let mut subscriber = server.client(Version::V311, "s").await;
    subscriber.subscribe_at("t", Qos::ExactlyOnce).await;
    let mut client = server.client(Version::V311, "c").await;
    let publish = Publish { packet_id: 7, ..message("t", "once", Qos::ExactlyOnce) };
    for dup in [false, true, true] {
        client.send(Packet::Publish(Publish { dup, ..publish })).await;
        assert_eq!(client.expect().await, Packet::PubRec(Ack::new(7, Reason::Success)));
    }
    client.send(Packet::PubRel(Ack::new(7, Reason::Success))).await;
    assert_eq!(client.expect().await, Packet::PubComp(Ack::new(7, Reason::Success)));
    assert_eq!(summary(&subscriber.receive().await), ("t", "once", 2));
    subscriber.expect_silence().await;
    // The packet identifier is free again.
    client.send(Packet::Publish(publish)).await;
    assert_eq!(client.expect().await, Packet::PubRec(Ack::new(7, Reason::Success)));
    assert_eq!(summary(&subscriber.receive().await), ("t", "once", 2));
}

#[tokio::test]
async fn a_pubrel_with_an_unknown_packet_identifier_is_answered() {
    let server = Server::start().await;
    for (version, reason) in [(Version::V5, Reason::PacketIdNotFound), (Version::V311, Reason::Success)] {
        let mut client = server.client(version, "c").await;
        client.send(Packet::PubRel(Ack::new(9, Reason::Success))).await;
        assert_eq!(client.expect().await, Packet::PubComp(Ack::new(9, reason)));
        client.send(Packet::PubRec(Ack::new(9, Reason::Success))).await;
        assert_eq!(client.expect().await, Packet::PubRel(Ack::new(9, reason)));
        client.disconnect().await;
    }
}

#[tokio::test]
async fn acknowledgements_keep_the_order_of_their_messages() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    let mut wire = Vec::new();
    for packet_id in 1..=500 {
        let publish = Publish { packet_id, ..message("t", "x", Qos::AtLeastOnce) };
        Packet::Publish(publish).encode(Version::V5, &mut wire).unwrap();
    }
    client.send_bytes(&wire).await;
    for packet_id in 1..=500 {
        assert_eq!(client.expect().await, Packet::PubAck(Ack::new(packet_id, Reason::NoMatchingSubscribers)));
    }
}

#[tokio::test]
async fn a_client_that_exceeds_the_receive_maximum_is_disconnected() {
    let server = Server::with(MqttConfig { receive_maximum: 3, ..Default::default() }).await;
    let mut client = server.client(Version::V5, "c").await;
    for packet_id in 1..=3 {
        client.send(Packet::Publish(Publish { packet_id, ..message("t", "x", Qos::ExactlyOnce) })).await;
        assert!(matches!(client.expect().await, Packet::PubRec(_)));
    }
    client.send(Packet::PubRel(Ack::new(2, Reason::Success))).await;
    assert!(matches!(client.expect().await, Packet::PubComp(_)));
    client.send(Packet::Publish(Publish { packet_id: 4, ..message("t", "x", Qos::ExactlyOnce) })).await;
    assert!(matches!(client.expect().await, Packet::PubRec(_)));
    client.send(Packet::Publish(Publish { packet_id: 5, ..message("t", "x", Qos::AtLeastOnce) })).await;
    client.expect_close(Reason::ReceiveMaximumExceeded).await;
    // The Receive Maximum does not exist before MQTT 5.
    let mut client = server.client(Version::V311, "c").await;
    for packet_id in 1..=10 {
        client.send(Packet::Publish(Publish { packet_id, ..message("t", "x", Qos::ExactlyOnce) })).await;
        assert!(matches!(client.expect().await, Packet::PubRec(_)));
    }
}

#[tokio::test]
async fn the_clients_receive_maximum_is_respected() {
    let server = Server::start().await;
    let options = ConnectOptions {
        client_id: "s",
        properties: vec![Property::ReceiveMaximum(2)],
        ..Default::default()
    };
    let (mut subscriber, _) = server.connect(Version::V5, options).await;
    subscriber.subscribe_at("t", Qos::ExactlyOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    for payload in ["1", "2", "3", "4"] {
        publisher.publish_text("t", payload, Qos::ExactlyOnce).await;
    }
    let first = subscriber.receive_unacked().await;
    let second = subscriber.receive_unacked().await;
    subscriber.expect_silence_at(Qos::AtMostOnce).await;
    assert_eq!((first.payload, second.payload), (&b"1"[..], &b"2"[..]));
    // The message counts until PUBCOMP.
    subscriber.send(Packet::PubRec(Ack::new(first.packet_id, Reason::Success))).await;
    assert!(matches!(subscriber.expect().await, Packet::PubRel(_)));
    subscriber.expect_silence_at(Qos::AtMostOnce).await;
    subscriber.send(Packet::PubComp(Ack::new(first.packet_id, Reason::Success))).await;
    assert_eq!(subscriber.receive_unacked().await.payload, b"3");
    // A PUBREC with an error ends the exchange.
    subscriber.send(Packet::PubRec(Ack::new(second.packet_id, Reason::QuotaExceeded))).await;
    assert_eq!(subscriber.receive_unacked().await.payload, b"4");
}

#[tokio::test]
async fn qos_0_messages_pass_a_full_inflight_window() {
    let server = Server::start().await;
    let options = ConnectOptions {
        client_id: "s",
        properties: vec![Property::ReceiveMaximum(1)],
        ..Default::default()
    };
    let (mut subscriber, _) = server.connect(Version::V5, options).await;
    subscriber.subscribe_at("t", Qos::AtLeastOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    publisher.publish_text("t", "1", Qos::AtLeastOnce).await;
    publisher.publish_text("t", "2", Qos::AtLeastOnce).await;
    publisher.publish_text("t", "now", Qos::AtMostOnce).await;
    assert_eq!(subscriber.receive_unacked().await.payload, b"1");
    assert_eq!(subscriber.receive_unacked().await.payload, b"now");
    subscriber.expect_silence_at(Qos::AtMostOnce).await;
}

#[tokio::test]
async fn incoming_topic_aliases_are_resolved() {
    let server = Server::start().await;
    let mut subscriber = server.client(Version::V5, "s").await;
    subscriber.subscribe_at("#", Qos::AtLeastOnce).await;
    let mut client = server.client(Version::V5, "c").await;
    let alias = properties(&[Property::TopicAlias(64)]);
    client.publish(Publish { properties: alias, ..message("a/b", "1", Qos::AtLeastOnce) }).await;
    client.publish(Publish { properties: alias, ..message("", "2", Qos::AtLeastOnce) }).await;
    for payload in ["1", "2"] {
        let publish = subscriber.receive().await;
        assert_eq!(summary(&publish), ("a/b", payload, 1));
        assert!(publish.properties.is_empty(), "an alias is not forwarded [MQTT-3.3.2-11]");
    }
    let above = properties(&[Property::TopicAlias(65)]);
    client.send(Packet::Publish(Publish { properties: above, ..message("a", "3", Qos::AtMostOnce) })).await;
    client.expect_close(Reason::TopicAliasInvalid).await;
    let mut client = server.client(Version::V5, "c").await;
    client.send(Packet::Publish(Publish { properties: alias, ..message("", "4", Qos::AtMostOnce) })).await;
    client.expect_close(Reason::ProtocolError).await;
}

#[tokio::test]
async fn outgoing_topic_aliases_are_assigned_up_to_the_clients_maximum() {
    let server = Server::start().await;
    let options = ConnectOptions {
        client_id: "s",
        properties: vec![Property::TopicAliasMaximum(1)],
        ..Default::default()
    };
    let (mut subscriber, _) = server.connect(Version::V5, options).await;
    subscriber.subscribe_at("#", Qos::ExactlyOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    let mut topics = Vec::new();
    for (topic, qos) in [("a", 0), ("a", 1), ("b", 2), ("a", 2)] {
        publisher.publish_text(topic, "x", Qos::from_bits(qos).unwrap()).await;
        let publish = subscriber.receive().await;
        topics.push((publish.topic, publish.properties.iter().next()));
    }
    let alias = Some(Property::TopicAlias(1));
    assert_eq!(topics, [("a", alias), ("", alias), ("b", None), ("", alias)]);
}

#[tokio::test]
async fn every_publish_property_is_delivered() {
    let server = Server::start().await;
    let mut subscriber = server.client(Version::V5, "s").await;
    subscriber.subscribe_at("t", Qos::ExactlyOnce).await;
    let mut old = server.client(Version::V311, "o").await;
    old.subscribe_at("t", Qos::ExactlyOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    let list = [
        Property::PayloadFormatIndicator(1),
        Property::ContentType("text/plain"),
        Property::ResponseTopic("answers/p"),
        Property::CorrelationData(b"\x00\xff"),
        Property::UserProperty("b", "1"),
        Property::UserProperty("a", "2"),
        Property::UserProperty("b", "1"),
        Property::UserProperty("", ""),
    ];
    for qos in QOS {
        publisher.publish(Publish { properties: properties(&list), ..message("t", "x", qos) }).await;
        assert_eq!(subscriber.receive().await.properties.iter().collect::<Vec<_>>(), list);
        assert_eq!(summary(&old.receive().await), ("t", "x", qos as u8));
    }
}

#[tokio::test]
async fn an_expired_message_is_not_delivered() {
    let server = Server::with_manual_clock().await;
    let durable = |clean_start| ConnectOptions {
        client_id: "s",
        clean_start,
        properties: vec![Property::SessionExpiryInterval(100)],
        ..Default::default()
    };
    let (mut subscriber, _) = server.connect(Version::V5, durable(true)).await;
    subscriber.subscribe_at("t", Qos::AtLeastOnce).await;
    subscriber.disconnect().await;
    let mut publisher = server.client(Version::V5, "p").await;
    for (payload, seconds) in [("short", 1), ("long", 100)] {
        let expiry = properties(&[Property::MessageExpiryInterval(seconds)]);
        publisher.publish(Publish { properties: expiry, ..message("t", payload, Qos::AtLeastOnce) }).await;
    }
    server.advance(Duration::from_millis(1001));
    let (mut subscriber, connack) = server.connect(Version::V5, durable(false)).await;
    assert!(connack.session_present);
    let publish = subscriber.receive().await;
    assert_eq!(publish.payload, b"long");
    let left = publish.properties.iter().next();
    assert_eq!(left, Some(Property::MessageExpiryInterval(99)));
    subscriber.expect_silence().await;
}

#[tokio::test]
async fn a_message_that_exceeds_the_receivers_maximum_packet_size_is_skipped() {
    let server = Server::start().await;
    let options = ConnectOptions {
        client_id: "s",
        properties: vec![Property::MaximumPacketSize(64)],
        ..Default::default()
    };
    let (mut subscriber, _) = server.connect(Version::V5, options).await;
    subscriber.subscribe_at("t", Qos::AtLeastOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    publisher.publish_text("t", &"x".repeat(80), Qos::AtLeastOnce).await;
    publisher.publish_text("t", &"y".repeat(80), Qos::AtMostOnce).await;
    publisher.publish_text("t", "small", Qos::AtLeastOnce).await;
    assert_eq!(summary(&subscriber.receive().await), ("t", "small", 1));
}

#[tokio::test]
async fn a_packet_that_exceeds_the_servers_maximum_closes_the_connection() {
    let server = Server::with(MqttConfig { packet_bytes_max: 1000, ..Default::default() }).await;
    let mut client = server.client(Version::V5, "c").await;
    client.publish_text("t", &"x".repeat(990), Qos::AtMostOnce).await;
    client.expect_silence().await;
    client.send(Packet::Publish(message("t", &"x".repeat(1000), Qos::AtMostOnce))).await;
    client.expect_close(Reason::PacketTooLarge).await;
}

#[tokio::test]
async fn messages_of_several_megabytes_are_delivered() {
    let server = Server::start().await;
    let payload = "0123456789abcdef".repeat(300_000);
    let mut subscriber = server.client(Version::V311, "s").await;
    subscriber.subscribe_at("t", Qos::AtLeastOnce).await;
    let mut publisher = server.client(Version::V311, "p").await;
    publisher.publish_text("t", &payload, Qos::AtLeastOnce).await;
    assert_eq!(subscriber.receive().await.payload, payload.as_bytes());
}

#[tokio::test]
async fn publishing_to_reserved_or_too_deep_topics_is_refused() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    assert_eq!(client.publish_text("$SYS/x", "x", Qos::AtLeastOnce).await, Reason::NotAuthorized);
    assert_eq!(client.publish_text("$SYS/x", "x", Qos::ExactlyOnce).await, Reason::NotAuthorized);
    assert_eq!(client.publish_text(&"/".repeat(200), "x", Qos::AtLeastOnce).await, Reason::TopicNameInvalid);
    // A client that gets no reason code is disconnected: a discarded message must not be acknowledged.
    for qos in [Qos::AtLeastOnce, Qos::AtMostOnce] {
        let mut old = server.client(Version::V311, "old").await;
        old.send(Packet::Publish(Publish { packet_id: 1, ..message(&"/".repeat(200), "x", qos) })).await;
        old.expect_close(Reason::TopicNameInvalid).await;
    }
    let id = properties(&[Property::SubscriptionIdentifier(1)]);
    client.send(Packet::Publish(Publish { properties: id, ..message("t", "x", Qos::AtMostOnce) })).await;
    client.expect_close(Reason::ProtocolError).await;
}
