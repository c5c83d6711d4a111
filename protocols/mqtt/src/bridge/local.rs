//! The connection of a bridge to this broker, and its session there.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use inver_broker::{Anonymous, ClientCertificate, Connection, ListenerInfo};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::BridgeError;
use super::link::{Link, Terms};
use super::side::Side;
use super::topics::Topics;
use super::{Bridge, BridgeHost, Known, farewell, subscribe, unsubscribe};
use crate::codec::{Connect, Packet, PropertiesBuf, Property, RetainHandling, Version, Will};

/// Bytes between the bridge and this broker that neither has taken yet, each way.
const PIPE_BYTES: usize = 64 << 10;
/// Subscriptions of a session that are looked through for those of an earlier configuration.
const FILTERS_MAX: usize = 100_000;

impl Bridge {
    /// Whether the session on this broker is there: it may be deleted, also with its namespace.
    pub(super) fn has_session(&self, host: &BridgeHost) -> bool {
        let sessions = host.broker.sessions(&self.spec.namespace);
        sessions.is_some_and(|sessions| sessions.info(&self.spec.local_client_id).is_some())
    }

    /// Makes the session on this broker with its subscriptions, before there is another server.
    pub(super) async fn make_session(&self, host: &BridgeHost, known: &mut Known) -> Result<(), BridgeError> {
        let clock = host.broker.clock();
        let sessions = host.broker.sessions(&self.spec.namespace).ok_or(BridgeError::NoNamespace)?;
        let had = sessions.filters(&self.spec.local_client_id, FILTERS_MAX);
        if had.is_none() {
            // Before there is a session: a restart in between must not make it one that the other server knows.
            known.kept.change(&host.broker, &self.spec.name, |kept| kept.is_new = true).await?;
        }
        let had = had.unwrap_or_default();
        let (mut link, serving) = self.open_local(host);
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(u32::MAX))?;
        // It takes as little as it can: what comes waits for the connection that passes it on.
        properties.push(Property::ReceiveMaximum(1))?;
        let connect = self.local_connect(&properties, None);
        link.connect(connect, clock, host.login_timeout).await?;
        let names = host.amqp_names;
        let topics = Topics::out(&self.spec, names);
        let wanted = topics.wanted();
        let now = clock.now();
        let mut answers = 0;
        let kept: BTreeSet<&str> = wanted.iter().map(|wanted| wanted.filter).collect();
        let had = had.iter().filter_map(|filter| std::str::from_utf8(&filter.filter).ok());
        // An UNSUBSCRIBE of one from before the names were changed would mean one that is wanted.
        let stale: Vec<&str> = had.filter(|filter| !kept.contains(&*names.topic(filter))).collect();
        if !stale.is_empty() {
            link.put(&unsubscribe(stale), now)?;
            answers += 1;
        }
        if !wanted.is_empty() {
            link.put(&subscribe(&wanted, |_| RetainHandling::DoNotSend), now)?;
            answers += 1;
        }
        tokio::select! {
            done = self.await_answers(&mut link, answers) => done?,
            () = clock.sleep(host.login_timeout) => return Err(BridgeError::NoAnswer(Side::Local)),
        }
        link.put(&farewell(), clock.now())?;
        let _gone = link.write_all().await;
        let is_new = known.kept.is_new || !link.terms.session_present;
        drop(link);
        let _ended = serving.await;
        known.kept.change(&host.broker, &self.spec.name, |kept| kept.is_new = is_new).await?;
        known.has_session = true;
        Ok(())
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
                is_internal: true,
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

    /// The connection to this broker, once there is one to the other server.
    pub(super) async fn connect_local(
        &self,
        host: &BridgeHost,
        remote: Terms,
        known: &mut Known,
    ) -> Result<(Link, JoinHandle<()>), BridgeError> {
        let (mut link, serving) = self.open_local(host);
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(u32::MAX))?;
        properties.push(Property::ReceiveMaximum(self.spec.inflight_max.min(remote.receive_maximum)))?;
        let growth = Topics::out(&self.spec, host.amqp_names).growth_max();
        let packet_bytes_max = remote.packet_bytes_max.saturating_sub(growth).max(1);
        properties.push(Property::MaximumPacketSize(u32::try_from(packet_bytes_max).unwrap_or(u32::MAX)))?;
        let will = self.spec.notifications.then(|| self.gone());
        let connect = self.local_connect(&properties, will);
        link.connect(connect, host.broker.clock(), host.login_timeout).await?;
        if !link.terms.session_present {
            // What the other server kept is for the former session, whose identifiers a new one uses again.
            known.has_session = false;
            known.kept.change(&host.broker, &self.spec.name, |kept| kept.is_new = true).await?;
            return Err(BridgeError::NoSession);
        }
        Ok((link, serving))
    }
}
