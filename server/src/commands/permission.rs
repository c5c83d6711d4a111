//! `inver permission`: lists, adds, deletes and explains permission rules of the running broker, also in RabbitMQ's form.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgGroup, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::named::Options;
use super::table::{self, Output};

/// What a list shows of a rule.
const COLUMNS: [&str; 15] = [
    "id",
    "user",
    "tag",
    "anyone",
    "anonymous",
    "namespace",
    "kind",
    "name",
    "prefix",
    "filter",
    "regex",
    "dotted",
    "exchange",
    "operations",
    "effect",
];

/// What a list shows of permissions in RabbitMQ's form.
const EXPRESSIONS: [&str; 5] = ["user", "namespace", "configure", "write", "read"];
const TOPIC_EXPRESSIONS: [&str; 5] = ["user", "namespace", "exchange", "write", "read"];

const EXPRESSIONS_PATH: &str = "/permissions/expressions";
const TOPIC_EXPRESSIONS_PATH: &str = "/permissions/topic-expressions";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the rules, those of the configuration included.
    List {
        /// Only rules of this user.
        #[arg(long)]
        user: Option<String>,
        /// List what `inver permission set` has set instead.
        #[arg(long, conflicts_with = "topics")]
        expressions: bool,
        /// List what `inver permission set-topic` has set instead.
        #[arg(long)]
        topics: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Add a rule: who may (or with `--deny` may not) do what with which resources.
    Add(Box<Add>),
    /// Delete a stored rule.
    Delete {
        /// Its id, as `inver permission list` shows it.
        id: u64,
        #[command(flatten)]
        options: Options,
    },
    /// Set what a user may do in a namespace, as RabbitMQ has it: regular expressions over names of queues and exchanges,
    /// not anchored; an empty one allows nothing.
    Set {
        #[command(flatten)]
        whose: Whose,
        /// Names of queues and exchanges that the user may declare and delete.
        #[arg(long, allow_hyphen_values = true)]
        configure: String,
        /// Names of exchanges to publish to, and of queues and exchanges to bind.
        #[arg(long, allow_hyphen_values = true)]
        write: String,
        /// Names of queues to consume from and purge, and of exchanges to bind to.
        #[arg(long, allow_hyphen_values = true)]
        read: String,
        #[command(flatten)]
        options: Options,
    },
    /// Set which routing keys of a topic exchange a user may use, as RabbitMQ has it.
    SetTopic {
        #[command(flatten)]
        whose: Whose,
        /// The exchange.
        #[arg(long)]
        exchange: String,
        /// Keys to publish with.
        #[arg(long, allow_hyphen_values = true)]
        write: String,
        /// Keys to bind with.
        #[arg(long, allow_hyphen_values = true)]
        read: String,
        #[command(flatten)]
        options: Options,
    },
    /// Clear what `set` has set.
    Clear {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        options: Options,
    },
    /// Clear what `set-topic` has set.
    ClearTopic {
        #[command(flatten)]
        whose: Whose,
        /// The exchange; without it, all.
        #[arg(long)]
        exchange: Option<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Say whether a user may do something, and by which rule; exit code 1 if not.
    Check(Box<Check>),
}

/// Whose permission in RabbitMQ's form, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Whose {
    /// The user.
    #[arg(long)]
    user: String,
    /// The namespace.
    #[arg(long, default_value = "/")]
    namespace: String,
}

impl Whose {
    fn query(&self, exchange: Option<&str>) -> Vec<(&'static str, String)> {
        let exchange = exchange.map(|exchange| ("exchange", exchange.to_owned()));
        let own = [("user", self.user.clone()), ("namespace", self.namespace.clone())];
        own.into_iter().chain(exchange).collect()
    }

    fn set(&self, options: &Options, path: &str, exchange: Option<&str>, body: &Value) -> anyhow::Result<()> {
        options.reach.client()?.ask_node(Method::PUT, path, &self.query(exchange), Some(body))?;
        eprintln!("set the permission of {} in {}", self.user, self.namespace);
        Ok(())
    }

