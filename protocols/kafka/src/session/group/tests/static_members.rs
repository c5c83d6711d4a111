//! Members with a name of their own (KIP-345).

use super::*;

fn named(instance_id: &str) -> Ask {
    Ask { instance_id: Some(instance_id.into()), ..Ask::default() }
}

/// Two static members, `a` (leader) and `b`, stable.
fn pair(world: &mut World) -> [String; 2] {
    world.limits.initial_delay = SECOND;
    let (first, second) = (world.join(named("a")), world.join(named("b")));
    world.pass(3 * SECOND);
    let ids = [first, second].map(|waiter| world.joined(waiter).member_id.to_string());
    world.sync(&ids[0], 1, &[(&ids[0], "work a"), (&ids[1], "work b")]);
    assert_eq!(world.group.state(), State::Stable);
    ids
}

#[test]
fn one_that_restarts_takes_its_place_without_a_rebalance() {
    let mut world = World::new();
    let ids = pair(&mut world);
    world.changed = false;
    let back = world.join(named("b"));
    let joined = world.joined(back).clone();
    assert_eq!((joined.error, joined.generation), (ErrorCode::NONE, 1));
    assert_ne!(joined.member_id, ids[1].as_str());
    assert_eq!(world.group.state(), State::Stable);
    assert!(world.changed);
    let sync = world.sync(&joined.member_id, 1, &[]);
    assert_eq!(world.synced(sync).assignment, "work b");
    // Its former self is told.
    let error = world.group.heartbeat(&ids[1].as_str().into(), Some(&"b".into()), 1, world.now);
    assert_eq!(error, ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(world.heartbeat(&ids[1], 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_leader_that_restarts_need_not_assign() {
    let mut world = World::new();
    let ids = pair(&mut world);
    let back = world.join(named("a"));
    let joined = world.joined(back).clone();
    // A client that cannot skip believes that its former self leads.
    assert_eq!(joined.leader, ids[0].as_str());
    assert!(joined.members.is_empty() && !joined.skip_assignment);
    let back = world.join(Ask { skips_assignment: true, ..named("a") });
    let joined = world.joined(back).clone();
    assert_eq!(joined.leader, joined.member_id);
    assert!(joined.skip_assignment);
    assert_eq!(joined.members.len(), 2);
    let sync = world.sync(&joined.member_id, 1, &[]);
    assert_eq!(world.synced(sync).assignment, "work a");
}

#[test]
fn one_that_comes_back_with_other_protocols_rebalances() {
    let mut world = World::new();
    pair(&mut world);
    let both = vec![("robin", ""), ("range", "")];
    let back = world.join(Ask { protocols: both.clone(), ..named("b") });
    // The choice is the same, so nobody is disturbed.
    assert_eq!(world.joined(back).generation, 1);
    let ids: Vec<Str> = world.group.order.clone();
    let leader = world.join(Ask { protocols: both, member_id: ids[0].clone(), ..named("a") });
    let follower = world.join(Ask {
        protocols: vec![("robin", ""), ("range", "")],
        member_id: ids[1].clone(),
        ..named("b")
    });
    assert_eq!(world.joined(leader).generation, 2);
    assert_eq!(world.joined(follower).protocol, Some("robin".into()));
}

#[test]
fn in_the_midst_of_a_rebalance_the_place_is_taken_over() {
    let mut world = World::new();
    let ids = pair(&mut world);
    let waits =
        world.join(Ask { member_id: ids[1].as_str().into(), protocols: vec![("range", "x")], ..named("b") });
    assert_eq!(world.group.state(), State::Preparing);
    let takes_over = world.join(named("b"));
    assert_eq!(world.joined(waits).error, ErrorCode::FENCED_INSTANCE_ID);
    world.join(Ask { member_id: ids[0].as_str().into(), ..named("a") });
    assert_eq!(world.joined(takes_over).generation, 2);
    // After the join but before the leader's word: once more, since the word may name the former self.
    let again = world.join(named("b"));
    assert_eq!(world.group.state(), State::Preparing);
    world.join(Ask { member_id: ids[0].as_str().into(), ..named("a") });
    assert_eq!(world.joined(again).generation, 3);
}

#[test]
fn a_rebalance_does_not_throw_out_a_static_member() {
    let mut world = World::new();
    let ids = pair(&mut world);
    let long = 120 * SECOND;
    let newcomer = world.join(Ask { session_timeout: long, ..Ask::default() });
    world.join(Ask { session_timeout: long, member_id: ids[0].as_str().into(), ..named("a") });
    // `b` sends heartbeats but does not rejoin in time.
    for _ in 0..10 {
        world.group.heartbeat(&ids[1].as_str().into(), Some(&"b".into()), 1, world.now);
        world.pass(6 * SECOND);
    }
    assert_eq!(world.joined(newcomer).generation, 2);
    assert_eq!(world.group.members().count(), 3);
    assert_eq!(world.heartbeat(&ids[1], 1), ErrorCode::ILLEGAL_GENERATION);
}

#[test]
fn absent_static_members_keep_the_group_waiting_until_their_sessions_end() {
    let mut world = World::new();
    world.limits.session_timeout_min = SECOND;
    pair(&mut world);
    let newcomer = world.come();
    assert_eq!(world.group.state(), State::Preparing);
    let leaver = world.group.order[2].to_string();
    world.leave(&leaver, None);
    assert_eq!(world.joined(newcomer).error, ErrorCode::UNKNOWN_MEMBER_ID);
    world.pass(200 * SECOND);
    assert_eq!(world.group.state(), State::Empty);
}

#[test]
fn an_administrator_removes_by_instance_id() {
    let mut world = World::new();
    let ids = pair(&mut world);
    assert_eq!(world.leave("", Some("nobody")), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(world.leave(&ids[0], Some("b")), ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(world.leave("", Some("b")), ErrorCode::NONE);
    assert_eq!(world.group.members().count(), 1);
    let wrong = world.join(Ask { member_id: "m9".into(), ..named("a") });
    assert_eq!(world.joined(wrong).error, ErrorCode::FENCED_INSTANCE_ID);
    let unknown = world.join(Ask { member_id: "m9".into(), ..named("c") });
    assert_eq!(world.joined(unknown).error, ErrorCode::UNKNOWN_MEMBER_ID);
}
