//! Wills: when they are published and when not.

use std::time::Duration;

use inver_mqtt::codec::*;

use crate::support::*;

fn with_will<'a>(expiry_s: u32, delay_s: u32) -> ConnectOptions<'a> {
    let list = [
        Property::WillDelayInterval(delay_s),
        Property::UserProperty("a", "2"),
        Property::UserProperty("a", "3"),
    ];
    ConnectOptions {
        client_id: "c",
        clean_start: false,
        will: Some(Will {
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: "wills/c",
            payload: b"gone",
            properties: properties(&list),
        }),
        properties: vec![Property::SessionExpiryInterval(expiry_s)],
        ..Default::default()
    }
}

async fn subscribed_to_wills(server: &Server) -> Client {
    let mut watcher = server.client(Version::V5, "watcher").await;
    let quiet = SubscribeOptions {
        qos: Qos::ExactlyOnce,
        retain_handling: RetainHandling::DoNotSend,
        ..Default::default()
    };
    watcher.subscribe(&[("wills/+", quiet)], &[]).await;
    watcher
}

#[tokio::test]
async fn a_dropped_connection_publishes_the_will_with_its_properties() {
    let server = Server::start().await;
    let mut watcher = subscribed_to_wills(&server).await;
    for version in [Version::V5, Version::V311] {
        let (client, _) = server.connect(version, with_will(0, 0)).await;
        client.drop_connection().await;
        let will = watcher.receive().await;
        assert_eq!(summary(&will), ("wills/c", "gone", 1));
        let user = [Property::UserProperty("a", "2"), Property::UserProperty("a", "3")];
        assert_eq!(
            will.properties.iter().collect::<Vec<_>>(),
            if version == Version::V5 { &user[..] } else { &[] }
        );
    }
    let mut late = server.client(Version::V311, "late").await;
    late.subscribe_at("wills/c", Qos::AtMostOnce).await;
    let retained = late.receive().await;
    assert!(retained.retain && retained.payload == b"gone");
}

#[tokio::test]
async fn disconnect_discards_the_will_unless_its_reason_says_otherwise() {
    let server = Server::start().await;
    let mut watcher = subscribed_to_wills(&server).await;
    let (client, _) = server.connect(Version::V5, with_will(0, 0)).await;
    client.disconnect().await;
    watcher.expect_silence().await;
    let (mut client, _) = server.connect(Version::V5, with_will(0, 0)).await;
    let with = Disconnect { reason: Reason::DisconnectWithWill, properties: Properties::EMPTY };
    client.send(Packet::Disconnect(with)).await;
    assert_eq!(watcher.receive().await.payload, b"gone");
    // A protocol error is not a DISCONNECT.
    let (mut client, _) = server.connect(Version::V5, with_will(0, 0)).await;
    client.send_bytes(b"\x00\x00").await;
    client.expect_close(Reason::MalformedPacket).await;
    assert_eq!(watcher.receive().await.payload, b"gone");
}

#[tokio::test]
async fn a_will_is_published_at_its_delay_or_the_sessions_end() {
    let server = Server::with_manual_clock().await;
    let mut watcher = subscribed_to_wills(&server).await;
    for (expiry_s, delay_s, due_ms) in [(10, 2, 2000), (1, 5, 1000), (0, 5, 0)] {
        let (client, _) = server.connect(Version::V5, with_will(expiry_s, delay_s)).await;
        client.drop_connection().await;
        if due_ms > 0 {
            server.advance(Duration::from_millis(due_ms - 1));
            watcher.expect_silence().await;
            server.advance(Duration::from_millis(1));
        }
        assert_eq!(watcher.receive().await.payload, b"gone");
    }
}

#[tokio::test]
async fn reconnecting_within_the_delay_discards_the_will() {
    let server = Server::with_manual_clock().await;
    let mut watcher = subscribed_to_wills(&server).await;
    let (client, _) = server.connect(Version::V5, with_will(100, 1)).await;
    client.drop_connection().await;
    let again = ConnectOptions { will: None, ..with_will(100, 0) };
    let (_client, connack) = server.connect(Version::V5, again).await;
    assert!(connack.session_present);
    server.advance(Duration::from_secs(1));
    // Only the will of a later connection with the same delay is published.
    let (later, _) =
        server.connect(Version::V5, ConnectOptions { client_id: "later", ..with_will(100, 1) }).await;
    later.drop_connection().await;
    server.advance(Duration::from_secs(1));
    assert_eq!(watcher.receive().await.payload, b"gone");
    watcher.expect_silence().await;
}

#[tokio::test]
async fn a_take_over_publishes_a_will_without_delay() {
    let server = Server::start().await;
    let mut watcher = subscribed_to_wills(&server).await;
    for (delay_s, published) in [(0, true), (100, false)] {
        let (_first, _) = server.connect(Version::V5, with_will(100, delay_s)).await;
        let again = ConnectOptions { will: None, ..with_will(100, 0) };
        let (second, _) = server.connect(Version::V5, again).await;
        if published {
            assert_eq!(watcher.receive().await.payload, b"gone");
        }
        watcher.expect_silence().await;
        second.disconnect().await;
    }
}

#[tokio::test]
async fn a_delayed_will_survives_a_restart() {
    let server = Server::with_manual_clock().await;
    let mut watcher = subscribed_to_wills(&server).await;
    let (client, _) = server.connect(Version::V5, with_will(100, 2)).await;
    client.drop_connection().await;
    watcher.expect_silence().await;
    watcher.disconnect().await;
    let server = server.restart().await;
    let mut watcher = subscribed_to_wills(&server).await;
    watcher.expect_silence().await;
    server.advance(Duration::from_secs(2));
    assert_eq!(watcher.receive().await.payload, b"gone");
}

/// The Message Expiry Interval is that of the published message (section 3.1.3.2.4).
#[tokio::test]
async fn the_expiry_of_a_will_runs_from_its_publication() {
    let server = Server::with_manual_clock().await;
    let list = [
        Property::WillDelayInterval(1),
        Property::MessageExpiryInterval(100),
        Property::ContentType("text/plain"),
        Property::UserProperty("a", "2"),
    ];
    let mut options = with_will(10, 0);
    options.will.as_mut().unwrap().properties = properties(&list);
    let mut watcher = subscribed_to_wills(&server).await;
    let (client, _) = server.connect(Version::V5, options).await;
    client.drop_connection().await;
    server.advance(Duration::from_secs(1));
    let will = watcher.receive().await;
    let got: Vec<_> = will.properties.iter().collect();
    assert_eq!(got[0], Property::MessageExpiryInterval(100));
    assert_eq!(got[1..], [Property::ContentType("text/plain"), Property::UserProperty("a", "2")]);
}
