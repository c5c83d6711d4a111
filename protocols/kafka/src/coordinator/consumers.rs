//! The groups whose assignment the broker makes ([`super::consumer`]): their place among the others, their rows and timeouts.
//!
//! A group is of one protocol. One without members becomes one of the other protocol when a client joins by that, with its
//! committed offsets; one with members does not.

use std::collections::HashMap;
use std::sync::Arc;

use inver_broker::{Completion, Namespace, StateChange};
use inver_storage::{Share, SubmitError};
use parking_lot::{Mutex, MutexGuard};

use super::consumer::{
    Answer, Changes, ConsumerGroup, ConsumerState, Heartbeat, JOIN, Refusal, Topics, split_key,
};
use super::group::Group;
use super::{ClientGroup, ConsumerCell, ConsumerHandle, Coordinator, unavailable, unstored};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;

/// Text of the error for a group that the log does not take.
const NOT_STORED: &str = "The group cannot be stored.";

impl Topics for Namespace {
    fn version(&self) -> u64 {
        self.topics_version()
    }

    fn find(&self, name: &str) -> Option<(u128, i32)> {
        let topic = self.topic(name)?;
        Some((topic.id().0, i32::try_from(topic.partition_count()).unwrap_or(i32::MAX)))
    }
}

impl Coordinator {
    /// Handles a heartbeat of a member. `matching` finds the topics that match a pattern and that the client may see.
    pub(crate) fn consumer_heartbeat(
        &self,
        group: &Str,
        beat: Heartbeat,
        matching: &dyn Fn(&str) -> Vec<Str>,
    ) -> Result<(Answer, Completion), Refusal> {
        let now = self.now();
        if beat.epoch == JOIN && self.memory().is_over(Share::Groups) {
            // Clients try again.
            return Err(unavailable("The memory of groups is used up."));
        }
        let handle = match beat.epoch {
            JOIN => self.find_or_create_consumers(group)?,
            _ => self.find_consumers(group).ok_or_else(|| not_found(group))?,
        };
        let mut cell = handle.lock();
        if cell.group.is_dead() {
            return Err(unavailable("The group is being deleted."));
        }
        let mut changes = Changes::default();
        let (group, namespace, limits) = (&mut cell.group, &self.namespace, &self.limits);
        let answer = group.heartbeat(beat, namespace, matching, limits, now, &mut changes);
        let completion = self.consumers_changed(cell, &changes).map_err(|_| unavailable(NOT_STORED))?;
        Ok((answer?, completion))
    }

    /// Whether a heartbeat of a member that goes on may take longer than a turn, or has to wait for one that does.
    pub(crate) fn is_heartbeat_long(&self, group: &Str, member_id: &str) -> bool {
        let Some(handle) = self.find_consumers(group) else { return false };
        let version = self.namespace.topics_version();
        handle.try_lock().is_none_or(|cell| cell.group.is_behind(member_id, version))
    }

    /// Whether a request of this group has to wait for one that may take longer than a turn.
    pub(crate) fn is_held(&self, group: &Str) -> bool {
        self.find_consumers(group).is_some_and(|handle| handle.try_lock().is_none())
    }

    /// Calls `read` with a group, under its lock.
    pub(crate) fn with_consumer_group<R>(
        &self,
        group: &Str,
        read: impl FnOnce(&ConsumerGroup) -> R,
    ) -> Option<R> {
        let handle = self.find_consumers(group)?;
        let cell = handle.lock();
        Some(read(&cell.group))
    }

    /// Whether a group is one whose assignment the broker makes.
    pub(crate) fn has_consumer_group(&self, group: &Str) -> bool {
        self.consumers.read().contains_key(group)
    }

    pub(super) fn find_consumers(&self, group: &Str) -> Option<ConsumerHandle> {
        self.consumers.read().get(group).cloned()
    }

