//! CONNECT and the end of connections: versions, identifiers, take-over, keep alive, refusals.

use std::time::Duration;

use inver_driver::Timeouts;
use inver_mqtt::MqttConfig;
use inver_mqtt::codec::*;

use crate::support::*;

const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

#[tokio::test]
async fn every_version_connects_pings_and_disconnects() {
    let server = Server::start().await;
    for version in ALL {
        let (mut client, connack) = server.connect(version, ConnectOptions::default()).await;
        assert!(!connack.session_present);
        client.send(Packet::PingReq).await;
        assert_eq!(client.expect().await, Packet::PingResp);
        client.disconnect().await;
    }
}

#[tokio::test]
async fn connack_announces_the_servers_bounds_to_mqtt_5() {
    let config =
        MqttConfig { keep_alive_s_max: Some(60), session_expiry_s_max: Some(100), ..Default::default() };
    let server = Server::with(config).await;
    let options = ConnectOptions {
        client_id: "",
        keep_alive_s: 120,
        properties: vec![Property::SessionExpiryInterval(1000)],
        ..Default::default()
    };
    let (_client, connack) = server.connect(Version::V5, options).await;
    let announced: Vec<_> = connack.properties.iter().collect();
    for property in [
        Property::ServerKeepAlive(60),
        Property::SessionExpiryInterval(100),
        Property::ReceiveMaximum(1024),
        Property::TopicAliasMaximum(64),
        Property::MaximumPacketSize(16 * 1024 * 1024),
    ] {
        assert!(announced.contains(&property), "{property:?} in {announced:?}");
    }
    assert!(announced.iter().any(|p| matches!(p, Property::AssignedClientIdentifier(id) if id.len() > 20)));
}

#[tokio::test]
async fn an_empty_client_identifier_before_mqtt_5_needs_a_clean_session() {
    let server = Server::start().await;
    for (version, clean_start, reason) in [
        (Version::V311, true, Reason::Success),
        (Version::V311, false, Reason::ClientIdNotValid),
        (Version::V31, true, Reason::ClientIdNotValid),
    ] {
        let mut client = server.dial(version).await;
        client.send_connect(&ConnectOptions { client_id: "", clean_start, ..Default::default() }).await;
        assert_eq!(client.connack().await.reason, reason);
        if reason != Reason::Success {
            assert_eq!(client.next().await, None);
        }
    }
}

#[tokio::test]
async fn the_first_packet_must_be_the_only_connect() {
    let server = Server::start().await;
    let mut client = server.dial(Version::V311).await;
    client.send(Packet::PingReq).await;
    assert_eq!(client.next().await, None);
    let mut client = server.client(Version::V5, "twice").await;
    client.send_connect(&ConnectOptions::default()).await;
    client.expect_close(Reason::ProtocolError).await;
}

