//! Many members, and random sequences of requests.

use proptest::prelude::*;

use super::*;

#[test]
fn two_thousand_members_rebalance() {
    let mut test = TestGroup::new();
    test.limits.initial_delay = SECOND;
    let waiters: Vec<u32> = (0..2000).map(|_| test.join_new()).collect();
    test.pass(3 * SECOND);
    let ids: Vec<Str> = waiters.iter().map(|waiter| test.joined(*waiter).member_id.clone()).collect();
    assert_eq!(test.joined(waiters[0]).members.len(), 2000);
    let assignments: Vec<(&str, &'static str)> = ids.iter().map(|id| (id.as_str(), "work")).collect();
    test.sync(&ids[0], 1, &assignments);
    for id in &ids[1..] {
        let sync = test.sync(id, 1, &[]);
        assert_eq!(test.synced(sync).assignment, "work");
    }
    // One leaves; the others rejoin in reverse order.
    test.leave(&ids[1000], None);
    let again: Vec<u32> = ids.iter().rev().filter(|id| **id != ids[1000]).map(|id| test.rejoin(id)).collect();
    assert!(again.iter().all(|waiter| test.joined(*waiter).generation == 2));
    assert_eq!(test.joined(again[1998]).members.len(), 1999);
}

#[derive(Debug, Clone)]
enum Act {
    Join { who: usize, fresh: bool, known_id: bool, instance: bool, other: bool },
    Sync { who: usize },
    Leave { who: usize },
    Heartbeat { who: usize },
    Disconnect { who: usize },
    Pass { seconds: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0usize..6;
    prop_oneof![
        (who.clone(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(who, fresh, known_id, instance, other)| Act::Join { who, fresh, known_id, instance, other }
        ),
        who.clone().prop_map(|who| Act::Sync { who }),
        who.clone().prop_map(|who| Act::Leave { who }),
        who.clone().prop_map(|who| Act::Heartbeat { who }),
        who.prop_map(|who| Act::Disconnect { who }),
        (0u64..20).prop_map(|seconds| Act::Pass { seconds }),
    ]
}

impl TestGroup {
    fn check(&self) {
        let group = &self.group;
        assert_eq!(group.members.len(), group.order.len());
        assert!(group.order.iter().all(|id| group.members.contains_key(id)));
        assert!(group.instances.values().all(|id| group.members.contains_key(id)));
        let instances = group.members.values().filter(|m| m.instance_id.is_some()).count();
        assert_eq!(group.instances.len(), instances);
        assert_eq!(group.joining, group.members.values().filter(|m| m.joining.is_some()).count());
        let metadata: usize = group.members.values().map(|m| metadata_bytes(&m.protocols)).sum();
        assert_eq!(group.metadata_bytes, metadata);
        let assigned: usize = group.members.values().map(|m| m.assignment.len()).sum();
        assert_eq!(group.assigned_bytes, assigned);
        if let Some(leader) = &group.leader {
            assert!(group.members.contains_key(leader), "the leader is not a member");
        }
        match group.state {
            State::Empty => assert!(group.members.is_empty()),
            State::Preparing => assert!(group.rebalance.is_some()),
            State::Completing => assert!(group.sync_deadline.is_some() && group.protocol.is_some()),
            State::Stable => {
                assert!(group.members.values().all(|m| m.syncing.is_none() && m.joining.is_none()));
            }
            State::Dead => {}
        }
        for count in group.support.values() {
            assert!(*count > 0 && *count <= group.members.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any sequence of requests keeps the invariants, gets one response each, and ends in an empty group.
    #[test]
    fn any_acts_in_any_order(acts in proptest::collection::vec(act(), 1..80), delay in 0u32..3) {
        let mut test = TestGroup::new();
        test.limits.initial_delay = delay * SECOND;
        let mut ids: Vec<Str> = vec![Str::default(); 6];
        let mut last_join: Vec<Option<u32>> = vec![None; 6];
        for act in acts {
            for (id, waiter) in ids.iter_mut().zip(&last_join) {
                if let Some(joined) = waiter.and_then(|w| test.joined.get(&w)) {
                    *id = joined.member_id.clone();
                }
            }
            let generation = test.group.generation;
            match act {
                Act::Join { who, fresh, known_id, instance, other } => {
                    last_join[who] = Some(test.join(JoinOptions {
                        member_id: if fresh { Str::default() } else { ids[who].clone() },
                        instance_id: instance.then(|| format!("i{who}").into()),
                        requires_known_member_id: known_id,
                        supports_skip_assignment: known_id,
                        protocols: if other { vec![("robin", "r"), ("range", "")] } else { vec![("range", "xy")] },
                        ..JoinOptions::default()
                    }));
                }
                Act::Sync { who } => {
                    let members: Vec<Str> = ids.clone();
                    let assignments: Vec<(&str, &'static str)> = members.iter().map(|id| (id.as_str(), "w")).collect();
                    test.sync(&ids[who].clone(), generation, &assignments);
                }
                Act::Leave { who } => {
                    test.leave(&ids[who].clone(), None);
                }
                Act::Heartbeat { who } => {
                    test.heartbeat(&ids[who].clone(), generation);
                }
                Act::Disconnect { who } => {
                    let mut effects = Effects::default();
                    test.group.disconnected(&ids[who].clone(), |_| true, |_| true, &test.limits.clone(), test.now, &mut effects);
                    test.apply(effects);
                }
                Act::Pass { seconds } => test.pass(seconds as u32 * SECOND),
            }
            test.check();
            let restored: Group<u32, u32> = Group::restore("g".into(), test.group.snapshot(), test.now).unwrap();
            prop_assert_eq!(restored.members.len(), test.group.members.len());
        }
        // Without further requests every member expires.
        test.pass(4000 * SECOND);
        test.check();
        prop_assert!(test.group.is_vacant());
        prop_assert_eq!(test.group.wake_at(), None);
    }
}
