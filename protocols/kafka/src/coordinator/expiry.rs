//! Expiry of committed offsets, and removal of groups that are left without any.
//!
//! Offsets expire some time ([`crate::config::GroupLimits::offsets_retention`]) after the last member of their group
//! left, or after they were committed, whichever is later. Those of a group that never had members expire by their
//! commit alone. A group with members keeps all its offsets, even of topics that it is no longer subscribed to.

use std::time::Duration;

use inver_broker::{AuditKind, Completion};
use tokio::time::Instant;

use super::consumer::ConsumerState;
use super::group::State;
use super::{Coordinator, Handle};
use crate::codec::text::Str;

/// Longest time between two checks, as in Kafka.
const CHECK_EVERY_MAX: Duration = Duration::from_secs(600);

/// Transactional ids deleted before other tasks on the thread run.
const IDS_AT_ONCE: usize = 1000;

/// Groups checked before other tasks on the thread run.
const GROUPS_AT_ONCE: usize = 100;

impl Coordinator {
    /// When to check next.
    pub(super) fn next_expiry(&self) -> Instant {
        let retention = self.limits.offsets_retention;
        let every = match retention.is_zero() {
            true => CHECK_EVERY_MAX,
            false => (retention / 4).clamp(Duration::from_millis(10), CHECK_EVERY_MAX),
        };
        self.now() + every
    }

    /// Deletes expired offsets, and groups with neither members nor offsets: a group may also lose its offsets with
    /// their topics.
    pub(super) async fn expire(&self, now_ms: i64) {
        let retention_ms = i64::try_from(self.limits.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        if retention_ms > 0 {
            let before_ms = now_ms.saturating_sub(retention_ms);
            for (place, group) in self.namespace.committed_offsets().groups().into_iter().enumerate() {
                yield_at_times(place).await;
                self.expire_offsets_of(&group, before_ms);
            }
        }
        self.expire_transactional_ids(now_ms).await;
        let handles: Vec<Handle> = self.groups.read().values().cloned().collect();
        for (place, handle) in handles.iter().enumerate() {
            yield_at_times(place).await;
            self.delete_if_unused(handle);
        }
        let consumers: Vec<Str> = self.consumers.read().keys().cloned().collect();
        for (place, group) in consumers.iter().enumerate() {
            yield_at_times(place).await;
            self.delete_consumers_if_unused(group);
        }
        for (place, id) in self.unused_shares().iter().enumerate() {
            yield_at_times(place).await;
            self.delete_unused_share(id);
        }
    }

    /// Deletes transactional ids that no producer has used for long.
    async fn expire_transactional_ids(&self, now_ms: i64) {
        let expiration_ms = i64::try_from(self.transactional_id_expiration.as_millis()).unwrap_or(i64::MAX);
        let before_ms = now_ms.saturating_sub(expiration_ms);
        let transactions = self.namespace.transactions();
        let unused = transactions.unused_since(before_ms);
        for ids in unused.chunks(IDS_AT_ONCE) {
            if let Err(error) = transactions.expire(ids, before_ms) {
                tracing::error!(%error, "failed to delete expired transactional ids");
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn expire_offsets_of(&self, group: &str, before_ms: i64) {
        let expire = || match self.namespace.committed_offsets().expire(self.broker.log(), group, before_ms) {
            Ok(Completion::At(_)) => {
                tracing::info!(%group, "committed offsets expired");
                self.namespace.audit(AuditKind::Deleted, "delete-offsets", "group", group);
            }
            Ok(Completion::Now) => {}
            Err(error) => tracing::error!(%group, %error, "failed to delete expired committed offsets"),
        };
        let is_retained =
            |emptied_ms: Option<i64>| emptied_ms.is_some_and(|emptied_ms| emptied_ms >= before_ms);
        // A group's lock is held meanwhile, so that no member joins in between.
        let id = Str::from(group);
        if let Some(handle) = self.find(&id) {
            let cell = handle.lock();
            if cell.group.state() == State::Empty && !is_retained(cell.group.emptied_ms()) {
                expire();
            }
        } else if let Some(handle) = self.find_consumers(&id) {
            let cell = handle.lock();
            if cell.group.state() == ConsumerState::Empty && !is_retained(cell.group.emptied_ms()) {
                expire();
            }
        } else {
            expire();
        }
    }

    /// Deletes a group that had members, and has neither members nor committed offsets now.
    pub(super) fn delete_if_unused(&self, handle: &Handle) {
        {
            let cell = handle.lock();
            let group = &cell.group;
            if group.emptied_ms().is_none() || !group.is_vacant() || self.has_committed_offsets(group.id()) {
                return;
            }
            if let Err(error) = self.rows.delete(group.id().as_bytes()) {
                tracing::error!(group = %group.id(), %error, "failed to delete unused group");
            }
        }
        self.remove_if_unused(handle);
    }
}

/// Lets other tasks on the thread run every [`GROUPS_AT_ONCE`] groups.
async fn yield_at_times(place: usize) {
    if place % GROUPS_AT_ONCE == GROUPS_AT_ONCE - 1 {
        tokio::task::yield_now().await;
    }
}
