//! ShareGroupDescribe: the state and the members of share groups (KIP-932).

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::TopicId;

use super::authorized_operations;
use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::coordinator::share::{ShareGroup, ShareMember};
use crate::coordinator::shares;

messages! {
    /// Versions 1, flexible 0+.
    pub struct ShareGroupDescribeRequest {
        group_ids: Vec<Str> [0..],
        include_authorized_operations: bool [0..],
    }

    /// Versions 1, flexible 0+.
    pub struct ShareGroupDescribeResponse {
        throttle_time_ms: i32 [0..],
        groups: Vec<DescribedGroup> [0..],
    }

    /// Each described group.
    pub struct DescribedGroup {
        error_code: ErrorCode [0..],
        error_message: Option<Str> [0..; null 0..],
        group_id: Str [0..],
        group_state: Str [0..],
        group_epoch: i32 [0..],
        assignment_epoch: i32 [0..],
        assignor_name: Str [0..],
        members: Vec<Member> [0..],
        authorized_operations: i32 [0..; default i32::MIN],
    }

    /// The members.
    pub struct Member {
        member_id: Str [0..],
        rack_id: Option<Str> [0..; null 0..],
        member_epoch: i32 [0..],
        client_id: Str [0..],
        client_host: Str [0..],
        subscribed_topic_names: Vec<Str> [0..],
        assignment: Assignment [0..],
    }

    /// Partitions of a member.
    pub struct Assignment {
        topic_partitions: Vec<TopicPartitions> [0..],
    }

    /// The partitions of a topic.
    pub struct TopicPartitions {
        topic_id: Uuid [0..],
        topic_name: Str [0..],
        partitions: Vec<i32> [0..],
    }
}

/// The ShareGroupDescribe API.
pub struct ShareGroupDescribe;

/// The assignor that gives every member all partitions that it subscribes to.
const ASSIGNOR: &str = "simple";

impl Handler for ShareGroupDescribe {
    const KEY: i16 = 77;
    const VERSIONS: RangeInclusive<i16> = 1..=1;
    const FLEXIBLE_FROM: i16 = 0;
    const LENGTH: Length = Length::Long;

    type Request = ShareGroupDescribeRequest;
    type Response = ShareGroupDescribeResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: ShareGroupDescribeRequest,
    ) -> Reply<ShareGroupDescribeResponse> {
        let includes = request.include_authorized_operations;
        let groups = request.group_ids.into_iter().map(|group_id| {
            if let Err(error_code) = cx.access.check_group(&group_id, Operation::Describe) {
                let error_message = message(access::text(error_code));
                return DescribedGroup { error_code, error_message, group_id, ..DescribedGroup::default() };
            }
            let described = cx.coordinator().with_share_group(&group_id, |group| describe(cx, group));
            let Some(described) = described else {
                let refusal = shares::not_found(&group_id);
                let (error_code, error_message) = (refusal.code, message(refusal.text.into_owned()));
                return DescribedGroup { error_code, error_message, group_id, ..DescribedGroup::default() };
            };
            let authorized_operations = authorized_operations::group(cx.access, includes, &group_id);
            DescribedGroup { group_id, authorized_operations, ..described }
        });
        let groups = groups.collect();
        Reply::now(ShareGroupDescribeResponse { throttle_time_ms: 0, groups })
    }
}

fn describe(cx: &RequestContext<'_>, group: &ShareGroup) -> DescribedGroup {
    DescribedGroup {
        group_state: Str::from_static(group.state().name()),
        group_epoch: group.epoch(),
        assignment_epoch: group.epoch(),
        assignor_name: Str::from_static(ASSIGNOR),
        members: group.members().map(|member| described(cx, group, member)).collect(),
        ..DescribedGroup::default()
    }
}

fn described(cx: &RequestContext<'_>, group: &ShareGroup, member: &ShareMember) -> Member {
    // Topics that exist and that the client may see.
    let seen = group.topics_of(member).into_iter().filter_map(|(id, count)| {
        let known = cx.namespace().topic_by_id(TopicId(id))?;
        let topic_name = Str::from(known.name());
        let is_seen = cx.access.may_topic(&topic_name, Operation::Describe);
        is_seen.then(|| TopicPartitions { topic_id: Uuid(id), topic_name, partitions: (0..count).collect() })
    });
    Member {
        member_id: member.id.clone(),
        rack_id: member.rack_id.clone(),
        member_epoch: member.epoch,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        subscribed_topic_names: member.names.clone(),
        assignment: Assignment { topic_partitions: seen.collect() },
    }
}
