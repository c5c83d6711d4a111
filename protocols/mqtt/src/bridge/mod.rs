//! Bridges: this broker as a client of other MQTT servers.
//!
//! A bridge has two connections: one to the other server, and one to this broker, which is served like that of any
//! client, so that queueing, limits and permissions are those of the broker. [`relay`] passes packets between them, and
//! the sessions at both ends keep what is not acknowledged. The session on this broker exists from the start of the
//! bridge on: what is to go out waits in it while the other server is away.
//!
//! Owns neither sockets nor TLS (see [`Dial`]), nor where bridges are declared.

mod error;
mod kept;
mod link;
mod local;
mod relay;
mod side;
mod status;
mod topics;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use inver_broker::{Broker, Io, ProtocolPlugin};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use kept::forget;
pub use status::{BridgeCounts, BridgeState, BridgeStatus};

use self::error::BridgeError;
use self::kept::Kept;
use self::link::Link;
use self::relay::{Flow, Relay};
use self::side::Side;
use self::status::Status;
use self::topics::{Topics, Wanted};
use crate::codec::{
    Connect, Disconnect, PACKET_BYTES_MAX, Packet, Properties, PropertiesBuf, Property, Publish, Qos, Reason,
    RetainHandling, Subscribe, SubscribeOptions, Unsubscribe, Version, Will,
};
use crate::config::{AmqpNames, BridgeSpec, BridgeTls, BridgeVersion};

/// The identifiers of the SUBSCRIBE and UNSUBSCRIBE of a bridge. A message of this broker may have the same: messages wait
/// until the other server has answered [MQTT-2.2.1-3].
const SUBSCRIBE_ID: u16 = u16::MAX;
const UNSUBSCRIBE_ID: u16 = u16::MAX - 1;
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
    /// The longest packet that this broker accepts.
    pub packet_bytes_max: usize,
    /// What this broker makes of topics.
    pub amqp_names: AmqpNames,
}

/// A bridge.
#[derive(Debug)]
pub struct Bridge {
    spec: BridgeSpec,
    status: Status,
}

/// What a bridge knows from its earlier connections.
#[derive(Debug)]
struct Known {
    /// This broker has a session with the subscriptions.
    has_session: bool,
    kept: Kept,
}

/// An address of the other server, and what is known of the server there.
#[derive(Debug)]
struct Peer<'a> {
    address: &'a str,
    privacy: Privacy,
    /// It has answered the SUBSCRIBE of this configuration.
    has_subscribed: bool,
}

/// Whether a server knows connections of bridges. Some refuse one, some only close it, as a server that stops does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Privacy {
    Untried,
    Known,
    /// It did not take one: the next connection is a usual one, whose end says what was the reason.
    Doubted,
    Unknown,
}

