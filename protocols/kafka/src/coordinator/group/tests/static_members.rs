//! Static members (KIP-345).

use super::*;

fn named(instance_id: &str) -> JoinOptions {
    JoinOptions { instance_id: Some(instance_id.into()), ..JoinOptions::default() }
}

/// Two static members, `a` (leader) and `b`, stable.
fn pair(test: &mut TestGroup) -> [String; 2] {
    test.limits.initial_delay = SECOND;
    let (first, second) = (test.join(named("a")), test.join(named("b")));
    test.pass(3 * SECOND);
    let ids = [first, second].map(|waiter| test.joined(waiter).member_id.to_string());
    test.sync(&ids[0], 1, &[(&ids[0], "work a"), (&ids[1], "work b")]);
    assert_eq!(test.group.state(), State::Stable);
    ids
}

#[test]
fn a_restarted_static_member_keeps_its_place_without_a_rebalance() {
    let mut test = TestGroup::new();
    let ids = pair(&mut test);
    test.changed = false;
    let back = test.join(named("b"));
    let joined = test.joined(back).clone();
    assert_eq!((joined.error, joined.generation), (ErrorCode::NONE, 1));
    assert_ne!(joined.member_id, ids[1].as_str());
    assert_eq!(test.group.state(), State::Stable);
    assert!(test.changed);
    let sync = test.sync(&joined.member_id, 1, &[]);
    assert_eq!(test.synced(sync).assignment, "work b");
    // Its former instance is fenced.
    let error = test.group.heartbeat(&ids[1].as_str().into(), Some(&"b".into()), 1, test.now);
    assert_eq!(error, ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(test.heartbeat(&ids[1], 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_restarted_leader_does_not_assign_again() {
    let mut test = TestGroup::new();
    let ids = pair(&mut test);
    let back = test.join(named("a"));
    let joined = test.joined(back).clone();
    // A client that does not support skip_assignment is told that its former member id leads.
    assert_eq!(joined.leader, ids[0].as_str());
    assert!(joined.members.is_empty() && !joined.skip_assignment);
    let back = test.join(JoinOptions { supports_skip_assignment: true, ..named("a") });
    let joined = test.joined(back).clone();
    assert_eq!(joined.leader, joined.member_id);
    assert!(joined.skip_assignment);
    assert_eq!(joined.members.len(), 2);
    let sync = test.sync(&joined.member_id, 1, &[]);
    assert_eq!(test.synced(sync).assignment, "work a");
}

#[test]
fn a_static_member_with_other_protocols_starts_a_rebalance() {
    let mut test = TestGroup::new();
    pair(&mut test);
    let both = vec![("robin", ""), ("range", "")];
    let back = test.join(JoinOptions { protocols: both.clone(), ..named("b") });
    // The elected protocol is the same, so there is no rebalance.
    assert_eq!(test.joined(back).generation, 1);
    let ids: Vec<Str> = test.group.order.clone();
    let leader = test.join(JoinOptions { protocols: both, member_id: ids[0].clone(), ..named("a") });
    let follower = test.join(JoinOptions {
        protocols: vec![("robin", ""), ("range", "")],
        member_id: ids[1].clone(),
        ..named("b")
    });
    assert_eq!(test.joined(leader).generation, 2);
    assert_eq!(test.joined(follower).protocol, Some("robin".into()));
}

#[test]
fn a_restarted_static_member_takes_over_during_a_rebalance() {
    let mut test = TestGroup::new();
    let ids = pair(&mut test);
    let waits = test.join(JoinOptions {
        member_id: ids[1].as_str().into(),
        protocols: vec![("range", "x")],
        ..named("b")
    });
    assert_eq!(test.group.state(), State::Preparing);
    let takes_over = test.join(named("b"));
    assert_eq!(test.joined(waits).error, ErrorCode::FENCED_INSTANCE_ID);
    test.join(JoinOptions { member_id: ids[0].as_str().into(), ..named("a") });
    assert_eq!(test.joined(takes_over).generation, 2);
    // After the join but before the assignments: another rebalance, since these may name the former member id.
    let again = test.join(named("b"));
    assert_eq!(test.group.state(), State::Preparing);
    test.join(JoinOptions { member_id: ids[0].as_str().into(), ..named("a") });
    assert_eq!(test.joined(again).generation, 3);
}

#[test]
fn a_rebalance_does_not_remove_a_static_member() {
    let mut test = TestGroup::new();
    let ids = pair(&mut test);
    let long = 120 * SECOND;
    let new_member = test.join(JoinOptions { session_timeout: long, ..JoinOptions::default() });
    test.join(JoinOptions { session_timeout: long, member_id: ids[0].as_str().into(), ..named("a") });
    // `b` sends heartbeats but does not rejoin in time.
    for _ in 0..10 {
        test.group.heartbeat(&ids[1].as_str().into(), Some(&"b".into()), 1, test.now);
        test.pass(6 * SECOND);
    }
    assert_eq!(test.joined(new_member).generation, 2);
    assert_eq!(test.group.members().count(), 3);
    assert_eq!(test.heartbeat(&ids[1], 1), ErrorCode::ILLEGAL_GENERATION);
}

#[test]
fn absent_static_members_hold_up_a_rebalance_until_they_expire() {
    let mut test = TestGroup::new();
    test.limits.session_timeout_min = SECOND;
    pair(&mut test);
    let new_member = test.join_new();
    assert_eq!(test.group.state(), State::Preparing);
    let leaver = test.group.order[2].to_string();
    test.leave(&leaver, None);
    assert_eq!(test.joined(new_member).error, ErrorCode::UNKNOWN_MEMBER_ID);
    test.pass(200 * SECOND);
    assert_eq!(test.group.state(), State::Empty);
}

#[test]
fn a_static_member_is_removed_by_instance_id() {
    let mut test = TestGroup::new();
    let ids = pair(&mut test);
    assert_eq!(test.leave("", Some("nobody")), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(test.leave(&ids[0], Some("b")), ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(test.leave("", Some("b")), ErrorCode::NONE);
    assert_eq!(test.group.members().count(), 1);
    let wrong = test.join(JoinOptions { member_id: "m9".into(), ..named("a") });
    assert_eq!(test.joined(wrong).error, ErrorCode::FENCED_INSTANCE_ID);
    let unknown = test.join(JoinOptions { member_id: "m9".into(), ..named("c") });
    assert_eq!(test.joined(unknown).error, ErrorCode::UNKNOWN_MEMBER_ID);
}
