//! Members that fall silent.

use super::*;

#[test]
fn silence_ends_a_session_and_the_others_rebalance() {
    let mut world = World::new();
    let ids = world.stable(2);
    world.pass(9 * SECOND);
    assert_eq!(world.heartbeat(&ids[0], world.group.generation()), ErrorCode::NONE);
    world.pass(2 * SECOND);
    assert_eq!(world.group.state(), State::Preparing);
    let again = world.come_again(&ids[0]);
    assert_eq!(world.joined(again).members.len(), 1);
    assert_eq!(world.heartbeat(&ids[1], 3), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn silence_of_all_empties_the_group() {
    let mut world = World::new();
    world.stable(3);
    world.pass(11 * SECOND);
    assert_eq!(world.group.state(), State::Empty);
    assert!(world.group.is_vacant());
    assert_eq!(world.group.bytes(), 0);
    assert_eq!(world.group.wake_at(), None);
}

#[test]
fn those_who_do_not_come_back_are_left_behind() {
    let mut world = World::new();
    let ids = world.stable(2);
    let third = world.come();
    let first = world.come_again(&ids[0]);
    let generation = world.group.generation();
    // The second keeps sending heartbeats but does not join again.
    for _ in 0..11 {
        assert_eq!(world.heartbeat(&ids[1], generation), ErrorCode::REBALANCE_IN_PROGRESS);
        assert!(!world.joined.contains_key(&third));
        world.pass(6 * SECOND);
        if world.joined.contains_key(&third) {
            break;
        }
    }
    assert_eq!(world.joined(first).members.len(), 2);
    assert_eq!(world.joined(third).generation, generation + 1);
    let late = world.come_again(&ids[1]);
    assert_eq!(world.joined(late).error, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn those_who_wait_do_not_expire() {
    let mut world = World::new();
    let ids = world.stable(2);
    world.come();
    let first = world.come_again(&ids[0]);
    let generation = world.group.generation();
    for _ in 0..9 {
        world.heartbeat(&ids[1], generation);
        world.pass(6 * SECOND);
    }
    assert!(!world.joined.contains_key(&first), "longer than its session, but it waits");
    world.come_again(&ids[1]);
    assert_eq!(world.joined(first).members.len(), 3);
}

#[test]
fn those_who_do_not_sync_are_thrown_out() {
    let mut world = World::new();
    world.limits.initial_delay = SECOND;
    world.come();
    world.come();
    world.pass(2 * SECOND);
    let follower = world.sync("m2", 1, &[]);
    // The leader lives on but never hands out the work.
    for _ in 0..9 {
        assert_eq!(world.heartbeat("m1", 1), ErrorCode::NONE);
        world.pass(7 * SECOND);
    }
    assert_eq!(world.synced(follower).error, ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(world.heartbeat("m1", 1), ErrorCode::UNKNOWN_MEMBER_ID);
    let again = world.come_again("m2");
    assert_eq!(world.joined(again).members.len(), 1);
}

#[test]
fn a_client_that_hung_up_before_it_knew_its_id_leaves_no_ghost() {
    let mut world = World::new();
    let ids = world.stable(1);
    let ghost = world.come();
    let ghost_id = world.group.order[1].clone();
    let mut effects = Effects::default();
    world.group.hung_up(&ghost_id, |_| true, &world.limits.clone(), world.now, &mut effects);
    world.keep(effects);
    let again = world.come_again(&ids[0]);
    assert_eq!(world.joined(again).members.len(), 1);
    assert!(!world.joined.contains_key(&ghost));
}

#[test]
fn a_client_that_hung_up_and_knows_its_id_has_its_sessions_time() {
    let mut world = World::new();
    let ids = world.stable(2);
    world.come();
    world.come_again(&ids[1]);
    let mut effects = Effects::default();
    world.group.hung_up(&ids[1].as_str().into(), |_| true, &world.limits.clone(), world.now, &mut effects);
    world.keep(effects);
    let leader = world.come_again(&ids[0]);
    assert!(!world.joined.contains_key(&leader));
    let back = world.come_again(&ids[1]);
    assert_eq!(world.joined(back).error, ErrorCode::NONE);
    assert_eq!(world.joined(leader).members.len(), 3);
}

#[test]
fn a_newcomer_does_not_wait_for_ever() {
    let mut world = World::new();
    let ids = world.stable(1);
    world.limits.new_member_timeout_max = 20 * SECOND;
    let waiter = world.come();
    let generation = world.group.generation();
    for _ in 0..4 {
        world.heartbeat(&ids[0], generation);
        world.pass(6 * SECOND);
    }
    assert_eq!(world.joined(waiter).error, ErrorCode::UNKNOWN_MEMBER_ID);
}
