//! CONNECT and the end of connections: versions, identifiers, take-over, keep alive, refusals.

use std::time::{Duration, Instant};

use inver_mqtt::MqttConfig;
use inver_mqtt::codec::*;

use crate::support::*;

const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

#[tokio::test]
async fn every_version_connects_pings_and_leaves() {
    let server = Server::start().await;
    for version in ALL {
        let (mut client, connack) = server.open(version, Opening::default()).await;
        assert!(!connack.session_present);
        client.send(Packet::PingReq).await;
        assert_eq!(client.expect().await, Packet::PingResp);
        client.leave().await;
    }
}

#[tokio::test]
async fn connack_tells_mqtt_5_the_servers_bounds() {
    let config =
        MqttConfig { keep_alive_s_max: Some(60), session_expiry_s_max: Some(100), ..Default::default() };
    let server = Server::with(config).await;
    let opening = Opening {
        client_id: "",
        keep_alive_s: 120,
        properties: vec![Property::SessionExpiryInterval(1000)],
        ..Default::default()
    };
    let (_client, connack) = server.open(Version::V5, opening).await;
    let told: Vec<_> = connack.properties.iter().collect();
    for property in [
        Property::ServerKeepAlive(60),
        Property::SessionExpiryInterval(100),
        Property::ReceiveMaximum(1024),
        Property::TopicAliasMaximum(64),
        Property::MaximumPacketSize(16 * 1024 * 1024),
    ] {
        assert!(told.contains(&property), "{property:?} in {told:?}");
    }
    assert!(told.iter().any(|p| matches!(p, Property::AssignedClientIdentifier(id) if id.len() > 20)));
}

#[tokio::test]
async fn an_empty_client_identifier_before_mqtt_5() {
    let server = Server::start().await;
    for (version, clean_start, reason) in [
        (Version::V311, true, Reason::Success),
        (Version::V311, false, Reason::ClientIdNotValid),
        (Version::V31, true, Reason::ClientIdNotValid),
    ] {
        let mut client = server.dial(version).await;
        client.connect(&Opening { client_id: "", clean_start, ..Default::default() }).await;
        assert_eq!(client.connack().await.reason, reason);
        if reason != Reason::Success {
            assert_eq!(client.next().await, None);
        }
    }
}

#[tokio::test]
async fn the_first_packet_is_a_connect_and_the_only_one() {
    let server = Server::start().await;
    let mut client = server.dial(Version::V311).await;
    client.send(Packet::PingReq).await;
    assert_eq!(client.next().await, None);
    let mut client = server.client(Version::V5, "twice").await;
    client.connect(&Opening::default()).await;
    client.closed(Reason::ProtocolError).await;
}

#[tokio::test]
async fn refusals_are_told_in_the_clients_version() {
    let server = Server::start().await;
    // A version that does not exist is answered as 3.1.1 has it [MQTT-3.1.2-2].
    let mut client = server.dial(Version::V311).await;
    client.raw(b"\x10\x0c\x00\x04MQTT\x07\x02\x00\x0a\x00\x00").await;
    assert_eq!(client.connack().await.reason, Reason::UnsupportedProtocolVersion);
    assert_eq!(client.next().await, None);
    // A malformed one of MQTT 5 gets its reason, an older one nothing.
    let mut client = server.dial(Version::V5).await;
    client.raw(b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x0a\x00\x00\x00").await;
    assert_eq!(client.connack().await.reason, Reason::MalformedPacket);
    let mut client = server.dial(Version::V311).await;
    client.raw(b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x0a\x00\x00").await;
    assert_eq!(client.next().await, None);
    // Enhanced authentication is not there.
    let mut client = server.dial(Version::V5).await;
    client
        .connect(&Opening { properties: vec![Property::AuthenticationMethod("X")], ..Default::default() })
        .await;
    assert_eq!(client.connack().await.reason, Reason::BadAuthenticationMethod);
    for (version, reason) in [(Version::V311, 4), (Version::V5, 0x86)] {
        let mut client = server.dial(version).await;
        client.connect(&Opening { user: Some(("guest", b"wrong")), ..Default::default() }).await;
        let Reason::BadUserNameOrPassword = client.connack().await.reason else {
            panic!("{version:?} {reason}")
        };
    }
    for user in [("guest", &b"guest"[..]), ("", b"")] {
        let (client, _) =
            server.open(Version::V311, Opening { user: Some(user), ..Default::default() }).await;
        client.leave().await;
    }
}

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let server = Server::start().await;
    for version in [Version::V5, Version::V311] {
        let opening = Opening { clean_start: version == Version::V311, ..Default::default() };
        let (mut first, _) = server.open(version, opening.clone()).await;
        let (second, _) = server.open(version, opening).await;
        first.closed(Reason::SessionTakenOver).await;
        second.leave().await;
    }
}

#[tokio::test]
async fn a_storm_of_take_overs_leaves_one() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.dial(Version::V5).await;
        client.connect(&Opening { client_id: "storm", clean_start: false, ..Default::default() }).await;
        clients.push(client);
    }
    let mut left = 0;
    for client in &mut clients {
        client.connack().await;
    }
    for mut client in clients {
        tokio::select! {
            packet = client.expect() => assert!(matches!(packet, Packet::Disconnect(_))),
            () = tokio::time::sleep(Duration::from_millis(300)) => left += 1,
        }
    }
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_silent_client_is_let_go_after_one_and_a_half_keep_alives() {
    let server = Server::start().await;
    let (mut client, _) = server.open(Version::V5, Opening { keep_alive_s: 1, ..Default::default() }).await;
    let since = Instant::now();
    tokio::time::sleep(Duration::from_millis(900)).await;
    client.send(Packet::PingReq).await;
    assert_eq!(client.expect().await, Packet::PingResp);
    client.closed(Reason::KeepAliveTimeout).await;
    let lasted = since.elapsed().as_millis();
    assert!((2200..3500).contains(&lasted), "{lasted} ms");
}

#[tokio::test]
async fn no_connect_in_time_ends_the_connection() {
    let config = MqttConfig { connect_timeout: Duration::from_millis(200), ..Default::default() };
    let server = Server::with(config).await;
    let mut client = server.dial(Version::V5).await;
    client.raw(b"\x10\x20\x00\x04MQ").await;
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn what_comes_with_the_connect_is_taken() {
    let server = Server::start().await;
    let mut client = server.dial(Version::V311).await;
    client.raw(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01z\xc0\x00\x82\x06\x00\x01\x00\x01a\x01\x32\x06\x00\x01a\x00\x09!").await;
    assert_eq!(client.connack().await.reason, Reason::Success);
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(match client.expect().await {
            Packet::PingResp => 'p',
            Packet::SubAck(_) => 's',
            Packet::PubAck(_) => 'a',
            Packet::Publish(publish) => {
                assert_eq!(seen(&publish), ("a", "!", 1));
                'm'
            }
            other => panic!("{other:?}"),
        });
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ['a', 'm', 'p', 's']);
}

#[tokio::test]
async fn a_connect_in_single_bytes_is_one() {
    let server = Server::start().await;
    let mut client = server.dial(Version::V311).await;
    for byte in b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01z\xc0\x00" {
        client.raw(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(client.connack().await.reason, Reason::Success);
    assert_eq!(client.expect().await, Packet::PingResp);
}

#[tokio::test]
async fn a_server_going_down_says_so() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    let waiting = tokio::spawn(async move {
        client.closed(Reason::ServerShuttingDown).await;
    });
    let _server = server.restart().await;
    waiting.await.unwrap();
}
