//! A group: its members, the topics that they subscribe to, the target, and who owns what.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::assignor::{Assignor, Subscriber, assign};
use super::changes::Changes;
use super::member::{ConsumerMember, MemberState};
use super::partitions::{PartitionId, Partitions};
use super::reconcile::next_step;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;

/// The state of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsumerState {
    /// No members.
    Empty,
    /// Members are on their way to their targets.
    Reconciling,
    /// Every member has its target.
    Stable,
}

impl ConsumerState {
    /// Its name in Kafka.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ConsumerState::Empty => "Empty",
            ConsumerState::Reconciling => "Reconciling",
            ConsumerState::Stable => "Stable",
        }
    }
}

/// The topics of the broker.
pub(crate) trait Topics {
    /// Changes whenever a topic does.
    fn version(&self) -> u64;
    /// Id and number of partitions of the topic of this name.
    fn find(&self, name: &str) -> Option<(u128, i32)>;
}

/// A group.
#[derive(Debug)]
pub(crate) struct ConsumerGroup {
    pub(super) id: Str,
    /// Grows with each change that the target depends on.
    pub(super) epoch: i32,
    /// The assignor that made the target.
    pub(super) assignor: Assignor,
    /// By id.
    pub(super) members: BTreeMap<Str, ConsumerMember>,
    /// Instance id to member id.
    pub(super) instances: HashMap<Str, Str>,
    /// Who owns a partition: has it, or has to give it up.
    pub(super) owners: HashMap<PartitionId, Str>,
    /// The topics that members subscribe to and that exist: id and number of partitions.
    pub(super) topics: BTreeMap<Str, (u128, i32)>,
    /// The version of the topics that `topics` are of; none: they are to be found again.
    pub(super) topics_of: Option<u64>,
    pub(super) session_timeout: Duration,
    /// Not later than the next timeout; may be earlier.
    pub(super) wake_at: Option<Instant>,
    /// When the last member left, in milliseconds since 1970; none while there are members, and before the first.
    pub(super) emptied_ms: Option<i64>,
    /// It was deleted. Handles to it may still exist.
    pub(super) is_dead: bool,
}

