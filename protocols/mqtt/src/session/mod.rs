//! State machine of one connection: packets in, bytes out, the broker beside it. No sockets.
//!
//! A *turn* is what one wake-up of the connection brings: any number of packets ([`Session::packet`]), then
//! [`Session::end_turn`], which submits the turn's publishes and state changes to the log as one entry, then
//! [`Session::release`] and [`Session::deliver`], which write what may be written. No call waits.
//!
//! Invariants:
//! - An acknowledgement is written after the log committed what it promises [MQTT-4.3.2-4], [MQTT-4.3.3-8], in the
//!   order of the messages [MQTT-4.6.0-2].
//! - What a session holds in memory is bounded: the inflight window, the messages pulled ahead of it, the output.

mod acks;
mod alias;
pub(crate) mod connect;
mod deferred;
mod deliver;
mod disconnect;
mod filter_table;
mod filters;
mod inflight;
mod lazy;
mod live;
mod live_encoding;
mod ongoing;
mod publish;
mod reauthenticate;
mod reauthentication;
mod receive;
mod retained;
mod scratch;
mod send;
mod shared;
mod source;
mod stored;
mod subscribe;
mod subscriptions;
mod sys;
mod terms;
mod traced;
mod unsent;
mod wildcards;

use std::sync::Arc;

use inver_broker::{ConnectionHandle, Delivery, LiveConnection, Mailbox, Namespace};
use inver_driver::{CountedConsumer, CountedPublisher, PUBLISH_COST_MAX};
use inver_storage::{Log, Lsn};

use crate::codec::{DecodeError, Packet, Version};
use crate::config::{ClientLimits, MqttConfig};
use crate::error::Stop;
use crate::server::{ConnectedClient, Server};
use crate::token;

use self::deferred::Deferred;
use self::inflight::InflightWindow;
use self::lazy::{LazyPublisher, LazyQueue};
use self::ongoing::{FILTERS_A_TURN, Ongoing};
use self::reauthentication::Reauthentication;
use self::receive::ReceiveWindow;
use self::scratch::ScratchLease;
use self::shared::SharedSubscriptions;
use self::source::{DeliverySource, RetainedScan};
use self::subscriptions::Subscriptions;
use self::unsent::RestOfBatch;

/// The connection's part of an MQTT session.
pub(crate) struct Session {
    version: Version,
    /// Another server's bridge: all subscriptions are No Local and Retain As Published.
    is_bridge: bool,
    server: ConnectedClient,
    mailbox: Arc<Mailbox>,
    core: inver_broker::Session,
    /// Registers the connection for as long as it is there.
    connection: ConnectionHandle,
    publisher: LazyPublisher,
    /// Of a client that authenticated with AUTH packets.
    reauthentication: Option<Box<Reauthentication>>,
    /// Maximum Packet Size of the client [MQTT-3.1.2-24].
    client_packet_bytes_max: usize,
    /// Request Problem Information: whether acknowledgements may carry a Reason String [MQTT-3.1.2-29].
    problem_information: bool,
    keep_alive_s: u16,
    limits: ClientLimits,
    /// Session Expiry Interval of CONNECT. DISCONNECT may change it unless it is 0 (section 3.14.2.2.2).
    expiry_s: u32,

    receive: ReceiveWindow,
    inflight: InflightWindow,
    aliases_in: alias::Incoming,
    aliases_out: alias::Outgoing,
    subscriptions: Subscriptions,
    shared: SharedSubscriptions,
    deferred: Deferred,

    /// A PUBLISH is the next of the input, and the gate is shut.
    is_at_gate: bool,
    /// The QoS 0 queue may have messages.
    live_ready: bool,
    /// New `$SYS` values are due.
    sys_due: bool,
    /// PUBLISH packets received and sent in this turn, not yet counted.
    received: u32,
    sent: u32,
    /// PUBLISH packets that may be sent in this turn.
    sent_max: u32,
    /// Batches pulled from the QoS 0 queue that found no room in the output.
    live_rest: LazyQueue<RestOfBatch>,
    /// The inbox may have messages.
    inbox_ready: bool,
    /// Inbox messages below this offset may have been sent before and get DUP; [`u64::MAX`]: all, until the inbox was empty.
    sent_before: u64,
    /// Offset of the next inbox message to send.
    inbox_next: u64,
    /// Messages whose packet identifier is in use, and those behind them.
    blocked: LazyQueue<(DeliverySource, Delivery)>,
    scans: LazyQueue<RetainedScan>,
    /// QoS 2 messages moved from shared subscriptions to the inbox and not sent yet.
    moved: u32,
    counted: Counted,

    /// A SUBSCRIBE or UNSUBSCRIBE of many filters, which goes on before other packets are taken.
    ongoing: Option<Box<Ongoing>>,

    /// Filters that may still be added and removed in this turn.
    filters_left: u8,
    now_ms: i64,
    scratch: ScratchLease,
}

/// What the client is counted as.
#[derive(Default)]
struct Counted {
    publisher: Option<CountedPublisher>,
    consumer: Option<CountedConsumer>,
}

impl Session {
    /// The keep alive in force, in seconds; 0: none.
    pub(crate) fn keep_alive_s(&self) -> u16 {
        self.keep_alive_s
    }

    /// The client identifier.
    pub(crate) fn client_id(&self) -> &str {
        self.core.client_id()
    }

    /// The authenticated user, if any.
    pub(crate) fn user(&self) -> Option<&str> {
        self.core.permissions().user()
    }

    /// The namespace that it is in.
    pub(crate) fn namespace(&self) -> &Namespace {
        self.core.namespace()
    }

    /// What all connections share.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// The Session Expiry Interval in force.
    pub(crate) fn expiry_s(&self) -> u32 {
        self.expiry_s
    }

