//! Bridges: this broker as a client of other MQTT servers.
//!
//! A bridge has two connections: one to the other server, and one to this broker, which is served like that of any
//! client, so that queueing, limits and permissions are those of the broker. [`relay`] passes packets between them, and
//! the sessions at both ends keep what is not acknowledged. The session on this broker exists from the start of the
//! bridge on: what is to go out waits in it while the other server is away.
//!
//! Owns neither sockets nor TLS (see [`Dial`]), nor where bridges are declared.

mod error;
mod link;
mod relay;
mod side;
mod status;
mod topics;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use inver_broker::{Anonymous, Broker, ClientCertificate, Connection, Io, ListenerInfo, ProtocolPlugin};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use status::{BridgeCounts, BridgeState, BridgeStatus};

use self::error::BridgeError;
use self::link::{Link, Terms};
use self::relay::{Flow, Relay};
use self::side::Side;
use self::status::Status;
use self::topics::{Topics, Wanted};
use crate::codec::{
    Connect, Disconnect, Packet, Properties, PropertiesBuf, Property, Publish, Qos, Reason, RetainHandling,
    Subscribe, SubscribeOptions, Unsubscribe, Version, Will,
};
use crate::config::{BridgeSpec, BridgeTls, BridgeVersion};

/// Bytes between the bridge and this broker that neither has taken yet, each way.
const PIPE_BYTES: usize = 64 << 10;
/// The identifier of the SUBSCRIBE and UNSUBSCRIBE of a bridge: servers count theirs from 1.
const OWN_PACKET_ID: u16 = u16::MAX;
/// Subscriptions of a session that are looked through for those of an earlier configuration.
const FILTERS_MAX: usize = 100_000;
/// The time in which the other server must take the end of a connection.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a connection must last for the next attempt to follow soon.
const LASTING: Duration = Duration::from_secs(30);

/// Connects to other servers.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A connection to `host:port`, with TLS if there are settings for it.
    async fn dial(&self, address: &str, tls: Option<&BridgeTls>) -> io::Result<Box<dyn Io>>;
}

/// What a bridge takes from this broker.
pub struct BridgeHost {
    /// Serves the connection to this broker.
    pub protocol: Arc<dyn ProtocolPlugin>,
    /// The broker.
    pub broker: Broker,
    /// Connects to the other server.
    pub dial: Arc<dyn Dial>,
    /// The time for a connection and its login.
    pub login_timeout: Duration,
    /// This broker's Receive Maximum.
    pub receive_maximum: u16,
    /// The longest packet that this broker accepts.
    pub packet_bytes_max: usize,
}

/// A bridge.
#[derive(Debug)]
pub struct Bridge {
    spec: BridgeSpec,
    status: Status,
}

/// What a bridge knows from its earlier connections.
#[derive(Default)]
struct Known {
    /// This broker has a session with the subscriptions.
    has_session: bool,
    /// The session on this broker is a new one: what the other server kept for the former one is not for it.
    is_new: bool,
    /// The other server does not know connections of bridges.
    is_not_private: bool,
    /// The other server has the subscriptions.
    has_subscribed: bool,
    attempts: usize,
}

impl Bridge {
    /// A bridge that does not run yet.
    ///
    /// # Errors
    /// What is wrong with the specification, as a sentence.
    pub fn new(spec: BridgeSpec) -> Result<Bridge, String> {
        Ok(Bridge { spec: spec.complete()?, status: Status::default() })
    }

    /// What it was told.
    #[must_use]
    pub fn spec(&self) -> &BridgeSpec {
        &self.spec
    }

    /// What it does.
    #[must_use]
    pub fn status(&self) -> BridgeStatus {
        self.status.shown()
    }

