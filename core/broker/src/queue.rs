//! Queues: a topic of the queue kind with the one subscription that its consumers share, or the same held in
//! memory where nothing of it is to survive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use inver_storage::Stream;

use crate::clock::now_ms;
use crate::deadletter::DeadLetterer;
use crate::exchange::Origins;
use crate::message::Message;
use crate::namespace::Namespace;
use crate::spec::{Depth, DropReason, Overflow, QueueSpec};
use crate::subscription::{NextCheck, Subscription};
use crate::topic::Topic;

/// How long until a queue is looked at again whose first message is not visible yet, or that holds more than it is to
/// because some of it is not: at first, and at most.
const LOOKS_SOON_MS: (i64, i64) = (10, 1000);

/// The same where the first message does not die by itself, and hides those behind it.
const LOOKS_SOMETIME_MS: (i64, i64) = (250, 16_000);

/// See the module's text.
pub struct Queue {
    name: Box<str>,
    spec: QueueSpec,
    subscription: Arc<Subscription>,
    stream: Option<Stream>,
    topic: Option<Arc<Topic>>,
    /// Bindings that lead to it.
    origins: Origins,
    /// When it was last used, milliseconds since 1970.
    used_ms: AtomicI64,
    /// When it is looked at next; `i64::MAX`: it is not.
    armed_ms: AtomicI64,
    /// Messages in it may die by their own age.
    mortal: AtomicBool,
    /// It is noted among those that may hold too much.
    overflowing: AtomicBool,
    /// Looks in a row that found nothing to wait for.
    idle_looks: AtomicU32,
}

