//! TxnOffsetCommit: keeps offsets of a group until a producer's transaction is committed (KIP-98, KIP-447).

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::Completion;

use super::context::RequestContext;
use super::handler::Handler;
use super::offset_commit::{Commit, OffsetCommitRequestPartition, check, named};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::transactions::{abortable, error_code, producer};

messages! {
    /// Versions 0-6, flexible 3+.
    pub struct TxnOffsetCommitRequest {
        transactional_id: Str [0..],
        group_id: Str [0..],
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        generation_id_or_member_epoch: i32 [3..; default -1],
        member_id: Str [3..],
        group_instance_id: Option<Str> [3..; null 3..],
        topics: Vec<TxnOffsetCommitRequestTopic> [0..],
    }

    /// Each topic that we want to commit offsets for.
    pub struct TxnOffsetCommitRequestTopic {
        name: Str [0..=5],
        topic_id: Uuid [6..],
        partitions: Vec<TxnOffsetCommitRequestPartition> [0..],
    }

    /// The partitions inside the topic that we want to commit offsets for.
    pub struct TxnOffsetCommitRequestPartition {
        partition_index: i32 [0..],
        committed_offset: i64 [0..],
        committed_leader_epoch: i32 [2..; default -1],
        committed_metadata: Option<Str> [0..; null 0..],
    }

    /// Versions 0-6, flexible 3+.
    pub struct TxnOffsetCommitResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<TxnOffsetCommitResponseTopic> [0..],
    }

    /// The responses for each topic.
    pub struct TxnOffsetCommitResponseTopic {
        name: Str [0..=5],
        topic_id: Uuid [6..],
        partitions: Vec<TxnOffsetCommitResponsePartition> [0..],
    }

    /// The responses for each partition in the topic.
    pub struct TxnOffsetCommitResponsePartition {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
    }
}

/// The TxnOffsetCommit API.
pub struct TxnOffsetCommit;

/// First version with TRANSACTION_ABORTABLE (KIP-890).
const ABORTABLE_SINCE: i16 = 4;
/// First version that adds the group to the transaction by itself (KIP-890).
const ADDS_GROUP_SINCE: i16 = 5;
/// First version that names topics by id.
const BY_ID_SINCE: i16 = 6;

impl Handler for TxnOffsetCommit {
    const KEY: i16 = 28;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    const FLEXIBLE_FROM: i16 = 3;

    type Request = TxnOffsetCommitRequest;
    type Response = TxnOffsetCommitResponse;

    fn is_long(cx: &RequestContext<'_>, request: &TxnOffsetCommitRequest) -> bool {
        cx.coordinator().is_held(&request.group_id)
    }

    fn handle(
        cx: &mut RequestContext<'_>,
        mut request: TxnOffsetCommitRequest,
    ) -> Reply<TxnOffsetCommitResponse> {
        let may_commit = cx
            .access
            .check_transaction(&request.transactional_id, Operation::Write)
            .and_then(|()| cx.access.check_group(&request.group_id, Operation::Read));
        let mut commits: Vec<Commit> = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in std::mem::take(&mut request.topics) {
            let known = may_commit
                .and_then(|()| cx.topic_for(Operation::Read, BY_ID_SINCE, &topic.name, topic.topic_id));
            let checked = topic.partitions.into_iter().map(|partition| TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: check(cx, &known, partition.into(), &mut commits),
            });
            let partitions = checked.collect();
            topics.push(TxnOffsetCommitResponseTopic {
                name: topic.name,
                topic_id: topic.topic_id,
                partitions,
            });
        }
        let completion = match may_commit.and_then(|()| commit(cx, &request, &commits)) {
            Ok(completion) => completion,
            // Partitions without an error of their own get the group's.
            Err(code) => {
                let partitions = topics.iter_mut().flat_map(|topic| topic.partitions.iter_mut());
                let valid = partitions.filter(|partition| partition.error_code.is_none());
                valid.for_each(|partition| partition.error_code = code);
                Completion::Now
            }
        };
        Reply::Response(TxnOffsetCommitResponse { throttle_time_ms: 0, topics }, completion)
    }
}

impl From<TxnOffsetCommitRequestPartition> for OffsetCommitRequestPartition {
    fn from(partition: TxnOffsetCommitRequestPartition) -> Self {
        OffsetCommitRequestPartition {
            partition_index: partition.partition_index,
            committed_offset: partition.committed_offset,
            committed_leader_epoch: partition.committed_leader_epoch,
            committed_metadata: partition.committed_metadata,
        }
    }
}

fn commit(
    cx: &RequestContext<'_>,
    request: &TxnOffsetCommitRequest,
    commits: &[Commit],
) -> Result<Completion, ErrorCode> {
    if commits.is_empty() {
        // A transaction is not begun for nothing.
        return Ok(Completion::Now);
    }
    let commits = named(cx, &request.group_id, commits)?;
    let adds_group = cx.version() >= ADDS_GROUP_SINCE;
    let producer = producer(request.producer_id, request.producer_epoch);
    let commit = || {
        let transactions = cx.namespace().transactions();
        let id = &request.transactional_id;
        let kept = transactions.commit_offsets(id, producer, &request.group_id, &commits, adds_group);
        let code = |error| error_code(&error, ErrorCode::INVALID_PRODUCER_EPOCH);
        kept.map_err(|error| abortable(code(error), cx.version(), ABORTABLE_SINCE))
    };
    let (member_id, generation) = (&request.member_id, request.generation_id_or_member_epoch);
    // A producer that is no member of the group commits for it whatever its members do.
    if generation < 0 && member_id.is_empty() && request.group_instance_id.is_none() {
        return commit();
    }
    let instance_id = request.group_instance_id.as_ref();
    let committed =
        cx.coordinator().commit_in_transaction(&request.group_id, member_id, instance_id, generation, commit);
    // Producers know the error of the classic protocol only.
    committed.map_err(|code| match code {
        ErrorCode::STALE_MEMBER_EPOCH => ErrorCode::ILLEGAL_GENERATION,
        code => code,
    })
}
