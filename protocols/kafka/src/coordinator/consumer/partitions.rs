//! Partitions, by the ids of their topics.

use std::collections::BTreeSet;
use std::iter;

/// A partition: the id of its topic, and its number.
pub(crate) type PartitionId = (u128, i32);

/// Partitions, by topic.
pub(crate) type Partitions = BTreeSet<PartitionId>;

/// The topics of partitions, each with the numbers of its own.
pub(crate) fn by_topic(partitions: &Partitions) -> impl Iterator<Item = (u128, Vec<i32>)> {
    let mut rest = partitions.iter().peekable();
    iter::from_fn(move || {
        let (topic, first) = rest.next()?;
        let more = iter::from_fn(|| rest.next_if(|(next, _)| next == topic));
        Some((*topic, iter::once(*first).chain(more.map(|(_, number)| *number)).collect()))
    })
}

/// Partitions of topics with the numbers of their own.
pub(crate) fn of_topics<'a>(topics: impl IntoIterator<Item = (u128, &'a [i32])>) -> Partitions {
    let topics = topics.into_iter();
    topics.flat_map(|(topic, numbers)| numbers.iter().map(move |number| (topic, *number))).collect()
}
