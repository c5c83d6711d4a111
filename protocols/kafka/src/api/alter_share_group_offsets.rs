//! AlterShareGroupOffsets: sets the start offsets of a share group without members (KIP-932).

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::{AuditKind, Completion, Start, SubscriptionError};
use inver_storage::Offset;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::coordinator::consumer::Refusal;
use crate::map::partition::partition_index;

messages! {
    /// Versions 0, flexible 0+.
    pub struct AlterShareGroupOffsetsRequest {
        group_id: Str [0..],
        topics: Vec<AlterShareGroupOffsetsRequestTopic> [0..],
    }

    /// The topics to alter.
    pub struct AlterShareGroupOffsetsRequestTopic {
        topic_name: Str [0..],
        partitions: Vec<AlterShareGroupOffsetsRequestPartition> [0..],
    }

    /// The partitions to alter.
    pub struct AlterShareGroupOffsetsRequestPartition {
        partition_index: i32 [0..],
        start_offset: i64 [0..],
    }

    /// Versions 0, flexible 0+.
    pub struct AlterShareGroupOffsetsResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        responses: Vec<AlterShareGroupOffsetsResponseTopic> [0..],
    }

    /// The altered topics.
    pub struct AlterShareGroupOffsetsResponseTopic {
        topic_name: Str [0..],
        topic_id: Uuid [0..],
        partitions: Vec<AlterShareGroupOffsetsResponsePartition> [0..],
    }

    /// The altered partitions.
    pub struct AlterShareGroupOffsetsResponsePartition {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }
}

/// The AlterShareGroupOffsets API.
pub struct AlterShareGroupOffsets;

impl Handler for AlterShareGroupOffsets {
    const KEY: i16 = 91;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE_FROM: i16 = 0;
    const LENGTH: Length = Length::Long;

    type Request = AlterShareGroupOffsetsRequest;
    type Response = AlterShareGroupOffsetsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: AlterShareGroupOffsetsRequest,
    ) -> Reply<AlterShareGroupOffsetsResponse> {
        let AlterShareGroupOffsetsRequest { group_id, topics } = request;
        let checked = cx.access.check_group(&group_id, Operation::Read);
        let checked = checked.map_err(|code| Refusal::new(code, access::text(code)));
        let altered = checked.and_then(|()| {
            cx.coordinator().while_empty(&group_id, || {
                let mut completion = Completion::Now;
                let responses: Vec<_> =
                    topics.into_iter().map(|topic| alter(cx, &group_id, topic, &mut completion)).collect();
                (responses, completion)
            })
        });
        match altered {
            Ok((responses, completion)) => {
                cx.namespace().audit(AuditKind::Topology, "alter-offsets", "group", &group_id);
                let response = AlterShareGroupOffsetsResponse { responses, ..Default::default() };
                Reply::Response(response, completion)
            }
            Err(Refusal { code, text }) => Reply::now(AlterShareGroupOffsetsResponse {
                error_code: code,
                error_message: message(text.into_owned()),
                ..AlterShareGroupOffsetsResponse::default()
            }),
        }
    }
}

/// Alters the offsets of a topic.
fn alter(
    cx: &RequestContext<'_>,
    group: &Str,
    asked: AlterShareGroupOffsetsRequestTopic,
    completion: &mut Completion,
) -> AlterShareGroupOffsetsResponseTopic {
    let AlterShareGroupOffsetsRequestTopic { topic_name, partitions } = asked;
    let known = cx.topic(Operation::Read, &topic_name);
    let count = known.as_ref().map_or(0, |topic| topic.partition_count());
    let start = |of: &AlterShareGroupOffsetsRequestPartition| {
        let index = partition_index(of.partition_index).filter(|index| *index < count)?;
        Some((index, Start::At(Offset(u64::try_from(of.start_offset).unwrap_or(0)))))
    };
    let starts: Vec<(u32, Start)> = partitions.iter().filter_map(start).collect();
    let topic_id = known.as_ref().map_or(Uuid::ZERO, |topic| Uuid(topic.id().0));
    let altered = known.and_then(|topic| {
        cx.coordinator().set_starts(group, &topic, &starts).map_err(|failed| error(&failed))
    });
    let error = match altered {
        Ok(done) => {
            *completion = completion.and(done);
            ErrorCode::NONE
        }
        Err(code) => code,
    };
    let partitions = partitions.iter().map(|of| {
        let error_code = match start(of) {
            None if error.is_none() => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            _ => error,
        };
        AlterShareGroupOffsetsResponsePartition {
            partition_index: of.partition_index,
            error_code,
            error_message: message(error_code.name()).filter(|_| !error_code.is_none()),
        }
    });
    let partitions = partitions.collect();
    AlterShareGroupOffsetsResponseTopic { topic_name, topic_id, partitions }
}

/// The error of a subscription that cannot be changed: clients of other protocols may use it.
pub(super) fn error(error: &SubscriptionError) -> ErrorCode {
    match error {
        SubscriptionError::InUse(_) => ErrorCode::NON_EMPTY_GROUP,
        SubscriptionError::Log(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        SubscriptionError::Unknown(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        _ => ErrorCode::INVALID_REQUEST,
    }
}
