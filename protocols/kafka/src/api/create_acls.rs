//! CreateAcls: adds to the access control list. Answered as by a Kafka broker without an authorizer.

use std::ops::RangeInclusive;

use super::context::RequestContext;
use super::delete_acls::NO_AUTHORIZER;
use super::handler::Handler;
use super::reply::{Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 1-3, flexible 2+.
    pub struct CreateAclsRequest {
        creations: Vec<AclCreation> [0..],
    }

    /// The ACLs that we want to create.
    pub struct AclCreation {
        resource_type: i8 [0..],
        resource_name: Str [0..],
        resource_pattern_type: i8 [1..; default 3],
        principal: Str [0..],
        host: Str [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }

    /// Versions 1-3, flexible 2+.
    pub struct CreateAclsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<AclCreationResult> [0..],
    }

    /// The results for each ACL creation.
    pub struct AclCreationResult {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }
}

/// The CreateAcls API.
pub struct CreateAcls;

impl Handler for CreateAcls {
    const KEY: i16 = 30;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const FLEXIBLE_FROM: i16 = 2;

    type Request = CreateAclsRequest;
    type Response = CreateAclsResponse;

    fn handle(_: &mut RequestContext<'_>, request: CreateAclsRequest) -> Reply<CreateAclsResponse> {
        let results = request.creations.iter().map(|_| AclCreationResult {
            error_code: ErrorCode::SECURITY_DISABLED,
            error_message: message(NO_AUTHORIZER),
        });
        Reply::now(CreateAclsResponse { throttle_time_ms: 0, results: results.collect() })
    }
}
