//! Access control lists: what is created is enforced, described and deleted, whatever dialect wrote it.

use super::*;
use create_acls::{AclCreation, CreateAcls, CreateAclsRequest};
use delete_acls::{DeleteAcls, DeleteAclsFilter, DeleteAclsRequest};
use describe_acls::DescribeAcls;

/// Every ACL.
fn any() -> DeleteAclsFilter {
    DeleteAclsFilter {
        resource_type_filter: 1,
        resource_name_filter: None,
        pattern_type_filter: 1,
        principal_filter: None,
        host_filter: None,
        operation: 1,
        permission_type: 1,
    }
}

/// An ACL that lets bob read topic `t`.
fn bob_reads() -> AclCreation {
    AclCreation {
        resource_type: 2,
        resource_name: "t".into(),
        resource_pattern_type: 3,
        principal: "User:bob".into(),
        host: "*".into(),
        operation: 3,
        permission_type: 3,
    }
}

fn create(fixture: &mut Fixture, creations: Vec<AclCreation>) -> Vec<ErrorCode> {
    let response = fixture.answer::<CreateAcls>(3, CreateAclsRequest { creations });
    response.results.iter().map(|result| result.error_code).collect()
}

/// The ACLs that a filter names: resource type, name, pattern type, principal, host, operation, permission.
fn describe(fixture: &mut Fixture, filter: DeleteAclsFilter) -> Vec<String> {
    let response = fixture.answer::<DescribeAcls>(3, filter);
    assert_eq!(response.error_code, ErrorCode::NONE, "{response:?}");
    let resources = response.resources.iter();
    let acls = resources.flat_map(|resource| resource.acls.iter().map(move |acl| (resource, acl)));
    acls.map(|(resource, acl)| {
        format!(
            "{} {} {} {} {} {} {}",
            resource.resource_type,
            resource.resource_name,
            resource.pattern_type,
            acl.principal,
            acl.host,
            acl.operation,
            acl.permission_type
        )
    })
    .collect()
}

fn delete(fixture: &mut Fixture, filter: DeleteAclsFilter) -> Vec<(String, ErrorCode)> {
    let response = fixture.answer::<DeleteAcls>(3, DeleteAclsRequest { filters: vec![filter] });
    let result = &response.filter_results[0];
    assert_eq!(result.error_code, ErrorCode::NONE, "{response:?}");
    let matching = result.matching_acls.iter();
    matching.map(|acl| (format!("{} {}", acl.resource_name, acl.operation), acl.error_code)).collect()
}

fn rule(kind: ResourceKind, pattern: Pattern, operations: Operations) -> Rule {
    Rule {
        id: RuleId(0),
        principal: Principal::User("bob".into()),
        namespace: Some("/".into()),
        kind,
        pattern,
        operations,
        effect: Effect::Allow,
        host: None,
        dialect: "other".into(),
    }
}

#[test]
fn without_users_there_are_no_acls() {
    let mut fixture = fixture();
    assert_eq!(create(&mut fixture, vec![bob_reads()]), [ErrorCode::SECURITY_DISABLED]);
    assert_eq!(fixture.answer::<DescribeAcls>(3, any()).error_code, ErrorCode::SECURITY_DISABLED);
    let response = fixture.answer::<DeleteAcls>(3, DeleteAclsRequest { filters: vec![any()] });
    assert_eq!(response.filter_results[0].error_code, ErrorCode::SECURITY_DISABLED);
}

