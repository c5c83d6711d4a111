//! The state machine of a connection: login, sending, subscriptions, acknowledgements.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use inver_broker::message::{HeaderView, Property};
use inver_broker::{
    AuthError, Broker, Completion, Consumer, ConsumerSpec, Credentials, Delivery, DeliveryId, HeaderWriter,
    Identity, ListenerInfo, Mailbox, Message, Namespace, Publisher, PublisherId, Queue, QueueSpec, Target,
};
use inver_driver::{Activity, Close, CommitQueue, End, Machine, Output, Progress, Shared, Timeouts};
use inver_storage::{Log, Lsn};
use tokio::time::Instant;

use crate::NAME;
use crate::frame::{Frame, parse, put_body, put_command, put_header};

/// Output above which a connection is not read and nothing is delivered to it.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Receipts that wait for the log, above which a connection is not read.
const RECEIPTS_MAX: usize = 1024;
/// Subscriptions of a connection.
const SUBSCRIPTIONS_MAX: usize = 256;
/// Unacknowledged messages of a subscription.
const UNACKED_MAX: usize = 1024;
/// Bytes of one pull.
const PULL_BYTES_MAX: usize = 64 * 1024;
/// Headers of SEND that are not the user's.
const SEND_HEADERS: [&str; 4] = ["destination", "content-length", "content-type", "receipt"];

/// Why a connection ends.
pub(crate) enum Ended {
    /// The client sent DISCONNECT.
    Disconnected,
    /// The client is told this with ERROR.
    Refused(String),
}

impl<E: std::error::Error> From<E> for Ended {
    fn from(error: E) -> Ended {
        Ended::Refused(error.to_string())
    }
}

fn refused(what: impl Into<String>) -> Ended {
    Ended::Refused(what.into())
}

/// Where a connection is in its life.
enum Phase {
    /// CONNECT must come by then.
    Login(Instant),
    /// Credentials are being checked.
    Checking(Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send>>),
    /// CONNECTED is due.
    Accepted,
    Open,
    /// DISCONNECT came: receipts are still sent.
    Leaving,
}

struct Subscription {
    id: String,
    destination: String,
    consumer: Consumer,
    ack: Ack,
    /// Numbers and messages, in the order of delivery.
    unacked: VecDeque<(u64, DeliveryId)>,
    /// There may be something to pull.
    is_ready: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ack {
    Auto,
    /// An ACK acknowledges all messages up to its own.
    Cumulative,
    Individual,
}

pub(crate) struct Session {
    broker: Broker,
    namespace: Namespace,
    address: IpAddr,
    timeouts: Timeouts,
    mailbox: Arc<Mailbox>,
    phase: Phase,
    publisher: Publisher,
    /// A SEND is next, and the disk or the memory is low.
    is_at_gate: bool,
    /// What this turn's receipts wait for beside its publishes.
    stored: Completion,
    receipts: Vec<String>,
    answers: CommitQueue<String>,
    /// By their number, which is the token that wakes them.
    subscriptions: BTreeMap<u64, Subscription>,
    next_number: u64,
}

impl Session {
    pub(crate) fn new(broker: Broker, address: IpAddr, timeouts: Timeouts) -> Session {
        let namespace = broker.default_namespace();
        Session {
            publisher: Publisher::new(namespace.clone(), PublisherId { origin: NAME, session: None }),
            broker,
            namespace,
            address,
            mailbox: Mailbox::new(),
            phase: Phase::Login(Instant::now() + timeouts.login),
            is_at_gate: false,
            timeouts,
            stored: Completion::Now,
            receipts: Vec::new(),
            answers: CommitQueue::default(),
            subscriptions: BTreeMap::new(),
            next_number: 0,
        }
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), Ended> {
        match (frame.command, &self.phase) {
            ("CONNECT" | "STOMP", Phase::Login(_)) => return self.connect(frame),
            ("SEND", Phase::Open) => self.send(frame)?,
            ("SUBSCRIBE", Phase::Open) => self.subscribe(frame)?,
            ("ACK", Phase::Open) => self.acknowledge(frame)?,
            ("DISCONNECT", Phase::Open) => self.phase = Phase::Leaving,
            _ => return Err(refused("unknown command, or not allowed here")),
        }
        self.receipts.extend(frame.header("receipt").map(str::to_owned));
        Ok(())
    }

    fn connect(&mut self, frame: &Frame<'_>) -> Result<(), Ended> {
        if !required(frame, "accept-version")?.split(',').any(|version| version == "1.2") {
            return Err(refused("only version 1.2 is supported"));
        }
        let credentials = match (frame.header("login"), frame.header("passcode")) {
            (None | Some(""), _) => Credentials::Anonymous,
            (Some(user), passcode) => Credentials::Password {
                user: user.to_owned(),
                password: passcode.unwrap_or_default().as_bytes().to_vec(),
            },
        };
        let (broker, address) = (self.broker.clone(), self.address);
        self.phase = Phase::Checking(Box::pin(async move {
            broker.authenticate(&ListenerInfo::default(), address, &credentials).await
        }));
        Ok(())
    }

