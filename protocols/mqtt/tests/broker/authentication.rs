//! Enhanced authentication (section 4.12) with SCRAM.

use std::num::NonZeroU32;

use data_encoding::BASE64;
use inver_access::{Credential, Digest, User};
use inver_mqtt::codec::*;
use ring::{hmac, pbkdf2};

use crate::support::*;

/// The client's side of an exchange (RFC 5802).
struct Scram {
    digest: Digest,
    password: &'static str,
    first: String,
}

impl Scram {
    fn new(digest: Digest, user: &str, password: &'static str) -> Scram {
        Scram { digest, password, first: format!("n={user},r=client") }
    }

    fn method(&self) -> &'static str {
        if self.digest == Digest::Sha256 { "SCRAM-SHA-256" } else { "SCRAM-SHA-512" }
    }

    fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first).into_bytes()
    }

    fn hmac(&self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = if self.digest == Digest::Sha256 { hmac::HMAC_SHA256 } else { hmac::HMAC_SHA512 };
        hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref().to_vec()
    }

    /// The final message, and the server's that proves that it knows the keys.
    fn last(&self, server: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let server = std::str::from_utf8(server).unwrap();
        let mut attributes = server.split(',').map(|attribute| &attribute[2..]);
        let (nonce, salt, iterations) =
            (attributes.next().unwrap(), attributes.next().unwrap(), attributes.next().unwrap());
        let algorithm = match self.digest {
            Digest::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            _ => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut salted = vec![0; self.digest.output_bytes()];
        let salt = BASE64.decode(salt.as_bytes()).unwrap();
        let iterations: NonZeroU32 = iterations.parse().unwrap();
        pbkdf2::derive(algorithm, iterations, &salt, self.password.as_bytes(), &mut salted);
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server},{without_proof}", self.first);
        let client_key = self.hmac(&salted, b"Client Key");
        let signature = self.hmac(&self.digest.hash(&[&client_key]), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let verifier = self.hmac(&self.hmac(&salted, b"Server Key"), signed.as_bytes());
        (
            format!("{without_proof},p={}", BASE64.encode(&proof)).into_bytes(),
            format!("v={}", BASE64.encode(&verifier)).into_bytes(),
        )
    }
}

fn fields<'a>(list: Properties<'a>) -> (Option<&'a str>, Option<&'a [u8]>) {
    list.iter().fold((None, None), |(method, data), property| match property {
        Property::AuthenticationMethod(name) => (Some(name), data),
        Property::AuthenticationData(bytes) => (method, Some(bytes)),
        _ => (method, data),
    })
}

async fn server() -> Server {
    let server = Server::start().await;
    let mut ann = User::new("ann");
    let iterations = NonZeroU32::new(4096).unwrap();
    for digest in [Digest::Sha256, Digest::Sha512] {
        ann.credentials.push(Credential::scram(digest, b"secret", iterations).unwrap());
    }
    server.broker.access().put_user(ann).unwrap();
    server
}

fn auth<'a>(reason: Reason, method: &str, data: &[u8]) -> Packet<'a> {
    let list = [Property::AuthenticationMethod(method), Property::AuthenticationData(data)];
    Packet::Auth(Auth { reason, properties: properties(&list) })
}

/// Sends CONNECT and answers the server's first message; returns what the server must prove.
async fn connect(client: &mut Client, scram: &Scram) -> Vec<u8> {
    let (first, method) = (scram.first(), scram.method());
    let list = vec![Property::AuthenticationMethod(method), Property::AuthenticationData(&first)];
    client.send_connect(&ConnectOptions { properties: list, ..Default::default() }).await;
    answer(client, scram).await
}

async fn answer(client: &mut Client, scram: &Scram) -> Vec<u8> {
    let Packet::Auth(step) = client.expect().await else { panic!("no AUTH") };
    assert_eq!(step.reason, Reason::ContinueAuthentication);
    let (method, data) = fields(step.properties);
    assert_eq!(method, Some(scram.method()));
    let (last, verifier) = scram.last(data.unwrap());
    client.send(auth(Reason::ContinueAuthentication, scram.method(), &last)).await;
    verifier
}

