//! DeleteRecords: deletes the records of partitions before an offset.

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::{Completion, TopicKind};
use inver_storage::Offset;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::map;
use crate::map::partition::{partition_index, wire_offset};
use crate::settings;

messages! {
    /// Versions 0-2, flexible 2+.
    pub struct DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic> [0..],
        timeout_ms: i32 [0..],
    }

    /// Each topic that we want to delete records from.
    pub struct DeleteRecordsTopic {
        name: Str [0..],
        partitions: Vec<DeleteRecordsPartition> [0..],
    }

    /// Each partition that we want to delete records from.
    pub struct DeleteRecordsPartition {
        partition_index: i32 [0..],
        offset: i64 [0..],
    }

    /// Versions 0-2, flexible 2+.
    pub struct DeleteRecordsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DeleteRecordsTopicResult> [0..],
    }

    /// Each topic that we wanted to delete records from.
    pub struct DeleteRecordsTopicResult {
        name: Str [0..],
        partitions: Vec<DeleteRecordsPartitionResult> [0..],
    }

    /// Each partition that we wanted to delete records from.
    pub struct DeleteRecordsPartitionResult {
        partition_index: i32 [0..],
        low_watermark: i64 [0..],
        error_code: ErrorCode [0..],
    }
}

/// The DeleteRecords API.
pub struct DeleteRecords;

/// Stands for the high watermark: all records.
const ALL: i64 = -1;

impl Handler for DeleteRecords {
    const KEY: i16 = 21;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE_FROM: i16 = 2;

    const LENGTH: Length = Length::Long;

    type Request = DeleteRecordsRequest;
    type Response = DeleteRecordsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: DeleteRecordsRequest) -> Reply<DeleteRecordsResponse> {
        let mut completion = Completion::Now;
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for DeleteRecordsPartition { partition_index, offset } in topic.partitions {
                let (low_watermark, error_code) = match delete(cx, &topic.name, partition_index, offset) {
                    Ok((low_watermark, deleted)) => {
                        completion = completion.and(deleted);
                        (low_watermark, ErrorCode::NONE)
                    }
                    Err(code) => (-1, code),
                };
                partitions.push(DeleteRecordsPartitionResult { partition_index, low_watermark, error_code });
            }
            topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
        }
        Reply::Response(DeleteRecordsResponse { throttle_time_ms: 0, topics }, completion)
    }
}

/// Deletes the records before an offset and returns the partition's new start.
fn delete(
    cx: &RequestContext<'_>,
    topic: &str,
    index: i32,
    before: i64,
) -> Result<(i64, Completion), ErrorCode> {
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    let topic = cx.topic(Operation::Delete, topic)?;
    let index = partition_index(index).ok_or(unknown)?;
    let partition = topic.partition(index).ok_or(unknown)?;
    if topic.kind() == TopicKind::Queue {
        // A queue's messages stay until its consumers have acknowledged them.
        return Err(ErrorCode::POLICY_VIOLATION);
    }
    if !settings::topic::deletes(&topic.config()) {
        // Records of a compacted topic are deleted by tombstones only.
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
    if before <= start {
        return Ok((wire_offset(start), Completion::Now));
    }
    let deleted = cx.namespace().delete_records(&topic, index, before);
    let lsn = deleted.map_err(|error| map::topic::error_code(&error))?;
    Ok((wire_offset(before), Completion::At(lsn)))
}
