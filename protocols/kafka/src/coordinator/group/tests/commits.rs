//! Commits, and restarts.

use super::*;
use crate::coordinator::row::RowError;

fn commit(test: &mut TestGroup, member_id: &str, generation: i32) -> Result<(), ErrorCode> {
    test.group.check_commit(&member_id.into(), None, generation, test.now)
}

#[test]
fn an_empty_group_accepts_commits_without_a_generation() {
    let mut test = TestGroup::new();
    assert_eq!(commit(&mut test, "", -1), Ok(()));
    assert_eq!(commit(&mut test, "m1", 3), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    test.stable(1);
    assert_eq!(commit(&mut test, "", -1), Err(ErrorCode::UNKNOWN_MEMBER_ID));
    assert_eq!(commit(&mut test, "m1", 1), Ok(()));
    assert_eq!(commit(&mut test, "m1", 2), Err(ErrorCode::ILLEGAL_GENERATION));
}

#[test]
fn members_may_commit_while_a_rebalance_is_prepared_but_not_before_they_sync() {
    let mut test = TestGroup::new();
    test.stable(1);
    test.join_new();
    assert_eq!(commit(&mut test, "m1", 1), Ok(()));
    test.rejoin("m1");
    assert_eq!(commit(&mut test, "m1", 1), Err(ErrorCode::ILLEGAL_GENERATION));
    assert_eq!(commit(&mut test, "m1", 2), Err(ErrorCode::REBALANCE_IN_PROGRESS));
    let now = test.now;
    let mut in_transaction =
        |generation| test.group.check_commit_in_transaction(&"m1".into(), None, generation, now);
    assert_eq!(in_transaction(2), Ok(()));
    assert_eq!(in_transaction(1), Err(ErrorCode::ILLEGAL_GENERATION));
}

#[test]
fn a_commit_renews_the_session() {
    let mut test = TestGroup::new();
    test.stable(1);
    for _ in 0..4 {
        test.pass(6 * SECOND);
        assert_eq!(commit(&mut test, "m1", 1), Ok(()));
    }
}

#[test]
fn a_deleted_group_rejects_every_request() {
    let mut test = TestGroup::new();
    test.stable(1);
    test.group.delete();
    assert_eq!(test.group.state(), State::Stable, "it has a member");
    test.leave("m1", None);
    test.group.delete();
    assert_eq!(test.group.state(), State::Dead);
    assert_eq!(commit(&mut test, "", -1), Err(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    let waiter = test.join_new();
    assert_eq!(test.joined(waiter).error, ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(test.heartbeat("m1", 1), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(test.leave("m1", None), ErrorCode::COORDINATOR_NOT_AVAILABLE);
}

#[test]
fn a_restart_restores_members_and_assignments() {
    let mut test = TestGroup::new();
    let ids = test.stable(2);
    let generation = test.group.generation;
    let row = test.group.snapshot();
    test.group = Group::restore("g".into(), row.clone(), test.now).unwrap();
    assert_eq!(test.group.state(), State::Stable);
    assert_eq!(test.group.snapshot(), row);
    for id in &ids {
        assert_eq!(test.heartbeat(id, generation), ErrorCode::NONE);
    }
    let sync = test.sync("m1", generation, &[]);
    assert_eq!(test.synced(sync).assignment, "work");
    // Members that do not return expire after their session timeout.
    test.pass(9 * SECOND);
    test.heartbeat("m1", generation);
    test.pass(2 * SECOND);
    assert_eq!(test.group.members().count(), 1);
    let leader = test.rejoin("m1");
    assert_eq!(test.joined(leader).leader, "m1");
    test.leave("m1", None);
    assert_eq!(test.group.bytes(), 0);
    let empty: Group<u32, u32> = Group::restore("g".into(), test.group.snapshot(), test.now).unwrap();
    assert_eq!((empty.state(), empty.generation), (State::Empty, test.group.generation));
}

#[test]
fn damaged_rows_are_rejected() {
    let mut test = TestGroup::new();
    test.stable(2);
    let row = test.group.snapshot();
    for end in 0..row.len() {
        assert!(Group::<u32, u32>::restore("g".into(), row.slice(..end), test.now).is_err());
    }
    let mut other = row.to_vec();
    other[0] = 9;
    let error = Group::<u32, u32>::restore("g".into(), other.into(), test.now).map(drop);
    assert_eq!(error, Err(RowError::Version(9)));
}
