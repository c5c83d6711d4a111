//! DescribeConfigs, IncrementalAlterConfigs, AlterConfigs, ListConfigResources.

use std::sync::Arc;

use inver_broker::{Topic, TopicConfig};
use inver_storage::Lsn;

use super::node_settings;
use super::settings::{self, SETTINGS, Setting};
use super::{Call, Session, message};
use crate::codec::api::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::codec::api::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};
use crate::codec::api::{alter_configs, incremental_alter_configs};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::config::KafkaConfig;
use crate::error::ConnectionError;
use crate::map;

/// Kinds of things that have settings.
mod resource {
    pub(super) const TOPIC: i8 = 2;
    pub(super) const BROKER: i8 = 4;
    pub(super) const BROKER_LOGGER: i8 = 8;
    pub(super) const GROUP: i8 = 32;
}

/// Where a value comes from.
mod source {
    pub(super) const TOPIC: i8 = 1;
    pub(super) const BROKER_STATIC: i8 = 4;
    pub(super) const DEFAULT: i8 = 5;
}

type Refusal = (ErrorCode, String);

/// A request that changes settings.
struct Alteration {
    validate_only: bool,
    /// What its answer waits for.
    lsn: Option<Lsn>,
}

/// One change of one setting.
enum Change {
    Set(String),
    Delete,
    Append(String),
    Subtract(String),
}

impl Session {
    pub(super) fn describe_configs(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: DescribeConfigsRequest = call.read()?;
        let mut results = Vec::with_capacity(request.resources.len());
        for resource in &request.resources {
            let configs = match resource.resource_type {
                resource::TOPIC => self.topic_configs(resource, &request),
                resource::BROKER => self.broker_configs(resource, &request),
                resource::BROKER_LOGGER | resource::GROUP => Ok(Vec::new()),
                other => {
                    Err((ErrorCode::INVALID_REQUEST, format!("there is no resource of type {other} here")))
                }
            };
            let (configs, error_code, error_message) = match configs {
                Ok(configs) => (configs, ErrorCode::NONE, None),
                Err((code, text)) => (Vec::new(), code, message(text)),
            };
            results.push(DescribeConfigsResult {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                configs,
            });
        }
        self.answer(&call, &DescribeConfigsResponse { throttle_time_ms: 0, results });
        Ok(())
    }

    fn known_topic(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        self.node.namespace.topic(name).ok_or_else(|| {
            (
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                "This server does not host this topic-partition.".to_owned(),
            )
        })
    }

