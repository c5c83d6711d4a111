//! `inver bridge`: lists, adds and removes bridges of the running broker to other MQTT servers.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::client::encoded;
use super::named::Options;
use super::table;

/// What a list shows of a bridge.
const COLUMNS: [&str; 6] = ["name", "state", "connected_to", "queued", "last_error", "configured"];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the bridges.
    List {
        #[command(flatten)]
        options: Options,
    },
    /// Show a bridge with its settings.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        options: Options,
    },
    /// Add a bridge, or change the one of its name. It starts at once.
    Set {
        /// Its name.
        name: String,
        #[command(flatten)]
        settings: Box<Settings>,
        #[command(flatten)]
        options: Options,
    },
    /// Remove a bridge, and what waits for the other server.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        options: Options,
    },
}

/// What a bridge is told.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// `host:port` of the other server; several, separated by spaces, are tried in turn.
    #[arg(long)]
    address: String,
    /// Topics as Mosquitto writes them: `FILTER [out|in|both [QOS [LOCAL_PREFIX [REMOTE_PREFIX]]]]`. Two double quotes are an
    /// empty text.
    #[arg(long = "topic", required = true)]
    topics: Vec<String>,
    /// 5 or 3.1.1.
    #[arg(long = "mqtt-version", value_parser = ["5", "3.1.1"])]
    version: Option<String>,
    /// The user name at the other server.
    #[arg(long = "remote-user")]
    user: Option<String>,
    /// A file of the password at the other server.
    #[arg(long, value_name = "FILE")]
    remote_password_file: Option<PathBuf>,
    /// The client id at the other server.
    #[arg(long)]
    client_id: Option<String>,
    /// The user of this broker that the bridge acts as.
    #[arg(long)]
    local_user: Option<String>,
    /// The namespace of this broker.
    #[arg(long)]
    namespace: Option<String>,
    /// Connect by TLS.
    #[arg(long)]
    tls: bool,
    /// A file of the authorities that are trusted, on the broker's machine.
    #[arg(long, value_name = "FILE", requires = "tls")]
    tls_ca: Option<String>,
    /// A file of the certificate that the bridge shows, on the broker's machine.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<String>,
    /// The file of its key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<String>,
    /// Further settings as a JSON object, such as '{"keep_alive_s": 30}'.
    #[arg(long)]
    more: Option<String>,
}

impl Settings {
    fn body(self) -> anyhow::Result<Value> {
        let more = self.more.as_deref().map(serde_json::from_str::<Map<String, Value>>);
        let mut body = more.transpose().context("--more is no JSON object")?.unwrap_or_default();
        let topics: anyhow::Result<Vec<Value>> = self.topics.iter().map(|line| topic(line)).collect();
        body.insert("address".to_owned(), self.address.into());
        body.insert("topics".to_owned(), topics?.into());
        let password = self.remote_password_file.map(std::fs::read_to_string).transpose();
        let password = password.context("--remote-password-file")?;
        let fields = [
            ("version", self.version),
            ("user", self.user),
            ("password", password.map(|text| text.trim_end_matches(['\r', '\n']).to_owned())),
            ("client_id", self.client_id),
            ("local_user", self.local_user),
            ("namespace", self.namespace),
        ];
        for (name, value) in fields {
            value.into_iter().for_each(|value| _ = body.insert(name.to_owned(), value.into()));
        }
        if self.tls {
            let or_empty = Option::unwrap_or_default;
            let (ca, cert, key) = (or_empty(self.tls_ca), or_empty(self.tls_cert), or_empty(self.tls_key));
            body.insert("tls".to_owned(), json!({ "ca": ca, "cert": cert, "key": key }));
        }
        Ok(Value::Object(body))
    }
}

/// A line of topics as Mosquitto has it.
fn topic(line: &str) -> anyhow::Result<Value> {
    let mut words = line.split_whitespace().map(|word| if word == "\"\"" { "" } else { word });
    let filter = words.next().unwrap_or_default();
    let direction = words.next().unwrap_or("out");
    let qos = words.next().unwrap_or("0");
    let (local, remote) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if words.next().is_some() {
        bail!("--topic `{line}`: more than FILTER DIRECTION QOS LOCAL_PREFIX REMOTE_PREFIX");
    }
    let qos: u8 = qos.parse().with_context(|| format!("--topic `{line}`: the QoS"))?;
    Ok(json!({
        "filter": filter, "direction": direction, "qos": qos, "local_prefix": local, "remote_prefix": remote
    }))
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::List { options } => {
                let bridges = options.reach.client()?.list("/bridges", false, &[], usize::MAX)?;
                Ok(table::print(options.output, &Value::Array(bridges), &table::columns(&COLUMNS))?)
            }
            Command::Show { name, options } => {
                let client = options.reach.client()?;
                let bridge = client.ask_node(Method::GET, &path_of(&name), &[], None)?;
                Ok(table::print(options.output, &bridge, &[])?)
            }
            Command::Set { name, settings, options } => {
                let body = settings.body()?;
                options.reach.client()?.ask_node(Method::PUT, &path_of(&name), &[], Some(&body))?;
                eprintln!("set bridge {name}");
                Ok(())
            }
            Command::Remove { name, options } => {
                options.reach.client()?.ask_node(Method::DELETE, &path_of(&name), &[], None)?;
                eprintln!("removed bridge {name}");
                Ok(())
            }
        }
    }
}

fn path_of(name: &str) -> String {
    format!("/bridges/{}", encoded(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_written_as_mosquitto_has_them() {
        let read = |line: &str| topic(line).unwrap();
        let all = json!({ "filter": "a/#", "direction": "both", "qos": 1, "local_prefix": "", "remote_prefix": "r/" });
        assert_eq!(read("a/# both 1 \"\" r/"), all);
        let bare =
            json!({ "filter": "#", "direction": "out", "qos": 0, "local_prefix": "", "remote_prefix": "" });
        assert_eq!(read("#"), bare);
        assert!(topic("a out x").is_err() && topic("a out 1 l r more").is_err());
    }
}
