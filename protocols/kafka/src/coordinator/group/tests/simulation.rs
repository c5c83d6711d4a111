//! A simulation: members that behave as Kafka's clients do, over a coordinator that stops at any step and restarts from the
//! row that was written last. A partition never belongs to two members that the group would both let commit.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

use super::super::seeded_bugs::{Bug, seed};
use super::*;

const CASES: u32 = 256;
const STEPS_MAX: usize = 300;
const MEMBERS: usize = 5;
const PARTITIONS: usize = 4;
/// Longer than a rebalance that waits for members that are gone, twice.
const SETTLED_SECONDS: u32 = 200;

/// Assignments: the partitions whose bits are set in the index.
const ASSIGNMENTS: [&str; 1 << PARTITIONS] =
    ["-", "0", "1", "01", "2", "02", "12", "012", "3", "03", "13", "013", "23", "023", "123", "0123"];

/// A member as its client knows it.
#[derive(Default)]
struct Client {
    id: String,
    generation: i32,
    joining: Option<u32>,
    syncing: Option<u32>,
    /// What it works on.
    owned: Vec<usize>,
    /// What it worked on before, and as of which generation: a commit of that may come late.
    before: (i32, Vec<usize>),
    is_leader: bool,
    /// It was told that a rebalance goes on.
    must_join: bool,
    /// The members that the leader assigns to.
    members: Vec<String>,
}

struct Simulation {
    test: TestGroup,
    clients: Vec<Client>,
    /// The row of the last write that is on the disk.
    stored: Bytes,
}

/// The partitions of the member at a place among so many.
fn assignment(place: usize, members: usize) -> &'static str {
    let mine = (0..PARTITIONS).filter(|partition| partition % members == place);
    ASSIGNMENTS[mine.map(|partition| 1 << partition).sum::<usize>()]
}

fn partitions_in(assignment: &[u8]) -> Vec<usize> {
    let digits = assignment.iter().filter(|digit| digit.is_ascii_digit());
    digits.map(|digit| usize::from(digit - b'0')).collect()
}

impl Simulation {
    fn new(initial_delay: Duration) -> Simulation {
        let mut test = TestGroup::new();
        test.limits.initial_delay = initial_delay;
        let stored = test.group.snapshot();
        let clients = (0..MEMBERS).map(|_| Client::default()).collect();
        Simulation { test, clients, stored }
    }

    /// A client does something, or time passes.
    fn step(&mut self, what: u8, at: usize, seconds: u32) {
        match what {
            0..5 => self.join(at),
            5..10 => self.sync(at),
            10..14 => self.heartbeat(at),
            14 => self.leave(at),
            // It is gone without a word, and a new one comes for it.
            15 => self.clients[at] = Client::default(),
            16 => self.restart(),
            _ => self.test.pass(SECOND * seconds),
        }
        self.answers();
        self.check();
    }

    fn join(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.joining.is_some() || client.syncing.is_some() {
            return;
        }
        // What a client owns it gives up before it joins again.
        if !client.owned.is_empty() {
            client.before = (client.generation, std::mem::take(&mut client.owned));
        }
        client.must_join = false;
        let options = JoinOptions { member_id: client.id.as_str().into(), ..JoinOptions::default() };
        let waiter = self.test.join(options);
        self.clients[at].joining = Some(waiter);
    }

