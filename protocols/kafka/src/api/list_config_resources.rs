//! ListConfigResources: the resources that have settings (KIP-1142).

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::config_resource::kind;
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
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

/// The ListConfigResources API.
pub struct ListConfigResources;

impl Handler for ListConfigResources {
    const KEY: i16 = 74;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE_FROM: i16 = 0;

    const LENGTH: Length = Length::Long;

    type Request = ListConfigResourcesRequest;
    type Response = ListConfigResourcesResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: ListConfigResourcesRequest,
    ) -> Reply<ListConfigResourcesResponse> {
        if let Err(error_code) = cx.access.check_cluster(Operation::DescribeConfigs) {
            return Reply::now(ListConfigResourcesResponse {
                error_code,
                ..ListConfigResourcesResponse::default()
            });
        }
        let is_known = |kind: &i8| {
            let known = [kind::TOPIC, kind::BROKER, kind::BROKER_LOGGER, kind::CLIENT_METRICS, kind::GROUP];
            known.contains(kind)
        };
        if !request.resource_types.iter().all(is_known) {
            return Reply::now(ListConfigResourcesResponse {
                error_code: ErrorCode::UNSUPPORTED_VERSION,
                ..ListConfigResourcesResponse::default()
            });
        }
        // Version 0 asks for client metrics subscriptions only; there are none.
        let version = cx.version();
        let is_requested = |kind| {
            version > 0 && (request.resource_types.is_empty() || request.resource_types.contains(&kind))
        };
        let mut config_resources = Vec::new();
        if is_requested(kind::TOPIC) {
            let topics = cx.namespace().topics();
            config_resources.extend(topics.iter().map(|topic| ConfigResource {
                resource_name: topic.name().into(),
                resource_type: kind::TOPIC,
            }));
        }
        if is_requested(kind::BROKER) {
            let resource_name = cx.config().node_id.to_string().into();
            config_resources.push(ConfigResource { resource_name, resource_type: kind::BROKER });
        }
        if is_requested(kind::GROUP) {
            let groups = cx.coordinator().groups_with_values().into_iter();
            config_resources.extend(
                groups.map(|resource_name| ConfigResource { resource_name, resource_type: kind::GROUP }),
            );
        }
        Reply::now(ListConfigResourcesResponse {
            throttle_time_ms: 0,
            error_code: ErrorCode::NONE,
            config_resources,
        })
    }
}
