//! Sessions that outlive their connection, and the process.

use inver_mqtt::codec::*;

use crate::support::*;

fn kept(client_id: &str, seconds: u32) -> Opening<'_> {
    Opening {
        client_id,
        clean_start: false,
        properties: vec![Property::SessionExpiryInterval(seconds)],
        ..Default::default()
    }
}

#[tokio::test]
async fn messages_wait_for_a_session_that_is_away() {
    let mut server = Server::start().await;
    for restart in [false, true] {
        for version in [Version::V311, Version::V5] {
            let opening = Opening { clean_start: false, ..kept("away", 1000) };
            let (mut client, connack) = server.open(version, opening.clone()).await;
            assert!(!connack.session_present);
            client.sub("t/#", Qos::ExactlyOnce).await;
            client.leave().await;
            let mut publisher = server.client(version, "p").await;
            publisher.say("t/0", "lost or not", Qos::AtMostOnce).await;
            publisher.say("t/1", "one", Qos::AtLeastOnce).await;
            publisher.say("t/2", "two", Qos::ExactlyOnce).await;
            publisher.leave().await;
            if restart {
                server = server.restart().await;
            }
            let (mut client, connack) = server.open(version, opening).await;
            assert!(connack.session_present);
            let mut all = Vec::new();
            while all.len() < 2 {
                let publish = client.take().await;
                if publish.qos != Qos::AtMostOnce {
                    all.push(seen(&publish));
                }
            }
            assert_eq!(all, [("t/1", "one", 1), ("t/2", "two", 2)]);
            // The subscription is still there.
            let mut publisher = server.client(version, "p").await;
            publisher.say("t/3", "three", Qos::AtLeastOnce).await;
            assert_eq!(seen(&client.take().await), ("t/3", "three", 1));
            // A clean start throws it away.
            client.leave().await;
            let (client, connack) =
                server.open(version, Opening { client_id: "away", ..Default::default() }).await;
            assert!(!connack.session_present);
            client.leave().await;
        }
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_with_its_identifier() {
    let mut server = Server::start().await;
    for restart in [false, true] {
        let id = if restart { "again-1" } else { "again-0" };
        let (mut client, _) = server.open(Version::V311, kept(id, 0)).await;
        client.sub("t", Qos::ExactlyOnce).await;
        let mut publisher = server.client(Version::V311, "p").await;
        for payload in ["a", "b", "c"] {
            publisher.say("t", payload, Qos::ExactlyOnce).await;
        }
        let first = client.message().await;
        let second = client.message().await;
        let third = client.message().await;
        assert!(!first.dup && !second.dup && !third.dup);
        // The second is acknowledged as far as PUBREC, the third wholly.
        client.send(Packet::PubRec(Ack::new(second.packet_id, Reason::Success))).await;
        assert!(matches!(client.expect().await, Packet::PubRel(_)));
        client.send(Packet::PubRec(Ack::new(third.packet_id, Reason::Success))).await;
        assert!(matches!(client.expect().await, Packet::PubRel(_)));
        client.send(Packet::PubComp(Ack::new(third.packet_id, Reason::Success))).await;
        client.nothing().await;
        client.breaks().await;
        publisher.say("t", "d", Qos::ExactlyOnce).await;
        publisher.leave().await;
        if restart {
            server = server.restart().await;
        }
        let (mut client, connack) = server.open(Version::V311, kept(id, 0)).await;
        assert!(connack.session_present);
        assert_eq!(client.expect().await, Packet::PubRel(Ack::new(second.packet_id, Reason::Success)));
        let again = client.message().await;
        assert_eq!((again.packet_id, again.payload, again.dup), (first.packet_id, first.payload, true));
        let fresh = client.message().await;
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
        client.nothing().await;
        client.breaks().await;
        let (mut client, _) = server.open(Version::V311, kept(id, 0)).await;
        client.nothing().await;
    }
}

#[tokio::test]
async fn a_message_of_the_clients_is_taken_once_across_connections() {
    let mut server = Server::start().await;
    for restart in [false, true] {
        let id = if restart { "once-1" } else { "once-0" };
        let (mut watcher, _) = server.open(Version::V5, kept("watcher", 1000)).await;
        watcher.sub(id, Qos::ExactlyOnce).await;
        let (mut client, _) = server.open(Version::V5, kept(id, 1000)).await;
        let publish = Publish { packet_id: 300, ..message(id, "x", Qos::ExactlyOnce) };
        client.send(Packet::Publish(publish)).await;
        assert!(matches!(client.expect().await, Packet::PubRec(_)));
        assert_eq!(watcher.take().await.payload, b"x");
        client.breaks().await;
        watcher.leave().await;
        if restart {
            server = server.restart().await;
        }
        let (mut watcher, _) = server.open(Version::V5, kept("watcher", 1000)).await;
        let (mut client, _) = server.open(Version::V5, kept(id, 1000)).await;
        client.send(Packet::Publish(Publish { dup: true, ..publish })).await;
        assert!(matches!(client.expect().await, Packet::PubRec(_)));
        client.send(Packet::PubRel(Ack::new(300, Reason::Success))).await;
        assert_eq!(client.expect().await, Packet::PubComp(Ack::new(300, Reason::Success)));
        watcher.nothing().await;
        client.breaks().await;
        // Released: the next one of this identifier is another message.
        let (mut client, _) = server.open(Version::V5, kept(id, 1000)).await;
        client.send(Packet::Publish(publish)).await;
        assert!(matches!(client.expect().await, Packet::PubRec(_)));
        assert_eq!(watcher.take().await.payload, b"x");
        watcher.leave().await;
    }
}

#[tokio::test]
async fn a_session_expires() {
    let server = Server::start().await;
    let (client, _) = server.open(Version::V5, kept("e", 1)).await;
    client.leave().await;
    let (client, connack) = server.open(Version::V5, kept("e", 1)).await;
    assert!(connack.session_present);
    client.leave().await;
    server.has_sessions(0).await;
    let (mut client, connack) = server.open(Version::V5, kept("e", 1)).await;
    assert!(!connack.session_present);
    // DISCONNECT may change it.
    let longer = properties(&[Property::SessionExpiryInterval(100)]);
    client.send(Packet::Disconnect(Disconnect { reason: Reason::Success, properties: longer })).await;
    assert_eq!(client.next().await, None);
    // One that left later and ends in a second is gone.
    let (later, _) = server.open(Version::V5, kept("later", 1)).await;
    later.leave().await;
    server.has_sessions(1).await;
    let (mut client, connack) = server.open(Version::V5, kept("e", 100)).await;
    assert!(connack.session_present);
    let none = properties(&[Property::SessionExpiryInterval(0)]);
    client.send(Packet::Disconnect(Disconnect { reason: Reason::Success, properties: none })).await;
    assert_eq!(client.next().await, None);
    let (mut client, connack) = server.open(Version::V5, kept("e", 0)).await;
    assert!(!connack.session_present);
    // From nothing it cannot be raised.
    client.send(Packet::Disconnect(Disconnect { reason: Reason::Success, properties: longer })).await;
    client.closed(Reason::ProtocolError).await;
}

#[tokio::test]
async fn a_session_without_expiry_ends_with_its_connection() {
    let server = Server::start().await;
    let opening = Opening { client_id: "short", clean_start: false, ..Default::default() };
    let (mut client, _) = server.open(Version::V5, opening.clone()).await;
    client.sub("t", Qos::AtLeastOnce).await;
    client.breaks().await;
    let mut publisher = server.client(Version::V5, "p").await;
    assert_eq!(publisher.say("t", "x", Qos::AtLeastOnce).await, Reason::NoMatchingSubscribers);
    let (_, connack) = server.open(Version::V5, opening).await;
    assert!(!connack.session_present);
}

#[tokio::test]
async fn a_taken_over_session_goes_on() {
    let server = Server::start().await;
    let (mut first, _) = server.open(Version::V5, kept("go-on", 100)).await;
    first.sub("t", Qos::AtLeastOnce).await;
    let mut publisher = server.client(Version::V5, "p").await;
    publisher.say("t", "1", Qos::AtLeastOnce).await;
    let one = first.message().await;
    let (mut second, connack) = server.open(Version::V5, kept("go-on", 100)).await;
    assert!(connack.session_present);
    first.closed(Reason::SessionTakenOver).await;
    let again = second.message().await;
    assert_eq!((again.packet_id, again.payload, again.dup), (one.packet_id, one.payload, true));
}

#[tokio::test]
async fn more_messages_than_packet_identifiers() {
    let server = Server::start().await;
    let (mut client, _) = server.open(Version::V311, kept("many", 0)).await;
    client.sub("t", Qos::AtLeastOnce).await;
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
        publisher.raw(&wire).await;
        for _ in 0..500 {
            assert!(matches!(publisher.expect().await, Packet::PubAck(_)));
        }
        let mut acks = Vec::new();
        for expected in sent - 500..sent {
            // The first one is never acknowledged: its identifier stays in use, and those after its turn wait.
            if expected >= 65_535 {
                break;
            }
            let publish = client.message().await;
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
        client.raw(&acks).await;
    }
    client.nothing_before(Qos::AtMostOnce).await;
    client.send(Packet::PubAck(Ack::new(stuck.unwrap(), Reason::Success))).await;
    for expected in 65_535..sent {
        assert_eq!(client.take().await.payload, expected.to_be_bytes());
    }
}

/// After an orderly restart DUP is set on what was sent before, and on nothing else [MQTT-3.3.1-1]; so it is when only
/// the connection ended.
#[tokio::test]
async fn dup_is_set_on_what_was_sent_before() {
    for restart in [false, true] {
        let mut server = Server::start().await;
        let window = |clean_start| Opening {
            clean_start,
            properties: vec![Property::SessionExpiryInterval(1000), Property::ReceiveMaximum(2)],
            ..kept("slow", 1000)
        };
        let (mut client, _) = server.open(Version::V5, window(true)).await;
        client.sub("d", Qos::AtLeastOnce).await;
        let mut publisher = server.client(Version::V311, "publisher").await;
        for text in ["1", "2", "3", "4"] {
            publisher.say("d", text, Qos::AtLeastOnce).await;
        }
        assert!(!client.message().await.dup);
        assert!(!client.message().await.dup);
        client.breaks().await;
        drop(publisher);
        if restart {
            server = server.restart().await;
        }
        let (mut client, connack) = server.open(Version::V5, window(false)).await;
        assert!(connack.session_present);
        let mut got = Vec::new();
        for _ in 0..4 {
            let message = client.take().await;
            got.push((seen(&message).1, message.dup));
        }
        assert_eq!(got, [("1", true), ("2", true), ("3", false), ("4", false)], "restart: {restart}");
    }
}
