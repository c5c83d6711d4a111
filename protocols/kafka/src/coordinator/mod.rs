//! The coordinator of all groups of a namespace.
//!
//! Owns the groups, their timeouts and their stored form. Each group is a state machine ([`group`] for the classic protocol,
//! [`consumer`] for that in which the broker assigns,
//! [`share`] for share groups) behind a lock of its own, which is never held over a wait. Responses
//! leave through tickets, after the lock is released. A group's rows are written under its lock, so that the order in the log
//! is the order of transitions.

mod admin;
pub(crate) mod consumer;
mod consumers;
mod expiry;
pub(crate) mod group;
pub(crate) mod group_settings;
mod row;
pub(crate) mod share;
pub(crate) mod shares;
mod waiter;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use inver_broker::{Broker, Completion, Namespace, Timers};
use inver_storage::{Held, Memory, Share, SubmitError};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::consumer::{ConsumerGroup, Refusal};
use self::group::{Group, Join, Joined, Leave, State, Sync, Synced};
use self::group_settings::GroupValues;
use self::share::{LockRegistry, ShareGroup};
pub(crate) use self::waiter::Waiter;
use self::waiter::deliver;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::config::{GroupLimits, KafkaConfig};
use crate::namespace_rows::{NamespaceRows, Tables};

/// Tables of the groups' rows.
pub(crate) const TABLES: Tables = Tables { plain: "kafka-groups", numbered: "kafka-groups-of" };
/// Tables of the rows of groups whose assignment the broker makes.
pub(crate) const CONSUMER_TABLES: Tables =
    Tables { plain: "kafka-consumer-groups", numbered: "kafka-consumer-groups-of" };
/// Tables of the rows of share groups.
pub(crate) const SHARE_TABLES: Tables =
    Tables { plain: "kafka-share-groups", numbered: "kafka-share-groups-of" };
/// Tables of the rows of groups' settings.
pub(crate) const SETTING_TABLES: Tables =
    Tables { plain: "kafka-group-settings", numbered: "kafka-group-settings-of" };

/// The protocol type of consumers.
const CONSUMER: &str = "consumer";

/// Least time between two attempts to make room for groups, milliseconds.
const MAKE_ROOM_MS: i64 = 1000;

/// A group whose members wait on connections.
type ClientGroup = Group<Waiter<Joined>, Waiter<Synced>>;
type Effects = group::Effects<Waiter<Joined>, Waiter<Synced>>;

/// A group, and the timeout set for it, in milliseconds since the coordinator's start.
struct Cell {
    group: ClientGroup,
    wake_at_ms: Option<i64>,
    /// Memory of its members' metadata.
    held: Held,
}

type Handle = Arc<Mutex<Cell>>;

/// A group whose assignment the broker makes, likewise.
struct ConsumerCell {
    group: ConsumerGroup,
    wake_at_ms: Option<i64>,
    held: Held,
}

type ConsumerHandle = Arc<Mutex<ConsumerCell>>;

/// A share group, likewise.
struct ShareCell {
    group: ShareGroup,
    wake_at_ms: Option<i64>,
    held: Held,
}

type ShareHandle = Arc<Mutex<ShareCell>>;

/// The coordinator of all groups of a namespace.
pub(crate) struct Coordinator {
    broker: Broker,
    namespace: Namespace,
    rows: NamespaceRows,
    limits: GroupLimits,
    groups_max: usize,
    transactional_id_expiration: Duration,
    /// Locked before `consumers`, and that before `shares`; an id is in one of them.
    groups: RwLock<HashMap<Str, Handle>>,
    consumer_rows: NamespaceRows,
    consumers: RwLock<HashMap<Str, ConsumerHandle>>,
    share_rows: NamespaceRows,
    shares: RwLock<HashMap<Str, ShareHandle>>,
    record_locks: LockRegistry,
    setting_rows: NamespaceRows,
    /// The settings that are set on groups.
    values: RwLock<HashMap<Str, GroupValues>>,
    /// Ids of groups with a timeout, in milliseconds since `start`: session timeouts follow monotonic time.
    timeouts: Timers<Str>,
    start: Instant,
    is_running: AtomicBool,
    /// When room was made for groups last, in milliseconds since `start`.
    room_made_at_ms: AtomicI64,
    /// The namespace was deleted.
    over: Notify,
}

