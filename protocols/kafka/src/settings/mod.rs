//! Settings as Kafka clients see them: of topics, which they can change, and of the node, which they can read.

pub(crate) mod node;
pub(crate) mod topic;
