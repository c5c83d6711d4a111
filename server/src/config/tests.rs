use std::path::PathBuf;

use inver_settings::Setting;
use serde::de::value::{Error, StrDeserializer};

use super::values::Commit;
use super::*;

pub(super) fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_string(), (*text).to_string())).collect()
}

pub(super) fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn protocol<'a>(config: &'a Config, name: &str) -> &'a ProtocolConfig {
    config.protocols.iter().find(|protocol| protocol.entry.name == name).unwrap()
}

fn error(text: &str, variables: &[(&str, &str)]) -> ConfigError {
    let file = file(text);
    load(Some(file.path()), environment(variables)).err().expect("a problem")
}

pub(super) fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    error(text, variables).0.into_iter().map(|problem| problem.what).collect()
}

#[test]
fn every_default_is_accepted_and_listens_on_loopback_only() {
    for key in keys() {
        let variable = (key.variable(), key.key.default.clone());
        let needs_certificate = key.name().ends_with("tls_listen") && key.key.default != "off";
        let mut loaded = match load(None, [variable]) {
            Ok(loaded) => loaded,
            Err(error) => {
                assert!(needs_certificate, "{}: {error}", key.name());
                continue;
            }
        };
        assert_eq!(loaded.config.values(), Config::default().values(), "{}", key.name());
    }
    let config = load(None, []).ok().unwrap().config;
    assert!(config.http_endpoint.listen.0.unwrap().ip().is_loopback());
    for protocol in &config.protocols {
        assert!(protocol.endpoint.listen.0.unwrap().ip().is_loopback());
        assert!(protocol.endpoint.tls_listen.0.unwrap().ip().is_loopback());
    }
    assert_eq!(config.capture.rules.0.len(), 1);
    assert_eq!(config.limits.namespace(), inver_broker::Limits::default());
}

/// Each key changes its own value and no other.
#[test]
fn every_key_reaches_its_field() {
    let before = Config::default().values();
    for key in keys() {
        let other = match key.key.accepts.as_str() {
            "`true` or `false`" => if key.key.default == "true" { "false" } else { "true" }.to_string(),
            "`address:port` or `off`" => {
                if key.name().contains("tls") { "off" } else { "127.0.0.1:1" }.into()
            }
            "`host:port`, or empty" => "example.org:9".into(),
            "a path" => "elsewhere".into(),
            "`always`, `interval` or `os`" => "os".into(),
            "`per-core` or `multi-thread`" => "multi-thread".into(),
            "an array of texts" => r#"["a", "b"]"#.into(),
            accepts if accepts.contains(" to ") => {
                accepts.split_once(" to ").map(|(least, _)| least.to_string()).unwrap()
            }
            // Checked by tests of their own.
            _ => continue,
        };
        let most = key.key.accepts.split_once(" to ").map(|(_, most)| most.to_string());
        let other = if other == key.key.default { most.unwrap_or(other) } else { other };
        let mut loaded =
            load(None, [(key.variable(), other.clone())]).unwrap_or_else(|error| panic!("{error}"));
        let after = loaded.config.values();
        let changed: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        // An address that is off already stays so.
        if key.key.default == other {
            assert!(changed.is_empty());
            continue;
        }
        assert_eq!(changed.len(), 1, "{}: {changed:?}", key.name());
        assert_eq!(changed[0].1.0, key.name());
    }
}

#[test]
fn names_of_keys_and_variables_are_unique() {
    let keys = keys();
    let mut variables: Vec<_> = keys.iter().map(SectionKey::variable).collect();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), keys.len());
    let websocket = keys.iter().find(|key| key.variable() == "INVER_MQTT_WEBSOCKET_LISTEN").unwrap();
    assert_eq!(websocket.name(), "mqtt.websocket_listen");
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let file = file("data_dir = \"/a\"\n[log]\ncommit = \"os\"\n[kafka]\nlisten = \"127.0.0.1:1\"\n");
    let variables =
        environment(&[("INVER_LOG_COMMIT", "interval"), ("INVER_AMQP_LISTEN", "off"), ("HOME", "/x")]);
    let loaded = load(Some(file.path()), variables).ok().unwrap();
    assert_eq!(loaded.config.general.data_dir, PathBuf::from("/a"));
    assert_eq!(loaded.config.log.commit, Commit::Interval);
    let kafka = protocol(&loaded.config, "kafka");
    assert_eq!(kafka.endpoint.listen, Listen(Some("127.0.0.1:1".parse().unwrap())));
    assert_eq!(protocol(&loaded.config, "amqp").endpoint.listen, Listen::OFF);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let found = problems("[kafka]\nlisen = \"off\"\n", &[]);
    assert_eq!(found, ["unknown key `kafka.lisen`; the nearest is `kafka.listen`"]);
    let found = problems("[kafka]\ndata_dir = \"x\"\n", &[]);
    assert_eq!(found, ["unknown key `kafka.data_dir`; the nearest is `data_dir`"]);
    let found = problems("dta_dir = \"x\"\n", &[]);
    assert_eq!(found, ["unknown key `dta_dir`; the nearest is `data_dir`"]);
    let found = problems("[amqp]\nwebsocket_listen = \"off\"\n", &[]);
    assert_eq!(found, ["unknown key `amqp.websocket_listen`; the nearest is `mqtt.websocket_listen`"]);
}

