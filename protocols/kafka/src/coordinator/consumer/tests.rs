//! The state machine of a group by its acts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::heartbeat::LEAVE;
use super::*;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::config::GroupLimits;

const SESSION: Duration = Duration::from_secs(45);

#[derive(Default)]
struct TestTopics {
    topics: RefCell<BTreeMap<&'static str, (u128, i32)>>,
    version: RefCell<u64>,
}

impl TestTopics {
    fn set(&self, name: &'static str, id: u128, partitions: i32) {
        self.topics.borrow_mut().insert(name, (id, partitions));
        *self.version.borrow_mut() += 1;
    }
}

impl Topics for TestTopics {
    fn version(&self) -> u64 {
        *self.version.borrow()
    }

    fn find(&self, name: &str) -> Option<(u128, i32)> {
        self.topics.borrow().get(name).copied()
    }
}

/// A group, and what its clients know.
struct Bench {
    group: ConsumerGroup,
    topics: TestTopics,
    limits: GroupLimits,
    now: Instant,
    clients: BTreeMap<&'static str, (i32, Partitions)>,
}

impl Bench {
    fn new(partitions: i32) -> Bench {
        let topics = TestTopics::default();
        topics.set("t", 1, partitions);
        let (limits, now) = (GroupLimits::default(), Instant::now());
        Bench {
            group: ConsumerGroup::new("g".into(), SESSION),
            topics,
            limits,
            now,
            clients: BTreeMap::new(),
        }
    }

    fn send(&mut self, beat: Heartbeat) -> Result<Answer, Refusal> {
        let topics = self.topics.topics.borrow();
        let matching = |pattern: &str| {
            topics.keys().filter(|name| name.starts_with(pattern)).map(|name| Str::from(*name)).collect()
        };
        let mut changes = Changes::default();
        self.group.heartbeat(beat, &self.topics, &matching, &self.limits, self.now, &mut changes)
    }

    fn join(&mut self, id: &'static str) -> Result<Answer, Refusal> {
        self.join_as(id, |_| {})
    }

    fn join_as(&mut self, id: &'static str, with: impl FnOnce(&mut Heartbeat)) -> Result<Answer, Refusal> {
        let mut beat = beat(id, JOIN);
        beat.rebalance_timeout = Some(Duration::from_secs(60));
        beat.names = Some(vec!["t".into()]);
        beat.owned = Some(Partitions::new());
        with(&mut beat);
        let answer = self.send(beat)?;
        self.clients.insert(id, (answer.epoch, answer.assigned.clone().unwrap_or_default()));
        Ok(answer)
    }

    /// A heartbeat of a client that does as it is told.
    fn go_on(&mut self, id: &'static str) -> Result<Answer, Refusal> {
        let (epoch, owned) = self.clients.get(id).cloned().unwrap();
        let mut beat = beat(id, epoch);
        beat.owned = Some(owned);
        let answer = self.send(beat)?;
        let client = self.clients.get_mut(id).unwrap();
        client.0 = answer.epoch;
        if let Some(assigned) = &answer.assigned {
            client.1.clone_from(assigned);
        }
        self.check_owners();
        Ok(answer)
    }

    /// No partition has two owners, in the group and among clients that do as they are told.
    fn check_owners(&self) {
        let owned: Vec<_> = self.clients.values().flat_map(|(_, owned)| owned).collect();
        let once: std::collections::BTreeSet<_> = owned.iter().collect();
        assert_eq!(once.len(), owned.len(), "{:?}", self.clients);
    }

    /// Until nothing changes.
    fn settle(&mut self) -> Vec<usize> {
        let ids: Vec<&'static str> = self.clients.keys().copied().collect();
        for _ in 0..10 {
            ids.iter().for_each(|id| drop(self.go_on(id).unwrap()));
        }
        assert_eq!(self.group.state(), ConsumerState::Stable);
        self.clients.values().map(|(_, owned)| owned.len()).collect()
    }
}

