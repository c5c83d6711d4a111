//! Groups as their members see them: [`TestGroup`] holds a group, a manual clock, and the responses so far.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::member::metadata_bytes;
use super::*;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::config::GroupLimits;

mod commits;
mod expiry;
mod many;
mod rebalances;
mod simulation;
mod static_members;

const SECOND: Duration = Duration::from_secs(1);

struct TestGroup {
    group: Group<u32, u32>,
    limits: GroupLimits,
    now: Instant,
    joined: HashMap<u32, Joined>,
    synced: HashMap<u32, Synced>,
    asked: u32,
    changed: bool,
}

struct JoinOptions {
    member_id: Str,
    instance_id: Option<Str>,
    requires_known_member_id: bool,
    supports_skip_assignment: bool,
    protocols: Vec<(&'static str, &'static str)>,
    protocol_type: &'static str,
    session_timeout: Duration,
}

impl Default for JoinOptions {
    fn default() -> JoinOptions {
        JoinOptions {
            member_id: Str::default(),
            instance_id: None,
            requires_known_member_id: false,
            supports_skip_assignment: false,
            protocols: vec![("range", "topics")],
            protocol_type: "consumer",
            session_timeout: 10 * SECOND,
        }
    }
}

impl TestGroup {
    fn new() -> TestGroup {
        TestGroup {
            group: Group::new("g".into()),
            limits: GroupLimits { initial_delay: Duration::ZERO, ..GroupLimits::default() },
            now: Instant::now(),
            joined: HashMap::new(),
            synced: HashMap::new(),
            asked: 0,
            changed: false,
        }
    }

    fn apply(&mut self, effects: Effects<u32, u32>) {
        for (waiter, joined) in effects.joined {
            assert!(self.joined.insert(waiter, joined).is_none(), "two responses");
        }
        for (waiter, synced) in effects.synced {
            assert!(self.synced.insert(waiter, synced).is_none(), "two responses");
        }
        self.changed |= effects.changed;
    }

    fn join(&mut self, options: JoinOptions) -> u32 {
        self.asked += 1;
        let waiter = self.asked;
        let mut effects = Effects::default();
        let join = Join {
            waiter,
            member_id: options.member_id,
            new_member_id: format!("m{waiter}").into(),
            instance_id: options.instance_id,
            requires_known_member_id: options.requires_known_member_id,
            supports_skip_assignment: options.supports_skip_assignment,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout: options.session_timeout,
            rebalance_timeout: 60 * SECOND,
            protocol_type: options.protocol_type.into(),
            protocols: (options.protocols.into_iter())
                .map(|(name, metadata)| MemberProtocol {
                    name: name.into(),
                    metadata: Bytes::from_static(metadata.as_bytes()),
                })
                .collect(),
        };
        self.group.join(join, &self.limits.clone(), self.now, &mut effects);
        self.apply(effects);
        self.pass(Duration::ZERO);
        waiter
    }

    fn join_new(&mut self) -> u32 {
        self.join(JoinOptions::default())
    }

    fn rejoin(&mut self, member_id: &str) -> u32 {
        self.join(JoinOptions { member_id: member_id.into(), ..JoinOptions::default() })
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
                .map(|(id, assignment)| ((*id).into(), Bytes::from_static(assignment.as_bytes())))
                .collect(),
        };
        let mut effects = Effects::default();
        self.group.sync(sync, &self.limits.clone(), self.now, &mut effects);
        self.apply(effects);
        self.asked
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> ErrorCode {
        self.group.heartbeat(&member_id.into(), None, generation, self.now)
    }

    fn leave(&mut self, member_id: &str, instance_id: Option<&str>) -> ErrorCode {
        let mut effects = Effects::default();
        let leave = Leave { member_id: member_id.into(), instance_id: instance_id.map(Str::from) };
        let error = self.group.leave(&leave, &self.limits.clone(), self.now, &mut effects);
        self.apply(effects);
        self.pass(Duration::ZERO);
        error
    }

    /// Advances the clock and handles all timeouts on the way, in order.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..10_000 {
            let Some(at) = self.group.wake_at().filter(|at| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = at.max(self.now);
            let mut effects = Effects::default();
            self.group.on_timeout(&self.limits.clone(), self.now, &mut effects);
            self.apply(effects);
        }
        panic!("the group schedules timeouts without end");
    }

    fn joined(&self, waiter: u32) -> &Joined {
        self.joined.get(&waiter).expect("no response to the join")
    }

    fn synced(&self, waiter: u32) -> &Synced {
        self.synced.get(&waiter).expect("no response to the sync")
    }

    /// Makes the group stable with `count` members `m…`, and returns their ids, the leader first.
    fn stable(&mut self, count: usize) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for _ in 0..count {
            let waiter = self.join_new();
            let again: Vec<u32> = ids.iter().map(|id| self.rejoin(id)).collect();
            for waiter in again {
                assert_eq!(self.joined(waiter).error, ErrorCode::NONE);
            }
            ids.push(self.joined(waiter).member_id.to_string());
        }
        let generation = self.group.generation;
        for id in ids.iter().rev() {
            self.sync(id, generation, &[("m1", "work")]);
        }
        assert_eq!(self.group.state(), State::Stable);
        ids
    }
}
