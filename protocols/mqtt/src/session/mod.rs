//! The state machine of one connection: packets in, bytes out, the broker beside. No sockets, no clocks of its own.
//!
//! A *turn* is what one wake-up of the connection brings: any number of packets ([`Session::packet`]), then
//! [`Session::end_turn`], which hands the burst of publishes and the state changes to the log as one entry, then
//! [`Session::release`] and [`Session::deliver`], which write what may be written. Nothing here waits.
//!
//! Invariants:
//! - An acknowledgement is written after the log committed what it promises [MQTT-4.3.2-4], [MQTT-4.3.3-8], in the
//!   order of the messages [MQTT-4.6.0-2].
//! - What a session holds is bounded: the window, the inbox it pulls from, the output it writes to.

mod alias;
mod connect;
mod deferred;
mod deliver;
mod inbound;
mod lazy;
mod live;
mod members;
mod outbound;
mod publish;
mod retained;
mod send;
mod state;
mod subscribe;
mod subscriptions;
mod sys;
mod wild;

use std::sync::Arc;

use inver_broker::{Delivery, LiveBatch, Mailbox, SessionTerms, now_ms};
use inver_storage::{Log, Lsn};

use crate::MqttConfig;
use crate::codec::{Disconnect, Packet, PropertiesBuf, Property, Reason, Version};
use crate::connected::Connected;
use crate::error::Stop;

use self::deferred::Deferred;
use self::deliver::From;
use self::inbound::Inbound;
use self::lazy::{LazyPublisher, Lent, Queue};
use self::members::Members;
use self::outbound::Outbound;
use self::retained::RetainedScan;
use self::subscriptions::Subscriptions;

pub(crate) use self::connect::{Accepted, connect};

/// What the mailbox says.
pub(crate) mod token {
    pub(crate) const INBOX: u64 = 0;
    pub(crate) const LIVE: u64 = 1;
    pub(crate) const TAKEN_OVER: u64 = 2;
    /// New values of `$SYS` topics are due.
    pub(crate) const SYS: u64 = 3;
    /// The server is going down.
    pub(crate) const GOING_DOWN: u64 = 4;
    /// Shared subscriptions have this and more: the session's number for each.
    pub(crate) const SHARED: u64 = 16;
}

/// What the broker agrees for all sessions of a plug.
pub(crate) fn terms(config: &MqttConfig) -> SessionTerms {
    SessionTerms {
        inbox_token: token::INBOX,
        live_token: token::LIVE,
        taken_over_token: token::TAKEN_OVER,
        live_messages_max: config.live_messages_max,
        live_bytes_max: config.live_bytes_max,
    }
}

/// See the module's text.
pub(crate) struct Session {
    version: Version,
    config: Connected,
    user: Option<Arc<str>>,
    mailbox: Arc<Mailbox>,
    core: inver_broker::Session,
    publisher: LazyPublisher,
    /// The longest packet the client takes [MQTT-3.1.2-24].
    client_packet_bytes_max: usize,
    /// Whether reason strings may be sent with acknowledgements [MQTT-3.1.2-29].
    problem_information: bool,
    keep_alive_s: u16,
    /// The session expiry of CONNECT; DISCONNECT may change it, unless it was 0 [MQTT-3.14.2-2].
    expiry_s: u32,

    inbound: Inbound,
    outbound: Outbound,
    aliases_in: alias::Incoming,
    aliases_out: alias::Outgoing,
    subscriptions: Subscriptions,
    members: Members,
    deferred: Deferred,

    live_ready: bool,
    sys_due: bool,
    /// PUBLISH packets of this turn, not yet counted.
    received: u32,
    sent: u32,
    /// What was pulled of the live queue and found no room.
    live_rest: Queue<LiveBatch>,
    inbox_ready: bool,
    /// Messages of the inbox below this offset may have been sent before; `None`: all, until it was empty once.
    sent_before: Option<u64>,
    /// The next offset of the inbox to be sent.
    inbox_next: u64,
    /// Messages whose packet identifier another one still has.
    held: Queue<(From, Delivery)>,
    scans: Queue<RetainedScan>,
    /// Messages of shared subscriptions that were moved to the inbox and not sent yet.
    moved: u32,

    now_ms: i64,
    scratch: Lent,
}

impl Session {
    /// The keep alive that holds, in seconds; 0 for none.
    pub(crate) fn keep_alive_s(&self) -> u16 {
        self.keep_alive_s
    }

    /// The settings of its plug.
    pub(crate) fn config(&self) -> &MqttConfig {
        &self.config
    }

    /// What wakes it.
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Where what is guaranteed is committed.
    pub(crate) fn log(&self) -> &Log {
        self.core.namespace().log()
    }

    /// The protocol version of the client.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// QoS 0 messages that were dropped because the client is slow.
    pub(crate) fn dropped(&self) -> u64 {
        self.core.dropped()
    }

    /// A turn begins.
    pub(crate) fn begin_turn(&mut self) {
        self.now_ms = now_ms();
    }

