//! Metadata, DescribeCluster, DescribeTopicPartitions: the node, the topics, and who leads what (the node leads all).

use std::sync::Arc;

use inver_broker::{Topic, TopicConfig, TopicError, TopicSpec};
use inver_storage::Lsn;

use super::{Call, Session, message};
use crate::codec::api::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use crate::codec::api::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use crate::codec::api::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::error::ConnectionError;
use crate::map;
use crate::node::LEADER_EPOCH;

/// Bits of what may be done, by the numbers of Kafka's operations: all that exist for the kind of thing, since there
/// are no finer permissions than in or out.
pub(super) mod operations {
    /// Read, write, create, delete, alter, describe, describe and alter settings.
    pub(in crate::session) const TOPIC: i32 =
        1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
    /// Create, alter, describe, act as a node, describe and alter settings, write idempotently.
    pub(in crate::session) const CLUSTER: i32 =
        1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;
    /// Read, delete, describe.
    pub(in crate::session) const GROUP: i32 = 1 << 3 | 1 << 6 | 1 << 8;
    /// Not asked for.
    pub(in crate::session) const UNKNOWN: i32 = i32::MIN;
}

impl Session {
    pub(super) fn metadata(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: MetadataRequest = call.read()?;
        let version = call.version();
        let mut lsn = None;
        // In version 0 an empty list means all; later, null does.
        let all = request.topics.as_ref().is_none_or(|topics| version == 0 && topics.is_empty());
        let operations =
            if request.include_topic_authorized_operations { operations::TOPIC } else { operations::UNKNOWN };
        let mut topics = Vec::new();
        if all {
            topics.extend(
                self.node.namespace.topics().iter().map(|topic| self.describe_topic(topic, operations)),
            );
        } else {
            let default_partitions = self.node.config.default_partitions.max(1);
            let mut creations = self.node.config.limits.new_partitions_max / default_partitions;
            for wanted in request.topics.unwrap_or_default() {
                let may_create = request.allow_auto_topic_creation && creations > 0;
                let before = lsn;
                topics.push(self.wanted_topic(wanted, may_create, operations, &mut lsn));
                creations -= u32::from(lsn != before);
            }
        }
        let (host, port) = self.node.address(self.local);
        let node_id = self.node.config.node_id;
        let include = request.include_cluster_authorized_operations;
        let response = MetadataResponse {
            throttle_time_ms: 0,
            brokers: vec![MetadataResponseBroker { node_id, host, port, rack: None }],
            cluster_id: Some(self.node.cluster_id.clone()),
            controller_id: node_id,
            topics,
            cluster_authorized_operations: if include { operations::CLUSTER } else { operations::UNKNOWN },
            error_code: ErrorCode::NONE,
        };
        self.answer_after(&call, &response, lsn);
        Ok(())
    }

