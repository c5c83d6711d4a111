//! The assignors: which member gets which partitions.
//!
//! *uniform* gives all members the same number of partitions, as far as their subscriptions allow, and leaves a member what
//! it has. *range* gives each member adjacent partitions of each topic, the same ones of topics with as many partitions, so
//! that records with the same key are joined.

use std::collections::{BTreeMap, BTreeSet};

use super::partitions::{PartitionId, Partitions};

/// An assignor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Assignor {
    #[default]
    Uniform = 0,
    Range = 1,
}

impl Assignor {
    /// All of them.
    pub(crate) const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    /// Its name in Kafka.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// The assignor of this name.
    pub(crate) fn named(name: &str) -> Option<Assignor> {
        Assignor::ALL.into_iter().find(|assignor| assignor.name() == name)
    }
}

/// What an assignor knows of a member.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriber {
    /// Ids of its topics.
    pub(super) topics: BTreeSet<u128>,
    /// What it was given before.
    pub(super) has: Partitions,
}

/// Rounds in which the uniform assignor moves partitions between members with different subscriptions. Each is a pass over
/// all partitions; what is left after the last is valid, and not quite even.
const ROUNDS_MAX: usize = 16;

/// What each member gets, in the order of the members. `topics`: the number of partitions by id.
pub(super) fn assign(
    assignor: Assignor,
    topics: &BTreeMap<u128, i32>,
    members: &[Subscriber],
) -> Vec<Partitions> {
    match assignor {
        Assignor::Uniform => uniform(topics, members),
        Assignor::Range => range(topics, members),
    }
}

fn partitions_of(topics: &BTreeMap<u128, i32>) -> impl Iterator<Item = PartitionId> {
    topics.iter().flat_map(|(topic, count)| (0..*count).map(|partition| (*topic, partition)))
}

fn range(topics: &BTreeMap<u128, i32>, members: &[Subscriber]) -> Vec<Partitions> {
    let mut given = vec![Partitions::new(); members.len()];
    for (topic, count) in topics {
        let subscribers: Vec<usize> = (0..members.len())
            .filter(|at| members.get(*at).is_some_and(|m| m.topics.contains(topic)))
            .collect();
        let Some(share) = usize::try_from(*count).ok().and_then(|count| count.checked_div(subscribers.len()))
        else {
            continue;
        };
        let rest = usize::try_from(*count).unwrap_or_default() - share * subscribers.len();
        let mut next = 0i32;
        for (place, at) in subscribers.into_iter().enumerate() {
            let end = next + (share + usize::from(place < rest)) as i32;
            if let Some(given) = given.get_mut(at) {
                given.extend((next..end).map(|partition| (*topic, partition)));
            }
            next = end;
        }
    }
    given
}

fn uniform(topics: &BTreeMap<u128, i32>, members: &[Subscriber]) -> Vec<Partitions> {
    let mut given = vec![Partitions::new(); members.len()];
    let is_alike = members.windows(2).all(|pair| matches!(pair, [a, b] if a.topics == b.topics));
    // Who has what, as far as it may go on having it; of two that have one the first.
    let mut owners: BTreeMap<PartitionId, usize> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        let valid = |(topic, partition): &&PartitionId| {
            member.topics.contains(topic) && topics.get(topic).is_some_and(|count| partition < count)
        };
        for partition in member.has.iter().filter(valid) {
            owners.entry(*partition).or_insert(at);
        }
    }
    let subscribed =
        partitions_of(topics).filter(|(topic, _)| members.iter().any(|m| m.topics.contains(topic)));
    if is_alike {
        // Only some members have one more than the others: those that had more before.
        let total = subscribed.count();
        let (share, mut rest) =
            (total.checked_div(members.len()).unwrap_or(0), total.checked_rem(members.len()).unwrap_or(0));
        for (partition, at) in std::mem::take(&mut owners) {
            let Some(of) = given.get_mut(at) else { continue };
            let is_extra = of.len() == share && rest > 0;
            if of.len() < share || is_extra {
                rest -= usize::from(is_extra);
                of.insert(partition);
                owners.insert(partition, at);
            }
        }
    } else {
        for (partition, at) in &owners {
            given.get_mut(*at).into_iter().for_each(|of| of.extend([*partition]));
        }
    }
    // What nobody has goes to the member that has least.
    let mut loads: BTreeSet<(usize, usize)> =
        given.iter().enumerate().map(|(at, of)| (of.len(), at)).collect();
    for partition in partitions_of(topics) {
        if owners.contains_key(&partition) {
            continue;
        }
        let may = |at: usize| members.get(at).is_some_and(|member| member.topics.contains(&partition.0));
        let Some(&(load, at)) = loads.iter().find(|(_, at)| may(*at)) else { continue };
        give(&mut given, &mut loads, partition, (load, at));
        owners.insert(partition, at);
    }
    if !is_alike {
        even_out(members, &mut given, &mut loads, &mut owners);
    }
    given
}