fn beat(id: &'static str, epoch: i32) -> Heartbeat {
    Heartbeat {
        member_id: id.into(),
        epoch,
        instance_id: None,
        rack_id: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout: None,
        names: None,
        pattern: None,
        assignor: None,
        owned: None,
    }
}

fn code(outcome: Result<Answer, Refusal>) -> ErrorCode {
    outcome.map_or_else(|refusal| refusal.code, |_| ErrorCode::NONE)
}

#[test]
fn members_share_the_partitions_without_waiting_for_each_other() {
    let mut bench = Bench::new(6);
    let first = bench.join("a").unwrap();
    assert_eq!((first.epoch, first.assigned.map(|all| all.len())), (1, Some(6)));
    let second = bench.join("b").unwrap();
    assert_eq!((second.epoch, second.assigned.map(|all| all.len())), (2, Some(0)), "it waits for a's");
    let told = bench.go_on("a").unwrap();
    assert_eq!((told.epoch, told.assigned.map(|all| all.len())), (1, Some(3)), "it has not confirmed yet");
    assert_eq!(bench.go_on("b").unwrap().assigned, None);
    assert_eq!(bench.go_on("a").unwrap().epoch, 2);
    assert_eq!(bench.go_on("b").unwrap().assigned.map(|all| all.len()), Some(3));
    assert_eq!(bench.settle(), [3, 3]);
    assert_eq!(bench.go_on("a").unwrap(), Answer { member_id: "a".into(), epoch: 2, assigned: None });
    bench.join("c").unwrap();
    assert_eq!(bench.settle(), [2, 2, 2]);
    bench.send(beat("b", LEAVE)).unwrap();
    bench.clients.remove("b");
    assert_eq!(bench.settle(), [3, 3]);
}

