//! DescribeUserScramCredentials: the SCRAM credentials of users (KIP-554). None are
//! told, whatever the configuration holds.

use std::ops::RangeInclusive;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::{Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0, flexible 0+.
    pub struct DescribeUserScramCredentialsRequest {
        users: Option<Vec<UserName>> [0..; null 0..],
    }

    /// The users to describe, or null/empty to describe all users.
    pub struct UserName {
        name: Str [0..],
    }

    /// Versions 0, flexible 0+.
    pub struct DescribeUserScramCredentialsResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        results: Vec<DescribeUserScramCredentialsResult> [0..],
    }

    /// The results for descriptions, one per user.
    pub struct DescribeUserScramCredentialsResult {
        user: Str [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        credential_infos: Vec<CredentialInfo> [0..],
    }

    /// The mechanism and related information associated with the user's SCRAM credentials.
    pub struct CredentialInfo {
        mechanism: i8 [0..],
        iterations: i32 [0..],
    }
}

/// The DescribeUserScramCredentials API.
pub struct DescribeUserScramCredentials;

impl Handler for DescribeUserScramCredentials {
    const KEY: i16 = 50;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE_FROM: i16 = 0;

    type Request = DescribeUserScramCredentialsRequest;
    type Response = DescribeUserScramCredentialsResponse;

    fn handle(
        _: &mut RequestContext<'_>,
        request: DescribeUserScramCredentialsRequest,
    ) -> Reply<DescribeUserScramCredentialsResponse> {
        let results = request.users.unwrap_or_default().into_iter().map(|user| {
            let text = format!("Attempt to describe a user credential that does not exist: {}", user.name);
            DescribeUserScramCredentialsResult {
                user: user.name,
                error_code: ErrorCode::RESOURCE_NOT_FOUND,
                error_message: message(text),
                credential_infos: Vec::new(),
            }
        });
        Reply::now(DescribeUserScramCredentialsResponse {
            results: results.collect(),
            ..DescribeUserScramCredentialsResponse::default()
        })
    }
}
