//! Joining, syncing, leaving.

use super::*;

#[test]
fn a_lone_member_leads_itself() {
    let mut world = World::new();
    let waiter = world.come();
    let joined = world.joined(waiter).clone();
    assert_eq!((joined.error, joined.generation), (ErrorCode::NONE, 1));
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.protocol, Some("range".into()));
    assert_eq!(joined.protocol_type, Some("consumer".into()));
    assert_eq!(joined.members, vec![("m1".into(), None, Bytes::from_static(b"topics"))]);
    assert_eq!(world.group.state(), State::Completing);
    let sync = world.sync("m1", 1, &[("m1", "all of it")]);
    assert_eq!(world.synced(sync).assignment, "all of it");
    assert!(world.changed);
    assert_eq!(world.group.state(), State::Stable);
    assert_eq!(world.heartbeat("m1", 1), ErrorCode::NONE);
}

#[test]
fn a_second_member_makes_the_first_join_again() {
    let mut world = World::new();
    world.stable(1);
    let second = world.come();
    assert!(!world.joined.contains_key(&second));
    assert_eq!(world.heartbeat("m1", 1), ErrorCode::REBALANCE_IN_PROGRESS);
    let first = world.come_again("m1");
    assert_eq!(world.joined(first).generation, 2);
    assert_eq!(world.joined(first).members.len(), 2);
    let joined = world.joined(second).clone();
    assert_eq!((joined.generation, joined.members.len()), (2, 0));
    assert_eq!(joined.leader, "m1");
    // The follower waits for the leader's word.
    let follower = world.sync(&joined.member_id, 2, &[]);
    assert!(!world.synced.contains_key(&follower));
    let leader = world.sync("m1", 2, &[("m1", "a"), (&joined.member_id, "b")]);
    assert_eq!(world.synced(leader).assignment, "a");
    assert_eq!(world.synced(follower).assignment, "b");
    // A late sync gets the same again.
    let again = world.sync(&joined.member_id, 2, &[]);
    assert_eq!(world.synced(again).assignment, "b");
}

#[test]
fn members_that_come_together_are_gathered() {
    let mut world = World::new();
    world.limits.initial_delay = SECOND;
    let first = world.come();
    world.pass(SECOND / 2);
    let second = world.come();
    world.pass(SECOND / 2);
    assert!(world.joined.is_empty(), "the second extends the delay");
    world.pass(SECOND);
    assert_eq!(world.joined(first).generation, 1);
    assert_eq!(world.joined(first).members.len(), 2);
    assert_eq!(world.joined(second).generation, 1);
}

#[test]
fn an_id_is_given_first_where_the_client_understands() {
    let mut world = World::new();
    let first = world.join(Ask { learns_id_first: true, ..Ask::default() });
    let joined = world.joined(first).clone();
    assert_eq!(joined.error, ErrorCode::MEMBER_ID_REQUIRED);
    assert!(!world.group.is_vacant());
    let second = world.come_again(&joined.member_id);
    assert_eq!(world.joined(second).member_id, joined.member_id);
    assert_eq!(world.joined(second).generation, 1);
    // An id that was never given is not taken.
    let stranger = world.come_again("stranger");
    assert_eq!(world.joined(stranger).error, ErrorCode::UNKNOWN_MEMBER_ID);
    // One that does not come back is forgotten, and a rebalance does not wait for it for ever.
    world.join(Ask { learns_id_first: true, ..Ask::default() });
    world.sync("m1", 1, &[]);
    world.pass(9 * SECOND);
    world.heartbeat("m1", 1);
    world.pass(2 * SECOND);
    assert!(world.group.pending.is_empty());
}

