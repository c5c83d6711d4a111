//! CreateTopics, DeleteTopics, CreatePartitions, DeleteRecords.

use std::collections::{HashMap, HashSet};

use inver_broker::{TopicConfig, TopicError, TopicKind, TopicSpec};
use inver_storage::{Lsn, Offset};

use super::settings::{self, SETTINGS};
use super::{Call, Session, message, offset, partition_index};
use crate::codec::api::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use crate::codec::api::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfigs, CreatableTopicResult,
    CreateTopicsRequest, CreateTopicsResponse,
};
use crate::codec::api::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use crate::codec::api::delete_topics::{DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::error::ConnectionError;
use crate::map;

type Refusal = (ErrorCode, String);

fn refused(error: &TopicError) -> Refusal {
    let text = match error {
        TopicError::Exists(name) => format!("Topic '{name}' already exists."),
        other => other.to_string(),
    };
    (map::topic::error_code(error), text)
}

impl Session {
    pub(super) fn create_topics(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: CreateTopicsRequest = call.read()?;
        let mut lsn = None;
        let mut room = self.node.config.limits.new_partitions_max;
        let mut times: HashMap<Str, usize> = HashMap::new();
        request.topics.iter().for_each(|topic| *times.entry(topic.name.clone()).or_default() += 1);
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let name = topic.name.clone();
            let outcome = match times.get(&name) {
                Some(1) => self.create_topic(&topic, request.validate_only, &mut room, &mut lsn),
                // Told once, as Kafka does.
                Some(2..) => {
                    times.insert(name.clone(), 0);
                    Err((ErrorCode::INVALID_REQUEST, "Found multiple entries for this topic.".to_owned()))
                }
                _ => continue,
            };
            topics.push(match outcome {
                Ok(result) => result,
                Err((error_code, text)) => CreatableTopicResult {
                    name,
                    error_code,
                    error_message: message(text),
                    ..CreatableTopicResult::default()
                },
            });
        }
        self.answer_after(&call, &CreateTopicsResponse { throttle_time_ms: 0, topics }, lsn);
        Ok(())
    }

    fn create_topic(
        &self,
        topic: &CreatableTopic,
        validate_only: bool,
        room: &mut u32,
        lsn: &mut Option<Lsn>,
    ) -> Result<CreatableTopicResult, Refusal> {
        if !map::topic::is_legal_name(&topic.name) {
            return Err((ErrorCode::INVALID_TOPIC_EXCEPTION, map::topic::illegal_name(&topic.name)));
        }
        let partitions = self.partitions_of(topic)?;
        let mut config = TopicConfig::new();
        for setting in &topic.configs {
            let null = || {
                (
                    ErrorCode::INVALID_CONFIG,
                    format!("Null value not supported for topic configs: {}", setting.name),
                )
            };
            let value = setting.value.as_ref().ok_or_else(null)?;
            config.insert(setting.name.to_string(), value.to_string());
        }
        settings::check(&config).map_err(|text| (ErrorCode::INVALID_CONFIG, text))?;
        if self.node.namespace.topic(&topic.name).is_some() {
            return Err(refused(&TopicError::Exists(topic.name.to_string())));
        }
        *room = room.checked_sub(partitions).ok_or_else(|| {
            let text = "Excessively large number of partitions per request.".to_owned();
            (ErrorCode::POLICY_VIOLATION, text)
        })?;
        let mut result = CreatableTopicResult {
            name: topic.name.clone(),
            num_partitions: partitions as i32,
            replication_factor: 1,
            configs: Some(self.settings_told(&config)),
            ..CreatableTopicResult::default()
        };
        if !validate_only {
            let spec = TopicSpec { partitions, config };
            let (made, at) =
                self.node.namespace.create_topic(&topic.name, &spec).map_err(|error| refused(&error))?;
            *lsn = Some(at);
            result.topic_id = Uuid(made.id().0);
        }
        Ok(result)
    }

    fn partitions_of(&self, topic: &CreatableTopic) -> Result<u32, Refusal> {
        if !topic.assignments.is_empty() {
            if topic.num_partitions != -1 || topic.replication_factor != -1 {
                let text = "Both numPartitions or replicationFactor and replicasAssignments were set. Both cannot be used at the same time.";
                return Err((ErrorCode::INVALID_REQUEST, text.to_owned()));
            }
            return self.assigned_partitions(&topic.assignments);
        }
        if !matches!(topic.replication_factor, -1 | 1) {
            let text = match topic.replication_factor {
                factor @ 2.. => format!("Replication factor: {factor} larger than available brokers: 1."),
                _ => "Replication factor must be larger than 0, or -1 to use the default value.".to_owned(),
            };
            return Err((ErrorCode::INVALID_REPLICATION_FACTOR, text));
        }
        match topic.num_partitions {
            -1 => Ok(self.node.config.default_partitions),
            count => u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
                let text = "Number of partitions was set to an invalid non-positive value.";
                (ErrorCode::INVALID_PARTITIONS, text.to_owned())
            }),
        }
    }

    /// Partitions given one by one with their nodes: they must be numbered from 0, and the node be this one.
    fn assigned_partitions(&self, assignments: &[CreatableReplicaAssignment]) -> Result<u32, Refusal> {
        let count = assignments.len() as i32;
        let numbers: HashSet<i32> = assignments.iter().map(|assignment| assignment.partition_index).collect();
        let here = assignments.iter().all(|assignment| assignment.broker_ids == [self.node.config.node_id]);
        match (0..count).all(|number| numbers.contains(&number)) && here {
            true => Ok(count as u32),
            false => {
                let text = "partitions must be numbered from 0 without gaps, each with this node as its only replica";
                Err((ErrorCode::INVALID_REPLICA_ASSIGNMENT, text.to_owned()))
            }
        }
    }

    fn settings_told(&self, config: &TopicConfig) -> Vec<CreatableTopicConfigs> {
        let told = SETTINGS.iter().map(|setting| {
            let own = config.get(setting.name);
            CreatableTopicConfigs {
                name: Str::from_static(setting.name),
                value: message(own.cloned().unwrap_or_else(|| setting.default(&self.node.config))),
                read_only: false,
                config_source: if own.is_some() { 1 } else { 5 },
                is_sensitive: false,
            }
        });
        told.collect()
    }

    pub(super) fn delete_topics(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: DeleteTopicsRequest = call.read()?;
        let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::ZERO));
        let either = request.topics.into_iter().map(|topic| (topic.name, topic.topic_id));
        let mut lsn = None;
        let mut responses = Vec::new();
        for (name, id) in by_name.chain(either) {
            let (topic, unknown) = match &name {
                Some(name) => (self.node.namespace.topic(name), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
                None => (self.topic_by_id(id), ErrorCode::UNKNOWN_TOPIC_ID),
            };
            let outcome = match &topic {
                None => Err((unknown, "This server does not host this topic.".to_owned())),
                Some(topic) => {
                    self.node.namespace.delete_topic(topic.name()).map_err(|error| refused(&error))
                }
            };
            let (error_code, error_message) = match outcome {
                Ok(at) => {
                    lsn = Some(at);
                    (ErrorCode::NONE, None)
                }
                Err((code, text)) => (code, message(text)),
            };
            responses.push(DeletableTopicResult {
                name: topic.as_ref().map(|topic| topic.name().into()).or(name),
                topic_id: topic.map_or(id, |topic| Uuid(topic.id().0)),
                error_code,
                error_message,
            });
        }
        self.answer_after(&call, &DeleteTopicsResponse { throttle_time_ms: 0, responses }, lsn);
        Ok(())
    }

    pub(super) fn create_partitions(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: CreatePartitionsRequest = call.read()?;
        let mut lsn = None;
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let (error_code, error_message) = match self.grow(&topic, request.validate_only, &mut lsn) {
                Ok(()) => (ErrorCode::NONE, None),
                Err((code, text)) => (code, message(text)),
            };
            results.push(CreatePartitionsTopicResult { name: topic.name, error_code, error_message });
        }
        self.answer_after(&call, &CreatePartitionsResponse { throttle_time_ms: 0, results }, lsn);
        Ok(())
    }

    fn grow(
        &self,
        topic: &CreatePartitionsTopic,
        validate_only: bool,
        lsn: &mut Option<Lsn>,
    ) -> Result<(), Refusal> {
        let namespace = &self.node.namespace;
        let known = namespace.topic(&topic.name).ok_or_else(|| {
            (
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                "This server does not host this topic-partition.".to_owned(),
            )
        })?;
        let present = known.partition_count() as i32;
        let invalid = |text: String| Err((ErrorCode::INVALID_PARTITIONS, text));
        if topic.count == present {
            return invalid(format!("Topic already has {present} partition(s)."));
        }
        if topic.count < present {
            return invalid(format!(
                "The topic {} currently has {present} partition(s); {} would not be an increase.",
                topic.name, topic.count
            ));
        }
        if let Some(assignments) = &topic.assignments {
            let here =
                assignments.iter().all(|assignment| assignment.broker_ids == [self.node.config.node_id]);
            if assignments.len() as i32 != topic.count - present || !here {
                let text = "each new partition must have this node as its only replica";
                return Err((ErrorCode::INVALID_REPLICA_ASSIGNMENT, text.to_owned()));
            }
        }
        if !validate_only {
            let grown = namespace.add_partitions(&topic.name, topic.count as u32);
            *lsn = Some(grown.map_err(|error| refused(&error))?);
        }
        Ok(())
    }

    pub(super) fn delete_records(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: DeleteRecordsRequest = call.read()?;
        let mut lsn = None;
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in topic.partitions {
                let outcome = self.give_up(&topic.name, wanted.partition_index, wanted.offset, &mut lsn);
                let (low_watermark, error_code) = match outcome {
                    Ok(low_watermark) => (low_watermark, ErrorCode::NONE),
                    Err(code) => (-1, code),
                };
                let partition_index = wanted.partition_index;
                partitions.push(DeleteRecordsPartitionResult { partition_index, low_watermark, error_code });
            }
            topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
        }
        self.answer_after(&call, &DeleteRecordsResponse { throttle_time_ms: 0, topics }, lsn);
        Ok(())
    }

    /// Lets the records before an offset go; −1 is all of them. The new start of the partition.
    fn give_up(&self, name: &str, index: i32, before: i64, lsn: &mut Option<Lsn>) -> Result<i64, ErrorCode> {
        const ALL: i64 = -1;
        let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let topic = self.node.namespace.topic(name).ok_or(unknown)?;
        let index = partition_index(index).ok_or(unknown)?;
        let partition = topic.partition(index).ok_or(unknown)?;
        if topic.kind() == TopicKind::Queue {
            // Its messages belong to those who have yet to acknowledge them.
            return Err(ErrorCode::POLICY_VIOLATION);
        }
        let (start, end) = (partition.stream().start(), partition.stream().high_watermark());
        let before = match before {
            ALL => end,
            _ => Offset(u64::try_from(before).map_err(|_| ErrorCode::OFFSET_OUT_OF_RANGE)?),
        };
        if before > end {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        if before > start {
            let trimmed = self.node.namespace.delete_records(&topic, index, before);
            *lsn = Some(trimmed.map_err(|error| map::topic::error_code(&error))?);
        }
        Ok(offset(before.max(start)))
    }
}
