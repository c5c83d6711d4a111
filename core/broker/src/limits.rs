//! How much of everything a namespace can have.

/// Bounds of a namespace. At a bound the next one is refused with [`LimitReached`], which each protocol words in its
/// own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Log topics and durable queues that are seen as topics.
    pub topics_max: usize,
    /// Queues, those of groups among them.
    pub queues_max: usize,
    /// Exchanges.
    pub exchanges_max: usize,
    /// Bindings that lead away from one exchange; of the hub sessions' filters are among them.
    pub bindings_max: usize,
    /// Sessions, connected or not.
    pub sessions_max: usize,
    /// Named subscriptions of log topics.
    pub subscriptions_max: usize,
    /// Addresses with a retained value.
    pub retained_values_max: usize,
    /// Bytes of retained values, with their addresses.
    pub retained_bytes_max: u64,
    /// CommittedOffsets of groups, a partition each.
    pub committed_offsets_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            topics_max: 2_000_000,
            queues_max: 2_000_000,
            exchanges_max: 100_000,
            bindings_max: 10_000_000,
            sessions_max: 2_000_000,
            subscriptions_max: 2_000_000,
            retained_values_max: 2_000_000,
            retained_bytes_max: 1024 * 1024 * 1024,
            committed_offsets_max: 10_000_000,
        }
    }
}

/// There can be no more of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit reached: at most {max} {what}")]
pub struct LimitReached {
    /// Of what.
    pub what: &'static str,
    /// The bound.
    pub max: u64,
}

/// Whether there is room for one more.
pub(crate) fn check(what: &'static str, count: usize, max: usize) -> Result<(), LimitReached> {
    if count >= max { Err(LimitReached { what, max: max as u64 }) } else { Ok(()) }
}
