//! The mapping between the wire and the model: errors, names, offsets and batches.
//!
//! Messages need no conversion: the model stores record batches too. Batches are checked before they are stored
//! ([`batch`]); the rest is a matter of names and numbers ([`partition`], [`topic`]).

pub(crate) mod batch;
pub(crate) mod partition;
pub(crate) mod topic;
