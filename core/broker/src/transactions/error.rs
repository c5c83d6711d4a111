//! Why an act of a transaction is refused.

use inver_storage::SubmitError;

use crate::limits::LimitReached;

/// Why an act of a transaction is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The id is unknown, or another producer id belongs to it.
    #[error("the producer id does not belong to the transactional id")]
    UnknownProducer,
    /// A newer instance of the producer exists.
    #[error("there is a newer producer with the same transactional id")]
    Fenced,
    /// The transaction is in a state that does not allow it.
    #[error("the state of the transaction does not allow this")]
    InvalidState,
    /// The transaction is being ended.
    #[error("the transaction is being ended")]
    Ending,
    /// A bound is reached.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error(transparent)]
    Log(#[from] SubmitError),
}
