//! The resources of the API by the names that the command line has for them.

use anyhow::bail;
use clap::ValueEnum;

use crate::commands::client::encoded;

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listed {
    Namespaces,
    Topics,
    Queues,
    Exchanges,
    Bindings,
    Subscriptions,
    Sessions,
    Connections,
    Retained,
    Users,
    Permissions,
    Tokens,
    Config,
}

impl Listed {
    /// Its path.
    pub(super) fn path(self) -> &'static str {
        match self {
            Listed::Namespaces => "/namespaces",
            Listed::Topics => "/topics",
            Listed::Queues => "/queues",
            Listed::Exchanges => "/exchanges",
            Listed::Bindings => "/bindings",
            Listed::Subscriptions => "/subscriptions",
            Listed::Sessions => "/sessions",
            Listed::Connections => "/connections",
            Listed::Retained => "/retained",
            Listed::Users => "/users",
            Listed::Permissions => "/permissions",
            Listed::Tokens => "/tokens",
            Listed::Config => "/config",
        }
    }

    /// Whether it belongs to a namespace.
    pub(super) fn is_of_namespace(self) -> bool {
        !matches!(
            self,
            Listed::Namespaces
                | Listed::Connections
                | Listed::Users
                | Listed::Permissions
                | Listed::Tokens
                | Listed::Config
        )
    }

    /// The columns of its table.
    pub(super) fn columns(self) -> Vec<String> {
        let columns: &[&str] = match self {
            Listed::Namespaces => {
                &["name", "topics", "queues", "exchanges", "subscriptions", "sessions", "retained"]
            }
            Listed::Topics => &["name", "kind", "partitions", "records", "bytes"],
            Listed::Queues => &["name", "durable", "ready", "unacked", "consumers"],
            Listed::Exchanges => &["name", "kind", "durable", "auto_delete", "internal", "bindings"],
            Listed::Bindings => &["source", "destination_kind", "destination", "key", "arguments"],
            Listed::Subscriptions => &["kind", "name", "mode", "members", "lag", "lag_ms", "unacked"],
            Listed::Sessions => {
                &["name", "connected", "protocol", "user", "subscriptions", "queued", "unacked"]
            }
            Listed::Connections => &["id", "protocol", "name", "user", "namespace", "peer", "encrypted"],
            Listed::Retained => &["address", "timestamp_ms", "value_size", "value"],
            Listed::Users => &["name", "tags", "namespace", "disabled", "source"],
            Listed::Permissions => {
                &["id", "user", "tag", "namespace", "kind", "name", "operations", "effect"]
            }
            Listed::Tokens => &["name", "user", "created_ms", "expires_ms"],
            Listed::Config => &["name", "value", "source"],
        };
        columns.iter().map(|column| (*column).to_owned()).collect()
    }
}

/// A kind of object with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Overview,
    Node,
    Alarms,
    Namespace,
    Topic,
    Queue,
    Exchange,
    /// A consumer group.
    Group,
    /// A named subscription: TOPIC/NAME.
    Named,
    /// A shared subscription: $share/GROUP/FILTER.
    Shared,
    Session,
    Connection,
    Retained,
    User,
    Token,
}

impl Kind {
    /// The path of the object of this name.
    pub(super) fn path(self, name: &str) -> anyhow::Result<String> {
        let of = match self {
            Kind::Overview => return Ok("/overview".into()),
            Kind::Node => return Ok("/node".into()),
            Kind::Alarms => return Ok("/alarms".into()),
            Kind::Namespace => "/namespaces",
            Kind::Topic => "/topics",
            Kind::Queue => "/queues",
            Kind::Exchange => "/exchanges",
            Kind::Group => "/subscriptions/group",
            Kind::Named => "/subscriptions/named",
            Kind::Shared => "/subscriptions/shared",
            Kind::Session => "/sessions",
            Kind::Connection => "/connections",
            Kind::Retained => "/retained",
            Kind::User => "/users",
            Kind::Token => "/tokens",
        };
        if name.is_empty() {
            bail!("a name is needed");
        }
        Ok(format!("{of}/{}", encoded(name)))
    }

    /// Whether it belongs to a namespace.
    pub(super) fn is_of_namespace(self) -> bool {
        !matches!(
            self,
            Kind::Overview
                | Kind::Node
                | Kind::Alarms
                | Kind::Namespace
                | Kind::Connection
                | Kind::User
                | Kind::Token
        )
    }
}
