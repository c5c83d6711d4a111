//! Partitions, by the ids of their topics.

use std::collections::BTreeSet;

/// A partition: the id of its topic, and its number.
pub(crate) type PartitionId = (u128, i32);

/// Partitions, by topic.
pub(crate) type Partitions = BTreeSet<PartitionId>;
