//! Share groups ([`super::share`]): their place among the others, their rows, timeouts and settings, and the subscriptions by
//! which they share topics.
//!
//! A group of this kind is named by clients, and stays until it is deleted, or has neither members nor a subscription. It shares
//! a topic by the broker's subscription of its name, which consumers of other protocols join as well.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use inver_broker::{
    Completion, Mode, NamedSubscription, Start, Subscription, SubscriptionError, Topic, TopicKind,
};
use inver_storage::{Share, SubmitError, TimeLookup};
use parking_lot::{Mutex, MutexGuard};

use super::consumer::{JOIN, LEAVE, Refusal};
use super::group_settings::{self, GroupValues, ShareSettings, ShareStart};
use super::share::{RecordLocks, ShareAnswer, ShareBeat, ShareGroup, ShareState};
use super::{Coordinator, ShareCell, ShareHandle, unavailable, unstored};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;

/// The row of a group: its version. Members are not stored.
const ROW: &[u8] = &[1];

/// Text of the error for a group that the log does not take.
const NOT_STORED: &str = "The group cannot be stored.";

/// What a subscription has to be told of its group's settings.
fn returns_max(settings: &ShareSettings) -> Option<u32> {
    Some(settings.deliveries_max.saturating_sub(1))
}

impl Coordinator {
    /// Handles a heartbeat of a member, after which its topics are shared by the group. Beside the answer, the settings of
    /// the group.
    pub(crate) fn share_heartbeat(
        &self,
        group: &Str,
        beat: ShareBeat,
    ) -> Result<(ShareAnswer, ShareSettings, Completion), Refusal> {
        let now = self.now();
        if beat.epoch == JOIN && self.memory().is_over(Share::Groups) {
            // Clients try again.
            return Err(unavailable("The memory of groups is used up."));
        }
        let (handle, made) = match beat.epoch {
            JOIN => self.find_or_create_shares(group)?,
            _ => (
                self.find_shares(group).ok_or_else(|| unknown_group(group, &beat.member_id))?,
                Completion::Now,
            ),
        };
        let settings = self.share_settings(group);
        let is_leaving = beat.epoch == LEAVE;
        if !is_leaving {
            // Before anything is made for it.
            let cell = handle.lock();
            if cell.group.is_dead() {
                return Err(unavailable("The group is being deleted."));
            }
            cell.group.admits(&beat, &self.limits)?;
        }
        let mut completion = made;
        for name in beat.names.iter().flatten().filter(|_| !is_leaving) {
            completion = completion.and(self.share_topic(group, name, &settings)?);
        }
        let mut cell = handle.lock();
        if cell.group.is_dead() {
            return Err(unavailable("The group is being deleted."));
        }
        let (of_group, namespace, limits) = (&mut cell.group, &self.namespace, &self.limits);
        let answer = of_group.heartbeat(beat, namespace, limits, settings.session_timeout, now);
        let names: Vec<Str> = of_group.topics().cloned().collect();
        self.shares_changed(cell);
        let answer = answer?;
        // Topics that appeared meanwhile, and subscriptions that were deleted.
        for name in names.iter().filter(|_| !is_leaving) {
            match self.share_topic(group, name, &settings) {
                Ok(made) => completion = completion.and(made),
                Err(Refusal { text, .. }) => {
                    tracing::warn!(%group, topic = %name, %text, "failed to share a topic");
                }
            }
        }
        Ok((answer, settings, completion))
    }

    /// Whether a heartbeat of a member that goes on may take longer than a turn, or has to wait for one that does.
    pub(crate) fn is_share_heartbeat_long(&self, group: &Str) -> bool {
        let Some(handle) = self.find_shares(group) else { return false };
        let version = self.namespace.topics_version();
        handle.try_lock().is_none_or(|cell| {
            let lacks = |name: &Str| self.shared(group, name).is_some_and(|(_, present)| present.is_none());
            cell.group.is_behind(version) || cell.group.topics().any(lacks)
        })
    }

    /// A topic that can be shared, and its subscription of the group's name, if there is one.
    fn shared(&self, group: &Str, topic: &str) -> Option<(Arc<Topic>, Option<Arc<Subscription>>)> {
        let topic = self.namespace.topic(topic).filter(|topic| topic.kind() == TopicKind::Log)?;
        let present = self.namespace.subscription(&topic, group);
        Some((topic, present))
    }

    /// Makes sure that a group shares a topic, if that exists.
    fn share_topic(&self, group: &Str, topic: &str, settings: &ShareSettings) -> Result<Completion, Refusal> {
        let Some((topic, present)) = self.shared(group, topic) else { return Ok(Completion::Now) };
        let subscription = match present.filter(|present| present.mode() == Mode::Shared) {
            Some(present) => Ok(present),
            None => self.begin_share(&topic, group, settings, &[]),
        };
        let subscription = subscription.map_err(|error| cannot_share(&topic, &error))?;
        subscription.limit_deliveries(returns_max(settings));
        Ok(subscription.made())
    }

