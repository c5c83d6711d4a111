//! `inver ban`: lists, adds and removes bans of clients of the running broker.

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::named::Options;
use super::table;

/// What a list shows of a ban.
const COLUMNS: [&str; 7] = ["client_id", "user", "address", "reason", "by", "since_ms", "until_ms"];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the bans.
    List {
        #[command(flatten)]
        options: Options,
    },
    /// Ban clients by client id, user or address; those that are connected are disconnected.
    Add {
        #[command(flatten)]
        target: Target,
        /// Why; clients are not told.
        #[arg(long, default_value = "")]
        reason: String,
        /// For how many seconds; without it, until the ban is removed.
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u32>,
        #[command(flatten)]
        options: Options,
    },
    /// Remove a ban.
    Remove {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        options: Options,
    },
}

/// Who is banned.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Target {
    /// The client id, or the name of a connection.
    #[arg(long)]
    client_id: Option<String>,
    /// The user.
    #[arg(long)]
    user: Option<String>,
    /// The address, or a network such as 10.0.0.0/8.
    #[arg(long)]
    address: Option<String>,
}

impl Target {
    fn query(&self) -> Vec<(&'static str, String)> {
        let fields = [("client_id", &self.client_id), ("user", &self.user), ("address", &self.address)];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::List { options } => {
                let bans = options.reach.client()?.list("/bans", false, &[], usize::MAX)?;
                Ok(table::print(options.output, &Value::Array(bans), &table::columns(&COLUMNS))?)
            }
            Command::Add { target, reason, expires_in, options } => {
                let mut body = json!({ "reason": reason });
                if let Some(seconds) = expires_in {
                    body["expires_in_s"] = json!(seconds);
                }
                options.reach.client()?.ask_node(Method::PUT, "/bans", &target.query(), Some(&body))?;
                eprintln!("added the ban");
                Ok(())
            }
            Command::Remove { target, options } => {
                options.reach.client()?.ask_node(Method::DELETE, "/bans", &target.query(), None)?;
                eprintln!("removed the ban");
                Ok(())
            }
        }
    }
}
