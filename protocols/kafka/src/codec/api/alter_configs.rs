//! AlterConfigs: settings are replaced.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-2, flexible 2+.
    pub struct AlterConfigsRequest {
        resources: Vec<AlterConfigsResource> [0..],
        validate_only: bool [0..],
    }

    /// The updates for each resource.
    pub struct AlterConfigsResource {
        resource_type: i8 [0..],
        resource_name: Str [0..],
        configs: Vec<AlterableConfig> [0..],
    }

    /// The configurations.
    pub struct AlterableConfig {
        name: Str [0..],
        value: Option<Str> [0..; null 0..],
    }

    /// Versions 0-2, flexible 2+.
    pub struct AlterConfigsResponse {
        throttle_time_ms: i32 [0..],
        responses: Vec<AlterConfigsResourceResponse> [0..],
    }

    /// The responses for each resource.
    pub struct AlterConfigsResourceResponse {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        resource_type: i8 [0..],
        resource_name: Str [0..],
    }
}
