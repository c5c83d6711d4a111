//! DescribeConfigs: the settings of topics, groups and the node.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::config_resource::{self, kind, source};
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Refusal, Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::coordinator::group_settings::SETTINGS;
use crate::settings::dynamic::{self, Scope};
use crate::settings::{node, synonyms, topic};

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

    const LENGTH: Length = Length::Long;

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
                kind::BROKER_LOGGER => Ok(Vec::new()),
                kind::GROUP => Ok(group_settings(cx, resource, &request)),
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

/// Whether a request asks for the setting with this name. Null asks for all, and an empty list too.
fn is_requested(resource: &DescribeConfigsResource, name: &str) -> bool {
    let keys = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
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
        let synonym = |name, value: &str, source| DescribeConfigsSynonym {
            name: Str::from_static(name),
            value: message(value),
            source,
        };
        let own_synonym = own.as_deref().map(|value| synonym(setting.name, value, source::TOPIC));
        let of_broker = synonyms::of(setting.name).map(|name| synonym(name, &default, source::DEFAULT));
        let synonyms = own_synonym.into_iter().chain(of_broker);
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

fn group_settings(
    cx: &RequestContext<'_>,
    resource: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
) -> Vec<DescribeConfigsResourceResult> {
    let set = cx.coordinator().values_of(&resource.resource_name);
    let requested = SETTINGS.iter().filter(|setting| is_requested(resource, setting.name));
    let described = requested.map(|setting| {
        let default = (setting.default(&cx.config().groups), source::DEFAULT);
        let own = set.get(setting.name).map(|value| (value.clone(), source::GROUP));
        let values: Vec<(String, i8)> = own.into_iter().chain([default]).collect();
        let synonym = |(value, source): &(String, i8)| DescribeConfigsSynonym {
            name: Str::from_static(setting.name),
            value: message(value.as_str()),
            source: *source,
        };
        DescribeConfigsResourceResult {
            name: Str::from_static(setting.name),
            config_source: values.first().map_or(source::DEFAULT, |(_, source)| *source),
            synonyms: if request.include_synonyms {
                values.iter().map(synonym).collect()
            } else {
                Vec::new()
            },
            value: values.into_iter().next().and_then(|(value, _)| message(value)),
            read_only: false,
            is_sensitive: false,
            config_type: setting.config_type,
            documentation: request.include_documentation.then(|| Str::from_static(setting.documentation)),
        }
    });
    described.collect()
}

/// The node's settings under Kafka's names. Of all brokers (an empty name), only what clients have set.
fn node_settings(
    cx: &RequestContext<'_>,
    resource: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let (config, name) = (cx.config(), resource.resource_name.as_str());
    let scope = match (Scope::of(name, config.node_id), name.parse::<i32>()) {
        (Ok(scope), _) => scope,
        (Err(_), Ok(_)) => {
            let node_id = config.node_id;
            let text =
                format!("Unexpected broker id, expected {node_id} or empty string, but received {name}");
            return Err((ErrorCode::INVALID_REQUEST, text));
        }
        (Err(_), Err(_)) => {
            let text = format!("Broker id must be an integer, but it is: {name}");
            return Err((ErrorCode::INVALID_REQUEST, text));
        }
    };
    let broker = &cx.node.broker;
    let all = node::settings(config, broker, &cx.advertised_address()).into_iter();
    let described = all.filter(|setting| is_requested(resource, setting.name)).filter_map(|setting| {
        let set = |scope| setting.is_dynamic.then(|| dynamic::get(broker, scope, setting.name)).flatten();
        let own =
            set(Scope::Node).filter(|_| scope == Scope::Node).map(|value| (value, source::DYNAMIC_BROKER));
        let of_all = set(Scope::Default).map(|value| (value, source::DYNAMIC_DEFAULT_BROKER));
        let fixed = setting
            .value
            .map(|value| (value, if setting.is_default { source::DEFAULT } else { source::STATIC_BROKER }));
        let values: Vec<(String, i8)> = match scope {
            Scope::Node => own.into_iter().chain(of_all).chain(fixed).collect(),
            Scope::Default => of_all.into_iter().collect(),
        };
        if values.is_empty() && (setting.is_dynamic || scope == Scope::Default) {
            return None;
        }
        let synonym = |(value, source): &(String, i8)| DescribeConfigsSynonym {
            name: Str::from_static(setting.name),
            value: message(value.as_str()),
            source: *source,
        };
        Some(DescribeConfigsResourceResult {
            name: Str::from_static(setting.name),
            synonyms: if request.include_synonyms {
                values.iter().map(synonym).collect()
            } else {
                Vec::new()
            },
            config_source: values.first().map_or(source::DEFAULT, |(_, source)| *source),
            value: values.into_iter().next().and_then(|(value, _)| message(value)),
            read_only: !setting.is_dynamic,
            is_sensitive: setting.config_type == node::PASSWORD,
            config_type: setting.config_type,
            documentation: request.include_documentation.then(|| Str::from_static(setting.documentation)),
        })
    });
    Ok(described.collect())
}
