//! A broker with the protocol on a free port, a client that sends and expects packets, and time under a test's control.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use inver_access::scram::{ScramKeys, Shape, decoy_keys};
use inver_access::{Credential, Digest, HashMemory};
use inver_broker::{
    AccessControl, AuthError, Authenticator, Broker, BrokerConfig, CaptureRule, ClientCertificate, Clock,
    Connection, Credentials, Filter, Identity, Io, ListenerInfo, LoopbackOnly, ProtocolPlugin,
};
use inver_mqtt::bridge::{BridgeHost, Dial};
use inver_mqtt::codec::{
    Ack, ConnAck, Connect, Disconnect, Packet, Properties, PropertiesBuf, Property, Publish, Qos, Reason,
    SubAck, Subscribe, SubscribeOptions, Unsubscribe, Version, Will, decode,
};
use inver_mqtt::{AmqpNames, Mqtt, MqttConfig};
use inver_storage::{CommitPolicy, Log, LogOptions};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Time limit for a packet or a condition.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    dir: Option<TempDir>,
    pub(crate) broker: Broker,
    pub(crate) address: SocketAddr,
    config: MqttConfig,
    clock: Clock,
    protocol: Arc<Mqtt>,
    shutdown: CancellationToken,
    guard: Option<DropGuard>,
    accepting: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::with(MqttConfig::default()).await
    }

    pub(crate) async fn with(config: MqttConfig) -> Server {
        Server::on(tempfile::tempdir().unwrap(), config, Clock::system()).await
    }

    /// A server whose clock advances only by calls of [`Server::advance`].
    pub(crate) async fn with_manual_clock() -> Server {
        const START_MS: i64 = 1_700_000_000_000;
        Server::on(tempfile::tempdir().unwrap(), MqttConfig::default(), Clock::manual(START_MS)).await
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn on(dir: TempDir, config: MqttConfig, clock: Clock) -> Server {
        // Small segments keep opening fast in unoptimized builds.
        let options =
            LogOptions { commit: CommitPolicy::Os, segment_bytes_max: 16 << 20, ..LogOptions::default() };
        let log = Log::open(dir.path(), options).unwrap();
        let capture = CaptureRule {
            origin: Some("mqtt".into()),
            filter: Filter::slashed(b"#"),
            topic: "mqtt".into(),
            key: "{address}".into(),
            tombstones: false,
            passes_on: false,
        };
        let broker = BrokerConfig {
            clock: clock.clone(),
            captures: vec![capture],
            topics: vec![("mqtt".into(), 1)],
            address_header: "mqtt-topic".into(),
            origins: vec!["mqtt", "kafka", "amqp"],
            authenticator: Arc::new(StoredUsers),
            ..BrokerConfig::default()
        };
        let broker = Broker::open(log, broker).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let guard = Some(shutdown.clone().drop_guard());
        tokio::spawn(broker.clone().housekeep(shutdown.clone()));
        let protocol = Arc::new(Mqtt::new(config.clone()));
        let accepting = tokio::spawn(accept(listener, protocol.clone(), broker.clone(), shutdown.clone()));
        Server { dir: Some(dir), broker, address, config, clock, protocol, shutdown, guard, accepting }
    }

    /// Shuts down as on SIGTERM and starts again on the same folder.
    pub(crate) async fn restart(mut self) -> Server {
        drop(self.guard.take());
        let _ended = (&mut self.accepting).await;
        self.broker.log().shutdown().unwrap();
        let (dir, config, clock) = (self.dir.take().unwrap(), self.config.clone(), self.clock.clone());
        drop(self);
        Server::on(dir, config, clock).await
    }

    /// A client that has not sent CONNECT.
    pub(crate) async fn dial(&self, version: Version) -> Client {
        let socket = TcpStream::connect(self.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Client::over(Box::new(socket), version)
    }

    /// A client that has not sent CONNECT, over a stream that holds at most `bytes` in each direction.
    pub(crate) fn dial_in_memory(&self, version: Version, bytes: usize) -> Client {
        let (client, server) = tokio::io::duplex(bytes);
        let (protocol, broker, shutdown) =
            (self.protocol.clone(), self.broker.clone(), self.shutdown.clone());
        let (peer, local) = (self.address, self.address);
        let connection = Connection::plain(server, peer, local, shutdown);
        tokio::spawn(async move { protocol.serve(connection, broker).await });
        Client::over(Box::new(client), version)
    }

    /// A client that has not sent CONNECT, over a listener with settings, perhaps with a certificate.
    pub(crate) fn dial_as(
        &self,
        version: Version,
        listener: ListenerInfo,
        certificate: Option<ClientCertificate>,
    ) -> Client {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (protocol, broker) = (self.protocol.clone(), self.broker.clone());
        let plain = Connection::plain(server, self.address, self.address, self.shutdown.clone());
        let listener = Arc::new(listener);
        let connection = Connection { listener, certificate: certificate.map(Arc::new), ..plain };
        tokio::spawn(async move { protocol.serve(connection, broker).await });
        Client::over(Box::new(client), version)
    }

    /// What a bridge takes from this broker, with connections to another server.
    pub(crate) fn bridge_host(&self, dial: Arc<dyn Dial>) -> BridgeHost {
        BridgeHost {
            protocol: self.protocol.clone(),
            broker: self.broker.clone(),
            dial,
            login_timeout: DEADLINE,
            packet_bytes_max: 1 << 20,
            amqp_names: AmqpNames::Reversible,
        }
    }

    /// Waits until there are `count` sessions.
    pub(crate) async fn wait_for_sessions(&self, count: usize) {
        let wait = async {
            while self.broker.default_sessions().len() != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the number of sessions in time");
    }

    /// Connects a client with a clean session.
    pub(crate) async fn client(&self, version: Version, client_id: &str) -> Client {
        self.connect(version, ConnectOptions { client_id, ..ConnectOptions::default() }).await.0
    }

    /// Connects a client; returns it with its CONNACK.
    pub(crate) async fn connect(
        &self,
        version: Version,
        options: ConnectOptions<'_>,
    ) -> (Client, ConnAck<'static>) {
        let mut client = self.dial(version).await;
        client.send_connect(&options).await;
        let connack = client.connack().await;
        assert_eq!(connack.reason, Reason::Success);
        (client, connack)
    }
}

async fn accept(listener: TcpListener, protocol: Arc<Mqtt>, broker: Broker, shutdown: CancellationToken) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let (io, peer) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            () = shutdown.cancelled() => break,
        };
        io.set_nodelay(true).unwrap();
        let local = io.local_addr().unwrap();
        let connection = Connection::plain(io, peer, local, shutdown.clone());
        let (protocol, broker) = (protocol.clone(), broker.clone());
        tasks.spawn(async move { protocol.serve(connection, broker).await });
    }
    while tasks.join_next().await.is_some() {}
}

