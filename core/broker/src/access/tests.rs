use std::net::SocketAddr;

use inver_access::{
    Credential, Digest, Effect, Operation, Operations, Pattern, Principal, Tag, TokenSecret, UserLimits,
};
use inver_storage::LogOptions;

use super::*;
use crate::audit::AuditConfig;
use crate::clock::Clock;

fn open(folder: &tempfile::TempDir) -> AccessControl {
    let delegation = DelegationConfig {
        secret: Some(TokenSecret::new([7; 32])),
        max_lifetime_ms: 1000,
        expiry_ms: 400,
        tokens_max: 3,
        tokens_per_owner_max: 2,
    };
    open_with(folder, delegation)
}

fn open_with(folder: &tempfile::TempDir, delegation: DelegationConfig) -> AccessControl {
    let log = Log::open(folder.path(), LogOptions::default()).unwrap();
    let audit = Audit::new(Clock::manual(0), &AuditConfig::default());
    let limits = AccessLimits { users_max: 3, rules_max: 4, ..AccessLimits::default() };
    AccessControl::open(log, limits, delegation, ConnectionRegistry::default(), audit).unwrap()
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

fn new_token(owner: &str) -> NewDelegationToken {
    NewDelegationToken {
        owner: owner.into(),
        requester: "req".into(),
        renewers: vec!["ren".into()],
        max_lifetime_ms: None,
    }
}

#[test]
fn delegation_tokens_survive_a_restart_under_the_same_secret() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    assert!(matches!(access.create_token(new_token("ann"), 0), Err(DelegationError::Disabled)), "no users");
    access.put_user(User::new("ann")).unwrap();
    assert!(access.supports_delegation() && !access.has_tokens());
    assert!(matches!(access.create_token(new_token("bob"), 0), Err(DelegationError::NoSuchUser(_))));
    let (token, _) = access.create_token(new_token("ann"), 100).unwrap();
    assert_eq!((token.issued_ms, token.expires_ms, token.max_ms), (100, 500, 1100));
    let hmac = access.token_hmac(&token.id);
    let (renewed, _) = access.renew_token(&hmac, "ren", None, 200).unwrap();
    assert_eq!(renewed.expires_ms, 600);
    access.0.log.shutdown().unwrap();
    drop(access);

    let access = open(&folder);
    assert_eq!(access.tokens(), std::slice::from_ref(&renewed));
    assert_eq!(access.token_hmac(&token.id), hmac);
    let keys = |access: &AccessControl| access.token_keys(&token.id, Digest::Sha256).unwrap();
    let password = TokenSecret::new([7; 32]).password(&token.id);
    assert!(Credential::Scram(keys(&access)).verify(password.as_bytes()));
    assert!(
        !Credential::Scram(access.token_keys("other", Digest::Sha256).unwrap()).verify(password.as_bytes())
    );
    assert_eq!(access.token_for_login(&token.id, 599), Some(renewed));
    assert_eq!(access.token_for_login(&token.id, 600), None);
    access.update_user("ann", |user| user.disabled = true).unwrap();
    assert_eq!(access.token_for_login(&token.id, 599), None, "its owner is disabled");
    access.0.log.shutdown().unwrap();
    drop(access);

    let delegation = DelegationConfig { secret: TokenSecret::random(), ..DelegationConfig::default() };
    let access = open_with(&folder, delegation);
    assert_eq!(access.tokens(), [], "made with another secret");
}

#[test]
fn who_renews_and_ends_a_token_and_when() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    access.put_user(User::new("ann")).unwrap();
    let (token, _) = access.create_token(new_token("ann"), 0).unwrap();
    let hmac = access.token_hmac(&token.id);
    assert!(matches!(access.renew_token(b"other", "ann", None, 1), Err(DelegationError::NotFound)));
    for (renewed, by) in
        [(access.renew_token(&hmac, "bob", None, 1), "bob"), (access.expire_token(&hmac, "", None, 1), "")]
    {
        assert!(matches!(renewed, Err(DelegationError::NotTheirs)), "{by}");
    }
    let renewed =
        |by, valid_ms, now_ms| access.renew_token(&hmac, by, valid_ms, now_ms).unwrap().0.expires_ms;
    assert_eq!(renewed("ann", Some(50), 10), 60, "a shorter time");
    assert_eq!(renewed("req", Some(5000), 20), 420, "no longer than configured");
    assert_eq!(renewed("ren", None, 400), 800);
    assert_eq!(renewed("ren", None, 700), 1000, "not beyond its greatest lifetime");
    let expired = access.expire_token(&hmac, "ann", Some(100), 710).unwrap().0;
    assert_eq!(expired.expires_ms, 810);
    assert!(matches!(access.renew_token(&hmac, "ann", None, 810), Err(DelegationError::Expired)));
    assert!(matches!(access.expire_token(&hmac, "ann", Some(1), 810), Err(DelegationError::Expired)));
    assert_eq!(access.expire_token(&hmac, "ren", None, 900).unwrap().0.expires_ms, 900);
    assert_eq!(access.tokens(), []);
    assert!(matches!(access.expire_token(&hmac, "ann", None, 900), Err(DelegationError::NotFound)));
    let short = NewDelegationToken { max_lifetime_ms: Some(30), ..new_token("ann") };
    let (short, _) = access.create_token(short, 0).unwrap();
    assert_eq!((short.expires_ms, short.max_ms), (30, 30));
}

