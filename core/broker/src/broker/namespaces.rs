//! Namespaces: creating, changing and deleting them while the broker runs.
//!
//! A namespace is deleted in three steps. Its row is deleted, and from then on it does not exist. Then its connections are
//! closed, each in its protocol's own way. Then everything in it is removed from memory and from the log. With the first
//! step its number is noted: the next start removes what was left of it, if the deletion was not finished.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use inver_storage::{Entry, SubmitError};

use super::Broker;
use crate::closing::CloseReason;
use crate::completion::Completion;
use crate::limits::{self, LimitReached};
use crate::namespace::Namespace;
use crate::removal::Removal;
use crate::rows::{self, NamespaceRow};
use crate::session::Sessions;
use crate::spec::{DEFAULT_NAMESPACE, NamespaceSpec};

/// Bytes of a namespace's name: what a client of every protocol can write.
const NAME_BYTES_MAX: usize = 255;
/// Tags of a namespace.
const TAGS_MAX: usize = 100;
/// Bytes of a namespace's description, of a tag, and of a queue type.
const TEXT_BYTES_MAX: usize = 4096;

/// Time that the connections of a deleted namespace have to end; afterwards its content is removed all the same.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a namespace cannot be created, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// There is one of this name.
    #[error("namespace '{0}' exists already")]
    Exists(String),
    /// There is none of this name.
    #[error("namespace '{0}' does not exist")]
    Unknown(String),
    /// One of this name was deleted, and not everything in it is removed yet.
    #[error("namespace '{0}' is being deleted")]
    BeingDeleted(String),
    /// The name cannot be used.
    #[error("a namespace's name has 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    InvalidName,
    /// The description, a tag, or the queue type is too long, or there are too many tags.
    #[error("a namespace has at most {TAGS_MAX} tags, and each of its texts at most {TEXT_BYTES_MAX} bytes")]
    InvalidSpec,
    /// It is protected from deletion.
    #[error("namespace '{0}' is protected from deletion")]
    Protected(String),
    /// The namespace `/` always exists.
    #[error("namespace '/' cannot be deleted")]
    Default,
    /// There are too many namespaces.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log rejected the write.
    #[error("log write rejected: {0}")]
    Log(#[from] SubmitError),
}

/// What changes of namespaces have in common; held by one change at a time.
pub(super) struct Changes {
    /// The number of the next namespace.
    next_id: u32,
    /// Names of namespaces whose content is being removed.
    being_deleted: HashSet<Box<str>>,
}

impl Changes {
    pub(super) fn new(next_id: u32) -> Changes {
        Changes { next_id, being_deleted: HashSet::new() }
    }
}

impl Broker {
    /// All namespaces, in the order of their names.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Namespace> {
        let mut all: Vec<Namespace> =
            self.0.namespaces.read().values().map(|sessions| sessions.namespace().clone()).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Creates a namespace. It exists at once, and is durable once the completion is reached.
    pub fn create_namespace(
        &self,
        name: &str,
        spec: NamespaceSpec,
    ) -> Result<(Namespace, Completion), NamespaceError> {
        check_namespace(name, &spec)?;
        let mut changes = self.0.namespace_changes.lock();
        if self.0.namespaces.read().contains_key(name) {
            return Err(NamespaceError::Exists(name.to_owned()));
        }
        if changes.being_deleted.contains(name) {
            return Err(NamespaceError::BeingDeleted(name.to_owned()));
        }
        limits::check("namespaces", self.0.namespaces.read().len(), self.0.parts.config.namespaces_max)?;
        let id = changes.next_id;
        let next_id = id.saturating_add(1);
        let mut entry = Entry::new();
        let row = NamespaceRow { id, spec };
        entry.put(rows::NAMESPACES, Bytes::copy_from_slice(name.as_bytes()), row.encode());
        entry.put(rows::NAMESPACE_IDS, Bytes::new(), rows::encode(&next_id));
        let lsn = self.log().submit(entry)?.lsn;
        changes.next_id = next_id;
        let sessions = self.0.parts.make_namespace(id, name, row.spec, Vec::new());
        let namespace = sessions.namespace().clone();
        self.0.namespaces.write().insert(name.into(), sessions);
        tracing::info!(namespace = name, "created namespace");
        Ok((namespace, lsn.into()))
    }

    /// Changes what is known of a namespace by a function of what it is now, which runs under a lock.
    pub fn alter_namespace(
        &self,
        name: &str,
        alter: impl FnOnce(&mut NamespaceSpec),
    ) -> Result<Completion, NamespaceError> {
        let _changes = self.0.namespace_changes.lock();
        let namespace = self.namespace(name).ok_or_else(|| NamespaceError::Unknown(name.to_owned()))?;
        let mut spec = namespace.spec();
        alter(&mut spec);
        check_spec(&spec)?;
        if spec == namespace.spec() {
            return Ok(Completion::Now);
        }
        let mut entry = Entry::new();
        let row = NamespaceRow { id: namespace.id(), spec };
        entry.put(rows::NAMESPACES, Bytes::copy_from_slice(name.as_bytes()), row.encode());
        let lsn = self.log().submit(entry)?.lsn;
        namespace.set_spec(row.spec);
        if let Some(sessions) = self.sessions(name) {
            sessions.check_bytes();
        }
        Ok(lsn.into())
    }

