use std::net::SocketAddr;

use inver_access::{Credential, Effect, Operation, Operations, Pattern, Principal, Tag, UserLimits};
use inver_storage::LogOptions;

use super::*;
use crate::audit::AuditConfig;
use crate::clock::Clock;

fn open(folder: &tempfile::TempDir) -> AccessControl {
    let log = Log::open(folder.path(), LogOptions::default()).unwrap();
    let audit = Audit::new(Clock::manual(0), &AuditConfig::default());
    let limits = AccessLimits { users_max: 3, rules_max: 4, ..AccessLimits::default() };
    AccessControl::open(log, limits, ConnectionRegistry::default(), audit).unwrap()
}

fn rule(user: &str, topic: &str, operation: Operation, effect: Effect) -> NewRule {
    Rule {
        id: RuleId(0),
        principal: Principal::User(user.into()),
        namespace: None,
        kind: ResourceKind::Topic,
        pattern: Pattern::Literal(topic.into()),
        operations: Operations::of(&[operation]),
        effect,
        host: None,
        dialect: String::new(),
    }
}

fn allow(user: &str, topic: &str) -> NewRule {
    rule(user, topic, Operation::Read, Effect::Allow)
}

fn permissions(access: &AccessControl, user: &str) -> Arc<Permissions> {
    access.permissions(PermissionScope {
        user: Some(user.into()),
        external_tags: None,
        client_id: "c".into(),
        namespace: "/".into(),
        protocol: "test",
        peer: SocketAddr::from(([127, 0, 0, 1], 0)),
    })
}

#[test]
fn users_and_rules_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    let ann = User {
        disabled: true,
        tags: [Tag::Monitoring, Tag::Custom("x".into())].into_iter().collect(),
        default_namespace: Some("n".into()),
        credentials: vec![Credential::argon2id(b"pw").unwrap()],
        limits: UserLimits { connections_max: Some(7), channels_max: None },
        ..User::new("ann")
    };
    access.put_user(ann.clone()).unwrap();
    access.put_user(User::new("bob")).unwrap();
    access.delete_user("bob").unwrap();
    let (ids, _) = access.add_rules(vec![allow("ann", "t"), allow("ann", "u")]).unwrap();
    access.delete_rules(|rule| rule.id == ids[0]).unwrap();
    access.0.log.shutdown().unwrap();
    drop(access);

    let access = open(&folder);
    let users: Vec<User> = access.users().into_iter().map(|(user, _)| user.as_ref().clone()).collect();
    assert_eq!(users, [ann]);
    let rules: Vec<Rule> = access.rules().into_iter().map(|(rule, _)| rule.as_ref().clone()).collect();
    assert_eq!(rules, [Rule { id: ids[1], ..allow("ann", "u") }]);
    let (again, _) = access.add_rules(vec![allow("ann", "v")]).unwrap();
    assert!(again[0] > ids[1], "ids are not reused");
}

#[test]
fn rules_are_changed_from_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    access.add_rules(vec![allow("ann", "a"), allow("bob", "b")]).unwrap();
    let of_ann = |rule: &Rule| rule.principal == Principal::User("ann".into());
    let changed = access
        .change_rules(of_ann, |present| {
            assert_eq!(present.len(), 1);
            let kept = present.iter().map(|rule| rule.as_ref().clone());
            Ok::<_, AccessError>(kept.chain([allow("ann", "c")]).collect())
        })
        .unwrap();
    assert_eq!((changed.added.len(), changed.deleted.len()), (2, 0));
    assert_eq!(access.rules().len(), 3);
    let refused: Result<_, AccessError> =
        access.change_rules(of_ann, |_| Err(AccessError::NoSuchUser("ann".into())));
    assert!(refused.is_err() && access.rules().len() == 3);
}

#[test]
fn permissions_follow_every_change() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    let of_ann = permissions(&access, "ann");
    let may = || of_ann.may(ResourceKind::Topic, "t", Operation::Read);
    assert!(may() && of_ann.is_unrestricted(), "nothing is enforced without users and rules");
    access.put_user(User::new("ann")).unwrap();
    assert!(!may() && !of_ann.is_unrestricted());
    access.add_rules(vec![allow("ann", "t")]).unwrap();
    assert!(may());
    assert!(!of_ann.may(ResourceKind::Topic, "u", Operation::Read));
    let tags: Tags = [Tag::Administrator].into_iter().collect();
    access.update_user("ann", |user| user.tags = tags).unwrap();
    assert!(of_ann.is_unrestricted() && of_ann.may(ResourceKind::Topic, "u", Operation::Read));
    access.add_rules(vec![rule("ann", "u", Operation::Read, Effect::Deny)]).unwrap();
    assert!(!of_ann.is_unrestricted() && !of_ann.may(ResourceKind::Topic, "u", Operation::Read));
    access.update_user("ann", |user| user.disabled = true).unwrap();
    assert!(!may());
    access.update_user("ann", |user| user.disabled = false).unwrap();
    assert!(may());
    access.put_user(User::new("bob")).unwrap();
    access.delete_user("ann").unwrap();
    assert!(!may() && access.rules().is_empty(), "the rules of a deleted user are deleted too");
}

#[test]
fn the_configuration_is_read_only_and_wins() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    access.put_user(User::new("ann")).unwrap();
    access.set_configured(vec![User::new("ann")], vec![allow("ann", "t")]).unwrap();
    assert_eq!(access.user("ann").unwrap().1, Source::Configuration);
    let refused = |result: Result<Completion, AccessError>| matches!(result, Err(AccessError::ReadOnly(_)));
    assert!(refused(access.put_user(User::new("ann"))) && refused(access.delete_user("ann")));
    let (deleted, _) = access.delete_rules(|_| true).unwrap();
    assert!(deleted.is_empty());
    assert!(permissions(&access, "ann").may(ResourceKind::Topic, "t", Operation::Read));
    access.set_configured(Vec::new(), Vec::new()).unwrap();
    assert_eq!(access.user("ann").unwrap().1, Source::Stored);
    assert!(!permissions(&access, "ann").may(ResourceKind::Topic, "t", Operation::Read));
}

#[test]
fn limits_names_and_patterns_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    for name in ["", "a\nb", &"x".repeat(256)] {
        assert!(matches!(access.put_user(User::new(name)), Err(AccessError::InvalidName)));
    }
    for name in ["a", "b", "c", "c"] {
        access.put_user(User::new(name)).unwrap();
    }
    assert!(matches!(access.put_user(User::new("d")), Err(AccessError::Limit(LimitReached { max: 3, .. }))));
    let rules = |count: usize| (0..count).map(|n| allow("a", &n.to_string())).collect::<Vec<_>>();
    assert!(matches!(access.add_rules(rules(5)), Err(AccessError::Limit(LimitReached { max: 4, .. }))));
    assert_eq!(access.add_rules(rules(4)).unwrap().0.len(), 4);
    let (ids, completion) = access.add_rules(rules(4)).unwrap();
    assert_eq!((ids.len(), completion), (4, Completion::Now), "rules that exist are not added again");
    let changed = access.replace_rules(|_| true, vec![allow("a", "0"), allow("a", "new")]).unwrap();
    assert_eq!((changed.deleted.len(), access.rules().len()), (3, 2));
    let mut wrong = allow("a", "x");
    wrong.pattern = Pattern::Regex("(".into());
    assert!(matches!(access.add_rules(vec![wrong]), Err(AccessError::Pattern(_))));
}
