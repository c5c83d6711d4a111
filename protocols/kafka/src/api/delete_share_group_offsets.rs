//! DeleteShareGroupOffsets: a share group without members forgets topics (KIP-932).

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::{AuditKind, Completion};

use super::alter_share_group_offsets::error;
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::coordinator::consumer::Refusal;

messages! {
    /// Versions 0, flexible 0+.
    pub struct DeleteShareGroupOffsetsRequest {
        group_id: Str [0..],
        topics: Vec<DeleteShareGroupOffsetsRequestTopic> [0..],
    }

    /// The topics to forget.
    pub struct DeleteShareGroupOffsetsRequestTopic {
        topic_name: Str [0..],
    }

    /// Versions 0, flexible 0+.
    pub struct DeleteShareGroupOffsetsResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        responses: Vec<DeleteShareGroupOffsetsResponseTopic> [0..],
    }

    /// The forgotten topics.
    pub struct DeleteShareGroupOffsetsResponseTopic {
        topic_name: Str [0..],
        topic_id: Uuid [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
    }
}

/// The DeleteShareGroupOffsets API.
pub struct DeleteShareGroupOffsets;

impl Handler for DeleteShareGroupOffsets {
    const KEY: i16 = 92;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE_FROM: i16 = 0;
    const LENGTH: Length = Length::Long;

    type Request = DeleteShareGroupOffsetsRequest;
    type Response = DeleteShareGroupOffsetsResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: DeleteShareGroupOffsetsRequest,
    ) -> Reply<DeleteShareGroupOffsetsResponse> {
        let DeleteShareGroupOffsetsRequest { group_id, topics } = request;
        let checked = cx.access.check_group(&group_id, Operation::Delete);
        let checked = checked.map_err(|code| Refusal::new(code, access::text(code)));
        let deleted = checked.and_then(|()| {
            cx.coordinator().while_empty(&group_id, || {
                let mut completion = Completion::Now;
                let responses: Vec<_> = topics
                    .into_iter()
                    .map(|topic| delete(cx, &group_id, topic.topic_name, &mut completion))
                    .collect();
                (responses, completion)
            })
        });
        match deleted {
            Ok((responses, completion)) => {
                cx.namespace().audit(AuditKind::Deleted, "delete-offsets", "group", &group_id);
                let response = DeleteShareGroupOffsetsResponse { responses, ..Default::default() };
                Reply::Response(response, completion)
            }
            Err(Refusal { code, text }) => Reply::now(DeleteShareGroupOffsetsResponse {
                error_code: code,
                error_message: message(text.into_owned()),
                ..DeleteShareGroupOffsetsResponse::default()
            }),
        }
    }
}

/// Forgets a topic.
fn delete(
    cx: &RequestContext<'_>,
    group: &Str,
    topic_name: Str,
    completion: &mut Completion,
) -> DeleteShareGroupOffsetsResponseTopic {
    let known = cx.topic(Operation::Read, &topic_name);
    let topic_id = known.as_ref().map_or(Uuid::ZERO, |topic| Uuid(topic.id().0));
    let deleted = known.and_then(|topic| {
        cx.namespace().delete_subscription(&topic, group, true).map_err(|failed| error(&failed))
    });
    let error_code = match deleted {
        Ok(done) => {
            *completion = completion.and(done);
            ErrorCode::NONE
        }
        Err(code) => code,
    };
    let error_message = message(error_code.name()).filter(|_| !error_code.is_none());
    DeleteShareGroupOffsetsResponseTopic { topic_name, topic_id, error_code, error_message }
}
