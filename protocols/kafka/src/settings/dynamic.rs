//! Settings of the node that clients set: the throttles of replication, which tools set and delete in passing. They are kept
//! and described; there are no replicas to throttle.

use bytes::Bytes;
use inver_broker::{Broker, Completion};
use inver_storage::SubmitError;

/// Table of the rows: key `scope/name`, value as text.
const TABLE: &str = "kafka-broker-settings";

/// The settings that are kept, by name.
pub(crate) const KEPT: [&str; 3] = [
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// What a setting holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All brokers.
    Default,
    /// This one.
    Node,
}

impl Scope {
    /// The scope with a name in requests: empty, or the node's id. The error is Kafka's.
    pub(crate) fn of(name: &str, node_id: i32) -> Result<Scope, String> {
        match name.parse::<i32>() {
            _ if name.is_empty() => Ok(Scope::Default),
            Ok(id) if id == node_id => Ok(Scope::Node),
            Ok(_) => Err(format!("Unexpected broker id, expected {node_id}, but received {name}")),
            Err(_) => Err(format!("Node id must be an integer, but it is: {name}")),
        }
    }

    fn key(self, name: &str) -> String {
        let scope = match self {
            Scope::Default => "default",
            Scope::Node => "node",
        };
        format!("{scope}/{name}")
    }
}

/// Whether a setting is kept.
pub(crate) fn is_kept(name: &str) -> bool {
    KEPT.contains(&name)
}

/// Checks a value; the error is Kafka's.
pub(crate) fn check(name: &str, value: &str) -> Result<(), String> {
    match value.trim().parse::<i64>() {
        Ok(0..) => Ok(()),
        Ok(_) => Err(format!("Invalid value {value} for configuration {name}: Value must be at least 0")),
        Err(_) => Err(format!("Invalid value {value} for configuration {name}: Not a number of type LONG")),
    }
}

/// The value that is set for a scope.
pub(crate) fn get(broker: &Broker, scope: Scope, name: &str) -> Option<String> {
    let value = broker.state(TABLE, scope.key(name).as_bytes())?;
    Some(String::from_utf8_lossy(&value).into_owned())
}

/// Sets a setting for a scope, or (`None`) deletes it.
pub(crate) fn set(
    broker: &Broker,
    scope: Scope,
    name: &str,
    value: Option<&str>,
) -> Result<Completion, SubmitError> {
    let key = scope.key(name);
    let lsn = match value {
        Some(value) => {
            broker.put_state(TABLE, key.as_bytes(), Bytes::copy_from_slice(value.trim().as_bytes()))?
        }
        None if broker.state(TABLE, key.as_bytes()).is_none() => return Ok(Completion::Now),
        None => broker.delete_state(TABLE, key.as_bytes())?,
    };
    Ok(Completion::At(lsn))
}
