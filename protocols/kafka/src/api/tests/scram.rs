//! SCRAM credentials of users, set and told over the protocol.

use super::*;
use alter_user_scram_credentials::{
    AlterUserScramCredentials, AlterUserScramCredentialsRequest, ScramCredentialDeletion,
    ScramCredentialUpsertion,
};
use describe_user_scram_credentials::{
    DescribeUserScramCredentials, DescribeUserScramCredentialsRequest, UserName,
};
use inver_access::scram::ScramKeys;
use inver_access::{Credential, Digest, HashMemory, Tag};
use inver_broker::NewDelegationToken;
use ring::pbkdf2;
use std::num::NonZeroU32;

const SHA_256: i8 = 1;
const SHA_512: i8 = 2;

/// A new password, salted by the client as kafka-configs does.
fn set(name: &str, mechanism: i8, password: &str) -> ScramCredentialUpsertion {
    let (algorithm, bytes) = match mechanism {
        SHA_256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        _ => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
    };
    let mut salted = vec![0; bytes];
    pbkdf2::derive(algorithm, NonZeroU32::new(4096).unwrap(), b"salt", password.as_bytes(), &mut salted);
    ScramCredentialUpsertion {
        name: name.into(),
        mechanism,
        iterations: 4096,
        salt: Bytes::from_static(b"salt"),
        salted_password: salted.into(),
    }
}

fn remove(name: &str, mechanism: i8) -> ScramCredentialDeletion {
    ScramCredentialDeletion { name: name.into(), mechanism }
}

fn alter(
    fixture: &mut Fixture,
    deletions: Vec<ScramCredentialDeletion>,
    upsertions: Vec<ScramCredentialUpsertion>,
) -> Vec<(String, ErrorCode)> {
    let request = AlterUserScramCredentialsRequest { deletions, upsertions };
    let response = fixture.answer::<AlterUserScramCredentials>(0, request);
    response.results.iter().map(|result| (result.user.to_string(), result.error_code)).collect()
}

fn describe(fixture: &mut Fixture, users: &[&str]) -> Vec<(String, ErrorCode, Vec<i8>)> {
    let users = users.iter().map(|name| UserName { name: (*name).into() }).collect();
    let request = DescribeUserScramCredentialsRequest { users: Some(users) };
    let response = fixture.answer::<DescribeUserScramCredentials>(0, request);
    assert_eq!(response.error_code, ErrorCode::NONE);
    let told = response.results.iter().map(|result| {
        let mechanisms = result.credential_infos.iter().map(|info| info.mechanism).collect();
        (result.user.to_string(), result.error_code, mechanisms)
    });
    told.collect()
}

fn one(name: &str, code: ErrorCode) -> Vec<(String, ErrorCode)> {
    vec![(name.to_owned(), code)]
}

