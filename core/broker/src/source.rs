//! Where users, rules and quotas come from.

/// Where a user, a rule or a quota comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Stored in the log: may be changed and deleted.
    Stored,
    /// The configuration: read-only.
    Configuration,
}
