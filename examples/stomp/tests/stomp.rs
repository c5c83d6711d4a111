//! The server over streams in memory and a real log.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::net::{Ipv4Addr, SocketAddr};

use inver_broker::{Broker, BrokerConfig, Connection, ProtocolPlugin};
use inver_driver::Timeouts;
use inver_stomp_example::{NAME, Stomp};
use inver_storage::{CommitPolicy, Log, LogOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

struct Server {
    broker: Broker,
    stomp: std::sync::Arc<Stomp>,
    shutdown: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() };
        let log = Log::open(dir.path(), options).unwrap();
        let config = BrokerConfig { origins: vec![NAME], ..BrokerConfig::default() };
        let stomp = std::sync::Arc::new(Stomp::new(Timeouts::default()));
        let broker = Broker::open(log, config).unwrap();
        Server { broker, stomp, shutdown: CancellationToken::new(), _dir: dir }
    }

    fn dial(&self) -> Client {
        let (client, io) = tokio::io::duplex(64 * 1024);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let (stomp, broker) = (self.stomp.clone(), self.broker.clone());
        let connection = Connection::plain(io, address, address, self.shutdown.clone());
        tokio::spawn(async move { stomp.serve(connection, broker).await });
        Client(client)
    }

    async fn client(&self) -> Client {
        let mut client = self.dial();
        client.send("CONNECT\naccept-version:1.1,1.2\nhost:/\n\n\0").await;
        assert_eq!(client.frame().await, "CONNECTED\nversion:1.2\nheart-beat:0,0\n\n");
        client
    }
}

struct Client(DuplexStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next frame without its NUL.
    async fn frame(&mut self) -> String {
        let mut bytes = Vec::new();
        loop {
            match tokio::time::timeout(Duration::from_secs(60), self.0.read_u8()).await.unwrap().unwrap() {
                0 => return String::from_utf8(bytes).unwrap(),
                byte => bytes.push(byte),
            }
        }
    }

    async fn expect_start(&mut self, start: &str) -> String {
        let frame = self.frame().await;
        assert!(frame.starts_with(start), "{frame:?}");
        frame
    }

    async fn expect_end(&mut self) {
        assert!(self.0.read_u8().await.is_err());
    }
}

#[tokio::test]
async fn a_message_is_stored_delivered_and_acknowledged() {
    let server = Server::start();
    let mut sender = server.client().await;
    sender.send("SEND\ndestination:/queue/q\ncontent-type:text/plain\na:b\\cc\nreceipt:1\n\nhello\0").await;
    assert_eq!(sender.frame().await, "RECEIPT\nreceipt-id:1\ncontent-length:0\n\n");
    let mut receiver = server.client().await;
    receiver.send("SUBSCRIBE\nid:s\ndestination:/queue/q\nack:client-individual\n\n\0").await;
    let message = receiver.expect_start("MESSAGE\nsubscription:s\ndestination:/queue/q\nmessage-id:").await;
    assert!(message.ends_with("content-type:text/plain\na:b\\cc\ncontent-length:5\n\nhello"), "{message}");
    let ack = message.split("\nack:").nth(1).unwrap().lines().next().unwrap();
    receiver.send(&format!("ACK\nid:{ack}\nreceipt:2\n\n\0")).await;
    receiver.expect_start("RECEIPT\nreceipt-id:2").await;
    receiver.send("DISCONNECT\nreceipt:3\n\n\0").await;
    receiver.expect_start("RECEIPT\nreceipt-id:3").await;
    receiver.expect_end().await;
    let depth = server.broker.default_namespace().queue("q").unwrap().depth();
    assert_eq!((depth.ready, depth.unacked), (0, 0));
}

#[tokio::test]
async fn a_message_that_was_not_acknowledged_is_delivered_again() {
    let server = Server::start();
    let mut sender = server.client().await;
    for body in ["a", "b", "c"] {
        sender.send(&format!("SEND\ndestination:q\n\n{body}\0")).await;
    }
    let subscribe = "SUBSCRIBE\nid:0\ndestination:q\nack:client\n\n\0";
    let mut first = server.client().await;
    first.send(subscribe).await;
    let mut messages = Vec::new();
    for _ in 0..3 {
        messages.push(first.expect_start("MESSAGE").await);
    }
    // Cumulative: up to the second.
    let ack = messages[1].split("\nack:").nth(1).unwrap().lines().next().unwrap();
    first.send(&format!("ACK\nid:{ack}\nreceipt:r\n\n\0")).await;
    first.expect_start("RECEIPT").await;
    drop(first);
    let mut second = server.client().await;
    second.send(subscribe).await;
    assert!(second.expect_start("MESSAGE").await.ends_with("\n\nc"));
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_is_told_and_disconnected() {
    let server = Server::start();
    for (wire, what) in [
        ("CONNECT\naccept-version:1.0\n\n\0", "only version 1.2 is supported"),
        ("SEND\ndestination:q\n\n\0", "unknown command, or not allowed here"),
        ("CONNECT\n\n\0", "header accept-version is missing"),
        ("CONNECT\nbroken\n\n\0", "malformed frame\\c a header without a colon"),
        ("CONNECT\naccept-version:1.2\nlogin:guest\npasscode:wrong\n\n\0", ""),
    ] {
        let mut client = server.dial();
        client.send(wire).await;
        client.expect_start(&format!("ERROR\nmessage:{what}")).await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn shutdown_is_told() {
    let server = Server::start();
    let mut client = server.client().await;
    server.shutdown.cancel();
    client.expect_start("ERROR\nmessage:server is shutting down").await;
    client.expect_end().await;
}
