//! DescribeAcls: the access control list. Answered as by a Kafka broker without an authorizer.

use std::ops::RangeInclusive;

use super::context::RequestContext;
/// Versions 1-3, flexible 2+. The filter has the form of DeleteAcls.
pub use super::delete_acls::DeleteAclsFilter as DescribeAclsRequest;
use super::delete_acls::NO_AUTHORIZER;
use super::handler::Handler;
use super::reply::{Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 1-3, flexible 2+.
    pub struct DescribeAclsResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        resources: Vec<DescribeAclsResource> [0..],
    }

    /// Each Resource that is referenced in an ACL.
    pub struct DescribeAclsResource {
        resource_type: i8 [0..],
        resource_name: Str [0..],
        pattern_type: i8 [1..; default 3],
        acls: Vec<AclDescription> [0..],
    }

    /// The ACLs.
    pub struct AclDescription {
        principal: Str [0..],
        host: Str [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
}

/// The DescribeAcls API.
pub struct DescribeAcls;

impl Handler for DescribeAcls {
    const KEY: i16 = 29;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const FLEXIBLE_FROM: i16 = 2;

    type Request = DescribeAclsRequest;
    type Response = DescribeAclsResponse;

    fn handle(_: &mut RequestContext<'_>, _: DescribeAclsRequest) -> Reply<DescribeAclsResponse> {
        Reply::now(DescribeAclsResponse {
            error_code: ErrorCode::SECURITY_DISABLED,
            error_message: message(NO_AUTHORIZER),
            ..DescribeAclsResponse::default()
        })
    }
}