#[test]
fn the_best_liked_protocol_that_all_know_is_chosen() {
    let mut world = World::new();
    world.limits.initial_delay = SECOND;
    let ask =
        |protocols: &[(&'static str, &'static str)]| Ask { protocols: protocols.to_vec(), ..Ask::default() };
    let first = world.join(ask(&[("range", ""), ("sticky", "s"), ("robin", "r")]));
    world.join(ask(&[("robin", ""), ("sticky", "")]));
    world.join(ask(&[("sticky", ""), ("robin", ""), ("range", "")]));
    world.join(ask(&[("sticky", ""), ("robin", ""), ("sticky", "")]));
    let clash = world.join(ask(&[("other", "")]));
    assert_eq!(world.joined(clash).error, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let type_clash = world.join(Ask { protocol_type: "connect", ..Ask::default() });
    assert_eq!(world.joined(type_clash).error, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    world.pass(5 * SECOND);
    assert_eq!(world.joined(first).protocol, Some("sticky".into()));
    assert_eq!(world.joined(first).members[0].2, "s");
}

#[test]
fn any_protocol_type_will_do() {
    let mut world = World::new();
    let waiter = world.join(Ask { protocol_type: "connect", protocols: vec![("v1", "")], ..Ask::default() });
    assert_eq!(world.joined(waiter).protocol_type, Some("connect".into()));
    let nothing = World::new().join(Ask { protocol_type: "", ..Ask::default() });
    assert_eq!(nothing, 1);
}

#[test]
fn a_leader_that_joins_again_rebalances_a_follower_does_not() {
    let mut world = World::new();
    let ids = world.stable(2);
    let generation = world.group.generation();
    let follower = world.come_again(&ids[1]);
    assert_eq!(world.joined(follower).generation, generation);
    assert_eq!(world.group.state(), State::Stable);
    // Unless what it can do has changed.
    let changed = world.join(Ask {
        member_id: ids[1].as_str().into(),
        protocols: vec![("range", "other topics")],
        ..Ask::default()
    });
    assert_eq!(world.group.state(), State::Preparing);
    let leader = world.come_again(&ids[0]);
    assert_eq!(world.joined(changed).generation, generation + 1);
    assert_eq!(world.joined(leader).members[1].2, "other topics");
}

#[test]
fn an_answer_that_was_not_heard_is_given_again() {
    let mut world = World::new();
    world.come();
    let again = world.come_again("m1");
    assert_eq!(world.joined(again).generation, 1);
    assert_eq!(world.joined(again).members.len(), 1);
}

#[test]
fn a_join_asked_twice_is_answered_once_each() {
    let mut world = World::new();
    world.stable(2);
    let first = world.come_again("m1");
    assert!(!world.joined.contains_key(&first));
    let second = world.come_again("m1");
    assert_eq!(world.joined(first).error, ErrorCode::REBALANCE_IN_PROGRESS);
    world.leave("m2", None);
    assert_eq!(world.joined(second).error, ErrorCode::NONE);
}

#[test]
fn those_who_wait_for_the_leaders_word_hear_of_the_next_rebalance() {
    let mut world = World::new();
    let ids = world.stable(2);
    let third = world.come();
    let leader = world.come_again(&ids[0]);
    let second = world.come_again(&ids[1]);
    let generation = world.joined(leader).generation;
    assert_eq!(world.joined(second).generation, generation);
    let waits = world.sync(&ids[1], generation, &[]);
    world.leave(&world.joined(third).member_id.to_string(), None);
    assert_eq!(world.synced(waits).error, ErrorCode::REBALANCE_IN_PROGRESS);
    let late = world.sync(&ids[0], generation, &[]);
    assert_eq!(world.synced(late).error, ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn when_the_leader_leaves_another_leads() {
    let mut world = World::new();
    let ids = world.stable(3);
    assert_eq!(world.leave(&ids[0], None), ErrorCode::NONE);
    let second = world.come_again(&ids[1]);
    world.come_again(&ids[2]);
    assert_eq!(world.joined(second).leader, ids[1].as_str());
    assert_eq!(world.joined(second).members.len(), 2);
}

#[test]
fn the_last_to_leave_empties_the_group() {
    let mut world = World::new();
    world.stable(1);
    world.changed = false;
    assert_eq!(world.leave("stranger", None), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(world.leave("m1", None), ErrorCode::NONE);
    assert_eq!(world.group.state(), State::Empty);
    assert!(world.changed && world.group.is_vacant());
    assert_eq!(world.group.generation(), 2);
    assert_eq!(world.heartbeat("m1", 1), ErrorCode::UNKNOWN_MEMBER_ID);
    // Another kind of group may take the name.
    let waiter = world.join(Ask { protocol_type: "connect", ..Ask::default() });
    assert_eq!(world.joined(waiter).generation, 3);
}

#[test]
fn wrong_generations_are_told() {
    let mut world = World::new();
    world.stable(1);
    assert_eq!(world.heartbeat("m1", 0), ErrorCode::ILLEGAL_GENERATION);
    let sync = world.sync("m1", 2, &[]);
    assert_eq!(world.synced(sync).error, ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(world.heartbeat("stranger", 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_sync_names_the_protocol_it_believes_in() {
    let mut world = World::new();
    world.come();
    let mut effects = Effects::default();
    let sync = Sync {
        waiter: 77,
        member_id: "m1".into(),
        instance_id: None,
        generation: 1,
        protocol_type: Some("consumer".into()),
        protocol: Some("robin".into()),
        assignments: Vec::new(),
    };
    world.group.sync(sync, &world.limits, world.now, &mut effects);
    assert_eq!(effects.synced[0].1.error, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
}

#[test]
fn bounds_are_kept() {
    let mut world = World::new();
    let ask = Ask { session_timeout: SECOND, ..Ask::default() };
    let waiter = world.join(ask);
    assert_eq!(world.joined(waiter).error, ErrorCode::INVALID_SESSION_TIMEOUT);
    let waiter = world.join(Ask { session_timeout: 3600 * SECOND, ..Ask::default() });
    assert_eq!(world.joined(waiter).error, ErrorCode::INVALID_SESSION_TIMEOUT);
    world.limits.protocols_max = 2;
    let waiter = world.join(Ask { protocols: vec![("a", ""), ("b", ""), ("c", "")], ..Ask::default() });
    assert_eq!(world.joined(waiter).error, ErrorCode::INVALID_REQUEST);
    world.limits.members_max = 2;
    world.come();
    world.join(Ask { learns_id_first: true, ..Ask::default() });
    let third = world.come();
    assert_eq!(world.joined(third).error, ErrorCode::GROUP_MAX_SIZE_REACHED);
    world.limits.bytes_max = 12;
    let large = world.come_again("m3");
    assert_eq!(world.joined(large).error, ErrorCode::GROUP_MAX_SIZE_REACHED);
}