impl ConsumerGroup {
    /// An empty group.
    pub(crate) fn new(id: Str, session_timeout: Duration) -> ConsumerGroup {
        ConsumerGroup {
            id,
            epoch: 0,
            assignor: Assignor::default(),
            members: BTreeMap::new(),
            instances: HashMap::new(),
            owners: HashMap::new(),
            topics: BTreeMap::new(),
            topics_of: None,
            session_timeout,
            wake_at: None,
            emptied_ms: None,
            is_dead: false,
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &Str {
        &self.id
    }

    /// Its epoch, which is that of its target as well.
    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The assignor that made the target.
    pub(crate) fn assignor(&self) -> Assignor {
        self.assignor
    }

    /// The members, by id.
    pub(crate) fn members(&self) -> impl Iterator<Item = &ConsumerMember> {
        self.members.values()
    }

    /// The topics that members subscribe to, by name.
    pub(crate) fn subscription(&self) -> BTreeSet<&Str> {
        self.members.values().flat_map(ConsumerMember::subscription).collect()
    }

    /// Its state.
    pub(crate) fn state(&self) -> ConsumerState {
        let is_settled = |member: &ConsumerMember| {
            member.state == MemberState::Stable && (member.epoch == self.epoch || member.epoch < 0)
        };
        match self.members.values().all(is_settled) {
            _ if self.members.is_empty() => ConsumerState::Empty,
            true => ConsumerState::Stable,
            false => ConsumerState::Reconciling,
        }
    }

    /// When the last member left, in milliseconds since 1970, if there was one and none has joined since.
    pub(crate) fn emptied_ms(&self) -> Option<i64> {
        self.emptied_ms
    }

    /// Notes the wall-clock time after an act.
    pub(crate) fn note_time(&mut self, now_ms: i64) {
        self.emptied_ms = match self.members.is_empty() {
            true if self.epoch > 0 => self.emptied_ms.or(Some(now_ms)),
            // Its members were of the other protocol, if it had any.
            true => self.emptied_ms,
            false => None,
        };
    }

    /// Notes when the last member left by another protocol.
    pub(crate) fn note_emptied(&mut self, emptied_ms: Option<i64>) {
        self.emptied_ms = emptied_ms;
    }

    /// Marks it as deleted if it has no members.
    pub(crate) fn delete(&mut self) {
        self.is_dead |= self.members.is_empty();
    }

    /// Whether it was deleted.
    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// What counts as memory.
    pub(crate) fn bytes(&self) -> usize {
        self.members.values().map(ConsumerMember::bytes).sum()
    }

    /// Whether a client may commit offsets: a member of this epoch, or anybody while there is no member.
    pub(crate) fn check_commit(&self, member_id: &str, epoch: i32) -> Result<(), ErrorCode> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(member_id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        if member.epoch == epoch { Ok(()) } else { Err(ErrorCode::STALE_MEMBER_EPOCH) }
    }

    /// When to call [`ConsumerGroup::on_timeout`] next; may be earlier than anything times out.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Removes members whose session has ended, or that did not give up partitions in time.
    pub(crate) fn on_timeout(&mut self, now: Instant) -> Changes {
        let mut changes = Changes::default();
        if self.wake_at.is_none_or(|at| at > now) {
            return changes;
        }
        let is_over = |member: &&ConsumerMember| {
            member.deadline <= now || member.revoke_until.is_some_and(|until| until <= now)
        };
        let over: Vec<Str> = self.members.values().filter(is_over).map(|member| member.id.clone()).collect();
        for id in &over {
            tracing::info!(group = %self.id, member = %id, "removed a member after its timeout");
            self.remove(id, &mut changes);
        }
        if !over.is_empty() {
            self.next_epoch(&mut changes);
        }
        let timeouts = |member: &ConsumerMember| [Some(member.deadline), member.revoke_until];
        self.wake_at = self.members.values().flat_map(timeouts).flatten().min();
        changes
    }

    /// Makes sure that [`ConsumerGroup::wake_at`] is not later than `at`.
    pub(super) fn schedule(&mut self, at: Instant) {
        if self.wake_at.is_none_or(|earlier| at < earlier) {
            self.wake_at = Some(at);
        }
    }

    /// Finds the topics of all members. Whether they are others than before.
    pub(super) fn find_topics(&mut self, topics: &dyn Topics) -> bool {
        // Read first: what is changed meanwhile is looked up again.
        let version = topics.version();
        let names = self.subscription();
        let found = names.into_iter().filter_map(|name| Some((name.clone(), topics.find(name)?)));
        let found: BTreeMap<Str, (u128, i32)> = found.collect();
        self.topics_of = Some(version);
        let differs = found != self.topics;
        self.topics = found;
        differs
    }

    /// Begins an epoch, with a target for each member.
    pub(super) fn next_epoch(&mut self, changes: &mut Changes) {
        self.epoch = self.epoch.saturating_add(1);
        self.assignor = self.preferred_assignor();
        changes.group = true;
        let counts: BTreeMap<u128, i32> = self.topics.values().copied().collect();
        let subscriber = |member: &ConsumerMember| Subscriber {
            topics: member
                .subscription()
                .filter_map(|name| self.topics.get(name))
                .map(|(id, _)| *id)
                .collect(),
            has: member.target.clone(),
        };
        let subscribers: Vec<Subscriber> = self.members.values().map(subscriber).collect();
        let given = assign(self.assignor, &counts, &subscribers);
        for (member, target) in self.members.values_mut().zip(given) {
            member.target = target;
        }
    }

    /// The assignor that most members prefer.
    fn preferred_assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for assignor in self.members.values().filter_map(|member| member.assignor) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes.iter().max_by_key(|(assignor, count)| (**count, std::cmp::Reverse(**assignor)));
        most.map(|(assignor, _)| *assignor).unwrap_or_default()
    }

    /// Takes a member one step on to its target. Whether what it has is another than before.
    pub(super) fn reconcile(
        &mut self,
        id: &str,
        owned: Option<&Partitions>,
        now: Instant,
        changes: &mut Changes,
    ) -> bool {
        let Some(member) = self.members.get(id) else { return false };
        let is_free = |partition: &PartitionId| self.owners.get(partition).is_none_or(|owner| **owner == *id);
        let Some(step) = next_step(member, self.epoch, owned, is_free) else { return false };
        let Some(member) = self.members.get_mut(id) else { return false };
        let before = (member.epoch, member.state);
        let differs = step.assigned != member.assigned;
        let is_revoking = step.revoking != member.revoking;
        disown(&mut self.owners, &member.id, member.assigned.union(&member.revoking));
        for partition in step.assigned.union(&step.revoking) {
            self.owners.insert(*partition, member.id.clone());
        }
        member.set_epoch(step.epoch);
        (member.state, member.assigned, member.revoking) = (step.state, step.assigned, step.revoking);
        if member.state != MemberState::Revoking {
            member.revoke_until = None;
        } else if is_revoking {
            member.revoke_until = Some(now + member.rebalance_timeout);
        }
        let (until, is_changed) =
            (member.revoke_until, differs || is_revoking || before != (member.epoch, member.state));
        let member_id = member.id.clone();
        if is_changed {
            changes.member(&member_id);
        }
        if let Some(until) = until {
            self.schedule(until);
        }
        differs
    }

    /// Removes a member. The caller begins an epoch.
    pub(super) fn remove(&mut self, id: &str, changes: &mut Changes) -> Option<ConsumerMember> {
        let member = self.members.remove(id)?;
        self.forget(&member);
        self.topics_of = None;
        changes.members.retain(|changed| *changed != member.id);
        changes.removed.push(member.id.clone());
        Some(member)
    }

    /// Forgets what a member owned, and its instance id.
    fn forget(&mut self, member: &ConsumerMember) {
        disown(&mut self.owners, &member.id, member.assigned.union(&member.revoking));
        member.instance_id.iter().for_each(|instance_id| self.forget_instance(instance_id, &member.id));
    }

    /// Frees an instance id, if it is this member's.
    pub(super) fn forget_instance(&mut self, instance_id: &Str, member_id: &Str) {
        if self.instances.get(instance_id) == Some(member_id) {
            self.instances.remove(instance_id);
        }
    }

    /// Adds a member, with what it owns, in place of one of the same id.
    pub(super) fn insert(&mut self, member: ConsumerMember) {
        if let Some(old) = self.members.remove(&member.id) {
            self.forget(&old);
        }
        if let Some(instance_id) = &member.instance_id {
            self.instances.insert(instance_id.clone(), member.id.clone());
        }
        for partition in member.assigned.union(&member.revoking) {
            self.owners.insert(*partition, member.id.clone());
        }
        self.schedule(member.deadline);
        if let Some(until) = member.revoke_until {
            self.schedule(until);
        }
        self.members.insert(member.id.clone(), member);
    }
}

/// Removes a member from the owners of partitions, as far as they are its own.
pub(super) fn disown<'a>(
    owners: &mut HashMap<PartitionId, Str>,
    member_id: &Str,
    partitions: impl IntoIterator<Item = &'a PartitionId>,
) {
    for partition in partitions {
        if owners.get(partition) == Some(member_id) {
            owners.remove(partition);
        }
    }
}
