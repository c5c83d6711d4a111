//! What an admitted client works with, and the questions that APIs ask about what it may do.
//!
//! The broker's model has Kafka's resources and operations: topics, groups, transactional ids, and the cluster.

use std::sync::Arc;

use inver_access::{Operation, ResourceKind};
use inver_broker::{Namespace, Permissions};

use crate::codec::error_code::ErrorCode;
use crate::namespace_node::NamespaceNode;

/// The name of the cluster as a resource of the broker's model.
pub(crate) const CLUSTER: &str = "";

/// What an admitted client works with.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) node: Arc<NamespaceNode>,
    /// The namespace, whose changes are the client's.
    pub(crate) namespace: Namespace,
    pub(crate) permissions: Arc<Permissions>,
}

impl Access {
    /// Whether the client may do something to the topic of this name.
    pub(crate) fn may_topic(&self, name: &str, operation: Operation) -> bool {
        self.permissions.may(ResourceKind::Topic, name, operation)
    }

    /// Whether the client may do something to the group of this id.
    pub(crate) fn may_group(&self, id: &str, operation: Operation) -> bool {
        self.permissions.may(ResourceKind::Group, id, operation)
    }

    /// Whether the client may do something to the cluster.
    pub(crate) fn may_cluster(&self, operation: Operation) -> bool {
        self.permissions.may(ResourceKind::Cluster, CLUSTER, operation)
    }

    /// The error if the client may not do something to the topic; the audit log tells of it.
    pub(crate) fn check_topic(&self, name: &str, operation: Operation) -> Result<(), ErrorCode> {
        self.check(ResourceKind::Topic, name, operation, ErrorCode::TOPIC_AUTHORIZATION_FAILED)
    }

    /// The error if the client may not do something to the group; the audit log tells of it.
    pub(crate) fn check_group(&self, id: &str, operation: Operation) -> Result<(), ErrorCode> {
        self.check(ResourceKind::Group, id, operation, ErrorCode::GROUP_AUTHORIZATION_FAILED)
    }

    /// The error if the client may not do something to the cluster; the audit log tells of it.
    pub(crate) fn check_cluster(&self, operation: Operation) -> Result<(), ErrorCode> {
        self.check(ResourceKind::Cluster, CLUSTER, operation, ErrorCode::CLUSTER_AUTHORIZATION_FAILED)
    }

    /// Whether the client may do something to the transactional id.
    pub(crate) fn may_transaction(&self, id: &str, operation: Operation) -> bool {
        self.permissions.may(ResourceKind::TransactionalId, id, operation)
    }

    /// The error if the client may not do something to the transactional id; the audit log tells of it.
    pub(crate) fn check_transaction(&self, id: &str, operation: Operation) -> Result<(), ErrorCode> {
        let code = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        self.check(ResourceKind::TransactionalId, id, operation, code)
    }

    fn check(
        &self,
        kind: ResourceKind,
        name: &str,
        operation: Operation,
        code: ErrorCode,
    ) -> Result<(), ErrorCode> {
        if self.permissions.may(kind, name, operation) {
            return Ok(());
        }
        self.permissions.denied(kind, name, operation);
        Err(code)
    }
}

/// Kafka's text for an authorization error.
pub(crate) fn text(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::TOPIC_AUTHORIZATION_FAILED => "Topic authorization failed.",
        ErrorCode::GROUP_AUTHORIZATION_FAILED => "Group authorization failed.",
        ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => "Transactional Id authorization failed.",
        _ => "Cluster authorization failed.",
    }
}
