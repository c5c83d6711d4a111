//! What the APIs of transactions share: the errors of the model as Kafka's, and the assignment of producer ids.

use inver_broker::{Completion, Producer, TransactionError, TransactionState};
use inver_storage::SubmitError;

use crate::access::Access;
use crate::codec::error_code::ErrorCode;

/// The error for a client. `fenced`: what its version of the API calls a producer with an older epoch.
pub(crate) fn error_code(error: &TransactionError, fenced: ErrorCode) -> ErrorCode {
    match error {
        TransactionError::UnknownProducer => ErrorCode::INVALID_PRODUCER_ID_MAPPING,
        TransactionError::Fenced => fenced,
        TransactionError::InvalidState => ErrorCode::INVALID_TXN_STATE,
        TransactionError::Ending => ErrorCode::CONCURRENT_TRANSACTIONS,
        TransactionError::Limit(_) => ErrorCode::POLICY_VIOLATION,
        TransactionError::Log(SubmitError::InvalidProducerEpoch) => fenced,
        TransactionError::Log(SubmitError::TooLarge { .. }) => ErrorCode::MESSAGE_TOO_LARGE,
        TransactionError::Log(error) => {
            tracing::error!(%error, "failed to write a transaction");
            ErrorCode::COORDINATOR_NOT_AVAILABLE
        }
    }
}

/// What a version calls an act that the state of the transaction does not allow, where the producer goes on once it has
/// aborted: versions before `since` do not know the newer code (KIP-890).
pub(crate) fn abortable(code: ErrorCode, version: i16, since: i16) -> ErrorCode {
    match code {
        ErrorCode::INVALID_TXN_STATE if version >= since => ErrorCode::TRANSACTION_ABORTABLE,
        code => code,
    }
}

/// What a version calls a fenced producer: versions before `since` do not know the newer code (KIP-588).
pub(crate) fn fenced(version: i16, since: i16) -> ErrorCode {
    if version >= since { ErrorCode::PRODUCER_FENCED } else { ErrorCode::INVALID_PRODUCER_EPOCH }
}

/// The producer that a request names.
pub(crate) fn producer(id: i64, epoch: i16) -> Producer {
    Producer { id, epoch }
}

/// Assigns a producer id.
pub(crate) fn new_producer(access: &Access) -> Result<(i64, Completion), SubmitError> {
    access.node.producer_id().map(|(id, lsn)| (id, Completion::At(lsn)))
}

/// The name of a state.
pub(crate) fn state_name(state: TransactionState) -> &'static str {
    match state {
        TransactionState::Empty => "Empty",
        TransactionState::Open => "Ongoing",
        TransactionState::Committed => "CompleteCommit",
        TransactionState::Aborted => "CompleteAbort",
        TransactionState::Committing => "PrepareCommit",
        TransactionState::Aborting => "PrepareAbort",
    }
}
