//! The list of listeners and values from files, as they are loaded.

use super::tests::{environment, file, problems};
use super::*;

fn listeners(text: &str, variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let loaded =
        load(Some(file(text).path()), environment(variables)).unwrap_or_else(|error| panic!("{error}"));
    let shown = loaded.config.listeners().into_iter().map(|entry| {
        let addresses: Vec<String> = entry.settings.address.0.iter().map(ToString::to_string).collect();
        (entry.settings.name, addresses.join(" "))
    });
    shown.collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, address)| ((*name).into(), (*address).into())).collect()
}

#[test]
fn short_keys_and_the_list_make_one_list() {
    let others = "[amqp]\nlisten = \"off\"\n[http]\nlisten = \"off\"\n[kafka]\nlisten = \"off\"\n\
                  [stream]\nlisten = \"off\"\n";
    let all = listeners(others, &[]);
    assert_eq!(all, pairs(&[("mqtt", "127.0.0.1:1883"), ("mqtt-websocket", "127.0.0.1:8083")]));
    let list = "[[listeners]]\nprotocol = \"mqtt\"\naddress = [\"0.0.0.0:1883\", \"unix:/run/mqtt\"]\n\
                [[listeners]]\nname = \"inside\"\nprotocol = \"mqtt\"\naddress = \"127.0.0.1:1884\"\n";
    let expected = [("mqtt-1", "0.0.0.0:1883 unix:/run/mqtt"), ("inside", "127.0.0.1:1884")];
    assert_eq!(listeners(&format!("{list}{others}"), &[]), pairs(&expected), "no default ones beside them");
    let set = format!("{list}{others}[mqtt]\nlisten = \"127.0.0.1:7\"\n");
    assert_eq!(listeners(&set, &[]).first(), Some(&("mqtt".into(), "127.0.0.1:7".into())), "set ones count");
    let variable = "[{ protocol = \"mqtt\", address = \"127.0.0.1:5\" }]";
    assert_eq!(listeners(others, &[("INVER_LISTENERS", variable)]), pairs(&[("mqtt-1", "127.0.0.1:5")]));
}

#[test]
fn a_list_that_is_shown_can_be_read_again() {
    let text = "[[listeners]]\nname = \"a\"\nprotocol = \"kafka\"\naddress = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n\
                tls_cert = \"c\"\ntls_key = \"k\"\ntls_client_ca = \"ca\"\ntls_client_auth = \"require\"\n\
                tls_min_version = \"1.3\"\ncertificate_user = \"dns\"\nproxy_protocol = true\n\
                proxy_trusted = [\"10.0.0.0/8\"]\nnamespace = \"n\"\nanonymous = \"always\"\nconnections_max = 5\n\
                connections_per_address_max = 2\nadvertised = \"example.org:9\"\nunix_mode = \"0600\"\n";
    let read = |file: Option<&Path>, variables: &[(&str, &str)]| {
        load(file, environment(variables)).ok().unwrap().config
    };
    let mut config = read(Some(file(text).path()), &[]);
    let values = config.values();
    let (_, shown) = values.iter().find(|(key, _)| key == "listeners").unwrap();
    assert_eq!(read(None, &[("INVER_LISTENERS", shown)]).general.listeners, config.general.listeners);
}

#[test]
fn tls_clients_are_told_the_tls_port() {
    let told = |more: &str| {
        let text = format!("[kafka]\ntls_cert = \"c\"\ntls_key = \"k\"\n{more}");
        let entries = load(Some(file(&text).path()), []).ok().unwrap().config.listeners();
        let of = |name: &str| {
            let entry = entries.iter().find(|entry| entry.settings.name == name).unwrap();
            entry.settings.advertised.as_ref().map(|(host, port)| format!("{host}:{port}"))
        };
        (of("kafka"), of("kafka-tls"))
    };
    let some = |text: &str| Some(text.to_string());
    assert_eq!(told(""), (None, None));
    assert_eq!(told("advertised = \"h:9092\"\n"), (some("h:9092"), some("h:9093")));
    let both = "advertised = \"h:9092\"\ntls_advertised = \"t:443\"\n";
    assert_eq!(told(both), (some("h:9092"), some("t:443")));
    assert_eq!(told("tls_advertised = \"t:443\"\n"), (None, some("t:443")));
}

