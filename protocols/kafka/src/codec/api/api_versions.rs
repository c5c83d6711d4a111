//! ApiVersions: what is spoken here.

use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-5, flexible 3+.
    pub struct ApiVersionsRequest {
        client_software_name: Str [3..],
        client_software_version: Str [3..],
        cluster_id: Option<Str> [5..; null 5..],
        node_id: i32 [5..; default -1],
    }

    /// Versions 0-5, flexible 3+.
    pub struct ApiVersionsResponse {
        error_code: ErrorCode [0..],
        api_keys: Vec<ApiVersion> [0..],
        throttle_time_ms: i32 [1..],
    } tagged {
        0 supported_features: Vec<SupportedFeatureKey> [3..],
        1 finalized_features_epoch: i64 [3..; default -1],
        2 finalized_features: Vec<FinalizedFeatureKey> [3..],
        3 zk_migration_ready: bool [3..],
    }

    /// The APIs supported by the broker.
    pub struct ApiVersion {
        api_key: i16 [0..],
        min_version: i16 [0..],
        max_version: i16 [0..],
    }

    /// Features supported by the broker. Note: in v0-v3, features with MinSupportedVersion = 0 are omitted.
    pub struct SupportedFeatureKey {
        name: Str [3..],
        min_version: i16 [3..],
        max_version: i16 [3..],
    }

    /// List of cluster-wide finalized features. The information is valid only if FinalizedFeaturesEpoch >= 0.
    pub struct FinalizedFeatureKey {
        name: Str [3..],
        max_version_level: i16 [3..],
        min_version_level: i16 [3..],
    }
}
