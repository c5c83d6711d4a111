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
    /// Named publishers that number their messages, each in one stream.
    pub publisher_sequences_max: usize,
    /// Dead letters without a receiver that one queue keeps.
    pub undelivered_messages_max: usize,
    /// Levels of an address, a routing key or a pattern over them.
    pub address_levels_max: usize,
    /// Bytes of an address, a routing key or a pattern over them.
    pub address_bytes_max: usize,
    /// Policies, and as many operator policies.
    pub policies_max: usize,
    /// Ids of transactions.
    pub transactional_ids_max: usize,
    /// Partitions, groups and offsets in one transaction.
    pub transaction_parts_max: usize,
    /// Messages that wait until they are due.
    pub delayed_messages_max: usize,
    /// Bytes of the last messages that an exchange keeps for queues to be bound.
    pub exchange_history_bytes_max: usize,
    /// Values of a header that an exchange remembers.
    pub exchange_seen_max: usize,
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
            publisher_sequences_max: 1_000_000,
            undelivered_messages_max: 100_000,
            // As many as a routing key of AMQP can have, and the longest topic of MQTT.
            address_levels_max: 256,
            address_bytes_max: 65_535,
            policies_max: 1_000,
            transactional_ids_max: 1_000_000,
            transaction_parts_max: 100_000,
            delayed_messages_max: 10_000_000,
            exchange_history_bytes_max: 1 << 20,
            exchange_seen_max: 100_000,
        }
    }
}

impl Limits {
    /// Checks the length of an address, or of a pattern over addresses, whose levels are separated so.
    pub(crate) fn check_address(&self, separator: u8, text: &[u8]) -> Result<(), LimitReached> {
        check("bytes in an address", text.len().saturating_sub(1), self.address_bytes_max)?;
        // A short one cannot have too many.
        if text.len() < self.address_levels_max {
            return Ok(());
        }
        let separators = memchr::memchr_iter(separator, text).count();
        check("levels in an address", separators, self.address_levels_max)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_bounded_in_levels_and_bytes() {
        let limits = Limits { address_levels_max: 3, address_bytes_max: 10, ..Limits::default() };
        let check = |separator, text: &str| {
            limits.check_address(separator, text.as_bytes()).map_err(|error| error.what)
        };
        assert_eq!(check(b'/', "a/b/c.d.e"), Ok(()));
        assert_eq!(check(b'/', "a/b/c/d"), Err("levels in an address"));
        assert_eq!(check(b'/', "///"), Err("levels in an address"));
        assert_eq!(check(b'.', "a.b.c/d/e"), Ok(()));
        assert_eq!(check(b'.', "a.b.c.d"), Err("levels in an address"));
        assert_eq!(check(b'.', "abcdefghij"), Ok(()));
        assert_eq!(check(b'.', "abcdefghijk"), Err("bytes in an address"));
        assert_eq!(check(b'.', ""), Ok(()));
    }
}
