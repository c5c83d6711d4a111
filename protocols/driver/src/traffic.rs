//! What a protocol's connections receive and send, as metrics.
//!
//! Messages are counted in plain numbers of the thread; the driver adds them to the protocol's counters once after its
//! turns. So a message costs no atomic operation, and a connection no memory.

pub(crate) mod turn_time;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, SharedString, Unit, counter, describe_counter, describe_gauge,
    describe_histogram, gauge, histogram,
};
use parking_lot::Mutex;

use self::turn_time::TurnTimes;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Count {
    /// Bytes read from sockets, without TLS.
    BytesReceived,
    /// Bytes written to sockets, without TLS.
    BytesSent,
    /// Messages that clients published.
    Received,
    /// Of those, messages whose publisher waits for a confirm.
    ToConfirm,
    /// Confirms sent.
    Confirmed,
    /// Published messages with at least one receiver.
    Routed,
    /// Published messages without a receiver, dropped.
    Unroutable,
    /// Published messages without a receiver, returned to their publisher.
    Returned,
    /// Messages sent to consumers that do not acknowledge them.
    SentAuto,
    /// Messages sent to consumers that acknowledge them.
    SentManual,
    /// Messages sent in answer to a request for one, not to be acknowledged.
    GotAuto,
    /// Messages sent in answer to a request for one, to be acknowledged.
    GotManual,
    /// Requests for a message that found none.
    GotNone,
    /// Of the messages sent, those sent before.
    Redelivered,
    /// Messages that consumers acknowledged.
    Acknowledged,
    /// Channels opened.
    ChannelsOpened,
    /// Channels closed.
    ChannelsClosed,
    /// Times that a quota kept a client from being read.
    ThrottledIn,
    /// Times that a quota held messages to a client back.
    ThrottledOut,
}

/// Number of kinds of [`Count`].
const COUNTS: usize = Count::ThrottledOut as usize + 1;

/// What is there at present.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Present {
    /// Channels or connections that have published.
    Publishers,
    /// Consumers and subscriptions of connected clients.
    Consumers,
    /// Connections that a quota holds back.
    Throttled,
}

/// Number of kinds of [`Present`].
const PRESENTS: usize = Present::Throttled as usize + 1;

/// Upper bounds of the buckets of message sizes, bytes. The histogram `inver_protocol_message_bytes` has the same.
pub const MESSAGE_SIZES: [u64; 8] =
    [100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 100_000_000];

/// Requests whose times a turn keeps.
const REQUESTS_MAX: usize = 64;

/// Sizes of the messages in one bucket.
#[derive(Clone, Copy, Default)]
struct Sizes {
    messages: u64,
    bytes: u64,
}

