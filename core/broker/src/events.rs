//! Events for programs: what was created and deleted, who came and left, what was changed and by whom.
//!
//! Owns the form of an event and the bounded queue of those that wait to be published. Does not own how they are published:
//! a protocol takes them and maps them to its messages. While nobody listens no event is made.
//!
//! Told for changes of the topology, connections and administration only; nothing is told for a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clock::Clock;
use crate::telemetry::EVENTS_DROPPED;
use crate::value::{Arguments, Value};
use crate::waiting::Waiting;

/// Bytes of one fact: one of more (the arguments of a queue, say) is left out.
const FACT_BYTES_MAX: usize = 8 * 1024;

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What happened, such as `queue.created`.
    pub name: &'static str,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// What is known of it.
    pub facts: Facts,
}

/// What is known of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The namespace that it happened in.
    pub namespace: Option<Arc<str>>,
    /// Who caused it: a user's name, empty for an anonymous client; none: the broker itself.
    pub by: Option<String>,
    /// Further facts by their names.
    pub more: Arguments,
}

impl Facts {
    /// These facts.
    #[must_use]
    pub fn new<const N: usize>(more: [(&str, Value); N]) -> Facts {
        let more = more.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Facts { more, ..Facts::default() }
    }

    /// With the user that caused it.
    #[must_use]
    pub fn by(self, user: Option<&str>) -> Facts {
        Facts { by: Some(user.unwrap_or_default().to_owned()), ..self }
    }

    /// With the namespace that it happened in.
    #[must_use]
    pub fn within(self, namespace: &Arc<str>) -> Facts {
        Facts { namespace: Some(namespace.clone()), ..self }
    }
}

/// The events of a broker; cheap to clone.
#[derive(Clone, Debug)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    is_heard: AtomicBool,
    waiting: Waiting<Event>,
}

impl Default for Events {
    fn default() -> Events {
        Events::new(Clock::default(), 0)
    }
}

impl Events {
    /// Of which at most `max` wait to be published.
    pub(crate) fn new(clock: Clock, max: usize) -> Events {
        let (is_heard, waiting) = (AtomicBool::new(false), Waiting::new(max, EVENTS_DROPPED));
        Events(Arc::new(Inner { clock, is_heard, waiting }))
    }

    /// Whether somebody listens.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.is_heard.load(Ordering::Relaxed)
    }

    pub(crate) fn set_heard(&self, is_heard: bool) {
        self.0.is_heard.store(is_heard, Ordering::Relaxed);
    }

    /// Tells who listens. Never waits; while nobody listens the facts are not asked for.
    pub fn tell(&self, name: &'static str, facts: impl FnOnce() -> Facts) {
        if !self.is_heard() {
            return;
        }
        if self.0.waiting.is_full() {
            self.count_dropped(1);
            return;
        }
        let time_ms = self.0.clock.now_ms();
        let mut facts = facts();
        facts.more.retain(|_, fact| fact.bytes() <= FACT_BYTES_MAX);
        self.0.waiting.push(|| Event { name, time_ms, facts });
    }

    /// Counts events that are not published.
    pub fn count_dropped(&self, events: u64) {
        self.0.waiting.count_dropped(events);
    }

    /// Takes the oldest events, at most `max`, and how many found no place since the last call. Waits for the next if there
    /// is none.
    pub async fn take(&self, max: usize) -> (Vec<Event>, u64) {
        loop {
            let events = self.0.waiting.take(max);
            if !events.is_empty() {
                return (events, self.0.waiting.take_dropped());
            }
            self.0.waiting.added().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_wait_within_their_bound_once_somebody_listens() {
        let events = Events::new(Clock::manual(7), 2);
        events.tell("queue.created", || unreachable!("nobody listens"));
        events.set_heard(true);
        for name in ["queue.created", "queue.deleted", "binding.created"] {
            events.tell(name, || Facts::new([("name", "q".into())]).by(None));
        }
        let (told, dropped) = events.take(10).await;
        let names: Vec<_> = told.iter().map(|event| (event.name, event.time_ms)).collect();
        assert_eq!(names, [("queue.created", 7), ("queue.deleted", 7)]);
        assert_eq!((dropped, told[0].facts.by.as_deref()), (1, Some("")));
        for _ in 0..2 {
            let arguments = Value::List(vec!["x".repeat(FACT_BYTES_MAX).into()]);
            events.tell("queue.created", || Facts::new([("name", "q".into()), ("arguments", arguments)]));
        }
        events.tell("queue.created", || unreachable!("there is no place"));
        let (told, dropped) = events.take(10).await;
        assert_eq!((told.len(), dropped), (2, 1));
        assert!(told[0].facts.more.keys().eq(["name"]), "{:?}", told[0].facts.more.keys());
        events.set_heard(false);
        events.tell("queue.created", || unreachable!("nobody listens any more"));
    }
}
