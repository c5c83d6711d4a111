//! DescribeConfigs: settings are read.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 1-4, flexible 4+.
    pub struct DescribeConfigsRequest {
        resources: Vec<DescribeConfigsResource> [0..],
        include_synonyms: bool [1..],
        include_documentation: bool [3..],
    }

    /// The resources whose configurations we want to describe.
    pub struct DescribeConfigsResource {
        resource_type: i8 [0..],
        resource_name: Str [0..],
        configuration_keys: Option<Vec<Str>> [0..; null 0..],
    }

    /// Versions 1-4, flexible 4+.
    pub struct DescribeConfigsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<DescribeConfigsResult> [0..],
    }

    /// The results for each resource.
    pub struct DescribeConfigsResult {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        resource_type: i8 [0..],
        resource_name: Str [0..],
        configs: Vec<DescribeConfigsResourceResult> [0..],
    }

    /// Each listed configuration.
    pub struct DescribeConfigsResourceResult {
        name: Str [0..],
        value: Option<Str> [0..; null 0..],
        read_only: bool [0..],
        config_source: i8 [1..; default -1],
        is_sensitive: bool [0..],
        synonyms: Vec<DescribeConfigsSynonym> [1..],
        config_type: i8 [3..],
        documentation: Option<Str> [3..; null 0..],
    }

    /// The synonyms for this configuration key.
    pub struct DescribeConfigsSynonym {
        name: Str [1..],
        value: Option<Str> [1..; null 0..],
        source: i8 [1..],
    }
}
