//! What falls due when: queues to be looked at because messages in them grow too old, sessions whose will or end has
//! come, consumers that were called and did not come. Housekeeping sleeps until the first of it, and is woken when
//! something earlier appears.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::now_ms;
use crate::namespace::Inner;
use crate::queue::Queue;
use crate::session::SessionCore;
use crate::subscription::Subscription;

/// What is to be done at its time.
pub(crate) enum Due {
    /// A queue is to be looked at.
    Queue(Weak<Inner>, Weak<Queue>),
    /// A session's will is due, or it ends.
    Session(Weak<SessionCore>),
    /// Consumers of a subscription were called, and others wait behind them.
    Line(Weak<Subscription>),
}

/// See the module's text. One a broker.
pub(crate) struct Clockwork {
    /// By time (milliseconds since 1970) and what it is.
    due: Mutex<BTreeMap<(i64, u64), Due>>,
    /// Until when housekeeping sleeps if nobody wakes it.
    sleeps_until_ms: AtomicI64,
    earlier: Notify,
}

impl Default for Clockwork {
    fn default() -> Self {
        Clockwork { due: Mutex::default(), sleeps_until_ms: AtomicI64::new(i64::MAX), earlier: Notify::new() }
    }
}

fn queue_id(queue: &Queue) -> u64 {
    queue.subscription().id() << 2
}

fn session_id(id: u64) -> u64 {
    id << 2 | 1
}

fn line_id(subscription: &Subscription) -> u64 {
    subscription.id() << 2 | 2
}

impl Clockwork {
    /// The queue is to be looked at then, if not before.
    pub(crate) fn look_at(&self, namespace: &Weak<Inner>, queue: &Arc<Queue>, at_ms: i64) {
        let armed_ms = queue.armed_ms();
        if armed_ms.load(Ordering::Acquire) <= at_ms {
            return;
        }
        {
            let mut due = self.due.lock();
            let before = armed_ms.load(Ordering::Acquire);
            if before <= at_ms {
                return;
            }
            due.remove(&(before, queue_id(queue)));
            due.insert((at_ms, queue_id(queue)), Due::Queue(namespace.clone(), Arc::downgrade(queue)));
            armed_ms.store(at_ms, Ordering::Release);
        }
        self.wake_for(at_ms);
    }

    pub(crate) fn set_session(&self, at_ms: i64, id: u64, session: &Arc<SessionCore>) {
        self.due.lock().insert((at_ms, session_id(id)), Due::Session(Arc::downgrade(session)));
        self.wake_for(at_ms);
    }

    pub(crate) fn forget_session(&self, at_ms: i64, id: u64) {
        self.due.lock().remove(&(at_ms, session_id(id)));
    }

    /// The consumers of a subscription are to be looked at then, and not at the time set before. Takes no lock but its
    /// own: the log's thread calls it.
    pub(crate) fn look_at_line(&self, subscription: &Arc<Subscription>, set_ms: Option<i64>, at_ms: i64) {
        let id = line_id(subscription);
        {
            let mut due = self.due.lock();
            set_ms.map(|set_ms| due.remove(&(set_ms, id)));
            due.insert((at_ms, id), Due::Line(Arc::downgrade(subscription)));
        }
        self.wake_for(at_ms);
    }

    fn wake_for(&self, at_ms: i64) {
        if at_ms < self.sleeps_until_ms.load(Ordering::SeqCst) {
            self.earlier.notify_one();
        }
    }

    /// Sleeps until something is due, or until this time.
    pub(crate) async fn wait(&self, until: Instant) {
        // Whoever adds something while this looks wakes it.
        self.sleeps_until_ms.store(i64::MAX, Ordering::SeqCst);
        let first_ms = self.due.lock().first_key_value().map(|((at, _), _)| *at);
        let until = match first_ms {
            Some(at) => {
                self.sleeps_until_ms.store(at, Ordering::SeqCst);
                let left = u64::try_from(at.saturating_sub(now_ms())).unwrap_or(0);
                until.min(Instant::now() + Duration::from_millis(left))
            }
            None => until,
        };
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = self.earlier.notified() => {}
        }
    }

    /// Takes what is due.
    pub(crate) fn take(&self, now_ms: i64) -> Vec<Due> {
        let mut taken = Vec::new();
        // Let go of without the lock: the last of a queue takes the log's.
        let mut queues = Vec::new();
        let mut due = self.due.lock();
        while let Some(first) = due.first_entry().filter(|first| first.key().0 <= now_ms) {
            let next = first.remove();
            if let Due::Queue(_, queue) = &next
                && let Some(queue) = queue.upgrade()
            {
                queue.armed_ms().store(i64::MAX, Ordering::Release);
                queues.push(queue);
            }
            taken.push(next);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Broker, BrokerConfig, QueueSpec};
    use inver_storage::{Log, LogOptions};

    #[tokio::test]
    async fn a_queue_is_looked_at_once_at_its_earliest_time() {
        let dir = tempfile::tempdir().unwrap();
        let broker =
            Broker::open(Log::open(dir.path(), LogOptions::default()).unwrap(), BrokerConfig::default())
                .unwrap();
        let namespace = broker.default_namespace();
        let queue = namespace.declare_queue("q", QueueSpec::default()).unwrap().it;
        let (clockwork, of) = (Clockwork::default(), namespace.downgrade());
        for at in [500, 300, 400, 300] {
            clockwork.look_at(&of, &queue, at);
        }
        assert!(clockwork.take(299).is_empty());
        assert_eq!(clockwork.take(1000).len(), 1);
        assert!(clockwork.take(1000).is_empty());
        // What is added while nobody looks wakes who waits, however late that begins.
        let far = Instant::now() + Duration::from_secs(60);
        clockwork.look_at(&of, &queue, now_ms() + 1);
        tokio::time::timeout(Duration::from_secs(10), clockwork.wait(far)).await.unwrap();
    }
}
