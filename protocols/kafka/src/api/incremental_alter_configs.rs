//! IncrementalAlterConfigs: changes settings of topics and groups one by one (KIP-339).

use std::ops::RangeInclusive;

use inver_broker::{Completion, TopicConfig};

pub use super::alter_configs::AlterConfigsResourceResponse;
use super::config_resource;
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Refusal, Reply};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::coordinator::group_settings::GroupValues;
use crate::settings::dynamic;
use crate::settings::topic::{self, Defaults};

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

/// The IncrementalAlterConfigs API.
pub struct IncrementalAlterConfigs;

impl Handler for IncrementalAlterConfigs {
    const KEY: i16 = 44;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE_FROM: i16 = 1;

    const LENGTH: Length = Length::Long;

    type Request = IncrementalAlterConfigsRequest;
    type Response = IncrementalAlterConfigsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: IncrementalAlterConfigsRequest,
    ) -> Reply<IncrementalAlterConfigsResponse> {
        let mut completion = Completion::Now;
        let mut responses = Vec::with_capacity(request.resources.len());
        let named =
            request.resources.iter().map(|resource| (resource.resource_type, &resource.resource_name));
        let repeated = config_resource::repeated(named);
        for resource in request.resources {
            let (kind, name) = (resource.resource_type, resource.resource_name);
            let altered = match repeated.contains(&(kind, name.clone())) {
                true => Err(config_resource::repeated_refusal()),
                false => alter(cx, kind, &name, &resource.configs, request.validate_only),
            };
            let (response, altered) = AlterConfigsResourceResponse::of(kind, name, altered);
            responses.push(response);
            completion = completion.and(altered);
        }
        Reply::Response(IncrementalAlterConfigsResponse { throttle_time_ms: 0, responses }, completion)
    }
}

/// Carries out the operations on a resource.
fn alter(
    cx: &RequestContext<'_>,
    kind: i8,
    name: &Str,
    configs: &[AlterableConfig],
    validate_only: bool,
) -> Result<Completion, Refusal> {
    config_resource::check_change(configs, |config| {
        (config.name.as_str(), config.config_operation != DELETE && config.value.is_none())
    })?;
    let operations: Vec<(Str, Operation)> = (configs.iter())
        .map(|config| Ok((config.name.clone(), operation(config)?)))
        .collect::<Result<_, Refusal>>()?;
    if kind == config_resource::kind::BROKER {
        config_resource::check(cx, inver_access::Operation::AlterConfigs, kind, name)?;
        return alter_broker(cx, name, operations, validate_only);
    }
    if kind == config_resource::kind::GROUP {
        return config_resource::alter(cx, kind, name, validate_only, |before| {
            apply_to_group(before, operations)
        });
    }
    let defaults = Defaults::of(name, cx.namespace(), cx.config());
    config_resource::alter(cx, kind, name, validate_only, |before| apply(&defaults, before, operations))
}

/// Sets and deletes settings of the node. Throttles of replication are kept, so that tools that set them work; deleting what
/// is not set does nothing.
fn alter_broker(
    cx: &RequestContext<'_>,
    name: &Str,
    operations: Vec<(Str, Operation)>,
    validate_only: bool,
) -> Result<Completion, Refusal> {
    let node_id = cx.config().node_id;
    let scope = dynamic::Scope::of(name, node_id).map_err(|text| (ErrorCode::INVALID_REQUEST, text))?;
    let mut changes = Vec::new();
    for (name, operation) in operations {
        let is_kept = dynamic::is_kept(&name);
        match operation {
            Operation::Delete if is_kept => changes.push((name, None)),
            Operation::Delete => {}
            Operation::Change(Change::Set(value)) if is_kept => {
                dynamic::check(&name, &value).map_err(|text| (ErrorCode::INVALID_REQUEST, text))?;
                changes.push((name, Some(value)));
            }
            Operation::Change(_) => return Err(config_resource::read_only()),
        }
    }
    let mut completion = Completion::Now;
    for (name, value) in changes.into_iter().filter(|_| !validate_only) {
        let set = dynamic::set(&cx.node.broker, scope, &name, value.as_deref());
        let set = set.map_err(|error| (ErrorCode::KAFKA_STORAGE_ERROR, error.to_string()))?;
        completion = completion.and(set);
    }
    Ok(completion)
}

/// The settings of a group after operations, none of which is a list.
fn apply_to_group(before: &GroupValues, operations: Vec<(Str, Operation)>) -> Result<GroupValues, Refusal> {
    let mut after = before.clone();
    for (name, operation) in operations {
        match operation {
            Operation::Delete => drop(after.remove(name.as_str())),
            Operation::Change(Change::Set(value)) => drop(after.insert(name.to_string(), value)),
            Operation::Change(Change::Append(_) | Change::Subtract(_)) => {
                let text = format!("Can't APPEND or SUBTRACT to key {name} because its type is not LIST.");
                return Err((ErrorCode::INVALID_CONFIG, text));
            }
        }
    }
    Ok(after)
}