    fn topic_configs(
        &self,
        resource: &DescribeConfigsResource,
        request: &DescribeConfigsRequest,
    ) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
        let set = self.known_topic(&resource.resource_name)?.config();
        let described = wanted(resource).map(|setting| {
            let default = setting.default(&self.node.config);
            let own = set.get(setting.name).cloned();
            let synonym = |value: &str, source| DescribeConfigsSynonym {
                name: Str::from_static(setting.name),
                value: message(value),
                source,
            };
            let own_synonym = own.as_deref().map(|value| synonym(value, source::TOPIC));
            let synonyms = own_synonym.into_iter().chain([synonym(&default, source::DEFAULT)]);
            DescribeConfigsResourceResult {
                config_source: if own.is_some() { source::TOPIC } else { source::DEFAULT },
                synonyms: if request.include_synonyms { synonyms.collect() } else { Vec::new() },
                ..described(setting, own.unwrap_or_else(|| default.clone()), request.include_documentation)
            }
        });
        Ok(described.collect())
    }

    /// The broker's settings as Kafka names them, as far as there is one that means the same. They cannot be changed
    /// over the wire.
    fn broker_configs(
        &self,
        resource: &DescribeConfigsResource,
        request: &DescribeConfigsRequest,
    ) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
        let config = &self.node.config;
        let name = resource.resource_name.as_str();
        if !name.is_empty() && name.parse() != Ok(config.node_id) {
            let text = format!("this is broker {}, not {name}", config.node_id);
            return Err((ErrorCode::INVALID_REQUEST, text));
        }
        let keys = resource.configuration_keys.as_ref();
        let wanted = |name: &str| keys.is_none_or(|keys| keys.iter().any(|key| *key == *name));
        let address = self.node.address(self.local);
        let all = node_settings::all(config, &address).into_iter().filter(|setting| wanted(setting.name));
        let described = all.map(|setting| {
            let synonym = DescribeConfigsSynonym {
                name: Str::from_static(setting.name),
                value: message(setting.value.as_str()),
                source: source::BROKER_STATIC,
            };
            DescribeConfigsResourceResult {
                name: Str::from_static(setting.name),
                value: message(setting.value),
                read_only: true,
                config_source: source::BROKER_STATIC,
                is_sensitive: false,
                synonyms: if request.include_synonyms { vec![synonym] } else { Vec::new() },
                config_type: setting.config_type,
                documentation: request.include_documentation.then(|| Str::from_static(setting.documentation)),
            }
        });
        Ok(described.collect())
    }

    pub(super) fn incremental_alter_configs(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        use incremental_alter_configs::{
            AlterConfigsResourceResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        };
        let request: IncrementalAlterConfigsRequest = call.read()?;
        let mut alteration = Alteration { validate_only: request.validate_only, lsn: None };
        let responses = request.resources.into_iter().map(|resource| {
            let (resource_type, resource_name) = (resource.resource_type, resource.resource_name);
            let changes: Result<Vec<(Str, Change)>, Refusal> = resource
                .configs
                .into_iter()
                .map(|config| Ok((config.name.clone(), change(&config)?)))
                .collect();
            let after = |before: &TopicConfig| changed(&self.node.config, before, changes?);
            let (error_code, error_message) =
                self.alter(resource_type, &resource_name, &mut alteration, after);
            AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
        });
        let responses = responses.collect();
        let response = IncrementalAlterConfigsResponse { throttle_time_ms: 0, responses };
        self.answer_after(&call, &response, alteration.lsn);
        Ok(())
    }

    /// The older form: what is not named is unset.
    pub(super) fn alter_configs(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        use alter_configs::{AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse};
        let request: AlterConfigsRequest = call.read()?;
        let mut alteration = Alteration { validate_only: request.validate_only, lsn: None };
        let responses = request.resources.into_iter().map(|resource| {
            let (resource_type, resource_name) = (resource.resource_type, resource.resource_name);
            let set = resource.configs.into_iter().filter_map(|config| Some((config.name, config.value?)));
            let after: TopicConfig = set.map(|(name, value)| (name.to_string(), value.to_string())).collect();
            let (error_code, error_message) =
                self.alter(resource_type, &resource_name, &mut alteration, |_| Ok(after));
            AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
        });
        let responses = responses.collect();
        self.answer_after(&call, &AlterConfigsResponse { throttle_time_ms: 0, responses }, alteration.lsn);
        Ok(())
    }

    /// Gives a thing the settings that `after` makes of those it has.
    fn alter(
        &self,
        resource_type: i8,
        name: &Str,
        alteration: &mut Alteration,
        after: impl FnOnce(&TopicConfig) -> Result<TopicConfig, Refusal>,
    ) -> (ErrorCode, Option<Str>) {
        let outcome = self.alterable(resource_type, name).and_then(|before| {
            let after = after(&before)?;
            settings::check(&after).map_err(|text| (ErrorCode::INVALID_CONFIG, text))?;
            if !alteration.validate_only {
                let set = self.node.namespace.alter_config(name, after);
                let lsn = set.map_err(|error| (map::topic::error_code(&error), error.to_string()))?;
                alteration.lsn = alteration.lsn.max(Some(lsn));
            }
            Ok(())
        });
        match outcome {
            Ok(()) => (ErrorCode::NONE, None),
            Err((code, text)) => (code, message(text)),
        }
    }

    /// What is set on a thing whose settings can be changed.
    fn alterable(&self, resource_type: i8, name: &Str) -> Result<Arc<TopicConfig>, Refusal> {
        match resource_type {
            resource::TOPIC => Ok(self.known_topic(name)?.config()),
            resource::BROKER => {
                let text = "the broker's settings are not changed here: set them in its configuration file or environment \
                            (`inver config keys` lists them) and start it again";
                Err((ErrorCode::POLICY_VIOLATION, text.to_owned()))
            }
            other => {
                Err((ErrorCode::INVALID_REQUEST, format!("settings of type {other} cannot be changed here")))
            }
        }
    }

    pub(super) fn list_config_resources(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: ListConfigResourcesRequest = call.read()?;
        // Version 0 asks for client metrics only, of which there are none here.
        let of = |kind| {
            call.version() > 0
                && (request.resource_types.is_empty() || request.resource_types.contains(&kind))
        };
        let mut config_resources = Vec::new();
        if of(resource::TOPIC) {
            let topics = self.node.namespace.topics();
            config_resources.extend(topics.iter().map(|topic| ConfigResource {
                resource_name: topic.name().into(),
                resource_type: resource::TOPIC,
            }));
        }
        if of(resource::BROKER) {
            let resource_name = self.node.config.node_id.to_string().into();
            config_resources.push(ConfigResource { resource_name, resource_type: resource::BROKER });
        }
        let response = ListConfigResourcesResponse {
            throttle_time_ms: 0,
            error_code: ErrorCode::NONE,
            config_resources,
        };
        self.answer(&call, &response);
        Ok(())
    }
}

