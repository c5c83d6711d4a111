//! What the parts of one namespace share: the log, the clock and its timers, counters, and the lists that the
//! housekeeping task works through.
//!
//! Knows its users only by the traits [`Timed`], [`LengthLimited`] and [`Trimmable`](crate::reclaim::Trimmable).

use std::cmp::Ordering;
use std::sync::atomic::{AtomicBool, Ordering as Memory};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use inver_storage::{Log, Lsn, StreamId};
use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};
use tokio::runtime::Handle;

use crate::audit::Audit;
use crate::clock::{Blocking, Clock};
use crate::maps;
use crate::reclaim::Reclaim;
use crate::telemetry::Counters;
use crate::timers::Timers;

pub(crate) use crate::clock::OneByOne;

/// Pause between two acknowledgements whose time is measured.
const SETTLE_PAUSE: Duration = Duration::from_millis(1);

/// Shared by a namespace, its queues, its subscriptions and its sessions.
pub(crate) struct Context {
    pub(crate) log: Log,
    pub(crate) clock: Clock,
    pub(crate) blocking: Blocking,
    /// One queue of deadlines for all namespaces.
    pub(crate) timers: Arc<Timers<Due>>,
    pub(crate) stream_names: StreamNames,
    pub(crate) counters: Counters,
    pub(crate) reclaim: Reclaim,
    pub(crate) over_length: OverLength,
    pub(crate) audit: Audit,
    /// The time of an acknowledgement is being measured, or was just now.
    is_measuring: AtomicBool,
    /// What earlier processes left with consumers.
    pub(crate) redeliveries: OnceLock<Redeliveries>,
    /// Whether consumers are stopped where the log is damaged; not while it is not set.
    pub(crate) stops_at_damage: OnceLock<bool>,
}

/// What earlier processes left with consumers, by cursor: a row of the log each, which its subscription takes.
pub(crate) type Redeliveries = Arc<Mutex<FxHashMap<u64, Bytes>>>;

impl Context {
    pub(crate) fn new(
        namespace: u32,
        log: Log,
        clock: Clock,
        blocking: Blocking,
        timers: Arc<Timers<Due>>,
        counters: Counters,
        audit: Audit,
    ) -> Arc<Context> {
        Arc::new(Context {
            log,
            clock,
            blocking,
            timers,
            stream_names: StreamNames(maps::map(namespace)),
            counters,
            reclaim: Reclaim::default(),
            over_length: OverLength::default(),
            audit,
            is_measuring: AtomicBool::new(false),
            redeliveries: OnceLock::new(),
            stops_at_damage: OnceLock::new(),
        })
    }

    /// Measures the time until an acknowledgement that was submitted now is committed: of one at a time, so that others
    /// cost one comparison.
    pub(crate) fn measure_settlement(self: &Arc<Self>, lsn: Lsn) {
        if self.is_measuring.load(Memory::Relaxed) || self.is_measuring.swap(true, Memory::Relaxed) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            self.is_measuring.store(false, Memory::Relaxed);
            return;
        };
        let (clock, context, committed) =
            (self.clock.clone(), Arc::downgrade(self), self.log.wait_committed(lsn));
        let since = clock.now();
        runtime.spawn(async move {
            let committed = committed.await;
            if let (Ok(()), Some(context)) = (committed, context.upgrade()) {
                context.counters.settle.record(clock.now() - since);
            }
            clock.sleep(SETTLE_PAUSE).await;
            if let Some(context) = context.upgrade() {
                context.is_measuring.store(false, Memory::Relaxed);
            }
        });
    }
}

/// Something that acts at its deadlines.
pub(crate) trait Timed: Send + Sync {
    /// Orders those that act at the same time, so that a run can be repeated.
    fn order(&self) -> u64;

    /// Acts: `at_ms` is the deadline that was scheduled, `now_ms` the time.
    fn due(self: Arc<Self>, at_ms: i64, now_ms: i64);
}

/// The key of a [`Timed`] in the [`Timers`]: its order, and its address, which is not reused while the key exists.
#[derive(Clone)]
pub(crate) struct Due {
    order: u64,
    it: Weak<dyn Timed>,
}

impl Due {
    pub(crate) fn of<T: Timed + 'static>(timed: &Arc<T>) -> Due {
        let weak: Weak<T> = Arc::downgrade(timed);
        Due { order: timed.order(), it: weak }
    }

    /// Lets it act, if it still exists.
    pub(crate) fn run(self, at_ms: i64, now_ms: i64) {
        if let Some(timed) = self.it.upgrade() {
            timed.due(at_ms, now_ms);
        }
    }

    fn address(&self) -> *const () {
        self.it.as_ptr().cast()
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.order, self.address()).cmp(&(other.order, other.address()))
    }
}

/// A queue with length limits.
pub(crate) trait LengthLimited: Send + Sync {
    /// Drops the messages beyond its limits that are readable now.
    fn enforce_length_limits(self: Arc<Self>);
}

/// Queues that may hold more than their length limits allow and dead-letter what they drop.
#[derive(Default)]
pub(crate) struct OverLength(Mutex<Vec<Weak<dyn LengthLimited>>>);

impl OverLength {
    /// Adds a queue; the caller sees to it that it is not in the list.
    pub(crate) fn add(&self, queue: Weak<dyn LengthLimited>) {
        self.0.lock().push(queue);
    }

    /// Takes all queues out and lets each drop what it must.
    pub(crate) fn enforce(&self) {
        let noted = std::mem::take(&mut *self.0.lock());
        noted.iter().filter_map(Weak::upgrade).for_each(LengthLimited::enforce_length_limits);
    }
}

/// The name of the topic that each stream belongs to.
pub(crate) struct StreamNames(DashMap<u64, Arc<str>, FxBuildHasher>);

impl StreamNames {
    pub(crate) fn get(&self, stream: StreamId) -> Option<Arc<str>> {
        self.0.get(&stream.0).map(|n| n.clone())
    }

    pub(crate) fn insert(&self, stream: StreamId, topic: &Arc<str>) {
        self.0.insert(stream.0, topic.clone());
    }

    pub(crate) fn remove(&self, stream: StreamId) {
        self.0.remove(&stream.0);
    }
}
