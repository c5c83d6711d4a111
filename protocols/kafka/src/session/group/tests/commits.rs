//! Who may commit, and what a restart remembers.

use super::*;

fn commit(world: &mut World, member_id: &str, generation: i32) -> Result<(), ErrorCode> {
    world.group.may_commit(&member_id.into(), None, generation, world.now)
}

#[test]
fn an_empty_group_takes_commits_without_a_generation() {
    let mut world = World::new();
    assert_eq!(commit(&mut world, "", -1), Ok(()));
    assert_eq!(commit(&mut world, "m1", 3), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    world.stable(1);
    assert_eq!(commit(&mut world, "", -1), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(commit(&mut world, "m1", 1), Ok(()));
    assert_eq!(commit(&mut world, "m1", 2), Err(ErrorCode::ILLEGAL_GENERATION));
}

#[test]
fn members_may_commit_while_a_rebalance_is_prepared_but_not_before_the_work_is_known() {
    let mut world = World::new();
    world.stable(1);
    world.come();
    assert_eq!(commit(&mut world, "m1", 1), Ok(()));
    world.come_again("m1");
    assert_eq!(commit(&mut world, "m1", 1), Err(ErrorCode::ILLEGAL_GENERATION));
    assert_eq!(commit(&mut world, "m1", 2), Err(ErrorCode::REBALANCE_IN_PROGRESS));
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut world = World::new();
    world.stable(1);
    for _ in 0..4 {
        world.pass(6 * SECOND);
        assert_eq!(commit(&mut world, "m1", 1), Ok(()));
    }
}

#[test]
fn a_dead_group_takes_nothing() {
    let mut world = World::new();
    world.stable(1);
    assert!(!world.group.kill());
    world.leave("m1", None);
    assert!(world.group.kill());
    assert_eq!(commit(&mut world, "", -1), Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    let waiter = world.come();
    assert_eq!(world.joined(waiter).error, ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(world.heartbeat("m1", 1), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(world.leave("m1", None), ErrorCode::COORDINATOR_NOT_AVAILABLE);
}

#[test]
fn a_restart_remembers_members_and_their_work() {
    let mut world = World::new();
    let ids = world.stable(2);
    let generation = world.group.generation();
    let row = world.group.snapshot();
    world.group = Group::restore("g".into(), row.clone(), world.now).unwrap();
    assert_eq!(world.group.state(), State::Stable);
    assert_eq!(world.group.snapshot(), row);
    for id in &ids {
        assert_eq!(world.heartbeat(id, generation), ErrorCode::NONE);
    }
    let sync = world.sync("m1", generation, &[]);
    assert_eq!(world.synced(sync).assignment, "work");
    // Those who are gone are missed after their session's time.
    world.pass(9 * SECOND);
    world.heartbeat("m1", generation);
    world.pass(2 * SECOND);
    assert_eq!(world.group.members().count(), 1);
    let leader = world.come_again("m1");
    assert_eq!(world.joined(leader).leader, "m1");
    world.leave("m1", None);
    assert_eq!(world.group.bytes(), 0);
    let empty: Group<u32> = Group::restore("g".into(), world.group.snapshot(), world.now).unwrap();
    assert_eq!((empty.state(), empty.generation()), (State::Empty, world.group.generation()));
}

#[test]
fn damaged_rows_are_errors() {
    let mut world = World::new();
    world.stable(2);
    let row = world.group.snapshot();
    for end in 0..row.len() {
        assert!(Group::<u32>::restore("g".into(), row.slice(..end), world.now).is_err());
    }
    let mut other = row.to_vec();
    other[0] = 9;
    let error = Group::<u32>::restore("g".into(), other.into(), world.now).map(drop);
    assert_eq!(error, Err(SnapshotError::Version(9)));
}
