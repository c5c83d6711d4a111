use std::path::PathBuf;

use data_encoding::BASE64URL_NOPAD;
use inver_access::{Operation, ResourceKind, Tag};
use inver_access::{Rules, Subject, Tags};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::config::load;

/// The time of the tests, in seconds.
const NOW_S: i64 = 1_000_000;

enum Signer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Secret(hmac::Key),
}

fn encoded(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

impl Signer {
    fn ed() -> Signer {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Signer::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn ec() -> Signer {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Signer::Ec(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
    }

    fn secret(secret: &[u8]) -> Signer {
        Signer::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Signer::Ed(_) => "EdDSA",
            Signer::Ec(_) => "ES256",
            Signer::Secret(_) => "HS256",
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header), encoded(claims));
        let bytes = message.as_bytes();
        let signature = match self {
            Signer::Ed(key) => key.sign(bytes).as_ref().to_vec(),
            Signer::Ec(key) => key.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec(),
            Signer::Secret(key) => hmac::sign(key, bytes).as_ref().to_vec(),
        };
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": self.algorithm(), "typ": "JWT", "kid": "k"}), claims)
    }

    /// The public key.
    fn jwk(&self) -> Value {
        match self {
            Signer::Ed(key) => {
                let x = BASE64URL_NOPAD.encode(key.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x})
            }
            Signer::Ec(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                let (x, y) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y));
                json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y})
            }
            Signer::Secret(_) => panic!("a secret has no public key"),
        }
    }

    fn public_bytes(&self) -> Vec<u8> {
        match self {
            Signer::Ed(key) => key.public_key().as_ref().to_vec(),
            Signer::Ec(key) => key.public_key().as_ref().to_vec(),
            Signer::Secret(_) => panic!("a secret has no public key"),
        }
    }
}

/// Issuers whose keys are in a folder.
struct Fixture {
    tokens: Tokens,
    clock: Clock,
    folder: TempDir,
}

impl Fixture {
    /// `settings` are the keys of the one table beside `jwks_file`.
    fn new(signer: &Signer, settings: &str) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let set = json!({"keys": [signer.jwk()]}).to_string();
        std::fs::write(folder.path().join("keys.json"), set).unwrap();
        let jwks = folder.path().join("keys.json");
        let algorithm = signer.algorithm();
        let table = format!(
            "[[jwt]]\njwks_file = \"{}\"\nalgorithms = [\"{algorithm}\"]\n{settings}",
            jwks.display()
        );
        Fixture::of(folder, &table)
    }

    fn of(folder: TempDir, table: &str) -> Fixture {
        let clock = Clock::manual(NOW_S * 1000);
        let tokens = Tokens::new(TokenLimits::default(), clock.clone());
        tokens.set(&issuers(&folder, table).unwrap());
        Fixture { tokens, clock, folder }
    }

    fn refusal(&self, token: &str) -> AuthError {
        self.tokens.check(token).unwrap_err()
    }

    fn says(&self, token: &str, text: &str) {
        let error = self.refusal(token).to_string();
        assert!(error.contains(text), "{error}, not {text}");
    }
}

fn issuers(folder: &TempDir, table: &str) -> Result<TokenIssuers, String> {
    let file: PathBuf = folder.path().join("inver.toml");
    std::fs::write(&file, table).unwrap();
    load(Some(&file), []).map(|loaded| loaded.config.general.jwt).map_err(|error| error.to_string())
}

