//! DeleteTopics: deletes topics, by name or by id.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::Completion;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Refusal, Reply, message};
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

    const LENGTH: Length = Length::Long;

    type Request = DeleteTopicsRequest;
    type Response = DeleteTopicsResponse;

    fn handle(cx: &mut RequestContext<'_>, request: DeleteTopicsRequest) -> Reply<DeleteTopicsResponse> {
        // Before version 6 only names are given.
        let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::ZERO));
        let by_either = request.topics.into_iter().map(|topic| (topic.name, topic.topic_id));
        let mut completion = Completion::Now;
        let mut responses = Vec::new();
        let wanted: Vec<(Option<Str>, Uuid)> = by_name.chain(by_either).collect();
        let mut repeated = Repeated::of(cx, &wanted);
        for (name, id) in wanted {
            let by_id_since = if name.is_none() { 0 } else { i16::MAX };
            let topic = match repeated.refusal(name.as_ref(), id) {
                Some(None) => continue,
                Some(Some(text)) => Err((ErrorCode::INVALID_REQUEST, text.to_owned())),
                None => {
                    let name = name.as_deref().unwrap_or_default();
                    cx.topic_for(Operation::Delete, by_id_since, name, id).map_err(unknown)
                }
            };
            let outcome = match &topic {
                Err(refusal) => Err(refusal.clone()),
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

fn unknown(code: ErrorCode) -> Refusal {
    match code {
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => (code, access::text(code).to_owned()),
        ErrorCode::UNKNOWN_TOPIC_ID => (code, "This server does not host this topic ID.".to_owned()),
        code => (code, "This server does not host this topic.".to_owned()),
    }
}

/// What a request names more than once. As in Kafka nothing of it is deleted, and it is answered once.
struct Repeated {
    names: HashMap<Str, usize>,
    ids: HashMap<Uuid, usize>,
    /// The ids of the topics that are named, and the names of those that are given by id too.
    named: HashSet<Uuid>,
    twice: HashSet<Str>,
}

impl Repeated {
    fn of(cx: &RequestContext<'_>, wanted: &[(Option<Str>, Uuid)]) -> Repeated {
        let mut repeated = Repeated {
            names: HashMap::new(),
            ids: HashMap::new(),
            named: HashSet::new(),
            twice: HashSet::new(),
        };
        let ids: HashSet<Uuid> =
            wanted.iter().filter(|(name, _)| name.is_none()).map(|(_, id)| *id).collect();
        for (name, id) in wanted {
            match name {
                Some(name) => {
                    *repeated.names.entry(name.clone()).or_default() += 1;
                    let Some(topic) = cx.namespace().topic(name) else { continue };
                    let id = Uuid(topic.id().0);
                    repeated.named.insert(id);
                    if ids.contains(&id) {
                        repeated.twice.insert(name.clone());
                    }
                }
                None => *repeated.ids.entry(*id).or_default() += 1,
            }
        }
        repeated
    }

    /// Why a topic is not deleted; the inner `None` if that was said before.
    fn refusal(&mut self, name: Option<&Str>, id: Uuid) -> Option<Option<&'static str>> {
        let (times, text) = match name {
            None if id == Uuid::ZERO => return Some(Some("Neither topic name nor id were specified.")),
            Some(_) if id != Uuid::ZERO => {
                return Some(Some("You may not specify both topic name and topic id."));
            }
            None if self.named.contains(&id) => {
                return Some(Some("The provided topic name maps to an ID that was already supplied."));
            }
            Some(name) if self.twice.contains(name) => return Some(None),
            None => (self.ids.get_mut(&id)?, "Duplicate topic id."),
            Some(name) => (self.names.get_mut(name)?, "Duplicate topic name."),
        };
        match *times {
            1 => None,
            0 => Some(None),
            _ => {
                *times = 0;
                Some(Some(text))
            }
        }
    }
}
