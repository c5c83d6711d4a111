//! Authorized operations: bit fields of Kafka's operation codes (KIP-430).
//!
//! There are no permissions beyond authentication, so a client may do everything that exists for a resource.

/// Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs.
pub(super) const TOPIC: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite.
pub(super) const CLUSTER: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// Read, Delete, Describe.
pub(super) const GROUP: i32 = 1 << 3 | 1 << 6 | 1 << 8;

/// The value where the client does not ask for them.
pub(super) const NOT_REQUESTED: i32 = i32::MIN;