/// The protocol of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// Members make the assignment.
    Classic,
    /// The broker makes it (KIP-848).
    Consumer,
    /// Members share records (KIP-932).
    Share,
}

impl GroupKind {
    /// Its name in Kafka.
    pub(crate) fn name(self) -> &'static str {
        match self {
            GroupKind::Classic => "classic",
            GroupKind::Consumer => "consumer",
            GroupKind::Share => "share",
        }
    }
}

/// An entry of the list of groups.
pub(crate) struct Listed {
    pub(crate) id: Str,
    pub(crate) state: &'static str,
    pub(crate) protocol_type: Str,
    pub(crate) kind: GroupKind,
}

impl Coordinator {
    /// A coordinator with the groups stored in the log.
    pub(crate) fn new(broker: Broker, namespace: Namespace, config: &KafkaConfig) -> Arc<Coordinator> {
        let coordinator = Arc::new(Coordinator {
            start: broker.clock().now(),
            rows: NamespaceRows::new(broker.clone(), TABLES, &namespace),
            consumer_rows: NamespaceRows::new(broker.clone(), CONSUMER_TABLES, &namespace),
            share_rows: NamespaceRows::new(broker.clone(), SHARE_TABLES, &namespace),
            setting_rows: NamespaceRows::new(broker.clone(), SETTING_TABLES, &namespace),
            broker,
            namespace,
            limits: config.groups.clone(),
            groups_max: config.limits.groups_max,
            transactional_id_expiration: config.transactions.id_expiration,
            groups: RwLock::default(),
            consumers: RwLock::default(),
            shares: RwLock::default(),
            record_locks: LockRegistry::default(),
            values: RwLock::default(),
            timeouts: Timers::default(),
            is_running: AtomicBool::new(false),
            room_made_at_ms: AtomicI64::new(i64::MIN),
            over: Notify::new(),
        });
        coordinator.recover();
        coordinator.recover_consumers();
        coordinator.recover_shares();
        let administered: Weak<Coordinator> = Arc::downgrade(&coordinator);
        coordinator.namespace.set_group_coordinator(administered);
        coordinator
    }

    fn now(&self) -> Instant {
        self.broker.clock().now()
    }

    /// Milliseconds from the coordinator's start to `now`.
    fn elapsed_ms(&self, now: Instant) -> i64 {
        i64::try_from((now - self.start).as_millis()).unwrap_or(i64::MAX)
    }

    fn recover(&self) {
        let now = self.now();
        let mut groups = self.groups.write();
        for (key, row) in self.rows.all() {
            let Some(id) = Str::from_utf8(key) else { continue };
            match Group::restore(id.clone(), row, now) {
                Ok(group) => {
                    let mut cell = self.cell(group);
                    self.set_timeout(&mut cell);
                    groups.insert(id, Arc::new(Mutex::new(cell)));
                }
                Err(error) => tracing::error!(group = %id, %error, "failed to decode group snapshot"),
            }
        }
        tracing::debug!(count = groups.len(), "restored consumer groups");
    }

