//! OffsetCommit: commits offsets of a group.

use std::ops::RangeInclusive;
use std::sync::Arc;

use inver_access::Operation;
use inver_broker::{CommittedOffset, Completion, Topic};
use inver_storage::Share;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::map::partition::partition_index;

messages! {
    /// Versions 2-10, flexible 8+.
    pub struct OffsetCommitRequest {
        group_id: Str [0..],
        generation_id_or_member_epoch: i32 [1..; default -1],
        member_id: Str [1..],
        group_instance_id: Option<Str> [7..; null 7..],
        retention_time_ms: i64 [2..=4; default -1],
        topics: Vec<OffsetCommitRequestTopic> [0..],
    }

    /// The topics to commit offsets for.
    pub struct OffsetCommitRequestTopic {
        name: Str [0..=9],
        topic_id: Uuid [10..],
        partitions: Vec<OffsetCommitRequestPartition> [0..],
    }

    /// Each partition to commit offsets for.
    pub struct OffsetCommitRequestPartition {
        partition_index: i32 [0..],
        committed_offset: i64 [0..],
        committed_leader_epoch: i32 [6..; default -1],
        committed_metadata: Option<Str> [0..; null 0..],
    }

    /// Versions 2-10, flexible 8+.
    pub struct OffsetCommitResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetCommitResponseTopic> [0..],
    }

    /// The responses for each topic.
    pub struct OffsetCommitResponseTopic {
        name: Str [0..=9],
        topic_id: Uuid [10..],
        partitions: Vec<OffsetCommitResponsePartition> [0..],
    }

    /// The responses for each partition in the topic.
    pub struct OffsetCommitResponsePartition {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
    }
}

/// The OffsetCommit API.
pub struct OffsetCommit;

/// First version that knows the epochs of members (KIP-848).
const MEMBER_EPOCH_SINCE: i16 = 9;
/// First version that names topics by id (KIP-848).
const BY_ID_SINCE: i16 = 10;

/// An offset to commit: topic, partition, offset.
pub(super) type Commit = (Arc<Topic>, u32, CommittedOffset);

/// An offset to commit, with the name of its topic.
pub(super) type NamedCommit<'a> = (&'a str, u32, CommittedOffset);

impl Handler for OffsetCommit {
    const KEY: i16 = 8;
    const VERSIONS: RangeInclusive<i16> = 2..=10;
    const FLEXIBLE_FROM: i16 = 8;

    type Request = OffsetCommitRequest;
    type Response = OffsetCommitResponse;

    fn is_long(cx: &RequestContext<'_>, request: &OffsetCommitRequest) -> bool {
        cx.coordinator().is_held(&request.group_id)
    }

    fn handle(cx: &mut RequestContext<'_>, mut request: OffsetCommitRequest) -> Reply<OffsetCommitResponse> {
        let may_commit = cx.access.check_group(&request.group_id, Operation::Read);
        let mut commits: Vec<Commit> = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in std::mem::take(&mut request.topics) {
            let known = may_commit
                .and_then(|()| cx.topic_for(Operation::Read, BY_ID_SINCE, &topic.name, topic.topic_id));
            let checked = topic.partitions.into_iter().map(|partition| OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: check(cx, &known, partition, &mut commits),
            });
            let partitions = checked.collect();
            topics.push(OffsetCommitResponseTopic { name: topic.name, topic_id: topic.topic_id, partitions });
        }
        let committed = may_commit.and_then(|()| commit(cx, &request, &commits));
        let completion = match committed {
            Ok(completion) => {
                trace(cx, &commits, completion);
                completion
            }
            // Partitions without an error of their own get the group's.
            Err(code) => {
                let code = match code {
                    ErrorCode::STALE_MEMBER_EPOCH if cx.version() < MEMBER_EPOCH_SINCE => {
                        ErrorCode::UNSUPPORTED_VERSION
                    }
                    code => code,
                };
                let partitions = topics.iter_mut().flat_map(|topic| topic.partitions.iter_mut());
                let valid = partitions.filter(|partition| partition.error_code.is_none());
                valid.for_each(|partition| partition.error_code = code);
                Completion::Now
            }
        };
        Reply::Response(OffsetCommitResponse { throttle_time_ms: 0, topics }, completion)
    }
}

/// Adds an offset to those to be committed, if it can be. Its error, or none.
pub(super) fn check(
    cx: &RequestContext<'_>,
    topic: &Result<Arc<Topic>, ErrorCode>,
    partition: OffsetCommitRequestPartition,
    commits: &mut Vec<Commit>,
) -> ErrorCode {
    let commit = topic.as_ref().map_err(|code| *code).and_then(|topic| of_partition(cx, topic, partition));
    match commit {
        Ok(commit) => {
            commits.push(commit);
            ErrorCode::NONE
        }
        Err(code) => code,
    }
}

fn of_partition(
    cx: &RequestContext<'_>,
    topic: &Arc<Topic>,
    partition: OffsetCommitRequestPartition,
) -> Result<Commit, ErrorCode> {
    let index = partition_index(partition.partition_index)
        .filter(|index| *index < topic.partition_count())
        .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    let bytes_max = cx.config().limits.offset_metadata_bytes_max;
    // Offsets without a text are always taken.
    let bytes_max = if cx.node.broker.log().memory().is_over(Share::Offsets) { 0 } else { bytes_max };
    if partition.committed_metadata.as_ref().is_some_and(|text| text.len() > bytes_max) {
        return Err(ErrorCode::OFFSET_METADATA_TOO_LARGE);
    }
    let offset = CommittedOffset {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.map(|text| text.to_string()),
        committed_ms: cx.node.broker.clock().steady_ms(),
    };
    Ok((topic.clone(), index, offset))
}

/// The offsets of a group with the names of their topics, if there is room for them.
pub(super) fn named<'a>(
    cx: &RequestContext<'_>,
    group_id: &str,
    commits: &'a [Commit],
) -> Result<Vec<NamedCommit<'a>>, ErrorCode> {
    let named = commits.iter().map(|(topic, index, offset)| (topic.name(), *index, offset.clone()));
    let named: Vec<NamedCommit<'_>> = named.collect();
    match cx.namespace().committed_offsets().room_for(group_id, &named) {
        Ok(()) => Ok(named),
        Err(_) => Err(ErrorCode::INVALID_COMMIT_OFFSET_SIZE),
    }
}

fn commit(
    cx: &RequestContext<'_>,
    request: &OffsetCommitRequest,
    commits: &[Commit],
) -> Result<Completion, ErrorCode> {
    let (offsets, log) = (cx.namespace().committed_offsets(), cx.node.broker.log());
    let commits = named(cx, &request.group_id, commits)?;
    cx.coordinator().commit(
        &request.group_id,
        &request.member_id,
        request.group_instance_id.as_ref(),
        request.generation_id_or_member_epoch,
        || match commits.is_empty() {
            true => Ok(Completion::Now),
            false => offsets.commit(log, &request.group_id, &commits).map(Completion::At),
        },
    )
}

/// Sends the spans of the records that are settled by a commit.
fn trace(cx: &RequestContext<'_>, commits: &[Commit], completion: Completion) {
    let Some(tracer) = cx.namespace().traces().tracer() else { return };
    let client_id = cx.client_id.as_deref().unwrap_or_default();
    for (topic, index, CommittedOffset { offset, .. }) in commits {
        if let (Some(partition), Ok(position)) = (topic.partition(*index), u64::try_from(*offset)) {
            let stream = partition.stream().id().0;
            tracer.committed(client_id, stream, position, "commit", completion);
        }
    }
}
