//! Many members, and members that do anything at any time.

use proptest::prelude::*;

use super::*;

#[test]
fn two_thousand_members_rebalance() {
    let mut world = World::new();
    world.limits.initial_delay = SECOND;
    let waiters: Vec<u32> = (0..2000).map(|_| world.come()).collect();
    world.pass(3 * SECOND);
    let ids: Vec<Str> = waiters.iter().map(|waiter| world.joined(*waiter).member_id.clone()).collect();
    assert_eq!(world.joined(waiters[0]).members.len(), 2000);
    let work: Vec<(&str, &'static str)> = ids.iter().map(|id| (id.as_str(), "work")).collect();
    world.sync(&ids[0], 1, &work);
    for id in &ids[1..] {
        let sync = world.sync(id, 1, &[]);
        assert_eq!(world.synced(sync).assignment, "work");
    }
    // One leaves; all the others join again, in any order.
    world.leave(&ids[1000], None);
    let again: Vec<u32> =
        ids.iter().rev().filter(|id| **id != ids[1000]).map(|id| world.come_again(id)).collect();
    assert!(again.iter().all(|waiter| world.joined(*waiter).generation == 2));
    assert_eq!(world.joined(again[1998]).members.len(), 1999);
}

#[derive(Debug, Clone)]
enum Act {
    Join { who: usize, fresh: bool, learns: bool, instance: bool, other: bool },
    Sync { who: usize },
    Leave { who: usize },
    Heartbeat { who: usize },
    HangUp { who: usize },
    Pass { seconds: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0usize..6;
    prop_oneof![
        (who.clone(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(who, fresh, learns, instance, other)| Act::Join { who, fresh, learns, instance, other }
        ),
        who.clone().prop_map(|who| Act::Sync { who }),
        who.clone().prop_map(|who| Act::Leave { who }),
        who.clone().prop_map(|who| Act::Heartbeat { who }),
        who.prop_map(|who| Act::HangUp { who }),
        (0u64..20).prop_map(|seconds| Act::Pass { seconds }),
    ]
}

impl World {
    fn check(&self) {
        let group = &self.group;
        assert_eq!(group.members.len(), group.order.len());
        assert!(group.order.iter().all(|id| group.members.contains_key(id)));
        assert!(group.instances.values().all(|id| group.members.contains_key(id)));
        let instances = group.members.values().filter(|m| m.instance_id.is_some()).count();
        assert_eq!(group.instances.len(), instances);
        assert_eq!(group.joining, group.members.values().filter(|m| m.joining.is_some()).count());
        let said: usize = group.members.values().map(|m| said_bytes(&m.protocols)).sum();
        assert_eq!(group.said_bytes, said);
        let assigned: usize = group.members.values().map(|m| m.assignment.len()).sum();
        assert_eq!(group.assigned_bytes, assigned);
        if let Some(leader) = &group.leader {
            assert!(group.members.contains_key(leader), "a leader that is no member");
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

    /// Whatever members do, the group stays sound, everyone is answered once, and in the end it comes to rest.
    #[test]
    fn any_acts_in_any_order(acts in proptest::collection::vec(act(), 1..80), delay in 0u32..3) {
        let mut world = World::new();
        world.limits.initial_delay = delay * SECOND;
        let mut ids: Vec<Str> = vec![Str::default(); 6];
        let mut last_join: Vec<Option<u32>> = vec![None; 6];
        for act in acts {
            for (id, waiter) in ids.iter_mut().zip(&last_join) {
                if let Some(joined) = waiter.and_then(|w| world.joined.get(&w)) {
                    *id = joined.member_id.clone();
                }
            }
            let generation = world.group.generation();
            match act {
                Act::Join { who, fresh, learns, instance, other } => {
                    last_join[who] = Some(world.join(Ask {
                        member_id: if fresh { Str::default() } else { ids[who].clone() },
                        instance_id: instance.then(|| format!("i{who}").into()),
                        learns_id_first: learns,
                        skips_assignment: learns,
                        protocols: if other { vec![("robin", "r"), ("range", "")] } else { vec![("range", "xy")] },
                        ..Ask::default()
                    }));
                }
                Act::Sync { who } => {
                    let work: Vec<Str> = ids.clone();
                    let work: Vec<(&str, &'static str)> = work.iter().map(|id| (id.as_str(), "w")).collect();
                    world.sync(&ids[who].clone(), generation, &work);
                }
                Act::Leave { who } => {
                    world.leave(&ids[who].clone(), None);
                }
                Act::Heartbeat { who } => {
                    world.heartbeat(&ids[who].clone(), generation);
                }
                Act::HangUp { who } => {
                    let mut effects = Effects::default();
                    world.group.hung_up(&ids[who].clone(), |_| true, &world.limits.clone(), world.now, &mut effects);
                    world.keep(effects);
                }
                Act::Pass { seconds } => world.pass(seconds as u32 * SECOND),
            }
            world.check();
            let restored: Group<u32> = Group::restore("g".into(), world.group.snapshot(), world.now).unwrap();
            prop_assert_eq!(restored.members.len(), world.group.members.len());
        }
        // Left alone, everyone expires.
        world.pass(4000 * SECOND);
        world.check();
        prop_assert!(world.group.is_vacant());
        prop_assert_eq!(world.group.wake_at(), None);
    }
}