    /// Starts to handle timeouts, on the caller's runtime. Further calls do nothing.
    pub(crate) fn start(self: &Arc<Self>) {
        if !self.is_running.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().run(self.next_expiry()));
        }
    }

    async fn run(self: Arc<Self>, mut expire_at: Instant) {
        let clock = self.broker.clock().clone();
        loop {
            tokio::select! {
                () = self.timeouts.wait(&clock, || self.elapsed_ms(clock.now()), expire_at) => {}
                () = self.over.notified() => {}
            }
            if self.is_orphaned() {
                self.forget();
                return;
            }
            self.handle_timeouts();
            if expire_at <= clock.now() {
                self.expire(clock.steady_ms()).await;
                expire_at = self.next_expiry();
            }
        }
    }

    fn handle_timeouts(&self) {
        let now = self.now();
        for (at_ms, id) in self.timeouts.take(self.elapsed_ms(now)) {
            let Some(handle) = self.find(&id) else {
                self.consumers_timed_out(&id, at_ms);
                self.shares_timed_out(&id, at_ms);
                continue;
            };
            let mut cell = handle.lock();
            if cell.wake_at_ms != Some(at_ms) {
                continue;
            }
            cell.wake_at_ms = None;
            self.transition(&handle, cell, |group, limits, effects| group.on_timeout(limits, now, effects));
        }
    }

    /// Whether the namespace was deleted.
    fn is_orphaned(&self) -> bool {
        self.namespace.is_deleted()
    }

    /// Ends the handling of timeouts, and deletes all that is stored of the groups, once the namespace was deleted.
    pub(crate) fn end(&self) {
        self.over.notify_one();
    }

    fn forget(&self) {
        self.groups.write().clear();
        let rows = self.rows.all();
        let mut deletions = rows.iter().map(|(key, _)| self.rows.delete(key).map(drop));
        let deleted = deletions.try_for_each(|deleted| deleted).and_then(|()| self.forget_consumers());
        let deleted = deleted.and_then(|()| self.forget_shares());
        if let Err(error) = deleted {
            tracing::error!(%error, "failed to delete the groups of a deleted namespace");
        }
    }

    /// The time of a group's next timeout, unless an earlier one is set.
    fn timeout_ms(&self, wake_at: Option<Instant>, set_ms: Option<i64>) -> Option<i64> {
        // Rounded up, so that the timeout is due when it is handled.
        let at_ms = wake_at?.saturating_duration_since(self.start).as_nanos().div_ceil(1_000_000);
        let at_ms = i64::try_from(at_ms).unwrap_or(i64::MAX);
        set_ms.is_none_or(|set_ms| set_ms > at_ms).then_some(at_ms)
    }

    /// Sets the timeout that the group asks for, unless an earlier one is set.
    fn set_timeout(&self, cell: &mut Cell) {
        let Some(at_ms) = self.timeout_ms(cell.group.wake_at(), cell.wake_at_ms) else { return };
        let before_ms = cell.wake_at_ms.replace(at_ms);
        self.timeouts.reschedule(before_ms, at_ms, cell.group.id().clone());
    }

    fn cancel_timeout(&self, cell: &mut Cell) {
        if let Some(at_ms) = cell.wake_at_ms.take() {
            self.timeouts.cancel(at_ms, cell.group.id().clone());
        }
    }

    /// Runs a transition of a group and applies its effects.
    fn transition<R>(
        &self,
        handle: &Handle,
        mut cell: MutexGuard<'_, Cell>,
        change: impl FnOnce(&mut ClientGroup, &GroupLimits, &mut Effects) -> R,
    ) -> R {
        let mut effects = Effects::default();
        let result = change(&mut cell.group, &self.limits, &mut effects);
        cell.group.note_time(self.broker.clock().steady_ms());
        let bytes = cell.group.bytes();
        cell.held.force(bytes);
        if effects.changed {
            self.persist(&cell.group);
        }
        self.set_timeout(&mut cell);
        // One that had members stays until the next round of expiry, as in Kafka.
        let never_used = cell.group.is_vacant() && cell.group.emptied_ms().is_none();
        drop(cell);
        deliver(effects);
        if never_used {
            self.remove_if_unused(handle);
        }
        result
    }

    fn persist(&self, group: &ClientGroup) {
        if self.is_orphaned() {
            return;
        }
        let id = group.id().as_bytes();
        let unused = group.state() == State::Empty
            && group.emptied_ms().is_none()
            && !self.has_committed_offsets(group.id());
        let error = match unused {
            true => self.rows.delete(id).err(),
            false => self.rows.put(id, group.snapshot()).err(),
        };
        if let Some(error) = error {
            tracing::error!(group = %group.id(), %error, "failed to persist group snapshot");
        }
    }

    /// Whether a group has committed offsets.
    pub(crate) fn has_committed_offsets(&self, group: &str) -> bool {
        self.namespace.committed_offsets().has_group(group)
    }

    /// Removes a group without members and committed offsets from memory.
    fn remove_if_unused(&self, handle: &Handle) {
        let mut groups = self.groups.write();
        let mut cell = handle.lock();
        let id = cell.group.id().clone();
        if !cell.group.is_vacant() || self.has_committed_offsets(&id) {
            return;
        }
        if groups.get(&id).is_some_and(|known| Arc::ptr_eq(known, handle)) {
            groups.remove(&id);
            self.end_vacant(&mut cell);
        }
    }

    /// Removes groups that wait for the next round of expiry, because there are too many. At most once in some time: it looks
    /// at all groups.
    fn make_room(&self) {
        let now_ms = self.elapsed_ms(self.now());
        let next_ms = self.room_made_at_ms.load(Ordering::Relaxed).saturating_add(MAKE_ROOM_MS);
        let is_due = now_ms >= next_ms
            && self.room_made_at_ms.swap(now_ms, Ordering::Relaxed).saturating_add(MAKE_ROOM_MS) <= now_ms;
        if is_due {
            let handles: Vec<Handle> = self.groups.read().values().cloned().collect();
            handles.iter().for_each(|handle| self.delete_if_unused(handle));
            let consumers: Vec<Str> = self.consumers.read().keys().cloned().collect();
            consumers.iter().for_each(|group| self.delete_consumers_if_unused(group));
            self.unused_shares().iter().for_each(|id| self.delete_unused_share(id));
        }
    }

    fn find(&self, group: &Str) -> Option<Handle> {
        self.groups.read().get(group).cloned()
    }

    fn groups_count(&self) -> usize {
        self.groups.read().len() + self.consumers.read().len() + self.shares.read().len()
    }

    fn find_or_create(&self, group: &Str) -> Result<Handle, ErrorCode> {
        if let Some(handle) = self.find(group) {
            return Ok(handle);
        }
        if self.is_held(group) {
            // By a heartbeat, which may take long. Clients try again.
            return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        self.check_no_members(group, ErrorCode::INCONSISTENT_GROUP_PROTOCOL)?;
        if self.groups_count() >= self.groups_max {
            self.make_room();
        }
        let mut groups = self.groups.write();
        if let Some(handle) = groups.get(group) {
            return Ok(handle.clone());
        }
        if self.has_share_group(group) {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        if !self.has_room(&groups, group) {
            return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        let id = group.detached();
        let new = self.make_way_for_classic(&id)?;
        let handle = Arc::new(Mutex::new(self.cell(new)));
        groups.insert(id, handle.clone());
        Ok(handle)
    }

    /// Whether there may be one more group, or another in place of one of this id. Asked under the lock of the groups, without
    /// which none is made; before one makes way, so that a refusal changes nothing.
    fn has_room(&self, groups: &HashMap<Str, Handle>, group: &Str) -> bool {
        let consumers = self.consumers.read();
        let makes_way = groups.contains_key(group) || consumers.contains_key(group);
        groups.len() + consumers.len() + self.shares.read().len() < self.groups_max + usize::from(makes_way)
    }

    fn cell(&self, group: ClientGroup) -> Cell {
        Cell { group, wake_at_ms: None, held: self.memory().holder(Share::Groups) }
    }

    fn memory(&self) -> &Arc<Memory> {
        self.broker.log().memory()
    }

    /// Handles a join; its waiter is answered now or later.
    pub(crate) fn join(&self, group: &Str, join: Join<Waiter<Joined>>) {
        let now = self.now();
        if group.is_empty() {
            return refuse_join(join, ErrorCode::INVALID_GROUP_ID);
        }
        if self.memory().is_over(Share::Groups) {
            // Clients try again.
            return refuse_join(join, ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        let handle = match join.member_id.is_empty() {
            true => self.find_or_create(group),
            false => self.find(group).ok_or(ErrorCode::UNKNOWN_MEMBER_ID),
        };
        match handle {
            Ok(handle) => {
                self.transition(&handle, handle.lock(), |group, limits, effects| {
                    group.join(join, limits, now, effects);
                });
            }
            Err(code) => refuse_join(join, code),
        }
    }

    /// Handles a sync; its waiter is answered now or later.
    pub(crate) fn sync(&self, group: &Str, sync: Sync<Waiter<Synced>>) {
        let now = self.now();
        match self.find(group) {
            Some(handle) => {
                self.transition(&handle, handle.lock(), |group, limits, effects| {
                    group.sync(sync, limits, now, effects);
                });
            }
            None => refuse_sync(sync, unknown_member(group)),
        }
    }

    /// Handles a heartbeat.
    pub(crate) fn heartbeat(
        &self,
        group: &Str,
        member_id: &Str,
        instance_id: Option<&Str>,
        generation: i32,
    ) -> ErrorCode {
        let now = self.now();
        match self.find(group) {
            // A heartbeat has no effects: the timeout set may be too early, and is then set again.
            Some(handle) => handle.lock().group.heartbeat(member_id, instance_id, generation, now),
            None => unknown_member(group),
        }
    }

    /// Handles a leave.
    pub(crate) fn leave(&self, group: &Str, leave: &Leave) -> ErrorCode {
        let now = self.now();
        match self.find(group) {
            Some(handle) => self.transition(&handle, handle.lock(), |group, limits, effects| {
                group.leave(leave, limits, now, effects)
            }),
            None => unknown_member(group),
        }
    }

    /// Handles the loss of a connection on which a member waited. Its claims must be dropped before.
    pub(crate) fn disconnected(&self, group: &Str, member_id: &Str) {
        let now = self.now();
        if let Some(handle) = self.find(group) {
            self.transition(&handle, handle.lock(), |group, limits, effects| {
                let (join, sync) = (Waiter::is_abandoned, Waiter::is_abandoned);
                group.disconnected(member_id, join, sync, limits, now, effects);
            });
        }
    }

    /// Runs `commit` if the member may commit offsets. No rebalance happens in between.
    pub(crate) fn commit(
        &self,
        group: &Str,
        member_id: &Str,
        instance_id: Option<&Str>,
        generation: i32,
        commit: impl FnOnce() -> Result<Completion, SubmitError>,
    ) -> Result<Completion, ErrorCode> {
        let commit = || commit().map_err(|_| ErrorCode::COORDINATOR_NOT_AVAILABLE);
        let now = self.now();
        self.commit_checked(group, member_id, generation, commit, |group| {
            group.check_commit(member_id, instance_id, generation, now)
        })
    }

    /// Runs `commit`, which keeps offsets in a transaction, if the member may commit offsets in one.
    pub(crate) fn commit_in_transaction(
        &self,
        group: &Str,
        member_id: &Str,
        instance_id: Option<&Str>,
        generation: i32,
        commit: impl FnOnce() -> Result<Completion, ErrorCode>,
    ) -> Result<Completion, ErrorCode> {
        let now = self.now();
        self.commit_checked(group, member_id, generation, commit, |group| {
            group.check_commit_in_transaction(member_id, instance_id, generation, now)
        })
    }

    fn commit_checked(
        &self,
        group: &Str,
        member_id: &Str,
        generation: i32,
        commit: impl FnOnce() -> Result<Completion, ErrorCode>,
        check: impl FnOnce(&mut ClientGroup) -> Result<(), ErrorCode>,
    ) -> Result<Completion, ErrorCode> {
        match self.find(group) {
            Some(handle) => {
                let mut cell = handle.lock();
                check(&mut cell.group)?;
                commit()
            }
            None => match self.find_consumers(group) {
                Some(handle) => {
                    let cell = handle.lock();
                    cell.group.check_commit(member_id, generation)?;
                    commit()
                }
                None if self.has_share_group(group) => Err(ErrorCode::GROUP_ID_NOT_FOUND),
                None if generation >= 0 => Err(ErrorCode::ILLEGAL_GENERATION),
                None => commit(),
            },
        }
    }

    /// Calls `read` with a group, under its lock.
    pub(crate) fn with_group<R>(&self, group: &Str, read: impl FnOnce(&ClientGroup) -> R) -> Option<R> {
        let handle = self.find(group)?;
        let cell = handle.lock();
        Some(read(&cell.group))
    }

    /// All groups, by id: those that have or had members, and those with committed offsets only.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let handles: Vec<Handle> = self.groups.read().values().cloned().collect();
        let listed = |handle: &Handle| {
            let cell = handle.lock();
            Listed {
                id: cell.group.id().clone(),
                state: cell.group.state().name(),
                protocol_type: cell.group.protocol_type().cloned().unwrap_or_default(),
                kind: GroupKind::Classic,
            }
        };
        let mut all: Vec<Listed> = handles.iter().map(listed).collect();
        let consumers: Vec<ConsumerHandle> = self.consumers.read().values().cloned().collect();
        all.extend(consumers.iter().map(|handle| {
            let cell = handle.lock();
            let (id, state) = (cell.group.id().clone(), cell.group.state().name());
            Listed { id, state, protocol_type: Str::from_static(CONSUMER), kind: GroupKind::Consumer }
        }));
        let shares: Vec<ShareHandle> = self.shares.read().values().cloned().collect();
        all.extend(shares.iter().map(|handle| {
            let cell = handle.lock();
            let (id, state) = (cell.group.id().clone(), cell.group.state().name());
            let kind = GroupKind::Share;
            Listed { id, state, protocol_type: Str::from_static(kind.name()), kind }
        }));
        let known: HashSet<Str> = all.iter().map(|group| group.id.clone()).collect();
        for group in self.namespace.committed_offsets().groups() {
            if !known.contains(group.as_str()) {
                let id = Str::from(group);
                let (state, protocol_type) = (State::Empty.name(), Str::default());
                all.push(Listed { id, state, protocol_type, kind: GroupKind::Classic });
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Deletes a group without members, and its committed offsets.
    pub(crate) fn delete(&self, group: &Str) -> Result<Completion, ErrorCode> {
        if let Some(deleted) = self.delete_shares(group)? {
            return Ok(deleted);
        }
        self.check_no_members(group, ErrorCode::NON_EMPTY_GROUP)?;
        let mut groups = self.groups.write();
        let deleted = match groups.get(group).cloned() {
            Some(handle) => {
                let mut cell = handle.lock();
                if !cell.group.is_vacant() {
                    return Err(ErrorCode::NON_EMPTY_GROUP);
                }
                let deleted = self.rows.delete(group.as_bytes()).map_err(|error| unstored(group, &error))?;
                self.end_vacant(&mut cell);
                groups.remove(group);
                Some(deleted.into())
            }
            None => self.delete_consumers(group)?,
        };
        if deleted.is_none() && !self.has_committed_offsets(group) {
            return Err(ErrorCode::GROUP_ID_NOT_FOUND);
        }
        let offsets = self.namespace.committed_offsets().delete(self.broker.log(), group, |_, _| true);
        Ok(offsets.map_err(|error| unstored(group, &error))?.and(deleted.unwrap_or_default()))
    }

    /// Ends a group without members, to which handles may still exist.
    fn end_vacant(&self, cell: &mut Cell) {
        cell.group.delete();
        self.cancel_timeout(cell);
    }
}

/// Answers a join with an error.
pub(crate) fn refuse_join(join: Join<Waiter<Joined>>, error: ErrorCode) {
    let mut effects = Effects::default();
    effects.joined.push((join.waiter, Joined::failed(join.member_id, error)));
    deliver(effects);
}

/// Answers a sync with an error.
pub(crate) fn refuse_sync(sync: Sync<Waiter<Synced>>, error: ErrorCode) {
    let mut effects = Effects::default();
    effects.synced.push((sync.waiter, Synced::failed(error)));
    deliver(effects);
}

/// The error for a change of a group that the log does not take.
fn unstored(group: &Str, error: &SubmitError) -> ErrorCode {
    tracing::error!(%group, %error, "failed to store a group");
    ErrorCode::COORDINATOR_NOT_AVAILABLE
}

/// The error after which clients try again.
fn unavailable(text: &'static str) -> Refusal {
    Refusal::new(ErrorCode::COORDINATOR_NOT_AVAILABLE, text)
}

/// The error for a member of a group that does not exist.
fn unknown_member(group: &Str) -> ErrorCode {
    if group.is_empty() { ErrorCode::INVALID_GROUP_ID } else { ErrorCode::UNKNOWN_MEMBER_ID }
}
