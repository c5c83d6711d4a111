//! DescribeAcls: permissions are read.

/// Versions 1-3, flexible 2+. What is to be read is said as what is to be deleted.
pub use super::delete_acls::DeleteAclsFilter as DescribeAclsRequest;
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