fn claims() -> Value {
    json!({"sub": "ann", "iss": "https://idp", "aud": ["inver", "other"], "exp": NOW_S + 60})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

const STRICT: &str = "issuer = \"https://idp\"\naudience = \"inver\"\nleeway_s = 5\n";

#[test]
fn a_signed_token_stands_for_its_user_until_it_expires() {
    for signer in [Signer::ed(), Signer::ec()] {
        let fixture = Fixture::new(&signer, STRICT);
        let token = signer.token(&claims());
        assert!(fixture.tokens.is_token(token.as_bytes()));
        let identity = fixture.tokens.check(&token).unwrap();
        assert_eq!(identity.name(), Some("ann"));
        assert_eq!(identity.expires_at_ms(), Some((NOW_S + 65) * 1000), "with the leeway");
        fixture.clock.advance(Duration::from_secs(64));
        assert!(fixture.tokens.check(&token).is_ok());
        fixture.clock.advance(Duration::from_secs(1));
        fixture.says(&token, "it has expired");
    }
}

#[test]
fn claims_that_do_not_fit_are_refused() {
    let signer = Signer::ed();
    let fixture = Fixture::new(&signer, STRICT);
    for (claims, said) in [
        (with("iss", json!("https://other")), "another issuer"),
        (with("iss", Value::Null), "another issuer"),
        (with("aud", json!("others")), "another audience"),
        (with("aud", Value::Null), "another audience"),
        (with("exp", Value::Null), "never expires"),
        (with("exp", json!((NOW_S + 60).to_string())), "not a number"),
        (with("nbf", json!(NOW_S + 6)), "not valid yet"),
        (with("nbf", json!("0")), "not a number"),
        (with("sub", Value::Null), "no user"),
        (with("sub", json!("a\nb")), "no user"),
        (with("sub", json!("x".repeat(256))), "no user"),
        (with("scope", json!("a ".repeat(201))), "too many scopes"),
    ] {
        fixture.says(&signer.token(&claims), said);
    }
    assert!(fixture.tokens.check(&signer.token(&with("nbf", json!(NOW_S + 5)))).is_ok());
    assert!(fixture.tokens.check(&signer.token(&with("aud", json!("inver")))).is_ok());
}

#[test]
fn no_other_key_or_algorithm_is_accepted() {
    let (signer, other) = (Signer::ed(), Signer::ed());
    let fixture = Fixture::new(&signer, "");
    assert_eq!(fixture.refusal(&other.token(&claims())), AuthError::Refused);
    let token = signer.token(&claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    for (wrong, said) in [
        (String::new(), "not a JSON Web Token"),
        ("a.b.c".into(), "not a JSON Web Token"),
        (format!("{message}.{signature}.x"), "not a JSON Web Token"),
        (format!("{}{message}.{signature}", "e".repeat(17_000)), "too long"),
        // Without a signature, and with an algorithm that is not listed.
        (format!("{}.{}.", encoded(&json!({"alg": "none"})), encoded(&claims())), "not a JSON Web Token"),
        (Signer::ec().token(&claims()), "algorithm is not allowed"),
        // The public key as a secret.
        (Signer::secret(&signer.public_bytes()).token(&claims()), "algorithm is not allowed"),
        (signer.sign(&json!({"alg": "EdDSA", "kid": "unknown"}), &claims()), "key is unknown"),
    ] {
        fixture.says(&wrong, said);
    }
    assert_eq!(fixture.refusal(&format!("{message}.")), AuthError::Refused);
    let changed =
        format!("{}.{}.{signature}", encoded(&json!({"alg": "EdDSA", "kid": "k"})), encoded(&claims()));
    assert_eq!(fixture.refusal(&changed), AuthError::Refused);
    // A critical extension that is not understood (RFC 7515, section 4.1.11).
    let critical = json!({"alg": "EdDSA", "kid": "k", "crit": ["x"], "x": 1});
    assert!(fixture.tokens.check(&signer.sign(&critical, &claims())).is_err());
    assert!(
        fixture.tokens.check(&signer.sign(&json!({"alg": "EdDSA"}), &claims())).is_ok(),
        "without a key id"
    );
}

/// Tokens of one issuer must not have the keys of another fetched, nor their refusal depend on it.
#[test]
fn only_the_issuer_that_a_token_names_is_asked() {
    let (ours, others) = (Signer::ed(), Signer::ed());
    let mut other_key = others.jwk();
    other_key["kid"] = json!("other");
    for is_named in [true, false] {
        for is_first in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let issuer = |name: &str, set: Option<&Value>| {
                let place = folder.path().join(name);
                if let Some(key) = set {
                    std::fs::write(&place, json!({"keys": [key]}).to_string()).unwrap();
                }
                let issuer = if is_named { format!("issuer = \"https://{name}\"\n") } else { String::new() };
                format!("[[jwt]]\njwks_file = \"{}\"\nalgorithms = [\"EdDSA\"]\n{issuer}", place.display())
            };
            let (one, two) = (issuer("idp", Some(&ours.jwk())), issuer("other", Some(&other_key)));
            let absent = if is_named { issuer("absent", None) } else { String::new() };
            let table = if is_first { [one, two, absent] } else { [absent, two, one] }.concat();
            let fixture = Fixture::of(folder, &table);
            assert!(fixture.tokens.check(&ours.token(&claims())).is_ok());
            fixture.says(&ours.token(&with("exp", json!(NOW_S - 100))), "it has expired");
            let wanted = || {
                let issuers = fixture.tokens.0.issuers.read();
                issuers.iter().filter(|issuer| issuer.state.read().is_wanted).count()
            };
            if is_named {
                assert_eq!(wanted(), 0);
                assert_eq!(
                    fixture.refusal(&ours.token(&with("iss", json!("https://absent")))),
                    AuthError::Busy
                );
                fixture.says(&ours.token(&with("iss", json!("https://other"))), "its key is unknown");
                assert_eq!(wanted(), 1);
            }
        }
    }
}

#[test]
fn a_secret_verifies_only_what_is_signed_with_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "a secret of some length\n").unwrap();
    let table = format!("[[jwt]]\nsecret_file = \"{}\"\n", folder.path().join("secret").display());
    let fixture = Fixture::of(folder, &table);
    assert!(fixture.tokens.check(&Signer::secret(b"a secret of some length").token(&claims())).is_ok());
    assert_eq!(fixture.refusal(&Signer::secret(b"another").token(&claims())), AuthError::Refused);
}

