//! Permission rules: who may do what on which resource.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::pattern::Pattern;
use crate::user::Tag;

/// Identity of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleId(pub u64);

/// Whom a rule applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Principal {
    /// One user.
    User(String),
    /// Users with a tag.
    Tag(Tag),
    /// Everybody, anonymous clients included.
    Anyone,
    /// Clients without a user.
    Anonymous,
}

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ResourceKind {
    /// A topic or a queue, by its name.
    Topic,
    /// An exchange, by its name.
    Exchange,
    /// An address of the hub, in its slashed form, or the filter of a subscription.
    Address,
    /// A consumer group or a named subscription.
    Group,
    /// A transactional id.
    TransactionalId,
    /// A session, by its client id.
    Session,
    /// The broker as a whole; its name is empty.
    Cluster,
    /// A namespace, by its name.
    Namespace,
    /// The routing keys of a topic exchange: the exchange's name, a line end and the key, as [`key_name`] writes it. Rules
    /// of this kind narrow what the rules of exchanges allow: without one that allows the operation on keys of an
    /// exchange, every key is allowed there.
    RoutingKey,
    /// A user, by name: what others do on the user's behalf.
    User,
    /// A delegation token, by its id.
    DelegationToken,
}

/// The exchange of the hub, by whose name users of addresses are given access.
pub(crate) const HUB_EXCHANGE: &str = "amq.topic";
/// Between exchange and key in the names of [`ResourceKind::RoutingKey`]. Names of exchanges have no line ends.
pub(crate) const KEY_SEPARATOR: char = '\n';

/// The name of a routing key as a resource.
#[must_use]
pub fn key_name(exchange: &str, routing_key: &str) -> String {
    format!("{exchange}{KEY_SEPARATOR}{routing_key}")
}

/// Something that a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Operation {
    /// Connect to a namespace.
    Connect,
    /// Create or delete a topic, queue or exchange, as one permission.
    Configure,
    /// Create.
    Create,
    /// Delete.
    Delete,
    /// Alter.
    Alter,
    /// See that it exists.
    Describe,
    /// Read its settings.
    DescribeConfigs,
    /// Change its settings.
    AlterConfigs,
    /// Consume, get, purge, fetch.
    Read,
    /// Publish, produce.
    Write,
    /// Subscribe to an address.
    Subscribe,
    /// Receive a message that was published at an address.
    Receive,
    /// Take over or resume a session.
    Resume,
    /// Produce with a producer id.
    IdempotentWrite,
    /// Act on the broker as a whole.
    ClusterAction,
    /// Make delegation tokens of a user.
    CreateTokens,
    /// See the delegation tokens of a user, with what logs in by them.
    DescribeTokens,
}

impl ResourceKind {
    /// Every kind.
    pub const ALL: [ResourceKind; 11] = [
        ResourceKind::Topic,
        ResourceKind::Exchange,
        ResourceKind::Address,
        ResourceKind::Group,
        ResourceKind::TransactionalId,
        ResourceKind::Session,
        ResourceKind::Cluster,
        ResourceKind::Namespace,
        ResourceKind::RoutingKey,
        ResourceKind::User,
        ResourceKind::DelegationToken,
    ];

