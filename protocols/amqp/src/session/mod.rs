//! The state machine of a connection and its channels, without a socket: bytes in, bytes out.
//!
//! A turn is [`Session::begin_turn`], [`Session::input`] with the bytes read, [`Session::finish_input`],
//! [`Session::deliver`]. The publishes of a turn become one entry of the log, acknowledgements are passed on consumer
//! by consumer, and all output goes to one buffer.
//!
//! Invariants:
//! - Frames of a channel take effect in order. A reply that waits for the log (to a declaration, a commit, a
//!   `basic.get` after a publish) halts the connection's input; confirms are sent meanwhile.
//! - A publish is confirmed when all log positions that it depends on are committed, and not before an earlier publish.
//! - A delivery is among its channel's unacked deliveries exactly as long as the client may acknowledge it.
//! - Input never causes a panic, and memory grows only within [`Limits`].

mod acking;
mod admission;
mod assembly;
mod attaching;
mod channel;
mod channels;
mod confirms;
mod consumer;
mod consuming;
mod ending;
mod events;
mod exchanges;
mod frames;
mod getting;
mod handshake;
mod limits;
mod publishing;
mod queues;
mod shared;
mod streams;
mod traced;
mod tracing;
mod transaction;
mod tx;
mod unacked;

use std::sync::Arc;

use inver_broker::{
    Broker, Completion, Credentials, Endpoints, Identity, LiveConnection, LoggedClient, Mailbox,
};
use inver_driver::{Count, PUBLISH_COST_MAX, Room, count, is_over, observe_request};
use inver_storage::{Log, Lsn};
use tokio::time::Instant;

pub use handshake::RABBITMQ_VERSION;
pub use limits::Limits;

use self::channel::Outcome;
use self::channels::Channels;
use self::confirms::Answer;
use self::consuming::Pulled;
use self::handshake::{Handshake, Mechanisms, Opening};
use self::shared::{ConsumerRef, Halt, Shared};
use crate::codec::frame::{self, Next};
use crate::codec::{FRAME_SIZE_MIN, Method, PROTOCOL_HEADER, write};
use crate::error::Refusal;

/// The reason in `connection.blocked` while the log is behind. The gate's are those of RabbitMQ.
const LOG_IS_BEHIND: &str = "low on disk throughput";

/// Pulls of consumers between two looks at the clock: most bring messages, but very many may bring none.
const PULLS_A_LOOK: u32 = 32;

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// `connection.open` is not received yet.
    Handshake,
    /// The connection is open.
    Running,
    /// `connection.close` was sent; everything but `connection.close-ok` is ignored.
    Closing,
    /// As `Closing`, after a framing error: no input is read.
    Lost,
    /// Nothing more is sent.
    Over,
}

/// How much of the input was processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes that were processed.
    pub(crate) done: usize,
    /// Whether the rest is less than a frame; otherwise it may contain frames that must wait.
    pub(crate) partial: bool,
}

/// The state machine of a connection.
pub(crate) struct Session {
    broker: Broker,
    limits: Arc<Limits>,
    mailbox: Arc<Mailbox>,
    endpoints: Endpoints,
    state: State,
    handshake: Handshake,
    credentials: Option<Credentials>,
    client: LoggedClient,
    authenticating: bool,
    closed_by_client: bool,
    identity: Option<Identity>,
    shared: Option<Box<Shared>>,
    channels: Channels,
    /// Channels with an ack held, for use within one turn.
    held: Vec<u16>,
    /// The request that is processed, or waits, and since when.
    request: Option<(&'static str, Instant)>,
    /// When the turn began.
    turn: Instant,
    /// The turn has taken its time: the rest of the input is for the next one.
    is_turn_over: bool,
}

impl Session {
    /// A connection that has received nothing yet.
    pub(crate) fn new(
        broker: Broker,
        limits: Arc<Limits>,
        mailbox: Arc<Mailbox>,
        client: LoggedClient,
        endpoints: Endpoints,
        certificate_user: Option<String>,
    ) -> Session {
        let mechanisms = Mechanisms { certificate_user, is_anonymous: broker.lets_anonymous_in(&endpoints) };
        Session {
            handshake: Handshake::new(&limits, mechanisms),
            endpoints,
            broker,
            limits,
            mailbox,
            state: State::Handshake,
            credentials: None,
            client,
            authenticating: false,
            closed_by_client: false,
            identity: None,
            shared: None,
            channels: Channels::default(),
            held: Vec::new(),
            request: None,
            turn: Instant::now(),
            is_turn_over: false,
        }
    }