#[test]
fn scopes_tags_and_acl_are_granted() {
    let signer = Signer::ed();
    let settings = "scope_prefix = \"rabbitmq.\"\ntags_claim = \"realm.roles\"\nacl_claim = \"acl\"\n\
                    tags = [\"app\"]\nnamespace = \"prod\"\nnamespace_claim = \"tenant\"\n";
    let fixture = Fixture::new(&signer, settings);
    let mut told = with("scope", json!("rabbitmq.read:prod/orders other.write:*/*"));
    told["realm"] = json!({"roles": ["monitoring"]});
    told["acl"] = json!({"pub": ["up/${clientid}/#"], "sub": ["eq a/+"]});
    let identity = fixture.tokens.check(&signer.token(&told)).unwrap();
    assert_eq!(identity.namespace(), Some("prod"));
    let grant = identity.grant().unwrap();
    assert_eq!(grant.tags.iter().collect::<Vec<_>>(), [&Tag::Monitoring, &Tag::Custom("app".into())]);
    let tags = Tags::default();
    let subject = Subject {
        user: Some("ann"),
        tags: &tags,
        client_id: "c1",
        namespace: "prod",
        host: std::net::IpAddr::from([127, 0, 0, 1]),
    };
    let rules = Rules::default().with_grant(&subject, grant);
    let may = |kind, name, operation| rules.decide(kind, name, operation).allowed;
    assert!(may(ResourceKind::Topic, "orders", Operation::Read));
    assert!(!may(ResourceKind::Topic, "orders", Operation::Write));
    assert!(may(ResourceKind::Address, "up/c1/x", Operation::Write));
    assert!(!may(ResourceKind::Address, "up/c2/x", Operation::Write));
    assert!(may(ResourceKind::Address, "a/+", Operation::Subscribe));
    assert!(!may(ResourceKind::Address, "a/b", Operation::Subscribe));
    told["tenant"] = json!("own");
    assert_eq!(fixture.tokens.check(&signer.token(&told)).unwrap().namespace(), Some("own"));
    for (acl, said) in [
        (json!([{"permission": "allow", "action": "all", "topic": "a/#/b"}]), "no filter"),
        (json!([{"permission": "maybe", "action": "all", "topic": "a"}]), "permission of its acl"),
        (json!({"write": ["a"]}), "action of its acl"),
        (json!("a"), "neither an object"),
        (json!({"pub": vec!["a"; 2000]}), "too many rules"),
    ] {
        told["acl"] = acl;
        fixture.says(&signer.token(&told), said);
    }
}