    /// Its name in texts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ResourceKind::Topic => "topic",
            ResourceKind::Exchange => "exchange",
            ResourceKind::Address => "address",
            ResourceKind::Group => "group",
            ResourceKind::TransactionalId => "transactional-id",
            ResourceKind::Session => "session",
            ResourceKind::Cluster => "cluster",
            ResourceKind::Namespace => "namespace",
            ResourceKind::RoutingKey => "routing-key",
            ResourceKind::User => "user",
            ResourceKind::DelegationToken => "delegation-token",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<ResourceKind> {
        ResourceKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Operation {
    /// Every operation.
    pub const ALL: [Operation; 17] = [
        Operation::Connect,
        Operation::Configure,
        Operation::Create,
        Operation::Delete,
        Operation::Alter,
        Operation::Describe,
        Operation::DescribeConfigs,
        Operation::AlterConfigs,
        Operation::Read,
        Operation::Write,
        Operation::Subscribe,
        Operation::Receive,
        Operation::Resume,
        Operation::IdempotentWrite,
        Operation::ClusterAction,
        Operation::CreateTokens,
        Operation::DescribeTokens,
    ];

    /// Its name in texts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Operation::Connect => "connect",
            Operation::Configure => "configure",
            Operation::Create => "create",
            Operation::Delete => "delete",
            Operation::Alter => "alter",
            Operation::Describe => "describe",
            Operation::DescribeConfigs => "describe-configs",
            Operation::AlterConfigs => "alter-configs",
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Subscribe => "subscribe",
            Operation::Receive => "receive",
            Operation::Resume => "resume",
            Operation::IdempotentWrite => "idempotent-write",
            Operation::ClusterAction => "cluster-action",
            Operation::CreateTokens => "create-tokens",
            Operation::DescribeTokens => "describe-tokens",
        }
    }

    /// The operation of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Operation> {
        Operation::ALL.into_iter().find(|operation| operation.name() == name)
    }

    /// Operations that include this one when they are denied: who may not configure a queue may not delete it.
    pub(crate) fn denied_with(self) -> Operations {
        match self {
            Operation::Create | Operation::Delete => Operations::of(&[self, Operation::Configure]),
            _ => Operations::of(&[self]),
        }
    }

    /// Operations that include this one when they are allowed: who may read a topic may see it.
    pub(crate) fn included_in(self) -> Operations {
        use Operation::{
            Alter, AlterConfigs, Configure, Create, Delete, Describe, DescribeConfigs, Read, Write,
        };
        match self {
            Describe => Operations::of(&[Configure, Delete, Alter, Read, Write]),
            DescribeConfigs => Operations::of(&[AlterConfigs]),
            Create | Delete => Operations::of(&[Configure]),
            _ => Operations::NONE,
        }
    }
}

/// A set of operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Operations(u32);

impl Operations {
    /// No operation.
    pub const NONE: Operations = Operations(0);
    /// Every operation, those of later versions included.
    pub const ALL: Operations = Operations(u32::MAX);

    /// These operations.
    #[must_use]
    pub const fn of(operations: &[Operation]) -> Operations {
        let (mut bits, mut at) = (0, 0);
        while at < operations.len() {
            bits |= 1 << operations[at] as u8;
            at += 1;
        }
        Operations(bits)
    }

    /// Whether `operation` is one of them.
    #[must_use]
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & (1 << operation as u8) != 0
    }

    /// The operations that are in either set.
    #[must_use]
    pub const fn or(self, other: Operations) -> Operations {
        Operations(self.0 | other.0)
    }

    /// Whether the sets have an operation in common.
    #[must_use]
    pub const fn intersects(self, other: Operations) -> bool {
        self.0 & other.0 != 0
    }

    /// The known operations of the set.
    pub fn iter(self) -> impl Iterator<Item = Operation> {
        Operation::ALL.into_iter().filter(move |operation| self.contains(*operation))
    }
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Operations::ALL {
            f.write_str("All")
        } else {
            f.debug_set().entries(self.iter()).finish()
        }
    }
}

/// What a matching rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Effect {
    /// The operation is allowed, unless another rule denies it.
    Allow,
    /// The operation is denied.
    Deny,
}

/// A permission rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// Its identity.
    pub id: RuleId,
    /// Whom it applies to.
    pub principal: Principal,
    /// The namespace in which it applies; none: in every namespace.
    pub namespace: Option<String>,
    /// The kind of resource.
    pub kind: ResourceKind,
    /// The names of resources.
    pub pattern: Pattern,
    /// The operations.
    pub operations: Operations,
    /// Whether it allows or denies them.
    pub effect: Effect,
    /// The address that the client must connect from; none: any.
    pub host: Option<IpAddr>,
    /// The dialect that wrote it, so that the dialect can list it unchanged; empty for rules written directly.
    pub dialect: String,
}
