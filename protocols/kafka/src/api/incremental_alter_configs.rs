//! IncrementalAlterConfigs: changes settings of topics one by one (KIP-339).

use std::ops::RangeInclusive;

use inver_broker::{Completion, TopicConfig};

pub use super::alter_configs::AlterConfigsResourceResponse;
use super::config_resource;
use super::context::RequestContext;
use super::handler::Handler;
use super::reply::{Refusal, Reply};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
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

    type Request = IncrementalAlterConfigsRequest;
    type Response = IncrementalAlterConfigsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: IncrementalAlterConfigsRequest,
    ) -> Reply<IncrementalAlterConfigsResponse> {
        let mut completion = Completion::Now;
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let operations: Result<Vec<(Str, Operation)>, Refusal> = (resource.configs.into_iter())
                .map(|config| Ok((config.name.clone(), operation(&config)?)))
                .collect();
            let (kind, name) = (resource.resource_type, resource.resource_name);
            let altered = if kind == config_resource::kind::BROKER && only_deletes(&operations) {
                // Nothing is set on the broker this way, so nothing remains to be deleted: tools clear throttles so.
                config_resource::check(cx, inver_access::Operation::AlterConfigs, kind, &name)
                    .map(|()| Completion::Now)
            } else {
                let defaults = Defaults::of(&name, cx.namespace(), cx.config());
                let after = |before: &TopicConfig| apply(&defaults, before, operations?);
                config_resource::alter(cx, kind, &name, request.validate_only, after)
            };
            let (response, altered) = AlterConfigsResourceResponse::of(kind, name, altered);
            responses.push(response);
            completion = completion.and(altered);
        }
        Reply::Response(IncrementalAlterConfigsResponse { throttle_time_ms: 0, responses }, completion)
    }
}

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
        (1, _) => Ok(Operation::Delete),
        (2, Some(value)) => Ok(Operation::Change(Change::Append(value))),
        (3, Some(value)) => Ok(Operation::Change(Change::Subtract(value))),
        (0 | 2 | 3, None) => Err((ErrorCode::INVALID_CONFIG, format!("Null value for {}", config.name))),
        (other, _) => Err((ErrorCode::INVALID_REQUEST, format!("Unknown operation {other}"))),
    }
}

/// Whether the operations only delete settings.
fn only_deletes(operations: &Result<Vec<(Str, Operation)>, Refusal>) -> bool {
    let is_delete = |(_, operation): &(Str, Operation)| matches!(operation, Operation::Delete);
    operations.as_ref().is_ok_and(|operations| operations.iter().all(is_delete))
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
                let text = format!("Config value {operation} is not allowed for config key: {name}");
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
                check_list("append")?;
                let mut list = items(after.get(name.as_str()));
                let mut new = items(Some(&value));
                new.retain(|item| !list.contains(item));
                list.extend(new);
                after.insert(name.to_string(), list.join(","));
            }
            Change::Subtract(value) => {
                check_list("subtract")?;
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
