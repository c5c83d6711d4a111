//! From a CONNECT to a session, or to a refusal (section 3.1.4).

mod connack;
mod login;
mod request;
mod restore;
mod will;

use std::sync::Arc;

use inver_broker::{Broker, Completion, Mailbox, Opened, SessionSpec};

pub(crate) use self::login::Client;

use self::login::LoggedIn;
use self::request::Request;
use super::deferred::Deferred;
use super::inflight::InflightWindow;
use super::lazy::{LazyPublisher, LazyQueue};
use super::publish::{check_publish, refused_topic};
use super::receive::ReceiveWindow;
use super::scratch::ScratchLease;
use super::shared::SharedSubscriptions;
use super::stored::{self, StoredState};
use super::subscriptions::Subscriptions;
use super::{Counted, Session, alias, terms};
use crate::codec::{Ack, Connect, Packet, PropertiesBuf, Qos, Reason, Version, Will};
use crate::config::{By, MqttConfig, is_topic_name};
use crate::error::Refusal;
use crate::server::{ConnectedClient, Server};

/// An accepted client.
pub(crate) struct Accepted {
    pub(crate) session: Session,
    /// CONNACK's Session Present flag.
    pub(crate) present: bool,
    /// CONNECT's Clean Start flag.
    pub(crate) clean_start: bool,
    /// Why the client's will is not kept, if it is not.
    pub(crate) unkept_will: Option<&'static str>,
    /// Why a subscription that every client gets is refused, if one is.
    pub(crate) refused_subscription: Option<String>,
    /// CONNACK's properties.
    pub(crate) properties: PropertiesBuf,
}