#[test]
fn created_acls_are_enforced_described_and_deleted() {
    let mut fixture = fixture();
    fixture.become_administrator();
    fixture.allow("bob", &[]);
    let deny = AclCreation { permission_type: 2, host: "192.0.2.1".into(), ..bob_reads() };
    let prefix = AclCreation {
        resource_type: 3,
        resource_name: "g-".into(),
        resource_pattern_type: 4,
        principal: "User:*".into(),
        operation: 2,
        ..bob_reads()
    };
    let cluster =
        AclCreation { resource_type: 4, resource_name: "kafka-cluster".into(), operation: 12, ..bob_reads() };
    let everything = AclCreation { resource_type: 5, resource_name: "*".into(), operation: 4, ..bob_reads() };
    let all = vec![bob_reads(), bob_reads(), deny, prefix, cluster, everything];
    assert_eq!(create(&mut fixture, all), [ErrorCode::NONE; 6]);
    let expected = [
        "2 t 3 User:bob * 3 3",
        "2 t 3 User:bob 192.0.2.1 3 2",
        "3 g- 4 User:* * 2 3",
        "4 kafka-cluster 3 User:bob * 12 3",
        "5 * 3 User:bob * 4 3",
    ];
    assert_eq!(describe(&mut fixture, any()), expected);
    let bob = Identity::user("bob");
    fixture.admit(bob);
    let may =
        |fixture: &Fixture, kind, name, operation| fixture.access.permissions.may(kind, name, operation);
    assert!(may(&fixture, ResourceKind::Topic, "t", Operation::Read));
    assert!(!may(&fixture, ResourceKind::Topic, "u", Operation::Read));
    assert!(may(&fixture, ResourceKind::Group, "g-1", Operation::Delete));
    assert!(may(&fixture, ResourceKind::Cluster, "", Operation::IdempotentWrite));
    assert!(may(&fixture, ResourceKind::TransactionalId, "x", Operation::Write));
    fixture.admit(Identity::user("root"));
    let of_topics = DeleteAclsFilter { resource_type_filter: 2, permission_type: 3, ..any() };
    assert_eq!(delete(&mut fixture, of_topics.clone()), [("t 3".to_owned(), ErrorCode::NONE)]);
    assert_eq!(delete(&mut fixture, of_topics), []);
    assert_eq!(describe(&mut fixture, any()), expected[1..]);
    fixture.admit(Identity::user("bob"));
    assert!(!may(&fixture, ResourceKind::Topic, "t", Operation::Read));
}

#[test]
fn filters_select_as_kafka_does() {
    let mut fixture = fixture();
    fixture.become_administrator();
    let named = |name: &str, resource_pattern_type| AclCreation {
        resource_name: name.into(),
        resource_pattern_type,
        ..bob_reads()
    };
    create(&mut fixture, vec![named("ab", 3), named("a", 4), named("*", 3), named("b", 3)]);
    let names = |fixture: &mut Fixture, filter| -> Vec<String> {
        let lines = describe(fixture, filter).into_iter();
        lines.map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
    };
    let by = |name: Option<&str>, pattern_type_filter| DeleteAclsFilter {
        resource_name_filter: name.map(Into::into),
        pattern_type_filter,
        ..any()
    };
    assert_eq!(names(&mut fixture, by(Some("ab"), 2)), ["*", "a", "ab"], "match");
    assert_eq!(names(&mut fixture, by(Some("ab"), 3)), ["ab"], "literal");
    assert_eq!(names(&mut fixture, by(Some("a"), 1)), ["a"], "any pattern of that name");
    assert_eq!(names(&mut fixture, by(None, 4)), ["a"], "prefixed");
    assert_eq!(names(&mut fixture, by(None, 2)), ["*", "a", "ab", "b"]);
    for filter in [
        DeleteAclsFilter { principal_filter: Some("User:ann".into()), ..any() },
        DeleteAclsFilter { host_filter: Some("192.0.2.1".into()), ..any() },
        DeleteAclsFilter { operation: 4, ..any() },
        DeleteAclsFilter { permission_type: 2, ..any() },
        DeleteAclsFilter { resource_type_filter: 6, ..any() },
    ] {
        assert_eq!(names(&mut fixture, filter), Vec::<String>::new());
    }
    let unknown = DeleteAclsFilter { operation: 0, ..any() };
    assert_eq!(fixture.answer::<DescribeAcls>(3, unknown.clone()).error_code, ErrorCode::INVALID_REQUEST);
    let response = fixture.answer::<DeleteAcls>(3, DeleteAclsRequest { filters: vec![unknown] });
    assert_eq!(response.filter_results[0].error_code, ErrorCode::INVALID_REQUEST);
}

#[test]
fn what_cannot_be_an_acl_is_refused() {
    let mut fixture = fixture();
    fixture.become_administrator();
    let wrong = vec![
        AclCreation { resource_name: "".into(), ..bob_reads() },
        AclCreation { resource_type: 1, ..bob_reads() },
        AclCreation { resource_type: 4, ..bob_reads() },
        AclCreation { resource_type: 7, ..bob_reads() },
        AclCreation { resource_type: 7, resource_name: "User:".into(), ..bob_reads() },
        AclCreation { resource_type: 8, ..bob_reads() },
        AclCreation { resource_pattern_type: 2, ..bob_reads() },
        AclCreation { operation: 1, ..bob_reads() },
        AclCreation { operation: 15, ..bob_reads() },
        AclCreation { permission_type: 1, ..bob_reads() },
        AclCreation { host: "example.com".into(), ..bob_reads() },
        AclCreation { principal: "bob".into(), ..bob_reads() },
        AclCreation { principal: "Group:x".into(), ..bob_reads() },
        bob_reads(),
    ];
    let codes = create(&mut fixture, wrong);
    let (last, refused) = codes.split_last().unwrap();
    assert!(refused.iter().all(|code| *code == ErrorCode::INVALID_REQUEST), "{refused:?}");
    assert_eq!(*last, ErrorCode::NONE, "the others of a request are created");
    assert_eq!(describe(&mut fixture, any()).len(), 1);
}

