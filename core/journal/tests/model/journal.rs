//! The journal: up to three nodes that take over from each other at any time, puts that are applied late, answers that are
//! lost, and a floor below which objects are deleted at once.

use std::collections::{BTreeMap, BTreeSet};

use inver_journal::rules::{self, Rule};
use inver_journal::{
    Ask, Candidate, Confirmed, Found, Header, Kind, Known, LogId, Owner, Passed, Read, Record, Registered,
    Walk, Writer,
};

use crate::search::{Model, Outcome, search};

const LOG: LogId = LogId([0; 16]);

/// The owner that wrote an entry, and its position.
type Name = (u64, u64);

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    store: BTreeMap<u64, Header>,
    register: Record,
    /// What the register's snapshot holds.
    snapshot: Vec<Name>,
    nodes: Vec<Node>,
    window: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Node {
    role: Role,
    /// What was in the journal before the node's own first entry.
    read: Vec<Name>,
    /// Puts whose answer the node does not have.
    under_way: BTreeMap<u64, Header>,
    /// Entries that it may still write.
    left: usize,
    acknowledged: BTreeSet<Name>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Role {
    Idle,
    Candidate(Candidate),
    Owner {
        writer: Writer,
        first_number: u64,
        sent: u64,
    },
    /// It knows that it is not the owner; its puts may still be applied.
    Stopped,
}

/// What happens, the epoch of the node, and a number of an object.
type Act = (&'static str, u64, u64);

fn owner(epoch: u64) -> Owner {
    Owner { epoch, random: epoch }
}

impl Node {
    fn idle(left: usize) -> Node {
        Node {
            role: Role::Idle,
            read: Vec::new(),
            under_way: BTreeMap::new(),
            left,
            acknowledged: BTreeSet::new(),
        }
    }

    fn stop(&mut self) {
        self.role = Role::Stopped;
    }
}

impl State {
    /// The first node owns an empty journal; each may write so many entries.
    fn new(window: usize, entries: &[usize]) -> State {
        let mut nodes: Vec<Node> = entries.iter().map(|left| Node::idle(*left)).collect();
        let writer = Writer::new(owner(1), window, 0, 0);
        nodes[0].role = Role::Owner { writer, first_number: 0, sent: 0 };
        let register = Record { owner: owner(1), node: String::new(), floor: 0, version_random: 0 };
        State { store: BTreeMap::new(), register, snapshot: Vec::new(), nodes, window }
    }

    /// What a new reader sees.
    fn log(&self) -> Vec<Name> {
        let mut log = self.snapshot.clone();
        let mut walk = Walk::from(self.register.floor);
        while let Some(header) = self.store.get(&walk.next()) {
            if walk.pass(header) == Passed::Entries {
                log.push((header.owner.epoch, header.positions.start));
            }
        }
        log
    }

    fn with(&self, at: usize, change: impl FnOnce(&mut State, &mut Node)) -> State {
        let mut after = self.clone();
        let mut node = after.nodes[at].clone();
        change(&mut after, &mut node);
        after.nodes[at] = node;
        after
    }

    fn of_candidate(&self, at: usize, epoch: u64, candidate: &Candidate, acts: &mut Vec<(Act, State)>) {
        match candidate.ask() {
            Ask::Read(number) => {
                let after = self.with(at, |state, node| node.has_read(state.store.get(&number)));
                acts.push((("reads", epoch, number), after));
            }
            Ask::Fence { number, resume } if !self.nodes[at].under_way.contains_key(&number) => {
                let positions = 0..0;
                let kind = Kind::Fence { resume };
                let header = Header { log: LOG, owner: owner(epoch), number, positions, kind };
                let after = self.with(at, |_, node| {
                    node.under_way.insert(number, header);
                });
                acts.push((("sends fence", epoch, number), after));
            }
            Ask::Fence { .. } => {}
            Ask::Register => {
                let after = self.with(at, |state, node| {
                    node.role = match candidate.register(state.register.owner) {
                        Registered::Owner(opened) => {
                            let position = node.read.len() as u64;
                            let writer = Writer::new(owner(epoch), state.window, opened.number, position);
                            Role::Owner { writer, first_number: opened.number, sent: 0 }
                        }
                        Registered::NotOwner => Role::Stopped,
                    }
                });
                acts.push((("serves", epoch, 0), after));
            }
        }
    }

    fn of_owner(&self, at: usize, epoch: u64, writer: &Writer, acts: &mut Vec<(Act, State)>) {
        if self.nodes[at].left > 0 && writer.has_room() {
            let after = self.with(at, |_, node| node.send(epoch));
            acts.push((("sends", epoch, self.nodes[at].left as u64), after));
        }
        let known = Known { owner: self.register.owner, at_ms: 0 };
        if writer.clone().confirm(known, 0) != Confirmed::Same {
            acts.push((("acknowledges", epoch, 0), self.with(at, |_, node| node.acknowledge(epoch, known))));
        }
        let below = writer.stored_below();
        if below > self.register.floor
            && let Ok(record) = self.register.with_floor(owner(epoch), below, 0)
        {
            let after = self.with(at, |state, node| {
                let Role::Owner { first_number, .. } = &node.role else { return };
                let own = below.saturating_sub(*first_number);
                state.snapshot = node.read.clone();
                let next = node.read.len() as u64;
                state.snapshot.extend((next..next + own).map(|position| (epoch, position)));
                state.register = record;
                state.store.retain(|number, _| *number >= below);
            });
            if after.register.floor > self.register.floor {
                acts.push((("moves floor", epoch, below), after));
            }
        }
    }

    fn of_puts(&self, at: usize, epoch: u64, acts: &mut Vec<(Act, State)>) {
        for (number, header) in &self.nodes[at].under_way {
            let Some(stored) = self.store.get(number) else {
                let after = self.with(at, |state, node| {
                    state.store.insert(*number, header.clone());
                    if matches!(node.role, Role::Stopped) {
                        node.under_way.remove(number);
                    }
                });
                acts.push((("applied", epoch, *number), after));
                continue;
            };
            if matches!(self.nodes[at].role, Role::Stopped) {
                continue;
            }
            if stored == header {
                let after = self.with(at, |_, node| {
                    node.under_way.remove(number);
                    match &mut node.role {
                        Role::Candidate(candidate) => candidate.fence_created(),
                        Role::Owner { writer, .. } => writer.created(*number),
                        Role::Idle | Role::Stopped => {}
                    }
                });
                acts.push((("answered", epoch, *number), after));
            }
            // The answer was lost, or told that the object exists.
            let after = self.with(at, |_, node| {
                node.under_way.remove(number);
                match &mut node.role {
                    Role::Candidate(_) => node.has_read(Some(stored)),
                    Role::Owner { writer, .. } => match writer.found(*number, Some(stored)) {
                        Found::Stored => {}
                        Found::SendAgain | Found::NotOwner => node.stop(),
                    },
                    Role::Idle | Role::Stopped => {}
                }
            });
            acts.push((("found", epoch, *number), after));
        }
    }
}

impl Node {
    fn has_read(&mut self, header: Option<&Header>) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        match candidate.read(header) {
            Read::Apply => {
                self.read.extend(header.map(|header| (header.owner.epoch, header.positions.start)));
            }
            Read::GoOn => {}
            Read::NotOwner => self.stop(),
        }
    }

    fn send(&mut self, epoch: u64) {
        let Role::Owner { writer, sent, .. } = &mut self.role else { return };
        let start = self.read.len() as u64 + *sent;
        let Some(number) = writer.send(start + 1) else { return };
        *sent += 1;
        self.left -= 1;
        let positions = start..start + 1;
        let header = Header { log: LOG, owner: owner(epoch), number, positions, kind: Kind::Entries };
        self.under_way.insert(number, header);
    }

    fn acknowledge(&mut self, epoch: u64, known: Known) {
        let Role::Owner { writer, .. } = &mut self.role else { return };
        match writer.confirm(known, 0) {
            Confirmed::To(position) => {
                let own = self.read.len() as u64..position;
                self.acknowledged.extend(own.map(|position| (epoch, position)));
            }
            Confirmed::NotOwner => self.stop(),
            Confirmed::Same | Confirmed::AskRegister => {}
        }
    }
}

impl Model for State {
    type Act = Act;

    fn next(&self) -> Vec<(Act, State)> {
        let mut acts = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let epoch = at as u64 + 1;
            match &node.role {
                // Epochs are taken in their order.
                Role::Idle
                    if self.register.owner.epoch < epoch
                        && !matches!(self.nodes[at - 1].role, Role::Idle) =>
                {
                    let after = self.with(at, |state, node| {
                        state.register.owner = owner(epoch);
                        node.read.clone_from(&state.snapshot);
                        let walk = Walk::from(state.register.floor);
                        node.role = Role::Candidate(Candidate::new(owner(epoch), state.window, walk));
                    });
                    acts.push((("takes over", epoch, 0), after));
                }
                Role::Candidate(candidate) => self.of_candidate(at, epoch, candidate, &mut acts),
                Role::Owner { writer, .. } => self.of_owner(at, epoch, writer, &mut acts),
                Role::Idle | Role::Stopped => {}
            }
            self.of_puts(at, epoch, &mut acts);
        }
        acts
    }

    fn fault(&self, after: &State) -> Option<String> {
        let (before, log) = (self.log(), after.log());
        if !log.starts_with(&before) {
            return Some(format!("the log changed from {before:?} to {log:?}"));
        }
        for (at, node) in after.nodes.iter().enumerate() {
            let epoch = at as u64 + 1;
            let is_owner = after.register.owner == owner(epoch);
            if let Role::Owner { sent, .. } = &node.role
                && is_owner
            {
                let next = node.read.len() as u64;
                let mut held = node.read.clone();
                held.extend((next..next + sent).map(|position| (epoch, position)));
                if !held.starts_with(&log) {
                    return Some(format!("owner {epoch} holds {held:?}, the log {log:?}"));
                }
            }
            if let Some(lost) = node.acknowledged.iter().find(|name| !log.contains(name)) {
                return Some(format!("{lost:?} was acknowledged and is not in the log {log:?}"));
            }
            let stops = matches!(node.role, Role::Stopped) && !matches!(self.nodes[at].role, Role::Stopped);
            if stops && is_owner {
                return Some(format!("owner {epoch} stops, and is the owner still"));
            }
        }
        None
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_the_order() {
    for (window, entries) in [(2, &[3, 1][..]), (3, &[3, 2]), (2, &[2, 1, 1])] {
        let outcome = search(State::new(window, entries), 200_000);
        let Outcome::Complete(states) = outcome else { panic!("{entries:?}: {outcome:?}") };
        assert!(states > 1000, "{entries:?}: {states}");
    }
}

#[test]
fn each_rule_is_needed() {
    // What the search comes upon first without each.
    let needed = [
        (Rule::InOrder, "was acknowledged and is not in the log"),
        (Rule::WindowByConfirmation, "owner 3 stops, and is the owner still"),
        (Rule::Fence, "owner 3 holds"),
        (Rule::Jump, "owner 3 stops, and is the owner still"),
        (Rule::OwnObject, "owner 3 stops, and is the owner still"),
        (Rule::OwnerOfGroup, "was acknowledged and is not in the log"),
        (Rule::OwnerOfFence, "owner 3 holds"),
        (Rule::OwnerOfFloor, "owner 3 holds"),
    ];
    for (rule, wrong) in needed {
        rules::leave_out(Some(rule));
        let outcome = search(State::new(2, &[3, 2, 2]), 2_000_000);
        rules::leave_out(None);
        let Outcome::Fault(told) = outcome else { panic!("nothing is wrong without {rule:?}: {outcome:?}") };
        assert!(told.contains(wrong), "{rule:?}: {told}");
    }
}