    /// Subscribes a group to a topic: on these partitions at these places, on others where its settings say.
    fn begin_share(
        &self,
        topic: &Arc<Topic>,
        group: &Str,
        settings: &ShareSettings,
        places: &[(u32, Start)],
    ) -> Result<Arc<Subscription>, SubscriptionError> {
        let (others, by_time) = match settings.start {
            ShareStart::Earliest => (Start::Earliest, Vec::new()),
            ShareStart::Latest => (Start::Latest, Vec::new()),
            ShareStart::Ago(age) => {
                let ago_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                let from_ms = self.broker.clock().steady_ms().saturating_sub(ago_ms);
                (Start::Latest, starts(topic, from_ms))
            }
        };
        let place =
            |index: u32, of: &[(u32, Start)]| of.iter().find(|(at, _)| *at == index).map(|(_, start)| *start);
        let start = |index: u32| place(index, places).or_else(|| place(index, &by_time)).unwrap_or(others);
        self.namespace.subscribe_at(topic, group, Mode::Shared, true, &start)
    }

    /// The subscription by which a group shares a topic, if it does.
    pub(crate) fn share_of(&self, group: &Str, topic: &Arc<Topic>) -> Option<Arc<Subscription>> {
        let present = self.namespace.subscription(topic, group)?;
        (present.is_durable() && present.mode() == Mode::Shared).then_some(present)
    }

    /// Sets where a group without members goes on, on partitions of a topic. It begins to share the topic if it does not yet.
    pub(crate) fn set_starts(
        &self,
        group: &Str,
        topic: &Arc<Topic>,
        starts: &[(u32, Start)],
    ) -> Result<Completion, SubscriptionError> {
        if starts.is_empty() {
            return Ok(Completion::Now);
        }
        let settings = self.share_settings(group);
        let present = self.begin_share(topic, group, &settings, starts)?;
        let reset = self.namespace.reset_subscription(topic, group, starts)?;
        if let Some(again) = self.namespace.subscription(topic, group) {
            again.limit_deliveries(returns_max(&settings));
        }
        Ok(present.made().and(reset))
    }

    /// How many records of a topic the members of a group hold.
    pub(crate) fn record_locks(&self, group: &Str, topic: u128) -> Arc<RecordLocks> {
        self.record_locks.of(group, topic)
    }

    /// All subscriptions of a group's name, by topic.
    pub(crate) fn shares_of(&self, group: &str) -> Vec<NamedSubscription> {
        let of_group = self
            .namespace
            .subscriptions()
            .into_iter()
            .filter(|(_, it)| it.name() == group && it.is_durable());
        let with_topic = of_group.filter_map(|(topic, subscription)| {
            let topic = self.namespace.topic_by_id(topic)?;
            Some(NamedSubscription { topic, subscription })
        });
        let mut all: Vec<NamedSubscription> = with_topic.collect();
        all.sort_by(|a, b| a.topic.name().cmp(b.topic.name()));
        all
    }

    /// Calls `read` with a group, under its lock.
    pub(crate) fn with_share_group<R>(&self, group: &Str, read: impl FnOnce(&ShareGroup) -> R) -> Option<R> {
        let handle = self.find_shares(group)?;
        let cell = handle.lock();
        Some(read(&cell.group))
    }

    /// Whether a group is a share group.
    pub(crate) fn has_share_group(&self, group: &str) -> bool {
        self.shares.read().contains_key(group)
    }

    /// Runs `act`, which changes what a group without members has. The group gets none meanwhile.
    pub(crate) fn while_empty<R>(&self, group: &Str, act: impl FnOnce() -> R) -> Result<R, Refusal> {
        let handle = self.find_shares(group).ok_or_else(|| not_found(group))?;
        let cell = handle.lock();
        if cell.group.is_dead() {
            return Err(not_found(group));
        }
        if cell.group.state() != ShareState::Empty {
            return Err(Refusal::new(ErrorCode::NON_EMPTY_GROUP, "The group is not empty."));
        }
        let done = act();
        drop(cell);
        Ok(done)
    }

    pub(super) fn find_shares(&self, group: &Str) -> Option<ShareHandle> {
        self.shares.read().get(group).cloned()
    }

