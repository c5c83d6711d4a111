//! What administration sees of a transaction.

use std::sync::Arc;

use super::state::{Producer, TransactionState};

/// A transaction as administration sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionInfo {
    /// Its id.
    pub id: Arc<str>,
    /// The producer that holds it.
    pub producer: Producer,
    /// Its state.
    pub state: TransactionState,
    /// Time after which it is aborted, milliseconds.
    pub timeout_ms: i32,
    /// When it was begun, milliseconds since 1970; none unless it is open.
    pub started_ms: Option<i64>,
    /// The partitions in it.
    pub partitions: Vec<(Arc<str>, u32)>,
}
