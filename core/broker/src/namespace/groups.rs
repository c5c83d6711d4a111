//! Consumer groups for administration: what the protocol that coordinates them tells, beside their committed offsets.

use std::sync::{Arc, Weak};

use inver_storage::SubmitError;
use parking_lot::RwLock;

use super::Namespace;
use crate::audit::AuditKind;
use crate::completion::Completion;

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its state, in its protocol's words.
    pub state: &'static str,
    /// Its protocol.
    pub protocol: &'static str,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The id that the coordinator gave it.
    pub id: String,
    /// The name that the client gives itself.
    pub client: String,
    /// The client's address.
    pub address: String,
    /// The partitions that it reads, where the assignment can be read: topic and partition.
    pub assigned: Vec<(String, u32)>,
}

/// Why a group cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// No group has that name.
    #[error("there is no group '{0}'")]
    Unknown(String),
    /// It has members.
    #[error("group '{0}' has members")]
    InUse(String),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// Coordinates the consumer groups of a namespace.
pub trait GroupCoordinator: Send + Sync {
    /// The ids of the groups that it knows, in no order.
    fn groups(&self) -> Vec<String>;

    /// A group; none if it does not know it.
    fn group(&self, id: &str) -> Option<Group>;

    /// Deletes a group without members, and its committed offsets.
    ///
    /// # Errors
    /// It is unknown or has members, or the log rejects the write.
    fn delete(&self, id: &str) -> Result<Completion, GroupError>;
}

/// The coordinator of a namespace. Held weakly: it holds the namespace.
#[derive(Default)]
pub(super) struct Coordinated(RwLock<Option<Weak<dyn GroupCoordinator>>>);

impl Namespace {
    /// Sets what coordinates its consumer groups.
    pub fn set_group_coordinator(&self, coordinator: Weak<dyn GroupCoordinator>) {
        *self.0.groups.0.write() = Some(coordinator);
    }

    fn group_coordinator(&self) -> Option<Arc<dyn GroupCoordinator>> {
        self.0.groups.0.read().as_ref()?.upgrade()
    }

    /// The ids of the consumer groups that the coordinator knows, in no order. Others have committed offsets only.
    #[must_use]
    pub fn coordinated_groups(&self) -> Vec<String> {
        self.group_coordinator().map(|coordinator| coordinator.groups()).unwrap_or_default()
    }

    /// What the coordinator tells of a consumer group; none where it has committed offsets only, or does not exist.
    #[must_use]
    pub fn coordinated_group(&self, id: &str) -> Option<Group> {
        self.group_coordinator()?.group(id)
    }

    /// Deletes a consumer group without members, and its committed offsets.
    pub fn delete_group(&self, id: &str) -> Result<Completion, GroupError> {
        let completion = match self.group_coordinator() {
            Some(coordinator) => coordinator.delete(id)?,
            None if !self.committed_offsets().has_group(id) => {
                return Err(GroupError::Unknown(id.to_owned()));
            }
            None => self.committed_offsets().delete(self.log(), id, |_, _| true)?,
        };
        self.audit(AuditKind::Deleted, "delete", "group", id);
        Ok(completion)
    }
}