    fn find_or_create_shares(&self, group: &Str) -> Result<(ShareHandle, Completion), Refusal> {
        if let Some(handle) = self.find_shares(group) {
            return Ok((handle, Completion::Now));
        }
        if self.groups_count() >= self.groups_max {
            self.make_room();
        }
        // Held until it is there, so that no member joins by another protocol meanwhile.
        let classic = self.groups.write();
        if let Some(known) = self.find_shares(group) {
            return Ok((known, Completion::Now));
        }
        if classic.contains_key(group) || self.has_consumer_group(group) || self.has_committed_offsets(group)
        {
            return Err(not_found(group));
        }
        if !self.has_room(&classic, group) {
            return Err(unavailable("There are too many groups."));
        }
        let id = group.detached();
        let stored = self.share_rows.put(id.as_bytes(), Bytes::from_static(ROW));
        let stored = stored.map_err(|_| unavailable(NOT_STORED))?;
        let handle = self.share_handle(ShareGroup::new(id.clone()));
        self.shares.write().insert(id, handle.clone());
        Ok((handle, Completion::At(stored)))
    }

    fn share_handle(&self, group: ShareGroup) -> ShareHandle {
        let held = self.memory().holder(Share::Groups);
        Arc::new(Mutex::new(ShareCell { group, wake_at_ms: None, held }))
    }

    /// Deletes a group without members, with its subscriptions and settings. None if there is no such group.
    pub(super) fn delete_shares(&self, group: &Str) -> Result<Option<Completion>, ErrorCode> {
        let Some(handle) = self.find_shares(group) else { return Ok(None) };
        let Some(mut cell) = handle.try_lock() else { return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE) };
        let shares = self.shares_of(group);
        let is_used = cell.group.state() != ShareState::Empty
            || shares.iter().any(|share| !share.subscription.members().is_empty());
        if is_used {
            return Err(ErrorCode::NON_EMPTY_GROUP);
        }
        let mut completion = Completion::Now;
        for share in shares {
            match self.namespace.delete_subscription(&share.topic, group, false) {
                Ok(deleted) => completion = completion.and(deleted),
                Err(SubscriptionError::Log(error)) => return Err(unstored(group, &error)),
                // It is gone meanwhile.
                Err(_) => {}
            }
        }
        if !self.values_of(group).is_empty() {
            let deleted =
                self.set_values(group, GroupValues::new()).map_err(|error| unstored(group, &error))?;
            completion = completion.and(deleted);
        }
        // Last: what fails before leaves the group as it is.
        let deleted = self.share_rows.delete(group.as_bytes()).map_err(|error| unstored(group, &error))?;
        completion = completion.and(deleted.into());
        cell.group.delete();
        if let Some(at_ms) = cell.wake_at_ms.take() {
            self.timeouts.cancel(at_ms, cell.group.id().clone());
        }
        drop(cell);
        self.shares.write().remove(group);
        Ok(Some(completion))
    }

    /// The groups that have neither a subscription nor settings.
    pub(super) fn unused_shares(&self) -> Vec<Str> {
        let used: HashSet<String> =
            self.namespace.subscriptions().into_iter().map(|(_, it)| it.name().to_owned()).collect();
        let ids: Vec<Str> = self.shares.read().keys().cloned().collect();
        let is_unused = |id: &Str| !used.contains(id.as_str()) && self.values_of(id).is_empty();
        ids.into_iter().filter(is_unused).collect()
    }

    /// Deletes one of them, unless it has members.
    pub(super) fn delete_unused_share(&self, id: &Str) {
        if self.with_share_group(id, ShareGroup::state) == Some(ShareState::Empty) {
            // A failure is told where it happens; a member may have joined meanwhile.
            let _deleted = self.delete_shares(id);
        }
    }

    /// Handles a timeout of a group.
    pub(super) fn shares_timed_out(&self, id: &Str, at_ms: i64) {
        let Some(handle) = self.find_shares(id) else { return };
        let mut cell = handle.lock();
        if cell.wake_at_ms != Some(at_ms) {
            return;
        }
        cell.wake_at_ms = None;
        cell.group.on_timeout(self.now());
        self.shares_changed(cell);
    }

    /// Counts the memory of a group, and sets its next timeout.
    fn shares_changed(&self, mut cell: MutexGuard<'_, ShareCell>) {
        let cell = &mut *cell;
        cell.held.force(cell.group.bytes());
        if let Some(at_ms) = self.timeout_ms(cell.group.wake_at(), cell.wake_at_ms) {
            let before_ms = cell.wake_at_ms.replace(at_ms);
            self.timeouts.reschedule(before_ms, at_ms, cell.group.id().clone());
        }
    }

    /// Restores the groups stored in the log, and the settings of groups.
    pub(super) fn recover_shares(&self) {
        let mut values = self.values.write();
        for (key, row) in self.setting_rows.all() {
            let Some(id) = Str::from_utf8(key) else { continue };
            match group_settings::of_row(row) {
                Ok(settings) => drop(values.insert(id, settings)),
                Err(error) => {
                    tracing::error!(group = %id, %error, "failed to decode the settings of a group");
                }
            }
        }
        drop(values);
        let mut subscriptions: HashMap<String, Vec<Arc<Subscription>>> = HashMap::new();
        for (_, subscription) in self.namespace.subscriptions().into_iter().filter(|(_, it)| it.is_durable())
        {
            subscriptions.entry(subscription.name().to_owned()).or_default().push(subscription);
        }
        let mut shares = self.shares.write();
        for (key, row) in self.share_rows.all() {
            let Some(id) = Str::from_utf8(key) else { continue };
            if row != ROW {
                tracing::error!(group = %id, "failed to decode a row of a share group");
                continue;
            }
            let settings = self.share_settings(&id);
            for subscription in subscriptions.get(id.as_str()).into_iter().flatten() {
                subscription.limit_deliveries(returns_max(&settings));
            }
            shares.insert(id.clone(), self.share_handle(ShareGroup::new(id)));
        }
    }

    /// Forgets all groups of a deleted namespace, and deletes their rows.
    pub(super) fn forget_shares(&self) -> Result<(), SubmitError> {
        self.shares.write().clear();
        self.values.write().clear();
        for (key, _) in self.share_rows.all() {
            self.share_rows.delete(&key)?;
        }
        for (key, _) in self.setting_rows.all() {
            self.setting_rows.delete(&key)?;
        }
        Ok(())
    }

    // ---- settings

    /// What the settings of a group mean.
    pub(crate) fn share_settings(&self, group: &str) -> ShareSettings {
        let values = self.values.read();
        let of_group = values.get(group).and_then(|values| ShareSettings::of(&self.limits, values).ok());
        of_group.unwrap_or_else(|| ShareSettings::new(&self.limits))
    }

    /// The settings that are set on a group.
    pub(crate) fn values_of(&self, group: &str) -> GroupValues {
        self.values.read().get(group).cloned().unwrap_or_default()
    }

    /// The groups that have settings.
    pub(crate) fn groups_with_values(&self) -> Vec<Str> {
        self.values.read().keys().cloned().collect()
    }

    /// Whether there is room for the settings of one more group.
    pub(crate) fn has_room_for_values(&self, group: &str) -> bool {
        let values = self.values.read();
        values.contains_key(group) || values.len() < self.groups_max
    }

    /// Replaces the settings of a group, which were checked.
    pub(crate) fn set_values(&self, group: &Str, new: GroupValues) -> Result<Completion, SubmitError> {
        let mut values = self.values.write();
        let stored = match new.is_empty() {
            true if !values.contains_key(group) => return Ok(Completion::Now),
            true => self.setting_rows.delete(group.as_bytes())?,
            false => self.setting_rows.put(group.as_bytes(), group_settings::row(&new))?,
        };
        match new.is_empty() {
            true => drop(values.remove(group)),
            false => drop(values.insert(group.detached(), new)),
        }
        drop(values);
        if self.has_share_group(group) {
            let settings = self.share_settings(group);
            for share in self.shares_of(group) {
                share.subscription.limit_deliveries(returns_max(&settings));
            }
        }
        Ok(Completion::At(stored))
    }
}