#[tokio::test]
async fn a_client_proves_its_password_and_proves_it_again() {
    let server = server().await;
    for digest in [Digest::Sha256, Digest::Sha512] {
        let scram = Scram::new(digest, "ann", "secret");
        let mut client = server.dial(Version::V5).await;
        let verifier = connect(&mut client, &scram).await;
        let connack = client.connack().await;
        assert_eq!(connack.reason, Reason::Success);
        assert_eq!(fields(connack.properties), (Some(scram.method()), Some(&verifier[..])));
        assert_eq!(server.broker.connections().list()[0].user(), Some("ann"));
        for _ in 0..2 {
            client.send(auth(Reason::ReAuthenticate, scram.method(), &scram.first())).await;
            // Other packets go on meanwhile.
            client.send(Packet::PingReq).await;
            let verifier = answer(&mut client, &scram).await;
            assert_eq!(client.expect().await, Packet::PingResp);
            let Packet::Auth(done) = client.expect().await else { panic!("no AUTH") };
            assert_eq!(done.reason, Reason::Success);
            assert_eq!(fields(done.properties).1, Some(&verifier[..]));
        }
        let wrong = Scram::new(digest, "ann", "other");
        client.send(auth(Reason::ReAuthenticate, wrong.method(), &wrong.first())).await;
        answer(&mut client, &wrong).await;
        client.expect_close(Reason::NotAuthorized).await;
    }
}

#[tokio::test]
async fn wrong_passwords_unknown_users_and_methods_are_refused() {
    let server = server().await;
    for (user, password) in [("ann", "wrong"), ("eve", "secret")] {
        let mut client = server.dial(Version::V5).await;
        connect(&mut client, &Scram::new(Digest::Sha256, user, password)).await;
        assert_eq!(client.connack().await.reason, Reason::BadUserNameOrPassword);
        assert_eq!(client.next().await, None);
    }
    for (method, data, reason) in [
        ("SCRAM-SHA-1", &b"n,,n=ann,r=x"[..], Reason::BadAuthenticationMethod),
        ("", b"", Reason::BadAuthenticationMethod),
        ("SCRAM-SHA-256", b"", Reason::NotAuthorized),
        ("SCRAM-SHA-256", b"p=tls-unique,,n=ann,r=x", Reason::NotAuthorized),
        ("SCRAM-SHA-256", b"n,a=bob,n=ann,r=x", Reason::NotAuthorized),
    ] {
        let mut client = server.dial(Version::V5).await;
        let list = vec![Property::AuthenticationMethod(method), Property::AuthenticationData(data)];
        client.send_connect(&ConnectOptions { properties: list, ..Default::default() }).await;
        assert_eq!(client.connack().await.reason, reason, "{method}");
        assert_eq!(client.next().await, None);
    }
}

#[tokio::test]
async fn an_exchange_that_does_not_follow_the_protocol_ends_the_connection() {
    let server = server().await;
    let scram = Scram::new(Digest::Sha256, "ann", "secret");
    let first = scram.first();
    let list = vec![Property::AuthenticationMethod(scram.method()), Property::AuthenticationData(&first)];
    let options = ConnectOptions { properties: list, ..Default::default() };
    for packet in [
        Packet::PingReq,
        auth(Reason::ReAuthenticate, scram.method(), &first),
        auth(Reason::ContinueAuthentication, "SCRAM-SHA-512", &first),
    ] {
        let mut client = server.dial(Version::V5).await;
        client.send_connect(&options).await;
        assert!(matches!(client.expect().await, Packet::Auth(_)));
        client.send(packet).await;
        assert_eq!(client.connack().await.reason, Reason::ProtocolError);
        assert_eq!(client.next().await, None);
    }
    // A connected client: another method, and an answer to nothing.
    for packet in [
        auth(Reason::ReAuthenticate, "SCRAM-SHA-512", &first),
        auth(Reason::ContinueAuthentication, scram.method(), &first),
    ] {
        let mut client = server.dial(Version::V5).await;
        connect(&mut client, &scram).await;
        assert_eq!(client.connack().await.reason, Reason::Success);
        client.send(packet).await;
        client.expect_close(Reason::ProtocolError).await;
    }
}
