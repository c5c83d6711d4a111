//! Settings as Kafka clients see them: of topics, which they can change, and of the node, which they can read.

mod broker_defaults;
pub(crate) mod dynamic;
pub(crate) mod node;
pub(crate) mod synonyms;
pub(crate) mod topic;