#[test]
fn each_mistake_in_a_listener_is_said_once() {
    let entry =
        |more: &str| format!("[[listeners]]\nprotocol = \"mqtt\"\naddress = \"127.0.0.1:1\"\n{more}\n");
    for (text, said) in [
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\n".to_string(),
            "`protocol` is missing: one of kafka, mqtt, amqp, stream, http, prometheus",
        ),
        ("[[listeners]]\nprotocol = \"mqtt\"\n".to_string(), "`address` is missing"),
        (
            "[[listeners]]\nprotocol = \"stomp\"\naddress = \"127.0.0.1:1\"\n".to_string(),
            "unknown protocol `stomp`",
        ),
        (entry("adress = \"x\""), "unknown key `adress` of a listener; the nearest is `address`"),
        (entry("tls_cert = \"c\""), "tls_key is not"),
        (entry("tls_key = \"c\""), "tls_cert is not"),
        (entry("tls_min_version = \"1.1\""), "tls_min_version: "),
        (entry("tls_client_auth = \"maybe\""), "tls_client_auth: "),
        (entry("tls_cert = \"c\"\ntls_key = \"k\"\ntls_client_auth = \"require\""), "needs tls_client_ca"),
        (entry("tls_cert = \"c\"\ntls_key = \"k\"\ntls_client_ca = \"ca\""), "tls_client_ca has no effect"),
        (entry("proxy_protocol = true"), "needs proxy_trusted"),
        (entry("proxy_trusted = [\"10.0.0.0/8\"]"), "no effect without proxy_protocol"),
        (entry("proxy_protocol = true\nproxy_trusted = [\"10.0.0.0/99\"]"), "a network such as 10.0.0.0/8"),
        (entry("anonymous = \"some\""), "`never`, `loopback` or `always`"),
        (entry("anonymous_any_name = true"), "anonymous_any_name needs anonymous"),
        (entry("advertised = \"a:1\""), "remove advertised"),
        (entry("websocket_path = \"mqtt\""), "begins with `/`"),
        (entry("unix_mode = \"999\""), "octal"),
        (
            "[[listeners]]\nprotocol = \"amqp\"\naddress = \"127.0.0.1:1\"\nwebsocket_path = \"/\"\n".into(),
            "no WebSocket form",
        ),
        ("[[listeners]]\nprotocol = \"kafka\"\naddress = \"unix:/k\"\n".into(), "needs advertised"),
        (entry("name = \"amqp\""), "another listener is named `amqp` too"),
        (entry("").repeat(2), "is taken by listeners[1]"),
        (
            "[mqtt]\nlisten = \"0.0.0.0:9092\"\n".into(),
            "0.0.0.0:9092 is taken by kafka.listen (127.0.0.1:9092)",
        ),
    ] {
        let found = problems(&text, &[]);
        assert_eq!(found.len(), 1, "{text}{found:?}");
        assert!(found[0].contains(said), "{text}{found:?}");
    }
}

#[test]
fn every_key_can_be_read_from_a_file() {
    let hash = crate::passwords::hash(b"pw").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (lines, inline) = (
        path(
            "lines",
            &format!("# users\nann = \"{hash}\"\n\n[bob]\npassword = \"{hash}\"\ntags = [\"monitoring\"]\n"),
        ),
        path("inline", &format!("{{ ann = \"{hash}\" }}\n")),
    );
    let users = |text: &str, variables: &[(&str, &str)]| {
        let loaded = load(Some(file(text).path()), environment(variables));
        let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
        assert!(loaded.warnings.is_empty());
        loaded.config.general.users.0.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(users("", &[("INVER_USERS_FILE", &lines)]), ["ann", "bob"]);
    assert_eq!(users("", &[("INVER_USERS_FILE", &inline)]), ["ann"]);
    assert_eq!(users(&format!("users_file = {lines:?}\n"), &[]), ["ann", "bob"]);
    assert_eq!(users(&format!("users_file = {lines:?}\n"), &[("INVER_USERS_FILE", &inline)]), ["ann"]);
    let commit = path("commit", "os\n");
    let log =
        load(Some(file(&format!("[log]\ncommit_file = {commit:?}\n")).path()), []).ok().unwrap().config.log;
    assert_eq!(inver_settings::Setting::show(&log.commit), "os");

    let secret = path("secret", "ann = \"hunter2\"\n");
    for (text, variables, said) in [
        (String::new(), [("INVER_USERS_FILE", "/nowhere/users")], "failed to read /nowhere/users"),
        (
            format!("users_file = {inline:?}\n[users]\nann = \"{hash}\"\n"),
            [("HOME", "/")],
            "`users` is set too",
        ),
        ("users_file = 3\n".into(), [("HOME", "/")], "the path of a file is expected"),
        (String::new(), [("INVER_USERS_FILE", secret.as_str())], "the password of `ann` is not usable"),
    ] {
        let found = problems(&text, &variables);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(said) && !found[0].contains("hunter2"), "{found:?}");
    }
    let both = [("INVER_USERS_FILE", inline.as_str()), ("INVER_USERS", "{}")];
    assert!(problems("", &both)[0].contains("INVER_USERS is set too"));
}
