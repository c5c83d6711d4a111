//! Traces: what the broker does with a sampled message, as spans for the [`SpanSink`] that exports them.
//!
//! A message carries its trace in the header [`TRACEPARENT`] (W3C Trace Context), which passes through unchanged. If it
//! says *sampled*, the spans of the message are children of the span named there; if it does not, there are none. Of
//! messages without one, a share is sampled: the broker starts a trace and writes the header.
//!
//! Off unless there is a sink: then an operation costs one comparison.

use std::cell::Cell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::clock::now_ns;
use crate::completion::Completion;

/// The header that carries the trace of a message.
pub const TRACEPARENT: &str = "traceparent";

/// Spans of one record batch; further records of it have none.
pub const BATCH_SPANS_MAX: usize = 64;

/// Sampled deliveries of one connection that wait to be settled; beyond it the oldest gets no span of its settlement.
const UNSETTLED_MAX: usize = 1024;

/// The same of all clients together that settle by committing a position.
const READS_MAX: usize = 8192;

/// Bytes of a `traceparent` of version 00.
const TRACEPARENT_BYTES: usize = 55;

/// A span's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: [u8; 16],
    /// The span within it.
    pub span: [u8; 8],
}

impl TraceContext {
    /// Reads a `traceparent`, and whether it is sampled.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<(TraceContext, bool)> {
        let is_well_formed = match text.get(..2)? {
            b"ff" => false,
            b"00" => text.len() == TRACEPARENT_BYTES,
            // A later version may have more fields.
            _ => text.get(TRACEPARENT_BYTES).is_none_or(|next| *next == b'-'),
        };
        let separators = [2, 35, 52].into_iter().all(|at| text.get(at) == Some(&b'-'));
        let _version = hex::<1>(text.get(..2)?)?;
        let trace = hex(text.get(3..35)?)?;
        let span = hex(text.get(36..52)?)?;
        let [flags] = hex(text.get(53..TRACEPARENT_BYTES)?)?;
        let is_valid = is_well_formed && separators && trace != [0; 16] && span != [0; 8];
        is_valid.then_some((TraceContext { trace, span }, flags & 1 == 1))
    }

    /// The `traceparent` of a sampled span.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-01", u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span))
    }

    fn child(&self) -> TraceContext {
        TraceContext { trace: self.trace, span: random().to_be_bytes() }
    }

    fn root() -> TraceContext {
        let trace = u128::from(random()) << 64 | u128::from(random());
        TraceContext { trace: trace.to_be_bytes(), span: random().to_be_bytes() }
    }
}

/// Decodes lower-case hexadecimal digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// A number that is not 0 and no two of which are alike but by chance; identities need not be secret.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    STATE.with(|state| {
        // SplitMix64.
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31).max(1)
    })
}

/// What a span tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A message was published; the span ends when the publisher can be told.
    Publish,
    /// The receivers of a published message were found.
    Route,
    /// A message was sent to a consumer.
    Deliver,
    /// A consumer acknowledged or returned a message, by the named operation.
    Settle(&'static str),
}

/// What a span is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The client's protocol; empty for acts of the broker itself.
    pub protocol: &'static str,
    /// The client's own name; may be empty.
    pub client_id: Arc<str>,
    /// The namespace.
    pub namespace: Arc<str>,
    /// The topic, queue, exchange or address.
    pub destination: String,
    /// The routing key, where the destination is an exchange.
    pub routing_key: Option<String>,
    /// The partition and the offset in it, where the client names messages by them.
    pub position: Option<(u32, u64)>,
    /// Messages.
    pub messages: u32,
    /// Bytes of their bodies.
    pub body_bytes: usize,
    /// Receivers, of [`Act::Route`].
    pub receivers: Option<usize>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A span.
#[derive(Clone, Debug)]
pub struct Span {
    /// What was done.
    pub act: Act,
    /// Its identity.
    pub context: TraceContext,
    /// The span it is a child of.
    pub parent: Option<[u8; 8]>,
    /// Nanoseconds since 1970.
    pub started_ns: u64,
    /// Nanoseconds since 1970; if `completion` is a position in the log, it ends when that is committed.
    pub ended_ns: u64,
    /// When what it did is durable.
    pub completion: Completion,
    /// What it is about.
    pub about: About,
}

