//! FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup: requests of the members of groups.

use std::time::Duration;

use super::{Call, Session, message};
use crate::codec::api::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::codec::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::codec::api::join_group::JoinGroupRequest;
use crate::codec::api::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberResponse};
use crate::codec::api::sync_group::SyncGroupRequest;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::coordinator::Waiter;
use crate::error::ConnectionError;
use crate::session::group::{Join, Leave, MemberProtocol, Sync};

/// What a coordinator is asked for.
const GROUP: i8 = 0;

fn milliseconds(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

impl Session {
    pub(super) fn find_coordinator(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: FindCoordinatorRequest = call.read()?;
        let (host, port) = self.node.address(self.local);
        let node_id = self.node.config.node_id;
        let coordinator = |key: Str| match request.key_type {
            GROUP => Coordinator {
                key,
                node_id,
                host: host.clone(),
                port,
                error_code: ErrorCode::NONE,
                error_message: None,
            },
            _ => Coordinator {
                key,
                node_id: -1,
                host: Str::default(),
                port: -1,
                error_code: ErrorCode::UNSUPPORTED_VERSION,
                error_message: message("only groups have a coordinator here"),
            },
        };
        let response = if call.version() >= 4 {
            let coordinators = request.coordinator_keys.into_iter().map(coordinator).collect();
            FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() }
        } else {
            let found = coordinator(request.key);
            FindCoordinatorResponse {
                error_code: found.error_code,
                error_message: found.error_message,
                node_id: found.node_id,
                host: found.host,
                port: found.port,
                ..FindCoordinatorResponse::default()
            }
        };
        self.answer(&call, &response);
        Ok(())
    }

    pub(super) fn join_group(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: JoinGroupRequest = call.read()?;
        let version = call.version();
        let client_id = call.header.client_id.clone().unwrap_or_default().detached();
        let unique = uuid::Uuid::new_v4();
        let fresh_id = match &request.group_instance_id {
            Some(instance_id) => format!("{instance_id}-{unique}"),
            None => format!("{client_id}-{unique}"),
        };
        let session_timeout = milliseconds(request.session_timeout_ms);
        let (ticket, claim) = self.ticket();
        let join = Join {
            waiter: Waiter { ticket, request: call.header },
            member_id: request.member_id.detached(),
            fresh_id: fresh_id.into(),
            instance_id: request.group_instance_id.map(|id| id.detached()),
            learns_id_first: version >= 4,
            skips_assignment: version >= 9,
            client_id,
            client_host: format!("/{}", self.peer.ip().to_canonical()).into(),
            session_timeout,
            rebalance_timeout: match version {
                0 => session_timeout,
                _ => milliseconds(request.rebalance_timeout_ms),
            },
            protocol_type: request.protocol_type.detached(),
            protocols: (request.protocols.iter())
                .map(|protocol| MemberProtocol {
                    name: protocol.name.detached(),
                    metadata: bytes::Bytes::copy_from_slice(&protocol.metadata),
                })
                .collect(),
        };
        let member_id =
            if join.member_id.is_empty() { join.fresh_id.clone() } else { join.member_id.clone() };
        self.pipeline.push_member(claim, request.group_id.detached(), member_id);
        self.node.coordinator.join(&request.group_id, join, call.now);
        Ok(())
    }

    pub(super) fn sync_group(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: SyncGroupRequest = call.read()?;
        let (ticket, claim) = self.ticket();
        self.pipeline.push_member(claim, request.group_id.detached(), request.member_id.detached());
        let sync = Sync {
            waiter: Waiter { ticket, request: call.header },
            member_id: request.member_id,
            instance_id: request.group_instance_id,
            generation: request.generation_id,
            protocol_type: request.protocol_type,
            protocol: request.protocol_name,
            assignments: (request.assignments.into_iter())
                .map(|given| (given.member_id, bytes::Bytes::copy_from_slice(&given.assignment)))
                .collect(),
        };
        self.node.coordinator.sync(&request.group_id, sync, call.now);
        Ok(())
    }

    pub(super) fn heartbeat(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: HeartbeatRequest = call.read()?;
        let error_code = self.node.coordinator.heartbeat(
            &request.group_id,
            &request.member_id,
            request.group_instance_id.as_ref(),
            request.generation_id,
            call.now,
        );
        self.answer(&call, &HeartbeatResponse { throttle_time_ms: 0, error_code });
        Ok(())
    }

    pub(super) fn leave_group(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: LeaveGroupRequest = call.read()?;
        let coordinator = &self.node.coordinator;
        let mut response = LeaveGroupResponse::default();
        if call.version() < 3 {
            let leave = Leave { member_id: request.member_id, instance_id: None };
            response.error_code = coordinator.leave(&request.group_id, &leave, call.now);
        } else {
            for member in request.members {
                let leave = Leave { member_id: member.member_id, instance_id: member.group_instance_id };
                let error_code = coordinator.leave(&request.group_id, &leave, call.now);
                response.members.push(MemberResponse {
                    member_id: leave.member_id,
                    group_instance_id: leave.instance_id,
                    error_code,
                });
            }
        }
        self.answer(&call, &response);
        Ok(())
    }
}
