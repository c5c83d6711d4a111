//! `inver policy`: lists, sets and deletes policies of the running broker.

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, encoded};
use super::named::Options;
use super::table;

/// What a list shows of a policy.
const COLUMNS: [&str; 6] = ["name", "pattern", "applies_to", "definition", "priority", "without_effect"];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the policies of a namespace.
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Set a policy, or replace the one of its name. It holds at once for queues and exchanges that exist.
    Set {
        /// Its name.
        name: String,
        /// A regular expression, not anchored: the policy applies to objects in whose names it finds a match.
        #[arg(allow_hyphen_values = true)]
        pattern: String,
        /// The settings as a JSON object, such as '{"max-length": 1000}'.
        definition: String,
        /// Of several that match an object, the one with the highest applies.
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i64,
        /// The objects that it can apply to.
        #[arg(long, value_enum, default_value_t = AppliesTo::All)]
        apply_to: AppliesTo,
        #[command(flatten)]
        which: Which,
    },
    /// Delete a policy.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        which: Which,
    },
}

/// The objects that a policy can apply to.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum AppliesTo {
    All,
    Exchanges,
    Queues,
    ClassicQueues,
    QuorumQueues,
    Streams,
}

/// Which policies, and how to reach the broker.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Operator policies, which bound what arguments and policies ask for.
    #[arg(long)]
    operator: bool,
    /// The namespace.
    #[arg(long, default_value = "/")]
    namespace: String,
    #[command(flatten)]
    options: Options,
}

impl Which {
    fn client(&self) -> anyhow::Result<Client> {
        Ok(self.options.reach.client()?.within(self.namespace.clone()))
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        if self.operator { vec![("operator", "true".to_owned())] } else { Vec::new() }
    }

    fn noun(&self) -> &'static str {
        if self.operator { "operator policy" } else { "policy" }
    }
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::List { which } => {
                let policies = which.client()?.list("/policies", true, &which.query(), usize::MAX)?;
                Ok(table::print(which.options.output, &Value::Array(policies), &table::columns(&COLUMNS))?)
            }
            Command::Set { name, pattern, definition, priority, apply_to, which } => {
                let definition: Map<String, Value> =
                    serde_json::from_str(&definition).context("the definition is not a JSON object")?;
                let applies_to = apply_to.to_possible_value();
                let applies_to = applies_to.as_ref().map_or("all", |value| value.get_name());
                let body = json!({
                    "pattern": pattern,
                    "applies_to": applies_to,
                    "priority": priority,
                    "definition": definition,
                });
                let path = format!("/policies/{}", encoded(&name));
                let set = which.client()?.ask(Method::PUT, &path, &which.query(), Some(&body))?;
                eprintln!("set {} {name}", which.noun());
                let without_effect = set.get("without_effect").and_then(Value::as_array);
                for setting in without_effect.into_iter().flatten().filter_map(Value::as_str) {
                    eprintln!("warning: {setting} has no effect");
                }
                Ok(())
            }
            Command::Delete { name, which } => {
                let path = format!("/policies/{}", encoded(&name));
                which.client()?.ask(Method::DELETE, &path, &which.query(), None)?;
                eprintln!("deleted {} {name}", which.noun());
                Ok(())
            }
        }
    }
}
