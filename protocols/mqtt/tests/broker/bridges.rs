//! Bridges to a server that the test plays.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use inver_broker::Io;
use inver_mqtt::bridge::{Bridge, Dial};
use inver_mqtt::codec::{Ack, ConnAck, Packet, Properties, Publish, Qos, Reason, SubAck, Version};
use inver_mqtt::{BridgeSpec, BridgeTls, BridgeTopic, Direction};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::support::{Client, Server, message};

/// Bytes on the way to the other server and from it.
const PIPE_BYTES: usize = 1024;

/// The other server: each connection is handed to the test.
struct OtherServer(mpsc::UnboundedSender<Client>);

#[async_trait]
impl Dial for OtherServer {
    async fn dial(&self, _address: &str, _tls: Option<&BridgeTls>) -> io::Result<Box<dyn Io>> {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let _ended = self.0.send(Client::over(Box::new(far), Version::V5));
        Ok(Box::new(near))
    }
}

/// Runs a bridge of `out/#` and `in/#` until the guard is dropped.
fn bridge(server: &Server) -> (mpsc::UnboundedReceiver<Client>, DropGuard) {
    let topic = |filter: &str, direction| BridgeTopic {
        filter: filter.into(),
        direction,
        qos: 1,
        ..BridgeTopic::default()
    };
    let spec = BridgeSpec {
        name: "b".into(),
        address: "other:1883".into(),
        notifications: false,
        topics: vec![topic("out/#", Direction::Out), topic("in/#", Direction::In)],
        ..BridgeSpec::default()
    };
    let (dialed, connections) = mpsc::unbounded_channel();
    let host = server.bridge_host(Arc::new(OtherServer(dialed)));
    let (bridge, stop) = (Bridge::new(spec).unwrap(), CancellationToken::new());
    let guard = stop.clone().drop_guard();
    tokio::spawn(async move { bridge.run(&host, &stop).await });
    (connections, guard)
}

/// Takes a connection of the bridge, up to its SUBSCRIBE.
async fn accept(connections: &mut mpsc::UnboundedReceiver<Client>) -> (Client, SubAck<'static>) {
    let mut other = connections.recv().await.unwrap();
    assert!(matches!(other.expect().await, Packet::Connect(_)));
    let connack = ConnAck { session_present: false, reason: Reason::Success, properties: Properties::EMPTY };
    other.send(Packet::ConnAck(connack)).await;
    let Packet::Subscribe(subscribe) = other.expect().await else { panic!("no SUBSCRIBE") };
    let packet_id = subscribe.packet_id;
    let suback = SubAck { packet_id, properties: Properties::EMPTY, reasons: vec![Reason::GrantedQos1] };
    (other, suback)
}

fn numbered<'a>(topic: &'a str, payload: &'a str, packet_id: u16) -> Packet<'a> {
    Packet::Publish(Publish { packet_id, ..message(topic, payload, Qos::AtLeastOnce) })
}

/// A message of this broker may have the identifier of the SUBSCRIBE.
#[tokio::test]
async fn messages_wait_until_the_other_server_has_answered_the_subscribe() {
    let server = Server::start().await;
    let (mut connections, _stop) = bridge(&server);
    let mut client = server.client(Version::V5, "here").await;
    client.subscribe_at("in/1", Qos::AtLeastOnce).await;
    let (mut other, suback) = accept(&mut connections).await;
    client.send(numbered("out/1", "waits", 7)).await;
    assert_eq!(client.expect().await, Packet::PubAck(Ack::new(7, Reason::Success)));
    // What comes in does not wait, but for its acknowledgement.
    other.send(numbered("in/1", "before", 1)).await;
    assert_eq!(client.receive().await.payload, b"before");
    let early = tokio::time::timeout(Duration::from_millis(100), other.next()).await;
    assert!(early.is_err(), "{early:?} before SUBACK");
    other.send(Packet::SubAck(suback)).await;
    let mut got = [other.expect().await, other.expect().await];
    got.sort_by_key(|packet| matches!(packet, Packet::Publish(_)));
    assert_eq!(got[0], Packet::PubAck(Ack::new(1, Reason::Success)));
    assert!(matches!(&got[1], Packet::Publish(publish) if publish.payload == b"waits"), "{got:?}");
}

/// The connection ended though the server was sending all the time.
#[tokio::test]
async fn a_pingresp_behind_a_long_message_is_no_silence() {
    let server = Server::with_manual_clock().await;
    let (mut connections, _stop) = bridge(&server);
    let mut client = server.client(Version::V5, "here").await;
    client.subscribe_at("in/1", Qos::AtLeastOnce).await;
    let (mut other, suback) = accept(&mut connections).await;
    other.send(Packet::SubAck(suback)).await;
    let mut wire = Vec::new();
    let payload = "x".repeat(64 * PIPE_BYTES);
    numbered("in/1", &payload, 1).encode(Version::V5, &mut wire).unwrap();
    let (begin, rest) = wire.split_at(32 * PIPE_BYTES);
    // More than the stream holds: most of it has been read then.
    server.advance(Duration::from_secs(61));
    assert_eq!(other.expect().await, Packet::PingReq);
    server.advance(Duration::from_secs(80));
    other.send_bytes(begin).await;
    server.advance(Duration::from_secs(20));
    other.send_bytes(rest).await;
    other.send(Packet::PingResp).await;
    assert_eq!(client.receive().await.payload, payload.as_bytes());
    assert_eq!(other.expect().await, Packet::PingReq);
    assert_eq!(other.expect().await, Packet::PubAck(Ack::new(1, Reason::Success)));
}
