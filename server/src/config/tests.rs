use super::*;

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_string(), (*text).to_string())).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn endpoint<'a>(config: &'a Config, name: &str) -> &'a Endpoint {
    let at = PLUGS.iter().position(|plug| plug.name == name).unwrap();
    &config.endpoints[at]
}

fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let file = file(text);
    let error = load(Some(file.path()), environment(variables)).unwrap_err();
    error.0.into_iter().map(|problem| problem.what).collect()
}

#[test]
fn every_default_parses_and_listens_on_loopback_only() {
    for key in KEYS.iter() {
        let value = key.read(&key.default).unwrap_or_else(|what| panic!("{}: {what}", key.name));
        let mut config = defaults();
        key.set(&mut config, &value).unwrap_or_else(|what| panic!("{}: {what}", key.name));
    }
    let config = load(None, []).unwrap().config;
    assert!(config.http_listen.unwrap().ip().is_loopback());
    for endpoint in &config.endpoints {
        assert!(endpoint.listen.unwrap().ip().is_loopback());
        assert!(endpoint.tls_listen.unwrap().ip().is_loopback());
    }
    assert_eq!(config.capture_rules.len(), 1);
    assert_eq!(config.limits, Limits::default());
}

#[test]
fn names_of_keys_and_variables_are_unique() {
    let mut variables: Vec<_> = KEYS.iter().map(Key::variable).collect();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), KEYS.len());
    assert_eq!(keys::find_variable("INVER_MQTT_WEBSOCKET_LISTEN").unwrap().name, "mqtt.websocket_listen");
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let file = file("data_dir = \"/a\"\n[log]\ncommit = \"os\"\n[kafka]\nlisten = \"127.0.0.1:1\"\n");
    let variables =
        environment(&[("INVER_LOG_COMMIT", "interval"), ("INVER_AMQP_LISTEN", "off"), ("HOME", "/x")]);
    let loaded = load(Some(file.path()), variables).unwrap();
    assert_eq!(loaded.config.data_dir, PathBuf::from("/a"));
    assert_eq!(loaded.config.log_commit, Commit::Interval);
    assert_eq!(endpoint(&loaded.config, "kafka").listen, Some("127.0.0.1:1".parse().unwrap()));
    assert_eq!(endpoint(&loaded.config, "amqp").listen, None);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let found = problems("[kafka]\nlisen = \"off\"\n", &[]);
    assert_eq!(found, ["there is no key `kafka.lisen`; the nearest is `kafka.listen`"]);
    let found = problems("[kafka]\ndata_dir = \"x\"\n", &[]);
    assert_eq!(found, ["there is no key `kafka.data_dir`; the nearest is `data_dir`"]);
    let found = problems("dta_dir = \"x\"\n", &[]);
    assert_eq!(found, ["there is no key `dta_dir`; the nearest is `data_dir`"]);
}

#[test]
fn an_unknown_variable_is_a_warning_that_names_the_nearest() {
    let loaded = load(None, environment(&[("INVER_KAFKA_LISTN", "off")])).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].what.contains("INVER_KAFKA_LISTEN"));
}

#[test]
fn all_problems_are_told_at_once_with_their_lines() {
    let file = file("data_dir = \"x\"\n\n[log]\ncommit = \"sometimes\"\nsegment_bytes_max = 3\n");
    let error = load(Some(file.path()), environment(&[("INVER_HTTP_LISTEN", "here")])).unwrap_err();
    assert_eq!(error.0.len(), 3, "{error}");
    assert!(error.0[0].place.ends_with(".toml:4"), "{error}");
    assert!(error.0[1].place.ends_with(".toml:5"), "{error}");
    assert_eq!(error.0[2].place, "INVER_HTTP_LISTEN");
}

#[test]
fn a_broken_file_is_told_with_its_line() {
    let file = file("data_dir = \"x\"\n[log\n");
    let error = load(Some(file.path()), []).unwrap_err();
    assert!(error.0[0].place.ends_with(".toml:2"), "{error}");
}

#[test]
fn tls_wants_both_files() {
    assert_eq!(problems("[amqp]\ntls_cert = \"a.pem\"\n", &[]).len(), 1);
    assert_eq!(problems("[mqtt]\ntls_listen = \"127.0.0.1:8883\"\n", &[]).len(), 1);
    assert!(problems("", &[("INVER_KAFKA_TLS_LISTEN", "127.0.0.1:9093")])[0].contains("kafka.tls_cert"));
}

#[test]
fn lists_and_tables_come_from_file_and_variable_alike() {
    let hash = crate::passwords::hash(b"pw").unwrap();
    let text = format!(
        "[users]\nann = \"{hash}\"\n[[capture.rules]]\nfilter = \"a/+/b\"\ntopic = \"a\"\nkey = \"{{1}}\"\n"
    );
    let from_file = load(Some(file(&text).path()), []).unwrap().config;
    let from_variables = load(
        None,
        environment(&[
            ("INVER_USERS", &format!("{{ ann = \"{hash}\" }}")),
            ("INVER_CAPTURE_RULES", "[{ filter = \"a/+/b\", topic = \"a\", key = \"{1}\" }]"),
        ]),
    )
    .unwrap()
    .config;
    assert_eq!(from_file.users, from_variables.users);
    assert_eq!(from_file.capture_rules, from_variables.capture_rules);
    assert_eq!(from_file.capture_rules[0].key, "{1}");
    assert!(
        load(None, environment(&[("INVER_CAPTURE_RULES", "[]")])).unwrap().config.capture_rules.is_empty()
    );
    assert!(problems("[users]\nann = \"plain\"\n", &[])[0].contains("inver user add ann"));
    assert!(problems("[[capture.rules]]\nfiltr = \"a\"\n", &[])[0].contains("filtr"));
}

#[test]
fn sections_and_keys_are_not_confused() {
    assert!(problems("kafka = 3\n", &[])[0].contains("is a section"));
    assert!(problems("[data_dir]\nx = 1\n", &[])[0].contains("single value"));
}

#[test]
fn addresses() {
    let read = |text: &str| value::listen(&Value::Scalar(text.into()));
    assert_eq!(read("off"), Ok(None));
    assert_eq!(read("[::1]:5"), Ok(Some("[::1]:5".parse().unwrap())));
    assert_eq!(read(":5"), Ok(Some("0.0.0.0:5".parse().unwrap())));
    assert!(read("5").is_err());
    assert!(read("127.0.0.1:70000").is_err());
    let read = |text: &str| value::host_port(&Value::Scalar(text.into()));
    assert_eq!(read("[::1]:9"), Ok(Some(("::1".into(), 9))));
    assert_eq!(read(""), Ok(None));
    assert!(read("host").is_err());
}

#[test]
fn bytes_with_units() {
    let read = |text: &str| value::bytes(&Value::Scalar(text.into()), 0, u64::MAX);
    assert_eq!(read("16 MiB"), Ok(16 << 20));
    assert_eq!(read("7"), Ok(7));
    assert!(read("7 parsecs").is_err());
    assert!(read("99999999999999999999").is_err());
    assert!(read("99999999999 GiB").is_err());
}