#[test]
fn delegation_tokens_are_bounded_and_end_with_their_owner_or_time() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    access.put_user(User::new("ann")).unwrap();
    access.set_configured(vec![User::new("conf")], Vec::new()).unwrap();
    let create = |owner: &str, now_ms| access.create_token(new_token(owner), now_ms);
    create("ann", 0).unwrap();
    create("ann", 100).unwrap();
    let error = create("ann", 0).unwrap_err();
    assert_eq!(error.to_string(), "limit reached: at most 2 delegation tokens of one owner");
    create("conf", 200).unwrap();
    let error = create("conf", 0).unwrap_err();
    assert_eq!(error.to_string(), "limit reached: at most 3 delegation tokens");
    access.remove_expired_tokens(400);
    let owners = || access.tokens().into_iter().map(|token| token.owner).collect::<Vec<_>>();
    assert_eq!(owners(), ["ann", "conf"], "the first is expired");
    let many = NewDelegationToken { renewers: vec!["r".into(); 101], ..new_token("ann") };
    assert!(matches!(access.create_token(many, 0), Err(DelegationError::Limit(_))));
    access.delete_user("ann").unwrap();
    assert_eq!(owners(), ["conf"]);
    access.put_user(User::new("ann")).unwrap();
    assert_eq!(owners(), ["conf"], "another user of that name");
    access.set_configured(Vec::new(), Vec::new()).unwrap();
    assert_eq!(owners(), [""; 0]);
    access.0.log.shutdown().unwrap();
    drop(access);
    assert_eq!(open(&folder).tokens(), []);
}

#[test]
fn a_client_id_that_is_learned_later_counts_in_patterns() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    access.put_user(User::new("ann")).unwrap();
    access.add_rules(vec![allow("ann", "{client_id}-t")]).unwrap();
    let scope = PermissionScope { client_id: "".into(), ..permissions(&access, "ann").scope().clone() };
    let late = access.permissions(scope);
    let may = |name: &str| late.may(ResourceKind::Topic, name, Operation::Read);
    assert!(!may("-t") && !may("c1-t"), "without a client id the rule allows nothing");
    let version = late.version();
    late.identify("");
    assert_eq!(late.version(), version);
    late.identify("c1");
    assert!(may("c1-t") && !may("-t") && late.version() > version);
    assert_eq!(late.who().client_id, Some("c1"));
    late.identify("c2");
    assert!(may("c1-t") && !may("c2-t"), "it stays");
    let known = permissions(&access, "ann");
    known.identify("c3");
    assert_eq!(known.who().client_id, Some("c"));
}

#[test]
fn users_and_rules_are_listed_a_part_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let access = open(&folder);
    for name in ["a", "c", "e"] {
        access.put_user(User::new(name)).unwrap();
    }
    access.add_rules(vec![allow("a", "t"), allow("c", "t")]).unwrap();
    // One of the configuration hides a stored one.
    access
        .set_configured(vec![User::new("b"), User::new("c")], vec![allow("b", "t"), allow("d", "t")])
        .unwrap();
    let named = |users: Vec<(Arc<User>, Source)>| {
        let name = |(user, source): (Arc<User>, Source)| {
            format!("{}{}", user.name, if source == Source::Stored { "" } else { "*" })
        };
        users.into_iter().map(name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(named(access.users()), "a b* c* e");
    assert_eq!(access.user_count(), 4);
    assert_eq!(named(access.users_following(None, 1, 2)), "b* c*");
    assert_eq!(named(access.users_following(Some("b"), 0, 9)), "c* e");
    assert_eq!(named(access.users_preceding(None, 0, 2)), "e c*");
    assert_eq!(named(access.users_preceding(Some("c"), 1, 9)), "a");
    let of = |rules: Vec<(Arc<Rule>, Source)>| {
        let user = |(rule, _): (Arc<Rule>, Source)| match &rule.principal {
            Principal::User(name) => name.clone(),
            _ => String::new(),
        };
        rules.into_iter().map(user).collect::<Vec<_>>().join(" ")
    };
    assert_eq!((of(access.rules()).as_str(), access.rule_count()), ("a c b d", 4));
    let ids: Vec<RuleId> = access.rules().iter().map(|(rule, _)| rule.id).collect();
    assert_eq!(of(access.rules_following(None, 1, 2)), "c b");
    assert_eq!(of(access.rules_following(Some(ids[1]), 0, 9)), "b d");
    assert_eq!(of(access.rules_preceding(None, 1, 2)), "b c");
    assert_eq!(of(access.rules_preceding(Some(ids[2]), 0, 1)), "c");
}
