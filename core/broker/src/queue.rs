//! Queues: a topic of the queue kind with the one subscription that its consumers share, or the same in memory
//! where nothing of it is durable.
//!
//! Owns when a queue is checked: messages with a time to live, length limits and the queue's own expiry are enforced
//! lazily, so the queue schedules checks for when nobody pulls. Does not own bindings, its place in the namespace, or
//! where dropped messages are published.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use inver_storage::Stream;
use parking_lot::RwLock;

use crate::context::{Context, Due, LengthLimited, Timed};
use crate::ordered::Named;
use crate::policy::Applied;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::spec::{DeadLetter, Depth, Overflow, QueueBounds, QueueLimits, QueueSpec};
use crate::subscription::{LimitsChecked, NextCheck, Recheck, Subscription};
use crate::topic::Topic;

/// Milliseconds until the next check, at first and at most, of a queue whose first message is not visible yet, or that
/// exceeds its length limits because some of it is not.
const CHECK_SOON_MS: (i64, i64) = (10, 1000);

/// The same where the first message does not expire, and hides those behind it that do.
const CHECK_LATER_MS: (i64, i64) = (250, 16_000);

/// Called with a queue that nobody used for as long as it lives, and the time.
type OnExpired = Box<dyn Fn(&Arc<Queue>, i64) + Send + Sync>;

/// A queue.
pub struct Queue {
    name: Box<str>,
    spec: QueueSpec,
    subscription: Arc<Subscription>,
    stream: Option<Stream>,
    topic: Option<Arc<Topic>>,
    /// When it was last used, milliseconds since 1970.
    used_ms: AtomicI64,
    /// The deadline of its next check; `i64::MAX`: none.
    armed_ms: AtomicI64,
    /// Messages in it may have a time to live.
    has_ttl: AtomicBool,
    /// It is in the list of queues that may exceed their length limits.
    in_over_length: AtomicBool,
    /// Checks in a row that found no deadline to wait for.
    idle_checks: AtomicU32,
    on_expired: OnceLock<OnExpired>,
    /// The policies that apply to it; boxed, since few queues have one.
    policies: RwLock<Option<Box<Applied>>>,
}

impl Queue {
    pub(crate) fn new(
        name: &str,
        spec: QueueSpec,
        subscription: Arc<Subscription>,
        stream: Option<Stream>,
        topic: Option<Arc<Topic>>,
    ) -> Arc<Queue> {
        let now_ms = subscription.context().clock.steady_ms();
        Arc::new(Queue {
            name: name.into(),
            spec,
            subscription,
            stream,
            topic,
            used_ms: AtomicI64::new(now_ms),
            armed_ms: AtomicI64::new(i64::MAX),
            has_ttl: AtomicBool::new(false),
            in_over_length: AtomicBool::new(false),
            idle_checks: AtomicU32::new(0),
            on_expired: OnceLock::new(),
            policies: RwLock::default(),
        })
    }

    /// Its name within its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was declared as.
    #[must_use]
    pub fn spec(&self) -> &QueueSpec {
        &self.spec
    }

    /// What its consumers attach to.
    #[must_use]
    pub fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// How full it is.
    #[must_use]
    pub fn depth(&self) -> Depth {
        if self.spec.is_stream() { self.counts() } else { self.subscription.depth() }
    }

    /// How full it is, without enforcing its limits.
    #[must_use]
    pub fn counts(&self) -> Depth {
        let counts = self.subscription.counts();
        match self.stream().filter(|_| self.spec.is_stream()) {
            None => counts,
            // All that the stream keeps; no consumer takes any of it out.
            Some(stream) => {
                let ready = stream.high_watermark().0.saturating_sub(stream.start().0);
                Depth { ready, unacked: 0, ..counts }
            }
        }
    }

    /// Its topic, if it is durable.
    #[must_use]
    pub fn topic(&self) -> Option<&Arc<Topic>> {
        self.topic.as_ref()
    }

    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    /// The limits that hold for it now: those that it was declared with, and those of policies.
    #[must_use]
    pub fn limits(&self) -> QueueLimits {
        self.applied().limits(&self.spec)
    }

