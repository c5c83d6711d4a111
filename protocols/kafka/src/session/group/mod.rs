//! A group of members that share out work among themselves: the classic protocol, as a state machine.
//!
//! ```text
//!            join                    all have joined, or time is up
//!   Empty ───────────▶ Preparing ─────────────────────────────────────▶ Completing
//!     ▲                 ▲     ▲                                             │ the leader's assignment
//!     │ no member left  │     │ join, leave, expiry                         ▼
//!     └─────────────────┘     └───────────────────────────────────────── Stable
//! ```
//!
//! Invariants: whoever waits gets exactly one answer; a generation is never reused while a member of it is known;
//! the coordinator never looks into what members say to each other, so any protocol type works (consumers, Connect,
//! Schema Registry).
//!
//! No I/O, no clock, no randomness: the time and new member ids are handed in, and what has to be answered or kept
//! is handed out as [`Effects`].

mod join;
mod leave;
mod member;
mod snapshot;
mod sync;
mod timeouts;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::join::Join;
pub use self::leave::Leave;
pub use self::member::{Member, MemberProtocol};
pub use self::snapshot::SnapshotError;
pub use self::sync::Sync;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;

inver_settings::section! {
    /// Bounds and delays of groups. The defaults are Kafka's, except for the initial delay (3 s there), the number of
    /// members and the bytes (no bound there).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct GroupLimits {
        /// Members of a group, including those that were given a member id and have not rejoined with it.
        pub members_max: usize = 10_000 => count(1..=100_000_000),
        /// Bytes of metadata and assignments that all members of a group keep in the coordinator.
        pub bytes_max: usize = 64 << 20 => bytes(KIB..=TIB),
        /// Protocols (assignors) that a member of a group may offer.
        pub protocols_max: usize = 100 => count(1..=10_000),
        /// Shortest session timeout that a member may request.
        pub session_timeout_min: Duration = Duration::from_secs(6) => milliseconds(10..=DAY_MS),
        /// Longest session timeout that a member may request.
        pub session_timeout_max: Duration = Duration::from_secs(30 * 60) => milliseconds(10..=DAY_MS),
        /// Time that an empty group waits for further members after the first one joined, so that members that start
        /// together are not rebalanced one by one.
        pub initial_delay: Duration = Duration::from_millis(100) => milliseconds(0..=DAY_MS),
        /// Time after which a new member that is still waiting for its first rebalance is removed.
        pub new_member_timeout_max: Duration = Duration::from_secs(5 * 60) => milliseconds(10..=DAY_MS),
        /// Time that committed offsets are kept after the last member left the group, or, in a group that never had
        /// members, after they were committed. 0: for ever.
        pub offsets_retention: Duration = Duration::from_secs(7 * 24 * 60 * 60) => milliseconds(0..=36_500 * DAY_MS),
    }
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No members.
    Empty,
    /// Members are to join anew.
    Preparing,
    /// All know the new generation; the leader is to hand out the work.
    Completing,
    /// Everyone has its work.
    Stable,
    /// Deleted; a handle to it may linger.
    Dead,
}

impl State {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Preparing => "PreparingRebalance",
            State::Completing => "CompletingRebalance",
            State::Stable => "Stable",
            State::Dead => "Dead",
        }
    }
}

/// The answer to a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Why not, or none.
    pub error: ErrorCode,
    /// The member's id.
    pub member_id: Str,
    /// The generation it is in; −1 with an error.
    pub generation: i32,
    /// What kind of group it is.
    pub protocol_type: Option<Str>,
    /// The protocol chosen.
    pub protocol: Option<Str>,
    /// Who hands out the work.
    pub leader: Str,
    /// The leader need not hand out anything: it came back and nothing has changed (KIP-814).
    pub skip_assignment: bool,
    /// For the leader: everyone, with what they say under the chosen protocol.
    pub members: Vec<(Str, Option<Str>, Bytes)>,
}

