//! DescribeAcls: the access control list (KIP-140, KIP-290): the permission rules that Kafka can express.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use inver_access::Operation;

use super::acls;
use super::context::RequestContext;
/// Versions 1-3, flexible 2+. The filter has the form of DeleteAcls.
pub use super::delete_acls::DeleteAclsFilter as DescribeAclsRequest;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::map::acl::{Acl, AclFilter};

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

    const LENGTH: Length = Length::Long;

    type Request = DescribeAclsRequest;
    type Response = DescribeAclsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: DescribeAclsRequest) -> Reply<DescribeAclsResponse> {
        let filter = AclFilter::from(request);
        let valid = || filter.check().map_err(|text| (ErrorCode::INVALID_REQUEST, text.to_owned()));
        if let Err((error_code, text)) = acls::check(cx, Operation::Describe).and_then(|()| valid()) {
            let error_message = message(text);
            return Reply::now(DescribeAclsResponse {
                error_code,
                error_message,
                ..DescribeAclsResponse::default()
            });
        }
        let rules = acls::expressed(cx);
        let all = rules.iter().flat_map(|rule| rule.acls.iter()).filter(|acl| filter.matches(acl));
        // Ordered by resource, each ACL once: several rules may mean the same.
        let all: BTreeSet<&Acl> = all.collect();
        let mut resources: Vec<DescribeAclsResource> = Vec::new();
        for acl in all {
            let described = AclDescription {
                principal: acl.principal.as_str().into(),
                host: acl.host.as_str().into(),
                operation: acl.operation,
                permission_type: acl.permission,
            };
            match resources.last_mut() {
                Some(last)
                    if (last.resource_type, &*last.resource_name, last.pattern_type)
                        == (acl.resource_type, acl.name.as_str(), acl.pattern_type) =>
                {
                    last.acls.push(described);
                }
                _ => resources.push(DescribeAclsResource {
                    resource_type: acl.resource_type,
                    resource_name: acl.name.as_str().into(),
                    pattern_type: acl.pattern_type,
                    acls: vec![described],
                }),
            }
        }
        Reply::now(DescribeAclsResponse { resources, ..DescribeAclsResponse::default() })
    }
}
