//! What a queue is declared as.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::value::{Arguments, Value};

/// Identity of the connection that owns exclusive queues; unique within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnerId(pub u64);

/// Returns the identity of a new connection.
#[must_use]
pub fn next_owner() -> OwnerId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    OwnerId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The argument of a hidden queue that holds messages until they are due.
pub(crate) const HOLDS_DELAYED: &str = "x-inver-holds-delayed";

/// What a queue was declared as.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueSpec {
    /// Survives a restart, with its messages.
    pub durable: bool,
    /// Is deleted when its last consumer leaves.
    pub auto_delete: bool,
    /// The one connection that may use it and deletes it when it ends.
    pub owner: Option<OwnerId>,
    /// Is not listed as a topic.
    pub hidden: bool,
    /// One consumer is active at a time; another takes over when it leaves.
    pub single_active: bool,
    /// All arguments as they were given, for comparison.
    pub arguments: Arguments,
    /// Length limits, expiry and dead-lettering.
    pub limits: QueueLimits,
}

/// Length limits, expiry and dead-lettering of a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueLimits {
    /// Messages expire this long after they were published, milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// The queue is deleted when unused for this long, milliseconds.
    pub expires_after_ms: Option<u64>,
    /// Ready messages.
    pub messages_max: Option<u64>,
    /// Bytes of ready messages' values.
    pub bytes_max: Option<u64>,
    /// What happens at one of the two bounds above.
    pub overflow: Overflow,
    /// Where expired, rejected and overflowing messages are published.
    pub dead_letter: Option<DeadLetter>,
    /// A message that was returned more often than this is dropped.
    pub deliveries_max: Option<u32>,
}

impl QueueSpec {
    /// Whether a connection may use it, or something that is no connection: not if it is exclusive to another one.
    #[must_use]
    pub fn is_usable_by(&self, connection: Option<OwnerId>) -> bool {
        self.owner.is_none() || self.owner == connection
    }

    /// Whether it is of the type `quorum`: it tells how often a message was delivered, and its active consumer hands over to
    /// one of a higher priority.
    #[must_use]
    pub fn is_quorum(&self) -> bool {
        self.is_of_type("quorum")
    }

    /// Whether it is of the type `stream`: a log topic of one partition, which each consumer reads on its own.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.durable && self.is_of_type("stream")
    }

    fn is_of_type(&self, kind: &str) -> bool {
        self.arguments.get("x-queue-type").and_then(Value::as_str) == Some(kind)
    }
}

impl QueueSpec {
    /// The highest priority of its messages, which come out by priority; none if they come out as they came in.
    #[must_use]
    pub fn priority_max(&self) -> Option<u8> {
        let max =
            self.arguments.get("x-max-priority").and_then(Value::as_int).filter(|_| !self.is_quorum())?;
        u8::try_from(max).ok().filter(|max| *max > 0)
    }

    /// Whether it holds messages until they are due. No client can declare such a queue.
    pub(crate) fn holds_delayed(&self) -> bool {
        self.hidden && self.arguments.contains_key(HOLDS_DELAYED)
    }

    /// Whether dead letters without a receiver stay in the queue. As in RabbitMQ, only where a full queue refuses messages:
    /// else they could make the queue drop others.
    #[must_use]
    pub fn keeps_undelivered(&self) -> bool {
        self.is_quorum()
            && self.limits.dead_letter.is_some()
            && self.limits.overflow == Overflow::RejectPublish
            && self.arguments.get("x-dead-letter-strategy").and_then(Value::as_str) == Some("at-least-once")
    }
}

/// [`QueueLimits`] without the names of the exchange and the key of dead letters: what is read for every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueBounds {
    pub(crate) message_ttl_ms: Option<u64>,
    pub(crate) expires_after_ms: Option<u64>,
    pub(crate) messages_max: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) deliveries_max: Option<u32>,
    /// What it drops is published to a dead-letter exchange.
    pub(crate) dead_letters: bool,
}

impl QueueLimits {
    pub(crate) fn bounds(&self) -> QueueBounds {
        QueueBounds {
            message_ttl_ms: self.message_ttl_ms,
            expires_after_ms: self.expires_after_ms,
            messages_max: self.messages_max,
            bytes_max: self.bytes_max,
            overflow: self.overflow,
            deliveries_max: self.deliveries_max,
            dead_letters: self.dead_letter.is_some(),
        }
    }
}

impl QueueBounds {
    pub(crate) fn bounds_length(&self) -> bool {
        self.messages_max.is_some() || self.bytes_max.is_some()
    }

    /// Whether the queue must be checked periodically even if no client uses it.
    pub(crate) fn needs_periodic_check(&self) -> bool {
        self.message_ttl_ms.is_some()
            || self.expires_after_ms.is_some()
            || self.dead_letters
            || self.bounds_length()
    }
}

/// What a full queue does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overflow {
    /// Drops the oldest messages.
    #[default]
    DropHead,
    /// Refuses new messages.
    RejectPublish,
    /// Refuses new messages and dead-letters them.
    RejectPublishDeadLetter,
}

impl Overflow {
    /// All of them, in the order of their numbers.
    pub const ALL: [Overflow; 3] =
        [Overflow::DropHead, Overflow::RejectPublish, Overflow::RejectPublishDeadLetter];

    /// What stands at this place among them.
    pub(crate) fn numbered(number: u8) -> Overflow {
        Overflow::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }

    /// The name that users read and write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Overflow::DropHead => "drop-head",
            Overflow::RejectPublish => "reject-publish",
            Overflow::RejectPublishDeadLetter => "reject-publish-dlx",
        }
    }
}

impl std::str::FromStr for Overflow {
    type Err = ();

    fn from_str(s: &str) -> Result<Overflow, ()> {
        Overflow::ALL.into_iter().find(|overflow| overflow.as_str() == s).ok_or(())
    }
}

/// Where dropped messages are published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The exchange.
    pub exchange: String,
    /// The routing key; none: the message's own.
    pub routing_key: Option<Vec<u8>>,
}
