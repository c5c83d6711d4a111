//! CreateAcls: permissions are given.

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