/// Authenticates the broker's users; without users, clients on this machine.
struct StoredUsers;

#[async_trait]
impl Authenticator for StoredUsers {
    async fn authenticate(
        &self,
        access: &AccessControl,
        peer: IpAddr,
        credentials: &Credentials,
    ) -> Result<Identity, AuthError> {
        let user = |name: &str| access.user(name).map(|(user, _)| user);
        match credentials {
            _ if !access.has_users() => LoopbackOnly.authenticate(access, peer, credentials).await,
            Credentials::Password { user: name, password }
                if user(name).is_some_and(|user| user.verify(password, &mut HashMemory::default())) =>
            {
                Ok(Identity::user(name))
            }
            Credentials::Certificate { user: name } if user(name).is_some() => Ok(Identity::user(name)),
            Credentials::Anonymous => Err(AuthError::CredentialsRequired),
            Credentials::Password { .. } | Credentials::Certificate { .. } | Credentials::Token(_) => {
                Err(AuthError::Refused)
            }
        }
    }

    fn scram_keys(&self, access: &AccessControl, user: &str, digest: Digest) -> Option<ScramKeys> {
        let user_keys = access.user(user).and_then(|(user, _)| {
            user.credentials.iter().find_map(|credential| match credential {
                Credential::Scram(keys) if keys.digest == digest => Some(keys.clone()),
                _ => None,
            })
        });
        let shape = Shape { iterations: NonZeroU32::new(4096).unwrap(), salt_bytes: 16 };
        Some(user_keys.unwrap_or_else(|| decoy_keys(digest, user, b"secret", shape)))
    }
}