#[tokio::test]
async fn refusals_are_encoded_in_the_clients_version() {
    let server = Server::start().await;
    // An unknown version is answered in the format of 3.1.1 [MQTT-3.1.2-2].
    let mut client = server.dial(Version::V311).await;
    client.send_bytes(b"\x10\x0c\x00\x04MQTT\x07\x02\x00\x0a\x00\x00").await;
    assert_eq!(client.connack().await.reason, Reason::UnsupportedProtocolVersion);
    assert_eq!(client.next().await, None);
    // A malformed CONNECT of MQTT 5 gets a reason code, an older one no CONNACK.
    let mut client = server.dial(Version::V5).await;
    client.send_bytes(b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x0a\x00\x00\x00").await;
    assert_eq!(client.connack().await.reason, Reason::MalformedPacket);
    let mut client = server.dial(Version::V311).await;
    client.send_bytes(b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x0a\x00\x00").await;
    assert_eq!(client.next().await, None);
    // Enhanced authentication is not supported.
    let mut client = server.dial(Version::V5).await;
    client
        .send_connect(&ConnectOptions {
            properties: vec![Property::AuthenticationMethod("X")],
            ..Default::default()
        })
        .await;
    assert_eq!(client.connack().await.reason, Reason::BadAuthenticationMethod);
    for (version, reason) in [(Version::V311, 4), (Version::V5, 0x86)] {
        let mut client = server.dial(version).await;
        client.send_connect(&ConnectOptions { user: Some(("guest", b"wrong")), ..Default::default() }).await;
        let Reason::BadUserNameOrPassword = client.connack().await.reason else {
            panic!("{version:?} {reason}")
        };
    }
    for user in [("guest", &b"guest"[..]), ("", b"")] {
        let (client, _) =
            server.connect(Version::V311, ConnectOptions { user: Some(user), ..Default::default() }).await;
        client.disconnect().await;
    }
}

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let server = Server::start().await;
    for version in [Version::V5, Version::V311] {
        let options = ConnectOptions { clean_start: version == Version::V311, ..Default::default() };
        let (mut first, _) = server.connect(version, options.clone()).await;
        let (second, _) = server.connect(version, options).await;
        first.expect_close(Reason::SessionTakenOver).await;
        second.disconnect().await;
    }
}

#[tokio::test]
async fn concurrent_take_overs_leave_one_connection() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.dial(Version::V5).await;
        client
            .send_connect(&ConnectOptions { client_id: "storm", clean_start: false, ..Default::default() })
            .await;
        clients.push(client);
    }
    // A CONNACK is sent once the previous holder has released the session, so all but one were disconnected before.
    for client in &mut clients {
        client.connack().await;
    }
    let mut connected = 0;
    for mut client in clients {
        client.send(Packet::PingReq).await;
        match client.expect().await {
            Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, Reason::SessionTakenOver),
            Packet::PingResp => connected += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(connected, 1);
}

#[tokio::test]
async fn a_silent_client_is_disconnected_after_one_and_a_half_keep_alives() {
    let server = Server::start().await;
    let options = ConnectOptions { keep_alive_s: 60, ..Default::default() };
    let (mut client, _) = server.connect(Version::V5, options).await;
    let time = PausedTime::start();
    // Each packet restarts the 90 seconds.
    for _ in 0..3 {
        time.advance(Duration::from_secs(89)).await;
        client.send(Packet::PingReq).await;
        assert_eq!(client.expect().await, Packet::PingResp);
    }
    time.advance(Duration::from_secs(91)).await;
    client.expect_close(Reason::KeepAliveTimeout).await;
}

#[tokio::test]
async fn a_connection_without_a_connect_in_time_is_closed() {
    let config = MqttConfig {
        timeouts: Timeouts { login: Duration::from_millis(200), ..Timeouts::default() },
        ..MqttConfig::default()
    };
    let server = Server::with(config).await;
    let mut client = server.dial(Version::V5).await;
    client.send_bytes(b"\x10\x20\x00\x04MQ").await;
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn packets_sent_with_the_connect_are_processed() {
    let server = Server::start().await;
    let mut client = server.dial(Version::V311).await;
    client.send_bytes(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01z\xc0\x00\x82\x06\x00\x01\x00\x01a\x01\x32\x06\x00\x01a\x00\x09!").await;
    assert_eq!(client.connack().await.reason, Reason::Success);
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(match client.expect().await {
            Packet::PingResp => 'p',
            Packet::SubAck(_) => 's',
            Packet::PubAck(_) => 'a',
            Packet::Publish(publish) => {
                assert_eq!(summary(&publish), ("a", "!", 1));
                'm'
            }
            other => panic!("{other:?}"),
        });
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ['a', 'm', 'p', 's']);
}

#[tokio::test]
async fn a_connect_split_into_single_bytes_is_accepted() {
    let server = Server::start().await;
    // The stream holds one byte at a time, so no read gets more.
    let mut client = server.dial_in_memory(Version::V311, 1);
    client.send_bytes(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01z\xc0\x00").await;
    assert_eq!(client.connack().await.reason, Reason::Success);
    assert_eq!(client.expect().await, Packet::PingResp);
}

#[tokio::test]
async fn a_shutdown_sends_disconnect_to_mqtt_5_clients() {
    let server = Server::start().await;
    let mut client = server.client(Version::V5, "c").await;
    let waiting = tokio::spawn(async move {
        client.expect_close(Reason::ServerShuttingDown).await;
    });
    let _server = server.restart().await;
    waiting.await.unwrap();
}
