//! The register in the store: nodes that change it at once, answers that are lost, and old versions that are deleted.

use std::collections::BTreeMap;

use inver_journal::rules::{self, Rule};
use inver_journal::{Swap, SwapAsk, Swapped};

use crate::search::{Model, Outcome, search};

/// A version's record: its number, and the version that it was made from.
type Record = (u64, u64);

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    store: BTreeMap<u64, Record>,
    nodes: Vec<Node>,
    /// Versions that somebody was told are the newest, and by whom.
    swapped: BTreeMap<u64, u64>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Node {
    swap: Option<Swap>,
    /// The create that has no answer yet.
    sent: bool,
    swaps_left: usize,
}

/// What happens, the node, and a version.
type Act = (&'static str, u64, u64);

/// Each change has another number: of the node, and which of its changes it is.
fn random(at: usize, node: &Node) -> u64 {
    at as u64 * 100 + node.swaps_left as u64
}

impl State {
    fn new(nodes: usize, swaps: usize) -> State {
        let node = Node { swap: None, sent: false, swaps_left: swaps };
        State { store: BTreeMap::from([(0, (999, 0))]), nodes: vec![node; nodes], swapped: BTreeMap::new() }
    }

    fn with(&self, at: usize, change: impl FnOnce(&mut State, &mut Node)) -> State {
        let mut after = self.clone();
        let mut node = after.nodes[at].clone();
        change(&mut after, &mut node);
        after.nodes[at] = node;
        after
    }

    fn newest(&self) -> u64 {
        self.store.keys().next_back().copied().unwrap_or_default()
    }

    fn end(&mut self, node: &mut Node, version: u64, swapped: Swapped) {
        match swapped {
            Swapped::NotYet => return,
            Swapped::Yes => *self.swapped.entry(version).or_default() += 1,
            Swapped::Lost => {}
        }
        node.swap = None;
        node.sent = false;
        node.swaps_left -= 1;
    }
}

impl Model for State {
    type Act = Act;

    fn next(&self) -> Vec<(Act, State)> {
        let mut acts = Vec::new();
        let newest = self.newest();
        for (at, node) in self.nodes.iter().enumerate() {
            let (name, random) = (at as u64, random(at, node));
            let Some(swap) = node.swap else {
                if node.swaps_left > 0 {
                    let after = self.with(at, |_, node| node.swap = Some(Swap::new(newest, random)));
                    acts.push((("reads", name, newest), after));
                }
                continue;
            };
            match swap.ask() {
                SwapAsk::Create(version) if !node.sent => {
                    acts.push((("sends", name, version), self.with(at, |_, node| node.sent = true)));
                }
                SwapAsk::Create(version) => match self.store.get(&version) {
                    None => {
                        let applied = self.with(at, |state, _| {
                            state.store.insert(version, (random, version - 1));
                        });
                        acts.push((("applied", name, version), applied));
                    }
                    Some(record) => {
                        if record.0 == random {
                            let after = self.with(at, |state, node| {
                                let mut swap = swap;
                                let swapped = swap.created();
                                node.swap = Some(swap);
                                state.end(node, version, swapped);
                            });
                            acts.push((("answered", name, version), after));
                        }
                        let after = self.with(at, |state, node| {
                            let mut swap = swap;
                            let swapped = swap.read(Some(record.0));
                            node.swap = Some(swap);
                            state.end(node, version, swapped);
                        });
                        acts.push((("found", name, version), after));
                    }
                },
                SwapAsk::ListBehind(version) => {
                    let behind = self.store.range(version + 1..).next().map(|(version, _)| *version);
                    let after = self.with(at, |state, node| state.end(node, version, swap.listed(behind)));
                    acts.push((("lists", name, version), after));
                }
            }
        }
        // All but the newest may go at any time; in production only what is old.
        for version in self.store.keys().filter(|version| **version < newest) {
            let mut after = self.clone();
            after.store.remove(version);
            acts.push((("deleted", *version, 0), after));
        }
        acts
    }

    fn fault(&self, after: &State) -> Option<String> {
        if let Some((version, times)) = after.swapped.iter().find(|(_, times)| **times > 1) {
            return Some(format!("{times} changes to version {version} succeeded"));
        }
        let newest = self.newest();
        for (version, _) in after.swapped.iter().filter(|(version, _)| !self.swapped.contains_key(version)) {
            if *version < newest {
                return Some(format!("version {version} succeeded, and {newest} is newer"));
            }
        }
        // A node that learns that it lost, though its record is the newest, would wait for an owner that is itself.
        for (at, node) in self.nodes.iter().enumerate() {
            let ended = node.swap.is_some() && after.nodes[at].swap.is_none();
            let is_newest = self.store.get(&newest).is_some_and(|record| record.0 == random(at, node));
            if ended && is_newest && after.swapped == self.swapped {
                return Some(format!("node {at} lost version {newest}, which is its own"));
            }
        }
        None
    }
}

#[test]
fn one_change_succeeds_and_it_is_the_newest() {
    for (nodes, swaps) in [(2, 2), (3, 1)] {
        let outcome = search(State::new(nodes, swaps), 300_000);
        assert!(matches!(outcome, Outcome::Complete(states) if states > 100), "{outcome:?}");
    }
}

#[test]
fn each_rule_of_the_register_is_needed() {
    for (rule, wrong) in [(Rule::NewestVersion, "is newer"), (Rule::OwnVersion, "which is its own")] {
        rules::leave_out(Some(rule));
        let outcome = search(State::new(2, 2), 300_000);
        rules::leave_out(None);
        let Outcome::Fault(told) = outcome else { panic!("nothing is wrong without {rule:?}: {outcome:?}") };
        assert!(told.contains(wrong), "{rule:?}: {told}");
    }
}
