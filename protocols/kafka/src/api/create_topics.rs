//! CreateTopics: creates topics.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::{Completion, TopicConfig, TopicError, TopicSpec};

use super::config_resource::source;
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::repeated::TopicNames;
use super::reply::{Refusal, Reply, message};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::config::{KafkaConfig, ReplicationFactor};
use crate::map;
use crate::settings::topic::{self, Defaults, SETTINGS};

messages! {
    /// Versions 2-7, flexible 5+.
    pub struct CreateTopicsRequest {
        topics: Vec<CreatableTopic> [0..],
        timeout_ms: i32 [0..; default 60000],
        validate_only: bool [1..],
    }

    /// The topics to create.
    pub struct CreatableTopic {
        name: Str [0..],
        num_partitions: i32 [0..],
        replication_factor: i16 [0..],
        assignments: Vec<CreatableReplicaAssignment> [0..],
        configs: Vec<CreatableTopicConfig> [0..],
    }

    /// The manual partition assignment, or the empty array if we are using automatic assignment.
    pub struct CreatableReplicaAssignment {
        partition_index: i32 [0..],
        broker_ids: Vec<i32> [0..],
    }

    /// The custom topic configurations to set.
    pub struct CreatableTopicConfig {
        name: Str [0..],
        value: Option<Str> [0..; null 0..],
    }

    /// Versions 2-7, flexible 5+.
    pub struct CreateTopicsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<CreatableTopicResult> [0..],
    }

    /// Results for each topic we tried to create.
    pub struct CreatableTopicResult {
        name: Str [0..],
        topic_id: Uuid [7..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [1..; null 0..],
        num_partitions: i32 [5..; default -1],
        replication_factor: i16 [5..; default -1],
        configs: Option<Vec<CreatableTopicConfigs>> [5..; null 5..],
    } tagged {
        0 topic_config_error_code: ErrorCode [5..],
    }

    /// Configuration of the topic.
    pub struct CreatableTopicConfigs {
        name: Str [5..],
        value: Option<Str> [5..; null 5..],
        read_only: bool [5..],
        config_source: i8 [5..; default -1],
        is_sensitive: bool [5..],
    }
}

/// The CreateTopics API.
pub struct CreateTopics;

impl Handler for CreateTopics {
    const KEY: i16 = 19;
    const VERSIONS: RangeInclusive<i16> = 2..=7;
    const FLEXIBLE_FROM: i16 = 5;

    const LENGTH: Length = Length::Long;

    type Request = CreateTopicsRequest;
    type Response = CreateTopicsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: CreateTopicsRequest) -> Reply<CreateTopicsResponse> {
        let mut completion = Completion::Now;
        let mut room = cx.config().limits.new_partitions_max;
        let mut names = TopicNames::new(request.topics.iter().map(|topic| &topic.name));
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let name = topic.name.clone();
            let Some(turn) = names.next(&name) else { continue };
            let outcome = turn.and_then(|()| create(cx, &topic, request.validate_only, &mut room));
            topics.push(match outcome {
                Ok((result, created)) => {
                    completion = completion.and(created);
                    result
                }
                Err((error_code, text)) => CreatableTopicResult {
                    name,
                    error_code,
                    error_message: message(text),
                    ..CreatableTopicResult::default()
                },
            });
        }
        Reply::Response(CreateTopicsResponse { throttle_time_ms: 0, topics }, completion)
    }
}

/// The version from which on a used up quota refuses topics (KIP-599).
const STRICT_SINCE: i16 = 6;