/// The operation that deletes a setting.
const DELETE: i8 = 1;

/// An operation on one setting.
enum Operation {
    Delete,
    Change(Change),
}

/// A change of one setting, which must exist.
enum Change {
    Set(String),
    /// Adds items to a list.
    Append(String),
    /// Removes items from a list.
    Subtract(String),
}

fn operation(config: &AlterableConfig) -> Result<Operation, Refusal> {
    let value = config.value.as_ref().map(ToString::to_string);
    match (config.config_operation, value) {
        (0, Some(value)) => Ok(Operation::Change(Change::Set(value))),
        (DELETE, _) => Ok(Operation::Delete),
        (2, Some(value)) => Ok(Operation::Change(Change::Append(value))),
        (3, Some(value)) => Ok(Operation::Change(Change::Subtract(value))),
        (other, _) => Err((ErrorCode::INVALID_REQUEST, format!("Unknown operation {other}"))),
    }
}

/// The settings after operations, applied in order. Deleting a setting that is not set is not an error, whatever its name:
/// MirrorMaker deletes every setting that has its default in the source, those of other versions included.
fn apply(
    defaults: &Defaults<'_>,
    before: &TopicConfig,
    operations: Vec<(Str, Operation)>,
) -> Result<TopicConfig, Refusal> {
    let mut after = before.clone();
    for (name, operation) in operations {
        let operation = match operation {
            Operation::Delete => {
                after.remove(name.as_str());
                continue;
            }
            Operation::Change(change) => change,
        };
        let unknown = || (ErrorCode::INVALID_CONFIG, format!("Unknown topic config name: {name}"));
        let setting = topic::find(&name).ok_or_else(unknown)?;
        let check_list = |operation: &str| match setting.kind.is_list() {
            true => Ok(()),
            false => {
                let text = format!("Can't {operation} to key {name} because its type is not LIST.");
                Err((ErrorCode::INVALID_CONFIG, text))
            }
        };
        let items = |list: Option<&String>| -> Vec<String> {
            // Operations on an unset list start from its default.
            let default = setting.default(defaults);
            let list = list.unwrap_or(&default);
            list.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
        };
        match operation {
            Change::Set(value) => {
                after.insert(name.to_string(), value);
            }
            Change::Append(value) => {
                check_list("APPEND")?;
                let mut list = items(after.get(name.as_str()));
                let mut new = items(Some(&value));
                new.retain(|item| !list.contains(item));
                list.extend(new);
                after.insert(name.to_string(), list.join(","));
            }
            Change::Subtract(value) => {
                check_list("SUBTRACT")?;
                let removed = items(Some(&value));
                let mut list = items(after.get(name.as_str()));
                list.retain(|item| !removed.contains(item));
                after.insert(name.to_string(), list.join(","));
            }
        }
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use inver_broker::HubMode;

    use super::*;
    use crate::config::KafkaConfig;

    #[test]
    fn lists_are_appended_to_and_subtracted_from() {
        let before = TopicConfig::from([("cleanup.policy".to_owned(), "delete".to_owned())]);
        let config = KafkaConfig::default();
        let defaults = Defaults::new(&config, HubMode::default());
        let apply_to = |before: &TopicConfig, name: &str, operation| {
            apply(&defaults, before, vec![(name.into(), operation)])
        };
        let policy = |before: &TopicConfig, operation| {
            let after = apply_to(before, "cleanup.policy", operation).unwrap();
            after.get("cleanup.policy").cloned()
        };
        let appended = policy(&before, Operation::Change(Change::Append("compact,delete".into())));
        assert_eq!(appended.as_deref(), Some("delete,compact"));
        assert_eq!(
            policy(&before, Operation::Change(Change::Subtract("delete".into()))).as_deref(),
            Some("")
        );
        let from_default = policy(&TopicConfig::new(), Operation::Change(Change::Append("compact".into())));
        assert_eq!(from_default.as_deref(), Some("delete,compact"));
        assert_eq!(policy(&before, Operation::Delete), None);
        assert_eq!(
            policy(&before, Operation::Change(Change::Set("compact".into()))).as_deref(),
            Some("compact")
        );
        let not_a_list = apply_to(&before, "retention.ms", Operation::Change(Change::Append("1".into())));
        assert_eq!(not_a_list.unwrap_err().0, ErrorCode::INVALID_CONFIG);
        let unknown = apply_to(&before, "nothing", Operation::Change(Change::Set("1".into())));
        assert_eq!(unknown.unwrap_err().0, ErrorCode::INVALID_CONFIG);
        assert_eq!(apply_to(&before, "nothing", Operation::Delete).unwrap(), before);
    }
}
