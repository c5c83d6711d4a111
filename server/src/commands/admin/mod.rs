//! Administration of a running broker over its API: list, describe, create, delete, read, publish, reset.

mod messages;
mod resources;

use std::io::Write;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

pub(crate) use self::messages::{Export, Peek, Publish, Route};
use self::resources::{Kind, Listed};
use super::client::{Client, Reach, encoded};
use super::table::{self, Output};

/// The options that every command of this kind has.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    reach: Reach,
    /// Namespace.
    #[arg(long, default_value = "/", env = "INVER_NAMESPACE")]
    namespace: String,
    /// The form of the output.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Options {
    fn client(&self) -> anyhow::Result<Client> {
        Ok(self.reach.client()?.within(self.namespace.clone()))
    }
}

/// List what clients made, or the configuration.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    options: Options,
    /// What to list.
    #[arg(value_enum)]
    what: Listed,
    /// Only items whose name contains this text; with `*` or `?` a pattern of the whole name. Of retained messages, a filter
    /// of addresses.
    #[arg(long, default_value = "")]
    filter: String,
    /// The column to order by; `-` before it for descending order.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    sort: String,
    /// The columns to show, separated by commas.
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// The most items to show.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
}

impl List {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        let items = match self.what {
            Listed::Retained => messages::retained(&client, &self.filter, self.limit)?,
            what => {
                let parameters = [("filter", &self.filter), ("sort", &self.sort)];
                let given = parameters.into_iter().filter(|(_, text)| !text.is_empty());
                let parameters: Vec<_> = given.map(|(name, text)| (name, text.clone())).collect();
                client.list(what.path(), what.is_of_namespace(), &parameters, self.limit)?
            }
        };
        let columns = match (&self.columns[..], self.options.output) {
            ([], Output::Table) => self.what.columns(),
            (columns, _) => columns.to_vec(),
        };
        let items: Vec<Value> = match self.columns.is_empty() {
            true => items,
            false => items.into_iter().map(|item| only(item, &columns)).collect(),
        };
        table::print(self.options.output, &Value::Array(items), &columns)?;
        Ok(())
    }
}

fn only(item: Value, columns: &[String]) -> Value {
    match item {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|(name, _)| columns.contains(name)).collect())
        }
        other => other,
    }
}

/// Show everything about one object, the node, or the overview.
#[derive(Debug, Args)]
pub(crate) struct Describe {
    #[command(flatten)]
    options: Options,
    /// What to describe.
    #[arg(value_enum)]
    what: Kind,
    /// Its name, or its id; as listed.
    #[arg(default_value = "")]
    name: String,
}

impl Describe {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        let path = self.what.path(&self.name)?;
        let answer = if self.what.is_of_namespace() {
            client.get(&path, &[])?
        } else {
            client.ask_node(Method::GET, &path, &[], None)?
        };
        table::print(self.options.output, &answer, &[])?;
        Ok(())
    }
}

/// Create a topic or a queue.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    options: Options,
    /// What to create.
    #[arg(value_enum)]
    what: Created,
    /// Its name.
    name: String,
    /// Partitions of a topic.
    #[arg(long, default_value_t = 1)]
    partitions: u32,
    /// A setting of a topic (`retention.ms=1000`) or of a queue (`messages_max=10`, `durable=false`), as in the API.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Created {
    Topic,
    Queue,
}

impl Create {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        let mut settings = serde_json::Map::new();
        for setting in &self.settings {
            let (name, value) = setting.split_once('=').context("--set NAME=VALUE")?;
            let value = match self.what {
                Created::Topic => Value::String(value.to_owned()),
                // A number or a flag, else a text.
                Created::Queue => {
                    serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()))
                }
            };
            settings.insert(name.to_owned(), value);
        }
        let answer = match self.what {
            Created::Topic => {
                let body = json!({"name": self.name, "partitions": self.partitions, "settings": settings});
                client.ask(Method::POST, "/topics", &[], Some(&body))?
            }
            Created::Queue => {
                let path = format!("/queues/{}", encoded(&self.name));
                client.ask(Method::PUT, &path, &[], Some(&Value::Object(settings)))?
            }
        };
        table::print(self.options.output, &answer, &[])?;
        Ok(())
    }
}

/// Delete an object with what it holds.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    options: Options,
    /// What to delete.
    #[arg(value_enum)]
    what: Kind,
    /// Its name, as listed.
    name: String,
}

impl Delete {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        if matches!(
            self.what,
            Kind::Node | Kind::Overview | Kind::Alarms | Kind::Namespace | Kind::Connection
        ) {
            bail!("this is not deleted with `delete`");
        }
        let path = self.what.path(&self.name)?;
        if self.what.is_of_namespace() {
            client.ask(Method::DELETE, &path, &[], None)?;
        } else {
            client.ask_node(Method::DELETE, &path, &[], None)?;
        }
        println!("deleted {}", self.name);
        Ok(())
    }
}

/// Close a client's connection.
#[derive(Debug, Args)]
pub(crate) struct Close {
    #[command(flatten)]
    options: Options,
    /// The connection's id, as listed.
    id: u64,
    /// What the client is told.
    #[arg(long)]
    reason: Option<String>,
}

impl Close {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        let reason: Vec<(&'static str, String)> =
            self.reason.into_iter().map(|reason| ("reason", reason)).collect();
        client.ask_node(Method::DELETE, &format!("/connections/{}", self.id), &reason, None)?;
        println!("closed {}", self.id);
        Ok(())
    }
}