    fn clear(&self, options: &Options, path: &str, exchange: Option<&str>) -> anyhow::Result<()> {
        options.reach.client()?.ask_node(Method::DELETE, path, &self.query(exchange), None)?;
        eprintln!("cleared the permission of {} in {}", self.user, self.namespace);
        Ok(())
    }
}

#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("principal").required(true),
    group = ArgGroup::new("pattern"),
)]
pub(super) struct Add {
    /// The user that it applies to.
    #[arg(long, group = "principal")]
    user: Option<String>,
    /// The tag whose users it applies to.
    #[arg(long, group = "principal")]
    tag: Option<String>,
    /// It applies to everybody, anonymous clients included.
    #[arg(long, group = "principal")]
    anyone: bool,
    /// It applies to clients without a user.
    #[arg(long, group = "principal")]
    anonymous: bool,
    /// The namespace in which it applies; without it, every namespace.
    #[arg(long)]
    namespace: Option<String>,
    /// Kind of resource: topic (and queue), exchange, address, group, transactional-id, session, cluster, namespace,
    /// routing-key, user, delegation-token; without it, every kind.
    #[arg(long)]
    kind: Option<String>,
    /// The resource of this name.
    #[arg(long, group = "pattern")]
    name: Option<String>,
    /// Resources whose names begin with this.
    #[arg(long, group = "pattern")]
    prefix: Option<String>,
    /// Resources whose names match this MQTT filter.
    #[arg(long, group = "pattern")]
    filter: Option<String>,
    /// Resources in whose names this regular expression matches.
    #[arg(long, group = "pattern")]
    regex: Option<String>,
    /// Addresses in whose dotted form this regular expression matches.
    #[arg(long, group = "pattern")]
    dotted: Option<String>,
    /// Of routing keys: the exchange whose keys they are.
    #[arg(long)]
    exchange: Option<String>,
    /// Operations, separated by commas; `all` for every operation.
    #[arg(long, value_delimiter = ',', required = true)]
    operations: Vec<String>,
    /// Deny them. Denying wins over allowing.
    #[arg(long)]
    deny: bool,
    /// Only for clients that connect from this address.
    #[arg(long)]
    host: Option<IpAddr>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The user; without it, an anonymous client.
    #[arg(long, conflicts_with = "token_file")]
    user: Option<String>,
    /// A file with a JSON Web Token, whose user it is; the rules that the token brings are shown too.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// The namespace; without it, that of the token, or `/`.
    #[arg(long)]
    namespace: Option<String>,
    /// The client id.
    #[arg(long)]
    client_id: Option<String>,
    /// The address that the client connects from.
    #[arg(long)]
    host: Option<IpAddr>,
    /// Kind of resource.
    #[arg(long)]
    kind: String,
    /// Name of the resource.
    #[arg(long, default_value = "")]
    name: String,
    /// The operation.
    #[arg(long)]
    operation: String,
    #[command(flatten)]
    options: Options,
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::List { user, expressions, topics, options } => {
                let of_user: Vec<_> = user.map(|user| ("user", user)).into_iter().collect();
                let (path, columns) = match (expressions, topics) {
                    (true, _) => (EXPRESSIONS_PATH, &EXPRESSIONS[..]),
                    (_, true) => (TOPIC_EXPRESSIONS_PATH, &TOPIC_EXPRESSIONS[..]),
                    _ => ("/permissions", &COLUMNS[..]),
                };
                let listed = options.reach.client()?.list(path, false, &of_user, usize::MAX)?;
                Ok(table::print(options.output, &Value::Array(listed), &table::columns(columns))?)
            }
            Command::Set { whose, configure, write, read, options } => {
                let body = json!({"configure": configure, "write": write, "read": read});
                whose.set(&options, EXPRESSIONS_PATH, None, &body)
            }
            Command::SetTopic { whose, exchange, write, read, options } => {
                let body = json!({"write": write, "read": read});
                whose.set(&options, TOPIC_EXPRESSIONS_PATH, Some(&exchange), &body)
            }
            Command::Clear { whose, options } => whose.clear(&options, EXPRESSIONS_PATH, None),
            Command::ClearTopic { whose, exchange, options } => {
                whose.clear(&options, TOPIC_EXPRESSIONS_PATH, exchange.as_deref())
            }
            Command::Add(add) => add.run(),
            Command::Delete { id, options } => {
                let path = format!("/permissions/{id}");
                options.reach.client()?.ask_node(Method::DELETE, &path, &[], None)?;
                eprintln!("deleted permission rule {id}");
                Ok(())
            }
            Command::Check(check) => check.run(),
        }
    }
}