/// The first record of each partition that is not older. Reads from disk.
fn starts(topic: &Topic, from_ms: i64) -> Vec<(u32, Start)> {
    let start = |partition: &Arc<inver_broker::Partition>| {
        let stream = partition.stream();
        let found = match stream.offset_for_time(from_ms) {
            Ok(TimeLookup::Ready(found)) => Ok(found),
            Ok(TimeLookup::Cold(cold)) => cold.run(),
            Err(error) => Err(error),
        };
        match found {
            Ok(Some((at, _))) => (partition.index(), Start::At(at)),
            Ok(None) => (partition.index(), Start::Latest),
            Err(error) => {
                tracing::error!(topic = topic.name(), %error, "failed to find the start of a share group");
                (partition.index(), Start::Earliest)
            }
        }
    };
    topic.partitions().iter().map(start).collect()
}

/// The error for a topic that cannot be shared.
fn cannot_share(topic: &Topic, error: &SubscriptionError) -> Refusal {
    let code = match error {
        SubscriptionError::Log(_) => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        _ => ErrorCode::INVALID_REQUEST,
    };
    Refusal::new(code, format!("Topic {} cannot be shared: {error}.", topic.name()))
}

/// The error for a group of another protocol, or none.
pub(crate) fn not_found(group: &Str) -> Refusal {
    Refusal::new(ErrorCode::GROUP_ID_NOT_FOUND, format!("Group {group} is not a share group."))
}

/// The error for a member of a group that is not there: it joins again.
fn unknown_group(group: &Str, member_id: &Str) -> Refusal {
    let text = format!("Member {member_id} is not a member of group {group}.");
    Refusal::new(ErrorCode::UNKNOWN_MEMBER_ID, text)
}
