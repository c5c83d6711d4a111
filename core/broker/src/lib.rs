//! The model: topics and partitions, queues, subscriptions, exchanges and the hub, sessions, identity.
//!
//! Three things meet here: what is published (through a [`Publisher`], or as finished batches through
//! [`Partition::produce`]), where it goes (exchanges, bindings, captures), and who consumes it
//! ([`Subscription`]). What must survive is in the log of `inver-storage`, messages as record batches,
//! everything else as small rows of state; memory is made again from it.
//!
//! Deliberately absent: wire formats, sockets, and every type that belongs to one protocol. A protocol is a
//! plug: see [`Protocol`].

pub mod address;
mod bag;
mod broker;
mod burst;
mod capture;
mod catalog;
mod clock;
mod clockwork;
mod deadletter;
mod exchange;
mod identity;
mod limits;
mod mailbox;
pub mod message;
mod namespace;
mod plug;
mod positions;
mod produce;
mod publisher;
mod queue;
mod reclaim;
mod retained;
mod router;
mod session;
mod shape;
mod subscription;
mod telemetry;
mod topic;
mod trie;
mod value;

pub use address::{Address, Filter, Form};
pub use broker::{Broker, BrokerConfig, BrokerError};
pub use capture::CaptureRule;
pub use catalog::RowError;
pub use clock::now_ms;
pub use exchange::{Exchange, ExchangeKind, ExchangeSpec, HUB};
pub use identity::{AuthError, Authenticator, Credentials, DEFAULT_USER, FixedUsers, Identity, LoopbackOnly};
pub use limits::{LimitReached, Limits};
pub use mailbox::Mailbox;
pub use message::{HeaderWriter, Headers, Message};
pub use namespace::{
    BindDestination, BindError, BindingInfo, Declared, ExchangeError, Namespace, QueueError,
    SubscriptionError,
};
pub use plug::{Connection, Io, Protocol, Shutdown, ShutdownTrigger};
pub use positions::{Position, Positions};
pub use publisher::{PublishError, Publisher, PublisherId, Routed, Target};
pub use queue::{DeadLetter, Overflow, OwnerId, Queue, QueueLimits, QueueSpec, next_owner};
pub use retained::{Retained, ScanFrom};
pub use session::{
    Expiry, Opened, Session, SessionError, SessionSpec, SessionTerms, SubscribeError, SubscriptionOptions,
    Will,
};
pub use subscription::{
    AttachError, Consumer, ConsumerSpec, Delivery, DeliveryId, Depth, LiveBatch, MemoryBounds, Mode, Pull,
    Start, Subscription, WhenFull,
};
pub use topic::{
    PARTITIONS_MAX, Partition, TOPIC_NAME_BYTES_MAX, Topic, TopicConfig, TopicError, TopicId, TopicKind,
    TopicSpec,
};
pub use value::{Arguments, HeaderLookup, Value};