#[test]
fn clients_without_a_user_are_a_principal() {
    let mut fixture = fixture();
    fixture.become_administrator();
    let anonymous = AclCreation { principal: "User:ANONYMOUS".into(), ..bob_reads() };
    assert_eq!(create(&mut fixture, vec![anonymous]), [ErrorCode::NONE]);
    let shown = describe(&mut fixture, any());
    assert!(shown.len() == 1 && format!("{shown:?}").contains("User:ANONYMOUS"), "{shown:?}");
}

#[test]
fn rules_of_other_dialects_are_shown_and_deleted_operation_by_operation() {
    let mut fixture = fixture();
    fixture.become_administrator();
    let some = Operations::of(&[Operation::Configure, Operation::Write, Operation::Subscribe]);
    let rules = vec![
        rule(ResourceKind::Topic, Pattern::Regex(".*".into()), some),
        rule(ResourceKind::Topic, Pattern::Regex("^a|b$".into()), some),
        rule(ResourceKind::Exchange, Pattern::Any, some),
        Rule {
            namespace: None,
            principal: Principal::Tag(Tag::Monitoring),
            ..rule(ResourceKind::Cluster, Pattern::Any, Operations::ALL)
        },
        Rule { namespace: Some("other".into()), ..rule(ResourceKind::Topic, Pattern::Any, some) },
    ];
    fixture.node.broker.access().add_rules(rules).unwrap();
    let configured = vec![rule(ResourceKind::Group, Pattern::Literal("g".into()), Operations::ALL)];
    fixture.node.broker.access().set_configured(Vec::new(), configured).unwrap();
    let shown = describe(&mut fixture, any());
    assert_eq!(
        shown,
        [
            "2 * 3 User:bob * 4 3",
            "2 * 3 User:bob * 5 3",
            "2 * 3 User:bob * 6 3",
            "3 g 3 User:bob * 2 3",
            "4 kafka-cluster 3 Tag:monitoring * 2 3",
        ]
    );
    // One operation of several goes; what cannot be deleted says so.
    let creates = DeleteAclsFilter { operation: 5, ..any() };
    assert_eq!(delete(&mut fixture, creates), [("* 5".to_owned(), ErrorCode::NONE)]);
    let fixed = ErrorCode::POLICY_VIOLATION;
    let deleted = delete(&mut fixture, DeleteAclsFilter { operation: 2, ..any() });
    assert_eq!(deleted, [("g 2".to_owned(), fixed), ("kafka-cluster 2".to_owned(), fixed)]);
    assert_eq!(describe(&mut fixture, any()), [0, 2, 3, 4].map(|place: usize| shown[place].clone()));
    let left = fixture.node.broker.access().rules();
    let split = left.iter().find(|(rule, _)| rule.pattern == Pattern::Regex(".*".into())).unwrap();
    let rest = Operations::of(&[Operation::Write, Operation::Delete, Operation::Subscribe]);
    assert_eq!((split.0.operations, split.0.dialect.as_str()), (rest, "other"));
}

#[test]
fn acls_of_users_and_delegation_tokens() {
    let mut fixture = fixture();
    fixture.become_administrator();
    let of_user = |name: &str, resource_pattern_type, operation| AclCreation {
        resource_type: 7,
        resource_name: name.into(),
        resource_pattern_type,
        operation,
        ..bob_reads()
    };
    let acls = vec![
        of_user("User:ann", 3, 13),
        of_user("User:a", 4, 14),
        of_user("*", 3, 14),
        AclCreation { resource_type: 6, resource_name: "id".into(), operation: 8, ..bob_reads() },
    ];
    assert_eq!(create(&mut fixture, acls), [ErrorCode::NONE; 4]);
    let mut told = describe(&mut fixture, any());
    told.sort();
    assert_eq!(
        told,
        [
            "6 id 3 User:bob * 8 3",
            "7 * 3 User:bob * 14 3",
            "7 User:a 4 User:bob * 14 3",
            "7 User:ann 3 User:bob * 13 3",
        ]
    );
    let rules = fixture.node.broker.access().rules();
    assert!(
        rules.iter().any(
            |(rule, _)| rule.kind == ResourceKind::User && rule.pattern == Pattern::Literal("ann".into())
        )
    );
    let filter =
        DeleteAclsFilter { resource_type_filter: 7, resource_name_filter: Some("User:ann".into()), ..any() };
    assert_eq!(delete(&mut fixture, filter).len(), 1);
}