    /// Deletes a namespace: closes its connections and removes everything in it. Must be called within a runtime; the
    /// deletion goes on if the caller stops to wait for it. When this returns, and the completion is reached, nothing of it
    /// is left.
    pub async fn delete_namespace(&self, name: &str) -> Result<Completion, NamespaceError> {
        let (sessions, deleted) = self.begin_deletion(name)?;
        let broker = self.clone();
        let rest = tokio::spawn(async move {
            broker.close_namespace(&sessions).await;
            let removing = broker.clone();
            let removed = tokio::task::spawn_blocking(move || removing.remove_namespace(&sessions)).await;
            removed.unwrap_or(Ok(Completion::Now))
        });
        // A task that did not run to its end leaves the rest to the next start.
        let removed = rest.await.unwrap_or(Ok(Completion::Now))?;
        Ok(deleted.and(removed))
    }

    /// The first step: the namespace does not exist any more.
    fn begin_deletion(&self, name: &str) -> Result<(Sessions, Completion), NamespaceError> {
        if name == DEFAULT_NAMESPACE {
            return Err(NamespaceError::Default);
        }
        let mut changes = self.0.namespace_changes.lock();
        let sessions = self.sessions(name).ok_or_else(|| NamespaceError::Unknown(name.to_owned()))?;
        if sessions.namespace().spec().is_protected {
            return Err(NamespaceError::Protected(name.to_owned()));
        }
        let mut entry = Entry::new();
        entry.delete(rows::NAMESPACES, Bytes::copy_from_slice(name.as_bytes()));
        entry.put(rows::NAMESPACE_IDS, rows::key(sessions.namespace().id(), &[]), Bytes::new());
        let lsn = self.log().submit(entry)?.lsn;
        changes.being_deleted.insert(name.into());
        self.0.namespaces.write().remove(name);
        // Before its connections are closed: see `admit`.
        sessions.namespace().set_deleted();
        Ok((sessions, lsn.into()))
    }

    /// The second step: its connections end.
    async fn close_namespace(&self, sessions: &Sessions) {
        let name = sessions.namespace().shared_name();
        let reason = CloseReason::NamespaceDeleted(name.clone());
        let connections = self.connections();
        let closed = connections.close_where(|connection| connection.namespace() == &*name, &reason);
        let none_left = connections.wait_for_none_of_namespace(&name);
        let is_late = tokio::time::timeout(CLOSE_TIMEOUT, none_left).await.is_err();
        tracing::info!(namespace = &*name, closed, is_late, "closed connections of deleted namespace");
    }

    /// The third step: everything in it is removed.
    fn remove_namespace(&self, sessions: &Sessions) -> Result<Completion, NamespaceError> {
        let namespace = sessions.namespace();
        let mut removal = Removal::new(self.log());
        let removed = sessions
            .remove_all(&mut removal)
            .and_then(|()| namespace.remove_all(&mut removal))
            .and_then(|()| removal.finish());
        sessions.record();
        namespace.trim();
        self.0.namespace_changes.lock().being_deleted.remove(namespace.name());
        match removed {
            Ok(lsn) => {
                tracing::info!(namespace = namespace.name(), "deleted namespace");
                Ok(lsn.into())
            }
            Err(error) => {
                tracing::error!(namespace = namespace.name(), %error, "failed to remove deleted namespace");
                Err(error.into())
            }
        }
    }

    /// Creates the namespaces of the configuration, or changes those that exist to what it says.
    pub fn configure_namespaces(&self, configured: &[(String, NamespaceSpec)]) -> Result<(), NamespaceError> {
        for (name, spec) in configured {
            if self.namespace(name).is_some() {
                let _at_start = self.alter_namespace(name, |present| present.clone_from(spec))?;
            } else {
                self.create_namespace(name, spec.clone())?;
            }
        }
        Ok(())
    }
}

/// Checks whether a namespace may have this name and be created as this.
pub fn check_namespace(name: &str, spec: &NamespaceSpec) -> Result<(), NamespaceError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(NamespaceError::InvalidName);
    }
    check_spec(spec)
}

fn check_spec(spec: &NamespaceSpec) -> Result<(), NamespaceError> {
    let texts = spec.tags.iter().chain(&spec.default_queue_type).chain([&spec.description]);
    let is_valid = spec.tags.len() <= TAGS_MAX && texts.into_iter().all(|text| text.len() <= TEXT_BYTES_MAX);
    if is_valid { Ok(()) } else { Err(NamespaceError::InvalidSpec) }
}

#[cfg(test)]
mod tests;
