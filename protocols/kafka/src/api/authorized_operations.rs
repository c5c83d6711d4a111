//! Authorized operations: bit fields of Kafka's operation codes (KIP-430).

use inver_access::Operation;

use crate::access::Access;
use crate::map::acl::operation_code;

/// The value where the client does not ask for them.
const NOT_REQUESTED: i32 = i32::MIN;

/// What exists for a topic.
const TOPIC: [Operation; 8] = [
    Operation::Read,
    Operation::Write,
    Operation::Create,
    Operation::Delete,
    Operation::Alter,
    Operation::Describe,
    Operation::DescribeConfigs,
    Operation::AlterConfigs,
];

/// What exists for the cluster.
const CLUSTER: [Operation; 7] = [
    Operation::Create,
    Operation::Alter,
    Operation::Describe,
    Operation::ClusterAction,
    Operation::DescribeConfigs,
    Operation::AlterConfigs,
    Operation::IdempotentWrite,
];

/// What exists for a group.
const GROUP: [Operation; 5] = [
    Operation::Read,
    Operation::Delete,
    Operation::Describe,
    Operation::DescribeConfigs,
    Operation::AlterConfigs,
];

/// What the client may do to a topic, if it asks.
pub(super) fn topic(access: &Access, requested: bool, name: &str) -> i32 {
    if requested { bits(&TOPIC, |operation| access.may_topic(name, operation)) } else { NOT_REQUESTED }
}

/// What the client may do to a group, if it asks.
pub(super) fn group(access: &Access, requested: bool, id: &str) -> i32 {
    if requested { bits(&GROUP, |operation| access.may_group(id, operation)) } else { NOT_REQUESTED }
}

/// What the client may do to the cluster, if it asks; nothing is told to one that may not describe it.
pub(super) fn cluster(access: &Access, requested: bool) -> i32 {
    match requested {
        true if access.may_cluster(Operation::Describe) => {
            bits(&CLUSTER, |operation| access.may_cluster(operation))
        }
        true => 0,
        false => NOT_REQUESTED,
    }
}

fn bits(operations: &[Operation], may: impl Fn(Operation) -> bool) -> i32 {
    let allowed = operations.iter().filter(|operation| may(**operation));
    allowed.filter_map(|operation| operation_code(*operation)).fold(0, |bits, code| bits | 1 << code)
}
