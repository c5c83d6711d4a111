//! Sessions that outlive their connection and restarts of the server.

use std::time::Duration;

use inver_mqtt::codec::*;

use crate::support::*;

fn durable(client_id: &str, seconds: u32) -> ConnectOptions<'_> {
    ConnectOptions {
        client_id,
        clean_start: false,
        properties: vec![Property::SessionExpiryInterval(seconds)],
        ..Default::default()
    }
}

#[tokio::test]
async fn messages_are_kept_for_a_disconnected_session() {
    let mut server = Server::start().await;
    for restart in [false, true] {
        for version in [Version::V311, Version::V5] {
            let options = ConnectOptions { clean_start: false, ..durable("away", 1000) };
            let (mut client, connack) = server.connect(version, options.clone()).await;
            assert!(!connack.session_present);
            client.subscribe_at("t/#", Qos::ExactlyOnce).await;
            client.disconnect().await;
            let mut publisher = server.client(version, "p").await;
            publisher.publish_text("t/0", "may be dropped", Qos::AtMostOnce).await;
            publisher.publish_text("t/1", "one", Qos::AtLeastOnce).await;
            publisher.publish_text("t/2", "two", Qos::ExactlyOnce).await;
            publisher.disconnect().await;
            if restart {
                server = server.restart().await;
            }
            let (mut client, connack) = server.connect(version, options).await;
            assert!(connack.session_present);
            let mut all = Vec::new();
            while all.len() < 2 {
                let publish = client.receive().await;
                if publish.qos != Qos::AtMostOnce {
                    all.push(summary(&publish));
                }
            }
            assert_eq!(all, [("t/1", "one", 1), ("t/2", "two", 2)]);
            // The subscription still exists.
            let mut publisher = server.client(version, "p").await;
            publisher.publish_text("t/3", "three", Qos::AtLeastOnce).await;
            assert_eq!(summary(&client.receive().await), ("t/3", "three", 1));
            // A clean start discards the session.
            client.disconnect().await;
            let (client, connack) =
                server.connect(version, ConnectOptions { client_id: "away", ..Default::default() }).await;
            assert!(!connack.session_present);
            client.disconnect().await;
        }
    }
}