fn give(
    given: &mut [Partitions],
    loads: &mut BTreeSet<(usize, usize)>,
    partition: PartitionId,
    (load, at): (usize, usize),
) {
    if let Some(of) = given.get_mut(at) {
        of.insert(partition);
        loads.remove(&(load, at));
        loads.insert((load + 1, at));
    }
}

/// Moves partitions from members to subscribers of their topics that have at least two fewer.
fn even_out(
    members: &[Subscriber],
    given: &mut [Partitions],
    loads: &mut BTreeSet<(usize, usize)>,
    owners: &mut BTreeMap<PartitionId, usize>,
) {
    for _ in 0..ROUNDS_MAX {
        let mut moved = false;
        for (partition, owner) in owners.iter_mut() {
            let Some(load) = given.get(*owner).map(Partitions::len) else { continue };
            let may = |at: usize| members.get(at).is_some_and(|member| member.topics.contains(&partition.0));
            let lighter = loads.iter().take_while(|(of, _)| of + 1 < load).find(|(_, at)| may(*at)).copied();
            let Some((least, to)) = lighter else { continue };
            if let Some(from) = given.get_mut(*owner) {
                from.remove(partition);
                loads.remove(&(load, *owner));
                loads.insert((load - 1, *owner));
            }
            give(given, loads, *partition, (least, to));
            *owner = to;
            moved = true;
        }
        if !moved {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribers(topics: &[&[u128]], has: &[&[PartitionId]]) -> Vec<Subscriber> {
        let with = |(at, of): (usize, &&[u128])| Subscriber {
            topics: of.iter().copied().collect(),
            has: has.get(at).map(|has| has.iter().copied().collect()).unwrap_or_default(),
        };
        topics.iter().enumerate().map(with).collect()
    }

    fn sizes(given: &[Partitions]) -> Vec<usize> {
        given.iter().map(Partitions::len).collect()
    }

    fn all_once(given: &[Partitions], count: usize) {
        let all: Partitions = given.iter().flatten().copied().collect();
        assert_eq!((all.len(), given.iter().map(Partitions::len).sum::<usize>()), (count, count));
    }

    #[test]
    fn range_gives_adjacent_partitions_of_each_topic() {
        let given = range(&BTreeMap::from([(1, 5), (2, 3)]), &subscribers(&[&[1, 2], &[1, 2], &[2]], &[]));
        assert_eq!(given[0], Partitions::from([(1, 0), (1, 1), (1, 2), (2, 0)]));
        assert_eq!(given[1], Partitions::from([(1, 3), (1, 4), (2, 1)]));
        assert_eq!(given[2], Partitions::from([(2, 2)]));
    }

    #[test]
    fn uniform_evens_out_and_leaves_what_members_have() {
        let topics = BTreeMap::from([(1, 7), (2, 3)]);
        let both: &[u128] = &[1, 2];
        let given = uniform(&topics, &subscribers(&[both, both, both], &[]));
        all_once(&given, 10);
        assert_eq!(sizes(&given), [4, 3, 3]);
        // One leaves: the others keep theirs.
        let has: Vec<Vec<PartitionId>> = given.iter().map(|of| of.iter().copied().collect()).collect();
        let next = uniform(&topics, &subscribers(&[both, both], &[&has[1], &has[2]]));
        all_once(&next, 10);
        assert_eq!(sizes(&next), [5, 5]);
        assert!(given[1].is_subset(&next[0]) && given[2].is_subset(&next[1]));
        // One comes: it gets a fair share, and nothing else moves.
        let has: Vec<Vec<PartitionId>> = next.iter().map(|of| of.iter().copied().collect()).collect();
        let more = uniform(&topics, &subscribers(&[both, both, both], &[&has[0], &has[1]]));
        all_once(&more, 10);
        assert_eq!(sizes(&more), [4, 3, 3]);
        assert!(more[0].is_subset(&next[0]) && more[1].is_subset(&next[1]));
        let more_members = uniform(&BTreeMap::from([(1, 1)]), &subscribers(&[&[1], &[1]], &[]));
        assert_eq!(sizes(&more_members), [1, 0]);
    }

    #[test]
    fn members_with_different_subscriptions_share_what_they_can() {
        let topics = BTreeMap::from([(1, 6), (2, 2)]);
        let given = uniform(
            &topics,
            &subscribers(&[&[1, 2], &[1]], &[&[(1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]]),
        );
        all_once(&given, 8);
        assert_eq!(sizes(&given), [4, 4]);
        assert!(given[0].contains(&(2, 0)) && given[0].contains(&(2, 1)));
        let none = uniform(&topics, &subscribers(&[&[3], &[1]], &[]));
        assert_eq!(sizes(&none), [0, 6]);
        assert_eq!(uniform(&topics, &[]), Vec::<Partitions>::new());
    }
}
