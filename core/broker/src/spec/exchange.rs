//! What an exchange is declared as.

use serde::{Deserialize, Serialize};

use crate::value::{Arguments, Value};

/// The exchange that joins the protocols' address spaces; every namespace has one.
pub const HUB: &str = "amq.topic";

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExchangeKind {
    /// To bindings whose key equals the routing key.
    Direct,
    /// To every binding.
    Fanout,
    /// To bindings whose key is a filter that matches the routing key, level by level.
    Topic,
    /// To bindings whose arguments match the message's headers.
    Headers,
    /// To one binding, by a hash of the routing key, of a header or of a property; a binding's key is its weight. Few keys move
    /// when bindings come and go.
    ConsistentHash,
    /// To one binding, by a hash of the routing key modulo the number of bindings.
    ModulusHash,
    /// To one binding by chance.
    Random,
    /// The same: all queues are on this node.
    LocalRandom,
    /// To every binding; a queue that is bound gets the last messages.
    RecentHistory,
    /// To every binding, but for messages with a header whose value it has seen.
    Deduplicating,
}

/// All kinds, in the order of their stored numbers.
const KINDS: [ExchangeKind; 10] = [
    ExchangeKind::Direct,
    ExchangeKind::Fanout,
    ExchangeKind::Topic,
    ExchangeKind::Headers,
    ExchangeKind::ConsistentHash,
    ExchangeKind::ModulusHash,
    ExchangeKind::Random,
    ExchangeKind::LocalRandom,
    ExchangeKind::RecentHistory,
    ExchangeKind::Deduplicating,
];

impl ExchangeKind {
    /// The name that users read and write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ExchangeKind::Direct => "direct",
            ExchangeKind::Fanout => "fanout",
            ExchangeKind::Topic => "topic",
            ExchangeKind::Headers => "headers",
            ExchangeKind::ConsistentHash => "x-consistent-hash",
            ExchangeKind::ModulusHash => "x-modulus-hash",
            ExchangeKind::Random => "x-random",
            ExchangeKind::LocalRandom => "x-local-random",
            ExchangeKind::RecentHistory => "x-recent-history",
            ExchangeKind::Deduplicating => "x-message-deduplication",
        }
    }
}

impl std::str::FromStr for ExchangeKind {
    type Err = ();

    fn from_str(s: &str) -> Result<ExchangeKind, ()> {
        KINDS.into_iter().find(|kind| kind.as_str() == s).ok_or(())
    }
}

/// The argument of a hashing exchange that names the header whose value is hashed.
pub const HASH_HEADER: &str = "hash-header";

/// The same for a property: `message_id`, `correlation_id` or `timestamp`.
pub const HASH_PROPERTY: &str = "hash-property";

/// The argument of an exchange that keeps its last messages: how many.
pub const HISTORY_LENGTH: &str = "x-recent-history-length";

/// The argument of a deduplicating exchange: how many values it remembers.
pub const SEEN_MAX: &str = "x-cache-size";

/// The same: for how long, milliseconds. A message's header of this name goes before it.
pub const SEEN_TTL: &str = "x-cache-ttl";

/// The same: where it remembers them.
pub const SEEN_PERSISTENCE: &str = "x-cache-persistence";

/// The type of exchanges that delay messages, whose routing is that of another type.
pub const DELAYING: &str = "x-delayed-message";

/// The argument that names the other type.
pub const DELAYED_TYPE: &str = "x-delayed-type";

/// What an exchange was declared as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeSpec {
    /// How it routes.
    pub kind: ExchangeKind,
    /// Survives a restart.
    pub durable: bool,
    /// Is deleted with its last binding.
    pub auto_delete: bool,
    /// Refuses publishes of clients.
    pub internal: bool,
    /// Further settings, such as `alternate-exchange`.
    pub arguments: Arguments,
}

impl ExchangeSpec {
    /// Whether messages may say how long they are delayed.
    #[must_use]
    pub fn delays(&self) -> bool {
        self.arguments.contains_key(DELAYED_TYPE)
    }

    /// How many of its last messages a queue gets that is bound to it.
    #[must_use]
    pub fn history_max(&self) -> Option<usize> {
        const DEFAULT: usize = 20;
        if self.kind != ExchangeKind::RecentHistory {
            return None;
        }
        let asked = self.arguments.get(HISTORY_LENGTH).and_then(Value::as_int);
        Some(asked.map_or(DEFAULT, |length| usize::try_from(length).unwrap_or(DEFAULT)))
    }

    /// How many values of a header it remembers, if it leaves out messages by them.
    #[must_use]
    pub fn seen_max(&self) -> Option<usize> {
        if self.kind != ExchangeKind::Deduplicating {
            return None;
        }
        let asked = self.arguments.get(SEEN_MAX).and_then(Value::as_int);
        Some(asked.map_or(1, |max| usize::try_from(max).unwrap_or(1)).max(1))
    }

    /// Whether its routes depend on the routing key only.
    #[must_use]
    pub fn routes_by_key(&self) -> bool {
        !self.delays()
            && match self.kind {
                ExchangeKind::Direct
                | ExchangeKind::Fanout
                | ExchangeKind::Topic
                | ExchangeKind::ModulusHash
                | ExchangeKind::RecentHistory => true,
                ExchangeKind::Headers
                | ExchangeKind::Random
                | ExchangeKind::LocalRandom
                | ExchangeKind::Deduplicating => false,
                ExchangeKind::ConsistentHash => {
                    ![HASH_HEADER, HASH_PROPERTY].iter().any(|name| self.arguments.contains_key(*name))
                }
            }
    }

    /// The name of its type, that users read and write.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        if self.delays() { DELAYING } else { self.kind.as_str() }
    }
}
