//! DescribeGroups, ListGroups, DeleteGroups.

use inver_storage::Lsn;

use super::cluster::operations;
use super::{Call, Session, message};
use crate::codec::api::delete_groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};
use crate::codec::api::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use crate::codec::api::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::coordinator::Waiter;
use crate::error::ConnectionError;
use crate::session::group::{Group, State};

/// The kind of all groups here (there is the newer `consumer`, and `share`).
const CLASSIC: &str = "classic";

/// Version from which a group that is not there is an error rather than a dead group.
const NOT_FOUND_SINCE: i16 = 6;

impl Session {
    pub(super) fn describe_groups(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: DescribeGroupsRequest = call.read()?;
        let version = call.version();
        let authorized_operations = match request.include_authorized_operations {
            true => operations::GROUP,
            false => operations::UNKNOWN,
        };
        let mut groups = Vec::with_capacity(request.groups.len());
        for id in request.groups {
            let described = self.node.coordinator.look(&id, describe);
            let mut group = match described {
                Some(group) => group,
                None if self.node.namespace.committed_offsets().has_group(&id) => {
                    DescribedGroup { group_state: State::Empty.name().into(), ..DescribedGroup::default() }
                }
                None => absent(&id, version),
            };
            group.group_id = id;
            group.authorized_operations = authorized_operations;
            groups.push(group);
        }
        self.answer(&call, &DescribeGroupsResponse { throttle_time_ms: 0, groups });
        Ok(())
    }

    pub(super) fn list_groups(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: ListGroupsRequest = call.read()?;
        let allows = |filter: &[Str], value: &str| {
            filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(value))
        };
        let mut groups = Vec::new();
        if allows(&request.types_filter, CLASSIC) {
            for listed in self.node.coordinator.list() {
                if allows(&request.states_filter, listed.state.name()) {
                    groups.push(ListedGroup {
                        group_id: listed.id,
                        protocol_type: listed.protocol_type,
                        group_state: listed.state.name().into(),
                        group_type: CLASSIC.into(),
                    });
                }
            }
        }
        let response = ListGroupsResponse { throttle_time_ms: 0, error_code: ErrorCode::NONE, groups };
        self.answer(&call, &response);
        Ok(())
    }

    pub(super) fn delete_groups(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: DeleteGroupsRequest = call.read()?;
        let mut lsn: Option<Lsn> = None;
        let mut results = Vec::with_capacity(request.groups_names.len());
        for group_id in request.groups_names {
            let error_code = match self.node.coordinator.delete(&group_id) {
                Ok(deleted) => {
                    lsn = lsn.max(deleted);
                    ErrorCode::NONE
                }
                Err(code) => code,
            };
            results.push(DeletableGroupResult { group_id, error_code, error_message: None });
        }
        self.answer_after(&call, &DeleteGroupsResponse { throttle_time_ms: 0, results }, lsn);
        Ok(())
    }
}

fn absent(id: &Str, version: i16) -> DescribedGroup {
    let not_found = version >= NOT_FOUND_SINCE;
    DescribedGroup {
        error_code: if not_found { ErrorCode::GROUP_ID_NOT_FOUND } else { ErrorCode::NONE },
        error_message: message(format!("Group {id} not found.")).filter(|_| not_found),
        group_state: State::Dead.name().into(),
        ..DescribedGroup::default()
    }
}

/// What members say and have is told of a stable group only: before, it is about to change.
fn describe(group: &Group<Waiter>) -> DescribedGroup {
    let stable = group.state() == State::Stable;
    let protocol = group.protocol().filter(|_| stable).cloned().unwrap_or_default();
    let members = group.members().map(|member| DescribedGroupMember {
        member_id: member.id.clone(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        member_metadata: if stable { member.metadata(&protocol) } else { bytes::Bytes::new() },
        member_assignment: if stable { member.assignment.clone() } else { bytes::Bytes::new() },
    });
    DescribedGroup {
        group_state: group.state().name().into(),
        protocol_type: group.protocol_type().cloned().unwrap_or_default(),
        protocol_data: protocol.clone(),
        members: members.collect(),
        ..DescribedGroup::default()
    }
}
