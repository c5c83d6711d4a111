//! What a request names more than once.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::reply::Refusal;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;

/// The items that occur more than once.
pub(crate) fn repeated<T: Clone + Eq + Hash>(items: impl Iterator<Item = T>) -> HashSet<T> {
    let mut seen = HashSet::new();
    items.filter(|item| !seen.insert(item.clone())).collect()
}

/// The topics of a request by name. One that is named more than once is refused, and answered once, as in Kafka.
pub(crate) struct TopicNames(HashMap<Str, usize>);

impl TopicNames {
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a Str>) -> TopicNames {
        let mut times = HashMap::new();
        names.for_each(|name| *times.entry(name.clone()).or_default() += 1);
        TopicNames(times)
    }

    /// Whether this one is answered, and if so its refusal.
    pub(crate) fn next(&mut self, name: &Str) -> Option<Result<(), Refusal>> {
        match self.0.get_mut(name)? {
            1 => Some(Ok(())),
            0 => None,
            times => {
                *times = 0;
                Some(Err((ErrorCode::INVALID_REQUEST, "Duplicate topic name.".to_owned())))
            }
        }
    }
}
