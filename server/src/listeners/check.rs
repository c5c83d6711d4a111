//! What is wrong with the files of listeners, and what an operator is warned of.

use super::tls::TlsFiles;
use crate::config::{AnonymousRule, Config, ConfigError, Problem};

/// Opens the files of every listener: all problems, each once, or warnings.
pub(crate) fn check(config: &Config) -> Result<Vec<Problem>, ConfigError> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let mut seen: Vec<TlsFiles> = Vec::new();
    for entry in config.listeners() {
        let warn = |what: String| Problem { place: entry.key.clone(), what };
        let settings = &entry.settings;
        let who = match settings.anonymous.0 {
            Some(AnonymousRule::Always) => Some("every client"),
            Some(AnonymousRule::Loopback) => Some("every client on this machine"),
            Some(AnonymousRule::Never) | None => None,
        };
        if let Some(who) = who {
            let name = if settings.anonymous_any_name { ", under any user name" } else { "" };
            warnings.push(warn(format!("{who} may connect to {} without a password{name}", settings.name)));
        }
        let Some(files) = TlsFiles::of(settings).filter(|files| !seen.contains(files)) else { continue };
        if let Err(error) = files.acceptor() {
            problems.push(Problem {
                place: entry.key.clone(),
                what: format!("TLS of {}: {error:#}", settings.name),
            });
        }
        warnings.extend(files.warning().map(warn));
        seen.push(files);
    }
    let general = &config.general;
    if !general.loopback_anonymous && general.users.0.is_empty() && general.jwt.0.is_empty() {
        let what = "there are no users in the configuration and nobody may connect without one: unless users are \
                    stored, nobody can connect";
        warnings.push(Problem { place: "loopback_anonymous".into(), what: what.into() });
    }
    if problems.is_empty() { Ok(warnings) } else { Err(ConfigError(problems)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::config::load;

    const CERT: &str = include_str!("tls_cert.pem");
    const KEY: &str = include_str!("tls_key.pem");

    /// A configuration whose files are in a folder `@`.
    fn outcome(folder: &Path, text: &str) -> Result<Vec<String>, Vec<String>> {
        let file = folder.join("inver.toml");
        std::fs::write(&file, text.replace('@', &folder.display().to_string())).unwrap();
        let loaded = load(Some(&file), []).unwrap_or_else(|error| panic!("{error}"));
        let texts = |problems: Vec<Problem>| {
            problems.into_iter().map(|problem| format!("{}: {}", problem.place, problem.what)).collect()
        };
        check(&loaded.config).map(texts).map_err(|error| texts(error.0))
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), CERT).unwrap();
        std::fs::write(folder.path().join("key.pem"), KEY).unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(folder.path().join("key.pem"), private).unwrap();
        std::fs::write(folder.path().join("empty.pem"), "").unwrap();
        folder
    }

    #[test]
    fn files_are_opened_and_each_problem_is_said_once() {
        let folder = folder();
        let outcome = |text: &str| outcome(folder.path(), text);
        let tls = |cert: &str, key: &str, more: &str| {
            format!(
                "[[listeners]]\nprotocol = \"mqtt\"\naddress = \"127.0.0.1:1\"\ntls_cert = \"@/{cert}\"\n\
                 tls_key = \"@/{key}\"\n{more}\n"
            )
        };
        assert_eq!(outcome(&tls("cert.pem", "key.pem", "")), Ok(vec![]));
        let ca = |file: &str| format!("tls_client_auth = \"require\"\ntls_client_ca = \"@/{file}\"");
        assert_eq!(outcome(&tls("cert.pem", "key.pem", &ca("cert.pem"))), Ok(vec![]));
        for (text, said) in [
            (tls("none.pem", "key.pem", ""), "none.pem"),
            (tls("cert.pem", "none.pem", ""), "none.pem"),
            (tls("empty.pem", "key.pem", ""), "no certificate"),
            (tls("cert.pem", "cert.pem", ""), "private key"),
            (tls("cert.pem", "key.pem", &ca("none.pem")), "authorities of clients"),
        ] {
            let problems = outcome(&text).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(said) && problems[0].starts_with("listeners[1]: "), "{problems:?}");
        }
        // Two listeners of one pair of keys.
        let short = "[mqtt]\ntls_cert = \"@/none.pem\"\ntls_key = \"@/key.pem\"\nwebsocket_tls_listen = \"127.0.0.1:2\"\n";
        assert_eq!(outcome(short).unwrap_err().len(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_and_clients_without_a_password_are_warned_of() {
        let folder = folder();
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(folder.path().join("key.pem"), open).unwrap();
        let text = "loopback_anonymous = false\n[[listeners]]\nprotocol = \"mqtt\"\naddress = \"127.0.0.1:1\"\n\
                    anonymous = \"always\"\nanonymous_any_name = true\ntls_cert = \"@/cert.pem\"\n\
                    tls_key = \"@/key.pem\"\n";
        let warnings = outcome(folder.path(), text).unwrap();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(
            warnings[0].contains("every client may connect to mqtt-1")
                && warnings[0].contains("any user name")
        );
        assert!(warnings[1].contains("mode 0644"));
        assert!(warnings[2].contains("nobody can connect"));
    }
}