    /// Runs until it is told to stop: connects, passes messages on, and connects again.
    pub async fn run(&self, host: &BridgeHost, stop: &CancellationToken) {
        let clock = host.broker.clock();
        let (mut known, mut pause) = (Known::default(), self.pause_min());
        let addresses: Vec<&str> = self.spec.addresses().collect();
        while !stop.is_cancelled() {
            let began = clock.now();
            let address = addresses.get(known.attempts % addresses.len().max(1)).copied().unwrap_or_default();
            self.status.set(BridgeState::Connecting, clock.now_ms(), |_| {});
            let Err(error) = self.connect_once(host, address, &mut known, stop).await else { break };
            known.attempts += 1;
            if clock.now() - began >= LASTING {
                pause = self.pause_min();
            }
            let what = error.to_string();
            warn!(
                bridge = self.spec.name,
                address,
                again_in_s = pause.as_secs(),
                "bridge is not connected: {what}"
            );
            self.status.set(BridgeState::Waiting, clock.now_ms(), |shown| shown.last_error = Some(what));
            tokio::select! {
                () = clock.sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            pause = (pause * 2).min(Duration::from_secs(self.spec.retry_s_max.into()));
        }
        self.status.set(BridgeState::Stopped, clock.now_ms(), |_| {});
    }

    fn pause_min(&self) -> Duration {
        Duration::from_secs(self.spec.retry_s_min.into())
    }

    /// One connection, from its beginning to its end. Returns well where the bridge was told to stop.
    async fn connect_once(
        &self,
        host: &BridgeHost,
        address: &str,
        known: &mut Known,
        stop: &CancellationToken,
    ) -> Result<(), BridgeError> {
        let connecting = async {
            if !known.has_session {
                known.is_new = !self.make_session(host).await?;
                known.has_session = true;
            }
            let is_new = known.is_new;
            if is_new && self.spec.version == BridgeVersion::V311 && !self.spec.clean_start {
                // Before MQTT 5 a session that begins clean ends with its connection.
                let mut link = self.connect_remote(host, address, known, true).await?;
                link.put(&farewell(), host.broker.clock().now())?;
                let _gone = link.write_all().await;
            }
            let is_clean = self.spec.clean_start || (is_new && self.spec.version == BridgeVersion::V5);
            let remote = self.connect_remote(host, address, known, is_clean).await?;
            known.is_new = false;
            let (local, serving) = self.connect_local(host, remote.terms).await?;
            Ok::<_, BridgeError>((local, remote, serving))
        };
        let (local, remote, serving) = tokio::select! {
            connected = connecting => connected?,
            () = stop.cancelled() => return Ok(()),
        };
        let outcome = self.relay(host, (local, remote), address, known, stop).await;
        // The pipe is closed: the broker sees the end, and publishes the will.
        let _ended = serving.await;
        outcome
    }

    /// Makes the session on this broker with its subscriptions, before there is another server. Whether there was one.
    async fn make_session(&self, host: &BridgeHost) -> Result<bool, BridgeError> {
        let clock = host.broker.clock();
        let sessions = host.broker.sessions(&self.spec.namespace).ok_or(BridgeError::NoNamespace)?;
        let had = sessions.filters(&self.spec.local_client_id, FILTERS_MAX).unwrap_or_default();
        let (mut link, serving) = self.open_local(host);
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(u32::MAX))?;
        // It takes as little as it can: what comes waits for the connection that passes it on.
        properties.push(Property::ReceiveMaximum(1))?;
        let connect = self.local_connect(&properties, None);
        link.connect(connect, clock, host.login_timeout).await?;
        let topics = Topics::out(&self.spec);
        let wanted = topics.wanted();
        let now = clock.now();
        let mut answers = 0;
        if !wanted.is_empty() {
            link.put(&subscribe(&wanted, |_| RetainHandling::DoNotSend), now)?;
            answers += 1;
        }
        let kept: BTreeSet<&[u8]> = wanted.iter().map(|wanted| wanted.filter.as_bytes()).collect();
        let stale = had.iter().map(|filter| &*filter.filter).filter(|filter| !kept.contains(filter));
        let stale: Vec<&str> = stale.filter_map(|filter| std::str::from_utf8(filter).ok()).collect();
        if !stale.is_empty() {
            let filters = stale;
            let packet = Unsubscribe { packet_id: OWN_PACKET_ID, properties: Properties::EMPTY, filters };
            link.put(&Packet::Unsubscribe(packet), now)?;
            answers += 1;
        }
        tokio::select! {
            done = self.await_answers(&mut link, answers) => done?,
            () = clock.sleep(host.login_timeout) => return Err(BridgeError::NoAnswer(Side::Local)),
        }
        link.put(&farewell(), clock.now())?;
        let _gone = link.write_all().await;
        let had_session = link.terms.session_present;
        drop(link);
        let _ended = serving.await;
        Ok(had_session)
    }

    async fn await_answers(&self, link: &mut Link, answers: usize) -> Result<(), BridgeError> {
        link.write_all().await.map_err(|error| BridgeError::Io(Side::Local, error))?;
        let mut left = answers;
        while left > 0 {
            let length = match link.packet()? {
                None => {
                    link.read().await?;
                    continue;
                }
                Some((Packet::SubAck(suback), length)) => {
                    let refused = suback.reasons.iter().filter(|reason| reason.is_error()).count();
                    if let Some(reason) = suback.reasons.iter().find(|reason| reason.is_error()) {
                        self.status.subscriptions_refused(Side::Local, refused, *reason);
                    }
                    left -= 1;
                    length
                }
                Some((Packet::UnsubAck(_), length)) => {
                    left -= 1;
                    length
                }
                // The session keeps what it sent and was not acknowledged.
                Some((_, length)) => length,
            };
            link.advance(length);
        }
        Ok(())
    }

