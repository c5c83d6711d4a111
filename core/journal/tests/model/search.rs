//! Depth-first search of all states that a model can reach.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

/// A state, the acts that are possible in it, and what each leads to.
pub(crate) trait Model: Clone + Eq + Hash {
    /// One act, told in words if it is part of a violation.
    type Act: Clone + Debug;

    /// All acts with the states behind them.
    fn next(&self) -> Vec<(Self::Act, Self)>;

    /// What is wrong with the step from `self` to `after`.
    fn fault(&self, after: &Self) -> Option<String>;
}

/// The end of a search.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All of so many states are right.
    Complete(usize),
    /// A fault, and the acts that lead to it.
    Fault(String),
}

/// Searches all states behind `start`.
pub(crate) fn search<M: Model>(start: M, states_max: usize) -> Outcome {
    // State, the one before it, and the act between.
    let mut found: Vec<(M, usize, Option<M::Act>)> = vec![(start.clone(), 0, None)];
    let mut places = HashMap::from([(start, 0)]);
    let mut open = vec![0];
    while let Some(at) = open.pop() {
        let state = found[at].0.clone();
        for (act, after) in state.next() {
            if let Some(fault) = state.fault(&after) {
                return Outcome::Fault(told(&found, at, &act, &fault));
            }
            if !places.contains_key(&after) {
                assert!(found.len() < states_max, "more than {states_max} states");
                places.insert(after.clone(), found.len());
                open.push(found.len());
                found.push((after, at, Some(act)));
            }
        }
    }
    Outcome::Complete(found.len())
}

fn told<M: Model>(found: &[(M, usize, Option<M::Act>)], mut at: usize, last: &M::Act, fault: &str) -> String {
    let mut acts = vec![format!("{last:?}")];
    while let (_, before, Some(act)) = &found[at] {
        acts.push(format!("{act:?}"));
        at = *before;
    }
    acts.reverse();
    format!("{fault}; after {} acts: {}", acts.len(), acts.join(", "))
}