    /// The policies that apply to it.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.policies.read().as_deref().cloned().unwrap_or_default()
    }

    /// Sets the policies that apply to it. They hold at once, and for what is in it.
    pub(crate) fn apply(self: &Arc<Self>, policies: Applied) {
        let limits = policies.limits(&self.spec);
        let had = self.bounds();
        {
            let mut present = self.policies.write();
            *present = (!policies.is_empty()).then(|| Box::new(policies));
        }
        self.subscription.set_limits(&limits);
        let has = limits.bounds();
        if has.expires_after_ms.is_some() && has.expires_after_ms != had.expires_after_ms {
            // As when it was declared: what it was idle before does not count.
            self.touch();
        }
        if has != had && (has.needs_periodic_check() || has.deliveries_max.is_some()) {
            self.expect_ttl();
            self.check_by(self.context().clock.steady_ms());
        }
    }

    /// Where it publishes what it drops.
    #[must_use]
    pub fn dead_letter_to(&self) -> Option<Arc<DeadLetter>> {
        self.subscription.dead_letter_to()
    }

    pub(crate) fn bounds(&self) -> QueueBounds {
        self.subscription.limits().unwrap_or_default()
    }

    pub(crate) fn has_limits(&self) -> bool {
        self.subscription.is_limited()
    }

    fn context(&self) -> &Context {
        self.subscription.context()
    }

    /// Whether it has no room for one more message after those in it and `more` others.
    pub(crate) fn is_full(&self, more: u64) -> bool {
        let limits = self.bounds();
        let (messages, bytes) = self.subscription.submitted();
        limits.messages_max.is_some_and(|max| messages + more >= max)
            || limits.bytes_max.is_some_and(|max| bytes >= max)
    }

    /// Whether it exceeds its length limits, messages that nobody can read yet included.
    fn is_over_length(&self) -> bool {
        let limits = self.bounds();
        let (messages, bytes) = self.subscription.submitted();
        limits.overflow == Overflow::DropHead
            && (limits.messages_max.is_some_and(|max| messages > max)
                || limits.bytes_max.is_some_and(|max| bytes > max))
    }

    /// Whether its length limits drop messages that must be read: for their size, or to be dead-lettered.
    pub(crate) fn reads_what_it_drops(&self) -> bool {
        let limits = self.bounds();
        let reads_all = limits.dead_letters || self.spec.priority_max().is_some();
        let reads = limits.bytes_max.is_some() || limits.messages_max.is_some() && reads_all;
        reads && limits.overflow == Overflow::DropHead
    }

    /// Drops a bounded number of messages if it exceeds its length limits.
    pub(crate) fn drop_over_length(&self) {
        if self.is_over_length() {
            self.subscription.drop_over_length();
        }
    }

    /// Restarts the time after which it expires unused.
    pub fn touch(&self) {
        self.used_ms.store(self.context().clock.steady_ms(), Ordering::Relaxed);
    }

    /// Sets what is done when it has expired unused; once.
    pub(crate) fn on_expired(&self, act: impl Fn(&Arc<Queue>, i64) + Send + Sync + 'static) {
        // A second one would be a defect of the caller; the first stays.
        let _ = self.on_expired.set(Box::new(act));
    }

    /// Schedules a check at `at_ms`, if none is scheduled before.
    pub(crate) fn check_by(self: &Arc<Self>, at_ms: i64) {
        self.context().timers.schedule_by(&self.armed_ms, at_ms, || Due::of(self));
    }

    /// Schedules its first check, if it needs checks that no client causes.
    pub(crate) fn start_checks(self: &Arc<Self>) {
        if self.bounds().needs_periodic_check() {
            self.expect_ttl();
            self.check_by(self.context().clock.steady_ms());
        }
    }

    /// Schedules the check that new messages need: at `at_ms`, because they expire (`ttl`) or count against the length
    /// limits. Called once they are in the queue: a check before would not find them.
    pub(crate) fn check_new(self: &Arc<Self>, at_ms: i64, ttl: bool) {
        if ttl {
            self.expect_ttl();
        }
        if self.bounds().bounds_length() {
            self.note_over_length();
        }
        if ttl && is_seeded(Bug::MissExpiry) {
            return;
        }
        self.check_by(at_ms);
    }

    /// Messages in it, or about to be, may have a time to live.
    fn expect_ttl(&self) {
        self.idle_checks.store(0, Ordering::Relaxed);
        self.has_ttl.store(true, Ordering::Release);
    }

    fn may_expire_messages(&self) -> bool {
        self.has_ttl.load(Ordering::Acquire) || self.bounds().message_ttl_ms.is_some()
    }

    /// Adds it to the queues that may exceed their length limits: a client that polls another queue finds dropped
    /// messages there.
    fn note_over_length(self: &Arc<Self>) {
        if self.bounds().dead_letters && !self.in_over_length.swap(true, Ordering::AcqRel) {
            let weak: Weak<Queue> = Arc::downgrade(self);
            self.context().over_length.add(weak);
        }
    }

    /// Drops what has expired or is beyond the limits, and finds the next deadline.
    fn check(&self, now_ms: i64) -> Checked {
        // Before the check: a message that arrives meanwhile sets it again.
        let had_ttl = self.has_ttl.swap(false, Ordering::AcqRel);
        let limits = self.bounds();
        let expire = had_ttl || limits.message_ttl_ms.is_some() || limits.deliveries_max.is_some();
        let LimitsChecked { depth, next, retry_ms, dropped } = self.subscription.check(now_ms, expire);
        if had_ttl && next != NextCheck::Never {
            self.has_ttl.store(true, Ordering::Release);
        }
        if dropped > 0 {
            self.idle_checks.store(0, Ordering::Relaxed);
        }
        let mut next_ms = self.next_check(next, now_ms).into_iter().chain(retry_ms).min();
        if let Some(expires) = limits.expires_after_ms {
            if depth.consumers > 0 {
                self.touch();
            }
            let left_ms = self.subscription.last_left_ms();
            let used_ms = self.used_ms.load(Ordering::Relaxed).max(left_ms);
            let expires_ms = used_ms.saturating_add_unsigned(expires);
            if expires_ms <= now_ms {
                return Checked::Expired;
            }
            next_ms = Some(next_ms.map_or(expires_ms, |next| next.min(expires_ms)));
        }
        Checked::Until(next_ms)
    }

    fn next_check(&self, next: NextCheck, now_ms: i64) -> Option<i64> {
        // What is over length but not readable yet could not be dropped by this check.
        let over = next != NextCheck::Never && self.is_over_length();
        let known_ms = match next {
            NextCheck::At(at_ms) => at_ms.max(now_ms + 1),
            _ => i64::MAX,
        };
        let (first_ms, max_ms) = match next {
            NextCheck::Never => return None,
            NextCheck::Now => return Some(now_ms),
            _ if over => CHECK_SOON_MS,
            NextCheck::At(_) => {
                self.idle_checks.store(0, Ordering::Relaxed);
                return Some(known_ms);
            }
            NextCheck::Soon | NextCheck::Later if !self.may_expire_messages() => {
                self.idle_checks.store(0, Ordering::Relaxed);
                return None;
            }
            NextCheck::Soon => CHECK_SOON_MS,
            NextCheck::Later => CHECK_LATER_MS,
        };
        let before = self.idle_checks.fetch_add(1, Ordering::Relaxed).min(16);
        Some((now_ms + (first_ms << before).min(max_ms)).min(known_ms))
    }
}