    /// The queue of a destination, which is declared if it is missing.
    fn queue(&mut self, destination: &str) -> Result<Arc<Queue>, Ended> {
        let name = destination.strip_prefix("/queue/").unwrap_or(destination);
        if let Some(queue) = self.namespace.queue(name) {
            return Ok(queue);
        }
        let declared =
            self.namespace.declare_queue(name, QueueSpec { durable: true, ..QueueSpec::default() })?;
        self.stored = self.stored.and(declared.completion);
        Ok(declared.it)
    }

    fn send(&mut self, frame: &Frame<'_>) -> Result<(), Ended> {
        let queue = self.queue(required(frame, "destination")?)?;
        let mut headers = HeaderWriter::default();
        headers.begin(NAME, None);
        if let Some(content_type) = frame.header("content-type") {
            headers.put(Property::ContentType(content_type.as_bytes()));
        }
        for (name, value) in frame.headers.iter().filter(|(name, _)| !SEND_HEADERS.contains(&&**name)) {
            headers.user(name.as_bytes(), Some(value.as_bytes()));
        }
        let (timestamp_ms, headers, value) =
            (self.namespace.clock().steady_ms(), headers.headers(), Some(frame.body));
        let message = Message { timestamp_ms, key: None, value, headers, guaranteed: true, lookup: None };
        let target = Target::Exchange { name: "", routing_key: queue.name().as_bytes(), more_keys: &[] };
        self.publisher.publish(target, &message)?;
        Ok(())
    }

    fn subscribe(&mut self, frame: &Frame<'_>) -> Result<(), Ended> {
        let (id, destination) = (required(frame, "id")?, required(frame, "destination")?);
        if self.subscriptions.len() == SUBSCRIPTIONS_MAX {
            return Err(refused(format!("limit reached: at most {SUBSCRIPTIONS_MAX} subscriptions")));
        }
        let ack = match frame.header("ack").unwrap_or("auto") {
            "auto" => Ack::Auto,
            "client" => Ack::Cumulative,
            "client-individual" => Ack::Individual,
            _ => return Err(refused("invalid header ack")),
        };
        let number = self.next_number;
        self.next_number += 1;
        let mut spec = ConsumerSpec::new(self.mailbox.clone(), number);
        spec.auto_ack = ack == Ack::Auto;
        let consumer = self.queue(destination)?.subscription().attach(spec)?;
        let (id, destination, unacked) = (id.to_owned(), destination.to_owned(), VecDeque::new());
        let subscription = Subscription { id, destination, consumer, ack, unacked, is_ready: true };
        self.subscriptions.insert(number, subscription);
        Ok(())
    }

    /// ACK of the message whose `ack` header is given as `id`: the subscription's number and the message's.
    fn acknowledge(&mut self, frame: &Frame<'_>) -> Result<(), Ended> {
        let mut numbers = required(frame, "id")?.split('-').map_while(|number| number.parse::<u64>().ok());
        let subscription = numbers.next().and_then(|number| self.subscriptions.get_mut(&number));
        let (Some(subscription), Some(message)) = (subscription, numbers.next()) else { return Ok(()) };
        let Ok(at) = subscription.unacked.binary_search_by_key(&message, |(number, _)| *number) else {
            return Err(refused("invalid header id"));
        };
        let first = if subscription.ack == Ack::Cumulative { 0 } else { at };
        let ids: Vec<DeliveryId> = subscription.unacked.drain(first..=at).map(|(_, id)| id).collect();
        subscription.is_ready = true;
        self.stored = self.stored.and(subscription.consumer.ack(&ids)?);
        Ok(())
    }

    /// Writes messages until the output is full. True if there may be more.
    fn deliver(&mut self, out: &mut Output) -> Result<bool, Ended> {
        let mut pulled = Vec::new();
        for (number, subscription) in &mut self.subscriptions {
            while subscription.is_ready {
                if out.pending_bytes() >= OUTPUT_BYTES_MAX {
                    return Ok(true);
                }
                let room = UNACKED_MAX - subscription.unacked.len();
                let pull = subscription.consumer.pull(room, PULL_BYTES_MAX, &mut pulled);
                subscription.is_ready = pull.more && room > 0;
                // STOMP ends no subscription but by the client: the connection ends, and what the other subscriptions have not
                // acknowledged is delivered again.
                if pull.unreadable {
                    return Err(refused(format!("{} cannot be read", subscription.destination)));
                }
                for delivery in pulled.drain(..) {
                    let message = self.next_number;
                    self.next_number += 1;
                    put_message(out.flat(), &format!("{number}-{message}"), subscription, &delivery);
                    if subscription.ack != Ack::Auto {
                        subscription.unacked.push_back((message, delivery.id));
                    }
                }
            }
        }
        Ok(false)
    }
}

fn required<'a>(frame: &'a Frame<'_>, name: &'static str) -> Result<&'a str, Ended> {
    frame.header(name).ok_or_else(|| refused(format!("header {name} is missing")))
}