    // ---- queries of the connection

    /// Whether `connection.open` was accepted.
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Running
    }

    /// Whether it only waits for `connection.close-ok`.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing | State::Lost)
    }

    /// Whether the client sent `connection.close`; it may then close the socket first.
    pub(crate) fn was_closed_by_client(&self) -> bool {
        self.closed_by_client
    }

    /// Whether nothing more will be sent.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The negotiated heartbeat interval in seconds; 0 for none, or before the negotiation.
    pub(crate) fn heartbeat_s(&self) -> u16 {
        if self.shared.is_some() { self.handshake.tuned.heartbeat_s } else { 0 }
    }

    /// Whether input is processed at present.
    pub(crate) fn takes_input(&self) -> bool {
        let free = |shared: &Shared| {
            shared.halt.is_none()
                && shared.unconfirmed < self.limits.unconfirmed_max
                && !shared.publisher.has_more_to_deliver()
        };
        !self.authenticating && self.shared.as_deref().is_none_or(free)
    }

    /// The first log position that a reply waits for.
    pub(crate) fn awaits(&self) -> Option<Lsn> {
        let shared = self.shared.as_deref()?;
        let halted = match &shared.halt {
            Some(Halt::Reply { lsn, .. } | Halt::Retry(lsn)) => Some(*lsn),
            _ => None,
        };
        [halted, shared.pending_confirms.awaits()].into_iter().flatten().min()
    }

    /// Takes the credentials that the authenticator must check, once.
    pub(crate) fn take_credentials(&mut self) -> Option<Credentials> {
        self.credentials.take()
    }

    /// The connection's two ends.
    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The client in the log.
    pub(crate) fn client(&mut self) -> &mut LoggedClient {
        &mut self.client
    }

    /// Its place among the live connections, once it is open.
    pub(crate) fn place(&self) -> Option<&LiveConnection> {
        self.shared.as_deref().map(|shared| &*shared.connection)
    }

    /// Bytes of bodies whose rest has not come, and of publishes that wait for their commit.
    pub(crate) fn held_bytes(&self) -> (usize, usize) {
        let held = |shared: &Shared| (shared.bodies.unfinished_bytes(), shared.transaction_bytes);
        self.shared.as_deref().map_or((0, 0), held)
    }

    /// The log of the broker.
    pub(crate) fn log(&self) -> &Log {
        self.broker.log()
    }

    // ---- a turn

    /// Begins a turn, and reads the time of messages published from now on.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        (self.turn, self.is_turn_over) = (now, false);
        if let Some(shared) = &mut self.shared {
            shared.now_ms = self.broker.clock().steady_ms();
            shared.is_traced = shared.namespace.is_traced();
            shared.publisher.begin_turn();
        }
    }

    /// Processes whole frames until one must wait, the output is full, or the turn has taken its time.
    pub(crate) fn input(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let mut done = 0;
        let all = Progress { done: input.len(), partial: true };
        if self.state == State::Handshake && self.handshake.phase() == handshake::Phase::Header {
            match handshake::opening(input) {
                Opening::NeedMore => return Progress { done, partial: true },
                Opening::Accepted => {
                    self.handshake.start(out);
                    done = PROTOCOL_HEADER.len();
                }
                Opening::Refused => {
                    out.extend_from_slice(&PROTOCOL_HEADER);
                    self.state = State::Over;
                    return all;
                }
            }
        }
        if let Some(shared) = &mut self.shared {
            shared.is_at_gate = false;
        }
        while self.takes_input() && !self.is_turn_over && out.len() < self.limits.output_bytes_max {
            match self.state {
                State::Over | State::Lost => return all,
                State::Handshake | State::Running | State::Closing => {}
            }
            let frame_max =
                if self.shared.is_some() { self.handshake.tuned.frame_max } else { FRAME_SIZE_MIN };
            match frame::next(input.get(done..).unwrap_or_default(), frame_max) {
                Ok(Next::NeedMore(_)) => return Progress { done, partial: true },
                Ok(Next::Frame(frame, used)) => match self.frame(&frame, out) {
                    Ok(Outcome::Retry) => break,
                    Ok(Outcome::Done | Outcome::Closed) => {
                        done += used;
                        if self.shared.as_deref().is_some_and(|s| s.publisher.cost() >= PUBLISH_COST_MAX) {
                            break;
                        }
                    }
                    Err(refusal) => {
                        done += used;
                        self.refuse(frame.channel, &refusal, out);
                    }
                },
                Err(error) => {
                    self.refuse(0, &error.into(), out);
                    if self.state != State::Over {
                        self.state = State::Lost;
                    }
                    return all;
                }
            }
        }
        Progress { done, partial: false }
    }

    /// Ends a turn's input: passes acknowledgements on and writes publishes to the log.
    pub(crate) fn finish_input(&mut self, out: &mut Vec<u8>) {
        if let Err(refusal) = self.flush_in_slices() {
            self.refuse(0, &refusal, out);
        }
        self.write_replies(out);
    }

    /// Delivers a slice of what was published to very many receivers. Whether there was anything to deliver.
    pub(crate) fn deliver_slice(&mut self) -> bool {
        self.shared.as_deref_mut().is_some_and(|shared| shared.publisher.deliver_slice())
    }

    /// Writes the replies and confirms whose log positions are committed.
    pub(crate) fn write_replies(&mut self, out: &mut Vec<u8>) {
        let Some(shared) = self.shared.as_deref_mut() else { return };
        if shared.publisher.has_more_to_deliver() {
            return;
        }
        let committed = shared.namespace.log().committed();
        while let Some(waiting) = shared.pending_confirms.pop(committed) {
            let Some(channel) = self.channels.find(waiting.channel) else { continue };
            if channel.incarnation != waiting.incarnation || channel.closing {
                continue;
            }
            let before = channel.confirms.outstanding();
            if channel.confirms.answer(waiting.run, channel.number, out) {
                self.held.push(channel.number);
            }
            let answered = before - channel.confirms.outstanding();
            if waiting.run.answer == Answer::Ack {
                count(Count::Confirmed, answered);
            }
            shared.unconfirmed =
                shared.unconfirmed.saturating_sub(usize::try_from(answered).unwrap_or(usize::MAX));
        }
        for number in self.held.drain(..) {
            if let Some(channel) = self.channels.find(number) {
                channel.confirms.write(number, out);
            }
        }
        match shared.halt.take() {
            Some(Halt::Reply { lsn, frames }) if lsn <= committed => {
                out.extend_from_slice(&frames);
                if let Some((request, since)) = self.request.take() {
                    observe_request(request, since.elapsed());
                }
            }
            Some(Halt::Retry(lsn)) if lsn <= committed => {}
            other => shared.halt = other,
        }
    }

    /// Wakes the consumers of these tokens.
    pub(crate) fn wake(&mut self, tokens: &[u64]) {
        let Some(shared) = self.shared.as_deref_mut() else { return };
        for token in tokens {
            if shared.halt == Some(Halt::ColdRead(*token)) {
                shared.halt = None;
            }
            let at = ConsumerRef::of(*token);
            if let Some(channel) = self.channels.find(at.channel) {
                channel.make_ready(at.slot, shared);
            }
        }
    }

    /// Writes deliveries until there are none, the output is full, or a quota allows no more. True if there may be more.
    pub(crate) fn deliver(&mut self, room: Room, out: &mut Vec<u8>) -> bool {
        let Some(shared) = self.shared.as_deref_mut() else { return false };
        let version = shared.permissions.version();
        if shared.consumers_checked != version {
            shared.consumers_checked = version;
            self.channels.iter_mut().for_each(|channel| channel.cancel_refused(shared, out));
        }
        if matches!(shared.halt, Some(Halt::Reply { .. })) {
            // Effects of the method are sent after its reply: a `basic.cancel` after `queue.delete-ok`.
            return false;
        }
        let start = out.len();
        let full = self.limits.output_bytes_high.min(start.saturating_add(room.bytes));
        shared.deliveries_left = room.messages;
        let mut pulls = 0;
        while out.len() < full && shared.deliveries_left > 0 {
            pulls += 1;
            if pulls % PULLS_A_LOOK == 0 && is_over(self.turn) {
                return true;
            }
            shared.delivery_bytes = if room.is_unlimited() { usize::MAX } else { full - out.len() };
            let Some(at) = shared.ready.pop_front() else { return false };
            let Some(channel) = self.channels.find(at.channel) else { continue };
            match channel.deliver(at.slot, shared, out) {
                Pulled::More => channel.make_ready(at.slot, shared),
                Pulled::Idle => {}
                Pulled::Unreadable => {
                    let source = channel.consumer(at.slot).map(|consumer| &*consumer.source);
                    let what = shared.client.in_vhost("queue", source.unwrap_or_default());
                    let refusal = Refusal::unreadable(what);
                    self.refuse(at.channel, &refusal, out);
                    return true;
                }
            }
        }
        !shared.ready.is_empty()
    }

    // ---- back-pressure

    /// Whether a publish waits for the gate.
    pub(crate) fn is_at_gate(&self) -> bool {
        self.shared.as_deref().is_some_and(|shared| shared.is_at_gate)
    }

    /// Whether `connection.blocked` should be sent if the log does not admit writes: the client publishes, has the
    /// capability, and was not sent one.
    pub(crate) fn should_send_blocked(&self) -> bool {
        self.state == State::Running
            && self.shared.as_deref().is_some_and(|shared| {
                shared.capabilities.connection_blocked && shared.has_published && !shared.blocked
            })
    }

    /// Sends `connection.blocked`, if it should be.
    pub(crate) fn send_blocked(&mut self, out: &mut Vec<u8>) {
        if self.should_send_blocked()
            && let Some(shared) = self.shared.as_deref_mut()
        {
            shared.blocked = true;
            let shortage = shared.namespace.log().gate().shortage().filter(|_| shared.is_at_gate);
            let reason = shortage.map_or_else(|| LOG_IS_BEHIND.to_owned(), |shortage| shortage.to_string());
            write::method(out, 0, &Method::ConnectionBlocked { reason: &reason });
        }
    }

    /// Sends `connection.unblocked` to a client that was sent `connection.blocked`.
    pub(crate) fn send_unblocked(&mut self, out: &mut Vec<u8>) {
        if let Some(shared) = self.shared.as_deref_mut()
            && std::mem::take(&mut shared.blocked)
            && self.state == State::Running
        {
            write::method(out, 0, &Method::ConnectionUnblocked {});
        }
    }

    /// The connection's bounds.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Passes acknowledgements to their subscriptions, and publishes to the log and to all receivers in memory.
    fn flush(&mut self) -> Result<(), Refusal> {
        self.flush_in_slices()?;
        while self.deliver_slice() {}
        Ok(())
    }

    /// As `flush`, but publishes to very many receivers in memory may be delivered only in part.
    fn flush_in_slices(&mut self) -> Result<(), Refusal> {
        let Some(shared) = self.shared.as_deref_mut() else { return Ok(()) };
        for at in shared.acknowledged.drain(..) {
            if let Some(consumer) =
                self.channels.find(at.channel).and_then(|channel| channel.consumer(at.slot))
            {
                consumer.send_acks().map_err(Refusal::internal)?;
            }
        }
        if shared.publisher.is_empty() && shared.published.is_empty() {
            return Ok(());
        }
        let done = match shared.publisher.flush_in_slices() {
            Ok(done) => done,
            Err(error) => {
                // What the log refused is never confirmed, although the end of the connection writes replies once more.
                for number in shared.published.drain(..) {
                    if let Some(channel) = self.channels.find(number) {
                        drop(channel.confirms.take_unflushed());
                    }
                }
                return Err(Refusal::internal(error));
            }
        };
        if done != Completion::Now {
            shared.last_write = done;
        }
        for number in shared.published.drain(..) {
            if let Some(channel) = self.channels.find(number) {
                let incarnation = channel.incarnation;
                for run in channel.confirms.take_unflushed() {
                    shared
                        .pending_confirms
                        .push(done, confirms::Waiting { channel: number, incarnation, run });
                }
            }
        }
        Ok(())
    }
}
