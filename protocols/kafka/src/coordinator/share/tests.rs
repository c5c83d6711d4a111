use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use inver_broker::Mailbox;
use tokio::time::Instant;

use super::locks::LockRegistry;
use super::{ShareAnswer, ShareBeat, ShareGroup, ShareState};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::config::GroupLimits;
use crate::coordinator::consumer::Topics;

const TIMEOUT: Duration = Duration::from_secs(45);

/// Topics by name: id and number of partitions, with a version.
#[derive(Default)]
struct Known(RefCell<(u64, ByName)>);

type ByName = BTreeMap<String, (u128, i32)>;

impl Known {
    fn set(&self, name: &str, id: u128, partitions: i32) {
        let mut known = self.0.borrow_mut();
        known.0 += 1;
        known.1.insert(name.to_owned(), (id, partitions));
    }
}

impl Topics for Known {
    fn version(&self) -> u64 {
        self.0.borrow().0
    }

    fn find(&self, name: &str) -> Option<(u128, i32)> {
        self.0.borrow().1.get(name).copied()
    }
}

struct Fixture {
    group: ShareGroup,
    topics: Known,
    limits: GroupLimits,
    now: Instant,
}

impl Fixture {
    fn new() -> Fixture {
        let topics = Known::default();
        topics.set("a", 1, 2);
        Fixture {
            group: ShareGroup::new("g".into()),
            topics,
            limits: GroupLimits::default(),
            now: Instant::now(),
        }
    }

    fn beat(&mut self, id: &str, epoch: i32, names: Option<&[&str]>) -> Result<ShareAnswer, ErrorCode> {
        let beat = ShareBeat {
            member_id: id.into(),
            epoch,
            rack_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            names: names.map(|names| names.iter().map(|name| Str::from(*name)).collect()),
        };
        let answer = self.group.heartbeat(beat, &self.topics, &self.limits, TIMEOUT, self.now);
        answer.map_err(|refusal| refusal.code)
    }
}

#[test]
fn every_member_has_all_partitions_of_its_topics() {
    let mut it = Fixture::new();
    let first = it.beat("m1", 0, Some(&["a", "b", "a"])).unwrap();
    assert_eq!((first.epoch, first.assigned), (1, Some(vec![(1, 2)])));
    let second = it.beat("m2", 0, Some(&["a"])).unwrap();
    assert_eq!((second.epoch, second.assigned), (2, Some(vec![(1, 2)])));
    // Nothing moves for the first, which gets another epoch.
    let again = it.beat("m1", 1, None).unwrap();
    assert_eq!((again.epoch, again.assigned), (2, None));
    // The response may have been lost.
    assert_eq!(it.beat("m1", 1, None).unwrap().epoch, 2);
    it.topics.set("b", 2, 1);
    let found = it.beat("m1", 2, None).unwrap();
    assert_eq!((found.epoch, found.assigned), (3, Some(vec![(1, 2), (2, 1)])));
    it.topics.set("a", 1, 3);
    assert_eq!(it.beat("m2", 2, None).unwrap().assigned, Some(vec![(1, 3)]));
    assert_eq!(it.beat("m2", 4, Some(&["b"])).unwrap().assigned, Some(vec![(2, 1)]));
    // One that was not answered, and sends the same again, with its topics or without them, is told again.
    assert_eq!(it.beat("m2", 4, Some(&["b"])).unwrap().assigned, Some(vec![(2, 1)]));
    assert_eq!(it.beat("m2", 4, None).unwrap().assigned, Some(vec![(2, 1)]));
    assert_eq!(it.beat("m2", 5, None).unwrap().assigned, None);
    // One that joins again is told again.
    assert_eq!(it.beat("m2", 0, Some(&["b"])).unwrap().assigned, Some(vec![(2, 1)]));
    assert_eq!(it.group.state(), ShareState::Stable);
}

#[test]
fn members_leave_and_time_out() {
    let mut it = Fixture::new();
    assert_eq!(it.beat("m1", 1, None), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(it.beat("m1", -1, None), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    it.beat("m1", 0, Some(&["a"])).unwrap();
    assert_eq!(it.beat("m1", 9, None), Err(ErrorCode::FENCED_MEMBER_EPOCH));
    assert_eq!(it.beat("m1", -1, None).unwrap().epoch, -1);
    assert_eq!(it.group.state(), ShareState::Empty);
    it.beat("m1", 0, Some(&["a"])).unwrap();
    it.now += TIMEOUT / 2;
    it.beat("m2", 0, Some(&["a"])).unwrap();
    it.now += TIMEOUT / 2;
    it.group.on_timeout(it.now);
    assert_eq!(it.group.members().map(|member| member.id.as_str()).collect::<Vec<_>>(), ["m2"]);
    it.now += TIMEOUT;
    it.group.on_timeout(it.now);
    assert_eq!((it.group.state(), it.group.wake_at()), (ShareState::Empty, None));
    it.group.delete();
    assert!(it.group.is_dead());
}

#[test]
fn members_and_their_memory_are_bounded() {
    let mut it = Fixture::new();
    it.limits.members_max = 1;
    it.beat("m1", 0, Some(&["a"])).unwrap();
    assert_eq!(it.beat("m2", 0, Some(&["a"])), Err(ErrorCode::GROUP_MAX_SIZE_REACHED));
    it.limits = GroupLimits { bytes_max: 20, ..GroupLimits::default() };
    let long = "t".repeat(15);
    assert_eq!(it.beat("m2", 0, Some(&[&long])), Err(ErrorCode::GROUP_MAX_SIZE_REACHED));
    it.beat("m1", 0, Some(&[&long])).unwrap();
    it.beat("m1", 2, Some(&[&long])).unwrap();
}

#[test]
fn records_of_a_partition_are_locked_up_to_a_bound() {
    let registry = LockRegistry::default();
    let (locks, same) = (registry.of(&"g".into(), 1), registry.of(&"g".into(), 1));
    assert_eq!((locks.take(0, 7, 10), same.take(0, 7, 10), same.take(1, 7, 10)), (7, 3, 7));
    let mailbox = Mailbox::new();
    same.wait(&mailbox, 7);
    same.wait(&mailbox, 7);
    locks.release(0, 5);
    let mut tokens = Vec::new();
    mailbox.drain(&mut tokens);
    assert_eq!(tokens, [7]);
    assert_eq!((same.take(0, 7, 10), registry.of(&"h".into(), 1).take(0, 7, 10)), (5, 7));
    drop((locks, same));
    assert_eq!(registry.of(&"g".into(), 1).take(0, 20, 10), 10);
}
