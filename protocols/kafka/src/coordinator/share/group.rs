//! A group: its members, and the topics that they subscribe to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::config::GroupLimits;
use crate::coordinator::consumer::{JOIN, LEAVE, Refusal, Topics};

/// The state of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShareState {
    /// No members.
    Empty,
    /// Every member has what it subscribes to.
    Stable,
}

impl ShareState {
    /// Its name in Kafka.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ShareState::Empty => "Empty",
            ShareState::Stable => "Stable",
        }
    }
}

/// A heartbeat. What is none has not changed since the last one.
#[derive(Clone, Debug)]
pub(crate) struct ShareBeat {
    pub(crate) member_id: Str,
    /// The member's epoch, 0 to join, or −1 to leave.
    pub(crate) epoch: i32,
    pub(crate) rack_id: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) names: Option<Vec<Str>>,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShareAnswer {
    pub(crate) member_id: Str,
    pub(crate) epoch: i32,
    /// The topics that the member has from now on, by id, with their numbers of partitions; none if it knows.
    pub(crate) assigned: Option<Vec<(u128, i32)>>,
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct ShareMember {
    pub(crate) id: Str,
    pub(crate) rack_id: Option<Str>,
    /// Name that the client gives itself.
    pub(crate) client_id: Str,
    /// Address of the client.
    pub(crate) client_host: Str,
    /// Topics that it subscribes to, each once, in order.
    pub(crate) names: Vec<Str>,
    pub(crate) epoch: i32,
    /// Its epoch before: the response with the present one may have been lost.
    previous_epoch: i32,
    /// It was told what it has.
    is_told: bool,
    /// End of its session; every heartbeat moves it.
    deadline: Instant,
}

impl ShareMember {
    fn bytes(&self) -> usize {
        let texts = [&self.id, &self.client_id].into_iter().chain(&self.rack_id).chain(&self.names);
        texts.map(|text| text.len()).sum()
    }
}

/// A group.
#[derive(Debug)]
pub(crate) struct ShareGroup {
    id: Str,
    /// Grows with each change of the members, their subscriptions, or the topics.
    epoch: i32,
    /// By id.
    members: BTreeMap<Str, ShareMember>,
    /// Bytes of the members.
    bytes: usize,
    /// The topics that members subscribe to and that exist: id and number of partitions.
    topics: BTreeMap<Str, (u128, i32)>,
    /// The version of the topics that `topics` are of; none: they are to be found again.
    topics_of: Option<u64>,
    /// Not later than the next timeout; may be earlier.
    wake_at: Option<Instant>,
    /// It was deleted. Handles to it may still exist.
    is_dead: bool,
}

impl ShareGroup {
    /// A group without members.
    pub(crate) fn new(id: Str) -> ShareGroup {
        ShareGroup {
            id,
            epoch: 0,
            members: BTreeMap::new(),
            bytes: 0,
            topics: BTreeMap::new(),
            topics_of: None,
            wake_at: None,
            is_dead: false,
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &Str {
        &self.id
    }

    /// Its epoch.
    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Its state.
    pub(crate) fn state(&self) -> ShareState {
        if self.members.is_empty() { ShareState::Empty } else { ShareState::Stable }
    }

    /// The members, by id.
    pub(crate) fn members(&self) -> impl Iterator<Item = &ShareMember> {
        self.members.values()
    }

    /// The topics that a member subscribes to and that exist: id and number of partitions.
    pub(crate) fn topics_of(&self, member: &ShareMember) -> Vec<(u128, i32)> {
        member.names.iter().filter_map(|name| self.topics.get(name)).copied().collect()
    }

    /// The names of all topics that exist and that members subscribe to.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Str> {
        self.topics.keys()
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
        self.bytes
    }

    /// When to call [`ShareGroup::on_timeout`] next; may be earlier than anything times out.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Removes members whose session has ended.
    pub(crate) fn on_timeout(&mut self, now: Instant) {
        if self.wake_at.is_none_or(|at| at > now) {
            return;
        }
        let over = self.members.values().filter(|member| member.deadline <= now);
        let over: Vec<Str> = over.map(|member| member.id.clone()).collect();
        for id in &over {
            tracing::info!(group = %self.id, member = %id, "removed a member after its timeout");
            self.remove(id);
        }
        if !over.is_empty() {
            self.topics_of = None;
            self.next_epoch();
        }
        self.wake_at = self.members.values().map(|member| member.deadline).min();
    }

    /// Whether the next heartbeat of a member finds topics again.
    pub(crate) fn is_behind(&self, version: u64) -> bool {
        self.topics_of != Some(version)
    }

    /// Handles a heartbeat.
    pub(crate) fn heartbeat(
        &mut self,
        beat: ShareBeat,
        topics: &dyn Topics,
        limits: &GroupLimits,
        session_timeout: Duration,
        now: Instant,
    ) -> Result<ShareAnswer, Refusal> {
        if beat.epoch == LEAVE {
            let member_id = beat.member_id;
            self.remove(&member_id).ok_or_else(|| unknown(&member_id))?;
            self.topics_of = None;
            self.next_epoch();
            return Ok(ShareAnswer { member_id, epoch: LEAVE, assigned: None });
        }
        self.admits(&beat, limits)?;
        let id = beat.member_id.clone();
        let deadline = now + session_timeout;
        let is_new_epoch = self.update(beat, deadline);
        self.wake_at = Some(self.wake_at.map_or(deadline, |at| at.min(deadline)));
        let differs = self.topics_of != Some(topics.version()) && self.find_topics(topics);
        if is_new_epoch || differs {
            self.next_epoch();
        }
        let epoch = self.epoch;
        let member = self.members.get_mut(&id).ok_or_else(|| unknown(&id))?;
        if member.epoch != epoch {
            (member.previous_epoch, member.epoch) = (member.epoch, epoch);
        }
        let was_told = std::mem::replace(&mut member.is_told, true);
        let assigned = (!was_told).then(|| self.members.get(&id).map(|member| self.topics_of(member)));
        Ok(ShareAnswer { member_id: id, epoch, assigned: assigned.flatten() })
    }

    /// Checks a heartbeat that does not leave.
    pub(crate) fn admits(&self, beat: &ShareBeat, limits: &GroupLimits) -> Result<(), Refusal> {
        if beat.epoch != JOIN {
            self.check(beat)?;
        }
        self.check_room(beat, limits)
    }

    fn remove(&mut self, id: &Str) -> Option<ShareMember> {
        let member = self.members.remove(id)?;
        self.bytes -= member.bytes();
        Some(member)
    }

    /// Checks the epoch of a member that goes on.
    fn check(&self, beat: &ShareBeat) -> Result<(), Refusal> {
        let member = self.members.get(&beat.member_id).ok_or_else(|| unknown(&beat.member_id))?;
        let is_known = beat.epoch == member.epoch || beat.epoch == member.previous_epoch;
        if is_known {
            return Ok(());
        }
        let than = if beat.epoch > member.epoch { "greater" } else { "older" };
        let text = format!("The epoch of the member is {than} than the group's. Rejoin with epoch 0.");
        Err(Refusal::new(ErrorCode::FENCED_MEMBER_EPOCH, text))
    }

    /// Checks that there is room for a member, and for what it tells.
    fn check_room(&self, beat: &ShareBeat, limits: &GroupLimits) -> Result<(), Refusal> {
        let known = self.members.get(&beat.member_id);
        if known.is_none() && self.members.len() >= limits.members_max {
            let text = "The group has reached its maximum number of members.";
            return Err(Refusal::new(ErrorCode::GROUP_MAX_SIZE_REACHED, text));
        }
        if beat.names.is_none() && known.is_some() {
            return Ok(());
        }
        let texts = [&beat.member_id, &beat.client_id].into_iter().chain(&beat.rack_id);
        let told: usize = texts.chain(beat.names.iter().flatten()).map(|text| text.len()).sum();
        let others = self.bytes.saturating_sub(known.map_or(0, ShareMember::bytes));
        if others.saturating_add(told) > limits.bytes_max {
            let text = "The members of the group take too much memory.";
            return Err(Refusal::new(ErrorCode::GROUP_MAX_SIZE_REACHED, text));
        }
        Ok(())
    }

    /// Takes over what a heartbeat says of its member, which is admitted if it is not known. Whether the group gets another
    /// epoch.
    fn update(&mut self, beat: ShareBeat, deadline: Instant) -> bool {
        let id = beat.member_id.clone();
        let bytes_of = |group: &ShareGroup| group.members.get(&id).map_or(0, ShareMember::bytes);
        let before = bytes_of(self);
        let is_new_epoch = self.take_over(beat, deadline);
        self.bytes = self.bytes - before + bytes_of(self);
        is_new_epoch
    }

    fn take_over(&mut self, beat: ShareBeat, deadline: Instant) -> bool {
        let ShareBeat { member_id, epoch, rack_id, client_id, client_host, names } = beat;
        let is_new = !self.members.contains_key(&member_id);
        let id = member_id.detached();
        let member = self.members.entry(id.clone()).or_insert_with(|| ShareMember {
            id,
            rack_id: None,
            client_id: Str::default(),
            client_host: Str::default(),
            names: Vec::new(),
            epoch: 0,
            previous_epoch: 0,
            is_told: false,
            deadline,
        });
        member.deadline = deadline;
        if epoch == JOIN || epoch != member.epoch || names.is_some() {
            // The client may have lost what it was told.
            member.is_told = false;
        }
        if rack_id.is_some() {
            member.rack_id = rack_id.map(|rack_id| rack_id.detached());
        }
        if member.client_id != client_id || member.client_host != client_host {
            (member.client_id, member.client_host) = (client_id.detached(), client_host.detached());
        }
        let Some(mut names) = names else { return is_new };
        names.sort();
        names.dedup();
        if names == member.names {
            return is_new;
        }
        member.names = names.iter().map(Str::detached).collect();
        self.topics_of = None;
        true
    }

    /// Finds the topics of all members. Whether they are others than before; then all members are told again what they have.
    fn find_topics(&mut self, topics: &dyn Topics) -> bool {
        // Read first: what is changed meanwhile is looked up again.
        let version = topics.version();
        let names: BTreeSet<&Str> = self.members.values().flat_map(|member| &member.names).collect();
        let found = names.into_iter().filter_map(|name| Some((name.clone(), topics.find(name)?)));
        let found: BTreeMap<Str, (u128, i32)> = found.collect();
        self.topics_of = Some(version);
        let differs = found != self.topics;
        if differs {
            self.topics = found;
            self.members.values_mut().for_each(|member| member.is_told = false);
        }
        differs
    }

    fn next_epoch(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
    }
}

fn unknown(member_id: &Str) -> Refusal {
    Refusal::new(ErrorCode::UNKNOWN_MEMBER_ID, format!("Member {member_id} is not a member of the group."))
}
