//! UpdateFeatures: changes the level of features (KIP-584, KIP-778). They are at their greatest level, and stay there.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::features::FEATURES;
use super::handler::Handler;
use super::reply::{Refusal, Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-2, flexible 0+.
    pub struct UpdateFeaturesRequest {
        timeout_ms: i32 [0..; default 60000],
        feature_updates: Vec<FeatureUpdateKey> [0..],
        validate_only: bool [1..],
    }

    /// The list of updates to finalized features.
    pub struct FeatureUpdateKey {
        feature: Str [0..],
        max_version_level: i16 [0..],
        allow_downgrade: bool [0..=0],
        upgrade_type: i8 [1..; default 1],
    }

    /// Versions 0-2, flexible 0+.
    pub struct UpdateFeaturesResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        results: Vec<UpdatableFeatureResult> [0..=1],
    }

    /// Results for each feature update.
    pub struct UpdatableFeatureResult {
        feature: Str [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }
}

/// The UpdateFeatures API.
pub struct UpdateFeatures;

/// The type of an update that does not go down.
const UPGRADE: i8 = 1;
/// The version from which on there is one answer for all features.
const ONE_RESULT_SINCE: i16 = 2;

impl Handler for UpdateFeatures {
    const KEY: i16 = 57;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE_FROM: i16 = 0;

    type Request = UpdateFeaturesRequest;
    type Response = UpdateFeaturesResponse;

    fn handle(cx: &mut RequestContext<'_>, request: UpdateFeaturesRequest) -> Reply<UpdateFeaturesResponse> {
        let refused = |error_code, text: &str| UpdateFeaturesResponse {
            error_code,
            error_message: message(text),
            ..UpdateFeaturesResponse::default()
        };
        if let Err(error_code) = cx.access.check_cluster(Operation::Alter) {
            return Reply::now(refused(error_code, access::text(error_code)));
        }
        let node_id = cx.config().node_id;
        let mut results = Vec::with_capacity(request.feature_updates.len());
        let mut failed: Option<Refusal> = None;
        for update in request.feature_updates {
            let (error_code, error_message) = match check(&update, node_id) {
                Ok(()) => (ErrorCode::NONE, None),
                Err((code, text)) => {
                    failed.get_or_insert_with(|| (code, text.clone()));
                    (code, message(text))
                }
            };
            results.push(UpdatableFeatureResult { feature: update.feature, error_code, error_message });
        }
        let failed = failed.filter(|_| cx.version() >= ONE_RESULT_SINCE);
        Reply::now(match failed {
            Some((code, text)) => {
                let because = "The update failed for all features since the following feature had an error";
                refused(code, &format!("{because}: {text}"))
            }
            None => UpdateFeaturesResponse { results, ..UpdateFeaturesResponse::default() },
        })
    }
}

/// Whether a feature is at the wanted level already. The texts are Kafka's.
fn check(update: &FeatureUpdateKey, node_id: i32) -> Result<(), Refusal> {
    let (name, level) = (&update.feature, update.max_version_level);
    let reason = match FEATURES.iter().find(|feature| *feature.name == **name) {
        Some(feature) if feature.level == level => return Ok(()),
        Some(feature)
            if (feature.min..feature.level).contains(&level)
                && update.upgrade_type == UPGRADE
                && !update.allow_downgrade =>
        {
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade."
                .to_owned()
        }
        Some(feature) => {
            format!("Local controller {node_id} only supports versions {}-{}", feature.level, feature.level)
        }
        None => format!("Local controller {node_id} does not support this feature."),
    };
    let text = format!("Invalid update version {level} for feature {name}. {reason}");
    Err((ErrorCode::INVALID_UPDATE_VERSION, text))
}
