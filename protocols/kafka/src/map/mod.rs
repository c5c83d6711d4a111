//! The mapping between the wire and the model: errors, names, offsets and batches.
//!
//! Messages need no conversion: the model stores record batches too. Batches are checked before they are stored
//! ([`batch`]); the rest is a matter of names and numbers ([`partition`], [`topic`]).

pub(crate) mod acl;
pub(crate) mod batch;
pub(crate) mod partition;
mod records;
pub(crate) mod topic;

use inver_broker::AccessError;

use crate::codec::error_code::ErrorCode;

/// The error code and message for a refused change of users or rules.
pub(crate) fn access_error(error: &AccessError) -> (ErrorCode, String) {
    let code = match error {
        AccessError::ReadOnly(_) | AccessError::Limit(_) => ErrorCode::POLICY_VIOLATION,
        AccessError::NoSuchUser(_) => ErrorCode::RESOURCE_NOT_FOUND,
        AccessError::InvalidName | AccessError::Pattern(_) => ErrorCode::INVALID_REQUEST,
        AccessError::Log(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    };
    (code, error.to_string())
}
