//! Heartbeats: joining, going on and leaving.

use std::time::Duration;

use tokio::time::Instant;

use super::assignor::Assignor;
use super::changes::{Answer, Changes, Refusal};
use super::group::{ConsumerGroup, Topics, disown};
use super::member::{ConsumerMember, MemberState};
use super::partitions::Partitions;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::config::GroupLimits;

/// The epoch of a heartbeat that joins.
pub(crate) const JOIN: i32 = 0;
/// The epoch of a heartbeat that leaves.
pub(crate) const LEAVE: i32 = -1;
/// The epoch of a heartbeat by which a static member leaves and keeps its place.
pub(crate) const LEAVE_FOR_NOW: i32 = -2;

/// A heartbeat. What is none has not changed since the last one.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    pub(crate) member_id: Str,
    /// The member's epoch, or one of [`JOIN`], [`LEAVE`] and [`LEAVE_FOR_NOW`].
    pub(crate) epoch: i32,
    pub(crate) instance_id: Option<Str>,
    pub(crate) rack_id: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) rebalance_timeout: Option<Duration>,
    pub(crate) names: Option<Vec<Str>>,
    /// An empty pattern removes the one before.
    pub(crate) pattern: Option<Str>,
    pub(crate) assignor: Option<Assignor>,
    /// What the member owns.
    pub(crate) owned: Option<Partitions>,
}

impl Heartbeat {
    /// Whether it says everything: the client may have lost what it was told.
    fn is_full(&self) -> bool {
        self.epoch == JOIN
            || self.owned.is_some()
                && self.rebalance_timeout.is_some()
                && (self.names.is_some() || self.pattern.is_some())
    }
}

impl ConsumerGroup {
    /// Handles a heartbeat. `matching` finds the topics that match a pattern and that the client may see.
    pub(crate) fn heartbeat(
        &mut self,
        beat: Heartbeat,
        topics: &dyn Topics,
        matching: &dyn Fn(&str) -> Vec<Str>,
        limits: &GroupLimits,
        now: Instant,
        changes: &mut Changes,
    ) -> Result<Answer, Refusal> {
        if matches!(beat.epoch, LEAVE | LEAVE_FOR_NOW) {
            return self.leave(&beat, now, changes);
        }
        if beat.epoch != JOIN {
            self.check(&beat)?;
        }
        self.check_bytes(&beat, limits)?;
        let is_full = beat.is_full();
        let (id, owned) = (beat.member_id.clone(), beat.owned.clone());
        let mut is_new_epoch = beat.epoch == JOIN && self.join(&beat, limits, now, changes)?;
        is_new_epoch |= self.update(beat, topics, matching, now, changes);
        if self.topics_of != Some(topics.version()) {
            is_new_epoch |= self.find_topics(topics);
        }
        if is_new_epoch {
            self.next_epoch(changes);
        }
        let differs = self.reconcile(&id, owned.as_ref(), now, changes);
        let member = self.members.get(&id).ok_or_else(|| unknown(&id))?;
        Ok(Answer {
            member_id: id,
            epoch: member.epoch,
            assigned: (differs || is_full).then(|| member.assigned.clone()),
        })
    }

    /// Whether the next heartbeat of a member finds topics again, after which all members may get new targets.
    pub(crate) fn is_behind(&self, member_id: &str, version: u64) -> bool {
        let is_matched_again =
            |member: &ConsumerMember| member.pattern.is_some() && member.matched_at != Some(version);
        self.topics_of != Some(version) || self.members.get(member_id).is_some_and(is_matched_again)
    }

    /// Checks that there is room for what a member subscribes to, and for what it calls itself.
    fn check_bytes(&self, beat: &Heartbeat, limits: &GroupLimits) -> Result<(), Refusal> {
        // What the member has already, or the one whose place it takes, is counted.
        let of_instance = || self.members.get(self.instances.get(beat.instance_id.as_ref()?)?);
        let known = self.members.get(&beat.member_id).or_else(of_instance);
        let texts = [
            (Some(&beat.member_id), known.map(|member| &member.id)),
            (Some(&beat.client_id), known.map(|member| &member.client_id)),
            (beat.instance_id.as_ref(), known.and_then(|member| member.instance_id.as_ref())),
            (beat.rack_id.as_ref(), known.and_then(|member| member.rack_id.as_ref())),
            (beat.pattern.as_ref(), known.and_then(|member| member.pattern.as_ref())),
        ];
        let texts = texts.into_iter().filter(|(told, has)| told != has).filter_map(|(told, _)| told);
        let is_known = |name: &&Str| known.is_some_and(|member| member.names.binary_search(name).is_ok());
        let names = beat.names.iter().flatten().filter(|name| !is_known(name));
        let asked = texts.chain(names).map(|text| text.len()).sum::<usize>();
        if asked > 0 && self.bytes().saturating_add(asked) > limits.bytes_max {
            let text = "The members of the group take too much memory.";
            return Err(Refusal::new(ErrorCode::GROUP_MAX_SIZE_REACHED, text));
        }
        Ok(())
    }