    /// Whether this is the broker's own connection, as that of a bridge: topics are not rewritten, and as many messages may
    /// be open as there are packet identifiers, since another server's Receive Maximum holds.
    fn is_internal(&self) -> bool {
        self.connection.listener().is_internal
    }

    /// The protocol's settings.
    pub(crate) fn config(&self) -> &MqttConfig {
        &self.server.config
    }

    /// The mailbox that wakes this connection.
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Its place among the live connections.
    pub(crate) fn place(&self) -> &LiveConnection {
        &self.connection
    }

    /// The log that this session's messages and state are committed to.
    pub(crate) fn log(&self) -> &Log {
        self.core.namespace().log()
    }

    /// The client's protocol version.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// QoS 0 messages dropped because the client is slow.
    pub(crate) fn dropped(&self) -> u64 {
        self.core.dropped()
    }

    /// Begins a turn: takes the time that holds for all of it.
    pub(crate) fn begin_turn(&mut self) {
        self.filters_left = FILTERS_A_TURN;
        self.publisher.begin_turn();
        self.now_ms = self.core.namespace().clock().steady_ms();
    }

    /// Notes what a token of the mailbox announces.
    pub(crate) fn wake(&mut self, token: u64) -> Result<(), Stop> {
        match token {
            token::LIVE => self.live_ready = true,
            token::INBOX => self.inbox_ready = true,
            // [MQTT-3.1.4-3]
            token::TAKEN_OVER => return Err(Stop::TakenOver),
            token::SYS => self.sys_due = true,
            number => {
                if let Some(shared) = self.shared.get_mut(number) {
                    shared.ready = true;
                }
            }
        }
        Ok(())
    }

    /// Processes a packet. An answer that waits for nothing is written to `out`.
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
                // [MQTT-3.12.4-1]. A client that pings is idle: release memory that only traffic needs.
                self.inflight.shrink();
                if self.scans.is_empty() {
                    self.deferred.shrink();
                }
                let _always_fits = Packet::PingResp.encode(self.version, out);
                Ok(())
            }
            Packet::Disconnect(disconnect) => Err(self.disconnect(disconnect)),
            Packet::Connect(_) => Err(DecodeError::protocol("a second CONNECT [MQTT-3.1.0-2]").into()),
            Packet::Auth(auth) => self.reauthenticate(auth, out),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(DecodeError::protocol("a packet that only servers send (section 2.1.2)").into())
            }
        }
    }

    /// Whether the client's next packet is for another turn, after many filters, or publishes that cost much.
    pub(crate) fn is_turn_over(&mut self) -> bool {
        self.filters_left == 0 || self.publisher.cost() >= PUBLISH_COST_MAX
    }

    /// Submits the turn's publishes, acknowledgements and state changes to the log. What goes to very many receivers in
    /// memory may be delivered only in part.
    pub(crate) fn end_turn(&mut self) -> Result<(), Stop> {
        self.flush_in_slices()?;
        self.deferred.end_turn();
        Ok(())
    }

    /// Whether what was published is still on its way to its receivers.
    pub(crate) fn has_more_to_deliver(&self) -> bool {
        self.publisher.has_more_to_deliver()
    }

    /// Delivers a slice of it. Whether there was anything to deliver.
    pub(crate) fn deliver_slice(&mut self) -> bool {
        self.publisher.deliver_slice()
    }

    /// Submits what the turn gathered so far; changes that belong together are in one entry.
    fn flush(&mut self) -> Result<(), Stop> {
        self.flush_in_slices()?;
        while self.deliver_slice() {}
        Ok(())
    }

    /// As `flush`, but publishes to very many receivers in memory may be delivered only in part.
    fn flush_in_slices(&mut self) -> Result<(), Stop> {
        let flushed = self.submit();
        if flushed.is_err() {
            // What they answer is not in the log, and the end of the connection releases what waits for nothing.
            self.deferred.drop_turn();
        }
        flushed
    }

    fn submit(&mut self) -> Result<(), Stop> {
        if let Some(scratch) = self.scratch.gathered()
            && !scratch.released_offsets.is_empty()
        {
            // The message's acknowledgement and its released packet identifier are stored both or neither.
            let completion = self.core.ack_and_put(&scratch.released_offsets, &scratch.released)?;
            self.deferred.wait_for(completion);
            scratch.released_offsets.clear();
            scratch.released.clear();
        }
        if let Some(publisher) = self.publisher.in_use() {
            let completion = publisher.flush_in_slices()?;
            self.deferred.wait_for(completion);
        }
        self.flush_acks()
    }

    /// Writes acknowledgements. No packet answers them: one that a crash loses leads to a redelivery.
    fn flush_acks(&mut self) -> Result<(), Stop> {
        if let Some(scratch) = self.scratch.gathered() {
            let _ = self.core.ack(&scratch.acked)?;
            scratch.acked.clear();
        }
        for shared in self.shared.iter_mut().filter(|shared| !shared.acked.is_empty()) {
            let _ = shared.consumer.ack(&shared.acked)?;
            shared.acked.clear();
        }
        Ok(())
    }

    /// The log position that the oldest deferred answer waits for.
    pub(crate) fn waits_for(&self) -> Option<Lsn> {
        self.deferred.waits_for()
    }

    /// Bytes of deferred answers.
    pub(crate) fn deferred_bytes(&self) -> usize {
        self.deferred.len()
    }

    /// Writes the answers whose log position is committed, once all receivers in memory have what they answer.
    pub(crate) fn release(&mut self, committed: Lsn, out: &mut Vec<u8>) {
        if self.has_more_to_deliver() {
            return;
        }
        let completed = self.deferred.release(committed, out);
        self.receive.complete(completed);
    }
}