impl Privacy {
    /// What a connection, one of a bridge or a usual one, says of it.
    fn after(self, is_private: bool, error: Option<&BridgeError>) -> Privacy {
        match (self, is_private, error) {
            (_, true, None) => Privacy::Known,
            (_, true, Some(BridgeError::Refused(_, Reason::UnsupportedProtocolVersion, _))) => {
                Privacy::Doubted
            }
            (Privacy::Untried, true, Some(BridgeError::Closed(_) | BridgeError::Io(..))) => Privacy::Doubted,
            (Privacy::Doubted, false, None) => Privacy::Unknown,
            (Privacy::Doubted, false, Some(_)) => Privacy::Untried,
            (before, ..) => before,
        }
    }
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
        let kept = Kept::of(&host.broker, &self.spec.name);
        let (mut known, mut pause) = (Known { has_session: false, kept }, self.pause_min());
        let peer = |address| Peer { address, privacy: Privacy::Untried, has_subscribed: false };
        let mut peers: Vec<Peer<'_>> = self.spec.addresses().map(peer).collect();
        let (count, mut attempts) = (peers.len().max(1), 0_usize);
        while !stop.is_cancelled() {
            let began = clock.now();
            let Some(peer) = peers.get_mut(attempts % count) else { break };
            let address = peer.address;
            self.status.set(BridgeState::Connecting, clock.now_ms(), |_| {});
            let Err(error) = self.connect_once(host, peer, &mut known, stop).await else { break };
            attempts = attempts.wrapping_add(1);
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
        peer: &mut Peer<'_>,
        known: &mut Known,
        stop: &CancellationToken,
    ) -> Result<(), BridgeError> {
        let (spec, incoming) = (&self.spec, Topics::incoming(&self.spec));
        let filters: BTreeSet<String> = incoming.wanted().iter().map(|one| one.filter.to_owned()).collect();
        let connecting = async {
            if !known.has_session || !self.has_session(host) {
                self.make_session(host, known).await?;
            }
            let is_new = known.kept.is_new;
            if is_new && spec.version == BridgeVersion::V311 && !spec.clean_start {
                // Before MQTT 5 a session that begins clean ends with its connection.
                let mut link = self.connect_remote(host, peer, true).await?;
                link.put(&farewell(), host.broker.clock().now())?;
                let _gone = link.write_all().await;
            }
            let is_clean = spec.clean_start || (is_new && spec.version == BridgeVersion::V5);
            let remote = self.connect_remote(host, peer, is_clean).await?;
            let mut stale = Vec::new();
            let connected = |kept: &mut Kept| stale = kept.connected(remote.terms.session_present, &filters);
            known.kept.change(&host.broker, &spec.name, connected).await?;
            let (local, serving) = self.connect_local(host, remote.terms, known).await?;
            Ok::<_, BridgeError>((local, remote, serving, stale))
        };
        let (local, remote, serving, stale) = tokio::select! {
            connected = connecting => connected?,
            () = stop.cancelled() => return Ok(()),
        };
        let (outcome, has_unsubscribed) = self.relay(host, (local, remote), (peer, stale), stop).await;
        // The pipe is closed: the broker sees the end, and publishes the will.
        let _ended = serving.await;
        let stored = match has_unsubscribed {
            true => known.kept.change(&host.broker, &spec.name, |kept| kept.filters = filters).await,
            false => Ok(()),
        };
        outcome.and(stored)
    }

    /// The connection to the other server.
    async fn connect_remote(
        &self,
        host: &BridgeHost,
        peer: &mut Peer<'_>,
        clean_start: bool,
    ) -> Result<Link, BridgeError> {
        let (spec, clock) = (&self.spec, host.broker.clock());
        let io = tokio::select! {
            io = host.dial.dial(peer.address, spec.tls.as_ref()) => io.map_err(|error| BridgeError::Io(Side::Remote, error))?,
            () = clock.sleep(host.login_timeout) => return Err(BridgeError::NoAnswer(Side::Remote)),
        };
        let version = match spec.version {
            BridgeVersion::V311 => Version::V311,
            BridgeVersion::V5 => Version::V5,
        };
        let growth = Topics::incoming(spec).growth_max();
        let packet_bytes_max = match version {
            Version::V5 => host.packet_bytes_max.saturating_sub(growth).max(1),
            // It cannot be told: what this broker does not accept is dropped when it is there.
            _ => PACKET_BYTES_MAX,
        };
        let mut link = Link::new(Side::Remote, version, io, packet_bytes_max, clock.now());
        let mut properties = PropertiesBuf::new();
        if version == Version::V5 {
            properties.push(Property::SessionExpiryInterval(spec.session_expiry_s))?;
            properties.push(Property::ReceiveMaximum(spec.inflight_max))?;
            let bytes = u32::try_from(packet_bytes_max).unwrap_or(u32::MAX);
            properties.push(Property::MaximumPacketSize(bytes))?;
        }
        let is_private = spec.private
            && version == Version::V311
            && !matches!(peer.privacy, Privacy::Doubted | Privacy::Unknown);
        let connect = Connect {
            version,
            is_bridge: is_private,
            clean_start,
            keep_alive_s: spec.keep_alive_s,
            client_id: &spec.client_id,
            will: self.notifies_remote().then(|| self.gone()),
            username: (!spec.user.is_empty()).then_some(&*spec.user),
            password: (!spec.password.0.is_empty()).then_some(spec.password.0.as_bytes()),
            properties: properties.as_ref(),
        };
        let outcome = link.connect(connect, clock, host.login_timeout).await;
        peer.privacy = peer.privacy.after(is_private, outcome.as_ref().err());
        if is_private && peer.privacy == Privacy::Doubted {
            info!(
                bridge = spec.name,
                "the other server may not know connections of bridges: the next one is a usual one"
            );
        }
        outcome.map(|()| link)
    }

