use std::time::Duration;

use serde::de::value::{Error, StrDeserializer, U64Deserializer};
use serde::de::{IntoDeserializer, value as de_value};

use super::rules::*;
use super::*;

section! {
    /// A section with a field of every kind.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Example {
        /// Size of the
        /// largest request.
        bytes_max: usize = 16 << 20 => bytes(KIB..=GIB),
        /// Time to log in.
        login_max: Duration = Duration::from_secs(10) => milliseconds(10..=HOUR_MS),
        /// Keep alive; 0: the client's.
        keep_alive_s_max: Option<u16> = None => seconds(0..=65_535),
        /// Whether topics are created.
        create: bool = true => flag(),
        /// Address told to clients.
        advertised: Option<(String, u16)> = None => value("`host:port`"),
        /// Groups.
        groups: Groups = Groups::default() => nested("group_"),
        /// Copied from another section.
        copied: usize = 7 => no_key(),
    }
}

section! {
    /// A section within.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Groups {
        /// Members of a group.
        members_max: u32 = 100 => count(1..=1000),
    }
}

fn set(key: &str, text: &str) -> Result<Example, String> {
    let mut example = Example::default();
    match example.set(key, StrDeserializer::<Error>::new(text)) {
        Ok(()) => Ok(example),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn keys_follow_from_the_fields() {
    let keys = Example::default().keys();
    let names: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(
        names,
        ["bytes_max", "login_max_ms", "keep_alive_s_max", "create", "advertised", "group_members_max"]
    );
    let first = Key {
        name: "bytes_max".into(),
        help: "Size of the largest request.".into(),
        default: "16 MiB".into(),
        unit: "bytes",
        accepts: "1 KiB to 1 GiB".into(),
        form: Form::Text,
    };
    assert_eq!(keys[0], first);
    assert_eq!((keys[1].default.as_str(), keys[1].accepts.as_str()), ("10000", "10 to 3600000"));
}

#[test]
fn every_default_is_accepted() {
    for key in Example::default().keys() {
        assert_eq!(set(&key.name, &key.default), Ok(Example::default()), "{}", key.name);
    }
}

#[test]
fn values_reach_their_fields() {
    let default = Example::default;
    assert_eq!(set("bytes_max", "3 KiB"), Ok(Example { bytes_max: 3072, ..default() }));
    assert_eq!(set("login_max_ms", "20"), Ok(Example { login_max: Duration::from_millis(20), ..default() }));
    assert_eq!(set("keep_alive_s_max", "9"), Ok(Example { keep_alive_s_max: Some(9), ..default() }));
    assert_eq!(set("create", "false"), Ok(Example { create: false, ..default() }));
    assert_eq!(
        set("advertised", "[::1]:9"),
        Ok(Example { advertised: Some(("::1".into(), 9)), ..default() })
    );
    assert_eq!(set("group_members_max", "5"), Ok(Example { groups: Groups { members_max: 5 }, ..default() }));
    let mut example = default();
    let number: U64Deserializer<Error> = 2048u64.into_deserializer();
    example.set("bytes_max", number).unwrap();
    assert_eq!(example.bytes_max, 2048);
}

#[test]
fn wrong_values_are_refused_and_change_nothing() {
    let error = |key: &str, text: &str| set(key, text).unwrap_err();
    assert_eq!(error("bytes_max", "1"), "1 is out of bounds: 1 KiB to 1 GiB");
    assert_eq!(error("bytes_max", "2 GiB"), "2147483648 is out of bounds: 1 KiB to 1 GiB");
    for text in ["7 parsecs", "99999999999999999999", "99999999999 GiB", "-1", ""] {
        assert!(error("bytes_max", text).contains("expected a number of bytes"), "{text}");
    }
    assert!(error("group_members_max", "many").contains("expected a whole number from 1 to 1000"));
    assert!(error("keep_alive_s_max", "65536").contains("out of bounds"));
    assert!(error("create", "maybe").contains("expected true or false"));
    for text in ["host", "host:0", ":9", "host:70000"] {
        assert!(error("advertised", text).contains("expected `host:port`"), "{text}");
    }
    assert_eq!(error("copied", "1"), "unknown key `copied`");
    assert_eq!(error("members_max", "1"), "unknown key `members_max`");
    let mut example = Example::default();
    let negative: de_value::I64Deserializer<Error> = (-1i64).into_deserializer();
    assert!(example.set("bytes_max", negative).is_err());
    assert_eq!(example, Example::default());
}