/// Creates one topic. `room` is the number of partitions that the request may still create.
fn create(
    cx: &mut RequestContext<'_>,
    topic: &CreatableTopic,
    validate_only: bool,
    room: &mut u32,
) -> Result<(CreatableTopicResult, Completion), Refusal> {
    if !cx.access.may_cluster(Operation::Create)
        && cx.access.check_topic(&topic.name, Operation::Create).is_err()
    {
        // Kafka's text.
        return Err((ErrorCode::TOPIC_AUTHORIZATION_FAILED, "Authorization failed.".to_owned()));
    }
    if !map::topic::is_legal_name(&topic.name) {
        return Err((ErrorCode::INVALID_TOPIC_EXCEPTION, map::topic::illegal_name(&topic.name)));
    }
    map::topic::check_reserved(&topic.name)?;
    let partitions = partition_count(topic, cx.config())?;
    let mut config = topic_config(topic)?;
    let shown = match cx.config().replication_factor {
        ReplicationFactor::Show => topic.replication_factor.max(1),
        ReplicationFactor::Accept | ReplicationFactor::Refuse => 1,
    };
    if shown > 1 {
        config.insert(topic::REPLICATION_FACTOR.to_owned(), shown.to_string());
    }
    if cx.namespace().topic(&topic.name).is_some() {
        return Err(map::topic::refusal(&TopicError::Exists(topic.name.to_string())));
    }
    map::topic::check_collision(&topic.name, |other| cx.namespace().topic(other).is_some())?;
    *room = room.checked_sub(partitions).ok_or_else(|| {
        let text = "Excessively large number of partitions per request.".to_owned();
        (ErrorCode::POLICY_VIOLATION, text)
    })?;
    let name = topic.name.clone();
    let mut result = match cx.access.may_topic(&name, Operation::DescribeConfigs) {
        true => CreatableTopicResult {
            name,
            num_partitions: partitions as i32,
            replication_factor: shown,
            configs: Some(effective_settings(
                &config,
                &Defaults::of(&topic.name, cx.namespace(), cx.config()),
            )),
            ..CreatableTopicResult::default()
        },
        false => {
            let topic_config_error_code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
            CreatableTopicResult { name, topic_config_error_code, ..CreatableTopicResult::default() }
        }
    };
    if validate_only {
        return Ok((result, Completion::Now));
    }
    cx.take_mutations(partitions as usize, STRICT_SINCE)?;
    let created = cx.namespace().create_topic(&topic.name, &TopicSpec { partitions, config });
    let (created, lsn) = created.map_err(|error| map::topic::refusal(&error))?;
    result.topic_id = Uuid(created.id().0);
    Ok((result, Completion::At(lsn)))
}

fn topic_config(topic: &CreatableTopic) -> Result<TopicConfig, Refusal> {
    let mut config = TopicConfig::new();
    for setting in &topic.configs {
        let value = setting.value.as_ref().ok_or_else(|| {
            let text = format!("Null value not supported for topic configs: {}", setting.name);
            (ErrorCode::INVALID_CONFIG, text)
        })?;
        config.insert(setting.name.to_string(), value.to_string());
    }
    topic::check(&topic.name, &mut config).map_err(|text| (ErrorCode::INVALID_CONFIG, text))?;
    Ok(config)
}

fn partition_count(topic: &CreatableTopic, config: &KafkaConfig) -> Result<u32, Refusal> {
    if !topic.assignments.is_empty() {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let text = "Both numPartitions or replicationFactor and replicasAssignments were set. Both cannot be used at the same time.";
            return Err((ErrorCode::INVALID_REQUEST, text.to_owned()));
        }
        return assigned_partition_count(&topic.assignments, config.node_id);
    }
    match topic.replication_factor {
        -1 | 1 => {}
        2.. if config.replication_factor != ReplicationFactor::Refuse => {}
        factor @ 2.. => {
            let text = format!(
                "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached because only 1 broker(s) are registered."
            );
            return Err((ErrorCode::INVALID_REPLICATION_FACTOR, text));
        }
        _ => {
            let text = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err((ErrorCode::INVALID_REPLICATION_FACTOR, text.to_owned()));
        }
    }
    match topic.num_partitions {
        -1 => Ok(config.default_partitions),
        count => u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
            let text = "Number of partitions was set to an invalid non-positive value.";
            (ErrorCode::INVALID_PARTITIONS, text.to_owned())
        }),
    }
}

/// The number of partitions in a replica assignment: numbered from 0, each with this node as its only replica.
fn assigned_partition_count(
    assignments: &[CreatableReplicaAssignment],
    node_id: i32,
) -> Result<u32, Refusal> {
    let count = assignments.len() as i32;
    let numbers: HashSet<i32> = assignments.iter().map(|assignment| assignment.partition_index).collect();
    let here = assignments.iter().all(|assignment| assignment.broker_ids == [node_id]);
    match (0..count).all(|number| numbers.contains(&number)) && here {
        true => Ok(count as u32),
        false => {
            let text =
                "partitions must be numbered from 0 without gaps, each with this node as its only replica";
            Err((ErrorCode::INVALID_REPLICA_ASSIGNMENT, text.to_owned()))
        }
    }
}

/// Every setting of a topic with its value, set or default.
fn effective_settings(set: &TopicConfig, defaults: &Defaults<'_>) -> Vec<CreatableTopicConfigs> {
    let settings = SETTINGS.iter().map(|setting| {
        let own = set.get(setting.name);
        CreatableTopicConfigs {
            name: Str::from_static(setting.name),
            value: message(own.cloned().unwrap_or_else(|| setting.default(defaults))),
            read_only: false,
            config_source: if own.is_some() { source::TOPIC } else { source::DEFAULT },
            is_sensitive: false,
        }
    });
    settings.collect()
}
