//! ApiVersions: the APIs and versions answered (KIP-35, KIP-511).

use std::ops::RangeInclusive;

use super::context::RequestContext;
use super::features::{FEATURES, Feature};
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::api::Api;
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

/// The ApiVersions API.
pub struct ApiVersions;

impl Handler for ApiVersions {
    const KEY: i16 = 18;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const FLEXIBLE_FROM: i16 = 3;
    const BEFORE_AUTHENTICATION: bool = true;

    const LENGTH: Length = Length::Turn;

    type Request = ApiVersionsRequest;
    type Response = ApiVersionsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: ApiVersionsRequest) -> Reply<ApiVersionsResponse> {
        let (name, version) = (&request.client_software_name, &request.client_software_version);
        tracing::debug!(%name, %version, "client software");
        // Kafka requires a name, since operators search their logs for it (KIP-511).
        if cx.header.version.flexible && !(is_software(name) && is_software(version)) {
            return Reply::now(ApiVersionsResponse {
                error_code: ErrorCode::INVALID_REQUEST,
                ..ApiVersionsResponse::default()
            });
        }
        // A client that was told another address, or whose broker was replaced, looks its cluster up again (KIP-1242).
        let is_other = request.cluster_id.as_ref().is_some_and(|id| *id != cx.node.cluster_id)
            || (request.node_id >= 0 && request.node_id != cx.config().node_id);
        if is_other {
            return Reply::now(ApiVersionsResponse {
                error_code: ErrorCode::REBOOTSTRAP_REQUIRED,
                ..ApiVersionsResponse::default()
            });
        }
        // Versions that cannot tell of a feature without a least level leave it out.
        let told = cx.version() >= 4;
        let features = FEATURES.iter().filter(|feature| told || feature.min > 0);
        Reply::now(ApiVersionsResponse {
            api_keys: cx.node.apis.iter().map(entry).collect(),
            supported_features: features.map(supported).collect(),
            finalized_features_epoch: 0,
            finalized_features: FEATURES.iter().map(finalized).collect(),
            ..ApiVersionsResponse::default()
        })
    }
}

/// Whether a name or version of client software is valid (KIP-511): letters and digits, and `.` and `-` between them.
fn is_software(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric())) && text.bytes().all(is_inner)
}

fn supported(feature: &Feature) -> SupportedFeatureKey {
    let name = Str::from_static(feature.name);
    SupportedFeatureKey { name, min_version: feature.min, max_version: feature.level }
}

fn finalized(feature: &Feature) -> FinalizedFeatureKey {
    let (name, level) = (Str::from_static(feature.name), feature.level);
    FinalizedFeatureKey { name, min_version_level: level, max_version_level: level }
}

fn entry(api: &Api) -> ApiVersion {
    ApiVersion { api_key: api.key, min_version: api.version_min, max_version: api.version_max }
}

impl ApiVersions {
    /// The response, in version 0, to a request in a version that is too new: it lists the versions of ApiVersions, so
    /// that the client retries with one of them (KIP-511).
    pub(crate) fn unsupported_version() -> ApiVersionsResponse {
        let own = ApiVersion {
            api_key: ApiVersions::KEY,
            min_version: *ApiVersions::VERSIONS.start(),
            max_version: *ApiVersions::VERSIONS.end(),
        };
        ApiVersionsResponse {
            error_code: ErrorCode::UNSUPPORTED_VERSION,
            api_keys: vec![own],
            ..ApiVersionsResponse::default()
        }
    }
}
