//! ConsumerGroupHeartbeat: a member of a consumer group joins, goes on, learns its partitions, and leaves (KIP-848).

use std::ops::RangeInclusive;
use std::time::Duration;

use inver_access::Operation;
use inver_broker::Completion;
use regex::{Regex, RegexBuilder};

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::coordinator::consumer::{
    Answer, Assignor, Heartbeat as Beat, JOIN, LEAVE_FOR_NOW, Partitions, Refusal, by_topic, of_topics,
};

messages! {
    /// Versions 0-1, flexible 0+.
    pub struct ConsumerGroupHeartbeatRequest {
        group_id: Str [0..],
        member_id: Str [0..],
        member_epoch: i32 [0..],
        instance_id: Option<Str> [0..; null 0..],
        rack_id: Option<Str> [0..; null 0..],
        rebalance_timeout_ms: i32 [0..; default -1],
        subscribed_topic_names: Option<Vec<Str>> [0..; null 0..],
        subscribed_topic_regex: Option<Str> [1..; null 1..],
        server_assignor: Option<Str> [0..; null 0..],
        topic_partitions: Option<Vec<TopicPartitions>> [0..; null 0..],
    }

    /// The partitions of a topic.
    pub struct TopicPartitions {
        topic_id: Uuid [0..],
        partitions: Vec<i32> [0..],
    }

    /// Versions 0-1, flexible 0+.
    pub struct ConsumerGroupHeartbeatResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        member_id: Option<Str> [0..; null 0..],
        member_epoch: i32 [0..],
        heartbeat_interval_ms: i32 [0..],
        assignment: Option<Assignment> [0..; null 0..],
    }

    /// The partitions assigned to the member.
    pub struct Assignment {
        topic_partitions: Vec<TopicPartitions> [0..],
    }
}

/// The ConsumerGroupHeartbeat API.
pub struct ConsumerGroupHeartbeat;

/// First version in which clients make their member ids.
const CLIENT_MAKES_ID_SINCE: i16 = 1;

/// Bytes that a compiled pattern of topics may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

impl Handler for ConsumerGroupHeartbeat {
    const KEY: i16 = 68;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE_FROM: i16 = 0;
    const LENGTH: Length = Length::Turn;

    type Request = ConsumerGroupHeartbeatRequest;
    type Response = ConsumerGroupHeartbeatResponse;

    /// A join gives all members new targets, and a pattern is matched with all topics: when it comes, and when they change.
    fn is_long(cx: &RequestContext<'_>, request: &ConsumerGroupHeartbeatRequest) -> bool {
        request.member_epoch <= JOIN
            || request.subscribed_topic_names.is_some()
            || request.subscribed_topic_regex.is_some()
            || cx.coordinator().is_heartbeat_long(&request.group_id, &request.member_id)
    }

    fn handle(
        cx: &mut RequestContext<'_>,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Reply<ConsumerGroupHeartbeatResponse> {
        match beat(cx, request) {
            Ok((answer, completion)) => Reply::Response(response(cx, answer), completion),
            Err(Refusal { code, text }) => Reply::now(ConsumerGroupHeartbeatResponse {
                error_code: code,
                error_message: message(text.into_owned()),
                ..ConsumerGroupHeartbeatResponse::default()
            }),
        }
    }
}