impl Add {
    fn run(&self) -> anyhow::Result<()> {
        let host = self.host.map(|host| host.to_string());
        let texts = [
            ("user", &self.user),
            ("tag", &self.tag),
            ("namespace", &self.namespace),
            ("kind", &self.kind),
            ("name", &self.name),
            ("prefix", &self.prefix),
            ("filter", &self.filter),
            ("regex", &self.regex),
            ("dotted", &self.dotted),
            ("exchange", &self.exchange),
            ("host", &host),
        ];
        let mut body = json!({
            "anyone": self.anyone,
            "anonymous": self.anonymous,
            "operations": self.operations,
            "effect": if self.deny { "deny" } else { "allow" },
        });
        for (field, text) in texts {
            if let (Some(text), Some(body)) = (text, body.as_object_mut()) {
                body.insert(field.to_owned(), json!(text));
            }
        }
        let added = self.options.reach.client()?.ask_node(Method::POST, "/permissions", &[], Some(&body))?;
        let ids = added["ids"].as_array().into_iter().flatten().filter_map(|id| id.as_str());
        println!("{}", ids.collect::<Vec<_>>().join(" "));
        Ok(())
    }
}

impl Check {
    fn run(&self) -> anyhow::Result<()> {
        let host = self.host.map(|host| host.to_string());
        let fields = [
            ("namespace", self.namespace.clone()),
            ("kind", Some(self.kind.clone())),
            ("name", Some(self.name.clone())),
            ("operation", Some(self.operation.clone())),
            ("user", self.user.clone()),
            ("client_id", self.client_id.clone()),
            ("host", host),
        ];
        let question: Vec<_> = fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let client = self.options.reach.client()?;
        let path = "/permissions/check";
        let answer = match &self.token_file {
            None => client.ask_node(Method::GET, path, &question, None)?,
            Some(file) => {
                let token = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
                let token = ("token", token.trim().to_owned());
                let body =
                    question.into_iter().chain([token]).map(|(name, value)| (name.to_owned(), value.into()));
                client.ask_node(Method::POST, path, &[], Some(&Value::Object(body.collect())))?
            }
        };
        let is_allowed = answer["allowed"] == json!(true);
        let reason = answer["reason"].as_str().unwrap_or_default();
        if self.options.output == Output::Json {
            table::print(Output::Json, &answer, &[])?;
        } else {
            println!("{}: {reason}", if is_allowed { "allowed" } else { "denied" });
            if let Some(user) = answer["user"].as_str() {
                println!("the token is of user {user} and brings these rules:");
                table::print(Output::Table, &answer["rules"], &table::columns(&COLUMNS))?;
            }
        }
        if !is_allowed {
            std::process::exit(1);
        }
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
    fn a_rule_has_one_principal_and_at_most_one_pattern() {
        let reads = |line: &str| Line::try_parse_from(format!("x add {line}").split(' ')).is_ok();
        assert!(reads("--user ann --kind topic --prefix a --operations read,write"));
        assert!(reads("--anonymous --operations read") && !reads("--anonymous --anyone --operations read"));
        assert!(reads("--anyone --operations all --deny"));
        assert!(!reads("--kind topic --operations read"));
        assert!(!reads("--user ann --tag x --operations read"));
        assert!(!reads("--user ann --prefix a --regex b --operations read"));
        assert!(!reads("--user ann"));
    }
}
