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

    /// A message to be kept, as a batch of its own; none if its headers forbid it, or if it is larger than all that is kept.
    pub(crate) fn copy(message: &Message<'_>, headers: &dyn HeaderLookup, bytes_max: usize) -> Option<Bytes> {
        if headers.get(NO_STORE).and_then(|value| value.as_bool()) == Some(true) {
            return None;
        }
        let Message { timestamp_ms, key, headers, value, .. } = message;
        let bytes = headers.bytes.len() + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        // Before the copy: who sends large messages has each of them copied otherwise.
        if bytes > bytes_max {
            return None;
        }
        let mut single = BatchBuilder::new(0);
        single.push_with(*timestamp_ms, *key, headers.count as usize, headers.bytes, *value);
        Some(single.finish().into_bytes()).filter(|batch| batch.len() <= bytes_max)
    }

    /// Keeps a [`copy`](Self::copy) of a message, and drops the oldest ones beyond the bounds.
    pub(crate) fn keep(&self, batch: Bytes, bytes_max: usize) {
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
        let copy = History::copy(&message, &NoStore(no_store), bytes_max);
        copy.into_iter().for_each(|copy| history.keep(copy, bytes_max));
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
        let bytes = history.messages()[0].len();
        assert_eq!(history.kept.lock().bytes, bytes);
    }

    #[test]
    fn a_message_beyond_the_bytes_is_not_kept_and_drops_no_other() {
        let history = History::new(2);
        keep(&history, b"a", false, 1100);
        // The values alone, and with what a batch has around them.
        for bytes in [2000, 1101, 1099] {
            keep(&history, &vec![b'f'; bytes], false, 1100);
            assert_eq!(values(&history), [b"a"], "{bytes}");
        }
    }
}