    /// Admits a member, or lets it begin again. Whether the group gets another epoch.
    fn join(
        &mut self,
        beat: &Heartbeat,
        limits: &GroupLimits,
        now: Instant,
        changes: &mut Changes,
    ) -> Result<bool, Refusal> {
        let of_instance =
            beat.instance_id.as_ref().and_then(|instance| self.instances.get(instance)).cloned();
        if let Some(of_instance) = of_instance.filter(|known| *known != beat.member_id) {
            let left = self.members.get(&of_instance).is_some_and(|member| member.epoch == LEAVE_FOR_NOW);
            if !left {
                let text = "Another member of the group has this instance id.";
                return Err(Refusal::new(ErrorCode::UNRELEASED_INSTANCE_ID, text));
            }
            // It takes the place of the one that left, and gives up its own if it has one: others get what is in that.
            let is_merged = self.members.contains_key(&beat.member_id);
            if let Some(old) = self.remove(&of_instance, changes) {
                let member =
                    ConsumerMember { id: beat.member_id.clone(), epoch: 0, previous_epoch: 0, ..old };
                self.insert(member);
                changes.member(&beat.member_id);
            }
            return Ok(is_merged);
        }
        if self.join_again(beat) {
            changes.member(&beat.member_id);
            return Ok(false);
        }
        if self.members.len() >= limits.members_max {
            let text = "The group has reached its maximum number of members.";
            return Err(Refusal::new(ErrorCode::GROUP_MAX_SIZE_REACHED, text));
        }
        let deadline = now + self.session_timeout;
        self.insert(ConsumerMember {
            id: beat.member_id.clone(),
            instance_id: beat.instance_id.clone(),
            rack_id: None,
            client_id: Str::default(),
            client_host: Str::default(),
            rebalance_timeout: Duration::ZERO,
            names: Vec::new(),
            pattern: None,
            matched: Vec::new(),
            matched_at: None,
            assignor: None,
            epoch: 0,
            previous_epoch: 0,
            state: MemberState::Stable,
            assigned: Partitions::new(),
            revoking: Partitions::new(),
            target: Partitions::new(),
            deadline,
            revoke_until: None,
        });
        changes.member(&beat.member_id);
        Ok(true)
    }

    /// Lets a member begin again, if it is known: it owns nothing any more.
    fn join_again(&mut self, beat: &Heartbeat) -> bool {
        let Some(member) = self.members.get_mut(&beat.member_id) else { return false };
        let released = std::mem::take(&mut member.assigned);
        let revoked = std::mem::take(&mut member.revoking);
        disown(&mut self.owners, &member.id, released.union(&revoked));
        (member.epoch, member.previous_epoch, member.state) = (0, 0, MemberState::Stable);
        member.revoke_until = None;
        if beat.instance_id.is_some() && beat.instance_id != member.instance_id {
            let id = member.id.clone();
            let before = std::mem::replace(&mut member.instance_id, beat.instance_id.clone());
            before.iter().for_each(|instance_id| self.forget_instance(instance_id, &id));
            self.instances.extend(beat.instance_id.clone().map(|instance_id| (instance_id, id)));
        }
        true
    }

    /// Checks the epoch of a member that goes on, and that it is the member of its instance id.
    fn check(&self, beat: &Heartbeat) -> Result<(), Refusal> {
        let member = self.known(beat)?;
        let fenced = |text: &'static str| Err(Refusal::new(ErrorCode::FENCED_MEMBER_EPOCH, text));
        if beat.epoch > member.epoch {
            return fenced("The epoch of the member is greater than the group's. Rejoin with epoch 0.");
        }
        // The response with its present epoch may have been lost.
        let repeats = beat.epoch == member.previous_epoch
            && beat.owned.as_ref().is_some_and(|owned| owned.is_subset(&member.assigned));
        if beat.epoch < member.epoch && !repeats {
            return fenced("The epoch of the member is older than the group's. Rejoin with epoch 0.");
        }
        Ok(())
    }

