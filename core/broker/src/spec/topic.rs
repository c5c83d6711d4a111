//! What a topic is created as, and why that is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use inver_storage::SubmitError;
use serde::{Deserialize, Serialize};

use crate::limits::LimitReached;

/// A topic's identity; a topic recreated under the same name has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicId(pub u128);

/// Where the identities of new topics come from. The default: they are random.
#[derive(Clone, Debug, Default)]
pub struct TopicIds(Option<Arc<AtomicU64>>);

impl TopicIds {
    /// Identities in the order of numbers, so that a simulation can be repeated.
    #[must_use]
    pub fn numbered() -> TopicIds {
        TopicIds(Some(Arc::default()))
    }

    pub(crate) fn next(&self) -> TopicId {
        TopicId(match &self.0 {
            None => uuid::Uuid::new_v4().as_u128(),
            Some(last) => u128::from(last.fetch_add(1, Ordering::Relaxed)) + 1,
        })
    }
}

/// How a topic retains messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopicKind {
    /// By time, size or key.
    Log,
    /// Until acknowledged.
    Queue,
}

/// Settings of a topic by name; an absent setting has its default.
pub type TopicConfig = BTreeMap<String, String>;

/// What a new topic is created as.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// At least one.
    pub partitions: u32,
    /// Settings by name.
    pub config: TopicConfig,
}

/// Why a topic cannot be created, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The name is taken.
    #[error("topic '{0}' exists")]
    Exists(String),
    /// No topic has that name.
    #[error("there is no topic '{0}'")]
    Unknown(String),
    /// Empty, too long, or `.` or `..`.
    #[error("'{0}' cannot be the name of a topic: {1}")]
    BadName(String, &'static str),
    /// None, too many, or fewer than there are.
    #[error("{0}")]
    BadPartitions(String),
    /// A setting has an invalid value.
    #[error("{0}")]
    BadConfig(String),
    /// The client may not receive all that a capture rule of the topic would append to it.
    #[error("no permission to receive all messages of '{0}', which the topic would capture")]
    NotAllowed(String),
    /// The topic is a queue, which only queue operations change or delete.
    #[error("'{0}' is a queue")]
    IsQueue(String),
    /// A bound of the namespace is reached.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// Partitions of one topic.
pub const PARTITIONS_MAX: u32 = 100_000;

/// Bytes of a topic's name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Whether a setting that is `true` or `false` is `true`.
pub(crate) fn is_true(config: &TopicConfig, setting: &str) -> bool {
    config.get(setting).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

/// Checks a setting that is `true` or `false`; the empty text is the default.
pub(crate) fn check_flag(config: &TopicConfig, setting: &str) -> Result<(), TopicError> {
    let Some(value) = config.get(setting) else { return Ok(()) };
    match value.trim().to_ascii_lowercase().as_str() {
        "" | "true" | "false" => Ok(()),
        _ => Err(TopicError::BadConfig(format!("{setting} is true or false, not '{value}'"))),
    }
}

/// Checks a topic's name.
pub(crate) fn check_name(name: &str) -> Result<(), TopicError> {
    let bad = |why| Err(TopicError::BadName(name.to_owned(), why));
    match name {
        "" => bad("it is empty"),
        "." | ".." => bad("it is '.' or '..'"),
        n if n.len() > TOPIC_NAME_BYTES_MAX => bad("it is longer than 249 bytes"),
        n if n.bytes().any(|b| b.is_ascii_control()) => bad("it has a control character"),
        _ => Ok(()),
    }
}