/// What the turns of a thread have counted and not added yet.
struct Tally {
    is_used: Cell<bool>,
    counts: [Cell<u64>; COUNTS],
    present: [Cell<i64>; PRESENTS],
    sizes: [Cell<Sizes>; MESSAGE_SIZES.len() + 1],
    /// The last confirm whose time was measured.
    confirm: Cell<Option<Duration>>,
    /// Requests that were answered.
    requests: RefCell<Vec<(&'static str, Duration)>>,
    /// The last request that was taken, and how many were: what a long turn did.
    taken: Cell<(&'static str, u32)>,
}

impl Tally {
    /// Messages received, which are counted by their size.
    fn received(&self) -> u64 {
        self.sizes.iter().map(|cell| cell.get().messages).sum()
    }
}

thread_local! {
    static TALLY: Tally = const {
        Tally {
            is_used: Cell::new(false),
            counts: [const { Cell::new(0) }; COUNTS],
            present: [const { Cell::new(0) }; PRESENTS],
            sizes: [const { Cell::new(Sizes { messages: 0, bytes: 0 }) }; MESSAGE_SIZES.len() + 1],
            confirm: Cell::new(None),
            requests: const { RefCell::new(Vec::new()) },
            taken: Cell::new(("", 0)),
        }
    };
}

/// Counts `number` things of the connection whose turn it is.
#[inline]
pub fn count(what: Count, number: u64) {
    TALLY.with(|tally| {
        if let Some(cell) = tally.counts.get(what as usize) {
            cell.set(cell.get() + number);
            tally.is_used.set(true);
        }
    });
}

/// Counts a published message, as [`Count::Received`] and by its size.
#[inline]
pub fn count_received(bytes: usize) {
    let bytes = bytes as u64;
    // Most messages are small.
    let is_smallest = bytes <= MESSAGE_SIZES[0];
    let at = if is_smallest { 0 } else { MESSAGE_SIZES.partition_point(|bound| *bound < bytes) };
    TALLY.with(|tally| {
        if let Some(cell) = tally.sizes.get(at) {
            let Sizes { messages, bytes: sum } = cell.get();
            cell.set(Sizes { messages: messages + 1, bytes: sum + bytes });
            tally.is_used.set(true);
        }
    });
}

/// Notes how long an answer waited for the log.
pub(crate) fn observe_confirm(time: Duration) {
    TALLY.with(|tally| {
        tally.confirm.set(Some(time));
        tally.is_used.set(true);
    });
}

/// Notes how long a request waited for its answer: one that is not a publish or an acknowledgement. A thread keeps a
/// bounded number of them in one turn.
pub fn observe_request(request: &'static str, time: Duration) {
    TALLY.with(|tally| {
        let mut requests = tally.requests.borrow_mut();
        if requests.len() < REQUESTS_MAX {
            requests.push((request, time));
            tally.is_used.set(true);
        }
    });
}

/// Notes a request that is taken now: one that is not a publish or an acknowledgement. A line about a long turn names it.
#[inline]
pub fn note_request(request: &'static str) {
    TALLY.with(|tally| {
        let (_, before) = tally.taken.get();
        tally.taken.set((request, before + 1));
    });
}

/// What the turns did that the thread has not added yet.
pub(crate) fn describe_work() -> String {
    let (received, sent) = counted_messages();
    TALLY.with(|tally| {
        let of = |what: Count| tally.counts.get(what as usize).map_or(0, Cell::get);
        let (bytes, acknowledged) = (of(Count::BytesReceived), of(Count::Acknowledged));
        let (request, requests) = tally.taken.get();
        let mut work = match requests {
            0 => String::new(),
            1 => format!("{request}, "),
            more => format!("{more} requests, the last {request}, "),
        };
        // Writing to a string does not fail.
        let _ = write!(
            work,
            "{bytes} bytes read, {received} messages received, {sent} sent, {acknowledged} acknowledged"
        );
        work
    })
}

fn change(what: Present, by: i64) {
    TALLY.with(|tally| {
        if let Some(cell) = tally.present.get(what as usize) {
            cell.set(cell.get() + by);
            tally.is_used.set(true);
        }
    });
}

/// A publisher that is counted until it is dropped.
#[derive(Debug)]
pub struct CountedPublisher(());

impl Default for CountedPublisher {
    fn default() -> Self {
        change(Present::Publishers, 1);
        CountedPublisher(())
    }
}

impl Drop for CountedPublisher {
    fn drop(&mut self) {
        change(Present::Publishers, -1);
    }
}

/// A consumer that is counted until it is dropped.
#[derive(Debug)]
pub struct CountedConsumer(());

impl Default for CountedConsumer {
    fn default() -> Self {
        change(Present::Consumers, 1);
        CountedConsumer(())
    }
}

impl Drop for CountedConsumer {
    fn drop(&mut self) {
        change(Present::Consumers, -1);
    }
}

/// A connection that is counted as held back by a quota until it is dropped.
#[derive(Debug)]
pub(crate) struct CountedThrottled(());

impl Default for CountedThrottled {
    fn default() -> Self {
        change(Present::Throttled, 1);
        CountedThrottled(())
    }
}

impl Drop for CountedThrottled {
    fn drop(&mut self) {
        change(Present::Throttled, -1);
    }
}

/// Messages that the thread has counted since they were added last: received, and sent.
pub(crate) fn counted_messages() -> (u64, u64) {
    let sent = [Count::SentAuto, Count::SentManual, Count::GotAuto, Count::GotManual];
    TALLY.with(|tally| {
        let of = |what: Count| tally.counts.get(what as usize).map_or(0, Cell::get);
        (of(Count::Received) + tally.received(), sent.into_iter().map(of).sum())
    })
}

/// Counts an error that a client is told of, by its protocol's code. Errors are rare: the counter is looked up.
pub fn count_error(protocol: &'static str, code: impl Into<SharedString>) {
    counter!(ERRORS, "protocol" => protocol, "code" => code.into()).increment(1);
}

/// Connections that were ended because they held too much memory.
const EVICTED: &str = "inver_connections_evicted_total";

/// Errors that clients were told of, by the protocol's code.
const ERRORS: &str = "inver_protocol_errors_total";

/// The metrics of one protocol.
pub(crate) struct Traffic {
    counts: [Counter; COUNTS],
    present: [Gauge; PRESENTS],
    sizes: Histogram,
    confirms: Histogram,
    turns: TurnTimes,
    protocol: &'static str,
    /// By the name of the request, which are as many as the protocol has.
    requests: Mutex<HashMap<&'static str, Histogram>>,
}

/// A metric's name, labels beside `protocol`, unit and help.
type Name = (&'static str, &'static [(&'static str, &'static str)], Unit, &'static str);

/// The names of the counters, in the order of [`Count`], with labels beside `protocol`, unit and help.
#[rustfmt::skip]
const NAMES: [Name; COUNTS] = [
    ("inver_protocol_received_bytes_total", &[], Unit::Bytes, "Bytes read from clients, without TLS."),
    ("inver_protocol_sent_bytes_total", &[], Unit::Bytes, "Bytes written to clients, without TLS."),
    ("inver_protocol_messages_received_total", &[], Unit::Count, "Messages that clients published."),
    ("inver_protocol_messages_to_confirm_total", &[], Unit::Count, "Published messages whose publisher waits for a confirm."),
    ("inver_protocol_messages_confirmed_total", &[], Unit::Count, "Published messages that were confirmed."),
    ("inver_protocol_messages_routed_total", &[], Unit::Count, "Published messages with at least one receiver."),
    ("inver_protocol_messages_unroutable_total", &[("action", "dropped")], Unit::Count, "Published messages without a receiver, by what became of them."),
    ("inver_protocol_messages_unroutable_total", &[("action", "returned")], Unit::Count, "Published messages without a receiver, by what became of them."),
    ("inver_protocol_messages_sent_total", &[("by", "consume"), ("ack", "auto")], Unit::Count, "Messages sent to clients."),
    ("inver_protocol_messages_sent_total", &[("by", "consume"), ("ack", "manual")], Unit::Count, "Messages sent to clients."),
    ("inver_protocol_messages_sent_total", &[("by", "get"), ("ack", "auto")], Unit::Count, "Messages sent to clients."),
    ("inver_protocol_messages_sent_total", &[("by", "get"), ("ack", "manual")], Unit::Count, "Messages sent to clients."),
    ("inver_protocol_gets_empty_total", &[], Unit::Count, "Requests for one message that found none."),
    ("inver_protocol_messages_redelivered_total", &[], Unit::Count, "Messages sent that were sent before."),
    ("inver_protocol_messages_acknowledged_total", &[], Unit::Count, "Messages that clients acknowledged."),
    ("inver_protocol_channels_opened_total", &[], Unit::Count, "Channels opened."),
    ("inver_protocol_channels_closed_total", &[], Unit::Count, "Channels closed."),
    ("inver_quota_throttles_total", &[("direction", "in")], Unit::Count, "Times that a quota held a client back."),
    ("inver_quota_throttles_total", &[("direction", "out")], Unit::Count, "Times that a quota held a client back."),
];

/// The names of the gauges, in the order of [`Present`].
const PRESENT_NAMES: [(&str, &str); PRESENTS] = [
    (
        "inver_protocol_publishers",
        "Channels that have published; of protocols without channels: connections.",
    ),
    (
        "inver_protocol_consumers",
        "Consumers; of protocols without: connections with a subscription or a fetch.",
    ),
    ("inver_quota_throttled_connections", "Connections that a quota holds back."),
];

const SIZES: &str = "inver_protocol_message_bytes";
const CONFIRMS: &str = "inver_protocol_confirm_seconds";
const REQUEST_SECONDS: &str = "inver_protocol_request_seconds";

impl Traffic {
    /// Takes handles of the recorder that is installed now.
    pub(crate) fn new(protocol: &'static str) -> Traffic {
        describe_counter!(ERRORS, Unit::Count, "Errors that clients were told of, by the protocol's code.");
        describe_counter!(
            EVICTED,
            Unit::Count,
            "Connections closed because memory was low and they held most of it for longest."
        );
        describe_histogram!(
            SIZES,
            Unit::Bytes,
            "Sizes of the messages that clients published, without properties."
        );
        describe_histogram!(
            CONFIRMS,
            Unit::Seconds,
            "Time from a publish, or another act that the log must commit, to its confirm: of a sample, at most one a turn."
        );
        describe_histogram!(
            REQUEST_SECONDS,
            Unit::Seconds,
            "Time from a request to its answer, what it waits for included, by the protocol's name of the request."
        );
        let counts = NAMES.map(|(name, labels, unit, help)| {
            describe_counter!(name, unit, help);
            let labels = [("protocol", protocol)].into_iter().chain(labels.iter().copied());
            counter!(name, &labels.collect::<Vec<_>>())
        });
        let present = PRESENT_NAMES.map(|(name, help)| {
            describe_gauge!(name, Unit::Count, help);
            gauge!(name, "protocol" => protocol)
        });
        let [sizes, confirms] = [SIZES, CONFIRMS].map(|name| histogram!(name, "protocol" => protocol));
        Traffic {
            counts,
            present,
            sizes,
            confirms,
            turns: TurnTimes::new(protocol),
            protocol,
            requests: Mutex::default(),
        }
    }

    /// For how long its connections have their threads.
    pub(crate) fn turns(&self) -> &TurnTimes {
        &self.turns
    }

    /// Counts a connection that is ended because it holds too much memory.
    pub(crate) fn count_evicted(&self) {
        counter!(EVICTED, "protocol" => self.protocol).increment(1);
    }

    /// Adds what the thread has counted since the last call.
    pub(crate) fn add_tally(&self) {
        TALLY.with(|tally| {
            tally.taken.set(("", 0));
            if tally.is_used.get() {
                self.add(tally);
                tally.is_used.set(false);
            }
        });
    }

    fn add(&self, tally: &Tally) {
        let received = tally.received();
        count(Count::Received, received);
        for (counter, cell) in self.counts.iter().zip(&tally.counts) {
            let number = cell.take();
            if number > 0 {
                counter.increment(number);
            }
        }
        for (gauge, cell) in self.present.iter().zip(&tally.present) {
            let by = cell.take();
            if by != 0 {
                gauge.increment(by as f64);
            }
        }
        if let Some(time) = tally.confirm.take() {
            self.confirms.record(time.as_secs_f64());
        }
        for (request, time) in tally.requests.borrow_mut().drain(..) {
            let mut requests = self.requests.lock();
            let histogram = requests.entry(request).or_insert_with(
                || histogram!(REQUEST_SECONDS, "protocol" => self.protocol, "request" => request),
            );
            histogram.record(time);
        }
        if received > 0 {
            for cell in &tally.sizes {
                let Sizes { messages, bytes } = cell.take();
                if messages > 0 {
                    // The mean is within the bucket, and the sum of all is exact.
                    let messages_f64 = messages as f64;
                    let count = usize::try_from(messages).unwrap_or(usize::MAX);
                    self.sizes.record_many(bytes as f64 / messages_f64, count);
                }
            }
        }
    }
}
