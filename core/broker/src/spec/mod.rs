//! Plain values of the model: what topics, queues, exchanges and subscriptions are declared as, and the identities
//! and figures that are passed between its parts.
//!
//! Owns no behaviour and no state. Depends on nothing in this crate but other plain values.

mod config;
mod delivery;
mod exchange;
pub(crate) mod hub;
mod namespace;
mod policy;
mod queue;
mod session;
pub(crate) mod stream;
mod topic;

pub use config::{BrokerConfig, CaptureRule, InboxBounds, OnDamage, StoredHeaders};
pub use delivery::{Delivery, DeliveryId, Depth, DropReason, Mode, Start};
pub use exchange::{
    DELAYED_TYPE, DELAYING, ExchangeKind, ExchangeSpec, HASH_HEADER, HASH_PROPERTY, HISTORY_LENGTH, HUB,
    SEEN_MAX, SEEN_PERSISTENCE, SEEN_TTL,
};
pub use hub::HubMode;
pub(crate) use hub::{SETTING as HUB_SETTING, check as check_hub};
pub(crate) use namespace::DEFAULT_NAMESPACE;
pub use namespace::{NamespaceLimits, NamespaceSpec};
pub use policy::{AppliesTo, PolicyKind, PolicySpec};
pub use queue::{DeadLetter, Overflow, OwnerId, QueueLimits, QueueSpec, next_owner};
pub(crate) use queue::{HOLDS_DELAYED, QueueBounds};
pub use session::{Expiry, PublisherId, SubscriptionOptions};
pub use stream::{
    OffsetSpec, STREAM_FILTER_BYTES, STREAM_SEGMENT_BYTES_MAX, StreamFilter, age_ms as stream_age_ms,
};
pub use topic::{
    PARTITIONS_MAX, TOPIC_NAME_BYTES_MAX, TopicConfig, TopicError, TopicId, TopicIds, TopicKind, TopicSpec,
};
pub(crate) use topic::{check_flag, check_name, is_true};