fn beat(
    cx: &RequestContext<'_>,
    request: ConsumerGroupHeartbeatRequest,
) -> Result<(Answer, Completion), Refusal> {
    let denied = |code| Refusal::new(code, access::text(code));
    cx.access.check_group(&request.group_id, Operation::Read).map_err(denied)?;
    check(cx.version(), &request)?;
    for name in request.subscribed_topic_names.iter().flatten() {
        cx.access.check_topic(name, Operation::Describe).map_err(denied)?;
    }
    let pattern = request.subscribed_topic_regex.filter(|_| request.member_epoch >= JOIN);
    let compiled = pattern.as_ref().map(|pattern| {
        whole(pattern).map_err(|error| {
            let text =
                format!("SubscribedTopicRegex `{pattern}` is not a valid regular expression: {error}.");
            Refusal::new(ErrorCode::INVALID_REGULAR_EXPRESSION, text)
        })
    });
    let compiled = compiled.transpose()?;
    let member_id = match request.member_id.is_empty() {
        true => Str::from(uuid::Uuid::new_v4().to_string()),
        false => request.member_id.detached(),
    };
    let owned = request.topic_partitions;
    let beat = Beat {
        member_id,
        epoch: request.member_epoch,
        instance_id: request.instance_id.map(|id| id.detached()),
        rack_id: request.rack_id,
        client_id: cx.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", cx.endpoints.peer.ip().to_canonical()).into(),
        rebalance_timeout: u64::try_from(request.rebalance_timeout_ms).ok().map(Duration::from_millis),
        names: request.subscribed_topic_names,
        pattern,
        assignor: request.server_assignor.and_then(|name| Assignor::named(&name)),
        owned: owned.map(|topics| of_topics(topics.iter().map(|of| (of.topic_id.0, &of.partitions[..])))),
    };
    // A pattern of this heartbeat, or the one that the member gave before: it was valid then. Compiled ones are not kept: each
    // may take [`PATTERN_BYTES_MAX`] and more.
    let matching = |pattern: &str| match &compiled {
        Some(compiled) => matching(cx, compiled),
        None => whole(pattern).map(|compiled| matching(cx, &compiled)).unwrap_or_default(),
    };
    cx.coordinator().consumer_heartbeat(&request.group_id, beat, &matching)
}

/// Checks what is independent of the group.
fn check(version: i16, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let invalid = |text: &'static str| Err(Refusal::new(ErrorCode::INVALID_REQUEST, text));
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if request.member_id.is_empty() && (version >= CLIENT_MAKES_ID_SINCE || request.member_epoch != JOIN) {
        return invalid("MemberId can't be empty.");
    }
    if request.instance_id.as_ref().is_some_and(|id| id.is_empty()) {
        return invalid("InstanceId can't be empty.");
    }
    if request.rack_id.as_ref().is_some_and(|id| id.is_empty()) {
        return invalid("RackId can't be empty.");
    }
    match request.member_epoch {
        JOIN => {
            if request.rebalance_timeout_ms == -1 {
                return invalid("RebalanceTimeoutMs must be provided in first request.");
            }
            if request.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return invalid("TopicPartitions must be empty when (re-)joining.");
            }
            if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
                return invalid(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                );
            }
        }
        LEAVE_FOR_NOW if request.instance_id.is_none() => {
            return invalid("InstanceId can't be null.");
        }
        ..LEAVE_FOR_NOW => return invalid("MemberEpoch is invalid."),
        _ => {}
    }
    if let Some(name) = request.server_assignor.as_ref().filter(|name| Assignor::named(name).is_none()) {
        let known: Vec<&str> = Assignor::ALL.into_iter().map(Assignor::name).collect();
        let text =
            format!("ServerAssignor {name} is not supported. Supported assignors: {}.", known.join(", "));
        return Err(Refusal::new(ErrorCode::UNSUPPORTED_ASSIGNOR, text));
    }
    Ok(())
}

/// A pattern that matches whole names.
fn whole(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{text})$")).size_limit(PATTERN_BYTES_MAX).build()
}

/// The topics that match a pattern and that the client may see.
fn matching(cx: &RequestContext<'_>, pattern: &Regex) -> Vec<Str> {
    let topics = cx.namespace().topics();
    let seen = topics.iter().filter(|topic| {
        pattern.is_match(topic.name()) && cx.access.may_topic(topic.name(), Operation::Describe)
    });
    seen.map(|topic| Str::from(topic.name())).collect()
}

fn response(cx: &RequestContext<'_>, answer: Answer) -> ConsumerGroupHeartbeatResponse {
    let interval = cx.config().groups.consumer_heartbeat_interval;
    ConsumerGroupHeartbeatResponse {
        member_id: Some(answer.member_id),
        member_epoch: answer.epoch,
        heartbeat_interval_ms: i32::try_from(interval.as_millis()).unwrap_or(i32::MAX),
        assignment: answer.assigned.as_ref().map(assignment),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

fn assignment(assigned: &Partitions) -> Assignment {
    let of_topic = |(id, partitions)| TopicPartitions { topic_id: Uuid(id), partitions };
    Assignment { topic_partitions: by_topic(assigned).map(of_topic).collect() }
}
