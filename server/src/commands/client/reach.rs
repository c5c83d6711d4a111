//! The options by which a command finds the running broker and logs in.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::path::PathBuf;

use anyhow::Context;
use data_encoding::BASE64;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::Client;
use super::connect::Target;
use crate::commands::ConfigArgument;

/// Where the running broker is, and as whom to ask it.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::commands) struct Reach {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    login: Login,
}

/// As [`Reach`], for a command whose `--config` means something else.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::commands) struct Login {
    /// Address of the broker's HTTP listener, `http://…` or `https://…`. Without it, the first HTTP listener of the
    /// configuration.
    #[arg(long, env = "INVER_URL")]
    url: Option<String>,
    /// The user who asks; not needed where there are no users. The password is in --password-file or INVER_PASSWORD, or is
    /// read from standard input, before anything else.
    #[arg(long, value_name = "NAME", env = "INVER_USER")]
    login: Option<String>,
    /// File with the password; without --login, with a token, which may be in INVER_TOKEN too.
    #[arg(long, value_name = "FILE", env = "INVER_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that sign the broker's. Without it, those that the system trusts; for a listener
    /// of the configuration, its own certificate.
    #[arg(long, value_name = "FILE", env = "INVER_CA")]
    ca: Option<PathBuf>,
}

/// Variables of the process that are the client's, not keys of the configuration.
pub(in crate::commands) const VARIABLES: [&str; 7] = [
    "INVER_URL",
    "INVER_USER",
    "INVER_PASSWORD",
    "INVER_PASSWORD_FILE",
    "INVER_TOKEN",
    "INVER_CA",
    "INVER_NAMESPACE",
];

impl Reach {
    /// The client that these options describe.
    pub(in crate::commands) fn client(&self) -> anyhow::Result<Client> {
        self.login.client(&self.config)
    }
}

impl Login {
    /// The client that these options describe.
    pub(in crate::commands) fn client(&self, config: &ConfigArgument) -> anyhow::Result<Client> {
        let target = match &self.url {
            Some(url) => Target::of_url(url, self.ca.clone())?,
            None => Target::of_config(&config.load()?.config, self.ca.clone())?,
        };
        Client::new(target, self.authorization()?)
    }

    /// The value of the header, if there is a login.
    fn authorization(&self) -> anyhow::Result<Option<String>> {
        let secret = match &self.password_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => None,
        };
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let Some(user) = &self.login else {
            let token = secret.or_else(|| variable("INVER_TOKEN"));
            return Ok(token.map(|token| format!("Bearer {token}")));
        };
        let password = match secret.or_else(|| variable("INVER_PASSWORD")) {
            Some(password) => password,
            None => read_password(user)?,
        };
        Ok(Some(format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()))))
    }
}

/// Reads one line of standard input, without echo on a terminal.
pub(in crate::commands) fn read_password(name: &str) -> anyhow::Result<String> {
    let input = stdin();
    let shown = if input.is_terminal() { tcgetattr(&input).ok() } else { None };
    if let Some(shown) = &shown {
        eprint!("password of {name}: ");
        stderr().flush()?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Flush, &hidden)?;
    }
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    if let Some(shown) = &shown {
        tcsetattr(&input, OptionalActions::Flush, shown)?;
        eprintln!();
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
}