    fn sync(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.id.is_empty()
            || client.generation == 0
            || client.syncing.is_some()
            || client.joining.is_some()
        {
            return;
        }
        let (id, generation) = (client.id.clone(), client.generation);
        let members = if client.is_leader { client.members.clone() } else { Vec::new() };
        let assigned = |(place, member)| (String::as_str(member), assignment(place, members.len()));
        let assignments: Vec<(&str, &'static str)> = members.iter().enumerate().map(assigned).collect();
        let waiter = self.test.sync(&id, generation, &assignments);
        self.clients[at].syncing = Some(waiter);
    }

    /// The answers that came.
    fn answers(&mut self) {
        // The coordinator answers a sync once the row is on the disk.
        if std::mem::take(&mut self.test.changed) {
            self.stored = self.test.group.snapshot();
        }
        for client in &mut self.clients {
            if let Some(joined) = client.joining.and_then(|waiter| self.test.joined.remove(&waiter)) {
                client.joining = None;
                if joined.error != ErrorCode::NONE {
                    *client = Client { id: String::new(), ..Client::default() };
                    continue;
                }
                // A generation that was not written may come again: nobody had an assignment of it.
                client.id = joined.member_id.to_string();
                client.generation = joined.generation;
                client.is_leader = joined.leader == joined.member_id && !joined.skip_assignment;
                client.members = joined.members.iter().map(|(id, ..)| id.to_string()).collect();
            }
            if let Some(synced) = client.syncing.and_then(|waiter| self.test.synced.remove(&waiter)) {
                client.syncing = None;
                match synced.error {
                    ErrorCode::NONE => {
                        client.owned = partitions_in(&synced.assignment);
                    }
                    ErrorCode::REBALANCE_IN_PROGRESS => client.must_join = true,
                    _ => *client = Client::default(),
                }
            }
        }
    }

    fn heartbeat(&mut self, at: usize) {
        let client = &self.clients[at];
        if client.id.is_empty() || client.joining.is_some() {
            return;
        }
        let error = self.test.heartbeat(&client.id.clone(), client.generation);
        match error {
            ErrorCode::NONE => {}
            ErrorCode::REBALANCE_IN_PROGRESS => self.clients[at].must_join = true,
            _ => self.clients[at] = Client::default(),
        }
    }

    fn leave(&mut self, at: usize) {
        if !self.clients[at].id.is_empty() {
            self.test.leave(&self.clients[at].id.clone(), None);
        }
        self.clients[at] = Client::default();
    }

    /// The broker stops, and restores the group from what was written. Requests that waited are lost: clients repeat them.
    fn restart(&mut self) {
        self.test.group = Group::restore("g".into(), self.stored.clone(), self.test.now).unwrap();
        self.test.joined.clear();
        self.test.synced.clear();
        for client in &mut self.clients {
            (client.joining, client.syncing) = (None, None);
        }
    }

    /// Whether a commit of a generation would be taken. To ask does not renew the member's session.
    fn is_taken(&mut self, id: &str, generation: i32) -> bool {
        let (group, now, id) = (&mut self.test.group, self.test.now, Str::from(id));
        let deadline = group.members.get(&id).map(|member| member.deadline);
        let is_taken = group.check_commit(&id, None, generation, now).is_ok();
        if let (Some(member), Some(deadline)) = (group.members.get_mut(&id), deadline) {
            member.deadline = deadline;
        }
        is_taken
    }

    /// No partition belongs to two members whose commits are taken, those included that come late.
    fn check(&mut self) {
        let mut owners: [Option<String>; PARTITIONS] = [const { None }; PARTITIONS];
        for at in 0..MEMBERS {
            let Client { id, generation, owned, .. } = &self.clients[at];
            let (id, generation, owned) = (id.clone(), *generation, owned.clone());
            if owned.is_empty() || !self.is_taken(&id, generation) {
                continue;
            }
            for partition in owned {
                let other = owners[partition].replace(id.clone());
                assert_eq!(other, None, "partition {partition} is {id}'s too");
            }
        }
        for at in 0..MEMBERS {
            let Client { id, before: (generation, partitions), .. } = &self.clients[at];
            let (id, generation, partitions) = (id.clone(), *generation, partitions.clone());
            if partitions.is_empty() || !self.is_taken(&id, generation) {
                continue;
            }
            for partition in partitions {
                let owner = owners[partition].as_ref();
                assert!(owner.is_none_or(|owner| *owner == id), "{id} commits {partition} of {owner:?} late");
            }
        }
    }

    /// Clients that go on without a fault come to a generation in which every partition has an owner.
    fn settle(&mut self) {
        for _ in 0..SETTLED_SECONDS {
            self.test.pass(SECOND);
            self.answers();
            for at in 0..MEMBERS {
                if self.clients[at].id.is_empty() || self.clients[at].must_join {
                    self.join(at);
                } else if self.clients[at].owned.is_empty() {
                    self.sync(at);
                }
                self.answers();
                self.heartbeat(at);
                self.check();
            }
        }
        let mut owned: Vec<usize> = self.clients.iter().flat_map(|client| client.owned.clone()).collect();
        owned.sort_unstable();
        assert_eq!(owned, (0..PARTITIONS).collect::<Vec<_>>(), "each partition has a member");
        let group = &self.test.group;
        assert_eq!((group.state(), group.members.len()), (State::Stable, MEMBERS));
        for client in self.clients.iter().filter(|client| !client.owned.is_empty()) {
            assert_eq!(client.generation, self.test.group.generation, "{} is of the generation", client.id);
        }
        // A restart keeps who works on what.
        self.restart();
        for client in &self.clients {
            let member = &self.test.group.members[&Str::from(client.id.as_str())];
            assert_eq!(partitions_in(&member.assignment), client.owned, "{}", client.id);
        }
    }
}

/// Runs so many scripts. Fails with the shortest that fails.
fn simulate(cases: u32) -> Result<(), TestError<impl std::fmt::Debug>> {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let steps = proptest::collection::vec((0u8..20, 0..MEMBERS, 0u32..6), 1..STEPS_MAX);
    runner.run(&(0u64..2, steps), |(delay_s, steps)| {
        let mut simulation = Simulation::new(Duration::from_secs(delay_s));
        steps.into_iter().for_each(|(what, at, seconds)| simulation.step(what, at, seconds));
        simulation.settle();
        Ok(())
    })
}

#[test]
fn no_partition_has_two_owners_through_restarts_at_any_step() {
    simulate(CASES).unwrap();
}

#[test]
fn each_seeded_bug_is_found() {
    let missed: Vec<Bug> = Bug::ALL
        .into_iter()
        .filter(|bug| {
            seed(Some(*bug));
            let is_found = simulate(CASES).is_err();
            seed(None);
            !is_found
        })
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
}
