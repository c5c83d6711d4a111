//! What an exchange has passed on, by a header of its messages: it does not pass on a message with a value of that header again
//! that it has seen, for a time.
//!
//! In memory, and bounded: beyond the bound the oldest value is forgotten. A value counts as seen once its message is in the
//! log, so that a publisher whose message was refused or lost can send it again.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::completion::Completion;
use crate::spec::{ExchangeSpec, SEEN_TTL};
use crate::value::HeaderLookup;

/// The header whose values are compared.
const HEADER: &str = "x-deduplication-header";

/// The values that an exchange has seen.
pub(crate) struct Seen {
    max: usize,
    ttl_ms: Option<i64>,
    hasher: RandomState,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    values: FxHashMap<u128, Sight>,
    /// The values and the numbers of their sights, oldest first.
    order: VecDeque<(u128, u64)>,
    next: u64,
}

/// That a value was seen.
struct Sight {
    number: u64,
    expires_ms: i64,
    /// When its message is stored.
    stored: Completion,
}

/// A value that is seen for the first time, with a message that is not stored yet.
#[derive(Clone)]
pub(crate) struct FirstSeen {
    seen: Arc<Seen>,
    value: u128,
    expires_ms: i64,
}

impl Seen {
    /// What an exchange remembers, if it is one that does.
    pub(crate) fn of(spec: &ExchangeSpec) -> Option<Arc<Seen>> {
        let ttl = spec.arguments.get(SEEN_TTL).and_then(|ttl| i64::try_from(ttl.as_int()?).ok());
        Some(Arc::new(Seen::new(spec.seen_max()?, ttl)))
    }

    /// Remembers at most `max` values, each for so long; none: until others take its place.
    fn new(max: usize, ttl_ms: Option<i64>) -> Seen {
        Seen { max, ttl_ms, hasher: RandomState::new(), known: Mutex::default() }
    }

    /// Whether a message has a value that is not remembered. If it is, when the message that had it first is stored; none for
    /// a message without the header.
    pub(crate) fn look(
        self: &Arc<Self>,
        headers: &dyn HeaderLookup,
        now_ms: i64,
    ) -> Option<Result<FirstSeen, Completion>> {
        let bytes = headers.get(HEADER)?.as_bytes_to_hash();
        // Two hashes by keys of the process: nobody can make two values that are one here.
        let half = |half: u8| u128::from(self.hasher.hash_one((half, &bytes)));
        let value = half(0) << 64 | half(1);
        if let Some(sight) = self.known.lock().values.get(&value).filter(|sight| sight.expires_ms > now_ms) {
            return Some(Err(sight.stored));
        }
        let own_ttl = headers.get(SEEN_TTL).and_then(|ttl| i64::try_from(ttl.as_int()?).ok());
        let ttl_ms = own_ttl.filter(|ttl| *ttl > 0).or(self.ttl_ms);
        let expires_ms = ttl_ms.map_or(i64::MAX, |ttl| now_ms.saturating_add(ttl));
        Some(Ok(FirstSeen { seen: self.clone(), value, expires_ms }))
    }

    fn remember(&self, value: u128, expires_ms: i64, stored: Completion) {
        let mut known = self.known.lock();
        let Known { values, order, next } = &mut *known;
        let number = *next;
        *next += 1;
        values.insert(value, Sight { number, expires_ms, stored });
        order.push_back((value, number));
        while order.len() > self.max {
            let Some((oldest, number)) = order.pop_front() else { break };
            if values.get(&oldest).is_some_and(|sight| sight.number == number) {
                values.remove(&oldest);
            }
        }
    }
}

impl FirstSeen {
    /// Names it among those of all exchanges.
    pub(crate) fn key(&self) -> (usize, u128) {
        (Arc::as_ptr(&self.seen).addr(), self.value)
    }

    /// Its message is stored once this is complete.
    pub(crate) fn remember(self, stored: Completion) {
        self.seen.remember(self.value, self.expires_ms, stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    /// A message with the header, and a time to live of its own.
    struct Sent(&'static str, Option<i64>);

    impl HeaderLookup for Sent {
        fn get(&self, name: &str) -> Option<Value> {
            match name {
                HEADER => Some(self.0.into()),
                SEEN_TTL => self.1.map(Value::from),
                _ => None,
            }
        }
    }

    /// Whether a message is passed on; it is stored at once then.
    fn passes(seen: &Arc<Seen>, message: &Sent, now_ms: i64) -> bool {
        match seen.look(message, now_ms).unwrap() {
            Ok(first) => {
                first.remember(Completion::Now);
                true
            }
            Err(_) => false,
        }
    }

    #[test]
    fn values_are_remembered_within_their_number_and_time() {
        let seen = Arc::new(Seen::new(2, Some(100)));
        assert!(passes(&seen, &Sent("a", None), 0) && !passes(&seen, &Sent("a", None), 99));
        assert!(passes(&seen, &Sent("a", None), 100), "its time has passed");
        assert!(passes(&seen, &Sent("b", Some(1_000)), 100));
        assert!(!passes(&seen, &Sent("b", None), 1_000), "the message's own time");
        assert!(passes(&seen, &Sent("c", None), 100), "it takes the place of the oldest");
        assert!(passes(&seen, &Sent("a", None), 100) && !passes(&seen, &Sent("c", None), 100));
        assert!(seen.known.lock().order.len() <= 2 && seen.known.lock().values.len() <= 2);
    }

    #[test]
    fn what_was_not_stored_is_not_remembered() {
        let seen = Arc::new(Seen::new(10, None));
        assert!(seen.look(&Sent("a", None), 0).unwrap().is_ok());
        assert!(passes(&seen, &Sent("a", None), 0) && !passes(&seen, &Sent("a", None), i64::MAX - 1));
        struct Plain;
        impl HeaderLookup for Plain {
            fn get(&self, _: &str) -> Option<Value> {
                None
            }
        }
        assert!(seen.look(&Plain, 0).is_none(), "a message without the header");
    }
}
