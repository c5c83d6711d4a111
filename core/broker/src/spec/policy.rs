//! What a policy is set as.

use serde::{Deserialize, Serialize};

use crate::value::Arguments;

/// Which kind of policies one belongs to. Of each kind at most one applies to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// A policy.
    Ordinary,
    /// An operator policy: it bounds what arguments and ordinary policies may ask for.
    Operator,
}

impl PolicyKind {
    /// Both kinds.
    pub const ALL: [PolicyKind; 2] = [PolicyKind::Ordinary, PolicyKind::Operator];

    /// What one is called.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            PolicyKind::Ordinary => "policy",
            PolicyKind::Operator => "operator policy",
        }
    }
}

/// The objects that a policy can apply to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppliesTo {
    /// Queues and exchanges.
    #[default]
    All,
    /// Exchanges.
    Exchanges,
    /// Queues of every type.
    Queues,
    /// Queues of the type `classic`.
    ClassicQueues,
    /// Queues of the type `quorum`.
    QuorumQueues,
    /// Queues of the type `stream`.
    Streams,
}

impl AppliesTo {
    /// All of them.
    pub const ALL: [AppliesTo; 6] = [
        AppliesTo::All,
        AppliesTo::Exchanges,
        AppliesTo::Queues,
        AppliesTo::ClassicQueues,
        AppliesTo::QuorumQueues,
        AppliesTo::Streams,
    ];

    /// The name that users read and write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AppliesTo::All => "all",
            AppliesTo::Exchanges => "exchanges",
            AppliesTo::Queues => "queues",
            AppliesTo::ClassicQueues => "classic_queues",
            AppliesTo::QuorumQueues => "quorum_queues",
            AppliesTo::Streams => "streams",
        }
    }
}

impl std::str::FromStr for AppliesTo {
    type Err = ();

    fn from_str(s: &str) -> Result<AppliesTo, ()> {
        AppliesTo::ALL.into_iter().find(|to| to.as_str() == s).ok_or(())
    }
}

/// What a policy is set as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// A regular expression; the policy applies to objects in whose names it finds a match.
    pub pattern: String,
    /// The objects that it can apply to.
    pub applies_to: AppliesTo,
    /// Of several that match, the one with the highest applies.
    pub priority: i64,
    /// The settings.
    pub definition: Arguments,
}
