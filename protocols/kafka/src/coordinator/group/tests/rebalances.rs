//! Joins, syncs and leaves.

use super::*;

#[test]
fn a_single_member_is_the_leader() {
    let mut test = TestGroup::new();
    let waiter = test.join_new();
    let joined = test.joined(waiter).clone();
    assert_eq!((joined.error, joined.generation), (ErrorCode::NONE, 1));
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.protocol, Some("range".into()));
    assert_eq!(joined.protocol_type, Some("consumer".into()));
    assert_eq!(joined.members, vec![("m1".into(), None, Bytes::from_static(b"topics"))]);
    assert_eq!(test.group.state(), State::Completing);
    let sync = test.sync("m1", 1, &[("m1", "all of it")]);
    assert_eq!(test.synced(sync).assignment, "all of it");
    assert!(test.changed);
    assert_eq!(test.group.state(), State::Stable);
    assert_eq!(test.heartbeat("m1", 1), ErrorCode::NONE);
}

#[test]
fn a_second_member_makes_the_first_rejoin() {
    let mut test = TestGroup::new();
    test.stable(1);
    let second = test.join_new();
    assert!(!test.joined.contains_key(&second));
    assert_eq!(test.heartbeat("m1", 1), ErrorCode::REBALANCE_IN_PROGRESS);
    let first = test.rejoin("m1");
    assert_eq!(test.joined(first).generation, 2);
    assert_eq!(test.joined(first).members.len(), 2);
    let joined = test.joined(second).clone();
    assert_eq!((joined.generation, joined.members.len()), (2, 0));
    assert_eq!(joined.leader, "m1");
    // The follower waits for the leader's assignments.
    let follower = test.sync(&joined.member_id, 2, &[]);
    assert!(!test.synced.contains_key(&follower));
    let leader = test.sync("m1", 2, &[("m1", "a"), (&joined.member_id, "b")]);
    assert_eq!(test.synced(leader).assignment, "a");
    assert_eq!(test.synced(follower).assignment, "b");
    // A repeated sync gets the same response.
    let again = test.sync(&joined.member_id, 2, &[]);
    assert_eq!(test.synced(again).assignment, "b");
}

#[test]
fn members_that_join_within_the_initial_delay_share_a_generation() {
    let mut test = TestGroup::new();
    test.limits.initial_delay = SECOND;
    let first = test.join_new();
    test.pass(SECOND / 2);
    let second = test.join_new();
    test.pass(SECOND / 2);
    assert!(test.joined.is_empty(), "the second extends the delay");
    test.pass(SECOND);
    assert_eq!(test.joined(first).generation, 1);
    assert_eq!(test.joined(first).members.len(), 2);
    assert_eq!(test.joined(second).generation, 1);
}

#[test]
fn a_new_member_gets_a_member_id_first() {
    let mut test = TestGroup::new();
    let first = test.join(JoinOptions { requires_known_member_id: true, ..JoinOptions::default() });
    let joined = test.joined(first).clone();
    assert_eq!(joined.error, ErrorCode::MEMBER_ID_REQUIRED);
    assert!(!test.group.is_vacant());
    let second = test.rejoin(&joined.member_id);
    assert_eq!(test.joined(second).member_id, joined.member_id);
    assert_eq!(test.joined(second).generation, 1);
    // A member id that was never assigned is rejected.
    let unknown = test.rejoin("unknown");
    assert_eq!(test.joined(unknown).error, ErrorCode::UNKNOWN_MEMBER_ID);
    // An assigned id that is not used expires, and does not hold up a rebalance forever.
    test.join(JoinOptions { requires_known_member_id: true, ..JoinOptions::default() });
    test.sync("m1", 1, &[]);
    test.pass(9 * SECOND);
    test.heartbeat("m1", 1);
    test.pass(2 * SECOND);
    assert!(test.group.pending.is_empty());
}

