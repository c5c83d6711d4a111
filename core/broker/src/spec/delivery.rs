//! Deliveries, and how subscriptions start and are shared.

use std::sync::Arc;

use inver_storage::batch::Record;
use inver_storage::{Offset, Stream};
use serde::{Deserialize, Serialize};

/// How the consumers of a subscription share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// One consumer; a second is refused.
    Exclusive,
    /// Each message goes to one of the consumers.
    Shared,
    /// One consumer is active; another takes over when it leaves.
    Failover,
    /// Each message goes to one of the consumers, all of one key to the same.
    KeyShared,
}

impl Mode {
    /// The name that users read and write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Exclusive => "exclusive",
            Mode::Shared => "shared",
            Mode::Failover => "failover",
            Mode::KeyShared => "key_shared",
        }
    }
}

impl std::str::FromStr for Mode {
    type Err = ();

    fn from_str(s: &str) -> Result<Mode, ()> {
        match s {
            "exclusive" => Ok(Mode::Exclusive),
            "shared" => Ok(Mode::Shared),
            "failover" => Ok(Mode::Failover),
            "key_shared" => Ok(Mode::KeyShared),
            _ => Err(()),
        }
    }
}

/// Where a new subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first retained message.
    Earliest,
    /// At the next message to arrive.
    Latest,
    /// At this offset.
    At(Offset),
}

impl Start {
    /// The place in a stream now.
    #[must_use]
    pub fn offset(self, stream: &Stream) -> Offset {
        match self {
            Start::Earliest => stream.start(),
            Start::Latest => stream.next_offset(),
            Start::At(offset) => offset,
        }
    }
}

/// Identity of a delivery within its subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// The partition, or the index of the source within its subscription.
    pub partition: u32,
    /// The offset within it.
    pub offset: u64,
}

/// A message delivered to a consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Names the delivery when it is acknowledged.
    pub id: DeliveryId,
    /// The message.
    pub record: Record,
    /// How often it was delivered before and returned.
    pub redelivered: u32,
    /// The topic whose finished batch brought the message here, where that is not the subscription's own: its dotted
    /// name is the message's address, unless the record names another.
    pub topic: Option<Arc<str>>,
}

/// How full a subscription is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages waiting to be delivered.
    pub ready: u64,
    /// Messages delivered and neither acknowledged nor returned.
    pub unacked: u64,
    /// Consumers attached.
    pub consumers: usize,
}

/// The reason why a queue dropped a message.
///
/// The order of the reasons is part of the stored form of death records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropReason {
    /// Its time to live, or that of its queue, had passed.
    Expired,
    /// A consumer rejected it and did not requeue it.
    Rejected,
    /// The queue had reached its maximum length.
    MaxLength,
    /// It was returned to the queue more often than the queue's delivery limit.
    DeliveryLimit,
    /// It cannot be read: the log is damaged.
    Damaged,
}

impl DropReason {
    /// The name that consumers see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::Expired => "expired",
            DropReason::Rejected => "rejected",
            DropReason::MaxLength => "maxlen",
            DropReason::DeliveryLimit => "delivery_limit",
            DropReason::Damaged => "damaged",
        }
    }
}