/// Takes spans, of any thread. Must not wait.
pub trait SpanSink: Send + Sync {
    /// Takes a span.
    fn accept(&self, span: Span);
}

/// The switch of tracing; cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Tracer>>);

/// Makes spans.
pub struct Tracer {
    sink: Box<dyn SpanSink>,
    /// A message without a trace is sampled if a random number is not above this; none: never.
    threshold: Option<u64>,
    reads: Mutex<VecDeque<Read>>,
    reads_count: AtomicUsize,
}

/// A sampled delivery whose client settles by committing a position.
struct Read {
    client_id: Arc<str>,
    stream: u64,
    offset: u64,
    delivered: Delivered,
}

/// A sampled delivery that is to be settled.
#[derive(Clone, Debug)]
pub struct Delivered {
    context: TraceContext,
    about: About,
}

/// What the trace of a message asks for.
enum Sampling {
    /// Nothing.
    Not,
    /// Spans below this one.
    Below(TraceContext),
    /// A trace of its own.
    Root,
}

impl Traces {
    /// Sends spans to `sink`; of messages without a trace a share of `ratio` (0 to 1) is sampled.
    #[must_use]
    pub fn to(sink: Box<dyn SpanSink>, ratio: f64) -> Traces {
        // A float becomes the nearest integer in range.
        let threshold = (ratio > 0.0).then_some((ratio * u64::MAX as f64) as u64);
        let (reads, reads_count) = (Mutex::default(), AtomicUsize::new(0));
        Traces(Some(Arc::new(Tracer { sink, threshold, reads, reads_count })))
    }

    /// Makes spans; none if tracing is off.
    #[inline]
    #[must_use]
    pub fn tracer(&self) -> Option<&Arc<Tracer>> {
        self.0.as_ref()
    }
}

impl Tracer {
    fn sampling(&self, traceparent: Option<&[u8]>) -> Sampling {
        match traceparent.map(TraceContext::parse) {
            Some(Some((parent, true))) => Sampling::Below(parent),
            // One that is malformed belongs to the client all the same.
            Some(_) => Sampling::Not,
            None if self.threshold.is_some_and(|threshold| random() <= threshold) => Sampling::Root,
            None => Sampling::Not,
        }
    }

    /// The span of a publish, if the message is sampled, with this in its header [`TRACEPARENT`].
    #[must_use]
    pub fn publishing(&self, traceparent: Option<&[u8]>) -> Option<Publishing> {
        let (context, parent) = match self.sampling(traceparent) {
            Sampling::Not => return None,
            Sampling::Below(parent) => (parent.child(), Some(parent.span)),
            Sampling::Root => (TraceContext::root(), None),
        };
        Some(Publishing { context, parent, started_ns: now_ns(), routed_ns: 0, about: About::default() })
    }

    /// Sends the span of a publish and of its routing.
    pub fn published(&self, publishing: Publishing, completion: Completion) {
        let Publishing { context, parent, started_ns, routed_ns, about } = publishing;
        if routed_ns > 0 {
            self.sink.accept(Span {
                act: Act::Route,
                context: context.child(),
                parent: Some(context.span),
                started_ns,
                ended_ns: routed_ns,
                completion: Completion::Now,
                about: About { error: None, ..about.clone() },
            });
        }
        let about = About { receivers: None, ..about };
        let ended_ns = now_ns();
        self.sink.accept(Span {
            act: Act::Publish,
            context,
            parent,
            started_ns,
            ended_ns,
            completion,
            about,
        });
    }

