//! DeleteAcls: removes from the access control list. Answered as by a Kafka broker without an authorizer.

use std::ops::RangeInclusive;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::{Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 1-3, flexible 2+.
    pub struct DeleteAclsRequest {
        filters: Vec<DeleteAclsFilter> [0..],
    }

    /// The filters to use when deleting ACLs.
    pub struct DeleteAclsFilter {
        resource_type_filter: i8 [0..],
        resource_name_filter: Option<Str> [0..; null 0..],
        pattern_type_filter: i8 [1..; default 3],
        principal_filter: Option<Str> [0..; null 0..],
        host_filter: Option<Str> [0..; null 0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }

    /// Versions 1-3, flexible 2+.
    pub struct DeleteAclsResponse {
        throttle_time_ms: i32 [0..],
        filter_results: Vec<DeleteAclsFilterResult> [0..],
    }

    /// The results for each filter.
    pub struct DeleteAclsFilterResult {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        matching_acls: Vec<DeleteAclsMatchingAcl> [0..],
    }

    /// The ACLs which matched this filter.
    pub struct DeleteAclsMatchingAcl {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        resource_type: i8 [0..],
        resource_name: Str [0..],
        pattern_type: i8 [1..; default 3],
        principal: Str [0..],
        host: Str [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
}

/// The DeleteAcls API.
pub struct DeleteAcls;

/// Kafka's error message where no authorizer is configured.
pub(super) const NO_AUTHORIZER: &str = "No Authorizer is configured.";

impl Handler for DeleteAcls {
    const KEY: i16 = 31;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const FLEXIBLE_FROM: i16 = 2;

    type Request = DeleteAclsRequest;
    type Response = DeleteAclsResponse;

    fn handle(_: &mut RequestContext<'_>, request: DeleteAclsRequest) -> Reply<DeleteAclsResponse> {
        let results = request.filters.iter().map(|_| DeleteAclsFilterResult {
            error_code: ErrorCode::SECURITY_DISABLED,
            error_message: message(NO_AUTHORIZER),
            matching_acls: Vec::new(),
        });
        Reply::now(DeleteAclsResponse { throttle_time_ms: 0, filter_results: results.collect() })
    }
}
