//! DescribeDelegationToken: the client's own tokens, and those of others that it may see (KIP-48, KIP-373).

use std::ops::RangeInclusive;

use bytes::Bytes;
use inver_access::{DelegationToken, Operation, ResourceKind};

use super::context::RequestContext;
use super::delegation_tokens::{self, USER};
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 1-3, flexible 2+.
    pub struct DescribeDelegationTokenRequest {
        owners: Option<Vec<DescribeDelegationTokenOwner>> [0..; null 0..],
    }

    /// Each owner that we want to describe delegation tokens for, or null to describe all tokens.
    pub struct DescribeDelegationTokenOwner {
        principal_type: Str [0..],
        principal_name: Str [0..],
    }

    /// Versions 1-3, flexible 2+.
    pub struct DescribeDelegationTokenResponse {
        error_code: ErrorCode [0..],
        tokens: Vec<DescribedDelegationToken> [0..],
        throttle_time_ms: i32 [0..],
    }

    /// The tokens.
    pub struct DescribedDelegationToken {
        principal_type: Str [0..],
        principal_name: Str [0..],
        token_requester_principal_type: Str [3..],
        token_requester_principal_name: Str [3..],
        issue_timestamp: i64 [0..],
        expiry_timestamp: i64 [0..],
        max_timestamp: i64 [0..],
        token_id: Str [0..],
        hmac: Bytes [0..],
        renewers: Vec<DescribedDelegationTokenRenewer> [0..],
    }

    /// Those who are able to renew this token before it expires.
    pub struct DescribedDelegationTokenRenewer {
        principal_type: Str [0..],
        principal_name: Str [0..],
    }
}

/// The DescribeDelegationToken API.
pub struct DescribeDelegationToken;

impl Handler for DescribeDelegationToken {
    const KEY: i16 = 41;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const FLEXIBLE_FROM: i16 = 2;

    const LENGTH: Length = Length::Long;

    type Request = DescribeDelegationTokenRequest;
    type Response = DescribeDelegationTokenResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: DescribeDelegationTokenRequest,
    ) -> Reply<DescribeDelegationTokenResponse> {
        let (error_code, tokens) = match described(cx, request.owners.as_deref()) {
            Ok(tokens) => (ErrorCode::NONE, tokens),
            Err(error_code) => (error_code, Vec::new()),
        };
        Reply::now(DescribeDelegationTokenResponse { error_code, tokens, throttle_time_ms: 0 })
    }
}

fn described(
    cx: &RequestContext<'_>,
    owners: Option<&[DescribeDelegationTokenOwner]>,
) -> Result<Vec<DescribedDelegationToken>, ErrorCode> {
    let user = delegation_tokens::requester(cx)?;
    let access = cx.node.broker.access();
    let now_ms = cx.node.now_ms();
    let is_wanted = |token: &DelegationToken| {
        owners.is_none_or(|owners| {
            owners.iter().any(|one| &*one.principal_type == USER && token.belongs_to(&one.principal_name))
        })
    };
    let may_see = |token: &DelegationToken| {
        let may = |kind, name, operation| delegation_tokens::may(cx, kind, name, &token.owner, operation);
        token.belongs_to(user)
            || may(ResourceKind::DelegationToken, &token.id, Operation::Describe)
            || may(ResourceKind::User, &token.owner, Operation::DescribeTokens)
    };
    let tokens = access.tokens().into_iter();
    let tokens = tokens.filter(|token| !token.is_expired(now_ms) && is_wanted(token) && may_see(token));
    Ok(tokens.map(|token| shown(access.token_hmac(&token.id).into(), token)).collect())
}

fn shown(hmac: Bytes, token: DelegationToken) -> DescribedDelegationToken {
    let renewers = token.renewers.into_iter().map(|name| DescribedDelegationTokenRenewer {
        principal_type: Str::from_static(USER),
        principal_name: name.into(),
    });
    DescribedDelegationToken {
        principal_type: Str::from_static(USER),
        principal_name: token.owner.into(),
        token_requester_principal_type: Str::from_static(USER),
        token_requester_principal_name: token.requester.into(),
        issue_timestamp: token.issued_ms,
        expiry_timestamp: token.expires_ms,
        max_timestamp: token.max_ms,
        token_id: token.id.into(),
        hmac,
        renewers: renewers.collect(),
    }
}
