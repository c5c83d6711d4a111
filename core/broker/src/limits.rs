//! Bounds of a namespace, and of access control.

/// Bounds of a namespace. Beyond a bound creation is refused with [`LimitReached`], which each protocol translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Log topics, and durable queues that are listed as topics.
    pub topics_max: usize,
    /// Queues, including those of shared-subscription groups.
    pub queues_max: usize,
    /// Exchanges.
    pub exchanges_max: usize,
    /// Bindings from one exchange. Sessions' filters are bindings from the hub.
    pub bindings_max: usize,
    /// Sessions, connected or not.
    pub sessions_max: usize,
    /// Named subscriptions of log topics.
    pub subscriptions_max: usize,
    /// Addresses with a retained value.
    pub retained_values_max: usize,
    /// Bytes of retained values, with their addresses.
    pub retained_bytes_max: u64,
    /// Committed offsets of consumer groups, one for each partition.
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

/// Bounds of access control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLimits {
    /// Stored users.
    pub users_max: usize,
    /// Stored rules.
    pub rules_max: usize,
    /// Stored quotas.
    pub quotas_max: usize,
    /// Bans.
    pub bans_max: usize,
}

impl Default for AccessLimits {
    fn default() -> Self {
        AccessLimits { users_max: 100_000, rules_max: 100_000, quotas_max: 10_000, bans_max: 10_000 }
    }
}

/// A bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit reached: at most {max} {what}")]
pub struct LimitReached {
    /// What is bounded.
    pub what: &'static str,
    /// The bound.
    pub max: u64,
}

/// Checks whether one more is allowed.
pub(crate) fn check(what: &'static str, count: usize, max: usize) -> Result<(), LimitReached> {
    if count >= max { Err(LimitReached { what, max: max as u64 }) } else { Ok(()) }
}