/// Remove all ready messages of a queue, the messages of a session, or retained messages.
#[derive(Debug, Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    options: Options,
    /// The queue.
    #[arg(required_unless_present_any = ["session", "retained"])]
    queue: Option<String>,
    /// The client id of a session, whose messages are removed.
    #[arg(long, value_name = "CLIENT_ID", conflicts_with = "queue")]
    session: Option<String>,
    /// A filter of addresses whose retained messages are cleared.
    #[arg(long, value_name = "FILTER", conflicts_with_all = ["queue", "session"])]
    retained: Option<String>,
}

impl Purge {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        let answer = match (&self.queue, &self.session, self.retained) {
            (_, _, Some(filter)) => clear_retained(&client, &filter)?,
            (_, Some(id), _) => {
                client.ask(Method::POST, &format!("/sessions/{}/purge", encoded(id)), &[], None)?
            }
            (queue, ..) => {
                let queue = queue.as_deref().unwrap_or_default();
                client.ask(Method::POST, &format!("/queues/{}/purge", encoded(queue)), &[], None)?
            }
        };
        table::print(self.options.output, &answer, &[])?;
        Ok(())
    }
}

/// Step over messages that cannot be read since the log is damaged, where the consumers of a queue, a session or a subscription
/// stand.
#[derive(Debug, Args)]
pub(crate) struct Skip {
    #[command(flatten)]
    options: Options,
    /// The queue.
    #[arg(required_unless_present_any = ["session", "subscription", "shared"])]
    queue: Option<String>,
    /// The client id of a session.
    #[arg(long, value_name = "CLIENT_ID", conflicts_with = "queue")]
    session: Option<String>,
    /// A named subscription, as `TOPIC/NAME`.
    #[arg(long, value_name = "TOPIC/NAME", conflicts_with_all = ["queue", "session"])]
    subscription: Option<String>,
    /// A shared subscription, as `$share/GROUP/FILTER`.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["queue", "session", "subscription"])]
    shared: Option<String>,
}

impl Skip {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let of = match (&self.queue, &self.session, &self.subscription, &self.shared) {
            (_, Some(id), ..) => format!("/sessions/{}", encoded(id)),
            (_, _, Some(name), _) => format!("/subscriptions/named/{}", encoded(name)),
            (.., Some(name)) => format!("/subscriptions/shared/{}", encoded(name)),
            (queue, ..) => format!("/queues/{}", encoded(queue.as_deref().unwrap_or_default())),
        };
        let client = self.options.client()?;
        let answer = client.ask(Method::POST, &format!("{of}/skip-damaged"), &[], None)?;
        table::print(self.options.output, &answer, &[])?;
        Ok(())
    }
}

/// Clears all retained messages that a filter matches, a part at a time.
fn clear_retained(client: &Client, filter: &str) -> anyhow::Result<Value> {
    let (mut messages, mut after) = (0, None::<String>);
    loop {
        let mut query = vec![("filter", filter.to_owned())];
        query.extend(after.map(|after| ("after", after)));
        let part = client.ask(Method::DELETE, "/retained", &query, None)?;
        messages += part["messages"].as_u64().unwrap_or_default();
        after = part["next"].as_str().map(str::to_owned);
        if after.is_none() {
            return Ok(serde_json::json!({ "messages": messages }));
        }
    }
}

/// Set the positions of a group or a named subscription without members.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    options: Options,
    /// The group's id, or TOPIC/NAME of a named subscription.
    name: String,
    /// `earliest`, `latest`, `offset:N`, or `time:MS` (milliseconds since 1970).
    #[arg(long)]
    to: String,
    /// It is a named subscription.
    #[arg(long)]
    named: bool,
    /// Only this topic of a group.
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition.
    #[arg(long)]
    partition: Option<u32>,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
}

impl Reset {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        let to = match self.to.split_once(':') {
            None if self.to == "earliest" || self.to == "latest" => json!(self.to),
            Some(("offset", number)) => json!({"offset": number.parse::<u64>().context("--to offset:N")?}),
            Some(("time", number)) => json!({"time": number.parse::<i64>().context("--to time:MS")?}),
            _ => bail!("--to is earliest, latest, offset:N or time:MS"),
        };
        let mut body = json!({"to": to, "dry_run": self.dry_run});
        if let Some(topic) = self.topic {
            body["topic"] = json!(topic);
        }
        if let Some(partition) = self.partition {
            body["partition"] = json!(partition);
        }
        let kind = if self.named { "named" } else { "group" };
        let path = format!("/subscriptions/{kind}/{}/reset", encoded(&self.name));
        let moved = client.ask(Method::POST, &path, &[], Some(&body))?;
        let columns = ["topic", "partition", "from", "to"].map(str::to_owned);
        table::print(self.options.output, &moved, &columns)?;
        Ok(())
    }
}

/// Show or change which log lines a running broker writes.
#[derive(Debug, Args)]
pub(crate) struct LogLevel {
    #[command(flatten)]
    options: Options,
    /// The new filter: a level, or `target=level` pairs.
    filter: Option<String>,
}

impl LogLevel {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        let answer = match self.filter {
            Some(filter) => {
                client.ask_node(Method::PUT, "/log-level", &[], Some(&json!({"filter": filter})))?
            }
            None => client.ask_node(Method::GET, "/log-level", &[], None)?,
        };
        table::print(self.options.output, &answer, &[])?;
        Ok(())
    }
}

/// The commands that make files for a shell or for `man`.
#[derive(Debug, Subcommand)]
pub(crate) enum Make {
    /// Print the completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder.
    Man {
        /// The folder, which exists.
        folder: std::path::PathBuf,
    },
}

impl Make {
    pub(crate) fn run(self, mut command: clap::Command) -> anyhow::Result<()> {
        match self {
            Make::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut command, "inver", &mut script);
                Ok(std::io::stdout().write_all(&script)?)
            }
            Make::Man { folder } => {
                clap_mangen::generate_to(command, &folder).with_context(|| folder.display().to_string())
            }
        }
    }
}