    /// Sends the span of a delivery, if the message is sampled, with this in its header [`TRACEPARENT`].
    pub fn delivered(&self, traceparent: Option<&[u8]>, about: impl FnOnce() -> About) -> Option<Delivered> {
        let (parent, true) = TraceContext::parse(traceparent?)? else { return None };
        let (context, about, now) = (parent.child(), about(), now_ns());
        self.sink.accept(Span {
            act: Act::Deliver,
            context,
            parent: Some(parent.span),
            started_ns: now,
            ended_ns: now,
            completion: Completion::Now,
            about: about.clone(),
        });
        Some(Delivered { context, about })
    }

    /// Sends the span of a settlement.
    pub fn settled(&self, delivered: Delivered, operation: &'static str, completion: Completion) {
        let now = now_ns();
        self.sink.accept(Span {
            act: Act::Settle(operation),
            context: delivered.context.child(),
            parent: Some(delivered.context.span),
            started_ns: now,
            ended_ns: now,
            completion,
            about: delivered.about,
        });
    }

    /// Remembers a delivery from a stream whose client settles by committing a position in it, perhaps over another
    /// connection.
    pub fn read(&self, stream: u64, offset: u64, delivered: Delivered) {
        let mut reads = self.reads.lock();
        if reads.len() == READS_MAX {
            reads.pop_front();
        }
        let client_id = delivered.about.client_id.clone();
        reads.push_back(Read { client_id, stream, offset, delivered });
        self.reads_count.store(reads.len(), Ordering::Relaxed);
    }

    /// Sends the spans of the settlements that a client's commit of a position makes.
    pub fn committed(
        &self,
        client_id: &str,
        stream: u64,
        position: u64,
        operation: &'static str,
        completion: Completion,
    ) {
        if self.reads_count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let is_settled =
            |read: &Read| read.stream == stream && read.offset < position && *read.client_id == *client_id;
        let mut settled = Vec::new();
        let mut reads = self.reads.lock();
        reads.retain_mut(|read| {
            let is_settled = is_settled(read);
            if is_settled {
                settled.push(read.delivered.clone());
            }
            !is_settled
        });
        self.reads_count.store(reads.len(), Ordering::Relaxed);
        drop(reads);
        settled.into_iter().for_each(|delivered| self.settled(delivered, operation, completion));
    }
}

/// A publish that has begun.
#[derive(Debug)]
pub struct Publishing {
    context: TraceContext,
    parent: Option<[u8; 8]>,
    started_ns: u64,
    routed_ns: u64,
    /// What it is about.
    pub about: About,
}

impl Publishing {
    /// The `traceparent` to write into the message: it began a trace.
    #[must_use]
    pub fn new_traceparent(&self) -> Option<String> {
        self.parent.is_none().then(|| self.context.traceparent())
    }

    /// Notes that the receivers are found.
    pub fn routed(&mut self, receivers: usize) {
        self.routed_ns = now_ns();
        self.about.receivers = Some(receivers);
    }
}

/// The sampled deliveries of one connection that its client has not settled, by the keys that it settles them with.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "a connection without one holds a pointer")]
pub struct Unsettled(Option<Box<VecDeque<(u64, Delivered)>>>);

impl Unsettled {
    /// Whether there are none, as always while tracing is off.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds a delivery.
    pub fn add(&mut self, key: u64, delivered: Delivered) {
        let all = self.0.get_or_insert_default();
        if all.len() == UNSETTLED_MAX {
            all.pop_front();
        }
        all.push_back((key, delivered));
    }

