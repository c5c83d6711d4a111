//! `inver namespace`: lists, creates, changes and deletes namespaces of the running broker.

use clap::Subcommand;
use serde_json::{Value, json};

use super::named::{Named, Options};

/// Namespaces of the running broker.
const NAMESPACES: Named = Named {
    path: "/namespaces",
    noun: "namespace",
    columns: &["name", "topics", "queues", "sessions", "retained", "protected", "description"],
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the namespaces.
    List {
        #[command(flatten)]
        options: Options,
    },
    /// Create a namespace.
    Add(Box<Set>),
    /// Change a namespace; what is not named stays as it is.
    Set(Box<Set>),
    /// Delete a namespace with everything in it. Its connections are closed.
    Delete {
        /// The namespace's name.
        name: String,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// The namespace's name.
    name: String,
    /// A text for people.
    #[arg(long)]
    description: Option<String>,
    /// Tags, separated by commas.
    #[arg(long, value_delimiter = ',')]
    tags: Option<Vec<String>>,
    /// The type of queues that are declared without one.
    #[arg(long)]
    default_queue_type: Option<String>,
    /// Whether it cannot be deleted.
    #[arg(long)]
    protected: Option<bool>,
    /// Whether messages are copied to the exchange amq.rabbitmq.trace, until the broker ends.
    #[arg(long)]
    tracing: Option<bool>,
    /// Connections at the same time; 0: no limit of its own. So with the other limits.
    #[arg(long)]
    connections_max: Option<u32>,
    /// Queues.
    #[arg(long)]
    queues_max: Option<u32>,
    /// Topics, durable queues included.
    #[arg(long)]
    topics_max: Option<u32>,
    /// Sessions.
    #[arg(long)]
    sessions_max: Option<u32>,
    /// Bytes of the messages that it keeps.
    #[arg(long)]
    bytes_max: Option<u64>,
    #[command(flatten)]
    options: Options,
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::List { options } => NAMESPACES.list(&options),
            Command::Add(add) => NAMESPACES.add(&add.options.reach.client()?, &add.name, &add.fields()),
            Command::Set(set) => NAMESPACES.set(&set.options.reach.client()?, &set.name, &set.fields()),
            Command::Delete { name, options } => NAMESPACES.delete(&options, &name),
        }
    }
}

impl Set {
    fn fields(&self) -> [(&'static str, Option<Value>); 10] {
        [
            ("description", self.description.as_ref().map(|text| json!(text))),
            ("tags", self.tags.as_ref().map(|tags| json!(tags))),
            ("default_queue_type", self.default_queue_type.as_ref().map(|text| json!(text))),
            ("protected", self.protected.map(Value::from)),
            ("tracing", self.tracing.map(Value::from)),
            ("connections_max", self.connections_max.map(Value::from)),
            ("queues_max", self.queues_max.map(Value::from)),
            ("topics_max", self.topics_max.map(Value::from)),
            ("sessions_max", self.sessions_max.map(Value::from)),
            ("bytes_max", self.bytes_max.map(Value::from)),
        ]
    }
}