#[tokio::test]
async fn unacknowledged_messages_are_resent_with_their_packet_identifier() {
    let mut server = Server::start().await;
    for restart in [false, true] {
        let id = if restart { "again-1" } else { "again-0" };
        let (mut client, _) = server.connect(Version::V311, durable(id, 0)).await;
        client.subscribe_at("t", Qos::ExactlyOnce).await;
        let mut publisher = server.client(Version::V311, "p").await;
        for payload in ["a", "b", "c"] {
            publisher.publish_text("t", payload, Qos::ExactlyOnce).await;
        }
        let first = client.receive_unacked().await;
        let second = client.receive_unacked().await;
        let third = client.receive_unacked().await;
        assert!(!first.dup && !second.dup && !third.dup);
        // The second message is acknowledged by PUBREC only, the third completely.
        client.send(Packet::PubRec(Ack::new(second.packet_id, Reason::Success))).await;
        assert!(matches!(client.expect().await, Packet::PubRel(_)));
        client.send(Packet::PubRec(Ack::new(third.packet_id, Reason::Success))).await;
        assert!(matches!(client.expect().await, Packet::PubRel(_)));
        client.send(Packet::PubComp(Ack::new(third.packet_id, Reason::Success))).await;
        client.expect_silence().await;
        client.drop_connection().await;
        publisher.publish_text("t", "d", Qos::ExactlyOnce).await;
        publisher.disconnect().await;
        if restart {
            server = server.restart().await;
        }
        let (mut client, connack) = server.connect(Version::V311, durable(id, 0)).await;
        assert!(connack.session_present);
        assert_eq!(client.expect().await, Packet::PubRel(Ack::new(second.packet_id, Reason::Success)));
        let again = client.receive_unacked().await;
        assert_eq!((again.packet_id, again.payload, again.dup), (first.packet_id, first.payload, true));
        let fresh = client.receive_unacked().await;
        assert_eq!(fresh.payload, b"d");
        if !restart {
            assert!(!fresh.dup);
        }
        for id in [first.packet_id, fresh.packet_id] {
            client.send(Packet::PubRec(Ack::new(id, Reason::Success))).await;
            assert!(matches!(client.expect().await, Packet::PubRel(_)));
            client.send(Packet::PubComp(Ack::new(id, Reason::Success))).await;
        }
        client.send(Packet::PubComp(Ack::new(second.packet_id, Reason::Success))).await;
        client.expect_silence().await;
        client.drop_connection().await;
        let (mut client, _) = server.connect(Version::V311, durable(id, 0)).await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_qos_2_message_resent_over_a_new_connection_is_published_once() {
    let mut server = Server::start().await;
    for restart in [false, true] {
        let id = if restart { "once-1" } else { "once-0" };
        let (mut watcher, _) = server.connect(Version::V5, durable("watcher", 1000)).await;
        watcher.subscribe_at(id, Qos::ExactlyOnce).await;
        let (mut client, _) = server.connect(Version::V5, durable(id, 1000)).await;
        let publish = Publish { packet_id: 300, ..message(id, "x", Qos::ExactlyOnce) };
        client.send(Packet::Publish(publish)).await;
        assert!(matches!(client.expect().await, Packet::PubRec(_)));
        assert_eq!(watcher.receive().await.payload, b"x");
        client.drop_connection().await;
        watcher.disconnect().await;
        if restart {
            server = server.restart().await;
        }
        let (mut watcher, _) = server.connect(Version::V5, durable("watcher", 1000)).await;
        let (mut client, _) = server.connect(Version::V5, durable(id, 1000)).await;
        client.send(Packet::Publish(Publish { dup: true, ..publish })).await;
        assert!(matches!(client.expect().await, Packet::PubRec(_)));
        client.send(Packet::PubRel(Ack::new(300, Reason::Success))).await;
        assert_eq!(client.expect().await, Packet::PubComp(Ack::new(300, Reason::Success)));
        watcher.expect_silence().await;
        client.drop_connection().await;
        // The packet identifier was released: it now belongs to another message.
        let (mut client, _) = server.connect(Version::V5, durable(id, 1000)).await;
        client.send(Packet::Publish(publish)).await;
        assert!(matches!(client.expect().await, Packet::PubRec(_)));
        assert_eq!(watcher.receive().await.payload, b"x");
        watcher.disconnect().await;
    }
}

#[tokio::test]
async fn a_session_expires_after_its_interval() {
    let server = Server::with_manual_clock().await;
    let (client, _) = server.connect(Version::V5, durable("e", 1)).await;
    client.disconnect().await;
    let (client, connack) = server.connect(Version::V5, durable("e", 1)).await;
    assert!(connack.session_present);
    client.disconnect().await;
    server.advance(Duration::from_secs(1));
    server.wait_for_sessions(0).await;
    let (mut client, connack) = server.connect(Version::V5, durable("e", 1)).await;
    assert!(!connack.session_present);
    // DISCONNECT may change the interval.
    let longer = properties(&[Property::SessionExpiryInterval(100)]);
    client.send(Packet::Disconnect(Disconnect { reason: Reason::Success, properties: longer })).await;
    assert_eq!(client.next().await, None);
    // Another session with an interval of one second is gone.
    let (later, _) = server.connect(Version::V5, durable("later", 1)).await;
    later.disconnect().await;
    server.advance(Duration::from_secs(1));
    server.wait_for_sessions(1).await;
    let (mut client, connack) = server.connect(Version::V5, durable("e", 100)).await;
    assert!(connack.session_present);
    let none = properties(&[Property::SessionExpiryInterval(0)]);
    client.send(Packet::Disconnect(Disconnect { reason: Reason::Success, properties: none })).await;
    assert_eq!(client.next().await, None);
    let (mut client, connack) = server.connect(Version::V5, durable("e", 0)).await;
    assert!(!connack.session_present);
    // An interval of 0 cannot be raised.
    client.send(Packet::Disconnect(Disconnect { reason: Reason::Success, properties: longer })).await;
    client.expect_close(Reason::ProtocolError).await;
}

#[tokio::test]
async fn a_session_without_expiry_ends_with_its_connection() {
    let server = Server::start().await;
    let options = ConnectOptions { client_id: "short", clean_start: false, ..Default::default() };
    let (mut client, _) = server.connect(Version::V5, options.clone()).await;
    client.subscribe_at("t", Qos::AtLeastOnce).await;
    client.drop_connection().await;
    let mut publisher = server.client(Version::V5, "p").await;
    assert_eq!(publisher.publish_text("t", "x", Qos::AtLeastOnce).await, Reason::NoMatchingSubscribers);
    let (_, connack) = server.connect(Version::V5, options).await;
    assert!(!connack.session_present);
}

#[tokio::test]
async fn a_taken_over_session_continues() {
    let server = Server::start().await;
    let (mut first, _) = server.connect(Version::V5, durable("go-on", 100)).await;
    first.subscribe_at("t", Qos::AtLeastOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    publisher.publish_text("t", "1", Qos::AtLeastOnce).await;
    let one = first.receive_unacked().await;
    let (mut second, connack) = server.connect(Version::V5, durable("go-on", 100)).await;
    assert!(connack.session_present);
    first.expect_close(Reason::SessionTakenOver).await;
    let again = second.receive_unacked().await;
    assert_eq!((again.packet_id, again.payload, again.dup), (one.packet_id, one.payload, true));
}

#[tokio::test]
async fn more_messages_are_delivered_than_there_are_packet_identifiers() {
    let server = Server::start().await;
    let (mut client, _) = server.connect(Version::V311, durable("many", 0)).await;
    client.subscribe_at("t", Qos::AtLeastOnce).await;
    let mut publisher = server.client(Version::V311, "p").await;
    let mut sent = 0u32;
    let mut stuck = None;
    while sent < 70_000 {
        let mut wire = Vec::new();
        for _ in 0..500 {
            let (payload, packet_id) = (sent.to_be_bytes(), publisher.id());
            let publish = Publish { packet_id, payload: &payload, ..message("t", "", Qos::AtLeastOnce) };
            Packet::Publish(publish).encode(Version::V311, &mut wire).unwrap();
            sent += 1;
        }
        publisher.send_bytes(&wire).await;
        for _ in 0..500 {
            assert!(matches!(publisher.expect().await, Packet::PubAck(_)));
        }
        let mut acks = Vec::new();
        for expected in sent - 500..sent {
            // The first message stays unacknowledged: the message that needs its packet identifier waits.
            if expected >= 65_535 {
                break;
            }
            let publish = client.receive_unacked().await;
            assert_eq!(publish.payload, expected.to_be_bytes());
            if expected == 0 {
                stuck = Some(publish.packet_id);
                continue;
            }
            assert_ne!(Some(publish.packet_id), stuck);
            Packet::PubAck(Ack::new(publish.packet_id, Reason::Success))
                .encode(Version::V311, &mut acks)
                .unwrap();
        }
        client.send_bytes(&acks).await;
    }
    client.expect_silence_at(Qos::AtMostOnce).await;
    client.send(Packet::PubAck(Ack::new(stuck.unwrap(), Reason::Success))).await;
    for expected in 65_535..sent {
        assert_eq!(client.receive().await.payload, expected.to_be_bytes());
    }
}

/// After an orderly restart, and after the end of a connection, DUP is set on the messages sent before and on no others
/// [MQTT-3.3.1-1].
#[tokio::test]
async fn dup_is_set_on_messages_sent_before() {
    for restart in [false, true] {
        let mut server = Server::start().await;
        let window = |clean_start| ConnectOptions {
            clean_start,
            properties: vec![Property::SessionExpiryInterval(1000), Property::ReceiveMaximum(2)],
            ..durable("slow", 1000)
        };
        let (mut client, _) = server.connect(Version::V5, window(true)).await;
        client.subscribe_at("d", Qos::AtLeastOnce).await;
        let mut publisher = server.client(Version::V311, "publisher").await;
        for text in ["1", "2", "3", "4"] {
            publisher.publish_text("d", text, Qos::AtLeastOnce).await;
        }
        assert!(!client.receive_unacked().await.dup);
        assert!(!client.receive_unacked().await.dup);
        client.drop_connection().await;
        drop(publisher);
        if restart {
            server = server.restart().await;
        }
        let (mut client, connack) = server.connect(Version::V5, window(false)).await;
        assert!(connack.session_present);
        let mut got = Vec::new();
        for _ in 0..4 {
            let message = client.receive().await;
            got.push((summary(&message).1, message.dup));
        }
        assert_eq!(got, [("1", true), ("2", true), ("3", false), ("4", false)], "restart: {restart}");
    }
}
