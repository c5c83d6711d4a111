//! An encoded answer that many requests share, for as long as it is on its way to a client of any of them.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// The last answer of one kind, by what it depends on. Holds no memory once no response has it.
pub(crate) struct SharedAnswer<K>(Mutex<Option<(K, Weak<Vec<u8>>)>>);

impl<K> Default for SharedAnswer<K> {
    fn default() -> Self {
        SharedAnswer(Mutex::new(None))
    }
}

impl<K: PartialEq> SharedAnswer<K> {
    /// The answer for a key: the last one if it is there still, else a new one. Waits while another thread makes one, so it is
    /// for threads that may wait.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> Vec<u8>) -> Bytes {
        let mut last = self.0.lock();
        let known = last.as_ref().filter(|(of, _)| *of == key).and_then(|(_, answer)| answer.upgrade());
        let answer = known.unwrap_or_else(|| {
            let new = Arc::new(make());
            *last = Some((key, Arc::downgrade(&new)));
            new
        });
        Bytes::from_owner(Shared(answer))
    }
}

struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_made_once_while_it_is_in_use() {
        let answers = SharedAnswer::default();
        let first = answers.get(1, || vec![7; 3]);
        let second = answers.get(1, || panic!("it is there"));
        assert_eq!((&first[..], first.as_ptr()), (&[7, 7, 7][..], second.as_ptr()));
        drop(first);
        assert_eq!(answers.get(1, || panic!("it is there")), second);
        assert_eq!(&answers.get(2, || vec![8])[..], [8], "it depends on something else");
        drop(second);
        assert_eq!(&answers.get(1, || vec![9])[..], [9], "nobody had it any more");
    }
}
