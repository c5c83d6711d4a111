//! ListConfigResources: what has settings.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-1, flexible 0+.
    pub struct ListConfigResourcesRequest {
        resource_types: Vec<i8> [1..],
    }

    /// Versions 0-1, flexible 0+.
    pub struct ListConfigResourcesResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        config_resources: Vec<ConfigResource> [0..],
    }

    /// Each config resource in the response.
    pub struct ConfigResource {
        resource_name: Str [0..],
        resource_type: i8 [1..; default 16],
    }
}
