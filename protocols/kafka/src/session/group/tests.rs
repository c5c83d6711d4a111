//! Groups as their members see them. A little world: a group, a clock, and the answers that came.

use super::*;

mod commits;
mod expiry;
mod many;
mod rebalances;
mod static_members;

const SECOND: Duration = Duration::from_secs(1);

struct World {
    group: Group<u32>,
    limits: GroupLimits,
    now: Instant,
    joined: HashMap<u32, Joined>,
    synced: HashMap<u32, Synced>,
    asked: u32,
    changed: bool,
}

struct Ask {
    member_id: Str,
    instance_id: Option<Str>,
    learns_id_first: bool,
    skips_assignment: bool,
    protocols: Vec<(&'static str, &'static str)>,
    protocol_type: &'static str,
    session_timeout: Duration,
}

impl Default for Ask {
    fn default() -> Ask {
        Ask {
            member_id: Str::default(),
            instance_id: None,
            learns_id_first: false,
            skips_assignment: false,
            protocols: vec![("range", "topics")],
            protocol_type: "consumer",
            session_timeout: 10 * SECOND,
        }
    }
}

impl World {
    fn new() -> World {
        World {
            group: Group::new("g".into()),
            limits: GroupLimits { initial_delay: Duration::ZERO, ..GroupLimits::default() },
            now: Instant::now(),
            joined: HashMap::new(),
            synced: HashMap::new(),
            asked: 0,
            changed: false,
        }
    }

    fn keep(&mut self, effects: Effects<u32>) {
        for (waiter, joined) in effects.joined {
            assert!(self.joined.insert(waiter, joined).is_none(), "answered twice");
        }
        for (waiter, synced) in effects.synced {
            assert!(self.synced.insert(waiter, synced).is_none(), "answered twice");
        }
        self.changed |= effects.changed;
    }

    fn join(&mut self, ask: Ask) -> u32 {
        self.asked += 1;
        let waiter = self.asked;
        let mut effects = Effects::default();
        let join = Join {
            waiter,
            member_id: ask.member_id,
            fresh_id: format!("m{waiter}").into(),
            instance_id: ask.instance_id,
            learns_id_first: ask.learns_id_first,
            skips_assignment: ask.skips_assignment,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout: ask.session_timeout,
            rebalance_timeout: 60 * SECOND,
            protocol_type: ask.protocol_type.into(),
            protocols: (ask.protocols.into_iter())
                .map(|(name, said)| MemberProtocol {
                    name: name.into(),
                    metadata: Bytes::from_static(said.as_bytes()),
                })
                .collect(),
        };
        self.group.join(join, &self.limits.clone(), self.now, &mut effects);
        self.keep(effects);
        self.pass(Duration::ZERO);
        waiter
    }

    fn come(&mut self) -> u32 {
        self.join(Ask::default())
    }

    fn come_again(&mut self, member_id: &str) -> u32 {
        self.join(Ask { member_id: member_id.into(), ..Ask::default() })
    }

    fn sync(&mut self, member_id: &str, generation: i32, assignments: &[(&str, &'static str)]) -> u32 {
        self.asked += 1;
        let sync = Sync {
            waiter: self.asked,
            member_id: member_id.into(),
            instance_id: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: assignments
                .iter()
                .map(|(id, work)| ((*id).into(), Bytes::from_static(work.as_bytes())))
                .collect(),
        };
        let mut effects = Effects::default();
        self.group.sync(sync, &self.limits.clone(), self.now, &mut effects);
        self.keep(effects);
        self.asked
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> ErrorCode {
        self.group.heartbeat(&member_id.into(), None, generation, self.now)
    }

    fn leave(&mut self, member_id: &str, instance_id: Option<&str>) -> ErrorCode {
        let mut effects = Effects::default();
        let leave = Leave { member_id: member_id.into(), instance_id: instance_id.map(Str::from) };
        let error = self.group.leave(&leave, &self.limits.clone(), self.now, &mut effects);
        self.keep(effects);
        self.pass(Duration::ZERO);
        error
    }

    /// Time passes, and everything that it brings about happens in its order.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..10_000 {
            let Some(at) = self.group.wake_at().filter(|at| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = at.max(self.now);
            let mut effects = Effects::default();
            self.group.tick(&self.limits.clone(), self.now, &mut effects);
            self.keep(effects);
        }
        panic!("time stands still");
    }

    fn joined(&self, waiter: u32) -> &Joined {
        self.joined.get(&waiter).expect("no answer to the join")
    }

    fn synced(&self, waiter: u32) -> &Synced {
        self.synced.get(&waiter).expect("no answer to the sync")
    }

    /// A stable group of `count` members `m…`; their ids, the leader first.
    fn stable(&mut self, count: usize) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for _ in 0..count {
            let waiter = self.come();
            let again: Vec<u32> = ids.iter().map(|id| self.come_again(id)).collect();
            for waiter in again {
                assert_eq!(self.joined(waiter).error, ErrorCode::NONE);
            }
            ids.push(self.joined(waiter).member_id.to_string());
        }
        let generation = self.group.generation();
        for id in ids.iter().rev() {
            self.sync(id, generation, &[("m1", "work")]);
        }
        assert_eq!(self.group.state(), State::Stable);
        ids
    }
}
