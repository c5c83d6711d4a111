//! SASL through whole requests and bare tokens, with a SCRAM client written from RFC 5802.

use std::net::IpAddr;
use std::num::NonZeroU32;

use async_trait::async_trait;
use data_encoding::BASE64;
use inver_access::scram::{ScramKeys, Shape, decoy_keys};
use inver_access::{Digest, TokenSecret, User};
use inver_broker::{
    AccessControl, Authenticator, Clock, CloseReason, Credentials as Given, DelegationConfig,
    NewDelegationToken,
};
use ring::{digest, hmac, pbkdf2};

use super::*;
use crate::api::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use crate::api::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};

/// The user `ann` with the password `secret`.
struct Ann;

#[async_trait]
impl Authenticator for Ann {
    async fn authenticate(
        &self,
        _access: &AccessControl,
        _peer: IpAddr,
        _given: &Given,
    ) -> Result<Identity, AuthError> {
        Err(AuthError::Refused)
    }

    fn supports_scram(&self, _access: &AccessControl, digest: Digest) -> bool {
        digest != Digest::Md5
    }

    fn scram_keys(&self, _access: &AccessControl, user: &str, digest: Digest) -> Option<ScramKeys> {
        let iterations = NonZeroU32::new(4096).unwrap();
        match user {
            "ann" => ScramKeys::derive(digest, b"secret", b"a salt".to_vec(), iterations),
            _ => Some(decoy_keys(digest, user, b"of this test", Shape { iterations, salt_bytes: 16 })),
        }
    }
}

fn with_ann() -> TestSession {
    session_of(BrokerConfig { authenticator: Arc::new(Ann), ..BrokerConfig::default() }, None)
}

/// The client's side of SCRAM.
struct ScramClient {
    sha512: bool,
    password: &'static str,
    gs2: &'static str,
    bare: String,
    signed: String,
    salted: Vec<u8>,
}

impl ScramClient {
    fn new(mechanism: &str, gs2: &'static str, user: &str, password: &'static str) -> ScramClient {
        let bare = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
        let sha512 = mechanism == "SCRAM-SHA-512";
        ScramClient { sha512, password, gs2, bare, signed: String::new(), salted: Vec::new() }
    }

    fn first(&self) -> String {
        format!("{}{}", self.gs2, self.bare)
    }

    fn hmac(&self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = if self.sha512 { hmac::HMAC_SHA512 } else { hmac::HMAC_SHA256 };
        hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref().to_vec()
    }

    /// The final message, which follows from the server's first one.
    fn last(&mut self, server_first: &str) -> String {
        let [nonce, salt, iterations]: [&str; 3] =
            server_first.split(',').map(|part| &part[2..]).collect::<Vec<_>>().try_into().unwrap();
        let (prf, algorithm, length) = match self.sha512 {
            true => (pbkdf2::PBKDF2_HMAC_SHA512, &digest::SHA512, 64),
            false => (pbkdf2::PBKDF2_HMAC_SHA256, &digest::SHA256, 32),
        };
        self.salted = vec![0; length];
        let salt = BASE64.decode(salt.as_bytes()).unwrap();
        let iterations: NonZeroU32 = iterations.parse().unwrap();
        pbkdf2::derive(prf, iterations, &salt, self.password.as_bytes(), &mut self.salted);
        let client_key = self.hmac(&self.salted, b"Client Key");
        let stored_key = digest::digest(algorithm, &client_key);
        let unproved = format!("c={},r={nonce}", BASE64.encode(self.gs2.as_bytes()));
        self.signed = format!("{},{server_first},{unproved}", self.bare);
        let signature = self.hmac(stored_key.as_ref(), self.signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(one, other)| one ^ other).collect();
        format!("{unproved},p={}", BASE64.encode(&proof))
    }

    /// What the server must send last.
    fn expected(&self) -> String {
        let server_key = self.hmac(&self.salted, b"Server Key");
        format!("v={}", BASE64.encode(&self.hmac(&server_key, self.signed.as_bytes())))
    }
}

