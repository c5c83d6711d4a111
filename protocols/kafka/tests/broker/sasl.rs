//! Who may come in.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use inver_broker::FixedUsers;
use inver_kafka::KafkaConfig;
use inver_kafka::codec::api::api_versions::ApiVersionsRequest;
use inver_kafka::codec::api::metadata::{MetadataRequest, MetadataResponse};
use inver_kafka::codec::api::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use inver_kafka::codec::api::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};
use inver_kafka::codec::api_key::Api;
use inver_kafka::codec::error_code::ErrorCode;

use crate::world::{Client, World, encode};

fn guarded_with(config: KafkaConfig) -> World {
    let users = FixedUsers(HashMap::from([("ann".into(), b"secret".to_vec())]));
    World::guarded(config, Arc::new(users))
}

fn guarded() -> World {
    guarded_with(KafkaConfig::default())
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

fn asks(client: &mut Client) {
    let _: MetadataResponse = client.call(&Api::Metadata, 9, &MetadataRequest::default());
}

#[test]
fn with_the_right_password_one_gets_in() {
    let world = guarded();
    for version in 0..=2 {
        let mut client = world.client();
        assert_eq!(handshake(&mut client, 1, "PLAIN"), ErrorCode::NONE);
        assert_eq!(authenticate(&mut client, version, b"\0ann\0secret"), ErrorCode::NONE);
        asks(&mut client);
    }
    // The oldest way: a bare token after the handshake.
    let mut client = world.client();
    assert_eq!(handshake(&mut client, 0, "PLAIN"), ErrorCode::NONE);
    client.stream.write_all(b"\0\0\0\x0b\0ann\0secret").unwrap();
    assert_eq!(client.receive_frame(), Some(Bytes::new()));
    asks(&mut client);
}

#[test]
fn otherwise_not() {
    let world = guarded();
    let mut client = world.client();
    client.send(&Api::Metadata, 9, &MetadataRequest::default());
    assert!(client.is_hung_up_on());

    let mut client = world.client();
    assert_eq!(handshake(&mut client, 1, "SCRAM-SHA-256"), ErrorCode::UNSUPPORTED_SASL_MECHANISM);
    assert_eq!(handshake(&mut client, 1, "PLAIN"), ErrorCode::NONE);
    assert_eq!(authenticate(&mut client, 2, b"\0ann\0wrong"), ErrorCode::SASL_AUTHENTICATION_FAILED);
    assert!(client.is_hung_up_on());

    let mut client = world.client();
    assert_eq!(authenticate(&mut client, 2, b"\0ann\0secret"), ErrorCode::ILLEGAL_SASL_STATE);
    assert!(client.is_hung_up_on());

    let mut client = world.client();
    assert_eq!(handshake(&mut client, 0, "PLAIN"), ErrorCode::NONE);
    client.stream.write_all(b"\0\0\0\x05wrong").unwrap();
    assert!(client.is_hung_up_on());
}

#[test]
fn a_stranger_may_not_send_much() {
    let world = guarded();
    let mut client = world.client();
    client.stream.write_all(b"\0\x10\0\0\0\x12\0\0").unwrap();
    assert!(client.is_hung_up_on());
}

#[test]
fn a_login_has_to_come_in_time_whatever_else_comes() {
    let mut config = KafkaConfig::default();
    config.limits.login_max = Duration::from_millis(400);
    let world = guarded_with(config);
    let start = Instant::now();
    let mut silent = world.client();
    assert!(silent.is_hung_up_on());
    let mut talkative = world.client();
    let mut asked = 0;
    // Each answer renews nothing; the loop ends because the broker hangs up.
    while start.elapsed() < Duration::from_secs(15) {
        talkative.stream.write_all(&encode(&Api::ApiVersions, 0, 1, &ApiVersionsRequest::default())).ok();
        match talkative.receive_frame() {
            Some(_) => asked += 1,
            None => break,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(asked > 0);
    assert!(start.elapsed() < Duration::from_secs(10));
    let mut known = world.client();
    assert_eq!(handshake(&mut known, 1, "PLAIN"), ErrorCode::NONE);
    assert_eq!(authenticate(&mut known, 2, b"\0ann\0secret"), ErrorCode::NONE);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        asks(&mut known);
    }
}

#[test]
fn where_nobody_needs_a_name_the_default_one_is_taken() {
    let world = World::new();
    let mut client = world.client();
    assert_eq!(handshake(&mut client, 1, "PLAIN"), ErrorCode::NONE);
    assert_eq!(authenticate(&mut client, 2, b"\0guest\0guest"), ErrorCode::NONE);
    asks(&mut client);
}
