//! The last messages of an exchange, for queues that are bound to it later. In memory: they are gone after a restart.

use std::collections::VecDeque;

use bytes::Bytes;
use inver_storage::batch::BatchBuilder;
use parking_lot::Mutex;

use crate::message::Message;
use crate::value::HeaderLookup;

/// The header of a message that is not kept, if it is true.
const NO_STORE: &str = "x-recent-history-no-store";

/// The last messages of an exchange.
pub(crate) struct History {
    messages_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Each as a batch of its own.
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl History {
    pub(crate) fn new(messages_max: usize) -> History {
        History { messages_max, kept: Mutex::default() }
    }

    /// Keeps a message, and drops the oldest ones beyond the bounds.
    pub(crate) fn keep(&self, message: &Message<'_>, headers: &dyn HeaderLookup, bytes_max: usize) {
        if headers.get(NO_STORE).and_then(|value| value.as_bool()) == Some(true) {
            return;
        }
        let Message { timestamp_ms, key, headers, value, .. } = message;
        let mut single = BatchBuilder::new(0);
        single.push_with(*timestamp_ms, *key, headers.count as usize, headers.bytes, *value);
        let batch = single.finish().into_bytes();
        let mut kept = self.kept.lock();
        kept.bytes += batch.len();
        kept.messages.push_back(batch);
        while kept.messages.len() > self.messages_max || kept.bytes > bytes_max {
            let Some(oldest) = kept.messages.pop_front() else { break };
            kept.bytes -= oldest.len();
        }
    }

    /// The messages, oldest first, each as a batch of its own.
    pub(crate) fn messages(&self) -> Vec<Bytes> {
        self.kept.lock().messages.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use inver_storage::batch::records;

    use super::*;
    use crate::message::Headers;
    use crate::value::Value;

    struct NoStore(bool);

    impl HeaderLookup for NoStore {
        fn get(&self, name: &str) -> Option<Value> {
            (name == NO_STORE).then_some(Value::Bool(self.0))
        }
    }

    fn keep(history: &History, value: &[u8], no_store: bool, bytes_max: usize) {
        let (headers, value) = (Headers::default(), Some(value));
        let message = Message { timestamp_ms: 1, key: None, value, headers, guaranteed: true, lookup: None };
        history.keep(&message, &NoStore(no_store), bytes_max);
    }

    fn values(history: &History) -> Vec<Vec<u8>> {
        let all = history.messages();
        let record = |batch: &Bytes| records(batch).unwrap().next().unwrap().unwrap();
        all.iter().map(|batch| record(batch).value.unwrap().to_vec()).collect()
    }

    #[test]
    fn the_last_messages_within_the_bounds_are_kept() {
        let history = History::new(2);
        for (value, no_store) in [(b"a", false), (b"b", false), (b"c", true), (b"d", false)] {
            keep(&history, value, no_store, 1 << 20);
        }
        assert_eq!(values(&history), [b"b", b"d"]);
        keep(&history, &[b'e'; 1000], false, 1100);
        assert_eq!(values(&history), [vec![b'e'; 1000]], "the others are beyond the bytes");
        keep(&history, &[b'f'; 2000], false, 1100);
        assert!(values(&history).is_empty());
        assert_eq!(history.kept.lock().bytes, 0);
    }
}
