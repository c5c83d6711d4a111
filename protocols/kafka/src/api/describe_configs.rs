//! DescribeConfigs: the settings of topics and of the node.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::config_resource::{self, kind, source};
use super::context::RequestContext;
use super::handler::Handler;
use super::reply::{Refusal, Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::settings::{node, topic};

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

/// The DescribeConfigs API.
pub struct DescribeConfigs;

impl Handler for DescribeConfigs {
    const KEY: i16 = 32;
    const VERSIONS: RangeInclusive<i16> = 1..=4;
    const FLEXIBLE_FROM: i16 = 4;

    type Request = DescribeConfigsRequest;
    type Response = DescribeConfigsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: DescribeConfigsRequest,
    ) -> Reply<DescribeConfigsResponse> {
        let results = request.resources.iter().map(|resource| {
            let (kind, name) = (resource.resource_type, &resource.resource_name);
            let checked = config_resource::check(cx, Operation::DescribeConfigs, kind, name);
            let configs = checked.and_then(|()| match kind {
                kind::TOPIC => topic_settings(cx, resource, &request),
                kind::BROKER => node_settings(cx, resource, &request),
                kind::BROKER_LOGGER | kind::GROUP => Ok(Vec::new()),
                other => Err((ErrorCode::INVALID_REQUEST, format!("unsupported resource type {other}"))),
            });
            let (configs, error_code, error_message) = match configs {
                Ok(configs) => (configs, ErrorCode::NONE, None),
                Err((code, text)) => (Vec::new(), code, message(text)),
            };
            DescribeConfigsResult {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                configs,
            }
        });
        let results = results.collect();
        Reply::now(DescribeConfigsResponse { throttle_time_ms: 0, results })
    }
}

/// Whether a request asks for the setting with this name. Null asks for all.
fn is_requested(resource: &DescribeConfigsResource, name: &str) -> bool {
    let keys = resource.configuration_keys.as_ref();
    keys.is_none_or(|keys| keys.iter().any(|key| *key == *name))
}

fn topic_settings(
    cx: &RequestContext<'_>,
    resource: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let set = config_resource::topic_config(cx, Operation::DescribeConfigs, &resource.resource_name)?;
    let defaults = topic::Defaults::of(&resource.resource_name, cx.namespace(), cx.config());
    let requested = topic::SETTINGS.iter().filter(|setting| is_requested(resource, setting.name));
    let described = requested.map(|setting| {
        let default = setting.default(&defaults);
        let own = set.get(setting.name).cloned();
        let synonym = |value: &str, source| DescribeConfigsSynonym {
            name: Str::from_static(setting.name),
            value: message(value),
            source,
        };
        let own_synonym = own.as_deref().map(|value| synonym(value, source::TOPIC));
        let synonyms = own_synonym.into_iter().chain([synonym(&default, source::DEFAULT)]);
        DescribeConfigsResourceResult {
            name: Str::from_static(setting.name),
            config_source: if own.is_some() { source::TOPIC } else { source::DEFAULT },
            synonyms: if request.include_synonyms { synonyms.collect() } else { Vec::new() },
            value: message(own.unwrap_or(default)),
            read_only: false,
            is_sensitive: false,
            config_type: setting.kind.config_type(),
            documentation: request.include_documentation.then(|| Str::from_static(setting.documentation)),
        }
    });
    Ok(described.collect())
}

/// The node's settings under Kafka's names. They cannot be changed over the wire.
fn node_settings(
    cx: &RequestContext<'_>,
    resource: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let (config, name) = (cx.config(), resource.resource_name.as_str());
    if !name.is_empty() && name.parse() != Ok(config.node_id) {
        let text = format!("this is broker {}, not {name}", config.node_id);
        return Err((ErrorCode::INVALID_REQUEST, text));
    }
    let all =
        node::settings(config, cx.node.broker.access().delegation(), &cx.advertised_address()).into_iter();
    let described = all.filter(|setting| is_requested(resource, setting.name)).map(|setting| {
        let synonym = DescribeConfigsSynonym {
            name: Str::from_static(setting.name),
            value: message(setting.value.as_str()),
            source: source::STATIC_BROKER,
        };
        DescribeConfigsResourceResult {
            name: Str::from_static(setting.name),
            value: message(setting.value),
            read_only: true,
            config_source: source::STATIC_BROKER,
            is_sensitive: false,
            synonyms: if request.include_synonyms { vec![synonym] } else { Vec::new() },
            config_type: setting.config_type,
            documentation: request.include_documentation.then(|| Str::from_static(setting.documentation)),
        }
    });
    Ok(described.collect())
}