    /// The member that a heartbeat is of.
    fn known(&self, beat: &Heartbeat) -> Result<&ConsumerMember, Refusal> {
        if let Some(instance) = &beat.instance_id {
            match self.instances.get(instance) {
                None => return Err(unknown(&beat.member_id)),
                Some(known) if *known != beat.member_id => {
                    let text = "Another member has this instance id.";
                    return Err(Refusal::new(ErrorCode::FENCED_INSTANCE_ID, text));
                }
                Some(_) => {}
            }
        }
        self.members.get(&beat.member_id).ok_or_else(|| unknown(&beat.member_id))
    }

    /// Takes over what a heartbeat says of its member. Whether the group gets another epoch.
    fn update(
        &mut self,
        beat: Heartbeat,
        topics: &dyn Topics,
        matching: &dyn Fn(&str) -> Vec<Str>,
        now: Instant,
        changes: &mut Changes,
    ) -> bool {
        let session_timeout = self.session_timeout;
        let Some(member) = self.members.get_mut(&beat.member_id) else { return false };
        member.deadline = now + session_timeout;
        let rack_id = beat.rack_id.as_ref().or(member.rack_id.as_ref());
        let rebalance_timeout = beat.rebalance_timeout.unwrap_or(member.rebalance_timeout);
        let is_described = member.rack_id.as_ref() != rack_id
            || member.client_id != beat.client_id
            || member.client_host != beat.client_host
            || member.rebalance_timeout != rebalance_timeout;
        if is_described {
            member.rack_id = rack_id.map(Str::detached);
            (member.client_id, member.client_host) = (beat.client_id.detached(), beat.client_host.detached());
            member.rebalance_timeout = rebalance_timeout;
        }
        let mut differs = false;
        if let Some(mut names) = beat.names {
            names.sort();
            names.dedup();
            if names != member.names {
                member.names = names.iter().map(Str::detached).collect();
                differs = true;
            }
        }
        if let Some(pattern) = beat.pattern.filter(|pattern| member.pattern.as_ref() != Some(pattern)) {
            let pattern = (!pattern.is_empty()).then(|| pattern.detached());
            differs |= member.pattern != pattern;
            (member.pattern, member.matched_at) = (pattern, None);
        }
        // Read before the topics: what is changed meanwhile is matched again.
        let version = topics.version();
        if member.matched_at != Some(version) {
            let mut matched = member.pattern.as_ref().map(|pattern| matching(pattern)).unwrap_or_default();
            matched.sort();
            differs |= matched != member.matched;
            (member.matched, member.matched_at) = (matched, Some(version));
        }
        if beat.assignor.is_some() && beat.assignor != member.assignor {
            member.assignor = beat.assignor;
            differs = true;
        }
        if differs || is_described {
            changes.member(&beat.member_id);
        }
        if differs {
            self.topics_of = None;
        }
        differs
    }

    /// Takes a member out of the group, or notes that a static one has left for now.
    fn leave(&mut self, beat: &Heartbeat, now: Instant, changes: &mut Changes) -> Result<Answer, Refusal> {
        let id = self.known(beat)?.id.clone();
        let answer = Answer { member_id: id.clone(), epoch: beat.epoch, assigned: None };
        if beat.epoch == LEAVE_FOR_NOW {
            let session_timeout = self.session_timeout;
            if let Some(member) = self.members.get_mut(&id) {
                disown(&mut self.owners, &id, &std::mem::take(&mut member.revoking));
                (member.epoch, member.state, member.revoke_until) =
                    (LEAVE_FOR_NOW, MemberState::Stable, None);
                member.deadline = now + session_timeout;
                changes.member(&id);
            }
            return Ok(answer);
        }
        self.remove(&id, changes);
        self.next_epoch(changes);
        Ok(answer)
    }
}

fn unknown(member_id: &Str) -> Refusal {
    Refusal::new(ErrorCode::UNKNOWN_MEMBER_ID, format!("Member {member_id} is not a member of the group."))
}
