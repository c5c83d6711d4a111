//! The wire's terms and the core's: what has to be carried from one to the other.
//!
//! Messages need no conversion: a record batch is the one form of messages in the core too. What is left is looking at
//! batches before they are taken ([`batch`]), and errors and names ([`topic`]).

pub(crate) mod batch;
pub(crate) mod topic;