    fn find_or_create_consumers(&self, group: &Str) -> Result<ConsumerHandle, Refusal> {
        if let Some(handle) = self.find_consumers(group) {
            return Ok(handle);
        }
        if self.groups_count() >= self.groups_max {
            self.make_room();
        }
        // Held until it is there, so that no member joins by the other protocol meanwhile.
        let mut classic = self.groups.write();
        if let Some(known) = self.find_consumers(group) {
            return Ok(known);
        }
        if self.has_share_group(group) {
            return Err(not_found(group));
        }
        if !self.has_room(&classic, group) {
            return Err(unavailable("There are too many groups."));
        }
        let id = group.detached();
        let mut new = ConsumerGroup::new(id.clone(), self.limits.consumer_session_timeout);
        if let Some(known) = classic.get(group).cloned() {
            let mut cell = known.lock();
            if !cell.group.is_vacant() {
                return Err(not_found(group));
            }
            new.note_emptied(cell.group.emptied_ms());
            let kept = new.emptied_ms().map(|_| self.consumer_rows.change(&new.key(), Some(new.row())));
            let before = self.rows.change(group.as_bytes(), None);
            self.replace_row(group, before, kept).map_err(|_| unavailable(NOT_STORED))?;
            self.end_vacant(&mut cell);
            drop(cell);
            classic.remove(group);
        }
        let handle = self.consumer_handle(new);
        self.consumers.write().insert(id, handle.clone());
        Ok(handle)
    }

    fn consumer_handle(&self, group: ConsumerGroup) -> ConsumerHandle {
        let held = self.memory().holder(Share::Groups);
        Arc::new(Mutex::new(ConsumerCell { group, wake_at_ms: None, held }))
    }

    /// Makes way for a group of the classic protocol, and makes it, with the time when the last member left.
    pub(super) fn make_way_for_classic(&self, group: &Str) -> Result<ClientGroup, ErrorCode> {
        let mut new = Group::new(group.clone());
        let removed = self.remove_consumers(group, |emptied_ms| {
            new.note_emptied(emptied_ms);
            new.emptied_ms().map(|_| self.rows.change(group.as_bytes(), Some(new.snapshot())))
        });
        match removed {
            Err(ErrorCode::NON_EMPTY_GROUP) => Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
            removed => removed.map(|_| new),
        }
    }

    /// Deletes a group without members: its committed offsets are the caller's. None if there is no such group.
    pub(super) fn delete_consumers(&self, group: &Str) -> Result<Option<Completion>, ErrorCode> {
        self.remove_consumers(group, |_| None)
    }

    /// Refuses with `error` what is to replace or delete a group that has members. For callers that lock all groups next: a
    /// heartbeat may hold the lock of one for long.
    pub(super) fn check_no_members(&self, group: &Str, error: ErrorCode) -> Result<(), ErrorCode> {
        let is_empty = |group: &ConsumerGroup| group.state() == ConsumerState::Empty;
        if self.with_consumer_group(group, is_empty) == Some(false) { Err(error) } else { Ok(()) }
    }

