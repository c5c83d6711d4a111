use inver_broker::{Broker, BrokerConfig};
use inver_storage::{Log, LogOptions};

use super::*;
use crate::jwt::TokenLimits;
use crate::passwords;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn password(user: &str, password: &str) -> Credentials {
    Credentials::Password { user: user.into(), password: password.as_bytes().to_vec() }
}

fn no_tokens() -> Tokens {
    Tokens::new(TokenLimits::default(), Clock::system())
}

struct Fixture {
    logins: Logins,
    broker: Broker,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new(users: &[(&str, &[String])]) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), LogOptions::default()).unwrap();
        let broker = Broker::open(log, BrokerConfig::default()).unwrap();
        let fixture = Fixture {
            logins: Logins::new(LoginSettings::default(), Clock::system(), no_tokens()).unwrap(),
            broker,
            _folder: folder,
        };
        users.iter().for_each(|(name, hashes)| fixture.put(name, hashes));
        fixture
    }

    fn put(&self, name: &str, hashes: &[String]) {
        let credentials = hashes.iter().map(|hash| passwords::parse(hash).unwrap()).collect();
        self.broker.access().put_user(User { credentials, ..User::new(name) }).unwrap();
    }

    async fn login(&self, user: &str, with: &str) -> Result<Identity, AuthError> {
        self.logins.authenticate(self.broker.access(), PEER, &password(user, with)).await
    }
}

#[tokio::test]
async fn only_the_correct_password_is_accepted() {
    let hash = passwords::hash(b"pw").unwrap();
    let fixture = Fixture::new(&[("ann", &[hash])]);
    let access = fixture.broker.access();
    assert!(!fixture.logins.supports_scram(access, Digest::Sha256));
    assert!(fixture.logins.scram_keys(access, "ann", Digest::Sha256).is_none());
    for _ in 0..2 {
        assert_eq!(fixture.login("ann", "pw").await, Ok(Identity::user("ann")));
        assert_eq!(fixture.login("ann", "wp").await, Err(AuthError::Refused));
        assert_eq!(fixture.login("bob", "pw").await, Err(AuthError::Refused));
        assert_eq!(fixture.login("bob", "decoy").await, Err(AuthError::Refused));
    }
    let anonymous = fixture.logins.authenticate(access, PEER, &Credentials::Anonymous).await;
    assert_eq!(anonymous, Err(AuthError::CredentialsRequired));
    assert_eq!(fixture.logins.verified.lock().len(), 1);
}

#[tokio::test]
async fn a_changed_password_or_a_disabled_user_is_noticed_at_once() {
    let fixture = Fixture::new(&[("ann", &[passwords::hash(b"pw").unwrap()])]);
    assert_eq!(fixture.login("ann", "pw").await, Ok(Identity::user("ann")));
    fixture.put("ann", &[passwords::hash(b"new").unwrap()]);
    assert_eq!(fixture.login("ann", "pw").await, Err(AuthError::Refused));
    assert_eq!(fixture.login("ann", "new").await, Ok(Identity::user("ann")));
    fixture.broker.access().update_user("ann", |user| user.disabled = true).unwrap();
    assert_eq!(fixture.login("ann", "new").await, Err(AuthError::Refused));
}

#[tokio::test]
async fn any_of_a_user_s_hashes_accepts_its_password() {
    let hashes = passwords::hashes(b"pw", true).unwrap();
    let fixture = Fixture::new(&[("ann", &hashes)]);
    hashes.iter().enumerate().for_each(|(n, hash)| fixture.put(&format!("u{n}"), std::slice::from_ref(hash)));
    for name in ["ann", "u0", "u1", "u2"] {
        assert_eq!(fixture.login(name, "wp").await, Err(AuthError::Refused));
        assert_eq!(fixture.login(name, "pw").await, Ok(Identity::user(name)));
    }
    assert_eq!(fixture.login("bob", "decoy").await, Err(AuthError::Refused));
}