    fn wanted_topic(
        &mut self,
        wanted: MetadataRequestTopic,
        may_create: bool,
        operations: i32,
        lsn: &mut Option<Lsn>,
    ) -> MetadataResponseTopic {
        let refused = |name: Option<Str>, topic_id, error_code| MetadataResponseTopic {
            error_code,
            name,
            topic_id,
            ..MetadataResponseTopic::default()
        };
        let Some(name) = wanted.name else {
            return match self.topic_by_id(wanted.topic_id) {
                Some(topic) => self.describe_topic(&topic, operations),
                None => refused(None, wanted.topic_id, ErrorCode::UNKNOWN_TOPIC_ID),
            };
        };
        if let Some(topic) = self.node.namespace.topic(&name) {
            return self.describe_topic(&topic, operations);
        }
        if !map::topic::is_legal_name(&name) {
            return refused(Some(name), Uuid::ZERO, ErrorCode::INVALID_TOPIC_EXCEPTION);
        }
        if !may_create || !self.node.config.auto_create_topics {
            return refused(Some(name), Uuid::ZERO, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        }
        let spec = TopicSpec { partitions: self.node.config.default_partitions, config: TopicConfig::new() };
        match self.node.namespace.create_topic(&name, &spec) {
            Ok((topic, made)) => {
                tracing::info!(topic = %name, "topic made, as a client asked for it");
                *lsn = Some(made);
                self.describe_topic(&topic, operations)
            }
            // Another connection was faster.
            Err(TopicError::Exists(_)) => match self.node.namespace.topic(&name) {
                Some(topic) => self.describe_topic(&topic, operations),
                None => refused(Some(name), Uuid::ZERO, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            },
            Err(error) => refused(Some(name), Uuid::ZERO, map::topic::error_code(&error)),
        }
    }

    fn describe_topic(&self, topic: &Arc<Topic>, operations: i32) -> MetadataResponseTopic {
        let node_id = self.node.config.node_id;
        let partitions =
            (0..topic.partition_count() as i32).map(|partition_index| MetadataResponsePartition {
                error_code: ErrorCode::NONE,
                partition_index,
                leader_id: node_id,
                leader_epoch: LEADER_EPOCH,
                replica_nodes: vec![node_id],
                isr_nodes: vec![node_id],
                offline_replicas: Vec::new(),
            });
        MetadataResponseTopic {
            error_code: ErrorCode::NONE,
            name: Some(topic.name().into()),
            topic_id: Uuid(topic.id().0),
            is_internal: false,
            partitions: partitions.collect(),
            topic_authorized_operations: operations,
        }
    }

    pub(super) fn describe_cluster(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: DescribeClusterRequest = call.read()?;
        const BROKERS: i8 = 1;
        if request.endpoint_type != BROKERS {
            let response = DescribeClusterResponse {
                error_code: ErrorCode::UNSUPPORTED_ENDPOINT_TYPE,
                error_message: message("there are no controllers to connect to, only brokers"),
                ..DescribeClusterResponse::default()
            };
            self.answer(&call, &response);
            return Ok(());
        }
        let (host, port) = self.node.address(self.local);
        let node_id = self.node.config.node_id;
        let include = request.include_cluster_authorized_operations;
        let response = DescribeClusterResponse {
            cluster_id: self.node.cluster_id.clone(),
            controller_id: node_id,
            brokers: vec![DescribeClusterBroker {
                broker_id: node_id,
                host,
                port,
                rack: None,
                is_fenced: false,
            }],
            cluster_authorized_operations: if include { operations::CLUSTER } else { operations::UNKNOWN },
            ..DescribeClusterResponse::default()
        };
        self.answer(&call, &response);
        Ok(())
    }

    pub(super) fn describe_topic_partitions(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: DescribeTopicPartitionsRequest = call.read()?;
        let namespace = self.node.namespace.clone();
        let mut names: Vec<Str> = match request.topics.is_empty() {
            true => namespace.topics().iter().map(|topic| Str::from(topic.name())).collect(),
            false => request.topics.into_iter().map(|topic| topic.name).collect(),
        };
        names.sort();
        names.dedup();
        let (first, mut from) = match request.cursor {
            Some(cursor) => (cursor.topic_name, u32::try_from(cursor.partition_index).unwrap_or(0)),
            None => (Str::default(), 0),
        };
        names.retain(|name| *name >= first);
        if names.first() != Some(&first) {
            from = 0;
        }
        let asked = usize::try_from(request.response_partition_limit).unwrap_or(0).max(1);
        let mut room = asked.min(self.node.config.limits.describe_page_partitions_max);
        let mut response = DescribeTopicPartitionsResponse::default();
        for name in names {
            if room == 0 {
                response.next_cursor = Some(Cursor { topic_name: name, partition_index: 0 });
                break;
            }
            let Some(topic) = namespace.topic(&name) else {
                let known_bad = !map::topic::is_legal_name(&name);
                response.topics.push(DescribeTopicPartitionsResponseTopic {
                    error_code: match known_bad {
                        true => ErrorCode::INVALID_TOPIC_EXCEPTION,
                        false => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    },
                    name: Some(name),
                    ..DescribeTopicPartitionsResponseTopic::default()
                });
                continue;
            };
            let count = topic.partition_count();
            let end = count.min(from.saturating_add(room as u32));
            let indexes = from.min(end)..end;
            room -= indexes.len();
            let partitions = indexes.map(|index| self.page_partition(index as i32)).collect();
            response.topics.push(DescribeTopicPartitionsResponseTopic {
                error_code: ErrorCode::NONE,
                name: Some(name.clone()),
                topic_id: Uuid(topic.id().0),
                is_internal: false,
                partitions,
                topic_authorized_operations: operations::TOPIC,
            });
            if end < count {
                response.next_cursor = Some(Cursor { topic_name: name, partition_index: end as i32 });
                break;
            }
            from = 0;
        }
        self.answer(&call, &response);
        Ok(())
    }

    fn page_partition(&self, partition_index: i32) -> DescribeTopicPartitionsResponsePartition {
        let node_id = self.node.config.node_id;
        DescribeTopicPartitionsResponsePartition {
            error_code: ErrorCode::NONE,
            partition_index,
            leader_id: node_id,
            leader_epoch: LEADER_EPOCH,
            replica_nodes: vec![node_id],
            isr_nodes: vec![node_id],
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            offline_replicas: Vec::new(),
        }
    }
}
