//! DescribeTopicPartitions: the partitions of topics, in pages (KIP-966).

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::authorized_operations;
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::map;
use crate::node::LEADER_EPOCH;
use crate::settings;

messages! {
    /// Versions 0, flexible 0+.
    pub struct DescribeTopicPartitionsRequest {
        topics: Vec<TopicRequest> [0..],
        response_partition_limit: i32 [0..; default 2000],
        cursor: Option<Cursor> [0..; null 0..],
    }

    /// The topics to fetch details for.
    pub struct TopicRequest {
        name: Str [0..],
    }

    /// The first topic and partition index to fetch details for.
    pub struct Cursor {
        topic_name: Str [0..],
        partition_index: i32 [0..],
    }

    /// Versions 0, flexible 0+.
    pub struct DescribeTopicPartitionsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DescribeTopicPartitionsResponseTopic> [0..],
        next_cursor: Option<Cursor> [0..; null 0..],
    }

    /// Each topic in the response.
    pub struct DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode [0..],
        name: Option<Str> [0..; null 0..],
        topic_id: Uuid [0..],
        is_internal: bool [0..],
        partitions: Vec<DescribeTopicPartitionsResponsePartition> [0..],
        topic_authorized_operations: i32 [0..; default i32::MIN],
    }

    /// Each partition in the topic.
    pub struct DescribeTopicPartitionsResponsePartition {
        error_code: ErrorCode [0..],
        partition_index: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [0..; default -1],
        replica_nodes: Vec<i32> [0..],
        isr_nodes: Vec<i32> [0..],
        eligible_leader_replicas: Option<Vec<i32>> [0..; null 0..],
        last_known_elr: Option<Vec<i32>> [0..; null 0..],
        offline_replicas: Vec<i32> [0..],
    }
}

/// The DescribeTopicPartitions API.
pub struct DescribeTopicPartitions;

impl Handler for DescribeTopicPartitions {
    const KEY: i16 = 75;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE_FROM: i16 = 0;

    const LENGTH: Length = Length::Long;

    type Request = DescribeTopicPartitionsRequest;
    type Response = DescribeTopicPartitionsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: DescribeTopicPartitionsRequest,
    ) -> Reply<DescribeTopicPartitionsResponse> {
        let (namespace, node_id) = (cx.namespace(), cx.config().node_id);
        let mut names: Vec<Str> = match request.topics.is_empty() {
            true => (namespace.topics().iter())
                .filter(|topic| cx.access.may_topic(topic.name(), Operation::Describe))
                .map(|topic| Str::from(topic.name()))
                .collect(),
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
        let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).max(1);
        let mut room = limit.min(cx.config().limits.describe_page_partitions_max);
        let mut response = DescribeTopicPartitionsResponse::default();
        for name in names {
            if room == 0 {
                response.next_cursor = Some(Cursor { topic_name: name, partition_index: 0 });
                break;
            }
            let topic = match cx.topic(Operation::Describe, &name) {
                Ok(topic) => topic,
                Err(code) => {
                    response.topics.push(failed(name, code));
                    continue;
                }
            };
            let count = topic.partition_count();
            let end = count.min(from.saturating_add(room as u32));
            let indexes = from.min(end)..end;
            let replicas = settings::topic::replicas(&topic, cx.config());
            room -= indexes.len();
            response.topics.push(DescribeTopicPartitionsResponseTopic {
                error_code: ErrorCode::NONE,
                name: Some(name.clone()),
                topic_id: Uuid(topic.id().0),
                is_internal: false,
                partitions: indexes.map(|index| describe(index as i32, node_id, &replicas)).collect(),
                topic_authorized_operations: authorized_operations::topic(cx.access, true, &name),
            });
            if end < count {
                response.next_cursor = Some(Cursor { topic_name: name, partition_index: end as i32 });
                break;
            }
            from = 0;
        }
        Reply::now(response)
    }
}

fn failed(name: Str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    let legal = map::topic::is_legal_name(&name);
    DescribeTopicPartitionsResponseTopic {
        error_code: match code {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION if !legal => ErrorCode::INVALID_TOPIC_EXCEPTION,
            code => code,
        },
        name: Some(name),
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn describe(
    partition_index: i32,
    node_id: i32,
    replicas: &[i32],
) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition {
        error_code: ErrorCode::NONE,
        partition_index,
        leader_id: node_id,
        leader_epoch: LEADER_EPOCH,
        replica_nodes: replicas.to_vec(),
        isr_nodes: replicas.to_vec(),
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        offline_replicas: Vec::new(),
    }
}