#[tokio::test]
async fn without_users_only_loopback_is_let_in() {
    let fixture = Fixture::new(&[]);
    let access = fixture.broker.access();
    let from = async |peer: &str| {
        fixture.logins.authenticate(access, peer.parse().unwrap(), &Credentials::Anonymous).await
    };
    assert_eq!(from("127.0.0.1").await, Ok(Identity::anonymous()));
    assert_eq!(from("192.0.2.1").await, Err(AuthError::LoopbackOnly));
}

#[test]
fn users_without_scram_keys_look_like_users_with_them() {
    let keyed = passwords::hashes(b"pw", true).unwrap();
    let plain = passwords::hashes(b"pw", false).unwrap();
    let fixture = Fixture::new(&[("ann", &keyed), ("bob", &plain)]);
    let access = fixture.broker.access();
    for digest in passwords::SCRAM_DIGESTS {
        assert!(fixture.logins.supports_scram(access, digest));
        let real = fixture.logins.scram_keys(access, "ann", digest).unwrap();
        assert!(Credential::Scram(real.clone()).verify(b"pw"));
        for name in ["bob", "nobody"] {
            let decoy = fixture.logins.scram_keys(access, name, digest).unwrap();
            let shape =
                |keys: &ScramKeys| (keys.digest, keys.iterations, keys.salt.len(), keys.stored_key.len());
            assert_eq!(shape(&decoy), shape(&real));
            assert!(!Credential::Scram(decoy.clone()).verify(b"pw"));
            let again = Logins::new(LoginSettings::default(), Clock::system(), no_tokens())
                .unwrap()
                .scram_keys(access, name, digest)
                .unwrap();
            assert!(decoy == again, "as real keys, it stays the same");
        }
    }
    assert!(!fixture.logins.supports_scram(access, Digest::Md5));
    assert!(fixture.logins.scram_keys(access, "ann", Digest::Md5).is_none());
}

#[tokio::test]
async fn the_first_login_with_a_foreign_hash_adds_credentials() {
    let rabbit = "rabbit_password_hashing_sha256:kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR".to_owned();
    let fixture = Fixture::new(&[("ann", &[rabbit])]);
    let access = fixture.broker.access();
    assert_eq!(fixture.login("ann", "wrong").await, Err(AuthError::Refused));
    assert_eq!(access.user("ann").unwrap().0.credentials.len(), 1);
    assert_eq!(fixture.login("ann", "test12").await, Ok(Identity::user("ann")));
    let user = access.user("ann").unwrap().0;
    assert_eq!(user.credentials.len(), 4, "argon2id and keys for both forms of SCRAM");
    assert!(user.credentials.iter().all(|each| each.verify(b"test12")));
    assert!(fixture.logins.supports_scram(access, Digest::Sha512));
    assert!(fixture.logins.is_remembered(&user, b"test12"));
}

#[tokio::test]
async fn guessing_is_refused_before_hashing_but_not_the_known_password() {
    let fixture = Fixture::new(&[("ann", &[passwords::hash(b"pw").unwrap()])]);
    assert_eq!(fixture.login("ann", "pw").await, Ok(Identity::user("ann")));
    let max = LoginSettings::default().failures.per_user_and_address_max;
    for _ in 0..max {
        fixture.logins.failures.add(PEER, "ann", fixture.logins.clock.now());
    }
    assert_eq!(fixture.login("ann", "wp").await, Err(AuthError::TooManyFailures));
    assert_eq!(fixture.login("ann", "pw").await, Ok(Identity::user("ann")), "it was right before");
    assert_eq!(fixture.login("bob", "wp").await, Err(AuthError::Refused));
}

#[test]
fn guesses_by_scram_are_counted_and_refused() {
    let fixture = Fixture::new(&[("ann", &passwords::hashes(b"pw", true).unwrap())]);
    let max = LoginSettings::default().failures.per_user_and_address_max;
    for _ in 0..max {
        assert!(fixture.logins.admits_guess(PEER, "ann"));
        fixture.logins.guessed_wrong(PEER, "ann");
    }
    assert!(!fixture.logins.admits_guess(PEER, "ann") && fixture.logins.admits_guess(PEER, "bob"));
    assert!(fixture.logins.admits_guess("192.0.2.2".parse().unwrap(), "ann"), "another address");
}
