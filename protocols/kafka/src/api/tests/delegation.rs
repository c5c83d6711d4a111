//! Delegation tokens: who may make, see, renew and end them.

use super::*;
use create_delegation_token::{
    CreatableRenewers, CreateDelegationToken, CreateDelegationTokenRequest, CreateDelegationTokenResponse,
};
use describe_delegation_token::{
    DescribeDelegationToken, DescribeDelegationTokenOwner, DescribeDelegationTokenRequest,
};
use expire_delegation_token::{ExpireDelegationToken, ExpireDelegationTokenRequest};
use renew_delegation_token::{RenewDelegationToken, RenewDelegationTokenRequest};

fn create(fixture: &mut Fixture, owner: &str, renewer: &str) -> CreateDelegationTokenResponse {
    let renewers = [renewer].into_iter().filter(|name| !name.is_empty());
    let renewers =
        renewers.map(|name| CreatableRenewers { principal_type: "User".into(), principal_name: name.into() });
    let request = CreateDelegationTokenRequest {
        owner_principal_type: Some("User".into()),
        owner_principal_name: Some(owner.into()),
        renewers: renewers.collect(),
        max_lifetime_ms: -1,
    };
    fixture.answer::<CreateDelegationToken>(3, request)
}

/// The owners of the tokens that the client sees, or the error.
fn describe(fixture: &mut Fixture, owners: Option<&[&str]>) -> Result<Vec<String>, ErrorCode> {
    let owners = owners.map(|owners| {
        let owner = |name: &&str| DescribeDelegationTokenOwner {
            principal_type: "User".into(),
            principal_name: (*name).into(),
        };
        owners.iter().map(owner).collect()
    });
    let told = fixture.answer::<DescribeDelegationToken>(3, DescribeDelegationTokenRequest { owners });
    match told.error_code {
        ErrorCode::NONE => Ok(told.tokens.iter().map(|token| token.principal_name.to_string()).collect()),
        error => Err(error),
    }
}

fn renew(fixture: &mut Fixture, hmac: &Bytes) -> ErrorCode {
    let request = RenewDelegationTokenRequest { hmac: hmac.clone(), renew_period_ms: -1 };
    fixture.answer::<RenewDelegationToken>(2, request).error_code
}

fn expire(fixture: &mut Fixture, hmac: &Bytes, expiry_time_period_ms: i64) -> ErrorCode {
    let request = ExpireDelegationTokenRequest { hmac: hmac.clone(), expiry_time_period_ms };
    fixture.answer::<ExpireDelegationToken>(2, request).error_code
}

#[test]
fn only_users_who_proved_that_without_a_token_may_ask() {
    let mut fixture = fixture();
    let none = Bytes::new();
    let refused = |fixture: &mut Fixture, code: ErrorCode| {
        assert_eq!(create(fixture, "", "").error_code, code);
        assert_eq!(describe(fixture, None), Err(code));
        assert_eq!(renew(fixture, &none), code);
        assert_eq!(expire(fixture, &none, -1), code);
    };
    refused(&mut fixture, ErrorCode::DELEGATION_TOKEN_REQUEST_NOT_ALLOWED);
    fixture.admit(Identity::user("guest"));
    refused(&mut fixture, ErrorCode::DELEGATION_TOKEN_AUTH_DISABLED);
    fixture.become_user("ann", &[]);
    let token = create(&mut fixture, "", "");
    assert_eq!(token.error_code, ErrorCode::NONE);
    assert_eq!((&*token.principal_name, &*token.token_requester_principal_name), ("ann", "ann"));
    assert!(token.hmac.len() == 64 && token.expiry_timestamp_ms < token.max_timestamp_ms);
    fixture.admit(Identity::user("ann").with_token(&token.token_id));
    refused(&mut fixture, ErrorCode::DELEGATION_TOKEN_REQUEST_NOT_ALLOWED);
    fixture.admit(Identity::external("ann", Tags::default()));
    refused(&mut fixture, ErrorCode::DELEGATION_TOKEN_REQUEST_NOT_ALLOWED);
}