impl Joined {
    pub(crate) fn refused(member_id: Str, error: ErrorCode) -> Joined {
        Joined {
            error,
            member_id,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: Str::default(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

/// The answer to a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// Why not, or none.
    pub error: ErrorCode,
    /// What kind of group it is.
    pub protocol_type: Option<Str>,
    /// The protocol chosen.
    pub protocol: Option<Str>,
    /// The member's work.
    pub assignment: Bytes,
}

impl Synced {
    pub(crate) fn refused(error: ErrorCode) -> Synced {
        Synced { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// What is to be done after a transition.
#[derive(Debug)]
pub struct Effects<W> {
    /// Answers to joins.
    pub joined: Vec<(W, Joined)>,
    /// Answers to syncs.
    pub synced: Vec<(W, Synced)>,
    /// What a restart must know has changed: see [`Group::snapshot`].
    pub changed: bool,
}

impl<W> Default for Effects<W> {
    fn default() -> Self {
        Effects { joined: Vec::new(), synced: Vec::new(), changed: false }
    }
}

/// A group.
#[derive(Debug)]
pub struct Group<W> {
    id: Str,
    state: State,
    generation: i32,
    protocol_type: Option<Str>,
    protocol: Option<Str>,
    leader: Option<Str>,
    members: HashMap<Str, Member<W>>,
    /// Members in the order in which they came, so that elections and listings are stable.
    order: Vec<Str>,
    /// How many members know each protocol.
    support: HashMap<Str, usize>,
    /// Bytes of what members said about themselves.
    said_bytes: usize,
    /// Bytes of the work handed out.
    assigned_bytes: usize,
    /// Members that wait for the rebalance to end.
    joining: usize,
    /// Instance id to member id.
    instances: HashMap<Str, Str>,
    /// Ids given out (KIP-394) whose owners have not come back yet, and until when they may.
    pending: HashMap<Str, Instant>,
    /// The end of the rebalance that is being prepared.
    rebalance: Option<Rebalance>,
    /// When those who owe a sync are thrown out.
    sync_deadline: Option<Instant>,
    /// Not later than the next thing that time brings about; may be early.
    wake_at: Option<Instant>,
    /// When the last member left, by the wall's clock; `None` while there are members, and before the first.
    emptied_ms: Option<i64>,
}

/// How long a rebalance still waits for members.
#[derive(Debug, Clone, Copy)]
struct Rebalance {
    deadline: Instant,
    /// The first rebalance of an empty group: it waits for its delay even when all members known have joined, and
    /// longer if others come meanwhile, up to this much.
    initial: Option<Duration>,
    /// A member came since the delay was last extended.
    newcomer: bool,
}

impl<W> Group<W> {
    /// An empty group.
    pub fn new(id: Str) -> Group<W> {
        Group {
            id,
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: HashMap::new(),
            order: Vec::new(),
            support: HashMap::new(),
            said_bytes: 0,
            assigned_bytes: 0,
            joining: 0,
            instances: HashMap::new(),
            pending: HashMap::new(),
            rebalance: None,
            sync_deadline: None,
            wake_at: None,
            emptied_ms: None,
        }
    }

    /// Its name.
    pub fn id(&self) -> &Str {
        &self.id
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The current generation; 0 before the first.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// What kind of group it is, once a member came.
    pub fn protocol_type(&self) -> Option<&Str> {
        self.protocol_type.as_ref()
    }

    /// The protocol chosen for this generation.
    pub fn protocol(&self) -> Option<&Str> {
        self.protocol.as_ref()
    }

    /// The members, in the order in which they came.
    pub fn members(&self) -> impl Iterator<Item = &Member<W>> {
        self.order.iter().filter_map(|id| self.members.get(id))
    }

    /// When the last member left, in milliseconds since 1970, if there was one and none has come since.
    pub fn emptied_ms(&self) -> Option<i64> {
        self.emptied_ms
    }

    /// Takes note of the wall's clock after a change.
    pub fn note_time(&mut self, now_ms: i64) {
        self.emptied_ms = match self.state {
            State::Empty if self.generation > 0 => self.emptied_ms.or(Some(now_ms)),
            _ => None,
        };
    }

    /// Whether nothing would be lost by forgetting the group.
    pub fn is_vacant(&self) -> bool {
        matches!(self.state, State::Empty | State::Dead) && self.pending.is_empty()
    }

    /// Ends the group; later calls through a handle are told so. Only an empty group can be ended.
    pub fn kill(&mut self) -> bool {
        if self.is_vacant() {
            self.state = State::Dead;
        }
        self.state == State::Dead
    }

    /// Whether `member_id` (and `instance_id`, if it is a static member) may speak for the group.
    fn validate(&self, member_id: &Str, instance_id: Option<&Str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.instances.get(instance_id) {
                None => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(known) if known != member_id => return Err(ErrorCode::FENCED_INSTANCE_ID),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) {
            true => Ok(()),
            false => Err(ErrorCode::UNKNOWN_MEMBER_ID),
        }
    }

    /// Whether there is a protocol that every member knows and one of `protocols` is it.
    fn supports(&self, protocol_type: &str, protocols: &[MemberProtocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|offered| self.known_by_all(&offered.name))
    }

    fn known_by_all(&self, protocol: &Str) -> bool {
        self.support.get(protocol).is_some_and(|count| *count == self.members.len())
    }

    /// Each member votes for the one it likes best among those that all know; the first among equals wins.
    fn elect_protocol(&self) -> Option<Str> {
        let first = self.members().next()?;
        let candidates: Vec<&Str> =
            first.protocols.iter().map(|own| &own.name).filter(|name| self.known_by_all(name)).collect();
        let mut votes = vec![0usize; candidates.len()];
        for member in self.members.values() {
            let liked =
                member.protocols.iter().find_map(|own| candidates.iter().position(|c| **c == own.name));
            if let Some(vote) = liked.and_then(|place| votes.get_mut(place)) {
                *vote += 1;
            }
        }
        let most = votes.iter().max()?;
        let place = votes.iter().position(|count| count == most)?;
        candidates.get(place).map(|name| (*name).clone())
    }

    fn is_leader(&self, member_id: &Str) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    fn bytes(&self) -> usize {
        self.said_bytes + self.assigned_bytes
    }

    /// Counts what a member can do; to be undone by [`Group::uncount`] before it changes.
    fn count(&mut self, protocols: &[MemberProtocol]) {
        self.said_bytes += said_bytes(protocols);
        for name in distinct(protocols) {
            *self.support.entry(name.clone()).or_default() += 1;
        }
    }

    fn uncount(&mut self, protocols: &[MemberProtocol]) {
        self.said_bytes -= said_bytes(protocols);
        for name in distinct(protocols) {
            if let Some(count) = self.support.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.support.remove(name);
                }
            }
        }
    }

    /// Lets a member wait for the rebalance to end.
    fn await_join(&mut self, member_id: &Str, waiter: W, effects: &mut Effects<W>) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        match member.joining.replace(waiter) {
            None => self.joining += 1,
            // It asked twice: only the later request is answered with the outcome.
            Some(earlier) => {
                let refused = Joined::refused(member_id.clone(), ErrorCode::REBALANCE_IN_PROGRESS);
                effects.joined.push((earlier, refused));
            }
        }
    }

    /// Everyone's word to the leader under the chosen protocol.
    fn roll(&self) -> Vec<(Str, Option<Str>, Bytes)> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        self.members().map(|m| (m.id.clone(), m.instance_id.clone(), m.metadata(protocol))).collect()
    }

    fn insert(&mut self, member: Member<W>) {
        if let Some(instance_id) = &member.instance_id {
            self.instances.insert(instance_id.clone(), member.id.clone());
        }
        self.wake_by(member.deadline);
        self.count(&member.protocols);
        self.order.push(member.id.clone());
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out, and answers what it was waiting for with `error`.
    fn take_out(&mut self, member_id: &Str, error: ErrorCode, effects: &mut Effects<W>) -> Option<Member<W>> {
        let mut member = self.members.remove(member_id)?;
        self.order.retain(|id| id != member_id);
        self.uncount(&member.protocols);
        self.assigned_bytes -= member.assignment.len();
        if let Some(instance_id) = &member.instance_id
            && self.instances.get(instance_id) == Some(member_id)
        {
            self.instances.remove(instance_id);
        }
        if let Some(waiter) = member.joining.take() {
            self.joining -= 1;
            effects.joined.push((waiter, Joined::refused(member.id.clone(), error)));
        }
        if let Some(waiter) = member.syncing.take() {
            effects.synced.push((waiter, Synced::refused(error)));
        }
        if self.is_leader(member_id) {
            self.leader = self.order.first().cloned();
        }
        Some(member)
    }

    /// When [`Group::tick`] is to be called next; may be earlier than anything happens.
    pub fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    fn wake_by(&mut self, at: Instant) {
        if self.wake_at.is_none_or(|earlier| at < earlier) {
            self.wake_at = Some(at);
        }
    }
}

fn said_bytes(protocols: &[MemberProtocol]) -> usize {
    protocols.iter().map(|own| own.name.len() + own.metadata.len()).sum()
}

/// Names of protocols, each once: a client may say one twice.
fn distinct(protocols: &[MemberProtocol]) -> impl Iterator<Item = &Str> {
    let earlier = |place: usize| protocols.get(..place).unwrap_or_default();
    let repeated = move |place, name: &Str| earlier(place).iter().any(|own| own.name == *name);
    protocols
        .iter()
        .enumerate()
        .filter(move |(place, own)| !repeated(*place, &own.name))
        .map(|(_, own)| &own.name)
}
