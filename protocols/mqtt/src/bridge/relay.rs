//! Packets of one connection as packets of the other.
//!
//! Messages keep their packet identifiers, and acknowledgements are passed on, so that the exchange of a QoS 1 or 2
//! message is one between the sessions of the two servers, which both keep: neither the end of a connection nor that of
//! this process loses or repeats more than the servers themselves would. What the relay answers itself concerns messages
//! that it does not pass on.

use std::collections::BTreeSet;

use inver_broker::Clock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::error::BridgeError;
use super::link::{Link, read, write};
use super::side::Side;
use super::status::{Status, Tally};
use super::topics::Topics;
use crate::codec::{Ack, Packet, PropertiesBuf, Property, Publish, Qos, Reason, Version};

/// Output above which QoS 0 messages for this broker are dropped, and messages for the other server are not read.
const SOFT_BYTES_MAX: usize = 1 << 20;
/// Output of either side above which the other server is not read.
const HARD_BYTES_MAX: usize = 8 << 20;
/// How much longer than the keep alive a server may take nothing, or not answer a PINGREQ: one and a half times.
const SILENCE_FACTOR: (u32, u32) = (3, 2);

/// Why a message is dropped.
const TOO_LONG: &str = "it is longer than the server accepts";

/// The state of the messages that come from one side.
pub(super) struct Flow {
    pub(super) topics: Topics,
    /// Whether they keep their retain flag.
    pub(super) keeps_retain: bool,
    /// Identifiers of QoS 2 messages whose PUBREL the relay answers.
    absorbed: BTreeSet<u16>,
    /// Identifiers of QoS 2 messages that were passed on at QoS 1.
    lowered: BTreeSet<u16>,
}

impl Flow {
    pub(super) fn new(topics: Topics, keeps_retain: bool) -> Flow {
        Flow { topics, keeps_retain, absorbed: BTreeSet::new(), lowered: BTreeSet::new() }
    }
}

/// Two connections, and what goes over them.
pub(super) struct Relay<'a> {
    pub(super) local: Link,
    pub(super) remote: Link,
    pub(super) out: Flow,
    pub(super) incoming: Flow,
    /// PUBCOMPs of this broker that answer PUBRELs of [`release_all`](Self::release_all).
    releasing: u32,
    /// SUBSCRIBEs and UNSUBSCRIBEs that the other server has not answered.
    unanswered: u32,
    /// The next packet of this broker is a message that waits for them.
    is_held: bool,
    /// The other server has answered the SUBSCRIBE.
    pub(super) has_subscribed: bool,
    /// The other server has answered the UNSUBSCRIBE.
    pub(super) has_unsubscribed: bool,
    /// A message that a side refused was logged.
    has_logged_refusal: bool,
    pub(super) name: &'a str,
    pub(super) status: &'a Status,
    topic: String,
}