    /// A connection to this broker, which is served.
    fn open_local(&self, host: &BridgeHost) -> (Link, JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let user = self.spec.local_user.clone();
        let connection = Connection {
            listener: Arc::new(ListenerInfo {
                name: "bridge".to_owned(),
                namespace: Some(self.spec.namespace.as_str().into()),
                anonymous: Anonymous::LoopbackWithoutUsers,
                ..ListenerInfo::default()
            }),
            // The broker vouches for it as TLS would.
            certificate: (!user.is_empty())
                .then(|| Arc::new(ClientCertificate { user: Some(user), ..ClientCertificate::default() })),
            ..Connection::plain(far, loopback, loopback, CancellationToken::new())
        };
        let (protocol, broker) = (host.protocol.clone(), host.broker.clone());
        let serving = tokio::spawn(async move { protocol.serve(connection, broker).await });
        let now = host.broker.clock().now();
        (Link::new(Side::Local, Version::V5, Box::new(near), usize::MAX, now), serving)
    }

    fn local_connect<'a>(&'a self, properties: &'a PropertiesBuf, will: Option<Will<'a>>) -> Connect<'a> {
        Connect {
            version: Version::V5,
            is_bridge: false,
            clean_start: false,
            keep_alive_s: 0,
            client_id: &self.spec.local_client_id,
            will,
            username: None,
            password: None,
            properties: properties.as_ref(),
        }
    }

    /// The connection to the other server.
    async fn connect_remote(
        &self,
        host: &BridgeHost,
        address: &str,
        known: &mut Known,
        clean_start: bool,
    ) -> Result<Link, BridgeError> {
        let (spec, clock) = (&self.spec, host.broker.clock());
        let io = tokio::select! {
            io = host.dial.dial(address, spec.tls.as_ref()) => io.map_err(|error| BridgeError::Io(Side::Remote, error))?,
            () = clock.sleep(host.login_timeout) => return Err(BridgeError::NoAnswer(Side::Remote)),
        };
        let version = match spec.version {
            BridgeVersion::V311 => Version::V311,
            BridgeVersion::V5 => Version::V5,
        };
        let growth = Topics::incoming(spec).growth_max();
        let packet_bytes_max = host.packet_bytes_max.saturating_sub(growth).max(1);
        let mut link = Link::new(Side::Remote, version, io, packet_bytes_max, clock.now());
        let mut properties = PropertiesBuf::new();
        if version == Version::V5 {
            properties.push(Property::SessionExpiryInterval(spec.session_expiry_s))?;
            properties.push(Property::ReceiveMaximum(spec.inflight_max.min(host.receive_maximum)))?;
            let bytes = u32::try_from(packet_bytes_max).unwrap_or(u32::MAX);
            properties.push(Property::MaximumPacketSize(bytes))?;
        }
        let is_private = spec.private && version == Version::V311 && !known.is_not_private;
        let connect = Connect {
            version,
            is_bridge: is_private,
            clean_start,
            keep_alive_s: spec.keep_alive_s,
            client_id: &spec.client_id,
            will: self.notifies_remote().then(|| self.gone()),
            username: (!spec.user.is_empty()).then_some(&*spec.user),
            password: (!spec.password.is_empty()).then_some(spec.password.as_bytes()),
            properties: properties.as_ref(),
        };
        let outcome = link.connect(connect, clock, host.login_timeout).await;
        let is_unknown = |error: &BridgeError| {
            matches!(
                error,
                BridgeError::Refused(_, Reason::UnsupportedProtocolVersion, _)
                    | BridgeError::Closed(_)
                    | BridgeError::Io(..)
            )
        };
        if is_private && outcome.as_ref().is_err_and(is_unknown) {
            info!(
                bridge = spec.name,
                "the other server does not know connections of bridges: it is a usual one next"
            );
            known.is_not_private = true;
        }
        outcome.map(|()| link)
    }

    /// The connection to this broker, once there is one to the other server.
    async fn connect_local(
        &self,
        host: &BridgeHost,
        remote: Terms,
    ) -> Result<(Link, JoinHandle<()>), BridgeError> {
        let (mut link, serving) = self.open_local(host);
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(u32::MAX))?;
        properties.push(Property::ReceiveMaximum(self.spec.inflight_max.min(remote.receive_maximum)))?;
        let growth = Topics::out(&self.spec).growth_max();
        let packet_bytes_max = remote.packet_bytes_max.saturating_sub(growth).max(1);
        properties.push(Property::MaximumPacketSize(u32::try_from(packet_bytes_max).unwrap_or(u32::MAX)))?;
        let will = self.spec.notifications.then(|| self.gone());
        let connect = self.local_connect(&properties, will);
        link.connect(connect, host.broker.clock(), host.login_timeout).await?;
        Ok((link, serving))
    }

    /// Passes messages on until a connection ends.
    async fn relay(
        &self,
        host: &BridgeHost,
        (mut local, mut remote): (Link, Link),
        address: &str,
        known: &mut Known,
        stop: &CancellationToken,
    ) -> Result<(), BridgeError> {
        let (spec, clock) = (&self.spec, host.broker.clock());
        let now = clock.now();
        let (out, incoming) = (Topics::out(spec), Topics::incoming(spec));
        let is_known = remote.terms.session_present;
        // What was published while nobody kept it is sent as a retained message; what was queued must not be followed
        // by an older retained one.
        let retained =
            |wanted: &Wanted<'_>| match is_known && (wanted.qos > Qos::AtMostOnce || wanted.is_both) {
                true => RetainHandling::SendIfNew,
                false => RetainHandling::Send,
            };
        let lowered = |topics: &[Wanted<'_>], qos: Qos| -> Vec<(String, Qos, bool)> {
            topics.iter().map(|one| (one.filter.to_owned(), one.qos.min(qos), one.is_both)).collect()
        };
        let wanted_out = lowered(&out.wanted(), remote.terms.maximum_qos);
        let wanted_in = lowered(&incoming.wanted(), local.terms.maximum_qos);
        fn as_wanted(owned: &[(String, Qos, bool)]) -> Vec<Wanted<'_>> {
            owned
                .iter()
                .map(|(filter, qos, is_both)| Wanted { filter, qos: *qos, is_both: *is_both })
                .collect()
        }
        if !wanted_out.is_empty() {
            local.put(&subscribe(&as_wanted(&wanted_out), retained), now)?;
        }
        // Before MQTT 5 each SUBSCRIBE brings all retained messages.
        let again = remote.version == Version::V5 || !is_known || !known.has_subscribed;
        if !wanted_in.is_empty() && again {
            remote.put(&subscribe(&as_wanted(&wanted_in), retained), now)?;
        }
        if spec.notifications {
            local.put(&self.state(b"1"), now)?;
        }
        if self.notifies_remote() {
            remote.put(&self.state(b"1"), now)?;
        }
        known.has_subscribed = true;
        info!(bridge = spec.name, address, session_present = is_known, "bridge is connected");
        self.status.set(BridgeState::Connected, clock.now_ms(), |shown| {
            shown.connected_to = address.to_owned();
            (shown.last_error, shown.refused_subscriptions) = (None, None);
        });
        let flows = (Flow::new(out, spec.retain), Flow::new(incoming, true));
        let mut relay = Relay::new((local, remote), flows, &spec.name, &self.status);
        if !is_known {
            relay.release_all(now)?;
        }
        let outcome = relay.run(clock, stop).await;
        if outcome.is_ok() {
            self.say_farewell(&mut relay.remote, clock.now());
            tokio::select! {
                _ = relay.remote.write_all() => {}
                () = clock.sleep(FAREWELL) => {}
            }
        }
        outcome
    }

    fn say_farewell(&self, remote: &mut Link, now: Instant) {
        if self.notifies_remote() {
            let _too_long = remote.put(&self.state(b"0"), now);
        }
        let _always_fits = remote.put(&farewell(), now);
    }

    fn notifies_remote(&self) -> bool {
        self.spec.notifications && !self.spec.notifications_local_only
    }

    /// The will that says that the bridge has gone.
    fn gone(&self) -> Will<'_> {
        Will {
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: &self.spec.notification_topic,
            payload: b"0",
            properties: Properties::EMPTY,
        }
    }

    /// The message that tells the state of the bridge.
    fn state<'a>(&'a self, payload: &'a [u8]) -> Packet<'a> {
        Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: true,
            topic: &self.spec.notification_topic,
            packet_id: 0,
            properties: Properties::EMPTY,
            payload,
        })
    }
}

/// A SUBSCRIBE that does not bring back what the bridge publishes itself.
fn subscribe<'a>(wanted: &[Wanted<'a>], retained: impl Fn(&Wanted<'a>) -> RetainHandling) -> Packet<'a> {
    let filters = wanted.iter().map(|one| {
        let options = SubscribeOptions {
            qos: one.qos,
            no_local: true,
            retain_as_published: true,
            retain_handling: retained(one),
        };
        (one.filter, options)
    });
    Packet::Subscribe(Subscribe {
        packet_id: OWN_PACKET_ID,
        properties: Properties::EMPTY,
        filters: filters.collect(),
    })
}

fn farewell() -> Packet<'static> {
    Packet::Disconnect(Disconnect { reason: Reason::Success, properties: Properties::EMPTY })
}