/// Accepts a client: authenticates and admits it, opens its session (a connection that holds it is taken over [MQTT-3.1.4-3]),
/// stores its will and restores its subscriptions. Returns when all that CONNACK promises is committed.
pub(crate) async fn connect(
    connect: &Connect<'_>,
    client: &Client<'_>,
    broker: &Broker,
    server: &Arc<Server>,
    mailbox: &Arc<Mailbox>,
) -> Result<Accepted, Refusal> {
    let config = &server.config;
    let now_ms = broker.clock().steady_ms();
    let request = Request::read(connect, config);
    let LoggedIn { admitted, assigned } = login::log_in(connect, client, broker, config, mailbox).await?;
    let client_id = assigned.as_deref().unwrap_or(connect.client_id);
    let permissions = admitted.permissions;
    let user = permissions.user().map(str::to_owned);

    let limits = config.limits_of(&client.endpoints.listener.name, user.as_deref());
    if connect.version == Version::V5
        && let Some(will) = &connect.will
    {
        check_publish(will.qos, will.retain, limits)?;
    }

    let spec = SessionSpec {
        client_id,
        clean_start: connect.clean_start,
        expiry: terms::expiry(request.expiry_s),
        mailbox: mailbox.clone(),
        terms: &server.session_terms,
        permissions,
    };
    let opened = admitted.sessions.open(spec).await?;
    let Opened { session: core, present, subscriptions, state, mut completion } = opened;
    let by = By { client_id, user: user.as_deref() };
    let is_internal = client.endpoints.listener.is_internal;
    let rewritten = connect.will.as_ref().filter(|_| !is_internal);
    let rewritten = rewritten.and_then(|will| config.rewrite.publish(will.topic, by));
    let will_topic =
        rewritten.as_deref().or(connect.will.as_ref().map(|will| will.topic)).unwrap_or_default();
    let will_topic = config.amqp_names.topic(will_topic);
    let connect_will = connect.will.as_ref().map(|will| Will { topic: &will_topic, ..will.clone() });
    let unkept_will = match rewritten.as_deref() {
        Some(rewritten) if !is_topic_name(rewritten) => {
            Some("the will is not kept: its topic is rewritten to what is none")
        }
        _ => connect_will.as_ref().and_then(|will| unkept(will, config)),
    };
    if let Some(will) = connect_will.as_ref().filter(|_| unkept_will.is_none()) {
        // An older client cannot be told what its will may not have.
        let qos = will.qos.min(Qos::from_bits(limits.maximum_qos).unwrap_or(will.qos));
        let will = Will { qos, retain: will.retain && limits.retain, ..will.clone() };
        let will = will::stored(&will, client_id, user.as_deref(), now_ms, config.amqp_names)?;
        completion = completion.and(core.set_will(Some(will))?);
    }
    let stored = StoredState::read(&state);
    if stored.sent.is_some() {
        completion = completion.and(core.delete(&stored::SENT_KEY)?);
    }
    let is_v5 = connect.version == Version::V5;
    let window = request.receive_maximum.min(config.inflight_max);
    let receive_maximum = if is_internal { u16::MAX } else { config.receive_maximum };
    let mut session = Session {
        version: connect.version,
        is_bridge: connect.is_bridge,
        server: ConnectedClient::new(server),
        publisher: LazyPublisher::default(),
        mailbox: mailbox.clone(),
        core,
        connection: admitted.connection,
        reauthentication: None,
        client_packet_bytes_max: request.packet_bytes_max,
        problem_information: request.problem_information,
        keep_alive_s: keep_alive_s(connect.keep_alive_s, limits.keep_alive_s_max),
        limits,
        expiry_s: request.expiry_s,
        receive: ReceiveWindow::new(is_v5.then_some(receive_maximum), stored.received),
        inflight: InflightWindow::new(window, stored.released.iter().copied()),
        aliases_in: alias::Incoming::new(config.topic_alias_maximum),
        aliases_out: alias::Outgoing::new(request.topic_alias_maximum.min(config.outgoing_topic_aliases_max)),
        subscriptions: Subscriptions::default(),
        shared: SharedSubscriptions::default(),
        deferred: Deferred::default(),
        live_ready: true,
        sys_due: false,
        received: 0,
        sent: 0,
        sent_max: u32::MAX,
        live_rest: LazyQueue::default(),
        inbox_ready: true,
        sent_before: if present { stored.sent.unwrap_or(u64::MAX) } else { 0 },
        inbox_next: stored.sent.unwrap_or(0),
        is_at_gate: false,
        blocked: LazyQueue::default(),
        scans: LazyQueue::default(),
        moved: 0,
        counted: Counted::default(),
        now_ms,
        ongoing: None,
        filters_left: 0,
        scratch: ScratchLease::default(),
    };
    session.restore(subscriptions, mailbox);
    let refused_subscription = session.subscribe_automatically();
    // PUBRELs without a PUBCOMP are sent again [MQTT-4.4.0-1], after CONNACK.
    for packet_id in stored.released {
        let pubrel = Packet::PubRel(Ack::new(packet_id, Reason::Success));
        let _always_fits = pubrel.encode(session.version, session.deferred.bytes());
    }
    session.deferred.end_turn();
    if let Completion::At(lsn) = completion {
        broker.log().wait_committed(lsn).await?;
    }
    let properties = session.connack_properties(connect, assigned.as_deref(), &request, unkept_will);
    Ok(Accepted {
        session,
        present,
        clean_start: connect.clean_start,
        unkept_will,
        refused_subscription,
        properties,
    })
}

/// Why a will is not kept. Its client connects all the same: other servers take such wills, and a client that is refused
/// would try again for ever.
fn unkept(will: &Will<'_>, config: &MqttConfig) -> Option<&'static str> {
    if will.topic.split('/').count() > config.topic_levels_max {
        return Some("the will is not kept: its topic has too many levels");
    }
    match refused_topic(will.topic)? {
        Reason::NotAuthorized => Some("the will is not kept: its topic is below $SYS/"),
        _ => Some("the will is not kept: its topic is a function of another server"),
    }
}

/// The keep alive in force: the client's, bounded.
fn keep_alive_s(requested: u16, max: Option<u16>) -> u16 {
    match max {
        Some(max) if requested == 0 || requested > max => max,
        _ => requested,
    }
}