    /// Takes a packet. What can be answered at once is written to `out`.
    pub(crate) fn packet(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), Stop> {
        match packet {
            Packet::Publish(publish) => {
                self.received += 1;
                self.publish(publish)
            }
            Packet::PubAck(ack) => self.puback(ack.packet_id),
            Packet::PubRec(ack) => self.pubrec(ack),
            Packet::PubRel(ack) => self.pubrel(ack.packet_id),
            Packet::PubComp(ack) => self.pubcomp(ack.packet_id),
            Packet::Subscribe(subscribe) => self.subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe),
            Packet::PingReq => {
                // [MQTT-3.12.4-1]. Who has nothing else to say is idle.
                self.outbound.rest();
                if self.scans.is_empty() {
                    self.deferred.rest();
                }
                let _always_fits = Packet::PingResp.encode(self.version, out);
                Ok(())
            }
            Packet::Disconnect(disconnect) => Err(self.disconnect(disconnect)),
            Packet::Connect(_) => {
                Err(Stop::Tell(Reason::ProtocolError, "a second CONNECT [MQTT-3.1.0-2]".into()))
            }
            Packet::Auth(_) => Err(Stop::Tell(
                Reason::ProtocolError,
                "AUTH on a connection without an authentication method [MQTT-4.12.0-6]".into(),
            )),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => Err(
                Stop::Tell(Reason::ProtocolError, "a packet that only servers send (section 2.1.2)".into()),
            ),
        }
    }

    /// Hands the turn's publishes, acknowledgements and state to the log.
    pub(crate) fn end_turn(&mut self) -> Result<(), Stop> {
        self.flush()?;
        self.deferred.end_turn();
        Ok(())
    }

    /// Hands over what was gathered so far, as one entry where it must be.
    fn flush(&mut self) -> Result<(), Stop> {
        if let Some(scratch) = self.scratch.gathered()
            && !scratch.released_offsets.is_empty()
        {
            // The message's acknowledgement and its released identifier: both or neither.
            let lsn = self.core.ack_and_put(&scratch.released_offsets, &scratch.released);
            self.deferred.wait_for(lsn);
            scratch.released_offsets.clear();
            scratch.released.clear();
        }
        if let Some(publisher) = self.publisher.in_use() {
            let lsn = publisher.flush()?;
            self.deferred.wait_for(lsn);
        }
        self.flush_acks();
        Ok(())
    }

    fn flush_acks(&mut self) {
        if let Some(scratch) = self.scratch.gathered() {
            self.core.ack(&scratch.acked);
            scratch.acked.clear();
        }
        for member in self.members.iter_mut().filter(|member| !member.acked.is_empty()) {
            member.consumer.ack(&member.acked);
            member.acked.clear();
        }
    }

    /// The position that the oldest answer waits for.
    pub(crate) fn waits_for(&self) -> Option<Lsn> {
        self.deferred.waits_for()
    }

    /// Bytes of answers that wait.
    pub(crate) fn deferred_bytes(&self) -> usize {
        self.deferred.len()
    }

    /// Writes the answers that the log has committed.
    pub(crate) fn release(&mut self, committed: Lsn, out: &mut Vec<u8>) {
        let completed = self.deferred.release(committed, out);
        self.inbound.completed(completed);
    }

    fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Stop {
        for property in disconnect.properties {
            if let Property::SessionExpiryInterval(seconds) = property {
                if self.expiry_s == 0 && seconds != 0 {
                    return Stop::Tell(
                        Reason::ProtocolError,
                        "a session expiry in DISCONNECT after none in CONNECT (section 3.14.2.2.2)".into(),
                    );
                }
                self.core.set_expiry(connect::expiry(
                    seconds.min(self.config.session_expiry_s_max.unwrap_or(u32::MAX)),
                ));
            }
        }
        if disconnect.reason != Reason::DisconnectWithWill {
            // [MQTT-3.14.4-3]
            self.core.set_will(None);
        }
        Stop::Farewell
    }

    /// Ends the connection's part: what the log must still get of it. The session is let go when it is dropped.
    pub(crate) fn end(mut self) {
        self.config.sys.count_dropped(self.dropped());
        if !self.core.is_durable() {
            for (number, id) in self.outbound.settle_exactly_once() {
                self.acknowledged(outbound::Source::Shared { member: number, id });
            }
        }
        if let Err(error) = self.flush() {
            tracing::debug!(%error, "the last turn was not taken");
        }
        if self.core.is_durable() && self.expiry_s != 0 {
            self.core.put(state::SENT_KEY, state::sent_value(self.inbox_next));
        }
    }
}

/// Writes an MQTT 5 DISCONNECT; its reason string is left out if the client could not take it.
pub(crate) fn put_disconnect(reason: Reason, what: &str, bytes_max: usize, out: &mut Vec<u8>) {
    let mut properties = PropertiesBuf::new();
    let start = out.len();
    if properties.push(Property::ReasonString(what)).is_ok() {
        let packet = Packet::Disconnect(Disconnect { reason, properties: properties.as_ref() });
        if packet.encode(Version::V5, out).is_ok() && out.len() - start <= bytes_max {
            return;
        }
        out.truncate(start);
    }
    let packet = Packet::Disconnect(Disconnect { reason, properties: crate::codec::Properties::EMPTY });
    let _always_fits = packet.encode(Version::V5, out);
}

impl Session {
    /// Writes why the connection ends, if the client's version has words for it.
    pub(crate) fn put_stop(&self, stop: &Stop, out: &mut Vec<u8>) {
        if let Stop::Tell(reason, what) = stop
            && self.version == Version::V5
        {
            put_disconnect(*reason, what, self.client_packet_bytes_max, out);
        }
    }
}
