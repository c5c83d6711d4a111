//! From a CONNECT to a session, or to a refusal (section 3.1.4).

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use inver_broker::{
    AuthError, Broker, ConsumerSpec, Credentials, Expiry, HeaderWriter, Headers, Identity, Mailbox, Opened,
    SessionSpec, SubscriptionOptions, Will, now_ms,
};
use inver_storage::Lsn;
use inver_storage::batch::BatchBuilder;

use super::deferred::Deferred;
use super::inbound::Inbound;
use super::lazy::{LazyPublisher, Lent, Queue};
use super::members::Members;
use super::outbound::Outbound;
use super::state::{self, Kept, random};
use super::subscriptions::{Subscriptions, Terms};
use super::{Session, alias};
use crate::codec::{
    self, Ack, Connect, Packet, PropertiesBuf, Property, Qos, Reason, Shared, Version, split_shared,
};
use crate::config::MqttConfig;
use crate::connected::Connected;
use crate::error::Refusal;
use crate::map::{Author, Incoming, ORIGIN};
use crate::sys::{PREFIX, Plug};

/// A session expiry that never comes (section 3.1.2.11.2).
const NEVER_S: u32 = u32::MAX;

/// Client identifiers of MQTT 3.1 have at most this many characters by its text; longer ones are taken as well, as
/// other servers do. An empty one is refused.
const V31_CLIENT_ID: &str = "an empty client identifier in MQTT 3.1";

/// A client that was let in.
pub(crate) struct Accepted {
    pub(crate) session: Session,
    /// For CONNACK.
    pub(crate) present: bool,
    /// For CONNACK.
    pub(crate) properties: PropertiesBuf,
}

/// What a CONNECT's properties say.
struct Wishes {
    expiry_s: u32,
    receive_maximum: u16,
    packet_bytes_max: usize,
    topic_alias_maximum: u16,
    problem_information: bool,
    authentication_method: bool,
}

impl Wishes {
    fn read(connect: &Connect<'_>, config: &MqttConfig) -> Wishes {
        let mut wishes = Wishes {
            // Before MQTT 5 a session without Clean Session lives on [MQTT-3.1.2-4 of 3.1.1].
            expiry_s: if connect.version == Version::V5 || connect.clean_start { 0 } else { NEVER_S },
            receive_maximum: u16::MAX,
            packet_bytes_max: codec::PACKET_BYTES_MAX,
            topic_alias_maximum: 0,
            problem_information: true,
            authentication_method: false,
        };
        for property in connect.properties {
            match property {
                Property::SessionExpiryInterval(seconds) => wishes.expiry_s = seconds,
                Property::ReceiveMaximum(maximum) => wishes.receive_maximum = maximum,
                Property::MaximumPacketSize(bytes) => wishes.packet_bytes_max = bytes as usize,
                Property::TopicAliasMaximum(maximum) => wishes.topic_alias_maximum = maximum,
                Property::RequestProblemInformation(wanted) => wishes.problem_information = wanted != 0,
                Property::AuthenticationMethod(_) => wishes.authentication_method = true,
                _ => {}
            }
        }
        if let Some(most) = config.session_expiry_s_max {
            wishes.expiry_s = wishes.expiry_s.min(most);
        }
        wishes
    }
}

/// How long a session lives after its connection.
pub(super) fn expiry(seconds: u32) -> Expiry {
    match seconds {
        0 => Expiry::AtDetach,
        NEVER_S => Expiry::Never,
        seconds => Expiry::After(seconds),
    }
}

