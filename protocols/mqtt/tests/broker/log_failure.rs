//! After the log has failed: no packet whose effect must be durable is acknowledged.

use inver_mqtt::codec::*;

use crate::support::*;

fn durable() -> ConnectOptions<'static> {
    ConnectOptions {
        clean_start: false,
        properties: vec![Property::SessionExpiryInterval(100)],
        ..ConnectOptions::default()
    }
}

fn subscribe() -> Packet<'static> {
    let filters = vec![("b", SubscribeOptions { qos: Qos::AtLeastOnce, ..Default::default() })];
    Packet::Subscribe(Subscribe { packet_id: 7, properties: Properties::EMPTY, filters })
}

fn publish(qos: Qos, retain: bool) -> Packet<'static> {
    Packet::Publish(Publish { packet_id: 7, retain, ..message("a", "x", qos) })
}

#[tokio::test]
async fn no_durable_packet_is_acknowledged() {
    let packets = [
        publish(Qos::AtLeastOnce, false),
        publish(Qos::AtLeastOnce, true),
        publish(Qos::ExactlyOnce, false),
        Packet::PubRel(Ack::new(300, Reason::Success)),
        subscribe(),
        Packet::Unsubscribe(Unsubscribe { packet_id: 7, properties: Properties::EMPTY, filters: vec!["a"] }),
    ];
    for packet in packets {
        let server = Server::start().await;
        let (mut client, _) = server.connect(Version::V5, durable()).await;
        client.subscribe_at("a", Qos::AtLeastOnce).await;
        // A QoS 2 message without its PUBREL.
        let unreleased = Publish { packet_id: 300, ..message("t", "x", Qos::ExactlyOnce) };
        client.send(Packet::Publish(unreleased)).await;
        assert!(matches!(client.expect().await, Packet::PubRec(_)));
        server.broker.log().shutdown().unwrap();
        client.send(packet).await;
        client.expect_close(Reason::Unspecified).await;
    }
}

#[tokio::test]
async fn a_client_is_refused() {
    let server = Server::start().await;
    server.broker.log().shutdown().unwrap();
    let mut client = server.dial(Version::V5).await;
    client.send_connect(&durable()).await;
    assert_eq!(client.connack().await.reason, Reason::ServerUnavailable);
    assert_eq!(client.next().await, None);
}