    /// Removes a group without members. `kept`: the row that is stored instead, by the time when the last member left.
    fn remove_consumers(
        &self,
        group: &Str,
        kept: impl FnOnce(Option<i64>) -> Option<StateChange>,
    ) -> Result<Option<Completion>, ErrorCode> {
        let mut consumers = self.consumers.write();
        let Some(handle) = consumers.get(group).cloned() else { return Ok(None) };
        // A heartbeat that came meanwhile may hold it for long, and all groups would wait.
        let Some(mut cell) = handle.try_lock() else { return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE) };
        if cell.group.state() != ConsumerState::Empty {
            return Err(ErrorCode::NON_EMPTY_GROUP);
        }
        let row = self.consumer_rows.change(&cell.group.key(), None);
        let removed = self.replace_row(group, row, kept(cell.group.emptied_ms()))?;
        cell.group.delete();
        if let Some(at_ms) = cell.wake_at_ms.take() {
            self.timeouts.cancel(at_ms, cell.group.id().clone());
        }
        consumers.remove(group);
        Ok(Some(removed))
    }

    /// Deletes the row of a group that changes its protocol or is deleted; what is kept of it is stored in the same write.
    fn replace_row(
        &self,
        group: &Str,
        before: StateChange,
        kept: Option<StateChange>,
    ) -> Result<Completion, ErrorCode> {
        let kept = kept.filter(|_| !self.is_orphaned());
        let changes = [before].into_iter().chain(kept).collect();
        self.broker.change_states(changes).map_err(|error| unstored(group, &error))
    }

    /// Deletes a group that has neither members nor committed offsets.
    pub(super) fn delete_consumers_if_unused(&self, group: &Str) {
        let is_unused = |group: &ConsumerGroup| group.state() == ConsumerState::Empty;
        if self.with_consumer_group(group, is_unused) == Some(true) && !self.has_committed_offsets(group) {
            // A failure is told where it happens; a member may have joined meanwhile.
            let _deleted = self.delete_consumers(group);
        }
    }

    /// Handles a timeout of a group.
    pub(super) fn consumers_timed_out(&self, id: &Str, at_ms: i64) {
        let Some(handle) = self.find_consumers(id) else { return };
        let mut cell = handle.lock();
        if cell.wake_at_ms != Some(at_ms) {
            return;
        }
        cell.wake_at_ms = None;
        let changes = cell.group.on_timeout(self.now());
        // A failure is told where it happens; members are removed again after a restart.
        let _stored = self.consumers_changed(cell, &changes);
    }

    /// Stores what has changed in one write, and sets the next timeout.
    fn consumers_changed(
        &self,
        mut cell: MutexGuard<'_, ConsumerCell>,
        changes: &Changes,
    ) -> Result<Completion, SubmitError> {
        let cell = &mut *cell;
        if let Some(at_ms) = self.timeout_ms(cell.group.wake_at(), cell.wake_at_ms) {
            let before_ms = cell.wake_at_ms.replace(at_ms);
            self.timeouts.reschedule(before_ms, at_ms, cell.group.id().clone());
        }
        if *changes == Changes::default() {
            return Ok(Completion::Now);
        }
        cell.held.force(cell.group.bytes());
        let emptied_ms = cell.group.emptied_ms();
        cell.group.note_time(self.broker.clock().steady_ms());
        if self.is_orphaned() {
            return Ok(Completion::Now);
        }
        let stored = self.store_consumers(&cell.group, changes, emptied_ms != cell.group.emptied_ms());
        stored.inspect_err(|error| {
            tracing::error!(group = %cell.group.id(), %error, "failed to store a consumer group");
        })
    }

    fn store_consumers(
        &self,
        group: &ConsumerGroup,
        changes: &Changes,
        is_other: bool,
    ) -> Result<Completion, SubmitError> {
        let rows = &self.consumer_rows;
        let mut changed = Vec::new();
        if changes.group || is_other {
            changed.push(rows.change(&group.key(), Some(group.row())));
        }
        changed.extend(changes.removed.iter().map(|id| rows.change(&group.member_key(id), None)));
        let present = changes.members.iter().filter_map(|id| Some((id, group.member_row(id)?)));
        changed.extend(present.map(|(id, row)| rows.change(&group.member_key(id), Some(row))));
        self.broker.change_states(changed)
    }

    /// Restores the groups stored in the log.
    pub(super) fn recover_consumers(&self) {
        let now = self.now();
        let mut consumers = self.consumers.write();
        let mut changes: HashMap<Str, Changes> = HashMap::new();
        for (key, row) in self.consumer_rows.all() {
            let Some((id, member)) = split_key(&key) else { continue };
            let timeout = self.limits.consumer_session_timeout;
            let handle = consumers
                .entry(id.clone())
                .or_insert_with(|| self.consumer_handle(ConsumerGroup::new(id.clone(), timeout)));
            let mut cell = handle.lock();
            let restored = match member {
                Some(member) => {
                    let changes = changes.entry(id.clone()).or_default();
                    cell.group.restore_member(member, row, now, changes)
                }
                None => cell.group.restore(row),
            };
            if let Err(error) = restored {
                tracing::error!(group = %id, %error, "failed to decode a row of a consumer group");
            }
        }
        for (id, handle) in consumers.iter() {
            // Sets the timeout. A failure is told where it happens; the rows are mended again after the next restart.
            let changes = changes.remove(id).unwrap_or_default();
            let _stored = self.consumers_changed(handle.lock(), &changes);
        }
        tracing::debug!(count = consumers.len(), "restored consumer groups that the broker assigns");
    }

    /// Forgets all groups of a deleted namespace, and deletes their rows.
    pub(super) fn forget_consumers(&self) -> Result<(), SubmitError> {
        self.consumers.write().clear();
        for (key, _) in self.consumer_rows.all() {
            self.consumer_rows.delete(&key)?;
        }
        Ok(())
    }
}

/// The error for a group of the other protocol, or none.
fn not_found(group: &Str) -> Refusal {
    Refusal::new(ErrorCode::GROUP_ID_NOT_FOUND, format!("Group {group} is not a consumer group."))
}
