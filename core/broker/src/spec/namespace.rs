//! What a namespace is created as, and its limits.

use serde::{Deserialize, Serialize};

/// The namespace that always exists.
pub(crate) const DEFAULT_NAMESPACE: &str = "/";

/// Limits of one namespace; none: only those that hold for every namespace ([`Limits`](crate::Limits)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceLimits {
    /// Connections at the same time.
    pub connections_max: Option<u32>,
    /// Queues.
    pub queues_max: Option<u32>,
    /// Topics, durable queues included.
    pub topics_max: Option<u32>,
    /// Sessions, connected or not.
    pub sessions_max: Option<u32>,
    /// Bytes of the messages that it keeps in the log. Checked a few times a second: what is written in between may
    /// exceed it.
    pub bytes_max: Option<u64>,
}

/// What is known of a namespace beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceSpec {
    /// A text for people.
    pub description: String,
    /// Tags: texts for people and tools, without a meaning of their own.
    pub tags: Vec<String>,
    /// The type of queues that are declared without one, for protocols that know types of queues.
    pub default_queue_type: Option<String>,
    /// Its limits.
    pub limits: NamespaceLimits,
    /// It cannot be deleted until this is unset.
    pub is_protected: bool,
}