#[tokio::test]
async fn keys_are_loaded_again_and_kept_while_that_fails() {
    let (before, after) = (Signer::ed(), Signer::ed());
    let fixture = Fixture::new(&before, "refresh_s = 60\n");
    let shutdown = CancellationToken::new();
    let refreshing = tokio::spawn(fixture.tokens.clone().refresh(shutdown.clone()));
    let accepted = |token: String| {
        let (tokens, clock) = (fixture.tokens.clone(), fixture.clock.clone());
        async move {
            let waited = tokio::time::timeout(Duration::from_secs(60), async {
                while tokens.check(&token).is_err() {
                    clock.advance(Duration::from_secs(1));
                    tokio::task::yield_now().await;
                }
            });
            waited.await.is_ok()
        }
    };
    let far = |signer: &Signer| signer.token(&with("exp", json!(NOW_S + 1_000_000_000)));
    let place = fixture.folder.path().join("keys.json");
    std::fs::write(&place, json!({"keys": [after.jwk()]}).to_string()).unwrap();
    assert!(accepted(far(&after)).await);
    assert_eq!(fixture.refusal(&far(&before)), AuthError::Refused);
    std::fs::write(&place, "broken").unwrap();
    let issuer = fixture.tokens.0.issuers.read()[0].clone();
    issuer.fetch(&fixture.clock).await;
    assert!(fixture.tokens.check(&far(&after)).is_ok(), "the keys stay");
    shutdown.cancel();
    refreshing.await.unwrap();
}

#[test]
fn settings_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let said = |text: &str| issuers(&folder, &format!("[[jwt]]\n{text}")).unwrap_err();
    for (text, wanted) in [
        ("issuer = \"x\"", "one of `jwks_file`, `jwks_url` and `secret_file`"),
        ("jwks_file = \"a\"\nsecret_file = \"b\"", "one of"),
        ("jwks_file = \"a\"\nalgorithms = [\"none\"]", "`none` is no algorithm"),
        ("jwks_file = \"a\"\nalgorithms = [\"HS256\"]", "HS256 needs `secret_file`"),
        ("secret_file = \"a\"\nalgorithms = [\"HS256\", \"RS256\"]", "RS256 needs `jwks_file`"),
        ("jwks_file = \"a\"\nalgorithms = []", "`algorithms` is empty"),
        ("jwks_url = \"ftp://x/y\"", "does not begin with"),
        ("jwks_file = \"a\"\nleeway_s = 601", "`leeway_s` is at most"),
        ("jwks_file = \"a\"\nrefresh_s = 0", "`refresh_s` is from"),
        ("jwks_file = \"a\"\nisuer = \"x\"", "unknown field"),
    ] {
        let error = said(text);
        assert!(error.contains(wanted), "{error}");
    }
    let file = folder.path().join("inver.toml");
    std::fs::write(
        &file,
        "[[jwt]]\njwks_file = \"/none.json\"\n[[jwt]]\njwks_url = \"http://x/y\"\naudience = \"a\"\n",
    )
    .unwrap();
    let loaded = load(Some(&file), []).unwrap_or_else(|error| panic!("{error}"));
    let problems = check(&loaded.config).unwrap_err().0;
    assert!(problems.len() == 1 && problems[0].what.contains("/none.json"), "{problems:?}");
    // What is shown is what is read.
    let shown = inver_settings::Setting::show(&loaded.config.general.jwt);
    let again = issuers(&folder, &format!("jwt = {shown}")).unwrap();
    assert_eq!(again, loaded.config.general.jwt);
}