#[test]
fn the_protocol_most_preferred_of_those_all_support_is_elected() {
    let mut test = TestGroup::new();
    test.limits.initial_delay = SECOND;
    let options = |protocols: &[(&'static str, &'static str)]| JoinOptions {
        protocols: protocols.to_vec(),
        ..JoinOptions::default()
    };
    let first = test.join(options(&[("range", ""), ("sticky", "s"), ("robin", "r")]));
    test.join(options(&[("robin", ""), ("sticky", "")]));
    test.join(options(&[("sticky", ""), ("robin", ""), ("range", "")]));
    test.join(options(&[("sticky", ""), ("robin", ""), ("sticky", "")]));
    let clash = test.join(options(&[("other", "")]));
    assert_eq!(test.joined(clash).error, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let type_clash = test.join(JoinOptions { protocol_type: "connect", ..JoinOptions::default() });
    assert_eq!(test.joined(type_clash).error, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    test.pass(5 * SECOND);
    assert_eq!(test.joined(first).protocol, Some("sticky".into()));
    assert_eq!(test.joined(first).members[0].2, "s");
}

#[test]
fn any_protocol_type_is_accepted_except_an_empty_one() {
    let mut test = TestGroup::new();
    let waiter = test.join(JoinOptions {
        protocol_type: "connect",
        protocols: vec![("v1", "")],
        ..JoinOptions::default()
    });
    assert_eq!(test.joined(waiter).protocol_type, Some("connect".into()));
    let nothing = TestGroup::new().join(JoinOptions { protocol_type: "", ..JoinOptions::default() });
    assert_eq!(nothing, 1);
}

#[test]
fn a_leader_that_rejoins_starts_a_rebalance_and_a_follower_does_not() {
    let mut test = TestGroup::new();
    let ids = test.stable(2);
    let generation = test.group.generation;
    let follower = test.rejoin(&ids[1]);
    assert_eq!(test.joined(follower).generation, generation);
    assert_eq!(test.group.state(), State::Stable);
    // Unless its metadata has changed.
    let changed = test.join(JoinOptions {
        member_id: ids[1].as_str().into(),
        protocols: vec![("range", "other topics")],
        ..JoinOptions::default()
    });
    assert_eq!(test.group.state(), State::Preparing);
    let leader = test.rejoin(&ids[0]);
    assert_eq!(test.joined(changed).generation, generation + 1);
    assert_eq!(test.joined(leader).members[1].2, "other topics");
}

#[test]
fn a_lost_response_is_repeated() {
    let mut test = TestGroup::new();
    test.join_new();
    let again = test.rejoin("m1");
    assert_eq!(test.joined(again).generation, 1);
    assert_eq!(test.joined(again).members.len(), 1);
}

#[test]
fn two_joins_of_a_member_get_one_response_each() {
    let mut test = TestGroup::new();
    test.stable(2);
    let first = test.rejoin("m1");
    assert!(!test.joined.contains_key(&first));
    let second = test.rejoin("m1");
    assert_eq!(test.joined(first).error, ErrorCode::REBALANCE_IN_PROGRESS);
    test.leave("m2", None);
    assert_eq!(test.joined(second).error, ErrorCode::NONE);
}

#[test]
fn members_waiting_for_assignments_are_told_of_the_next_rebalance() {
    let mut test = TestGroup::new();
    let ids = test.stable(2);
    let third = test.join_new();
    let leader = test.rejoin(&ids[0]);
    let second = test.rejoin(&ids[1]);
    let generation = test.joined(leader).generation;
    assert_eq!(test.joined(second).generation, generation);
    let waits = test.sync(&ids[1], generation, &[]);
    test.leave(&test.joined(third).member_id.to_string(), None);
    assert_eq!(test.synced(waits).error, ErrorCode::REBALANCE_IN_PROGRESS);
    let late = test.sync(&ids[0], generation, &[]);
    assert_eq!(test.synced(late).error, ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn when_the_leader_leaves_another_member_becomes_leader() {
    let mut test = TestGroup::new();
    let ids = test.stable(3);
    assert_eq!(test.leave(&ids[0], None), ErrorCode::NONE);
    let second = test.rejoin(&ids[1]);
    test.rejoin(&ids[2]);
    assert_eq!(test.joined(second).leader, ids[1].as_str());
    assert_eq!(test.joined(second).members.len(), 2);
}

#[test]
fn the_last_leave_empties_the_group() {
    let mut test = TestGroup::new();
    test.stable(1);
    test.changed = false;
    assert_eq!(test.leave("unknown", None), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(test.leave("m1", None), ErrorCode::NONE);
    assert_eq!(test.group.state(), State::Empty);
    assert!(test.changed && test.group.is_vacant());
    assert_eq!(test.group.generation, 2);
    assert_eq!(test.heartbeat("m1", 1), ErrorCode::UNKNOWN_MEMBER_ID);
    // A group of another protocol type may use the id.
    let waiter = test.join(JoinOptions { protocol_type: "connect", ..JoinOptions::default() });
    assert_eq!(test.joined(waiter).generation, 3);
}

#[test]
fn wrong_generations_are_rejected() {
    let mut test = TestGroup::new();
    test.stable(1);
    assert_eq!(test.heartbeat("m1", 0), ErrorCode::ILLEGAL_GENERATION);
    let sync = test.sync("m1", 2, &[]);
    assert_eq!(test.synced(sync).error, ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(test.heartbeat("unknown", 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_sync_with_another_protocol_is_rejected() {
    let mut test = TestGroup::new();
    test.join_new();
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
    test.group.sync(sync, &test.limits, test.now, &mut effects);
    assert_eq!(effects.synced[0].1.error, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
}

#[test]
fn limits_are_enforced() {
    let mut test = TestGroup::new();
    let waiter = test.join(JoinOptions { session_timeout: SECOND, ..JoinOptions::default() });
    assert_eq!(test.joined(waiter).error, ErrorCode::INVALID_SESSION_TIMEOUT);
    let waiter = test.join(JoinOptions { session_timeout: 3600 * SECOND, ..JoinOptions::default() });
    assert_eq!(test.joined(waiter).error, ErrorCode::INVALID_SESSION_TIMEOUT);
    test.limits.protocols_max = 2;
    let waiter =
        test.join(JoinOptions { protocols: vec![("a", ""), ("b", ""), ("c", "")], ..JoinOptions::default() });
    assert_eq!(test.joined(waiter).error, ErrorCode::INVALID_REQUEST);
    test.limits.members_max = 2;
    test.join_new();
    test.join(JoinOptions { requires_known_member_id: true, ..JoinOptions::default() });
    let third = test.join_new();
    assert_eq!(test.joined(third).error, ErrorCode::GROUP_MAX_SIZE_REACHED);
    test.limits.bytes_max = 12;
    let large = test.rejoin("m3");
    assert_eq!(test.joined(large).error, ErrorCode::GROUP_MAX_SIZE_REACHED);
}