/// Lets a client in: identity, session (taken over from another connection if need be [MQTT-3.1.4-3]), will, and what
/// the session had subscribed to. Returns when all that CONNACK promises is committed.
pub(crate) async fn connect(
    connect: &Connect<'_>,
    peer: IpAddr,
    broker: &Broker,
    config: &Arc<Plug>,
    mailbox: &Arc<Mailbox>,
) -> Result<Accepted, Refusal> {
    let wishes = Wishes::read(connect, config);
    if wishes.authentication_method {
        return Err(Refusal::new(
            Reason::BadAuthenticationMethod,
            "enhanced authentication is not supported",
        ));
    }
    let assigned = assigned_client_id(connect)?;
    let client_id = assigned.as_deref().unwrap_or(connect.client_id);
    if let Some(will) = &connect.will
        && will.topic.split('/').count() > config.topic_levels_max
    {
        return Err(Refusal::new(Reason::TopicNameInvalid, "a will topic of too many levels"));
    }
    if connect.will.as_ref().is_some_and(|will| will.topic.starts_with(PREFIX)) {
        return Err(Refusal::new(Reason::NotAuthorized, "a will to a topic of the broker's own"));
    }
    let identity = authenticate(connect, peer, broker).await?;
    let user: Option<Arc<str>> = identity.name().map(Arc::from);

    let spec = SessionSpec {
        client_id,
        clean_start: connect.clean_start,
        expiry: expiry(wishes.expiry_s),
        mailbox: mailbox.clone(),
        terms: &config.session_terms,
    };
    let opened = broker.default_namespace().open_session(spec).await.map_err(|error| unavailable(&error))?;
    let Opened { session: core, present, subscriptions: known, state: kept, mut lsn } = opened;
    if connect.will.is_some() {
        let will = will(connect, client_id, user.as_deref())?;
        lsn = lsn.max(core.set_will(Some(will)));
    }
    let kept = Kept::read(&kept);
    if kept.sent.is_some() {
        lsn = lsn.max(core.delete(&state::SENT_KEY));
    }
    let window = wishes.receive_maximum.min(config.inflight_max);
    let v5 = connect.version == Version::V5;
    let mut session = Session {
        version: connect.version,
        config: Connected::new(config, mailbox),
        user,
        publisher: LazyPublisher::default(),
        mailbox: mailbox.clone(),
        core,
        client_packet_bytes_max: wishes.packet_bytes_max,
        problem_information: wishes.problem_information,
        keep_alive_s: keep_alive_s(connect.keep_alive_s, config),
        expiry_s: wishes.expiry_s,
        inbound: Inbound::new(v5.then_some(config.receive_maximum), kept.inbound),
        outbound: Outbound::new(window, kept.released.iter().copied()),
        aliases_in: alias::Incoming::new(config.topic_alias_maximum),
        aliases_out: alias::Outgoing::new(wishes.topic_alias_maximum.min(config.outgoing_topic_aliases_max)),
        subscriptions: Subscriptions::default(),
        members: Members::default(),
        deferred: Deferred::default(),
        live_ready: true,
        sys_due: false,
        received: 0,
        sent: 0,
        live_rest: Queue::default(),
        inbox_ready: true,
        sent_before: if present { kept.sent } else { Some(0) },
        inbox_next: kept.sent.unwrap_or(0),
        held: Queue::default(),
        scans: Queue::default(),
        moved: 0,
        now_ms: now_ms(),
        scratch: Lent::default(),
    };
    session.restore(known, mailbox);
    // What was released is released again [MQTT-4.4.0-1]; it follows CONNACK.
    for packet_id in kept.released {
        let pubrel = Packet::PubRel(Ack::new(packet_id, Reason::Success));
        let _always_fits = pubrel.encode(session.version, session.deferred.bytes());
    }
    session.deferred.end_turn();
    wait(broker, lsn).await?;
    let properties = session.connack_properties(connect, assigned.as_deref(), &wishes);
    Ok(Accepted { session, present, properties })
}

/// An identifier for a client that has none [MQTT-3.1.3-6], [MQTT-3.1.3-7].
fn assigned_client_id(connect: &Connect<'_>) -> Result<Option<String>, Refusal> {
    if !connect.client_id.is_empty() {
        return Ok(None);
    }
    match connect.version {
        Version::V31 => Err(Refusal::new(Reason::ClientIdNotValid, V31_CLIENT_ID)),
        Version::V311 if !connect.clean_start => Err(Refusal::new(
            Reason::ClientIdNotValid,
            "an empty client identifier without Clean Session [MQTT-3.1.3-8 of 3.1.1]",
        )),
        _ => Ok(Some(format!("auto-{:016x}{:016x}", random(), random()))),
    }
}

async fn authenticate(connect: &Connect<'_>, peer: IpAddr, broker: &Broker) -> Result<Identity, Refusal> {
    let credentials = match (connect.username, connect.password) {
        // Clients without a name send an empty one now and then.
        (None | Some(""), None | Some([])) => Credentials::Anonymous,
        (user, password) => Credentials::Password {
            user: user.unwrap_or_default().to_owned(),
            password: password.unwrap_or_default().to_vec(),
        },
    };
    broker.authenticate(peer, &credentials).await.map_err(|error| {
        let reason = match error {
            AuthError::Refused => Reason::BadUserNameOrPassword,
            AuthError::LoopbackOnly | AuthError::CredentialsRequired => Reason::NotAuthorized,
        };
        Refusal::new(reason, error.to_string())
    })
}

