//! Namespaces: each is a cluster of its own to its clients, kept over a restart, and forgotten when it is deleted.

use inver_broker::NamespaceSpec;

use super::*;
use crate::namespace_rows;

/// Commits an offset of topic `t`.
fn commit(fixture: &mut Fixture, group: &str) -> ErrorCode {
    use offset_commit::{
        OffsetCommit, OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    };
    let partitions = vec![OffsetCommitRequestPartition { committed_offset: 1, ..Default::default() }];
    let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }];
    let request = OffsetCommitRequest { group_id: group.into(), topics, ..Default::default() };
    fixture.answer::<OffsetCommit>(8, request).topics[0].partitions[0].error_code
}

/// Joins a group as a member that its row keeps.
fn join(fixture: &mut Fixture, group: &str) {
    use join_group::{JoinGroup, JoinGroupRequest, JoinGroupRequestProtocol};
    let request = JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), ..Default::default() }],
        ..JoinGroupRequest::default()
    };
    let Reply::Member { member_id, .. } = fixture.call::<JoinGroup>(3, request) else { panic!() };
    assert!(!member_id.is_empty());
}

fn topics(fixture: &mut Fixture) -> Vec<String> {
    let request = metadata::MetadataRequest { topics: None, ..Default::default() };
    let response = fixture.answer::<metadata::Metadata>(9, request);
    response.topics.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect()
}

fn groups(fixture: &mut Fixture) -> Vec<String> {
    let response = fixture.answer::<list_groups::ListGroups>(5, Default::default());
    response.groups.iter().map(|group| group.group_id.to_string()).collect()
}

fn producer_id(fixture: &mut Fixture) -> i64 {
    fixture.answer::<init_producer_id::InitProducerId>(5, Default::default()).producer_id
}

fn of_namespace(name: &str) -> Identity {
    Identity::anonymous().with_namespace(name)
}

#[test]
fn namespaces_share_no_topic_group_or_producer_id() {
    let mut fixture = fixture();
    fixture.node.broker.create_namespace("other", NamespaceSpec::default()).unwrap();
    fixture.admit(Identity::anonymous());
    assert_eq!(commit(&mut fixture, "g"), ErrorCode::NONE);
    let first = producer_id(&mut fixture);
    assert_eq!((topics(&mut fixture), groups(&mut fixture)), (vec!["t".into()], vec!["g".into()]));
    fixture.admit(of_namespace("other"));
    assert_eq!((topics(&mut fixture), groups(&mut fixture)), (vec![], vec![]));
    assert_eq!(commit(&mut fixture, "g"), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(producer_id(&mut fixture), first, "producer ids count from the start in each");
    let spec = TopicSpec { partitions: 1, config: Default::default() };
    fixture.access.node.namespace.create_topic("t", &spec).unwrap();
    assert_eq!(commit(&mut fixture, "h"), ErrorCode::NONE);
    assert_eq!(groups(&mut fixture), ["h"]);
    // Those who come later find the same.
    fixture.admit(Identity::anonymous());
    assert_eq!(groups(&mut fixture), ["g"]);
    fixture.admit(of_namespace("other"));
    assert_eq!(groups(&mut fixture), ["h"]);
}

#[test]
fn stored_rows_of_the_default_namespace_keep_their_keys_and_others_go_with_their_namespace() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let mut fixture = fixture();
    let broker = fixture.node.broker.clone();
    let (other, _) = broker.create_namespace("other", NamespaceSpec::default()).unwrap();
    fixture.admit(Identity::anonymous());
    producer_id(&mut fixture);
    assert!(broker.state("kafka", b"next-producer-id").is_some());
    fixture.admit(of_namespace("other"));
    producer_id(&mut fixture);
    let coordinator = fixture.access.node.coordinator.clone();
    coordinator.start();
    join(&mut fixture, "g");
    let key = [&other.id().to_be_bytes()[..], b"next-producer-id"].concat();
    assert!(broker.state("kafka-of", &key).is_some());
    drop(other);
    let deleting = broker.clone();
    // Its connection must be gone before: nobody drives it here.
    fixture.admit(Identity::anonymous());
    runtime.block_on(async move { deleting.delete_namespace("other").await.unwrap() });
    fixture.node.forget_deleted();
    let weak = Arc::downgrade(&coordinator);
    drop(coordinator);
    runtime.block_on(async {
        while weak.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    });
    namespace_rows::sweep(&broker, crate::coordinator::TABLES).unwrap();
    crate::namespace_node::sweep(&broker).unwrap();
    assert_eq!(broker.states("kafka-of"), []);
    assert_eq!(broker.states("kafka-groups-of"), []);
    assert!(broker.state("kafka", b"next-producer-id").is_some());
}

#[test]
fn a_user_works_in_its_default_namespace_and_its_acls_hold_there() {
    use create_acls::{AclCreation, CreateAcls, CreateAclsRequest};
    let mut fixture = fixture();
    fixture.node.broker.create_namespace("other", NamespaceSpec::default()).unwrap();
    let tags = Tags::from_iter([Tag::Administrator]);
    let default_namespace = Some("other".to_owned());
    let user = User { tags, default_namespace: default_namespace.clone(), ..User::new("root") };
    fixture.node.broker.access().put_user(user).unwrap();
    fixture.node.broker.access().put_user(User { default_namespace, ..User::new("bob") }).unwrap();
    fixture.admit(Identity::user("root"));
    assert_eq!(fixture.access.node.namespace.name(), "other");
    let creation = AclCreation {
        resource_type: 4,
        resource_name: "kafka-cluster".into(),
        resource_pattern_type: 3,
        principal: "User:bob".into(),
        host: "*".into(),
        operation: 2,
        permission_type: 3,
    };
    let request = CreateAclsRequest { creations: vec![creation] };
    assert_eq!(fixture.answer::<CreateAcls>(3, request).results[0].error_code, ErrorCode::NONE);
    let (rule, _) = &fixture.node.broker.access().rules()[0];
    assert_eq!((rule.namespace.as_deref(), rule.dialect.as_str()), (Some("other"), "kafka"));
    // Who may do everything to the cluster of one namespace does not manage the users of all.
    fixture.admit(Identity::user("bob"));
    assert!(fixture.access.may_cluster(Operation::Alter));
    use alter_user_scram_credentials::{
        AlterUserScramCredentials, AlterUserScramCredentialsRequest, ScramCredentialDeletion,
    };
    let deletions = vec![ScramCredentialDeletion { name: "x".into(), mechanism: 1 }];
    let request = AlterUserScramCredentialsRequest { deletions, ..Default::default() };
    let response = fixture.answer::<AlterUserScramCredentials>(0, request);
    assert_eq!(response.results[0].error_code, ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
}