#[test]
fn tokens_of_others_need_permission() {
    let mut fixture = fixture();
    fixture.become_administrator();
    create(&mut fixture, "", "");
    fixture.allow("ann", &[]);
    fixture.allow("bob", &[]);
    assert_eq!(create(&mut fixture, "nobody", "").error_code, ErrorCode::RESOURCE_NOT_FOUND);
    fixture.become_user("ann", &[]);
    let refused = create(&mut fixture, "bob", "");
    assert_eq!(refused.error_code, ErrorCode::DELEGATION_TOKEN_AUTHORIZATION_FAILED);
    assert_eq!((refused.issue_timestamp_ms, refused.hmac.len()), (-1, 0));
    let own = create(&mut fixture, "", "bob");
    assert_eq!(describe(&mut fixture, None), Ok(vec!["ann".to_owned()]));
    fixture.allow("ann", &[(ResourceKind::User, "bob", Operation::CreateTokens)]);
    let of_bob = create(&mut fixture, "bob", "");
    assert_eq!(of_bob.error_code, ErrorCode::NONE);
    assert_eq!((&*of_bob.principal_name, &*of_bob.token_requester_principal_name), ("bob", "ann"));
    // Administrators' tokens are theirs, whatever rules say.
    fixture.allow("ann", &[(ResourceKind::User, "root", Operation::CreateTokens)]);
    fixture.allow("ann", &[(ResourceKind::User, "root", Operation::DescribeTokens)]);
    let of_root = create(&mut fixture, "root", "");
    assert_eq!(of_root.error_code, ErrorCode::DELEGATION_TOKEN_AUTHORIZATION_FAILED);
    assert_eq!(describe(&mut fixture, Some(&["root"])), Ok(vec![]));

    fixture.become_user("cyd", &[]);
    assert_eq!(describe(&mut fixture, None), Ok(vec![]));
    assert_eq!(renew(&mut fixture, &own.hmac), ErrorCode::DELEGATION_TOKEN_OWNER_MISMATCH);
    assert_eq!(expire(&mut fixture, &own.hmac, -1), ErrorCode::DELEGATION_TOKEN_OWNER_MISMATCH);
    assert_eq!(renew(&mut fixture, &Bytes::from_static(b"x")), ErrorCode::DELEGATION_TOKEN_NOT_FOUND);
    fixture.allow("cyd", &[(ResourceKind::User, "ann", Operation::DescribeTokens)]);
    assert_eq!(describe(&mut fixture, None), Ok(vec!["ann".to_owned()]));
    fixture.allow("cyd", &[(ResourceKind::DelegationToken, &of_bob.token_id, Operation::Describe)]);
    assert_eq!(describe(&mut fixture, Some(&["bob"])).map(|owners| owners.len()), Ok(2), "one as a renewer");
    assert_eq!(describe(&mut fixture, Some(&[])), Ok(vec![]));

    fixture.become_user("bob", &[]);
    assert_eq!(renew(&mut fixture, &own.hmac), ErrorCode::NONE, "a renewer");
    assert_eq!(expire(&mut fixture, &own.hmac, -1), ErrorCode::NONE);
    assert_eq!(expire(&mut fixture, &own.hmac, -1), ErrorCode::DELEGATION_TOKEN_NOT_FOUND);
    assert_eq!(expire(&mut fixture, &of_bob.hmac, 0), ErrorCode::NONE);
    assert_eq!(renew(&mut fixture, &of_bob.hmac), ErrorCode::DELEGATION_TOKEN_EXPIRED);
    assert_eq!(describe(&mut fixture, None), Ok(vec![]), "expired ones are not told");
}

#[test]
fn malformed_requests_for_tokens_are_refused() {
    let mut fixture = fixture();
    fixture.become_user("ann", &[]);
    let group = |owner: Option<&str>| CreateDelegationTokenRequest {
        owner_principal_type: Some("Group".into()),
        owner_principal_name: owner.map(Into::into),
        ..CreateDelegationTokenRequest::default()
    };
    for request in [
        group(Some("ann")),
        CreateDelegationTokenRequest {
            renewers: vec![CreatableRenewers { principal_type: "Group".into(), principal_name: "g".into() }],
            ..CreateDelegationTokenRequest::default()
        },
    ] {
        let code = fixture.answer::<CreateDelegationToken>(3, request).error_code;
        assert_eq!(code, ErrorCode::INVALID_PRINCIPAL_TYPE);
    }
    assert_eq!(fixture.answer::<CreateDelegationToken>(3, group(None)).error_code, ErrorCode::NONE);
    for _ in 1..100 {
        assert_eq!(create(&mut fixture, "", "").error_code, ErrorCode::NONE);
    }
    assert_eq!(create(&mut fixture, "", "").error_code, ErrorCode::POLICY_VIOLATION);
}

/// What a renewer sees of a token logs in by it.
#[test]
fn a_later_user_of_a_renewers_name_has_no_rights_to_the_token() {
    let mut fixture = fixture();
    fixture.become_administrator();
    fixture.allow("bob", &[]);
    fixture.allow("bob", &[(ResourceKind::User, "ann", Operation::CreateTokens)]);
    fixture.become_user("ann", &[]);
    create(&mut fixture, "", "bob");
    fixture.become_user("bob", &[]);
    let requested = create(&mut fixture, "ann", "");
    assert_eq!(requested.error_code, ErrorCode::NONE);
    assert_eq!(describe(&mut fixture, None).map(|owners| owners.len()), Ok(2));
    let access = fixture.node.broker.access().clone();
    let _ = access.delete_user("bob").unwrap();
    fixture.become_user("bob", &[]);
    assert_eq!(describe(&mut fixture, None), Ok(vec![]));
    assert_eq!(renew(&mut fixture, &requested.hmac), ErrorCode::DELEGATION_TOKEN_OWNER_MISMATCH);
    fixture.become_user("ann", &[]);
    assert_eq!(describe(&mut fixture, None).map(|owners| owners.len()), Ok(2), "they are still the owner's");
}