#[test]
fn an_unknown_variable_is_a_warning_that_names_the_nearest() {
    let loaded = load(None, environment(&[("INVER_KAFKA_LISTN", "off")])).ok().unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].what.contains("INVER_KAFKA_LISTEN"));
}

#[test]
fn all_problems_are_reported_at_once_with_their_lines() {
    let text = "data_dir = \"x\"\n\n[log]\ncommit = \"sometimes\"\nsegment_bytes_max = 3\n";
    let error = error(text, &[("INVER_HTTP_LISTEN", "here")]);
    assert_eq!(error.0.len(), 3, "{error}");
    assert!(error.0[0].place.ends_with(".toml:4"), "{error}");
    assert!(error.0[0].what.contains("`always`, `interval`, `os`"), "{error}");
    assert!(error.0[1].place.ends_with(".toml:5"), "{error}");
    assert!(error.0[1].what.contains("1 MiB to 2 GiB"), "{error}");
    assert_eq!(error.0[2].place, "INVER_HTTP_LISTEN");
    assert!(error.0[2].what.contains("`off`"), "{error}");
}

#[test]
fn a_problem_within_a_value_is_reported_with_its_own_line() {
    let text = "[capture]\nrules = [\n  { filter = \"a\", topic = \"a\" },\n  { filter = \"b\", topc = \"b\" },\n]\n";
    let error = error(text, &[]);
    assert!(error.0[0].place.ends_with(".toml:4"), "{error}");
    assert!(error.0[0].what.contains("topc"), "{error}");
}

#[test]
fn a_broken_file_is_reported_with_its_line() {
    assert!(error("data_dir = \"x\"\n[log\n", &[]).0[0].place.ends_with(".toml:2"));
}

#[test]
fn tls_needs_both_files() {
    assert_eq!(problems("[amqp]\ntls_cert = \"a.pem\"\n", &[]).len(), 1);
    assert_eq!(problems("[amqp]\ntls_key = \"a.pem\"\n", &[]).len(), 1);
    assert_eq!(problems("[mqtt]\ntls_listen = \"127.0.0.1:8883\"\n", &[]).len(), 1);
    assert_eq!(problems("[mqtt]\nwebsocket_tls_listen = \"127.0.0.1:8884\"\n", &[]).len(), 1);
    assert!(problems("", &[("INVER_KAFKA_TLS_LISTEN", "127.0.0.1:9093")])[0].contains("kafka.tls_cert"));
}