/// Fields of a CONNECT.
#[derive(Clone)]
pub(crate) struct ConnectOptions<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) will: Option<Will<'a>>,
    pub(crate) properties: Vec<Property<'a>>,
    pub(crate) user: Option<(&'a str, &'a [u8])>,
}

impl Default for ConnectOptions<'_> {
    fn default() -> Self {
        ConnectOptions {
            client_id: "c",
            clean_start: true,
            keep_alive_s: 0,
            will: None,
            properties: Vec::new(),
            user: None,
        }
    }
}

/// A property list, leaked.
pub(crate) fn properties(list: &[Property<'_>]) -> Properties<'static> {
    let mut buf = PropertiesBuf::new();
    list.iter().for_each(|&property| buf.push(property).unwrap());
    Box::leak(Box::new(buf)).as_ref()
}

pub(crate) struct Client {
    io: Box<dyn Io>,
    pub(crate) version: Version,
    input: Vec<u8>,
    next_id: u16,
}

impl Client {
    /// One end of a stream, in whatever role.
    pub(crate) fn over(io: Box<dyn Io>, version: Version) -> Client {
        Client { io, version, input: Vec::new(), next_id: 0 }
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn send(&mut self, packet: Packet<'_>) {
        let mut wire = Vec::new();
        packet.encode(self.version, &mut wire).unwrap();
        self.send_bytes(&wire).await;
    }

    pub(crate) async fn send_connect(&mut self, options: &ConnectOptions<'_>) {
        let connect = Connect {
            version: self.version,
            is_bridge: false,
            clean_start: options.clean_start,
            keep_alive_s: options.keep_alive_s,
            client_id: options.client_id,
            will: options.will.clone(),
            username: options.user.map(|(user, _)| user),
            password: options.user.map(|(_, password)| password),
            properties: properties(&options.properties),
        };
        self.send(Packet::Connect(Box::new(connect))).await;
    }

    /// The next packet; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Packet<'static>> {
        loop {
            if let Some((_, length)) = decode(&self.input, self.version, usize::MAX).unwrap() {
                let wire: &'static [u8] = Vec::leak(self.input.drain(..length).collect());
                return decode(wire, self.version, usize::MAX).unwrap().map(|(packet, _)| packet);
            }
            let mut chunk = [0; 4096];
            let read =
                tokio::time::timeout(DEADLINE, self.io.read(&mut chunk)).await.expect("a packet in time");
            match read {
                Ok(0) | Err(_) => {
                    assert!(self.input.is_empty(), "the stream ends within a packet");
                    return None;
                }
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
            }
        }
    }

    pub(crate) async fn expect(&mut self) -> Packet<'static> {
        self.next().await.expect("a packet, not the end of the stream")
    }

    pub(crate) async fn connack(&mut self) -> ConnAck<'static> {
        match self.expect().await {
            Packet::ConnAck(connack) => connack,
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    pub(crate) async fn receive_unacked(&mut self) -> Publish<'static> {
        match self.expect().await {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} instead of PUBLISH"),
        }
    }

    /// Receives a message and acknowledges it completely.
    pub(crate) async fn receive(&mut self) -> Publish<'static> {
        let publish = self.receive_unacked().await;
        match publish.qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => self.send(Packet::PubAck(Ack::new(publish.packet_id, Reason::Success))).await,
            Qos::ExactlyOnce => {
                self.send(Packet::PubRec(Ack::new(publish.packet_id, Reason::Success))).await;
                let pubrel = self.expect().await;
                assert_eq!(pubrel, Packet::PubRel(Ack::new(publish.packet_id, Reason::Success)));
                self.send(Packet::PubComp(Ack::new(publish.packet_id, Reason::Success))).await;
            }
        }
        publish
    }

    /// Checks that nothing is on its way: a marker published now, at QoS 1 and at QoS 0, is the next message.
    pub(crate) async fn expect_silence(&mut self) {
        self.expect_silence_at(Qos::AtLeastOnce).await;
        self.expect_silence_at(Qos::AtMostOnce).await;
    }

    /// As [`Client::expect_silence`], with a marker at one QoS: for a full inflight window.
    pub(crate) async fn expect_silence_at(&mut self, qos: Qos) {
        const MARKER: &str = "$marker";
        self.subscribe_at(MARKER, qos).await;
        let packet_id = if qos == Qos::AtMostOnce { 0 } else { self.id() };
        self.send(Packet::Publish(Publish { packet_id, ..message(MARKER, "", qos) })).await;
        let mut is_acknowledged = qos == Qos::AtMostOnce;
        let mut is_there = false;
        while !(is_there && is_acknowledged) {
            match self.expect().await {
                Packet::PubAck(ack) if ack.packet_id == packet_id => is_acknowledged = true,
                Packet::Publish(publish) if publish.topic == MARKER && !is_there => {
                    is_there = true;
                    if qos != Qos::AtMostOnce {
                        self.send(Packet::PubAck(Ack::new(publish.packet_id, Reason::Success))).await;
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(self.unsubscribe(MARKER).await.len(), usize::from(self.version == Version::V5));
    }

    /// A ping is the next packet that is answered.
    pub(crate) async fn ping(&mut self) {
        self.send(Packet::PingReq).await;
        assert_eq!(self.expect().await, Packet::PingResp);
    }

    /// The server closes the connection, after a DISCONNECT with this reason code to an MQTT 5 client.
    pub(crate) async fn expect_close(&mut self, reason: Reason) {
        if self.version == Version::V5 {
            match self.expect().await {
                Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, reason),
                other => panic!("{other:?} instead of DISCONNECT"),
            }
        }
        assert_eq!(self.next().await, None);
    }

    pub(crate) fn id(&mut self) -> u16 {
        self.next_id = self.next_id % u16::MAX + 1;
        self.next_id
    }

    pub(crate) async fn subscribe(
        &mut self,
        filters: &[(&str, SubscribeOptions)],
        list: &[Property<'_>],
    ) -> SubAck<'static> {
        let packet_id = self.id();
        let subscribe = Subscribe { packet_id, properties: properties(list), filters: filters.to_vec() };
        self.send(Packet::Subscribe(subscribe)).await;
        match self.expect().await {
            Packet::SubAck(suback) => {
                assert_eq!(suback.packet_id, packet_id);
                suback
            }
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    /// Subscribes; the QoS must be granted.
    pub(crate) async fn subscribe_at(&mut self, filter: &str, qos: Qos) {
        let suback = self.subscribe(&[(filter, SubscribeOptions { qos, ..Default::default() })], &[]).await;
        assert_eq!(suback.reasons.iter().map(|reason| reason.byte()).collect::<Vec<_>>(), [qos as u8]);
    }

    pub(crate) async fn unsubscribe(&mut self, filter: &str) -> Vec<Reason> {
        self.unsubscribe_after(filter, |packet| panic!("{packet:?} instead of UNSUBACK")).await
    }

    /// As `unsubscribe`; another packet may come before the answer.
    pub(crate) async fn unsubscribe_after(
        &mut self,
        filter: &str,
        before: impl FnOnce(Packet<'static>),
    ) -> Vec<Reason> {
        let packet_id = self.id();
        let unsubscribe = Unsubscribe { packet_id, properties: Properties::EMPTY, filters: vec![filter] };
        self.send(Packet::Unsubscribe(unsubscribe)).await;
        let mut before = Some(before);
        loop {
            match self.expect().await {
                Packet::UnsubAck(unsuback) if unsuback.packet_id == packet_id => return unsuback.reasons,
                other => before.take().expect("the answer is next")(other),
            }
        }
    }

    /// Publishes and completes the exchange; returns the reason code of PUBACK or PUBREC.
    pub(crate) async fn publish(&mut self, publish: Publish<'_>) -> Reason {
        let packet_id = if publish.qos == Qos::AtMostOnce { 0 } else { self.id() };
        self.send(Packet::Publish(Publish { packet_id, ..publish })).await;
        match publish.qos {
            Qos::AtMostOnce => Reason::Success,
            Qos::AtLeastOnce => match self.expect().await {
                Packet::PubAck(ack) if ack.packet_id == packet_id => ack.reason,
                other => panic!("{other:?} instead of PUBACK"),
            },
            Qos::ExactlyOnce => {
                let reason = match self.expect().await {
                    Packet::PubRec(ack) if ack.packet_id == packet_id => ack.reason,
                    other => panic!("{other:?} instead of PUBREC"),
                };
                if !reason.is_error() {
                    self.send(Packet::PubRel(Ack::new(packet_id, Reason::Success))).await;
                    assert_eq!(self.expect().await, Packet::PubComp(Ack::new(packet_id, Reason::Success)));
                }
                reason
            }
        }
    }

    /// Publishes without properties.
    pub(crate) async fn publish_text(&mut self, topic: &str, payload: &str, qos: Qos) -> Reason {
        self.publish(message(topic, payload, qos)).await
    }

    pub(crate) async fn publish_retained(&mut self, topic: &str, payload: &str, qos: Qos) -> Reason {
        self.publish(Publish { retain: true, ..message(topic, payload, qos) }).await
    }

    /// Sends DISCONNECT and waits for the end of the stream.
    pub(crate) async fn disconnect(mut self) {
        self.send(Packet::Disconnect(Disconnect { reason: Reason::Success, properties: Properties::EMPTY }))
            .await;
        assert_eq!(self.next().await, None);
    }

    /// Closes the stream without DISCONNECT, and waits until the server has noticed.
    pub(crate) async fn drop_connection(mut self) {
        self.io.shutdown().await.unwrap();
        while self.next().await.is_some() {}
    }
}

/// A PUBLISH without properties and packet identifier.
pub(crate) fn message<'a>(topic: &'a str, payload: &'a str, qos: Qos) -> Publish<'a> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: 0,
        properties: Properties::EMPTY,
        payload: payload.as_bytes(),
    }
}

/// Topic, payload and QoS.
pub(crate) fn summary(publish: &Publish<'static>) -> (&'static str, &'static str, u8) {
    (publish.topic, std::str::from_utf8(publish.payload).unwrap(), publish.qos as u8)
}

/// Paused time of the runtime, which [`advance`](Self::advance) alone moves on. Wall time and the log are not affected.
pub(crate) struct PausedTime {
    /// Ends the blocking task when it is dropped.
    _stop: std::sync::mpsc::Sender<()>,
}

impl PausedTime {
    pub(crate) fn start() -> PausedTime {
        tokio::time::pause();
        let (stop, stopped) = std::sync::mpsc::channel();
        // The runtime would advance paused time whenever it is idle, unless a blocking task runs. This one ends after
        // `DEADLINE` of real time, so that the time limits of a test that hangs expire.
        tokio::task::spawn_blocking(move || stopped.recv_timeout(DEADLINE));
        PausedTime { _stop: stop }
    }

    pub(crate) async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }
}