impl TestSession {
    /// Handles a request; returns the response, without its length and correlation id, and how the connection goes on.
    fn answer(&mut self, request: Bytes) -> (Option<Reader>, Result<(), ConnectionError>) {
        let _entered = self.runtime.enter();
        let outcome = self.session.handle(request, Instant::now()).and_then(|next| match next {
            Next::Go => Ok(()),
            Next::Run(detached) => self.session.handled(detached.run(), Instant::now()),
            Next::Check(_) => panic!("nothing to check"),
        });
        self.session.advance(&mut self.output).unwrap();
        let response = self.responses().pop();
        (response.map(Reader::new), outcome)
    }

    fn handshake(&mut self, version: i16, mechanism: &str) -> SaslHandshakeResponse {
        let message = SaslHandshakeRequest { mechanism: mechanism.into() };
        let (response, outcome) = self.answer(request(&Api::SaslHandshake, version, &message));
        outcome.unwrap();
        decode(&Api::SaslHandshake, version, response)
    }

    /// The response, and whether the connection goes on.
    fn token(&mut self, token: impl Into<Bytes>) -> (SaslAuthenticateResponse, bool) {
        let message = SaslAuthenticateRequest { auth_bytes: token.into() };
        let (response, outcome) = self.answer(request(&Api::SaslAuthenticate, 1, &message));
        (decode(&Api::SaslAuthenticate, 1, response), outcome.is_ok())
    }

    /// The error of a response after which the connection ends.
    fn refusal(&mut self, token: impl Into<Bytes>) -> (ErrorCode, String) {
        let (response, goes_on) = self.token(token);
        assert!(!goes_on && response.auth_bytes.is_empty() && !self.session.is_open());
        (response.error_code, response.error_message.unwrap().to_string())
    }

    /// Sends the client's first message; returns the server's.
    fn begin(&mut self, mechanism: &str, client: &ScramClient) -> String {
        assert_eq!(self.handshake(1, mechanism).error_code, ErrorCode::NONE);
        let (response, goes_on) = self.token(client.first());
        assert!(goes_on && !self.session.is_open());
        assert_eq!(response.error_code, ErrorCode::NONE);
        String::from_utf8(response.auth_bytes.to_vec()).unwrap()
    }
}

fn decode<T: Wire>(api: &Api, number: i16, response: Option<Reader>) -> T {
    let mut reader = response.unwrap();
    assert_eq!(reader.i32().unwrap(), 7, "correlation id");
    T::read(&mut reader, api.version(number).unwrap()).unwrap()
}

fn invalid(mechanism: &str) -> (ErrorCode, String) {
    let text = "Authentication failed during authentication due to invalid credentials with SASL mechanism";
    (ErrorCode::SASL_AUTHENTICATION_FAILED, format!("{text} {mechanism}"))
}

const MECHANISMS: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-512"];

#[test]
fn scram_proves_both_sides() {
    for mechanism in MECHANISMS {
        for gs2 in ["n,,", "y,,", "n,a=ann,"] {
            let mut test = with_ann();
            let mut client = ScramClient::new(mechanism, gs2, "ann", "secret");
            let server_first = test.begin(mechanism, &client);
            let (response, goes_on) = test.token(client.last(&server_first));
            assert!(goes_on);
            assert_eq!(response.error_code, ErrorCode::NONE);
            assert_eq!(response.auth_bytes, client.expected().as_bytes());
            assert_eq!(test.session.sasl.identity(), Some(&Identity::user("ann")));
            assert_eq!(test.handshake(1, mechanism).error_code, ErrorCode::ILLEGAL_SASL_STATE);
        }
    }
}

#[test]
fn wrong_passwords_and_unknown_users_are_refused_alike() {
    for mechanism in MECHANISMS {
        for (user, password) in [("ann", "Secret"), ("ann", ""), ("bob", "secret"), ("ann=2C", "secret")] {
            let mut test = with_ann();
            let mut client = ScramClient::new(mechanism, "n,,", user, password);
            let server_first = test.begin(mechanism, &client);
            assert_eq!(test.refusal(client.last(&server_first)), invalid(mechanism));
        }
    }
}

