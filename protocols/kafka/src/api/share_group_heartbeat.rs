//! ShareGroupHeartbeat: a member of a share group joins, goes on, learns its partitions, and leaves (KIP-932).

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::Completion;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::coordinator::consumer::{JOIN, LEAVE, Refusal};
use crate::coordinator::group_settings::ShareSettings;
use crate::coordinator::share::{ShareAnswer, ShareBeat};

messages! {
    /// Versions 1, flexible 0+.
    pub struct ShareGroupHeartbeatRequest {
        group_id: Str [0..],
        member_id: Str [0..],
        member_epoch: i32 [0..],
        rack_id: Option<Str> [0..; null 0..],
        subscribed_topic_names: Option<Vec<Str>> [0..; null 0..],
    }

    /// Versions 1, flexible 0+.
    pub struct ShareGroupHeartbeatResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        member_id: Option<Str> [0..; null 0..],
        member_epoch: i32 [0..],
        heartbeat_interval_ms: i32 [0..],
        assignment: Option<Assignment> [0..; null 0..],
    }

    /// The partitions of the member.
    pub struct Assignment {
        topic_partitions: Vec<TopicPartitions> [0..],
    }

    /// The partitions of a topic.
    pub struct TopicPartitions {
        topic_id: Uuid [0..],
        partitions: Vec<i32> [0..],
    }
}

/// The ShareGroupHeartbeat API.
pub struct ShareGroupHeartbeat;

impl Handler for ShareGroupHeartbeat {
    const KEY: i16 = 76;
    const VERSIONS: RangeInclusive<i16> = 1..=1;
    const FLEXIBLE_FROM: i16 = 0;
    const LENGTH: Length = Length::Turn;

    type Request = ShareGroupHeartbeatRequest;
    type Response = ShareGroupHeartbeatResponse;

    /// Topics are found and shared when a member says what it subscribes to, and when they change.
    fn is_long(cx: &RequestContext<'_>, request: &ShareGroupHeartbeatRequest) -> bool {
        request.member_epoch <= JOIN
            || request.subscribed_topic_names.is_some()
            || cx.coordinator().is_share_heartbeat_long(&request.group_id)
    }

    fn handle(
        cx: &mut RequestContext<'_>,
        request: ShareGroupHeartbeatRequest,
    ) -> Reply<ShareGroupHeartbeatResponse> {
        match beat(cx, request) {
            Ok((answer, settings, completion)) => Reply::Response(response(answer, &settings), completion),
            Err(Refusal { code, text }) => Reply::now(ShareGroupHeartbeatResponse {
                error_code: code,
                error_message: message(text.into_owned()),
                ..ShareGroupHeartbeatResponse::default()
            }),
        }
    }
}

fn beat(
    cx: &RequestContext<'_>,
    request: ShareGroupHeartbeatRequest,
) -> Result<(ShareAnswer, ShareSettings, Completion), Refusal> {
    let denied = |code| Refusal::new(code, access::text(code));
    cx.access.check_group(&request.group_id, Operation::Read).map_err(denied)?;
    check(&request)?;
    for name in request.subscribed_topic_names.iter().flatten() {
        // To read is more than to describe: the group shares the topic from then on.
        cx.access.check_topic(name, Operation::Read).map_err(denied)?;
    }
    let beat = ShareBeat {
        member_id: request.member_id.detached(),
        epoch: request.member_epoch,
        rack_id: request.rack_id,
        client_id: cx.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", cx.endpoints.peer.ip().to_canonical()).into(),
        names: request.subscribed_topic_names,
    };
    cx.coordinator().share_heartbeat(&request.group_id, beat)
}

/// Checks what is independent of the group.
fn check(request: &ShareGroupHeartbeatRequest) -> Result<(), Refusal> {
    let invalid = |text: &'static str| Err(Refusal::new(ErrorCode::INVALID_REQUEST, text));
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.rack_id.as_ref().is_some_and(|id| id.trim().is_empty()) {
        return invalid("RackId can't be empty.");
    }
    if request.member_epoch < LEAVE {
        return invalid("MemberEpoch is invalid.");
    }
    if request.member_epoch == JOIN && request.subscribed_topic_names.as_ref().is_none_or(Vec::is_empty) {
        return invalid("SubscribedTopicNames must be set in first request.");
    }
    Ok(())
}

fn response(answer: ShareAnswer, settings: &ShareSettings) -> ShareGroupHeartbeatResponse {
    let interval = settings.heartbeat_interval.as_millis();
    let assignment = answer.assigned.map(|topics| Assignment {
        topic_partitions: topics
            .into_iter()
            .map(|(id, count)| TopicPartitions { topic_id: Uuid(id), partitions: (0..count).collect() })
            .collect(),
    });
    ShareGroupHeartbeatResponse {
        member_id: Some(answer.member_id),
        member_epoch: answer.epoch,
        heartbeat_interval_ms: i32::try_from(interval).unwrap_or(i32::MAX),
        assignment,
        ..ShareGroupHeartbeatResponse::default()
    }
}