#[test]
fn arrays_and_tables_are_read_alike_from_file_and_variable() {
    let hash = crate::passwords::hash(b"pw").unwrap();
    let text = format!(
        "[users]\nann = \"{hash}\"\n[[capture.rules]]\nfilter = \"a/+/b\"\ntopic = \"a\"\nkey = \"{{1}}\"\n\
         [mqtt]\nrefused_filters = [\"#\", \"a/b\"]\n"
    );
    let from_file = load(Some(file(&text).path()), []).ok().unwrap().config;
    let from_variables = load(
        None,
        environment(&[
            ("INVER_USERS", &format!("{{ ann = \"{hash}\" }}")),
            ("INVER_CAPTURE_RULES", "[{ filter = \"a/+/b\", topic = \"a\", key = \"{1}\" }]"),
            ("INVER_MQTT_REFUSED_FILTERS", "[\"#\", \"a/b\"]"),
        ]),
    )
    .ok()
    .unwrap()
    .config;
    assert_eq!(from_file.general.users, from_variables.general.users);
    assert_eq!(from_file.capture.rules, from_variables.capture.rules);
    assert_eq!(from_file.capture.rules.0[0].key, "{1}");
    for config in [&from_file, &from_variables] {
        let keys = protocol(config, "mqtt").settings.keys();
        let filters = keys.iter().find(|key| key.name == "refused_filters").unwrap();
        assert_eq!(filters.default, r##"["#", "a/b"]"##);
    }
    let none = load(None, environment(&[("INVER_CAPTURE_RULES", "[]")])).ok().unwrap();
    assert!(none.config.capture.rules.0.is_empty());
    assert!(problems("[users]\nann = \"plain\"\n", &[])[0].contains("inver user add ann"));
    assert!(problems("[users]\nann = 1\n", &[])[0].contains("a hash or a list of hashes"));
    assert!(problems("[[capture.rules]]\nfiltr = \"a\"\n", &[])[0].contains("filtr"));
    assert!(
        problems("", &[("INVER_CAPTURE_RULES", "[{ protocol = \"stomp\", filter = \"a\", topic = \"b\" }]")])
            [0]
        .contains("unknown protocol `stomp`")
    );
    assert!(
        problems("", &[("INVER_CAPTURE_RULES", "[{ filter = \"\", topic = \"b\" }]")])[0].contains("filter")
    );
    assert!(problems("", &[("INVER_USERS", "ann")])[0].contains("not a TOML value"));
}

#[test]
fn a_user_has_one_hash_or_a_list_of_hashes() {
    let [argon2id, scram256, scram512]: [String; 3] =
        crate::passwords::hashes(b"pw", true).unwrap().try_into().unwrap();
    let list = format!("[\"{argon2id}\", \"{scram256}\", \"{scram512}\"]");
    let text = format!("[users]\nann = {list}\nbob = \"{argon2id}\"\n");
    let users = load(Some(file(&text).path()), []).ok().unwrap().config.general.users;
    assert_eq!(users.0["ann"].passwords, [argon2id.clone(), scram256, scram512]);
    assert_eq!(users.0["bob"].passwords, std::slice::from_ref(&argon2id));
    // As it is shown, it can be read again.
    let again = load(None, environment(&[("INVER_USERS", &users.show())])).ok().unwrap();
    assert_eq!(again.config.general.users, users);

    assert!(problems("[users]\nann = []\n", &[])[0].contains("`ann` needs 1 to 8 hashes"));
    let many = format!("[users]\nann = {:?}\n", vec![argon2id.clone(); 9]);
    assert!(problems(&many, &[])[0].contains("`ann` needs 1 to 8 hashes"));
    let one_wrong = format!("[users]\nann = [\"{argon2id}\", \"plain\"]\n");
    let problem = &problems(&one_wrong, &[])[0];
    assert!(problem.contains("inver user add ann") && !problem.contains(&argon2id), "{problem}");
}

#[test]
fn values_out_of_bounds_are_refused() {
    for (variable, text) in [
        ("INVER_KAFKA_NODE_ID", "-1"),
        ("INVER_KAFKA_AUTO_CREATE_TOPICS", "maybe"),
        ("INVER_KAFKA_PRODUCE_BYTES_MAX", "4 GiB"),
        ("INVER_LIMITS_LINGER_TIMEOUT_MS", "0"),
        ("INVER_KAFKA_GROUP_MEMBERS_MAX", "0"),
        ("INVER_KAFKA_ADVERTISED", "host"),
        ("INVER_MQTT_RECEIVE_MAXIMUM", "0"),
        ("INVER_MQTT_INFLIGHT_MAX", "65536"),
        ("INVER_MQTT_KEEP_ALIVE_S_MAX", "65536"),
        ("INVER_MQTT_SESSION_EXPIRY_S_MAX", "4294967296"),
        ("INVER_MQTT_REFUSED_FILTERS", "[1]"),
        ("INVER_MQTT_REFUSED_FILTERS", "\"#\""),
        ("INVER_AMQP_FRAME_BYTES_MAX", "4095"),
        ("INVER_AMQP_FRAME_BYTES_MAX", "1 GiB"),
        ("INVER_AMQP_CHANNELS_MAX", "0"),
        ("INVER_AMQP_HEARTBEAT_S", "65536"),
        ("INVER_LIMITS_WRITE_STALL_TIMEOUT_MS", "0"),
        ("INVER_AMQP_UNACKED_MAX", "0"),
        ("INVER_DATA_DIR", ""),
        ("INVER_LOGGING_FILTER", "a=b=c"),
    ] {
        assert_eq!(problems("", &[(variable, text)]).len(), 1, "{variable}={text}");
    }
}

#[test]
fn sections_and_keys_are_not_confused() {
    assert!(problems("kafka = 3\n", &[])[0].contains("is a section"));
    assert!(problems("[data_dir]\nx = 1\n", &[])[0].contains("data_dir: invalid type: map"));
}

#[test]
fn addresses() {
    let read = |text: &str| Listen::read(StrDeserializer::<Error>::new(text)).ok();
    assert_eq!(read("off"), Some(Listen::OFF));
    assert_eq!(read("[::1]:5"), Some(Listen(Some("[::1]:5".parse().unwrap()))));
    assert_eq!(read(":5"), Some(Listen(Some("0.0.0.0:5".parse().unwrap()))));
    assert_eq!(read("5"), None);
    assert_eq!(read("127.0.0.1:70000"), None);
}

#[test]
fn namespaces_are_read() {
    let text = "[[namespaces]]\nname = \"plant\"\ndescription = \"d\"\ntags = [\"a\"]\ndefault_queue_type = \"quorum\"\n\
                protected = true\nconnections_max = 1\nqueues_max = 2\ntopics_max = 3\nsessions_max = 4\nbytes_max = 5\n\
                [[namespaces]]\nname = \"office\"\n";
    let namespaces = load(Some(file(text).path()), []).ok().unwrap().config.general.namespaces;
    let (name, plant) = &namespaces.0[0];
    let limits = inver_broker::NamespaceLimits {
        connections_max: Some(1),
        queues_max: Some(2),
        topics_max: Some(3),
        sessions_max: Some(4),
        bytes_max: Some(5),
    };
    assert_eq!((name.as_str(), plant.description.as_str(), plant.limits), ("plant", "d", limits));
    assert_eq!((plant.default_queue_type.as_deref(), plant.is_protected), (Some("quorum"), true));
    assert_eq!(namespaces.0[1], ("office".to_owned(), inver_broker::NamespaceSpec::default()));
    let shown = environment(&[("INVER_NAMESPACES", &namespaces.show())]);
    assert_eq!(load(None, shown).ok().unwrap().config.general.namespaces, namespaces);
    let wrong = |text: &str| problems(text, &[])[0].clone();
    assert!(wrong("[[namespaces]]\nname = \"\"\n").contains("1 to 255 bytes"));
    assert!(wrong("[[namespaces]]\nqueues_max = 1\n").contains("name"));
    let twice = "[[namespaces]]\nname = \"a\"\n".repeat(2);
    assert!(wrong(&twice).contains("`a` is there twice"));
}

#[test]
fn quotas_are_read() {
    let text = "[[quotas]]\nuser = \"ann\"\nbytes_in_per_second = 1000\nrequest_time_percent = 12.5\n\
                [[quotas]]\nnamespace = \"*\"\nconnections_per_second = 5\n";
    let general = load(Some(file(text).path()), []).ok().unwrap().config.general;
    assert_eq!(general.quotas.quotas().len(), 2);
    let shown = environment(&[("INVER_QUOTAS", &general.quotas.show())]);
    assert_eq!(load(None, shown).ok().unwrap().config.general.quotas, general.quotas);
    let wrong = |text: &str| problems(text, &[])[0].clone();
    assert!(wrong("[[quotas]]\nuser = \"a\"\n").contains("a quota needs a limit"));
    assert!(
        wrong("[[quotas]]\nip = \"::1\"\nbytes_in_per_second = 1\n").contains("only have a limit of conn")
    );
    let twice = "[[quotas]]\nuser = \"a\"\nbytes_in_per_second = 1\n".repeat(2);
    assert!(wrong(&twice).contains("user `a` is there twice"));
}

#[test]
fn users_and_permissions_are_read() {
    let hash = crate::passwords::hash(b"pw").unwrap();
    let text = format!(
        "[users]\nann = \"{hash}\"\n[users.bob]\npasswords = [\"{hash}\"]\ntags = [\"monitoring\"]\nnamespace = \"n\"\n\
         channels_max = 3\n\
         [[permissions]]\nuser = \"bob\"\nkind = \"topic\"\nprefix = \"a.\"\noperations = [\"read\"]\n\
         [[permissions]]\nanyone = true\noperations = \"all\"\neffect = \"deny\"\nhost = \"192.0.2.1\"\n"
    );
    let general = load(Some(file(&text).path()), []).ok().unwrap().config.general;
    let (ann, bob) = (&general.users.0["ann"], &general.users.0["bob"]);
    assert!(ann.has_full_access && !bob.has_full_access);
    assert_eq!((bob.tags.as_slice(), bob.namespace.as_deref()), (&["monitoring".to_owned()][..], Some("n")));
    assert_eq!((bob.limits.connections_max, bob.limits.channels_max), (None, Some(3)));
    let kinds = inver_access::ResourceKind::ALL.len();
    assert_eq!(general.users.rules().len(), kinds, "one rule for each kind of resource");
    assert_eq!(general.permissions.rules().len(), 1 + kinds);
    let shown = environment(&[
        ("INVER_USERS", &general.users.show()),
        ("INVER_PERMISSIONS", &general.permissions.show()),
    ]);
    let again = load(None, shown).ok().unwrap().config.general;
    assert_eq!((again.users, again.permissions), (general.users, general.permissions));
    let wrong = |text: &str| problems(text, &[])[0].clone();
    assert!(
        wrong("[[permissions]]\nanyone = true\noperations = [\"fly\"]\n").contains("unknown operation `fly`")
    );
    assert!(wrong("[[permissions]]\noperations = [\"read\"]\n").contains("exactly one of"));
    assert!(wrong("[users.bob]\nname = \"x\"\n").contains("a table with `passwords`"));
}

#[test]
fn no_problem_repeats_a_secret() {
    const SECRET: &str = "hunter2-$argon2id$v=19$m=12288";
    let of_file = [
        format!("users = \"{SECRET}\""),
        format!("users = [\"{SECRET}\"]"),
        format!("users.ann = {{ passwords = \"{SECRET}\" }}"),
        format!("users.ann = {{ pass = \"{SECRET}\" }}"),
        format!("users.ann = \"{SECRET}\""),
        format!("users.ann = [\"{SECRET}\", 5]"),
        format!("users_file = \"{SECRET}\""),
        format!("users = {{ ann = \"{SECRET} }}"),
        format!("[tracing]\notlp_headers = {{ authorization = \"{SECRET}\" }}"),
        format!("[tracing]\notlp_headers_file = \"{SECRET}\""),
        format!("[store]\nsecret_access_key = [\"{SECRET}\"]"),
        format!("[store]\nsecret_access_key_file = \"{SECRET}\""),
        format!("[store]\nsession_token = {{ a = \"{SECRET}\" }}"),
        format!("[[jwt]]\njwks_url = \"ftp://ann:{SECRET}@host/\""),
        format!("[[jwt]]\njwks_url = \"https://ann:{SECRET}@host/\""),
    ];
    for text in of_file {
        let error = error(&text, &[]).to_string();
        assert!(!error.contains("hunter2"), "{text}: {error}");
    }
    for value in [
        SECRET.to_owned(),
        format!("\"{SECRET}\""),
        format!("{{ ann = \"{SECRET}\" }}"),
        format!("{{ ann = {SECRET} }}"),
        format!("{{ ann = {{ passwords = [\"{SECRET}\"] }} }}\nbob = \"{SECRET}\""),
    ] {
        for name in [
            "INVER_USERS",
            "INVER_USERS_FILE",
            "INVER_TRACING_OTLP_HEADERS_FILE",
            "INVER_STORE_SECRET_ACCESS_KEY_FILE",
        ] {
            let error = error("", &[(name, &value)]).to_string();
            assert!(!error.contains("hunter2"), "{name}={value}: {error}");
        }
    }
}

#[test]
fn problems_are_short_however_long_the_input_is() {
    let long = "x".repeat(80 << 10);
    let quoted = format!("\"{long}\"");
    let filter =
        format!("[{{ user = \"ann\", kind = \"topic\", regex = \"({long}\", operations = [\"read\"] }}]");
    let variables = [
        ("INVER_PERMISSIONS", long.as_str()),
        ("INVER_PERMISSIONS", &quoted),
        ("INVER_PERMISSIONS", &filter),
        ("INVER_USERS", &long),
        ("INVER_USERS", &quoted),
        ("INVER_QUOTAS", &quoted),
        ("INVER_LISTENERS", &quoted),
        ("INVER_LOG_COMMIT", &long),
        ("INVER_KAFKA_LISTEN", &long),
        ("INVER_LOGGING_FILTER", &long),
        ("INVER_AUDIT_EVENTS", &quoted),
        ("INVER_DATA_DIR_FILE", &long),
    ];
    for (name, value) in variables {
        let error = error("", &[(name, value)]).to_string();
        assert!(error.len() < 2 * MESSAGE_BYTES_MAX, "{name}: {} bytes", error.len());
    }
    for text in [format!("{long} = 1"), format!("[{long}]\na = 1"), format!("[log]\n{long} = 1")] {
        let error = error(&text, &[]).to_string();
        assert!(
            error.len() < 3 * MESSAGE_BYTES_MAX && error.contains("unknown key"),
            "{} bytes",
            error.len()
        );
    }
}
