//! The assignors: which member gets which partitions.
//!
//! *uniform* gives all members the same number of partitions, as far as their subscriptions allow, and leaves a member what
//! it has. *range* gives each member adjacent partitions of each topic, the same ones of topics with as many partitions, so
//! that records with the same key are joined.

use std::collections::btree_map::Entry;
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

/// A topic with its subscribers: its id, the number of its partitions, and the places of the members.
struct Subscribed {
    topic: u128,
    count: i32,
    subscribers: Vec<usize>,
}

impl Subscribed {
    fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        let topic = self.topic;
        (0..self.count).map(move |partition| (topic, partition))
    }
}

/// The topics that have subscribers, by id.
fn subscribed(topics: &BTreeMap<u128, i32>, members: &[Subscriber]) -> Vec<Subscribed> {
    let all = topics.iter().map(|(topic, count)| (*topic, *count));
    let mut all: Vec<Subscribed> =
        all.map(|(topic, count)| Subscribed { topic, count, subscribers: Vec::new() }).collect();
    for (at, member) in members.iter().enumerate() {
        // Both are in order.
        let mut wanted = member.topics.iter().peekable();
        for of in &mut all {
            while wanted.next_if(|topic| **topic < of.topic).is_some() {}
            match wanted.peek() {
                Some(topic) if **topic == of.topic => of.subscribers.push(at),
                Some(_) => {}
                None => break,
            }
        }
    }
    all.retain(|of| !of.subscribers.is_empty());
    all
}

fn range(topics: &BTreeMap<u128, i32>, members: &[Subscriber]) -> Vec<Partitions> {
    let mut given = vec![Partitions::new(); members.len()];
    for Subscribed { topic, count, subscribers } in subscribed(topics, members) {
        let Some(share) = usize::try_from(count).ok().and_then(|count| count.checked_div(subscribers.len()))
        else {
            continue;
        };
        let rest = usize::try_from(count).unwrap_or_default() - share * subscribers.len();
        let mut next = 0i32;
        for (place, at) in subscribers.into_iter().enumerate() {
            let end = next + (share + usize::from(place < rest)) as i32;
            if let Some(given) = given.get_mut(at) {
                given.extend((next..end).map(|partition| (topic, partition)));
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
    let subscribed = subscribed(topics, members);
    if is_alike {
        // Only some members have one more than the others: those that had more before.
        let total: usize = subscribed.iter().map(|of| usize::try_from(of.count).unwrap_or_default()).sum();
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
    give_rest(&subscribed, &mut given, &mut owners);
    if !is_alike {
        even_out(&subscribed, &mut given, &mut owners);
    }
    given
}

/// The subscribers of a topic by how many partitions they have. Partitions of a topic move among its subscribers, so that no
/// other member is read.
#[derive(Default)]
struct Loads<'a> {
    subscribers: &'a [usize],
    by_load: BTreeSet<(usize, usize)>,
}

impl<'a> Loads<'a> {
    /// Turns to the subscribers of the next topic. Nothing is to be done if they are those of the last one.
    fn turn_to(&mut self, subscribers: &'a [usize], given: &[Partitions]) {
        // Most often a partition follows one of the same topic.
        let is_same = std::ptr::eq(self.subscribers, subscribers) || self.subscribers == subscribers;
        if !is_same {
            let load = |at: usize| given.get(at).map_or(0, Partitions::len);
            self.subscribers = subscribers;
            self.by_load = subscribers.iter().map(|at| (load(*at), *at)).collect();
        }
    }

    /// The subscriber that has least.
    fn least(&self) -> Option<(usize, usize)> {
        self.by_load.first().copied()
    }

    /// How many partitions the one has more that has most.
    fn spread(&self) -> usize {
        let (least, most) = (self.by_load.first(), self.by_load.last());
        least.zip(most).map_or(0, |((least, _), (most, _))| most - least)
    }

    /// Changes what a subscriber has.
    fn change(&mut self, given: &mut [Partitions], at: usize, change: impl FnOnce(&mut Partitions)) {
        if let Some(of) = given.get_mut(at) {
            self.by_load.remove(&(of.len(), at));
            change(of);
            self.by_load.insert((of.len(), at));
        }
    }
}

/// Gives what nobody has to the subscribers that have least.
fn give_rest(topics: &[Subscribed], given: &mut [Partitions], owners: &mut BTreeMap<PartitionId, usize>) {
    let mut loads = Loads::default();
    for topic in topics {
        for partition in topic.partitions() {
            let Entry::Vacant(unowned) = owners.entry(partition) else { continue };
            loads.turn_to(&topic.subscribers, given);
            if let Some((_, at)) = loads.least() {
                loads.change(given, at, |of| of.extend([partition]));
                unowned.insert(at);
            }
        }
    }
}

/// Moves partitions from members to subscribers of their topics that have at least two fewer.
fn even_out(topics: &[Subscribed], given: &mut [Partitions], owners: &mut BTreeMap<PartitionId, usize>) {
    for _ in 0..ROUNDS_MAX {
        let mut moved = false;
        let mut loads = Loads::default();
        for topic in topics {
            loads.turn_to(&topic.subscribers, given);
            for partition in topic.partitions() {
                if loads.spread() < 2 {
                    break;
                }
                let (Some(owner), Some((least, to))) = (owners.get_mut(&partition), loads.least()) else {
                    continue;
                };
                if given.get(*owner).is_none_or(|of| of.len() < least + 2) {
                    continue;
                }
                loads.change(given, *owner, |of| {
                    of.remove(&partition);
                });
                loads.change(given, to, |of| of.extend([partition]));
                *owner = to;
                moved = true;
            }
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

    /// Numbers that look random.
    fn next(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    }

    #[test]
    fn no_subscriber_of_a_topic_has_two_fewer_than_the_owner_of_a_partition() {
        for mut seed in 0..200u64 {
            let topics: BTreeMap<u128, i32> =
                (0..6).map(|topic| (topic, i32::try_from(next(&mut seed) % 9).unwrap())).collect();
            let mut members = vec![Subscriber::default(); 5];
            // Twice: what they have is changed by other subscriptions.
            for _ in 0..2 {
                for member in &mut members {
                    member.topics = (0..7).filter(|_| next(&mut seed).is_multiple_of(2)).collect();
                }
                let given = uniform(&topics, &members);
                let wanted =
                    topics.iter().filter(|(topic, _)| members.iter().any(|m| m.topics.contains(topic)));
                all_once(&given, wanted.map(|(_, count)| *count as usize).sum());
                for (member, of) in members.iter().zip(&given) {
                    for (topic, _) in of {
                        assert!(member.topics.contains(topic));
                        let others =
                            members.iter().zip(&given).filter(|(other, _)| other.topics.contains(topic));
                        let least = others.map(|(_, of)| of.len()).min().unwrap();
                        assert!(of.len() < least + 2, "{seed}: {:?}", sizes(&given));
                    }
                }
                members.iter_mut().zip(given).for_each(|(member, of)| member.has = of);
            }
        }
    }
}