#[test]
fn the_first_user_is_an_administrator_and_later_ones_are_not() {
    let mut fixture = fixture();
    assert_eq!(alter(&mut fixture, vec![], vec![set("ann", SHA_512, "secret")]), one("ann", ErrorCode::NONE));
    let access = fixture.node.broker.access().clone();
    assert!(access.is_administrator("ann"));
    assert!(access.user("ann").unwrap().0.verify(b"secret", &mut HashMemory::default()));
    // From now on nobody without a user may do anything.
    let anonymous = alter(&mut fixture, vec![], vec![set("bob", SHA_512, "x")]);
    assert_eq!(anonymous, one("bob", ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
    fixture.admit(Identity::user("ann"));
    let both = vec![set("bob", SHA_256, "pw"), set("bob", SHA_512, "pw")];
    assert_eq!(alter(&mut fixture, vec![], both), one("bob", ErrorCode::NONE));
    assert!(
        !access.is_administrator("bob")
            && access.user("bob").unwrap().0.verify(b"pw", &mut HashMemory::default())
    );
    let told = describe(&mut fixture, &[]);
    assert_eq!(
        told,
        [
            ("ann".to_owned(), ErrorCode::NONE, vec![SHA_512]),
            ("bob".to_owned(), ErrorCode::NONE, vec![SHA_256, SHA_512])
        ]
    );
    assert_eq!(alter(&mut fixture, vec![remove("bob", SHA_256)], vec![]), one("bob", ErrorCode::NONE));
    assert_eq!(describe(&mut fixture, &["bob"]), [("bob".to_owned(), ErrorCode::NONE, vec![SHA_512])]);
    let again = alter(&mut fixture, vec![], vec![set("bob", SHA_512, "new")]);
    assert_eq!(again, one("bob", ErrorCode::NONE));
    let bob = access.user("bob").unwrap().0;
    assert!(bob.verify(b"new", &mut HashMemory::default()) && !bob.verify(b"pw", &mut HashMemory::default()));
}

#[test]
fn wrong_credentials_are_refused_as_by_kafka() {
    let mut fixture = fixture();
    fixture.become_administrator();
    let with = |change: &dyn Fn(&mut ScramCredentialUpsertion)| {
        let mut changed = set("bob", SHA_256, "pw");
        change(&mut changed);
        changed
    };
    let unacceptable = ErrorCode::UNACCEPTABLE_CREDENTIAL;
    for (wrong, code) in [
        (with(&|one| one.iterations = 4095), unacceptable),
        (with(&|one| one.iterations = 16_385), unacceptable),
        (with(&|one| one.iterations = -1), unacceptable),
        (with(&|one| one.salt = Bytes::new()), unacceptable),
        (with(&|one| one.salted_password = Bytes::from_static(b"short")), unacceptable),
        (with(&|one| one.mechanism = 3), ErrorCode::UNSUPPORTED_SASL_MECHANISM),
    ] {
        assert_eq!(alter(&mut fixture, vec![], vec![wrong]), one("bob", code));
    }
    assert_eq!(alter(&mut fixture, vec![], vec![set("", SHA_256, "pw")]), one("", unacceptable));
    let twice = alter(&mut fixture, vec![remove("bob", SHA_256)], vec![set("bob", SHA_256, "pw")]);
    assert_eq!(twice, one("bob", ErrorCode::DUPLICATE_RESOURCE));
    let missing = alter(&mut fixture, vec![remove("bob", SHA_256)], vec![]);
    assert_eq!(missing, one("bob", ErrorCode::RESOURCE_NOT_FOUND));
    assert!(fixture.node.broker.access().user("bob").is_none());
    let told = describe(&mut fixture, &["bob", "root", "root"]);
    assert_eq!(
        told,
        [
            ("bob".to_owned(), ErrorCode::RESOURCE_NOT_FOUND, vec![]),
            ("root".to_owned(), ErrorCode::DUPLICATE_RESOURCE, vec![])
        ]
    );
}

#[test]
fn users_of_the_configuration_and_administrators_are_protected() {
    let mut fixture = fixture();
    let keys = ScramKeys::derive(Digest::Sha256, b"pw", b"salt".to_vec(), NonZeroU32::new(4096).unwrap());
    let credentials = vec![Credential::Scram(keys.unwrap())];
    let fixed = User { credentials, ..User::new("fixed") };
    fixture.node.broker.access().set_configured(vec![fixed], Vec::new()).unwrap();
    fixture.become_administrator();
    assert_eq!(describe(&mut fixture, &["fixed"])[0].2, [SHA_256]);
    let altered = alter(&mut fixture, vec![], vec![set("fixed", SHA_256, "other")]);
    assert_eq!(altered, one("fixed", ErrorCode::POLICY_VIOLATION));
    let altered = alter(&mut fixture, vec![], vec![set("root", SHA_256, "pw")]);
    assert_eq!(altered, one("root", ErrorCode::NONE));
    // Who manages users is not an administrator yet, and does not become one.
    fixture.become_user("manager", &[(ResourceKind::Cluster, "", Operation::Alter)]);
    assert_eq!(alter(&mut fixture, vec![], vec![set("bob", SHA_256, "pw")]), one("bob", ErrorCode::NONE));
    let refused = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
    assert_eq!(alter(&mut fixture, vec![], vec![set("root", SHA_256, "pw")]), one("root", refused));
    assert_eq!(alter(&mut fixture, vec![remove("root", SHA_256)], vec![]), one("root", refused));
    // Nor does it take over a user who sees more than it.
    let watcher = User { tags: [Tag::Monitoring].into_iter().collect(), ..User::new("watcher") };
    fixture.node.broker.access().put_user(watcher).unwrap();
    assert_eq!(alter(&mut fixture, vec![], vec![set("watcher", SHA_256, "pw")]), one("watcher", refused));
}

#[test]
fn a_client_with_a_token_changes_neither_its_own_user_nor_an_administrator() {
    let mut fixture = fixture();
    fixture.become_administrator();
    for user in ["ann", "bob"] {
        fixture.allow(user, &[(ResourceKind::Cluster, "", Operation::Alter)]);
    }
    let refused = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
    for (who, name, expected) in [
        ("ann", "ann", refused),
        ("ann", "bob", ErrorCode::NONE),
        ("ann", "root", refused),
        ("root", "root", refused),
        ("root", "ann", ErrorCode::NONE),
    ] {
        let token = NewDelegationToken {
            owner: who.into(),
            requester: who.into(),
            renewers: Vec::new(),
            max_lifetime_ms: None,
        };
        let (token, _) = fixture.node.broker.access().create_token(token, fixture.node.now_ms()).unwrap();
        fixture.admit(Identity::user(who).with_token(&token.id));
        let altered = alter(&mut fixture, vec![], vec![set(name, SHA_256, "new")]);
        assert_eq!(altered, [(name.to_owned(), expected)], "{who}");
    }
    fixture.admit(Identity::user("ann"));
    assert_eq!(alter(&mut fixture, vec![], vec![set("ann", SHA_256, "new")])[0].1, ErrorCode::NONE);
}