fn put_message(out: &mut Vec<u8>, id: &str, subscription: &Subscription, delivery: &Delivery) {
    put_command(out, "MESSAGE");
    put_header(out, "subscription", &subscription.id);
    put_header(out, "destination", &subscription.destination);
    put_header(out, "message-id", id);
    if subscription.ack != Ack::Auto {
        put_header(out, "ack", id);
    }
    let headers = HeaderView::of(&delivery.record);
    for property in headers.typed_properties() {
        if let Property::ContentType(content_type) = property {
            put_header(out, "content-type", &String::from_utf8_lossy(content_type));
        }
    }
    let mut put_user = |name: &[u8], value: Option<&[u8]>| {
        let value = String::from_utf8_lossy(value.unwrap_or_default());
        put_header(out, &String::from_utf8_lossy(name), &value);
    };
    if headers.origin() == Some(NAME.as_bytes()) {
        headers.written().for_each(|(name, value)| put_user(name, value));
    } else {
        headers.shown().for_each(|(name, value)| put_user(&name, value));
    }
    put_body(out, delivery.record.value.as_deref().unwrap_or_default());
}

impl Machine for Session {
    type Input = Shared;
    type Error = Ended;

    fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    fn log(&self) -> &Log {
        self.broker.log()
    }

    fn wake(&mut self, tokens: &[u64], _out: &mut Output) -> Result<(), Ended> {
        let woken = self.subscriptions.iter_mut().filter(|(number, _)| tokens.contains(number));
        woken.for_each(|(_, subscription)| subscription.is_ready = true);
        Ok(())
    }

    fn is_at_gate(&self) -> bool {
        self.is_at_gate
    }

    fn takes_input(&self, pending_bytes: usize) -> bool {
        matches!(self.phase, Phase::Login(_) | Phase::Open)
            && pending_bytes < OUTPUT_BYTES_MAX
            && self.answers.len() < RECEIPTS_MAX
    }

    fn input(&mut self, input: &[u8], _out: &mut Output) -> Result<Progress, Ended> {
        let mut used = 0;
        loop {
            let (length, frame) = parse(input.get(used..).unwrap_or_default())?;
            let Some(frame) = frame else { return Ok(Progress::all(used + length)) };
            self.is_at_gate = frame.command == "SEND" && self.log().gate().shortage().is_some();
            if self.is_at_gate {
                return Ok(Progress::blocked(used));
            }
            used += length;
            self.frame(&frame)?;
            if !matches!(self.phase, Phase::Open) {
                // What follows CONNECT waits for the login; nothing follows DISCONNECT.
                return Ok(Progress::blocked(used));
            }
        }
    }

    fn end_turn(&mut self, out: &mut Output) -> Result<bool, Ended> {
        if matches!(self.phase, Phase::Accepted) {
            self.phase = Phase::Open;
            out.flat().extend_from_slice(b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0");
        }
        let done = self.stored.and(self.publisher.flush()?);
        self.stored = Completion::Now;
        self.receipts.drain(..).for_each(|receipt| self.answers.push(done, receipt));
        while let Some(receipt) = self.answers.pop(self.log().committed()) {
            put_command(out.flat(), "RECEIPT");
            put_header(out.flat(), "receipt-id", &receipt);
            put_body(out.flat(), b"");
        }
        if matches!(self.phase, Phase::Leaving) && self.answers.is_empty() {
            return Err(Ended::Disconnected);
        }
        self.deliver(out)
    }

    fn awaits(&self) -> Option<Lsn> {
        self.answers.awaits()
    }

    fn deadline(&self, _activity: &Activity) -> Option<Instant> {
        if let Phase::Login(by) = &self.phase { Some(*by) } else { None }
    }

    fn expired(&mut self, _activity: &Activity, _now: Instant, _out: &mut Output) -> Result<(), Ended> {
        Err(refused("no CONNECT in time"))
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let Phase::Checking(check) = &mut self.phase else { return Poll::Pending };
        ready!(check.as_mut().poll(cx))?;
        self.phase = Phase::Accepted;
        Poll::Ready(Ok(()))
    }

    fn shutdown(&mut self, _now: Instant, _out: &mut Output) -> Result<(), Ended> {
        Err(refused("server is shutting down"))
    }

    fn end(&mut self, end: &End<Ended>, out: &mut Output) -> Close {
        self.subscriptions.clear();
        match end {
            End::Protocol(Ended::Disconnected) | End::Closed => {}
            End::Protocol(Ended::Refused(what)) => {
                put_command(out.flat(), "ERROR");
                put_header(out.flat(), "message", what);
                put_body(out.flat(), b"");
            }
            End::Io(_) | End::NoMemory(_) | End::Stalled => return Close::Abort,
        }
        Close::Linger
    }
}
