//! Authentication.

use std::collections::HashMap;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use inver_broker::{AccessControl, AuthError, Authenticator, Credentials, FixedUsers, Identity};
use inver_kafka::KafkaConfig;
use inver_kafka::api::api_versions::ApiVersionsRequest;
use inver_kafka::api::metadata::{MetadataRequest, MetadataResponse};
use inver_kafka::api::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use inver_kafka::api::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};
use inver_kafka::codec::api::Api;
use inver_kafka::codec::error_code::ErrorCode;

use crate::test_broker::{Client, TestBroker, encode};

fn with_users_and(config: KafkaConfig) -> TestBroker {
    let users = FixedUsers(HashMap::from([("ann".into(), b"secret".to_vec())]));
    TestBroker::with_users(config, Arc::new(users))
}

fn with_users() -> TestBroker {
    with_users_and(KafkaConfig::default())
}

fn handshake(client: &mut Client, version: i16, mechanism: &str) -> ErrorCode {
    let request = SaslHandshakeRequest { mechanism: mechanism.into() };
    let response: SaslHandshakeResponse = client.call(&Api::SaslHandshake, version, &request);
    assert_eq!(response.mechanisms, ["PLAIN"]);
    response.error_code
}

fn authenticate(client: &mut Client, version: i16, token: &'static [u8]) -> ErrorCode {
    let request = SaslAuthenticateRequest { auth_bytes: Bytes::from_static(token) };
    let response: SaslAuthenticateResponse = client.call(&Api::SaslAuthenticate, version, &request);
    response.error_code
}

fn request(client: &mut Client) {
    let _: MetadataResponse = client.call(&Api::Metadata, 9, &MetadataRequest::default());
}

#[test]
fn the_right_password_authenticates_in_every_version() {
    let broker = with_users();
    for version in 0..=2 {
        let mut client = broker.client();
        assert_eq!(handshake(&mut client, 1, "PLAIN"), ErrorCode::NONE);
        assert_eq!(authenticate(&mut client, version, b"\0ann\0secret"), ErrorCode::NONE);
        request(&mut client);
    }
    // The oldest form: a bare token after the handshake.
    let mut client = broker.client();
    assert_eq!(handshake(&mut client, 0, "PLAIN"), ErrorCode::NONE);
    client.stream.write_all(b"\0\0\0\x0b\0ann\0secret").unwrap();
    assert_eq!(client.receive_frame(), Some(Bytes::new()));
    request(&mut client);
}

#[test]
fn an_unauthenticated_client_is_disconnected() {
    let broker = with_users();
    let mut client = broker.client();
    client.send(&Api::Metadata, 9, &MetadataRequest::default());
    assert!(client.is_disconnected());

    let mut client = broker.client();
    assert_eq!(handshake(&mut client, 1, "SCRAM-SHA-256"), ErrorCode::UNSUPPORTED_SASL_MECHANISM);
    assert_eq!(handshake(&mut client, 1, "PLAIN"), ErrorCode::NONE);
    assert_eq!(authenticate(&mut client, 2, b"\0ann\0wrong"), ErrorCode::SASL_AUTHENTICATION_FAILED);
    assert!(client.is_disconnected());

    let mut client = broker.client();
    assert_eq!(authenticate(&mut client, 2, b"\0ann\0secret"), ErrorCode::ILLEGAL_SASL_STATE);
    assert!(client.is_disconnected());

    let mut client = broker.client();
    assert_eq!(handshake(&mut client, 0, "PLAIN"), ErrorCode::NONE);
    client.stream.write_all(b"\0\0\0\x05wrong").unwrap();
    assert!(client.is_disconnected());
}

#[test]
fn requests_of_unauthenticated_clients_have_a_lower_size_limit() {
    let broker = with_users();
    let mut client = broker.client();
    client.stream.write_all(b"\0\x10\0\0\0\x12\0\0").unwrap();
    assert!(client.is_disconnected());
}

#[test]
fn a_client_must_authenticate_in_time_whatever_else_it_sends() {
    let mut config = KafkaConfig::default();
    config.limits.timeouts.login = Duration::from_millis(400);
    let broker = with_users_and(config);
    let start = Instant::now();
    let mut silent = broker.client();
    assert!(silent.is_disconnected());
    let mut talkative = broker.client();
    let mut answered = 0;
    // Other requests do not extend the time; the loop ends because the broker disconnects.
    while start.elapsed() < Duration::from_secs(15) {
        talkative.stream.write_all(&encode(&Api::ApiVersions, 0, 1, &ApiVersionsRequest::default())).ok();
        match talkative.receive_frame() {
            Some(_) => answered += 1,
            None => break,
        }
    }
    assert!(answered > 0);
    assert!(start.elapsed() < Duration::from_secs(10));
    let mut known = broker.client();
    assert_eq!(handshake(&mut known, 1, "PLAIN"), ErrorCode::NONE);
    assert_eq!(authenticate(&mut known, 2, b"\0ann\0secret"), ErrorCode::NONE);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        request(&mut known);
    }
}

#[test]
fn the_default_user_authenticates_where_no_users_are_configured() {
    let broker = TestBroker::new();
    let mut client = broker.client();
    assert_eq!(handshake(&mut client, 1, "PLAIN"), ErrorCode::NONE);
    assert_eq!(authenticate(&mut client, 2, b"\0guest\0guest"), ErrorCode::NONE);
    request(&mut client);
}

/// Lets in the users whose certificates it knows.
struct Certificates;

#[async_trait]
impl Authenticator for Certificates {
    async fn authenticate(
        &self,
        _access: &AccessControl,
        _peer: IpAddr,
        credentials: &Credentials,
    ) -> Result<Identity, AuthError> {
        match credentials {
            Credentials::Certificate { user } if user == "ann" => Ok(Identity::user(user)),
            Credentials::Anonymous => Err(AuthError::CredentialsRequired),
            _ => Err(AuthError::Refused),
        }
    }
}

#[test]
fn the_user_of_a_certificate_needs_no_sasl() {
    let broker = TestBroker::with_certificate("ann", Arc::new(Certificates));
    request(&mut broker.client());
    let broker = TestBroker::with_certificate("eve", Arc::new(Certificates));
    let mut client = broker.client();
    client.send(&Api::Metadata, 9, &MetadataRequest::default());
    assert!(client.is_disconnected());
}
