//! ShareAcknowledge: a member of a share group acknowledges records (KIP-932).

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use super::share_fetch::{AcknowledgementBatch, LeaderIdAndEpoch, NodeEndpoint};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::node::LEADER_EPOCH;
use crate::share::{self, Acknowledge, OfPartition, Rejected};

messages! {
    /// Versions 1-2, flexible 0+.
    pub struct ShareAcknowledgeRequest {
        group_id: Option<Str> [0..; null 0..],
        member_id: Option<Str> [0..; null 0..],
        share_session_epoch: i32 [0..],
        is_renew_ack: bool [2..],
        topics: Vec<AcknowledgeTopic> [0..],
    }

    /// The topics with records to acknowledge.
    pub struct AcknowledgeTopic {
        topic_id: Uuid [0..],
        partitions: Vec<AcknowledgePartition> [0..],
    }

    /// The partitions with records to acknowledge.
    pub struct AcknowledgePartition {
        partition_index: i32 [0..],
        acknowledgement_batches: Vec<AcknowledgementBatch> [0..],
    }

    /// Versions 1-2, flexible 0+.
    pub struct ShareAcknowledgeResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        acquisition_lock_timeout_ms: i32 [2..],
        responses: Vec<ShareAcknowledgeTopicResponse> [0..],
        node_endpoints: Vec<NodeEndpoint> [0..],
    }

    /// The response topics.
    pub struct ShareAcknowledgeTopicResponse {
        topic_id: Uuid [0..],
        partitions: Vec<PartitionData> [0..],
    }

    /// The topic partitions.
    pub struct PartitionData {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        current_leader: LeaderIdAndEpoch [0..],
    }
}

/// The ShareAcknowledge API.
pub struct ShareAcknowledge;

impl Handler for ShareAcknowledge {
    const KEY: i16 = 79;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const FLEXIBLE_FROM: i16 = 0;

    const LENGTH: Length = Length::Turn;

    type Request = ShareAcknowledgeRequest;
    type Response = ShareAcknowledgeResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: ShareAcknowledgeRequest,
    ) -> Reply<ShareAcknowledgeResponse> {
        acknowledge(cx, &request).unwrap_or_else(|(error_code, text)| {
            Reply::now(ShareAcknowledgeResponse {
                error_code,
                error_message: message(text),
                ..ShareAcknowledgeResponse::default()
            })
        })
    }
}

fn acknowledge(
    cx: &mut RequestContext<'_>,
    request: &ShareAcknowledgeRequest,
) -> Result<Reply<ShareAcknowledgeResponse>, Rejected> {
    let member = share::member(request.group_id.as_ref(), request.member_id.as_ref())?;
    cx.access.check_group(&member.0, Operation::Read).map_err(|code| (code, access::text(code)))?;
    let partitions = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|of| OfPartition {
            topic: topic.topic_id,
            partition: of.partition_index,
            batches: &of.acknowledgement_batches,
        })
    });
    let group = member.0.clone();
    let asked = Acknowledge {
        member,
        epoch: request.share_session_epoch,
        renews: request.is_renew_ack,
        partitions: partitions.collect(),
    };
    let (now, node_id) = (cx.now, cx.config().node_id);
    let sharer = cx.sharer();
    let (acknowledged, completion) = sharer.acknowledge(asked, now)?;
    let mut responses: Vec<ShareAcknowledgeTopicResponse> = Vec::new();
    for (topic_id, partition_index, error_code) in acknowledged {
        let partition = PartitionData {
            partition_index,
            error_code,
            error_message: share::text(error_code),
            current_leader: LeaderIdAndEpoch { leader_id: node_id, leader_epoch: LEADER_EPOCH },
        };
        match responses.last_mut().filter(|topic| topic.topic_id == topic_id) {
            Some(topic) => topic.partitions.push(partition),
            None => responses.push(ShareAcknowledgeTopicResponse { topic_id, partitions: vec![partition] }),
        }
    }
    let response = ShareAcknowledgeResponse {
        acquisition_lock_timeout_ms: sharer.lock_timeout_ms(&group),
        responses,
        ..ShareAcknowledgeResponse::default()
    };
    Ok(Reply::Response(response, completion))
}