    /// Passes messages on until a connection ends: how it ended, and whether the other server has answered the UNSUBSCRIBE.
    async fn relay(
        &self,
        host: &BridgeHost,
        links: (Link, Link),
        (peer, stale): (&mut Peer<'_>, Vec<String>),
        stop: &CancellationToken,
    ) -> (Result<(), BridgeError>, bool) {
        let clock = host.broker.clock();
        let mut relay = match self.begin(host, links, (peer, stale)) {
            Ok(relay) => relay,
            Err(error) => return (Err(error), false),
        };
        let outcome = relay.run(clock, stop).await;
        peer.has_subscribed |= relay.has_subscribed;
        if outcome.is_ok() {
            self.say_farewell(&mut relay.remote, clock.now());
            tokio::select! {
                _ = relay.remote.write_all() => {}
                () = clock.sleep(FAREWELL) => {}
            }
        }
        (outcome, relay.has_unsubscribed)
    }

    /// Subscribes on both sides, tells that there is a connection, and begins to pass messages on.
    fn begin(
        &self,
        host: &BridgeHost,
        (mut local, mut remote): (Link, Link),
        (peer, stale): (&Peer<'_>, Vec<String>),
    ) -> Result<Relay<'_>, BridgeError> {
        let (spec, clock, mut unanswered) = (&self.spec, host.broker.clock(), 0);
        let now = clock.now();
        let (out, incoming) = (Topics::out(spec, host.amqp_names), Topics::incoming(spec));
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
        if !stale.is_empty() {
            remote.put(&unsubscribe(stale.iter().map(String::as_str).collect()), now)?;
            unanswered += 1;
        }
        // Before MQTT 5 each SUBSCRIBE brings all retained messages.
        let again = remote.version == Version::V5 || !is_known || !peer.has_subscribed;
        if !wanted_in.is_empty() && again {
            remote.put(&subscribe(&as_wanted(&wanted_in), retained), now)?;
            unanswered += 1;
        }
        if spec.notifications {
            local.put(&self.state(b"1"), now)?;
        }
        if self.notifies_remote() {
            remote.put(&self.state(b"1"), now)?;
        }
        let address = peer.address;
        info!(bridge = spec.name, address, session_present = is_known, "bridge is connected");
        self.status.set(BridgeState::Connected, clock.now_ms(), |shown| {
            shown.connected_to = address.to_owned();
            (shown.last_error, shown.refused_subscriptions) = (None, None);
        });
        let flows = (Flow::new(out, spec.retain), Flow::new(incoming, true));
        let mut relay = Relay::new((local, remote), flows, unanswered, &spec.name, &self.status);
        if !is_known {
            relay.release_all(now)?;
        }
        Ok(relay)
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
        packet_id: SUBSCRIBE_ID,
        properties: Properties::EMPTY,
        filters: filters.collect(),
    })
}

fn unsubscribe(filters: Vec<&str>) -> Packet<'_> {
    Packet::Unsubscribe(Unsubscribe { packet_id: UNSUBSCRIBE_ID, properties: Properties::EMPTY, filters })
}

fn farewell() -> Packet<'static> {
    Packet::Disconnect(Disconnect { reason: Reason::Success, properties: Properties::EMPTY })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_server_knows_no_bridges_once_it_takes_a_usual_connection_instead() {
        let closed = BridgeError::Closed(Side::Remote);
        let refused = BridgeError::Refused(Side::Remote, Reason::UnsupportedProtocolVersion, String::new());
        let away = BridgeError::Io(Side::Remote, io::ErrorKind::ConnectionReset.into());
        for (begin, is_private, error, end) in [
            (Privacy::Untried, true, None, Privacy::Known),
            (Privacy::Untried, true, Some(&closed), Privacy::Doubted),
            (Privacy::Untried, true, Some(&refused), Privacy::Doubted),
            (Privacy::Known, true, Some(&closed), Privacy::Known),
            (Privacy::Known, true, Some(&refused), Privacy::Doubted),
            (Privacy::Doubted, false, Some(&away), Privacy::Untried),
            (Privacy::Doubted, false, None, Privacy::Unknown),
            (Privacy::Unknown, false, Some(&closed), Privacy::Unknown),
        ] {
            assert_eq!(begin.after(is_private, error), end, "{begin:?} {is_private} {error:?}");
        }
    }
}