impl Queue {
    pub(crate) fn new(
        name: &str,
        spec: QueueSpec,
        subscription: Arc<Subscription>,
        stream: Option<Stream>,
        topic: Option<Arc<Topic>>,
    ) -> Arc<Queue> {
        Arc::new(Queue {
            name: name.into(),
            spec,
            subscription,
            stream,
            topic,
            origins: Origins::default(),
            used_ms: AtomicI64::new(now_ms()),
            armed_ms: AtomicI64::new(i64::MAX),
            mortal: AtomicBool::new(false),
            overflowing: AtomicBool::new(false),
            idle_looks: AtomicU32::new(0),
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
        self.subscription.depth()
    }

    /// The topic that it is, if it is durable.
    #[must_use]
    pub fn topic(&self) -> Option<&Arc<Topic>> {
        self.topic.as_ref()
    }

    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    /// Where the bindings that lead to it come from.
    pub(crate) fn origins(&self) -> &Origins {
        &self.origins
    }

    pub(crate) fn has_limits(&self) -> bool {
        !self.spec.limits.is_unlimited()
    }

    /// Whether there is no room for one more message behind those and `more` others.
    pub(crate) fn is_full(&self, more: u64) -> bool {
        let limits = &self.spec.limits;
        let (messages, bytes) = self.subscription.submitted();
        limits.messages_max.is_some_and(|max| messages + more >= max)
            || limits.bytes_max.is_some_and(|max| bytes >= max)
    }

    /// A message that was refused dies here.
    pub(crate) fn dead_letter_refused(&self, namespace: &Namespace, message: &Message<'_>) {
        let dead_letterer = DeadLetterer {
            namespace: namespace.downgrade(),
            queue: self.name.clone(),
            limits: self.spec.limits.clone(),
        };
        dead_letterer.dead_letter_message(message, DropReason::MaxLength);
    }

    /// Somebody used it: its time to live begins anew.
    pub fn touch(&self) {
        self.used_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// False if it was so.
    pub(crate) fn set_overflowing(&self, overflowing: bool) -> bool {
        self.overflowing.swap(overflowing, Ordering::AcqRel) != overflowing
    }

    /// Whether it holds more than it is to, what nobody can see yet included.
    pub(crate) fn is_over(&self) -> bool {
        let limits = &self.spec.limits;
        let (messages, bytes) = self.subscription.submitted();
        limits.overflow == Overflow::DropHead
            && (limits.messages_max.is_some_and(|max| messages > max)
                || limits.bytes_max.is_some_and(|max| bytes > max))
    }

    pub(crate) fn armed_ms(&self) -> &AtomicI64 {
        &self.armed_ms
    }

    /// Messages that come, or are there, may die by their own age.
    pub(crate) fn set_mortal(&self) {
        self.idle_looks.store(0, Ordering::Relaxed);
        self.mortal.store(true, Ordering::Release);
    }

    pub(crate) fn is_mortal(&self) -> bool {
        self.mortal.load(Ordering::Acquire) || self.spec.limits.message_ttl_ms.is_some()
    }

    /// Whether a message can die of coming back.
    pub(crate) fn counts_deliveries(&self) -> bool {
        self.spec.limits.deliveries_max.is_some()
    }

    /// What time brings: messages die, and the queue itself.
    pub(crate) fn age(&self, now_ms: i64) -> Aged {
        // Before the look: a message that comes meanwhile says again that it is mortal.
        let was_mortal = self.mortal.swap(false, Ordering::AcqRel);
        let (depth, next) = self.subscription.age(now_ms);
        if was_mortal && next != NextCheck::Never {
            self.mortal.store(true, Ordering::Release);
        }
        let mut next_ms = self.next_look(next, now_ms);
        if let Some(expires) = self.spec.limits.expires_after_ms {
            if depth.consumers > 0 {
                self.touch();
            }
            let over_ms = self.used_ms.load(Ordering::Relaxed).saturating_add_unsigned(expires);
            if over_ms <= now_ms {
                return Aged::Over;
            }
            next_ms = Some(next_ms.map_or(over_ms, |next| next.min(over_ms)));
        }
        Aged::Until(next_ms)
    }

    fn next_look(&self, next: NextCheck, now_ms: i64) -> Option<i64> {
        // What has no room and is not on the disk yet could not die at this look.
        let over = next != NextCheck::Never && self.is_over();
        let known_ms = match next {
            NextCheck::At(at_ms) => at_ms.max(now_ms + 1),
            _ => i64::MAX,
        };
        let (first_ms, max_ms) = match next {
            NextCheck::Never => return None,
            _ if over => LOOKS_SOON_MS,
            NextCheck::At(_) => {
                self.idle_looks.store(0, Ordering::Relaxed);
                return Some(known_ms);
            }
            NextCheck::Soon | NextCheck::Later if !self.is_mortal() => {
                self.idle_looks.store(0, Ordering::Relaxed);
                return None;
            }
            NextCheck::Soon => LOOKS_SOON_MS,
            NextCheck::Later => LOOKS_SOMETIME_MS,
        };
        let before = self.idle_looks.fetch_add(1, Ordering::Relaxed).min(16);
        Some((now_ms + (first_ms << before).min(max_ms)).min(known_ms))
    }
}

/// What time made of a queue.
pub(crate) enum Aged {
    /// Nobody used it for as long as it lives.
    Over,
    /// To be looked at again then, if a time is known.
    Until(Option<i64>),
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

    /// Only the time to look again was taken that grows while there is no room: the head died up to a second late.
    #[tokio::test]
    async fn a_queue_without_room_is_looked_at_when_its_head_is_to_die() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), LogOptions::default()).unwrap();
        let broker = Broker::open(log, BrokerConfig::default()).unwrap();
        let limits = QueueLimits { bytes_max: Some(5), ..QueueLimits::default() };
        let spec = QueueSpec { limits, ..QueueSpec::default() };
        let queue = broker.default_namespace().declare_queue("q", spec).unwrap().it;
        // On its way, and not there yet.
        queue.subscription().add_bytes(10);
        assert!(queue.is_over());
        for _ in 0..20 {
            assert_eq!(queue.next_look(NextCheck::At(1005), 1000), Some(1005));
        }
        assert_eq!(queue.next_look(NextCheck::At(9000), 1000), Some(1000 + LOOKS_SOON_MS.1));
        assert_eq!(queue.next_look(NextCheck::Never, 1000), None);
    }
}
