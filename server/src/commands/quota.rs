//! `inver quota`: lists, sets and deletes quotas of the running broker.

use anyhow::bail;
use clap::Subcommand;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::named::Options;
use super::table;

/// What a list shows of a quota.
const COLUMNS: [&str; 12] = [
    "user",
    "client_id",
    "namespace",
    "ip",
    "bytes_in_per_second",
    "bytes_out_per_second",
    "messages_in_per_second",
    "messages_out_per_second",
    "request_time_percent",
    "connections_per_second",
    "mutations_per_second",
    "source",
];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the quotas, those of the configuration included.
    List {
        #[command(flatten)]
        options: Options,
    },
    /// Set limits of a user, a client id, a namespace or an address; those that are not given stay.
    Set(Box<Set>),
    /// Delete all limits of a user, a client id, a namespace or an address.
    Delete {
        #[command(flatten)]
        entity: Entity,
        #[command(flatten)]
        options: Options,
    },
}

/// What a quota is for: a user, a client id, or both; or a namespace; or an address. `*` is the default for all others.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Entity {
    /// The user.
    #[arg(long)]
    user: Option<String>,
    /// The client id.
    #[arg(long)]
    client_id: Option<String>,
    /// The namespace.
    #[arg(long, conflicts_with_all = ["user", "client_id"])]
    namespace: Option<String>,
    /// The address that connections come from.
    #[arg(long, conflicts_with_all = ["user", "client_id", "namespace"])]
    ip: Option<String>,
}

impl Entity {
    fn query(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("user", &self.user),
            ("client_id", &self.client_id),
            ("namespace", &self.namespace),
            ("ip", &self.ip),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    #[command(flatten)]
    entity: Entity,
    /// Bytes from clients a second; 0: no limit.
    #[arg(long)]
    bytes_in: Option<u64>,
    /// Bytes to clients a second; 0: no limit.
    #[arg(long)]
    bytes_out: Option<u64>,
    /// Messages from clients a second; 0: no limit.
    #[arg(long)]
    messages_in: Option<u64>,
    /// Messages to clients a second; 0: no limit.
    #[arg(long)]
    messages_out: Option<u64>,
    /// Time of the broker's threads, percent of one thread; 0: no limit.
    #[arg(long)]
    request_time_percent: Option<f64>,
    /// New connections a second; 0: no limit.
    #[arg(long)]
    connections: Option<u64>,
    /// Partitions created and deleted a second, over Kafka; 0: no limit.
    #[arg(long)]
    mutations: Option<f64>,
    #[command(flatten)]
    options: Options,
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::List { options } => {
                let quotas = options.reach.client()?.list("/quotas", false, &[], usize::MAX)?;
                Ok(table::print(options.output, &Value::Array(quotas), &table::columns(&COLUMNS))?)
            }
            Command::Set(set) => set.run(),
            Command::Delete { entity, options } => {
                options.reach.client()?.ask_node(Method::DELETE, "/quotas", &entity.query(), None)?;
                eprintln!("deleted the quota");
                Ok(())
            }
        }
    }
}

impl Set {
    fn run(&self) -> anyhow::Result<()> {
        let limits = [
            ("bytes_in_per_second", self.bytes_in.map(Value::from)),
            ("bytes_out_per_second", self.bytes_out.map(Value::from)),
            ("messages_in_per_second", self.messages_in.map(Value::from)),
            ("messages_out_per_second", self.messages_out.map(Value::from)),
            ("request_time_percent", self.request_time_percent.map(|percent| json!(percent))),
            ("connections_per_second", self.connections.map(Value::from)),
            ("mutations_per_second", self.mutations.map(|limit| json!(limit))),
        ];
        let limits: Map<String, Value> =
            limits.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), limit?))).collect();
        if limits.is_empty() {
            bail!("no limit is given");
        }
        let client = self.options.reach.client()?;
        client.ask_node(Method::PUT, "/quotas", &self.entity.query(), Some(&Value::Object(limits)))?;
        eprintln!("changed the quota");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        _command: Command,
    }

    #[test]
    fn a_quota_is_for_a_client_a_namespace_or_an_address() {
        let reads =
            |line: &str| Line::try_parse_from(format!("x set --bytes-in 1 {line}").split(' ')).is_ok();
        assert!(reads("--user ann") && reads("--user ann --client-id *") && reads("--client-id c"));
        assert!(reads("--namespace red") && reads("--ip ::1"));
        assert!(!reads("--user ann --namespace red") && !reads("--namespace red --ip ::1"));
        assert!(!reads("--user ann --ip ::1") && !reads("--messages-in 1"));
    }
}
