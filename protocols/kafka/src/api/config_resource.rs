//! Resources with settings, as DescribeConfigs and AlterConfigs name them.

use std::collections::HashSet;
use std::sync::Arc;

use inver_access::Operation;
use inver_broker::{Completion, TopicConfig};

use super::context::RequestContext;
use super::reply::Refusal;
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::coordinator::group_settings::{GroupValues, ShareSettings};
use crate::map;
use crate::settings::topic;

/// Types of resources.
pub(super) mod kind {
    pub(in crate::api) const TOPIC: i8 = 2;
    pub(in crate::api) const BROKER: i8 = 4;
    pub(in crate::api) const BROKER_LOGGER: i8 = 8;
    pub(in crate::api) const CLIENT_METRICS: i8 = 16;
    pub(in crate::api) const GROUP: i8 = 32;
}

/// Sources of a setting's value.
pub(super) mod source {
    pub(in crate::api) const TOPIC: i8 = 1;
    pub(in crate::api) const DYNAMIC_BROKER: i8 = 2;
    pub(in crate::api) const DYNAMIC_DEFAULT_BROKER: i8 = 3;
    pub(in crate::api) const STATIC_BROKER: i8 = 4;
    pub(in crate::api) const DEFAULT: i8 = 5;
    pub(in crate::api) const GROUP: i8 = 8;
}

/// The settings set on a topic.
pub(super) fn topic_config(
    cx: &RequestContext<'_>,
    operation: Operation,
    name: &str,
) -> Result<Arc<TopicConfig>, Refusal> {
    Ok(cx.topic(operation, name).map_err(map::topic::no_topic)?.config())
}

/// Whether the client may do something to the settings of a resource.
pub(super) fn check(
    cx: &RequestContext<'_>,
    operation: Operation,
    kind: i8,
    name: &str,
) -> Result<(), Refusal> {
    let checked = match kind {
        kind::TOPIC => cx.access.check_topic(name, operation),
        kind::GROUP => cx.access.check_group(name, operation),
        _ => cx.access.check_cluster(operation),
    };
    checked.map_err(|code| (code, access::text(code).to_owned()))
}

/// Checks the names and values of a change, as Kafka does before it looks at the resource. `parts`: the name of a setting, and
/// whether it lacks a value.
pub(super) fn check_change<'a, C: 'a>(
    configs: &'a [C],
    parts: impl Fn(&'a C) -> (&'a str, bool),
) -> Result<(), Refusal> {
    let mut names = HashSet::new();
    if !configs.iter().all(|config| names.insert(parts(config).0)) {
        return Err((ErrorCode::INVALID_REQUEST, "Error due to duplicate config keys".to_owned()));
    }
    let lacking: Vec<&str> =
        configs.iter().map(&parts).filter(|(_, lacks)| *lacks).map(|(name, _)| name).collect();
    match lacking.is_empty() {
        true => Ok(()),
        false => {
            let text = format!("Null value not supported for : {}", lacking.join(","));
            Err((ErrorCode::INVALID_REQUEST, text))
        }
    }
}

/// The resources that a request names more than once.
pub(super) fn repeated<'a>(resources: impl Iterator<Item = (i8, &'a Str)>) -> HashSet<(i8, Str)> {
    super::repeated::repeated(resources.map(|(kind, name)| (kind, name.clone())))
}

/// The refusal of a resource that is named more than once.
pub(super) fn repeated_refusal() -> Refusal {
    (ErrorCode::INVALID_REQUEST, "Each resource must appear at most once.".to_owned())
}

/// Replaces the settings set on a resource by what `after` makes of them.
pub(super) fn alter(
    cx: &RequestContext<'_>,
    kind: i8,
    name: &str,
    validate_only: bool,
    after: impl FnOnce(&TopicConfig) -> Result<TopicConfig, Refusal>,
) -> Result<Completion, Refusal> {
    check(cx, Operation::AlterConfigs, kind, name)?;
    if kind == kind::GROUP {
        return alter_group(cx, name, validate_only, after(&cx.coordinator().values_of(name))?);
    }
    let mut after = after(&*alterable(cx, kind, name)?)?;
    topic::check(name, &mut after).map_err(|text| (ErrorCode::INVALID_CONFIG, text))?;
    if validate_only {
        return Ok(Completion::Now);
    }
    let altered = cx.namespace().alter_config(name, after);
    altered.map(Completion::At).map_err(|error| (map::topic::error_code(&error), error.to_string()))
}

/// Replaces the settings of a group.
fn alter_group(
    cx: &RequestContext<'_>,
    name: &str,
    validate_only: bool,
    after: GroupValues,
) -> Result<Completion, Refusal> {
    let invalid = |text| (ErrorCode::INVALID_CONFIG, text);
    if name.is_empty() {
        return Err((ErrorCode::INVALID_REQUEST, "Default group resources are not allowed.".to_owned()));
    }
    ShareSettings::of(&cx.config().groups, &after).map_err(invalid)?;
    if !cx.coordinator().has_room_for_values(name) {
        return Err((ErrorCode::POLICY_VIOLATION, "Too many groups have settings.".to_owned()));
    }
    if validate_only {
        return Ok(Completion::Now);
    }
    let set = cx.coordinator().set_values(&name.into(), after);
    set.map_err(|error| (ErrorCode::KAFKA_STORAGE_ERROR, error.to_string()))
}

/// The refusal of a change of the node's settings.
pub(super) fn read_only() -> Refusal {
    let text = "the broker's settings are read-only here: change them in its configuration file or environment \
                (`inver config keys` lists them) and restart it";
    (ErrorCode::POLICY_VIOLATION, text.to_owned())
}

/// The settings set on a resource whose settings can be changed.
fn alterable(cx: &RequestContext<'_>, kind: i8, name: &str) -> Result<Arc<TopicConfig>, Refusal> {
    match kind {
        kind::TOPIC => topic_config(cx, Operation::AlterConfigs, name),
        kind::BROKER => Err(read_only()),
        other => Err((ErrorCode::INVALID_REQUEST, format!("settings of type {other} cannot be changed"))),
    }
}
