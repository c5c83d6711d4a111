//! All groups: who may change them, when time has to pass for them, what of them is kept.
//!
//! Each group is a state machine ([`crate::session::group`]) behind a lock of its own that is never held over a wait.
//! Answers leave as filled tickets. What a restart must know is written under the group's lock, so that the log's
//! order is the order of events.

mod answers;
mod expiry;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use inver_broker::{Broker, Namespace, now_ms};
use inver_storage::{Lsn, SubmitError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use self::answers::deliver;
use crate::codec::error_code::ErrorCode;
use crate::codec::header::RequestHeader;
use crate::codec::text::Str;
use crate::session::group::{Effects, Group, GroupLimits, Join, Joined, Leave, State, Sync, Synced};
use crate::ticket::{Claim, Ticket};

/// Table of the groups' rows.
const TABLE: &str = "kafka-groups";

/// Who waits for an answer of a group.
pub(crate) struct Waiter {
    pub(crate) ticket: Ticket,
    pub(crate) request: RequestHeader,
}

/// A group, and when the clock will look at it.
struct Cell {
    group: Group<Waiter>,
    wake_at: Option<Instant>,
}

type Handle = Arc<Mutex<Cell>>;

/// All groups.
pub(crate) struct Coordinator {
    broker: Broker,
    namespace: Namespace,
    limits: GroupLimits,
    groups_max: usize,
    groups: RwLock<HashMap<Str, Handle>>,
    wakes: Mutex<BTreeSet<(Instant, Str)>>,
    rewound: Notify,
    ticking: AtomicBool,
}

/// A line of the list of groups.
pub(crate) struct Listed {
    pub(crate) id: Str,
    pub(crate) state: State,
    pub(crate) protocol_type: Str,
}

impl Coordinator {
    pub(crate) fn new(
        broker: Broker,
        namespace: Namespace,
        limits: GroupLimits,
        groups_max: usize,
    ) -> Arc<Coordinator> {
        let coordinator = Arc::new(Coordinator {
            broker,
            namespace,
            limits,
            groups_max,
            groups: RwLock::default(),
            wakes: Mutex::default(),
            rewound: Notify::new(),
            ticking: AtomicBool::new(false),
        });
        coordinator.recover();
        coordinator
    }

    fn recover(&self) {
        let now = Instant::now();
        for (key, row) in self.broker.states(TABLE) {
            let Some(id) = Str::from_utf8(key) else { continue };
            match Group::restore(id.clone(), row, now) {
                Ok(group) => {
                    let mut cell = Cell { group, wake_at: None };
                    self.set_alarm(&mut cell);
                    self.groups.write().insert(id, Arc::new(Mutex::new(cell)));
                }
                Err(error) => tracing::error!(group = %id, %error, "what was kept of a group cannot be read"),
            }
        }
    }

    /// Lets time pass for the groups, on the runtime of the caller. Once is enough; further calls do nothing.
    pub(crate) fn start(self: &Arc<Self>) {
        if !self.ticking.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().keep_time());
        }
    }

    async fn keep_time(self: Arc<Self>) {
        let mut sweep_at = self.next_sweep();
        loop {
            let first = self.wakes.lock().first().map(|(at, _)| *at);
            let next = first.map_or(sweep_at, |at| at.min(sweep_at));
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => self.ring(Instant::now()),
                () = self.rewound.notified() => {}
            }
            if sweep_at <= Instant::now() {
                self.sweep(now_ms()).await;
                sweep_at = self.next_sweep();
            }
        }
    }

    fn ring(&self, now: Instant) {
        loop {
            let due = {
                let mut wakes = self.wakes.lock();
                match wakes.first() {
                    Some((at, _)) if *at <= now => wakes.pop_first(),
                    _ => return,
                }
            };
            let Some((at, id)) = due else { return };
            let Some(handle) = self.groups.read().get(&id).cloned() else { continue };
            let mut cell = handle.lock();
            if cell.wake_at != Some(at) {
                continue;
            }
            cell.wake_at = None;
            self.act(&handle, cell, |group, limits, effects| group.tick(limits, now, effects));
        }
    }

    fn set_alarm(&self, cell: &mut Cell) {
        let Some(at) = cell.group.wake_at() else { return };
        if cell.wake_at.is_some_and(|set| set <= at) {
            return;
        }
        let mut wakes = self.wakes.lock();
        if let Some(set) = cell.wake_at.replace(at) {
            wakes.remove(&(set, cell.group.id().clone()));
        }
        wakes.insert((at, cell.group.id().clone()));
        if wakes.first().is_some_and(|(first, _)| *first == at) {
            self.rewound.notify_one();
        }
    }

    /// Changes a group and does what follows from it.
    fn act<R>(
        &self,
        handle: &Handle,
        mut cell: parking_lot::MutexGuard<'_, Cell>,
        change: impl FnOnce(&mut Group<Waiter>, &GroupLimits, &mut Effects<Waiter>) -> R,
    ) -> R {
        let mut effects = Effects::default();
        let result = change(&mut cell.group, &self.limits, &mut effects);
        cell.group.note_time(now_ms());
        if effects.changed {
            self.keep(&cell.group);
        }
        self.set_alarm(&mut cell);
        let vacant = cell.group.is_vacant();
        drop(cell);
        deliver(effects);
        if vacant {
            self.forget_if_idle(handle);
        }
        result
    }

    fn keep(&self, group: &Group<Waiter>) {
        let id = group.id().as_bytes();
        let forgotten = group.state() == State::Empty && !self.has_positions(group.id());
        let error = match forgotten {
            true => self.broker.delete_state(TABLE, id).err(),
            false => self.broker.put_state(TABLE, id, group.snapshot()).err(),
        };
        if let Some(error) = error {
            tracing::error!(group = %group.id(), %error, "what a restart must know of a group was not written");
        }
    }

    fn has_positions(&self, group: &str) -> bool {
        self.namespace.committed_offsets().has_group(group)
    }

    /// A group without members and positions need not be remembered.
    fn forget_if_idle(&self, handle: &Handle) {
        let mut groups = self.groups.write();
        let mut cell = handle.lock();
        let id = cell.group.id().clone();
        if !cell.group.is_vacant() || self.has_positions(&id) {
            return;
        }
        if groups.get(&id).is_some_and(|known| Arc::ptr_eq(known, handle)) && cell.group.kill() {
            groups.remove(&id);
            if let Some(at) = cell.wake_at.take() {
                self.wakes.lock().remove(&(at, id));
            }
        }
    }

    fn find(&self, group: &Str) -> Option<Handle> {
        self.groups.read().get(group).cloned()
    }

    fn find_or_make(&self, group: &Str) -> Option<Handle> {
        if let Some(handle) = self.find(group) {
            return Some(handle);
        }
        let mut groups = self.groups.write();
        if groups.len() >= self.groups_max {
            return groups.get(group).cloned();
        }
        let id = group.detached();
        let fresh = || Arc::new(Mutex::new(Cell { group: Group::new(id.clone()), wake_at: None }));
        Some(groups.entry(id.clone()).or_insert_with(fresh).clone())
    }

    /// A member comes; its waiter is answered, now or later.
    pub(crate) fn join(&self, group: &Str, join: Join<Waiter>, now: Instant) {
        let refuse = |join: Join<Waiter>, error| {
            let mut effects = Effects::default();
            effects.joined.push((join.waiter, Joined::refused(join.member_id, error)));
            deliver(effects);
        };
        if group.is_empty() {
            return refuse(join, ErrorCode::INVALID_GROUP_ID);
        }
        let handle = if join.member_id.is_empty() { self.find_or_make(group) } else { self.find(group) };
        match handle {
            Some(handle) => {
                self.act(&handle, handle.lock(), |group, limits, effects| {
                    group.join(join, limits, now, effects);
                });
            }
            None if join.member_id.is_empty() => refuse(join, ErrorCode::COORDINATOR_NOT_AVAILABLE),
            None => refuse(join, ErrorCode::UNKNOWN_MEMBER_ID),
        }
    }

    /// A member asks for its work; its waiter is answered, now or later.
    pub(crate) fn sync(&self, group: &Str, sync: Sync<Waiter>, now: Instant) {
        match self.find(group) {
            Some(handle) => {
                self.act(&handle, handle.lock(), |group, limits, effects| {
                    group.sync(sync, limits, now, effects);
                });
            }
            None => {
                let mut effects = Effects::default();
                effects.synced.push((sync.waiter, Synced::refused(nobody_in(group))));
                deliver(effects);
            }
        }
    }

    /// A sign of life.
    pub(crate) fn heartbeat(
        &self,
        group: &Str,
        member_id: &Str,
        instance_id: Option<&Str>,
        generation: i32,
        now: Instant,
    ) -> ErrorCode {
        match self.find(group) {
            // Nothing follows from a heartbeat: the alarm may ring early, and is set anew then.
            Some(handle) => handle.lock().group.heartbeat(member_id, instance_id, generation, now),
            None => nobody_in(group),
        }
    }

    /// A member leaves.
    pub(crate) fn leave(&self, group: &Str, leave: &Leave, now: Instant) -> ErrorCode {
        match self.find(group) {
            Some(handle) => self.act(&handle, handle.lock(), |group, limits, effects| {
                group.leave(leave, limits, now, effects)
            }),
            None => nobody_in(group),
        }
    }

    /// The connection that waited for a member's join or sync is gone.
    pub(crate) fn hung_up(&self, group: &Str, member_id: &Str, claim: &Claim, now: Instant) {
        if let Some(handle) = self.find(group) {
            self.act(&handle, handle.lock(), |group, limits, effects| {
                group.hung_up(member_id, |waiter| waiter.ticket.belongs_to(claim), limits, now, effects);
            });
        }
    }

    /// Runs `commit` if the member may commit positions; no rebalance comes in between.
    pub(crate) fn commit(
        &self,
        group: &Str,
        member_id: &Str,
        instance_id: Option<&Str>,
        generation: i32,
        now: Instant,
        commit: impl FnOnce() -> Result<Lsn, SubmitError>,
    ) -> Result<Lsn, ErrorCode> {
        let storage = |_| ErrorCode::COORDINATOR_NOT_AVAILABLE;
        match self.find(group) {
            Some(handle) => {
                let mut cell = handle.lock();
                cell.group.may_commit(member_id, instance_id, generation, now)?;
                commit().map_err(storage)
            }
            None if generation >= 0 => Err(ErrorCode::ILLEGAL_GENERATION),
            None => commit().map_err(storage),
        }
    }

    /// Looks at a group.
    pub(crate) fn look<R>(&self, group: &Str, look: impl FnOnce(&Group<Waiter>) -> R) -> Option<R> {
        let handle = self.find(group)?;
        let cell = handle.lock();
        Some(look(&cell.group))
    }

    /// All groups: those that have or had members, and those that only have positions.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let handles: Vec<Handle> = self.groups.read().values().cloned().collect();
        let listed = |handle: &Handle| {
            let cell = handle.lock();
            Listed {
                id: cell.group.id().clone(),
                state: cell.group.state(),
                protocol_type: cell.group.protocol_type().cloned().unwrap_or_default(),
            }
        };
        let mut all: Vec<Listed> = handles.iter().map(listed).collect();
        let known: std::collections::HashSet<Str> = all.iter().map(|group| group.id.clone()).collect();
        for group in self.namespace.committed_offsets().groups() {
            if !known.contains(group.as_str()) {
                let id = Str::from(group);
                all.push(Listed { id, state: State::Empty, protocol_type: Str::default() });
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Forgets a group that has no members, and its positions.
    pub(crate) fn delete(&self, group: &Str) -> Result<Option<Lsn>, ErrorCode> {
        if group.is_empty() {
            return Err(ErrorCode::INVALID_GROUP_ID);
        }
        let mut groups = self.groups.write();
        let handle = groups.get(group).cloned();
        if let Some(handle) = &handle {
            let mut cell = handle.lock();
            if !cell.group.kill() {
                return Err(ErrorCode::NON_EMPTY_GROUP);
            }
            if let Some(at) = cell.wake_at.take() {
                self.wakes.lock().remove(&(at, group.clone()));
            }
        } else if !self.has_positions(group) {
            return Err(ErrorCode::GROUP_ID_NOT_FOUND);
        }
        groups.remove(group);
        let failed = |_| ErrorCode::COORDINATOR_NOT_AVAILABLE;
        let positions = self
            .namespace
            .committed_offsets()
            .delete(self.broker.log(), group, |_, _| true)
            .map_err(failed)?
            .lsn();
        let row = match handle {
            Some(_) => Some(self.broker.delete_state(TABLE, group.as_bytes()).map_err(failed)?),
            None => None,
        };
        Ok(row.max(positions))
    }
}

/// What a member is told by a group that is not there.
fn nobody_in(group: &Str) -> ErrorCode {
    if group.is_empty() { ErrorCode::INVALID_GROUP_ID } else { ErrorCode::UNKNOWN_MEMBER_ID }
}
