//! The model: topics and partitions, queues, subscriptions, exchanges and the hub, sessions, identity.
//!
//! Three things meet here: what is published (through a [`Publisher`], or as finished batches through
//! [`Namespace::produce`]), where it is routed (exchanges, bindings, captures), and who consumes it ([`Subscription`]).
//! Durable state is in the log of `inver-storage`: messages as record batches, everything else as rows. Memory is
//! rebuilt from it at start.
//!
//! Does not own wire formats, sockets, or any type that belongs to one protocol; a protocol implements
//! [`ProtocolPlugin`].

mod access;
pub mod address;
mod audit;
mod bag;
mod batch_format;
mod bindings;
mod broker;
mod capture;
mod client_log;
mod clock;
mod closing;
mod committed_offsets;
mod completion;
mod connections;
mod context;
mod deadletter;
mod delayed;
mod events;
mod exchange;
mod fan_out;
mod history;
mod identity;
mod limit_checks;
mod limits;
mod line_limit;
mod listener;
mod mailbox;
mod maps;
pub mod message;
mod namespace;
mod network;
mod ordered;
mod peek;
mod policy;
mod preview;
mod produce;
mod protocol;
mod publisher;
mod publisher_sequences;
mod queue;
mod quota;
mod receivers;
mod reclaim;
mod removal;
mod retained;
mod router;
mod rows;
mod scram;
#[cfg(feature = "testing")]
pub mod seeded_bugs;
#[cfg(not(feature = "testing"))]
mod seeded_bugs;
mod seen;
mod session;
mod source;
mod spec;
mod subscription;
mod sync;
mod tables;
mod telemetry;
#[cfg(test)]
mod testing;
mod timers;
mod topic;
mod traces;
mod transactions;
mod trie;
mod value;
mod waiting;
mod write_batch;

pub use access::{
    AccessControl, AccessError, Ban, BanTarget, Bans, BansError, ChannelLimitReached, DelegationConfig,
    DelegationError, Network, NewDelegationToken, NewRule, PermissionScope, Permissions, RulesChanged,
    UserChannel,
};
pub use address::{Address, Filter, Form, is_reserved, rewrite};
pub use audit::{Audit, AuditConfig, AuditEvent, AuditKind, AuditKinds, AuditResult, Who};
pub use broker::{
    Admission, AdmitError, Admitted, Broker, BrokerError, NamespaceError, StateChange, check_namespace,
};
pub use capture::check_capture;
pub use client_log::{ClientLog, LoggedClient, LoginRefusal};
pub use clock::{Blocking, Clock, Work, now_ms, now_ns};
pub use closing::CloseReason;
pub use committed_offsets::{CommittedOffset, CommittedOffsets};
pub use completion::Completion;
pub use connections::{ConnectionHandle, ConnectionRegistry, LiveConnection};
pub use events::{Event, Events, Facts};
pub use exchange::Exchange;
pub use inver_access::{EntityName, QuotaEntity, QuotaKind, QuotaLimits};

pub use identity::{
    AuthError, Authenticator, Credentials, DEFAULT_USER, DelegatedError, FixedUsers, Identity, LoopbackOnly,
};
pub use limits::{AccessLimits, LimitReached, Limits};
pub use line_limit::ClientLogLimits;
pub use listener::{Anonymous, ClientCertificate, Endpoints, ListenerInfo};
pub use mailbox::{CLOSE, EVICT, Mailbox};
pub use message::{HeaderWriter, Headers, Message};
pub use namespace::{
    BindDestination, BindError, BindingInfo, Declared, DelayedId, DelayedMessage, ExchangeError, Group,
    GroupCoordinator, GroupError, GroupMember, NamedSubscription, Namespace, QueueError, SubscriptionError,
    WithdrawError, may_bind,
};
pub use network::network_of;
pub use ordered::Order;
pub use peek::{Peeked, PeekedMessage, is_visible};
pub use policy::{Applied, Policy, PolicyError};
pub use preview::{RoutePreview, RoutedSession};
pub use produce::ProduceError;
pub use protocol::{Connection, Io, ProtocolPlugin};
pub use publisher::{DEFAULT_EXCHANGE, InboxTarget, PublishError, Publisher, Routed, Target};
pub use publisher_sequences::{OpenSequence, PublisherSequence, PublisherSequences};
pub use queue::Queue;
pub use quota::{AppliedQuotas, Quotas, QuotasError};
pub use retained::{Retained, RetainedPart, ScanFrom};
pub use rows::RowError;
pub use scram::{ScramLogin, ScramLoginError};
pub use session::{
    Opened, Session, SessionError, SessionFilter, SessionInfo, SessionSpec, SessionTally, SessionTerms,
    Sessions, SubscribeError, Will,
};
pub use source::Source;
pub use spec::{
    AppliesTo, BrokerConfig, CaptureRule, DELAYED_TYPE, DELAYING, DeadLetter, Delivery, DeliveryId, Depth,
    DropReason, ExchangeKind, ExchangeSpec, Expiry, HASH_HEADER, HASH_PROPERTY, HISTORY_LENGTH, HUB, HubMode,
    InboxBounds, Mode, NamespaceLimits, NamespaceSpec, OffsetSpec, OnDamage, Overflow, OwnerId,
    PARTITIONS_MAX, PolicyKind, PolicySpec, PublisherId, QueueLimits, QueueSpec, SEEN_MAX, SEEN_PERSISTENCE,
    SEEN_TTL, STREAM_FILTER_BYTES, STREAM_SEGMENT_BYTES_MAX, Start, StoredHeaders, StreamFilter,
    SubscriptionOptions, TOPIC_NAME_BYTES_MAX, TopicConfig, TopicError, TopicId, TopicIds, TopicKind,
    TopicSpec, next_owner, stream_age_ms,
};
pub use subscription::{
    AttachError, Consumer, ConsumerSpec, LiveBatch, Member, MemoryBounds, Position, Pull, QueueMemory,
    SkipError, Subscription, WhenFull,
};
pub use timers::Timers;
pub use topic::{Partition, Topic};
pub use traces::{
    About, Act, BATCH_SPANS_MAX, Delivered, Publishing, Span, SpanSink, TRACEPARENT, TraceContext, Tracer,
    Traces, Unsettled,
};
pub use transactions::{
    Ended, Producer, TransactionEnd, TransactionError, TransactionInfo, TransactionState, Transactions,
};
pub use value::{Arguments, HeaderLookup, Value};
