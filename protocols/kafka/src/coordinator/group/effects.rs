//! The effects of a transition: responses to members, and whether the group must be persisted.

use bytes::Bytes;

use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;

/// The response to a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) error: ErrorCode,
    /// Id of the member.
    pub(crate) member_id: Str,
    /// Generation of the group; -1 with an error.
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<Str>,
    /// The protocol elected.
    pub(crate) protocol: Option<Str>,
    /// Member id of the leader.
    pub(crate) leader: Str,
    /// Whether the leader must not compute an assignment: it rejoined and nothing has changed (KIP-814).
    pub(crate) skip_assignment: bool,
    /// To the leader: (member id, instance id, metadata under the elected protocol) of every member.
    pub(crate) members: Vec<(Str, Option<Str>, Bytes)>,
}

impl Joined {
    /// The response to a join that failed.
    pub(crate) fn failed(member_id: Str, error: ErrorCode) -> Joined {
        Joined {
            error,
            member_id,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: Str::default(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

/// The response to a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) error: ErrorCode,
    pub(crate) protocol_type: Option<Str>,
    /// The protocol elected.
    pub(crate) protocol: Option<Str>,
    /// The member's assignment.
    pub(crate) assignment: Bytes,
}

impl Synced {
    /// The response to a sync that failed.
    pub(crate) fn failed(error: ErrorCode) -> Synced {
        Synced { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// The effects of a transition.
#[derive(Debug)]
pub(crate) struct Effects<J, S> {
    /// Responses to joins.
    pub(crate) joined: Vec<(J, Joined)>,
    /// Responses to syncs.
    pub(crate) synced: Vec<(S, Synced)>,
    /// Whether the snapshot has changed ([`super::Group::snapshot`]).
    pub(crate) changed: bool,
}

impl<J, S> Default for Effects<J, S> {
    fn default() -> Self {
        Effects { joined: Vec::new(), synced: Vec::new(), changed: false }
    }
}
