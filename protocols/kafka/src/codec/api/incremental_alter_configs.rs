//! IncrementalAlterConfigs: settings are changed one by one.

pub use super::alter_configs::AlterConfigsResourceResponse;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-1, flexible 1+.
    pub struct IncrementalAlterConfigsRequest {
        resources: Vec<AlterConfigsResource> [0..],
        validate_only: bool [0..],
    }

    /// The incremental updates for each resource.
    pub struct AlterConfigsResource {
        resource_type: i8 [0..],
        resource_name: Str [0..],
        configs: Vec<AlterableConfig> [0..],
    }

    /// The configurations.
    pub struct AlterableConfig {
        name: Str [0..],
        config_operation: i8 [0..],
        value: Option<Str> [0..; null 0..],
    }

    /// Versions 0-1, flexible 1+.
    pub struct IncrementalAlterConfigsResponse {
        throttle_time_ms: i32 [0..],
        responses: Vec<AlterConfigsResourceResponse> [0..],
    }
}
