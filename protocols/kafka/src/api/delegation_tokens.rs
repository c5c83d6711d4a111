//! What the APIs of delegation tokens share (KIP-48, KIP-373).
//!
//! A token gives its holder what its owner may do. So clients of the namespace `/` and administrators may be allowed to make
//! and see tokens of other users, and those of an administrator only administrators.

use inver_access::DelegationToken;
use inver_access::{Operation, ResourceKind, Tag};
use inver_broker::{AuditKind, Completion, DelegationError, Identity};

use super::context::RequestContext;
use super::reply::Reply;
use super::scram_users;
use crate::codec::error_code::ErrorCode;

/// The only type of principals that have tokens.
pub(super) const USER: &str = "User";
/// The time in the response of a request that failed.
pub(super) const NO_TIME: i64 = -1;

/// The user that a request about tokens comes from. A client is one of the broker's users, and proved that by something
/// else than a token.
pub(super) fn requester<'a>(cx: &'a RequestContext<'_>) -> Result<&'a str, ErrorCode> {
    let client = cx.principal().filter(|client| client.check_makes_tokens().is_ok());
    let user = client.and_then(Identity::name).ok_or(ErrorCode::DELEGATION_TOKEN_REQUEST_NOT_ALLOWED)?;
    match cx.node.broker.access().supports_delegation() {
        true => Ok(user),
        false => Err(ErrorCode::DELEGATION_TOKEN_AUTH_DISABLED),
    }
}

/// The name of a principal that can own or renew tokens.
pub(super) fn user_of(principal_type: &str, name: &str) -> Result<String, ErrorCode> {
    if principal_type == USER { Ok(name.to_owned()) } else { Err(ErrorCode::INVALID_PRINCIPAL_TYPE) }
}

/// Whether the client may do something about the tokens of a user who is not the client itself.
pub(super) fn may(
    cx: &RequestContext<'_>,
    kind: ResourceKind,
    name: &str,
    owner: &str,
    operation: Operation,
) -> bool {
    let owner = cx.node.broker.access().tags(owner).unwrap_or_default();
    let may_be = scram_users::is_administrator(cx)
        || (cx.namespace().name() == "/" && !owner.contains(&Tag::Administrator));
    may_be && cx.access.permissions.may(kind, name, operation)
}

/// The reply to a request that changes when a token expires; `respond` puts its code and time into it.
pub(super) fn reply_with_expiry<R>(
    cx: &RequestContext<'_>,
    changed: Result<(DelegationToken, Completion), ErrorCode>,
    operation: &str,
    respond: impl FnOnce(ErrorCode, i64) -> R,
) -> Reply<R> {
    match changed {
        Ok((token, completion)) => {
            cx.namespace().audit(AuditKind::Access, operation, "delegation-token", &token.id);
            Reply::Response(respond(ErrorCode::NONE, token.expires_ms), completion)
        }
        Err(error_code) => Reply::now(respond(error_code, NO_TIME)),
    }
}

/// The error code of a refused request.
pub(super) fn error_code(error: &DelegationError) -> ErrorCode {
    match error {
        DelegationError::Disabled => ErrorCode::DELEGATION_TOKEN_AUTH_DISABLED,
        DelegationError::NotFound => ErrorCode::DELEGATION_TOKEN_NOT_FOUND,
        DelegationError::NotTheirs => ErrorCode::DELEGATION_TOKEN_OWNER_MISMATCH,
        DelegationError::Expired => ErrorCode::DELEGATION_TOKEN_EXPIRED,
        DelegationError::NoSuchUser(_) => ErrorCode::RESOURCE_NOT_FOUND,
        DelegationError::Limit(_) => ErrorCode::POLICY_VIOLATION,
        DelegationError::Random | DelegationError::Log(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}

/// A time span of a request; none if it is not given.
pub(super) fn span(milliseconds: i64) -> Option<i64> {
    (milliseconds > 0).then_some(milliseconds)
}
