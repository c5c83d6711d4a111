//! Wills: when they are published, and when not.

use std::time::Instant;

use inver_mqtt::codec::*;

use crate::support::*;

fn with_will<'a>(expiry_s: u32, delay_s: u32) -> Opening<'a> {
    let list = [
        Property::WillDelayInterval(delay_s),
        Property::UserProperty("a", "2"),
        Property::UserProperty("a", "3"),
    ];
    Opening {
        client_id: "mortal",
        clean_start: false,
        will: Some(Will {
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: "wills/mortal",
            payload: b"gone",
            properties: properties(&list),
        }),
        properties: vec![Property::SessionExpiryInterval(expiry_s)],
        ..Default::default()
    }
}

async fn watching(server: &Server) -> Client {
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
async fn a_broken_connection_publishes_it_with_its_properties() {
    let server = Server::start().await;
    let mut watcher = watching(&server).await;
    for version in [Version::V5, Version::V311] {
        let (client, _) = server.open(version, with_will(0, 0)).await;
        client.breaks().await;
        let will = watcher.take().await;
        assert_eq!(seen(&will), ("wills/mortal", "gone", 1));
        let user = [Property::UserProperty("a", "2"), Property::UserProperty("a", "3")];
        assert_eq!(
            will.properties.iter().collect::<Vec<_>>(),
            if version == Version::V5 { &user[..] } else { &[] }
        );
    }
    let mut late = server.client(Version::V311, "late").await;
    late.sub("wills/mortal", Qos::AtMostOnce).await;
    let retained = late.take().await;
    assert!(retained.retain && retained.payload == b"gone");
}

#[tokio::test]
async fn a_farewell_takes_it_back_unless_it_says_otherwise() {
    let server = Server::start().await;
    let mut watcher = watching(&server).await;
    let (client, _) = server.open(Version::V5, with_will(0, 0)).await;
    client.leave().await;
    watcher.nothing().await;
    let (mut client, _) = server.open(Version::V5, with_will(0, 0)).await;
    let with = Disconnect { reason: Reason::DisconnectWithWill, properties: Properties::EMPTY };
    client.send(Packet::Disconnect(with)).await;
    assert_eq!(watcher.take().await.payload, b"gone");
    // A protocol error is no farewell.
    let (mut client, _) = server.open(Version::V5, with_will(0, 0)).await;
    client.raw(b"\x00\x00").await;
    client.closed(Reason::MalformedPacket).await;
    assert_eq!(watcher.take().await.payload, b"gone");
}

#[tokio::test]
async fn it_waits_for_its_delay_or_the_sessions_end() {
    let server = Server::start().await;
    let mut watcher = watching(&server).await;
    for (expiry_s, delay_s, due_ms) in [(10, 2, 2000), (1, 5, 1000), (0, 5, 0)] {
        let (client, _) = server.open(Version::V5, with_will(expiry_s, delay_s)).await;
        client.breaks().await;
        let since = Instant::now();
        assert_eq!(watcher.take().await.payload, b"gone");
        let took = since.elapsed().as_millis();
        assert!((due_ms.max(50) - 50..due_ms + 1000).contains(&took), "{took} ms instead of {due_ms}");
    }
}

#[tokio::test]
async fn coming_back_in_time_takes_it_back() {
    let server = Server::start().await;
    let mut watcher = watching(&server).await;
    let (client, _) = server.open(Version::V5, with_will(100, 1)).await;
    client.breaks().await;
    let again = Opening { will: None, ..with_will(100, 0) };
    let (_client, connack) = server.open(Version::V5, again).await;
    assert!(connack.session_present);
    // That of one who goes later with the same delay comes alone.
    let (later, _) = server.open(Version::V5, Opening { client_id: "later", ..with_will(100, 1) }).await;
    later.breaks().await;
    assert_eq!(watcher.take().await.payload, b"gone");
    watcher.nothing().await;
}

#[tokio::test]
async fn a_take_over_publishes_it_if_it_has_no_delay() {
    let server = Server::start().await;
    let mut watcher = watching(&server).await;
    for (delay_s, published) in [(0, true), (100, false)] {
        let (_first, _) = server.open(Version::V5, with_will(100, delay_s)).await;
        let again = Opening { will: None, ..with_will(100, 0) };
        let (second, _) = server.open(Version::V5, again).await;
        if published {
            assert_eq!(watcher.take().await.payload, b"gone");
        }
        watcher.nothing().await;
        second.leave().await;
    }
}

#[tokio::test]
async fn a_delayed_one_survives_the_process() {
    let server = Server::start().await;
    let mut watcher = watching(&server).await;
    let (client, _) = server.open(Version::V5, with_will(100, 2)).await;
    client.breaks().await;
    watcher.nothing().await;
    watcher.leave().await;
    let server = server.restart().await;
    let mut watcher = watching(&server).await;
    assert_eq!(watcher.take().await.payload, b"gone");
}

/// Section 3.1.3.2.4: the interval is that of the published message.
#[tokio::test]
async fn its_own_expiry_runs_from_its_publish() {
    let server = Server::start().await;
    let list = [
        Property::WillDelayInterval(1),
        Property::MessageExpiryInterval(100),
        Property::ContentType("text/plain"),
        Property::UserProperty("a", "2"),
    ];
    let mut opening = with_will(10, 0);
    opening.will.as_mut().unwrap().properties = properties(&list);
    let mut watcher = watching(&server).await;
    let (client, _) = server.open(Version::V5, opening).await;
    client.breaks().await;
    let will = watcher.take().await;
    let got: Vec<_> = will.properties.iter().collect();
    assert!(matches!(got[0], Property::MessageExpiryInterval(99..=100)), "not from CONNECT on: {got:?}");
    assert_eq!(got[1..], [Property::ContentType("text/plain"), Property::UserProperty("a", "2")]);
}
