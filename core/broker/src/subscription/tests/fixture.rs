//! A context over a log in memory, and a queue that drives its subscription's checks by hand.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use inver_storage::batch::{Batch, BatchBuilder};
use inver_storage::medium::fake::FakeMedium;
use inver_storage::{
    CommitPolicy, CursorId, Entry, Log, LogOptions, Lsn, Offset, Stream, StreamId, SubmitError, SystemClock,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::completion::Completion;
use crate::context::Context;
use crate::message::Message;
use crate::spec::{DropReason, Mode, QueueLimits};
use crate::subscription::{DropSink, Dropped, LimitsChecked, NextCheck, Recheck, Subscription, Trim};
use crate::testing;

/// The first time of a fixture's clock, milliseconds since 1970.
pub(super) const START_MS: i64 = 1_000_000;

/// A log in memory and what subscriptions share.
pub(super) struct Fixture {
    pub(super) medium: FakeMedium,
    pub(super) options: LogOptions,
    pub(super) clock: Clock,
    pub(super) context: Arc<Context>,
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        Fixture::with(LogOptions { commit: CommitPolicy::Os, ..LogOptions::default() })
    }

    /// Nothing but the last megabyte is in memory.
    pub(super) fn cold(commit: CommitPolicy) -> Fixture {
        Fixture::with(LogOptions { commit, tail_cache_bytes_max: 1 << 20, ..LogOptions::default() })
    }

    pub(super) fn with(options: LogOptions) -> Fixture {
        // Room is reserved a segment at a time, and memory is not a disk.
        let options = LogOptions { preallocate: false, ..options };
        Fixture::over(FakeMedium::new(1), Clock::manual(START_MS), options)
    }

    /// The log writes only when somebody waits for it.
    pub(super) fn manual(options: LogOptions) -> Fixture {
        let (medium, clock) = (FakeMedium::new(1), Clock::manual(START_MS));
        let log = Log::open_manual(Arc::new(medium.clone()), Arc::new(SystemClock), options.clone()).unwrap();
        let context = testing::context(log, &clock);
        Fixture { medium, options, clock, context }
    }

    fn over(medium: FakeMedium, clock: Clock, options: LogOptions) -> Fixture {
        let log = Log::open_on(Arc::new(medium.clone()), Arc::new(SystemClock), options.clone()).unwrap();
        let context = testing::context(log, &clock);
        Fixture { medium, options, clock, context }
    }

    /// Ends the log and opens it again.
    pub(super) fn restart(self) -> Fixture {
        self.context.log.shutdown().unwrap();
        let Fixture { medium, options, clock, context } = self;
        drop(context);
        Fixture::over(medium, clock, options)
    }

    pub(super) fn log(&self) -> &Log {
        &self.context.log
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(super) fn advance_ms(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    /// A new queue's stream and cursor.
    pub(super) fn create(&self) -> (StreamId, CursorId) {
        let (stream, cursor) = (self.log().allocate_stream(), self.log().allocate_cursor());
        let mut entry = Entry::new();
        entry.create_stream(stream);
        entry.create_cursor(cursor, stream, Offset(0));
        self.commit(entry);
        (stream, cursor)
    }

    pub(super) fn queue(&self, (stream, cursor): (StreamId, CursorId), limits: QueueLimits) -> TestQueue {
        let stream = self.log().stream(stream).unwrap();
        let cursor = self.log().cursor(cursor).unwrap();
        let from = cursor.position();
        let sources = vec![(stream.clone(), Some(cursor), from)];
        let subscription =
            Subscription::over_streams(&self.context, "q", Mode::Shared, sources, Trim::Acknowledged);
        let calls = Arc::<Calls>::default();
        let weak: Weak<Calls> = Arc::downgrade(&calls);
        subscription.set_owner(&limits, calls.clone(), weak);
        TestQueue { subscription, calls, stream }
    }

    /// Appends batches of messages with the present time, and waits until they are readable.
    pub(super) fn append(&self, queue: &TestQueue, batches: usize, messages: usize, value_bytes: usize) {
        let batch = batch(self.now_ms(), messages, value_bytes);
        let mut last = Lsn(0);
        for _ in 0..batches {
            let mut entry = Entry::new();
            entry.batch(std::slice::from_ref(&queue.stream), batch.clone());
            last = self.log().submit(entry).unwrap().lsn;
        }
        self.log().wait_committed_blocking(last).unwrap();
    }

    pub(super) fn commit(&self, entry: Entry) {
        let submitted = self.log().submit(entry).unwrap();
        self.log().wait_committed_blocking(submitted.lsn).unwrap();
    }
}

/// A batch of equal messages.
pub(super) fn batch(timestamp_ms: i64, messages: usize, value_bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(messages * value_bytes);
    let value = vec![b'x'; value_bytes];
    (0..messages).for_each(|_| builder.push(timestamp_ms, None, &[], Some(&value)));
    builder.finish()
}

/// A queue whose checks run only when a test runs them.
pub(super) struct TestQueue {
    pub(super) subscription: Arc<Subscription>,
    pub(super) calls: Arc<Calls>,
    pub(super) stream: Stream,
}

/// What a subscription asked its queue for.
#[derive(Default)]
pub(super) struct Calls {
    /// Offsets and reasons of what was dead-lettered, in order.
    pub(super) dropped: Mutex<Vec<(u64, DropReason)>>,
    /// Checks that were run.
    pub(super) checks: AtomicUsize,
    /// Runs before each call is recorded.
    pub(super) before_drop: Mutex<Option<Box<dyn FnMut() + Send>>>,
    /// So many are kept as dead letters without a receiver, instead of being acknowledged.
    pub(super) keeps: Mutex<Option<usize>>,
    wanted: AtomicBool,
    wake: Notify,
}

/// Time within which a check that was asked for must come.
const ASKED_FOR_LIMIT: Duration = Duration::from_secs(10);
/// Time within which a check must come that a load which has just ended asks for.
const UNDER_WAY_LIMIT: Duration = Duration::from_millis(200);

impl TestQueue {
    pub(super) fn check(&self, fixture: &Fixture, expire: bool) -> LimitsChecked {
        self.calls.checks.fetch_add(1, Ordering::Relaxed);
        self.calls.wanted.store(false, Ordering::Relaxed);
        self.subscription.check(fixture.now_ms(), expire)
    }

    /// Checks, and repeats it only when the subscription asks for it, until the head stays. Returns how many messages
    /// were dropped.
    pub(super) async fn drive(&self, fixture: &Fixture, expire: bool) -> u64 {
        let mut dropped = 0;
        loop {
            let checked = self.check(fixture, expire);
            dropped += checked.dropped;
            let is_loading = self.subscription.locked(|state| state.limits.awaits_load);
            match checked.next {
                NextCheck::Now => {}
                NextCheck::Soon => {
                    let is_asked_for = is_loading || self.calls.wanted.load(Ordering::Relaxed);
                    // The end of a load clears the mark a moment before it asks for the check.
                    let limit = if is_asked_for { ASKED_FOR_LIMIT } else { UNDER_WAY_LIMIT };
                    let woken = tokio::time::timeout(limit, self.calls.wake.notified()).await;
                    assert!(woken.is_ok() || !is_asked_for, "a check at the end of a load");
                    if woken.is_err() {
                        return dropped;
                    }
                }
                _ => return dropped,
            }
        }
    }

    pub(super) fn checks(&self) -> usize {
        self.calls.checks.load(Ordering::Relaxed)
    }

    pub(super) fn ready(&self) -> u64 {
        self.subscription.counts().ready
    }

    /// Whether a check was asked for since the last one ran.
    pub(super) fn is_check_wanted(&self) -> bool {
        self.calls.wanted.load(Ordering::Relaxed)
    }
}

impl Recheck for Calls {
    fn recheck_if_expiring(self: Arc<Self>) {
        self.recheck();
    }

    fn recheck(self: Arc<Self>) {
        self.wanted.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

impl DropSink for Calls {
    fn dropped(&self, from: &Arc<Subscription>, dropped: &[Dropped]) -> Result<Completion, SubmitError> {
        if let Some(before_drop) = &mut *self.before_drop.lock() {
            before_drop();
        }
        self.dropped.lock().extend(dropped.iter().map(|d| (d.id.offset, d.reason)));
        if let Some(max) = *self.keeps.lock() {
            from.hold(&dropped.iter().collect::<Vec<_>>(), max);
            return Ok(Completion::Now);
        }
        from.ack_dropped(dropped.iter().map(|d| d.id).collect())
    }

    fn refused(&self, _by: &Subscription, _message: &Message<'_>, _left: &mut u8) -> Option<Completion> {
        None
    }
}

/// Dead letters are wanted.
pub(super) fn dead_letter() -> Option<crate::spec::DeadLetter> {
    Some(crate::spec::DeadLetter { exchange: String::new(), routing_key: None })
}

/// Waits until something holds, or fails after ten seconds.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), wait).await.is_ok(), "never: {what}");
}