impl<'a> Relay<'a> {
    pub(super) fn new(
        links: (Link, Link),
        flows: (Flow, Flow),
        unanswered: u32,
        name: &'a str,
        status: &'a Status,
    ) -> Relay<'a> {
        let ((local, remote), (out, incoming)) = (links, flows);
        Relay {
            local,
            remote,
            out,
            incoming,
            releasing: 0,
            unanswered,
            is_held: false,
            has_subscribed: false,
            has_unsubscribed: false,
            has_logged_refusal: false,
            name,
            status,
            topic: String::new(),
        }
    }

    /// Frees all identifiers of QoS 2 messages that this broker waits to have released: the other server has no session
    /// any more, and will use them for other messages.
    pub(super) fn release_all(&mut self, now: Instant) -> Result<(), BridgeError> {
        for packet_id in 1..=u16::MAX {
            self.local.put(&Packet::PubRel(Ack::new(packet_id, Reason::Success)), now)?;
        }
        self.releasing = u32::from(u16::MAX);
        Ok(())
    }

    /// Relays until a connection ends, or until it is told to stop.
    pub(super) async fn run(&mut self, clock: &Clock, stop: &CancellationToken) -> Result<(), BridgeError> {
        let (mut reads_local, mut reads_remote) = (true, true);
        loop {
            let now = clock.now();
            // A side that was not read could not be heard.
            for (link, was_read) in [(&mut self.local, reads_local), (&mut self.remote, reads_remote)] {
                if !was_read {
                    link.heard = now;
                }
            }
            self.take_all(now)?;
            let tick = self.keep_alive(now)?;
            (reads_local, reads_remote) = (self.takes_local(), self.takes_remote());
            let (local, remote) = (&mut self.local, &mut self.remote);
            let writes_local = !local.output.is_empty() || local.is_unflushed;
            let writes_remote = !remote.output.is_empty() || remote.is_unflushed;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                done = read(&mut local.reader, &mut local.input, Side::Local), if reads_local => {
                    done?;
                    local.heard = clock.now();
                }
                done = read(&mut remote.reader, &mut remote.input, Side::Remote), if reads_remote => {
                    done?;
                    remote.heard = clock.now();
                }
                done = write(&mut local.writer, &mut local.output, &mut local.is_unflushed, Side::Local),
                    if writes_local => { done?; local.took = clock.now(); }
                done = write(&mut remote.writer, &mut remote.output, &mut remote.is_unflushed, Side::Remote),
                    if writes_remote => { done?; remote.took = clock.now(); }
                () = sleep_until(clock, tick) => {}
            }
        }
    }

    /// Sends PINGREQs that are due. Returns when to look again.
    fn keep_alive(&mut self, now: Instant) -> Result<Option<Instant>, BridgeError> {
        let mut next = None;
        for link in [&mut self.local, &mut self.remote] {
            let Some(keep_alive) = link.terms.keep_alive else { continue };
            let silence_max = keep_alive * SILENCE_FACTOR.0 / SILENCE_FACTOR.1;
            // A PINGRESP may be behind a long packet.
            let silent_since = link.pinged.map(|since| since.max(link.heard));
            let is_silent = silent_since.is_some_and(|since| now - since >= silence_max);
            if is_silent || (!link.output.is_empty() && now - link.took >= silence_max) {
                return Err(BridgeError::NoAnswer(link.side));
            }
            // A server that is only sent to must be heard too: what it takes may have gone no further than its system.
            let quiet = link.sent.min(link.heard);
            if now - quiet >= keep_alive && link.pinged.is_none() {
                link.put(&Packet::PingReq, now)?;
                link.pinged = Some(now);
            }
            let answer = match link.pinged {
                Some(since) => since.max(link.heard) + silence_max,
                None => quiet + keep_alive,
            };
            let stalled = (!link.output.is_empty()).then(|| link.took + silence_max);
            next = [next, Some(answer), stalled].into_iter().flatten().min();
        }
        Ok(next)
    }

    /// Handles every whole packet of both sides that there is room for.
    fn take_all(&mut self, now: Instant) -> Result<(), BridgeError> {
        // The other server's first: its answers may be what this broker's wait for.
        while self.takes_remote() && self.take(Side::Remote, now)? {}
        while self.takes_local() && self.take(Side::Local, now)? {}
        Ok(())
    }

    /// Whether there is room for what this broker sends, and its next packet need not wait.
    fn takes_local(&self) -> bool {
        self.remote.output.len() < SOFT_BYTES_MAX && !(self.is_held && self.holds_messages())
    }

    /// Whether this broker's messages wait for the other server's answers, which come while that is read.
    fn holds_messages(&self) -> bool {
        self.unanswered > 0 && self.takes_remote()
    }

    /// Whether there is room for what the other server sends, and for its acknowledgements.
    fn takes_remote(&self) -> bool {
        self.local.output.len() < HARD_BYTES_MAX && self.remote.output.len() < HARD_BYTES_MAX
    }

    /// Handles one packet of a side; false if there is none.
    fn take(&mut self, side: Side, now: Instant) -> Result<bool, BridgeError> {
        let holds_messages = side == Side::Local && self.holds_messages();
        let (from, to, flow, back) = match side {
            Side::Local => (&mut self.local, &mut self.remote, &mut self.out, &mut self.incoming),
            Side::Remote => (&mut self.remote, &mut self.local, &mut self.incoming, &mut self.out),
        };
        // Taken out so that its packet can be answered.
        let input = std::mem::take(&mut from.input);
        let Some((packet, length)) = from.decode(&input)? else {
            from.input = input;
            return Ok(false);
        };
        match &packet {
            Packet::Publish(_) if holds_messages => {
                self.is_held = true;
                from.input = input;
                return Ok(false);
            }
            Packet::Publish(publish) => {
                let known = flow.topics.translate(publish.topic, &mut self.topic);
                let topic = known.then_some(&*self.topic);
                match forward(publish, topic, flow, to, now)? {
                    Forwarded::Whole => self.status.count(side, Tally::Passed),
                    Forwarded::AtLeastOnce => {
                        self.status.count(side, Tally::Passed);
                        flow.lowered.insert(publish.packet_id);
                    }
                    Forwarded::AtMostOnce => {
                        self.status.count(side, Tally::Passed);
                        answer(publish, flow, from, now)?;
                    }
                    Forwarded::Dropped(why) => {
                        debug!(
                            bridge = self.name,
                            ?side,
                            topic = publish.topic,
                            why,
                            "message not passed on"
                        );
                        self.status.count(side, Tally::Dropped);
                        answer(publish, flow, from, now)?;
                    }
                }
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) if ack.reason == Reason::QuotaExceeded => {
                // The message may be taken later: its sender keeps it and sends it on the next connection.
                return Err(BridgeError::TryLater(side));
            }
            Packet::PubAck(ack) if back.lowered.remove(&ack.packet_id) => {
                self.status.refused(self.name, side, ack.reason, &mut self.has_logged_refusal);
                to.put(&Packet::PubRec(Ack::new(ack.packet_id, ack.reason)), now)?;
                if !ack.reason.is_error() || to.version != Version::V5 {
                    back.absorbed.insert(ack.packet_id);
                }
            }
            Packet::PubAck(ack) => {
                self.status.refused(self.name, side, ack.reason, &mut self.has_logged_refusal);
                to.put(&Packet::PubAck(Ack::new(ack.packet_id, ack.reason)), now)?;
            }
            Packet::PubRec(ack) => {
                self.status.refused(self.name, side, ack.reason, &mut self.has_logged_refusal);
                to.put(&Packet::PubRec(Ack::new(ack.packet_id, ack.reason)), now)?;
                if ack.reason.is_error() && to.version != Version::V5 {
                    // Before MQTT 5 the exchange goes on.
                    back.absorbed.insert(ack.packet_id);
                }
            }
            // A server without QoS 2 knows no PUBREL: this one is of an earlier connection.
            Packet::PubRel(ack)
                if flow.absorbed.remove(&ack.packet_id) || to.terms.maximum_qos < Qos::ExactlyOnce =>
            {
                from.put(&Packet::PubComp(Ack::new(ack.packet_id, Reason::Success)), now)?;
            }
            Packet::PubRel(ack) => {
                to.put(&Packet::PubRel(Ack::new(ack.packet_id, Reason::Success)), now)?;
            }
            Packet::PubComp(_) if side == Side::Local && self.releasing > 0 => self.releasing -= 1,
            Packet::PubComp(ack) => {
                to.put(&Packet::PubComp(Ack::new(ack.packet_id, Reason::Success)), now)?;
            }
            Packet::SubAck(suback) => {
                let refused = suback.reasons.iter().filter(|reason| reason.is_error()).count();
                if let Some(reason) = suback.reasons.iter().find(|reason| reason.is_error()) {
                    warn!(
                        bridge = self.name,
                        ?side,
                        refused,
                        ?reason,
                        "subscriptions of a bridge are refused"
                    );
                    self.status.subscriptions_refused(side, refused, *reason);
                }
                if side == Side::Remote {
                    self.has_subscribed = true;
                    self.unanswered = self.unanswered.saturating_sub(1);
                }
            }
            Packet::UnsubAck(_) if side == Side::Remote => {
                self.has_unsubscribed = true;
                self.unanswered = self.unanswered.saturating_sub(1);
            }
            Packet::UnsubAck(_) => {}
            Packet::PingResp => from.pinged = None,
            Packet::Disconnect(disconnect) => {
                return Err(BridgeError::Disconnected(side, disconnect.reason));
            }
            _ => return Err(BridgeError::Unexpected(side)),
        }
        from.input = input;
        from.advance(length);
        if side == Side::Local {
            self.is_held = false;
        }
        Ok(true)
    }
}

