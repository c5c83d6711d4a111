//! DescribeUserScramCredentials: who can log in by SCRAM.

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
