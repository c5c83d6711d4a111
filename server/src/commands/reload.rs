//! `inver reload`: asks the running broker to read its configuration again, and prints what changed.

use anyhow::{Context, bail};

use super::{ConfigArgument, request, user};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The administrator who asks; the password is read from standard input. Not needed where there are no users.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?.config;
        let password = self.user.as_deref().map(user::read_password).transpose()?;
        let login = self.user.as_deref().zip(password.as_deref());
        let answer = request::send(&config, "POST", "/api/v1/reload", login, None)?;
        let body: serde_json::Value =
            serde_json::from_str(&answer.body).context("the answer is not of this version")?;
        if !answer.is_ok() {
            bail!("{}", body["detail"].as_str().unwrap_or(&answer.status));
        }
        for (list, word) in [("changed", "changed"), ("needs_restart", "needs a restart")] {
            for change in body[list].as_array().into_iter().flatten() {
                let text = |key: &str| change[key].as_str().unwrap_or_default().to_string();
                println!("{word}: {}: {}", text("key"), text("what"));
            }
        }
        for warning in body["warnings"].as_array().into_iter().flatten() {
            eprintln!("warning: {}", warning.as_str().unwrap_or_default());
        }
        println!("reloaded");
        Ok(())
    }
}