#[test]
fn malformed_and_misplaced_tokens_are_refused() {
    let mechanism = "SCRAM-SHA-256";
    for token in ["", "n,,n=ann", "p=tls-unique,,n=ann,r=abc", "\0ann\0secret"] {
        let mut test = with_ann();
        assert_eq!(test.handshake(1, mechanism).error_code, ErrorCode::NONE);
        assert_eq!(test.refusal(token), invalid(mechanism));
        assert_eq!(test.refusal(token).0, ErrorCode::ILLEGAL_SASL_STATE, "the exchange is over");
    }
    // The first message again, where the final one is expected.
    let mut test = with_ann();
    let client = ScramClient::new(mechanism, "n,,", "ann", "secret");
    test.begin(mechanism, &client);
    assert_eq!(test.refusal(client.first()), invalid(mechanism));
    // A final message of another exchange.
    let (mut test, mut other) = (with_ann(), with_ann());
    let mut client = ScramClient::new(mechanism, "n,,", "ann", "secret");
    let server_first = other.begin(mechanism, &client);
    test.begin(mechanism, &client);
    assert_eq!(test.refusal(client.last(&server_first)), invalid(mechanism));
    // No mechanism was chosen.
    assert_eq!(with_ann().refusal(client.first()).0, ErrorCode::ILLEGAL_SASL_STATE);
    // Bare tokens were agreed on.
    let mut test = with_ann();
    assert_eq!(test.handshake(0, mechanism).error_code, ErrorCode::NONE);
    let message = SaslAuthenticateRequest { auth_bytes: client.first().into() };
    let (response, outcome) = test.answer(request(&Api::SaslAuthenticate, 1, &message));
    assert!(response.is_none() && outcome.is_err());
}

#[test]
fn a_client_cannot_act_as_another_user() {
    let text = "Authentication failed: Client requested an authorization id that is different from username";
    for mechanism in MECHANISMS {
        let mut test = with_ann();
        assert_eq!(test.handshake(1, mechanism).error_code, ErrorCode::NONE);
        let client = ScramClient::new(mechanism, "n,a=bob,", "ann", "secret");
        let refusal = test.refusal(client.first());
        assert_eq!(refusal, (ErrorCode::SASL_AUTHENTICATION_FAILED, text.into()));
    }
    let mut test = with_ann();
    assert_eq!(test.handshake(1, "PLAIN").error_code, ErrorCode::NONE);
    let refusal = test.refusal("bob\0ann\0secret");
    assert_eq!(refusal, (ErrorCode::SASL_AUTHENTICATION_FAILED, text.into()));
}

#[test]
fn bare_tokens_carry_scram() {
    for mechanism in MECHANISMS {
        for (password, is_right) in [("secret", true), ("wrong", false)] {
            let mut test = with_ann();
            assert_eq!(test.handshake(0, mechanism).error_code, ErrorCode::NONE);
            let mut client = ScramClient::new(mechanism, "n,,", "ann", password);
            let exchange = |test: &mut TestSession, token: String| {
                let _entered = test.runtime.enter();
                let outcome = test.session.handle(token.into(), Instant::now());
                test.session.advance(&mut test.output).unwrap();
                outcome.map(|_| String::from_utf8(test.responses().pop().unwrap().to_vec()).unwrap())
            };
            let server_first = exchange(&mut test, client.first()).unwrap();
            assert!(test.session.sasl.expects_bare_token() && !test.session.is_open());
            let last = exchange(&mut test, client.last(&server_first));
            assert_eq!(last.ok(), is_right.then(|| client.expected()));
            assert_eq!(test.session.is_open(), is_right);
            assert!(!test.session.sasl.expects_bare_token());
        }
    }
}

