//! AlterConfigs: replaces all settings of topics. Clients use IncrementalAlterConfigs since Kafka 2.3.

use std::ops::RangeInclusive;

use inver_broker::{Completion, TopicConfig};

use super::config_resource;
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Refusal, Reply, message};
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

/// The AlterConfigs API.
pub struct AlterConfigs;

impl Handler for AlterConfigs {
    const KEY: i16 = 33;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE_FROM: i16 = 2;

    const LENGTH: Length = Length::Long;

    type Request = AlterConfigsRequest;
    type Response = AlterConfigsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: AlterConfigsRequest) -> Reply<AlterConfigsResponse> {
        let mut completion = Completion::Now;
        let mut responses = Vec::with_capacity(request.resources.len());
        let named =
            request.resources.iter().map(|resource| (resource.resource_type, &resource.resource_name));
        let repeated = config_resource::repeated(named);
        for resource in request.resources {
            let (kind, name) = (resource.resource_type, resource.resource_name);
            let checked = match repeated.contains(&(kind, name.clone())) {
                true => Err(config_resource::repeated_refusal()),
                false => config_resource::check_change(&resource.configs, |config| {
                    (config.name.as_str(), config.value.is_none())
                }),
            };
            // A setting that is not named returns to its default.
            let set = resource.configs.into_iter().filter_map(|config| Some((config.name, config.value?)));
            let after: TopicConfig = set.map(|(name, value)| (name.to_string(), value.to_string())).collect();
            let altered = checked
                .and_then(|()| config_resource::alter(cx, kind, &name, request.validate_only, |_| Ok(after)));
            let (response, altered) = AlterConfigsResourceResponse::of(kind, name, altered);
            responses.push(response);
            completion = completion.and(altered);
        }
        Reply::Response(AlterConfigsResponse { throttle_time_ms: 0, responses }, completion)
    }
}

impl AlterConfigsResourceResponse {
    pub(super) fn of(
        resource_type: i8,
        resource_name: Str,
        altered: Result<Completion, Refusal>,
    ) -> (AlterConfigsResourceResponse, Completion) {
        let (error_code, error_message, completion) = match altered {
            Ok(completion) => (ErrorCode::NONE, None, completion),
            Err((code, text)) => (code, message(text), Completion::Now),
        };
        (AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }, completion)
    }
}
