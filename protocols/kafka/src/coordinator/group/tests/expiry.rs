//! Expiry of members.

use super::*;

#[test]
fn an_expired_member_is_removed_and_the_others_rebalance() {
    let mut test = TestGroup::new();
    let ids = test.stable(2);
    test.pass(9 * SECOND);
    assert_eq!(test.heartbeat(&ids[0], test.group.generation), ErrorCode::NONE);
    test.pass(2 * SECOND);
    assert_eq!(test.group.state(), State::Preparing);
    let again = test.rejoin(&ids[0]);
    assert_eq!(test.joined(again).members.len(), 1);
    assert_eq!(test.heartbeat(&ids[1], 3), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_group_whose_members_all_expire_is_empty() {
    let mut test = TestGroup::new();
    test.stable(3);
    test.pass(11 * SECOND);
    assert_eq!(test.group.state(), State::Empty);
    assert!(test.group.is_vacant());
    assert_eq!(test.group.bytes(), 0);
    assert_eq!(test.group.wake_at(), None);
}

#[test]
fn members_that_do_not_rejoin_are_removed() {
    let mut test = TestGroup::new();
    let ids = test.stable(2);
    let third = test.join_new();
    let first = test.rejoin(&ids[0]);
    let generation = test.group.generation;
    // The second keeps sending heartbeats but does not rejoin.
    for _ in 0..11 {
        assert_eq!(test.heartbeat(&ids[1], generation), ErrorCode::REBALANCE_IN_PROGRESS);
        assert!(!test.joined.contains_key(&third));
        test.pass(6 * SECOND);
        if test.joined.contains_key(&third) {
            break;
        }
    }
    assert_eq!(test.joined(first).members.len(), 2);
    assert_eq!(test.joined(third).generation, generation + 1);
    let late = test.rejoin(&ids[1]);
    assert_eq!(test.joined(late).error, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn waiting_members_do_not_expire() {
    let mut test = TestGroup::new();
    let ids = test.stable(2);
    test.join_new();
    let first = test.rejoin(&ids[0]);
    let generation = test.group.generation;
    for _ in 0..9 {
        test.heartbeat(&ids[1], generation);
        test.pass(6 * SECOND);
    }
    assert!(!test.joined.contains_key(&first), "a waiting member does not expire");
    test.rejoin(&ids[1]);
    assert_eq!(test.joined(first).members.len(), 3);
}

#[test]
fn members_that_do_not_sync_are_removed() {
    let mut test = TestGroup::new();
    test.limits.initial_delay = SECOND;
    test.join_new();
    test.join_new();
    test.pass(2 * SECOND);
    let follower = test.sync("m2", 1, &[]);
    // The leader sends heartbeats but never assignments.
    for _ in 0..9 {
        assert_eq!(test.heartbeat("m1", 1), ErrorCode::NONE);
        test.pass(7 * SECOND);
    }
    assert_eq!(test.synced(follower).error, ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(test.heartbeat("m1", 1), ErrorCode::UNKNOWN_MEMBER_ID);
    let again = test.rejoin("m2");
    assert_eq!(test.joined(again).members.len(), 1);
}

#[test]
fn a_disconnected_client_without_a_member_id_leaves_no_member() {
    let mut test = TestGroup::new();
    let ids = test.stable(1);
    let lost = test.join_new();
    let lost_id = test.group.order[1].clone();
    let mut effects = Effects::default();
    test.group.disconnected(&lost_id, |_| true, |_| true, &test.limits.clone(), test.now, &mut effects);
    test.apply(effects);
    let again = test.rejoin(&ids[0]);
    assert_eq!(test.joined(again).members.len(), 1);
    assert!(!test.joined.contains_key(&lost));
}

#[test]
fn a_disconnected_client_with_a_member_id_may_rejoin() {
    let mut test = TestGroup::new();
    let ids = test.stable(2);
    test.join_new();
    test.rejoin(&ids[1]);
    let mut effects = Effects::default();
    test.group.disconnected(
        &ids[1].as_str().into(),
        |_| true,
        |_| true,
        &test.limits.clone(),
        test.now,
        &mut effects,
    );
    test.apply(effects);
    let leader = test.rejoin(&ids[0]);
    assert!(!test.joined.contains_key(&leader));
    let back = test.rejoin(&ids[1]);
    assert_eq!(test.joined(back).error, ErrorCode::NONE);
    assert_eq!(test.joined(leader).members.len(), 3);
}

#[test]
fn a_new_member_does_not_wait_forever() {
    let mut test = TestGroup::new();
    let ids = test.stable(1);
    test.limits.new_member_timeout_max = 20 * SECOND;
    let waiter = test.join_new();
    let generation = test.group.generation;
    for _ in 0..4 {
        test.heartbeat(&ids[0], generation);
        test.pass(6 * SECOND);
    }
    assert_eq!(test.joined(waiter).error, ErrorCode::UNKNOWN_MEMBER_ID);
}