fn wanted(resource: &DescribeConfigsResource) -> impl Iterator<Item = &'static Setting> {
    let keys = resource.configuration_keys.as_ref();
    SETTINGS
        .iter()
        .filter(move |setting| keys.is_none_or(|keys| keys.iter().any(|key| *key == *setting.name)))
}

fn described(setting: &Setting, value: String, documented: bool) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name: Str::from_static(setting.name),
        value: message(value),
        read_only: false,
        config_source: source::DEFAULT,
        is_sensitive: false,
        synonyms: Vec::new(),
        config_type: setting.kind.config_type(),
        documentation: documented.then(|| Str::from_static(setting.documentation)),
    }
}

/// Settings after changes, one by one.
fn changed(
    config: &KafkaConfig,
    before: &TopicConfig,
    changes: Vec<(Str, Change)>,
) -> Result<TopicConfig, Refusal> {
    let mut after = before.clone();
    for (name, change) in changes {
        let unknown = || (ErrorCode::INVALID_CONFIG, format!("Unknown topic config name: {name}"));
        let setting = settings::find(&name).ok_or_else(unknown)?;
        let is_list = |operation: &str| match setting.kind.is_list() {
            true => Ok(()),
            false => {
                let text = format!("Config value {operation} is not allowed for config key: {name}");
                Err((ErrorCode::INVALID_CONFIG, text))
            }
        };
        let items = |list: Option<&String>| -> Vec<String> {
            // What is not set has its default, to which more can be added.
            let default = setting.default(config);
            let list = list.unwrap_or(&default);
            list.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
        };
        match change {
            Change::Set(value) => {
                after.insert(name.to_string(), value);
            }
            Change::Delete => {
                after.remove(name.as_str());
            }
            Change::Append(value) => {
                is_list("append")?;
                let mut list = items(after.get(name.as_str()));
                let new: Vec<String> =
                    items(Some(&value)).into_iter().filter(|item| !list.contains(item)).collect();
                list.extend(new);
                after.insert(name.to_string(), list.join(","));
            }
            Change::Subtract(value) => {
                is_list("subtract")?;
                let gone = items(Some(&value));
                let mut list = items(after.get(name.as_str()));
                list.retain(|item| !gone.contains(item));
                after.insert(name.to_string(), list.join(","));
            }
        }
    }
    Ok(after)
}

/// What is to be done to a setting.
fn change(config: &incremental_alter_configs::AlterableConfig) -> Result<Change, Refusal> {
    let value = config.value.as_ref().map(ToString::to_string);
    match (config.config_operation, value) {
        (0, Some(value)) => Ok(Change::Set(value)),
        (1, _) => Ok(Change::Delete),
        (2, Some(value)) => Ok(Change::Append(value)),
        (3, Some(value)) => Ok(Change::Subtract(value)),
        (0 | 2 | 3, None) => Err((ErrorCode::INVALID_CONFIG, format!("Null value for {}", config.name))),
        (other, _) => Err((ErrorCode::INVALID_REQUEST, format!("Unknown operation {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_appended_to_and_subtracted_from() {
        let before = TopicConfig::from([("cleanup.policy".to_owned(), "delete".to_owned())]);
        let config = KafkaConfig::default();
        let change = |change| changed(&config, &before, vec![("cleanup.policy".into(), change)]);
        let value = |config: TopicConfig| config.get("cleanup.policy").cloned();
        assert_eq!(
            value(change(Change::Append("compact,delete".into())).unwrap()),
            Some("delete,compact".into())
        );
        assert_eq!(value(change(Change::Subtract("delete".into())).unwrap()), Some(String::new()));
        let unset = TopicConfig::new();
        let appended =
            changed(&config, &unset, vec![("cleanup.policy".into(), Change::Append("compact".into()))]);
        assert_eq!(value(appended.unwrap()), Some("delete,compact".into()));
        assert_eq!(value(change(Change::Delete).unwrap()), None);
        assert_eq!(value(change(Change::Set("compact".into())).unwrap()), Some("compact".into()));
        let refused = changed(&config, &before, vec![("retention.ms".into(), Change::Append("1".into()))]);
        assert_eq!(refused.unwrap_err().0, ErrorCode::INVALID_CONFIG);
        let refused = changed(&config, &before, vec![("nothing".into(), Change::Delete)]);
        assert_eq!(refused.unwrap_err().0, ErrorCode::INVALID_CONFIG);
    }
}
