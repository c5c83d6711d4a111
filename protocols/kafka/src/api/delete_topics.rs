//! DeleteTopics: deletes topics, by name or by id.

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::Completion;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::{Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::map;

messages! {
    /// Versions 1-6, flexible 4+.
    pub struct DeleteTopicsRequest {
        topics: Vec<DeleteTopicState> [6..],
        topic_names: Vec<Str> [0..=5],
        timeout_ms: i32 [0..],
    }

    /// The name or topic ID of the topic.
    pub struct DeleteTopicState {
        name: Option<Str> [6..; null 6..],
        topic_id: Uuid [6..],
    }

    /// Versions 1-6, flexible 4+.
    pub struct DeleteTopicsResponse {
        throttle_time_ms: i32 [1..],
        responses: Vec<DeletableTopicResult> [0..],
    }

    /// The results for each topic we tried to delete.
    pub struct DeletableTopicResult {
        name: Option<Str> [0..; null 6..],
        topic_id: Uuid [6..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [5..; null 5..],
    }
}

/// The version from which on a used up quota refuses topics (KIP-599).
const STRICT_SINCE: i16 = 5;

/// The DeleteTopics API.
pub struct DeleteTopics;

impl Handler for DeleteTopics {
    const KEY: i16 = 20;
    const VERSIONS: RangeInclusive<i16> = 1..=6;
    const FLEXIBLE_FROM: i16 = 4;

    type Request = DeleteTopicsRequest;
    type Response = DeleteTopicsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: DeleteTopicsRequest) -> Reply<DeleteTopicsResponse> {
        // Before version 6 only names are given.
        let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::ZERO));
        let by_either = request.topics.into_iter().map(|topic| (topic.name, topic.topic_id));
        let mut completion = Completion::Now;
        let mut responses = Vec::new();
        for (name, id) in by_name.chain(by_either) {
            let by_id_since = if name.is_none() { 0 } else { i16::MAX };
            let topic = cx.topic_for(Operation::Delete, by_id_since, name.as_deref().unwrap_or_default(), id);
            let outcome = match &topic {
                Err(code @ ErrorCode::TOPIC_AUTHORIZATION_FAILED) => {
                    Err((*code, access::text(*code).to_owned()))
                }
                Err(code) => Err((*code, "This server does not host this topic.".to_owned())),
                Ok(topic) => {
                    cx.take_mutations(topic.partition_count() as usize, STRICT_SINCE).and_then(|()| {
                        let deleted = cx.namespace().delete_topic(topic.name());
                        deleted.map_err(|error| map::topic::refusal(&error))
                    })
                }
            };
            let (error_code, error_message) = match outcome {
                Ok(lsn) => {
                    completion = completion.and(Completion::At(lsn));
                    (ErrorCode::NONE, None)
                }
                Err((code, text)) => (code, message(text)),
            };
            responses.push(DeletableTopicResult {
                name: topic.as_ref().map(|topic| topic.name().into()).ok().or(name),
                topic_id: topic.map_or(id, |topic| Uuid(topic.id().0)),
                error_code,
                error_message,
            });
        }
        Reply::Response(DeleteTopicsResponse { throttle_time_ms: 0, responses }, completion)
    }
}