#[test]
fn mechanisms_are_offered_if_the_authenticator_supports_them() {
    let mut test = with_ann();
    let refused = test.handshake(1, "GSSAPI");
    assert_eq!(refused.error_code, ErrorCode::UNSUPPORTED_SASL_MECHANISM);
    assert_eq!(refused.mechanisms, ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]);
    // Without configured users.
    let mut test = test_session();
    let refused = test.handshake(1, "SCRAM-SHA-256");
    assert_eq!(refused.error_code, ErrorCode::UNSUPPORTED_SASL_MECHANISM);
    assert_eq!(refused.mechanisms, ["PLAIN"]);
    assert_eq!(test.token("n,,n=ann,r=abc").0.error_code, ErrorCode::ILLEGAL_SASL_STATE);
}

#[test]
fn a_delegation_token_lets_in_its_owner_until_it_expires() {
    use crate::api::heartbeat::HeartbeatRequest;
    let clock = Clock::manual(1_000_000);
    let secret = TokenSecret::random();
    for mechanism in MECHANISMS {
        let delegation =
            DelegationConfig { secret: secret.clone(), expiry_ms: 5000, ..DelegationConfig::default() };
        let config = BrokerConfig { delegation, clock: clock.clone(), ..BrokerConfig::default() };
        let mut test = session_of(config, None);
        let access = test.session.node.broker.access().clone();
        access.put_user(User::new("ann")).unwrap();
        assert_eq!(
            test.handshake(1, mechanism).error_code,
            ErrorCode::UNSUPPORTED_SASL_MECHANISM,
            "there is nothing to log in with"
        );
        let create = || {
            let new = NewDelegationToken {
                owner: "ann".into(),
                requester: "ann".into(),
                renewers: Vec::new(),
                max_lifetime_ms: None,
            };
            let (token, _) = access.create_token(new, clock.now_ms()).unwrap();
            let password: &'static str = secret.as_ref().unwrap().password(&token.id).leak();
            (token, password)
        };
        let (token, password) = create();
        let again = |test: &mut TestSession| {
            let (node, endpoints) = (test.session.node.clone(), test.session.endpoints.clone());
            test.session = Session::new(node, endpoints, Mailbox::new());
        };
        let login = |test: &mut TestSession, id: &str, password, extension: &str| {
            let mut client = ScramClient::new(mechanism, "n,,", id, password);
            client.bare += extension;
            assert_eq!(test.handshake(1, mechanism).error_code, ErrorCode::NONE);
            let (response, goes_on) = test.token(client.first());
            if !goes_on {
                return None;
            }
            let first = String::from_utf8(response.auth_bytes.to_vec()).unwrap();
            let (response, goes_on) = test.token(client.last(&first));
            goes_on.then_some(response.session_lifetime_ms)
        };
        let token_auth = ",tokenauth=true";
        for (id, password, extension) in [
            (token.id.as_str(), "wrong", token_auth),
            ("ann", password, token_auth),
            (token.id.as_str(), password, ""),
        ] {
            assert_eq!(login(&mut test, id, password, extension), None, "{id} {extension}");
            again(&mut test);
        }
        clock.advance(Duration::from_millis(1000));
        assert_eq!(login(&mut test, &token.id, password, token_auth), Some(4000));
        let identity = test.session.sasl.identity().unwrap();
        assert_eq!((identity.name(), identity.token()), (Some("ann"), Some(token.id.as_str())));
        let heartbeat = || request(&Api::Heartbeat, 4, &HeartbeatRequest::default());
        test.answer(heartbeat()).1.unwrap();
        clock.advance(Duration::from_millis(4000));
        assert!(matches!(test.answer(heartbeat()).1, Err(ConnectionError::Expired { .. })));
        again(&mut test);
        assert_eq!(login(&mut test, &token.id, password, token_auth), None, "it is expired");
        // A token that is ended closes its connections.
        again(&mut test);
        let hmac = secret.as_ref().unwrap().hmac(&token.id);
        assert!(access.renew_token(&hmac, "ann", None, clock.now_ms()).is_err());
        let (token, password) = create();
        assert!(login(&mut test, &token.id, password, token_auth).is_some());
        let hmac = secret.as_ref().unwrap().hmac(&token.id);
        access.expire_token(&hmac, "ann", None, clock.now_ms()).unwrap();
        assert_eq!(test.session.mailbox.closing(), Some(CloseReason::CredentialExpired));
    }
}
