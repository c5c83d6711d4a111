//! DescribeUserScramCredentials: the SCRAM credentials of users (KIP-554), those of the configuration included.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use inver_access::{Operation, User};
use inver_broker::AccessControl;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use super::scram_users;
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

    const LENGTH: Length = Length::Long;

    type Request = DescribeUserScramCredentialsRequest;
    type Response = DescribeUserScramCredentialsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: DescribeUserScramCredentialsRequest,
    ) -> Reply<DescribeUserScramCredentialsResponse> {
        if let Err((error_code, text)) = scram_users::check(cx, Operation::Describe) {
            return Reply::now(DescribeUserScramCredentialsResponse {
                error_code,
                error_message: message(text),
                ..DescribeUserScramCredentialsResponse::default()
            });
        }
        let access = cx.node.broker.access();
        let wanted = request.users.unwrap_or_default();
        let results = if wanted.is_empty() {
            let users = access.users().into_iter().map(|(user, _)| described(&user));
            users.filter(|result| !result.credential_infos.is_empty()).collect()
        } else {
            let mut times: HashMap<Str, usize> = HashMap::new();
            wanted.iter().for_each(|user| *times.entry(user.name.clone()).or_default() += 1);
            let named = wanted.into_iter().filter_map(|user| Some((times.remove(&user.name)?, user.name)));
            named.map(|(times, name)| named_user(access, &name, times > 1)).collect()
        };
        Reply::now(DescribeUserScramCredentialsResponse {
            results,
            ..DescribeUserScramCredentialsResponse::default()
        })
    }
}

/// The result for a user that the request names. The texts are Kafka's.
fn named_user(access: &AccessControl, name: &Str, repeated: bool) -> DescribeUserScramCredentialsResult {
    let failed = |error_code, text: String| DescribeUserScramCredentialsResult {
        user: name.clone(),
        error_code,
        error_message: message(text),
        credential_infos: Vec::new(),
    };
    if repeated {
        let text =
            format!("Cannot describe SCRAM credentials for the same user twice in a single request: {name}");
        return failed(ErrorCode::DUPLICATE_RESOURCE, text);
    }
    let known = access.user(name).map(|(user, _)| described(&user));
    known.filter(|result| !result.credential_infos.is_empty()).unwrap_or_else(|| {
        let text = format!("Attempt to describe a user credential that does not exist: {name}");
        failed(ErrorCode::RESOURCE_NOT_FOUND, text)
    })
}

fn described(user: &User) -> DescribeUserScramCredentialsResult {
    let mut credential_infos: Vec<CredentialInfo> = Vec::new();
    for (mechanism, iterations) in user.credentials.iter().filter_map(scram_users::mechanism_of) {
        if !credential_infos.iter().any(|known| known.mechanism == mechanism) {
            credential_infos.push(CredentialInfo { mechanism, iterations });
        }
    }
    DescribeUserScramCredentialsResult {
        user: user.name.as_str().into(),
        error_code: ErrorCode::NONE,
        error_message: None,
        credential_infos,
    }
}
