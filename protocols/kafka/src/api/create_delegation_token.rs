//! CreateDelegationToken: a token of the client, or of another user (KIP-48, KIP-373).

use std::ops::RangeInclusive;

use bytes::Bytes;
use inver_access::{DelegationToken, Operation, ResourceKind};
use inver_broker::{AuditKind, Completion, NewDelegationToken};

use super::context::RequestContext;
use super::delegation_tokens::{self, NO_TIME, USER};
use super::handler::Handler;
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 1-3, flexible 2+.
    pub struct CreateDelegationTokenRequest {
        owner_principal_type: Option<Str> [3..; null 3..],
        owner_principal_name: Option<Str> [3..; null 3..],
        renewers: Vec<CreatableRenewers> [0..],
        max_lifetime_ms: i64 [0..],
    }

    /// A list of those who are allowed to renew this token before it expires.
    pub struct CreatableRenewers {
        principal_type: Str [0..],
        principal_name: Str [0..],
    }

    /// Versions 1-3, flexible 2+.
    pub struct CreateDelegationTokenResponse {
        error_code: ErrorCode [0..],
        principal_type: Str [0..],
        principal_name: Str [0..],
        token_requester_principal_type: Str [3..],
        token_requester_principal_name: Str [3..],
        issue_timestamp_ms: i64 [0..],
        expiry_timestamp_ms: i64 [0..],
        max_timestamp_ms: i64 [0..],
        token_id: Str [0..],
        hmac: Bytes [0..],
        throttle_time_ms: i32 [0..],
    }
}

/// The CreateDelegationToken API.
pub struct CreateDelegationToken;

impl Handler for CreateDelegationToken {
    const KEY: i16 = 38;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const FLEXIBLE_FROM: i16 = 2;

    type Request = CreateDelegationTokenRequest;
    type Response = CreateDelegationTokenResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: CreateDelegationTokenRequest,
    ) -> Reply<CreateDelegationTokenResponse> {
        match create(cx, &request) {
            Ok((token, completion)) => {
                cx.namespace().audit(AuditKind::Access, "create", "delegation-token", &token.id);
                let hmac = cx.node.broker.access().token_hmac(&token.id).into();
                let response = CreateDelegationTokenResponse {
                    error_code: ErrorCode::NONE,
                    principal_type: Str::from_static(USER),
                    principal_name: token.owner.into(),
                    token_requester_principal_type: Str::from_static(USER),
                    token_requester_principal_name: token.requester.into(),
                    issue_timestamp_ms: token.issued_ms,
                    expiry_timestamp_ms: token.expires_ms,
                    max_timestamp_ms: token.max_ms,
                    token_id: token.id.into(),
                    hmac,
                    throttle_time_ms: 0,
                };
                Reply::Response(response, completion)
            }
            Err(error_code) => Reply::now(CreateDelegationTokenResponse {
                error_code,
                issue_timestamp_ms: NO_TIME,
                expiry_timestamp_ms: NO_TIME,
                max_timestamp_ms: NO_TIME,
                ..CreateDelegationTokenResponse::default()
            }),
        }
    }
}

fn create(
    cx: &RequestContext<'_>,
    request: &CreateDelegationTokenRequest,
) -> Result<(DelegationToken, Completion), ErrorCode> {
    let requester = delegation_tokens::requester(cx)?.to_owned();
    let owner = match request.owner_principal_name.as_deref().unwrap_or_default() {
        "" => requester.clone(),
        name => {
            delegation_tokens::user_of(request.owner_principal_type.as_deref().unwrap_or_default(), name)?
        }
    };
    if owner != requester
        && !delegation_tokens::may(cx, ResourceKind::User, &owner, &owner, Operation::CreateTokens)
    {
        cx.access.permissions.denied(ResourceKind::User, &owner, Operation::CreateTokens);
        return Err(ErrorCode::DELEGATION_TOKEN_AUTHORIZATION_FAILED);
    }
    let renewers = request.renewers.iter();
    let renewers = renewers.map(|one| delegation_tokens::user_of(&one.principal_type, &one.principal_name));
    let new = NewDelegationToken {
        owner,
        requester,
        renewers: renewers.collect::<Result<_, _>>()?,
        max_lifetime_ms: delegation_tokens::span(request.max_lifetime_ms),
    };
    let created = cx.node.broker.access().create_token(new, cx.node.now_ms());
    created.map_err(|error| delegation_tokens::error_code(&error))
}