/// The outcome of a check.
enum Checked {
    /// The queue has expired: nobody used it for as long as it lives.
    Expired,
    /// The deadline of the next check, if there is one.
    Until(Option<i64>),
}

impl Timed for Queue {
    fn order(&self) -> u64 {
        self.subscription.id()
    }

    fn due(self: Arc<Self>, at_ms: i64, now_ms: i64) {
        // An earlier deadline may have been scheduled meanwhile: that one stays armed.
        let _ = self.armed_ms.compare_exchange(at_ms, i64::MAX, Ordering::AcqRel, Ordering::Relaxed);
        match self.check(now_ms) {
            Checked::Expired => self.on_expired.get().into_iter().for_each(|act| act(&self, now_ms)),
            Checked::Until(Some(at_ms)) => self.check_by(at_ms),
            Checked::Until(None) => {}
        }
    }
}

impl Recheck for Queue {
    fn recheck_if_expiring(self: Arc<Self>) {
        if self.may_expire_messages() || self.bounds().deliveries_max.is_some() {
            self.recheck();
        }
    }

    fn recheck(self: Arc<Self>) {
        self.check_by(self.context().clock.steady_ms());
    }
}

impl LengthLimited for Queue {
    fn enforce_length_limits(self: Arc<Self>) {
        self.in_over_length.store(false, Ordering::Release);
        let _checked = self.depth();
        if self.is_over_length() {
            // The rest is not readable yet.
            self.note_over_length();
        }
    }
}

impl Named for Queue {
    fn name(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("name", &self.name).field("spec", &self.spec).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Broker, BrokerConfig, QueueLimits};
    use inver_storage::{Log, LogOptions};

    /// Only the growing interval of an over-length queue was used: its head expired up to a second late.
    #[tokio::test]
    async fn an_over_length_queue_is_checked_when_its_head_expires() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), LogOptions::default()).unwrap();
        let broker = Broker::open(log, BrokerConfig::default()).unwrap();
        let limits = QueueLimits { bytes_max: Some(5), ..QueueLimits::default() };
        let spec = QueueSpec { limits, ..QueueSpec::default() };
        let queue = broker.default_namespace().declare_queue("q", spec).unwrap().it;
        // Submitted, and not readable yet.
        queue.subscription().add_bytes(10);
        assert!(queue.is_over_length());
        for _ in 0..20 {
            assert_eq!(queue.next_check(NextCheck::At(1005), 1000), Some(1005));
        }
        assert_eq!(queue.next_check(NextCheck::At(9000), 1000), Some(1000 + CHECK_SOON_MS.1));
        assert_eq!(queue.next_check(NextCheck::Never, 1000), None);
    }
}