#[test]
fn epochs_fence_members_and_a_lost_response_does_not() {
    let mut bench = Bench::new(2);
    bench.join("a").unwrap();
    bench.join("b").unwrap();
    bench.settle();
    assert_eq!(code(bench.send(beat("a", 7))), ErrorCode::FENCED_MEMBER_EPOCH);
    assert_eq!(
        code(bench.send(beat("a", 1))),
        ErrorCode::FENCED_MEMBER_EPOCH,
        "it does not say what it owns"
    );
    let mut again = beat("a", 1);
    again.owned = Some(Partitions::new());
    assert_eq!(code(bench.send(again)), ErrorCode::NONE);
    assert_eq!(code(bench.send(beat("x", 1))), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(bench.group.check_commit("a", 2), Ok(()));
    assert_eq!(bench.group.check_commit("a", 1), Err(ErrorCode::STALE_MEMBER_EPOCH));
    assert_eq!(bench.group.check_commit("", -1), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    // A fenced member joins again under its id.
    assert_eq!(bench.join("a").unwrap().assigned.map(|all| all.len()), Some(1));
    assert_eq!(bench.settle(), [1, 1]);
}

#[test]
fn silent_members_and_those_that_keep_partitions_are_removed() {
    let mut bench = Bench::new(4);
    bench.join("a").unwrap();
    bench.join("b").unwrap();
    bench.settle();
    bench.now += SESSION - Duration::from_secs(1);
    bench.go_on("b").unwrap();
    bench.now += Duration::from_secs(1);
    assert!(bench.group.wake_at().unwrap() <= bench.now);
    assert_eq!(bench.group.on_timeout(bench.now).removed, [Str::from("a")]);
    bench.clients.remove("a");
    assert_eq!(bench.settle(), [4]);
    bench.join("c").unwrap();
    // b is told to give up two, and goes on without doing so.
    for _ in 0..2 {
        let owned = bench.clients["b"].1.clone();
        let mut keeps = beat("b", bench.clients["b"].0);
        keeps.owned = Some(owned);
        bench.send(keeps).unwrap();
        bench.go_on("c").unwrap();
        bench.now += Duration::from_secs(30);
    }
    assert_eq!(bench.group.on_timeout(bench.now).removed, [Str::from("b")]);
    bench.clients.remove("b");
    assert_eq!(bench.settle(), [4]);
}

#[test]
fn static_members_keep_their_place() {
    let mut bench = Bench::new(4);
    let fixed = |beat: &mut Heartbeat| beat.instance_id = Some("i".into());
    bench.join_as("a", fixed).unwrap();
    bench.join("b").unwrap();
    bench.settle();
    let had = bench.clients["a"].1.clone();
    assert_eq!(code(bench.join_as("a2", fixed)), ErrorCode::UNRELEASED_INSTANCE_ID);
    let mut leave = beat("a", LEAVE_FOR_NOW);
    leave.instance_id = Some("i".into());
    bench.send(leave).unwrap();
    bench.clients.remove("a");
    let epoch = bench.group.epoch();
    assert_eq!(bench.go_on("b").unwrap().assigned, None, "nothing moves");
    let back = bench.join_as("a2", fixed).unwrap();
    assert_eq!((back.epoch, back.assigned), (epoch, Some(had)));
    let mut old = beat("a", epoch);
    old.instance_id = Some("i".into());
    assert_eq!(code(bench.send(old)), ErrorCode::FENCED_INSTANCE_ID);
}

#[test]
fn patterns_and_new_partitions_are_followed() {
    let mut bench = Bench::new(2);
    let by_pattern = |beat: &mut Heartbeat| {
        beat.names = None;
        beat.pattern = Some("t".into());
    };
    assert_eq!(bench.join_as("a", by_pattern).unwrap().assigned.map(|all| all.len()), Some(2));
    bench.topics.set("t2", 2, 3);
    assert_eq!(bench.go_on("a").unwrap().assigned.map(|all| all.len()), Some(5));
    bench.topics.set("t", 1, 4);
    bench.topics.set("other", 3, 4);
    assert_eq!(bench.settle(), [7]);
    let epoch = bench.clients["a"].0;
    let mut none = beat("a", epoch);
    none.pattern = Some(Str::default());
    let told = bench.send(none).unwrap();
    assert_eq!((told.epoch, told.assigned.map(|all| all.len())), (epoch, Some(0)), "it has to give up all");
}

#[test]
fn a_restart_goes_on_with_what_members_have() {
    let mut bench = Bench::new(6);
    bench.join_as("a", |beat| beat.assignor = Some(Assignor::Range)).unwrap();
    bench.join("b").unwrap();
    bench.settle();
    bench.join("c").unwrap();
    bench.go_on("a").unwrap();
    let mut restored = ConsumerGroup::new("g".into(), SESSION);
    let mut changes = Changes::default();
    restored.restore(bench.group.row()).unwrap();
    for id in ["a", "b", "c"] {
        let (key, row) = (bench.group.member_key(id), bench.group.member_row(id).unwrap());
        assert_eq!(split_key(&key.into()), Some(("g".into(), Some(id.into()))));
        restored.restore_member(id.into(), row, bench.now, &mut changes).unwrap();
    }
    assert_eq!(split_key(&bench.group.key().into()), Some(("g".into(), None)));
    assert_eq!(restored.row(), bench.group.row());
    assert_eq!(changes, Changes::default());
    bench.group = restored;
    assert_eq!(bench.settle(), [2, 2, 2]);
    assert_eq!(bench.group.assignor(), Assignor::Range);
    assert!(bench.group.restore(vec![9].into()).is_err());
}

#[test]
fn members_and_their_subscriptions_are_bounded() {
    let mut bench = Bench::new(1);
    bench.limits.members_max = 1;
    bench.limits.bytes_max = 100;
    bench.join("a").unwrap();
    assert_eq!(code(bench.join("b")), ErrorCode::GROUP_MAX_SIZE_REACHED);
    let mut long = beat("a", 1);
    long.names = Some(vec!["n".repeat(100).into()]);
    assert_eq!(code(bench.send(long)), ErrorCode::GROUP_MAX_SIZE_REACHED);
    assert_eq!(code(bench.go_on("a")), ErrorCode::NONE);
}

#[test]
fn what_members_call_themselves_counts_as_well() {
    let texts: [fn(&mut Heartbeat, Str); 4] = [
        |beat, text| beat.instance_id = Some(text),
        |beat, text| beat.rack_id = Some(text),
        |beat, text| beat.client_id = text,
        |beat, text| beat.member_id = text,
    ];
    for set in texts {
        let mut bench = Bench::new(1);
        bench.limits.bytes_max = 200;
        let long = |beat: &mut Heartbeat| set(beat, "x".repeat(200).into());
        assert_eq!(code(bench.join_as("a", long)), ErrorCode::GROUP_MAX_SIZE_REACHED);
        let short = |beat: &mut Heartbeat| set(beat, "x".repeat(90).into());
        assert_eq!(code(bench.join_as("a", short)), ErrorCode::NONE);
        assert!(bench.group.bytes() >= 90);
        let other = |beat: &mut Heartbeat| beat.client_id = "x".repeat(110).into();
        assert_eq!(code(bench.join_as("b", other)), ErrorCode::GROUP_MAX_SIZE_REACHED);
    }
    // A member that goes on may change its name and its rack.
    let mut bench = Bench::new(1);
    bench.limits.bytes_max = 200;
    bench.join("a").unwrap();
    let mut named = beat("a", 1);
    named.client_id = "x".repeat(200).into();
    assert_eq!(code(bench.send(named)), ErrorCode::GROUP_MAX_SIZE_REACHED);
    let mut placed = beat("a", 1);
    placed.rack_id = Some("x".repeat(200).into());
    assert_eq!(code(bench.send(placed)), ErrorCode::GROUP_MAX_SIZE_REACHED);
    assert_eq!(code(bench.go_on("a")), ErrorCode::NONE);
}

#[test]
fn a_member_that_joins_again_takes_its_new_instance_id() {
    let mut bench = Bench::new(1);
    let with = |id: &'static str| move |beat: &mut Heartbeat| beat.instance_id = Some(id.into());
    bench.join("a").unwrap();
    bench.join_as("a", with("i")).unwrap();
    let mut goes_on = beat("a", 1);
    goes_on.instance_id = Some("i".into());
    assert_eq!(code(bench.send(goes_on)), ErrorCode::NONE);
    assert_eq!(code(bench.join_as("b", with("i"))), ErrorCode::UNRELEASED_INSTANCE_ID);
    bench.join_as("a", with("j")).unwrap();
    assert_eq!(code(bench.join_as("b", with("i"))), ErrorCode::NONE, "it is free");
    // It keeps its instance id if it does not tell one, as in Kafka.
    bench.join("a").unwrap();
    assert_eq!(code(bench.join_as("c", with("j"))), ErrorCode::UNRELEASED_INSTANCE_ID);
}

/// A group of these rows, in their order, and what was mended.
fn restored(bench: &Bench, rows: [(&'static str, &Bytes); 2]) -> (ConsumerGroup, Changes) {
    let (mut group, mut changes) = (ConsumerGroup::new("g".into(), SESSION), Changes::default());
    group.restore(bench.group.row()).unwrap();
    for (id, row) in rows {
        group.restore_member(id.into(), row.clone(), bench.now, &mut changes).unwrap();
    }
    (group, changes)
}

#[test]
fn of_two_rows_with_an_instance_id_the_successor_is_restored() {
    let mut bench = Bench::new(4);
    let fixed = |beat: &mut Heartbeat| beat.instance_id = Some("i".into());
    bench.join_as("a", fixed).unwrap();
    let before = bench.group.member_row("a").unwrap();
    let leave = Heartbeat { instance_id: Some("i".into()), ..beat("a", LEAVE_FOR_NOW) };
    bench.send(leave).unwrap();
    let left = bench.group.member_row("a").unwrap();
    bench.clients.remove("a");
    bench.join_as("b", fixed).unwrap();
    let new = bench.group.member_row("b").unwrap();
    let (epoch, owned) = bench.clients["b"].clone();
    for order in [[("a", &left), ("b", &new)], [("b", &new), ("a", &left)]] {
        let (group, changes) = restored(&bench, order);
        bench.group = group;
        assert_eq!((changes.members, changes.removed), (vec![], vec!["a".into()]));
        let goes_on =
            Heartbeat { instance_id: Some("i".into()), owned: Some(owned.clone()), ..beat("b", epoch) };
        assert_eq!(code(bench.send(goes_on.clone())), ErrorCode::NONE);
        // It goes on with what it has, and shares with others.
        bench.now += SESSION - Duration::from_secs(1);
        assert_eq!(code(bench.send(Heartbeat { epoch: bench.group.epoch(), ..goes_on })), ErrorCode::NONE);
        bench.now += Duration::from_secs(1);
        assert_eq!(bench.group.on_timeout(bench.now), Changes::default());
        assert_eq!(bench.group.members().map(|member| member.assigned.len()).collect::<Vec<_>>(), [4]);
        let mut again = beat("b", bench.group.epoch());
        again.instance_id = Some("j".into());
        assert_eq!(code(bench.send(again)), ErrorCode::UNKNOWN_MEMBER_ID);
    }
    // The first one did not leave, as far as its row tells: the last row has the id.
    for (order, last) in [([("a", &before), ("b", &new)], "b"), ([("b", &new), ("a", &before)], "a")] {
        let (group, _) = restored(&bench, order);
        let members: Vec<_> = group.members().map(|member| (&*member.id, member.assigned.len())).collect();
        assert_eq!(members, [(last, 4)]);
    }
}

#[test]
fn a_member_that_lost_partitions_to_another_row_joins_again() {
    let mut bench = Bench::new(4);
    bench.join("a").unwrap();
    let old = bench.group.member_row("a").unwrap();
    bench.join("b").unwrap();
    bench.settle();
    let (new, before) = (bench.group.member_row("b").unwrap(), bench.clients["b"].clone());
    for order in [[("a", &old), ("b", &new)], [("b", &new), ("a", &old)]] {
        let (group, changes) = restored(&bench, order);
        bench.group = group;
        let owned: usize = bench.group.members().map(|member| member.assigned.len()).sum();
        assert_eq!(owned, 4, "each has one owner");
        let [(kept, _), (lost, _)] = order;
        assert_eq!((changes.members, changes.removed), (vec![lost.into()], vec![]));
        bench.clients.clear();
        let all = (0..4).map(|partition| (1, partition)).collect();
        let (of_kept, of_lost) = if kept == "a" { ((1, all), 2) } else { (before.clone(), 1) };
        bench.clients.insert(kept, of_kept);
        bench.go_on(kept).unwrap();
        assert_eq!(code(bench.send(beat(lost, of_lost))), ErrorCode::FENCED_MEMBER_EPOCH);
        bench.join(lost).unwrap();
        assert_eq!(bench.settle(), [2, 2]);
    }
}

#[test]
fn what_a_member_had_before_it_took_another_place_is_assigned_again() {
    let mut bench = Bench::new(6);
    let fixed = |beat: &mut Heartbeat| beat.instance_id = Some("i".into());
    bench.join_as("a", fixed).unwrap();
    bench.join("b").unwrap();
    bench.join("c").unwrap();
    bench.settle();
    let leave = Heartbeat { instance_id: Some("i".into()), ..beat("a", LEAVE_FOR_NOW) };
    bench.send(leave).unwrap();
    bench.clients.remove("a");
    bench.join_as("b", fixed).unwrap();
    assert_eq!(bench.settle(), [3, 3]);
}

#[test]
fn an_unknown_member_that_goes_on_is_told_so_however_much_it_asks_for() {
    let mut bench = Bench::new(1);
    bench.limits.bytes_max = 100;
    bench.join("a").unwrap();
    let much = |id, epoch| Heartbeat { names: Some(vec!["n".repeat(100).into()]), ..beat(id, epoch) };
    assert_eq!(code(bench.send(much("x", 1))), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(code(bench.send(much("a", 7))), ErrorCode::FENCED_MEMBER_EPOCH);
    let refused = bench.send(much("a", 1)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::GROUP_MAX_SIZE_REACHED);
    assert_eq!(refused.text, "The members of the group take too much memory.");
}

#[test]
fn what_a_member_has_is_not_counted_again_when_it_joins_again() {
    let mut bench = Bench::new(1);
    let told = |beat: &mut Heartbeat| {
        let text = |letter: &str| letter.repeat(20).into();
        (beat.instance_id, beat.rack_id, beat.client_id) = (Some(text("i")), Some(text("r")), text("c"));
        (beat.names, beat.pattern) = (Some(vec![text("m"), text("n")]), Some(text("p")));
    };
    bench.limits.bytes_max = 200;
    bench.join_as("a", told).unwrap();
    bench.limits.bytes_max = bench.group.bytes();
    bench.join_as("a", told).unwrap();
    let more = |beat: &mut Heartbeat| {
        told(beat);
        beat.names.iter_mut().for_each(|names| names.push("o".into()));
    };
    assert_eq!(code(bench.join_as("a", more)), ErrorCode::GROUP_MAX_SIZE_REACHED);
    // Nor when another one takes its place.
    let leave = Heartbeat { instance_id: Some("i".repeat(20).into()), ..beat("a", LEAVE_FOR_NOW) };
    bench.send(leave).unwrap();
    bench.limits.bytes_max = bench.group.bytes() + 1;
    bench.join_as("b", told).unwrap();
    assert_eq!(bench.group.members().count(), 1);
}

#[test]
fn a_heartbeat_after_a_change_of_topics_is_known_beforehand() {
    let mut bench = Bench::new(2);
    let by_pattern = |beat: &mut Heartbeat| beat.pattern = Some("t".into());
    bench.join_as("a", by_pattern).unwrap();
    bench.join_as("b", by_pattern).unwrap();
    bench.join("c").unwrap();
    bench.settle();
    let behind = |bench: &Bench| ["a", "b", "c"].map(|id| bench.group.is_behind(id, bench.topics.version()));
    assert_eq!(behind(&bench), [false, false, false]);
    bench.topics.set("t2", 2, 2);
    assert_eq!(behind(&bench), [true, true, true]);
    bench.go_on("a").unwrap();
    // The topics are found again; the pattern of the other one is not matched yet.
    assert_eq!(behind(&bench), [false, true, false]);
    bench.go_on("b").unwrap();
    assert_eq!(behind(&bench), [false, false, false]);
    bench.send(beat("c", LEAVE)).unwrap();
    assert_eq!(behind(&bench), [true, true, true]);
}

#[test]
fn rows_are_kept_in_this_form() {
    let mut bench = Bench::new(1);
    bench.join("m").unwrap();
    assert_eq!(&bench.group.row()[..], b"\x01\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\0");
    let topic = b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02\0\0\0\0\0";
    let row = [
        b"\x01\0\0\x02c\x03/h\0\0\xea\x60\x02\x02t\0\x01\0\0\0\0\x01\0\0\0\0\0\x02".as_slice(),
        topic,
        b"\x01\0",
    ];
    assert_eq!(bench.group.member_row("m").unwrap()[..], row.concat());
    assert_eq!(bench.group.member_key("m"), b"\0\0\0\x01gm");
    assert_eq!(bench.group.key(), b"\0\0\0\x01g");
}