fn unavailable(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Reason::ServerUnavailable, error.to_string())
}

async fn wait(broker: &Broker, lsn: Option<Lsn>) -> Result<(), Refusal> {
    match lsn {
        Some(lsn) => broker.log().wait_committed(lsn).await.map_err(|error| unavailable(&error)),
        None => Ok(()),
    }
}

fn keep_alive_s(wanted: u16, config: &MqttConfig) -> u16 {
    match config.keep_alive_s_max {
        Some(most) if wanted == 0 || wanted > most => most,
        _ => wanted,
    }
}

fn will(connect: &Connect<'_>, client_id: &str, user: Option<&str>) -> Result<Will, Refusal> {
    let Some(will) = &connect.will else { return Err(Refusal::new(Reason::Unspecified, "no will")) };
    let incoming = Incoming::read(will.properties).map_err(|error| Refusal::new(error.reason, error.what))?;
    let mut writer = HeaderWriter::default();
    let author = Author { client_id, user };
    let now_ms = now_ms();
    let headers: Headers<'_> =
        incoming.without_expiry().headers(&mut writer, author, will.topic, will.qos, will.retain, now_ms);
    let mut batch = BatchBuilder::new(0);
    batch.push_with(now_ms, None, headers.count as usize, headers.bytes, Some(will.payload));
    Ok(Will {
        address: will.topic.as_bytes().to_vec(),
        batch: batch.finish().bytes().to_vec(),
        delay_s: incoming.will_delay_s,
        // It runs from the publish (section 3.1.3.2.4).
        expiry_s: incoming.expiry_s,
        retain: will.retain,
        guaranteed: will.qos != Qos::AtMostOnce,
        origin: ORIGIN.to_owned(),
    })
}

impl Session {
    /// Takes up what the session had subscribed to.
    fn restore(&mut self, known: Vec<(Bytes, SubscriptionOptions)>, mailbox: &Arc<Mailbox>) {
        for (text, options) in known {
            let (Ok(filter), Some(terms)) = (std::str::from_utf8(&text), Terms::from_bytes(&options.opaque))
            else {
                tracing::warn!(client_id = self.core.client_id(), "a stored subscription cannot be read");
                continue;
            };
            if split_shared(filter) == Shared::No {
                self.subscriptions.insert(filter, terms);
                if filter.starts_with(PREFIX) {
                    self.hear_sys();
                }
                continue;
            }
            let spec = ConsumerSpec::new(mailbox.clone(), self.members.next_number());
            match self.core.join(&text, &options, terms.share_mode(), spec) {
                Ok((consumer, _, _)) => self.members.push(filter, terms, consumer),
                Err(error) => {
                    tracing::warn!(client_id = self.core.client_id(), filter, %error, "a shared subscription was lost");
                    self.core.unsubscribe(&text);
                }
            }
        }
    }

    /// What the client is told with CONNACK (section 3.2.2.3).
    fn connack_properties(
        &self,
        connect: &Connect<'_>,
        assigned: Option<&str>,
        wishes: &Wishes,
    ) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        if connect.version != Version::V5 {
            return properties;
        }
        let asked_expiry_s = connect.properties.iter().find_map(|property| match property {
            Property::SessionExpiryInterval(seconds) => Some(seconds),
            _ => None,
        });
        let mut push = |property: Property<'_>| {
            let _short_enough = properties.push(property);
        };
        if asked_expiry_s.is_some_and(|asked| asked != wishes.expiry_s) {
            push(Property::SessionExpiryInterval(wishes.expiry_s));
        }
        if self.config.receive_maximum != u16::MAX {
            push(Property::ReceiveMaximum(self.config.receive_maximum));
        }
        if self.config.packet_bytes_max < codec::PACKET_BYTES_MAX {
            push(Property::MaximumPacketSize(self.config.packet_bytes_max as u32));
        }
        if let Some(assigned) = assigned {
            push(Property::AssignedClientIdentifier(assigned));
        }
        if self.config.topic_alias_maximum != 0 {
            push(Property::TopicAliasMaximum(self.config.topic_alias_maximum));
        }
        if self.keep_alive_s != connect.keep_alive_s {
            // [MQTT-3.2.2-21]
            push(Property::ServerKeepAlive(self.keep_alive_s));
        }
        properties
    }
}