    /// Removes the deliveries whose keys are selected.
    pub fn take(&mut self, selects: impl Fn(u64) -> bool) -> Vec<Delivered> {
        let Some(all) = &mut self.0 else { return Vec::new() };
        let mut taken = Vec::new();
        all.retain_mut(|(key, delivered)| {
            let is_taken = selects(*key);
            if is_taken {
                taken.push(delivered.clone());
            }
            !is_taken
        });
        if all.is_empty() {
            self.0 = None;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Span>>>);

    impl SpanSink for Kept {
        fn accept(&self, span: Span) {
            self.0.lock().push(span);
        }
    }

    fn tracer(ratio: f64) -> (Kept, Arc<Tracer>) {
        let kept = Kept::default();
        let traces = Traces::to(Box::new(kept.clone()), ratio);
        (kept, traces.tracer().unwrap().clone())
    }

    fn parsed(text: &str) -> Option<(TraceContext, bool)> {
        TraceContext::parse(text.as_bytes())
    }

    #[test]
    fn a_traceparent_is_read_as_the_recommendation_says() {
        let (context, is_sampled) = parsed(PARENT).unwrap();
        assert!(is_sampled);
        assert_eq!(context.traceparent(), PARENT);
        assert!(!parsed("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").unwrap().1);
        assert!(parsed("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").is_some());
        for malformed in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parsed(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn the_parent_decides_and_without_one_the_ratio() {
        let unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let (_, all) = tracer(1.0);
        let (_, none) = tracer(0.0);
        assert!(all.publishing(None).unwrap().new_traceparent().is_some());
        assert!(all.publishing(Some(unsampled.as_bytes())).is_none());
        assert!(all.publishing(Some(b"malformed")).is_none());
        assert!(none.publishing(None).is_none());
        let child = none.publishing(Some(PARENT.as_bytes())).unwrap();
        assert_eq!(child.new_traceparent(), None);
        let (_, half) = tracer(0.5);
        let sampled = (0..10_000).filter(|_| half.publishing(None).is_some()).count();
        assert!((4500..5500).contains(&sampled), "{sampled}");
    }

    #[test]
    fn the_spans_of_a_message_form_one_trace() {
        let (kept, tracer) = tracer(0.0);
        let mut publishing = tracer.publishing(Some(PARENT.as_bytes())).unwrap();
        publishing.routed(2);
        tracer.published(publishing, Completion::Now);
        let delivered = tracer.delivered(Some(PARENT.as_bytes()), About::default).unwrap();
        tracer.settled(delivered, "ack", Completion::Now);
        let spans = kept.0.lock().clone();
        let acts: Vec<Act> = spans.iter().map(|span| span.act).collect();
        assert_eq!(acts, [Act::Route, Act::Publish, Act::Deliver, Act::Settle("ack")]);
        let parent = parsed(PARENT).unwrap().0;
        assert!(spans.iter().all(|span| span.context.trace == parent.trace));
        let parents: Vec<_> = spans.iter().map(|span| span.parent.unwrap()).collect();
        assert_eq!(parents, [spans[1].context.span, parent.span, parent.span, spans[2].context.span]);
    }

    #[test]
    fn a_committed_position_settles_what_the_client_read_before_it() {
        let (kept, tracer) = tracer(0.0);
        for (client, stream, offset) in [("a", 1, 4), ("a", 1, 5), ("b", 1, 4), ("a", 2, 4)] {
            let about = || About { client_id: client.into(), ..About::default() };
            let delivered = tracer.delivered(Some(PARENT.as_bytes()), about).unwrap();
            tracer.read(stream, offset, delivered);
        }
        tracer.committed("a", 1, 5, "commit", Completion::Now);
        tracer.committed("a", 1, 5, "commit", Completion::Now);
        let settled = kept.0.lock().iter().filter(|span| span.act == Act::Settle("commit")).count();
        assert_eq!(settled, 1);
        assert_eq!(tracer.reads.lock().len(), 3);
    }

    #[test]
    fn what_is_unsettled_is_bounded() {
        let (_, tracer) = tracer(0.0);
        let mut unsettled = Unsettled::default();
        for key in 0..UNSETTLED_MAX as u64 + 10 {
            unsettled.add(key, tracer.delivered(Some(PARENT.as_bytes()), About::default).unwrap());
            tracer.read(0, key, tracer.delivered(Some(PARENT.as_bytes()), About::default).unwrap());
        }
        assert_eq!(unsettled.take(|key| key < 20).len(), 10);
        assert_eq!(unsettled.take(|_| true).len(), UNSETTLED_MAX - 10);
        assert!(unsettled.is_empty());
        for key in 0..READS_MAX as u64 {
            tracer.read(0, key, tracer.delivered(Some(PARENT.as_bytes()), About::default).unwrap());
        }
        assert_eq!(tracer.reads.lock().len(), READS_MAX);
    }
}