/// What became of a message.
enum Forwarded {
    /// It was passed on with its QoS.
    Whole,
    /// A QoS 2 message was passed on at QoS 1, as the server takes no higher one.
    AtLeastOnce,
    /// It was passed on at QoS 0, as the server takes no higher one.
    AtMostOnce,
    Dropped(&'static str),
}

/// Passes a message on under another topic.
fn forward(
    publish: &Publish<'_>,
    topic: Option<&str>,
    flow: &Flow,
    to: &mut Link,
    now: Instant,
) -> Result<Forwarded, BridgeError> {
    let Some(topic) = topic else {
        return Ok(Forwarded::Dropped("the bridge does not carry its topic"));
    };
    // Before it is copied.
    if publish.payload.len() > to.terms.packet_bytes_max {
        return Ok(Forwarded::Dropped(TOO_LONG));
    }
    let is_full = to.output.len() >= SOFT_BYTES_MAX;
    if is_full && publish.qos == Qos::AtMostOnce && to.side == Side::Local {
        return Ok(Forwarded::Dropped("this broker takes messages more slowly than they come"));
    }
    let qos = publish.qos.min(to.terms.maximum_qos);
    // Properties of the other connection; neither has any that were not asked for.
    let is_own = |property: &Property<'_>| {
        matches!(property, Property::TopicAlias(_) | Property::SubscriptionIdentifier(_))
    };
    let mut kept = PropertiesBuf::new();
    let properties = match publish.properties.iter().any(|property| is_own(&property)) {
        false => publish.properties,
        true => {
            publish
                .properties
                .iter()
                .filter(|property| !is_own(property))
                .try_for_each(|property| kept.push(property))?;
            kept.as_ref()
        }
    };
    let passed = Publish {
        dup: publish.dup && qos != Qos::AtMostOnce,
        qos,
        retain: publish.retain && flow.keeps_retain && to.terms.retain_available,
        topic,
        packet_id: if qos == Qos::AtMostOnce { 0 } else { publish.packet_id },
        properties,
        payload: publish.payload,
    };
    let before = to.output.len();
    if to.put(&Packet::Publish(passed), now).is_err() {
        return Ok(Forwarded::Dropped("it is longer than a packet can be"));
    }
    if to.output.len() - before > to.terms.packet_bytes_max {
        to.output.truncate(before);
        return Ok(Forwarded::Dropped(TOO_LONG));
    }
    Ok(match qos {
        qos if qos == publish.qos => Forwarded::Whole,
        Qos::AtMostOnce => Forwarded::AtMostOnce,
        _ => Forwarded::AtLeastOnce,
    })
}

/// Acknowledges a message that the other side does not acknowledge.
fn answer(publish: &Publish<'_>, flow: &mut Flow, from: &mut Link, now: Instant) -> Result<(), BridgeError> {
    let ack = Ack::new(publish.packet_id, Reason::Success);
    match publish.qos {
        Qos::AtMostOnce => {}
        Qos::AtLeastOnce => from.put(&Packet::PubAck(ack), now)?,
        Qos::ExactlyOnce => {
            from.put(&Packet::PubRec(ack), now)?;
            flow.absorbed.insert(publish.packet_id);
        }
    }
    Ok(())
}

async fn sleep_until(clock: &Clock, at: Option<Instant>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
