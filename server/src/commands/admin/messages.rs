//! Reading, exporting and publishing messages, and where a publish would go.

use std::io::{Read, Write};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use data_encoding::BASE64;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::Options;
use crate::commands::client::Client;
use crate::commands::table;

/// Messages read with one request.
const MESSAGES_PER_REQUEST: u64 = 500;
/// Bytes of a value that the API shows at most.
const VALUE_BYTES_MAX: u64 = 8 << 20;

/// What keeps messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SourceKind {
    Topic,
    Queue,
    Inbox,
}

impl SourceKind {
    fn name(self) -> &'static str {
        match self {
            SourceKind::Topic => "topic",
            SourceKind::Queue => "queue",
            SourceKind::Inbox => "inbox",
        }
    }
}

/// What messages are read from.
#[derive(Debug, Args)]
struct Source {
    /// What to read from.
    #[arg(value_enum, value_name = "SOURCE")]
    kind: SourceKind,
    /// The topic, the queue, or the client id of the session.
    name: String,
    /// The partition of a topic.
    #[arg(long, default_value_t = 0)]
    partition: u32,
}

impl Source {
    /// Asks for some of its messages; values that are none are left out.
    fn read(
        &self,
        client: &Client,
        count: u64,
        from: &[(&'static str, Option<String>)],
    ) -> anyhow::Result<Value> {
        let mut parameters = vec![("source", self.kind.name().to_owned()), ("name", self.name.clone())];
        if self.partition != 0 {
            parameters.push(("partition", self.partition.to_string()));
        }
        parameters.push(("count", count.min(MESSAGES_PER_REQUEST).to_string()));
        parameters.extend(from.iter().filter_map(|(name, value)| Some((*name, value.clone()?))));
        client.get("/messages", &parameters)
    }
}

/// Read messages; nothing is taken, nothing is marked.
#[derive(Debug, Args)]
pub(crate) struct Peek {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    source: Source,
    /// The offset to read from.
    #[arg(long, conflicts_with_all = ["time", "last"])]
    offset: Option<u64>,
    /// Read from this time on, milliseconds since 1970.
    #[arg(long, conflicts_with = "last")]
    time: Option<i64>,
    /// Read the last messages of a topic.
    #[arg(long)]
    last: Option<u64>,
    /// Messages to read.
    #[arg(long, short = 'n', default_value_t = 10)]
    count: u64,
}

impl Peek {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        let from = [
            ("offset", self.offset.map(|at| at.to_string())),
            ("time_ms", self.time.map(|at| at.to_string())),
            ("last", self.last.map(|count| count.to_string())),
        ];
        let answer = self.source.read(&client, self.count, &from)?;
        let messages = answer.get("messages").cloned().unwrap_or_default();
        let columns = ["offset", "timestamp_ms", "origin", "key", "value", "unacked"].map(str::to_owned);
        table::print(self.options.output, &messages, &columns)?;
        Ok(())
    }
}

/// Write the messages of a topic, a queue or an inbox to standard output, one JSON object a line; they stay where they are.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    source: Source,
    /// The offset to begin with.
    #[arg(long, default_value_t = 0)]
    offset: u64,
    /// The most messages to write.
    #[arg(long, short = 'n', default_value_t = u64::MAX)]
    count: u64,
}

impl Export {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let (mut next, mut left) = (Some(self.offset), self.count);
        while let Some(offset) = next.filter(|_| left > 0) {
            let from =
                [("offset", Some(offset.to_string())), ("value_bytes", Some(VALUE_BYTES_MAX.to_string()))];
            let answer = self.source.read(&client, left, &from)?;
            for message in answer.get("messages").and_then(Value::as_array).into_iter().flatten() {
                writeln!(out, "{message}")?;
                left -= 1;
            }
            next = answer.get("next").and_then(Value::as_u64);
        }
        Ok(out.flush()?)
    }
}

/// Where a message goes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// An address of the hub: an MQTT topic.
    #[arg(long)]
    address: Option<String>,
    /// A queue.
    #[arg(long)]
    queue: Option<String>,
    /// A log topic.
    #[arg(long)]
    topic: Option<String>,
    /// An exchange; with --routing-key.
    #[arg(long)]
    exchange: Option<String>,
}

impl To {
    fn json(&self, routing_key: &str, partition: Option<u32>) -> anyhow::Result<Value> {
        Ok(match self {
            To { address: Some(address), .. } => json!({"address": address}),
            To { queue: Some(queue), .. } => json!({"queue": queue}),
            To { topic: Some(topic), .. } => match partition {
                Some(partition) => json!({"topic": {"name": topic, "partition": partition}}),
                None => json!({"topic": {"name": topic}}),
            },
            To { exchange: Some(exchange), .. } => {
                json!({"exchange": {"name": exchange, "routing_key": routing_key}})
            }
            _ => bail!("give --address, --queue, --topic or --exchange"),
        })
    }
}

/// Publish a message.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    to: To,
    /// The routing key for an exchange.
    #[arg(long, default_value = "")]
    routing_key: String,
    /// The partition of a log topic.
    #[arg(long)]
    partition: Option<u32>,
    /// The record's key.
    #[arg(long)]
    key: Option<String>,
    /// A header.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// The message becomes the retained message of its address.
    #[arg(long)]
    retain: bool,
    /// The body; without it, standard input.
    value: Option<String>,
}

impl Publish {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        let value = match self.value {
            Some(value) => value.into_bytes(),
            None => {
                let mut value = Vec::new();
                std::io::stdin().read_to_end(&mut value)?;
                value
            }
        };
        let mut headers = Map::new();
        for header in &self.headers {
            let (name, value) = header.split_once('=').context("--header NAME=VALUE")?;
            headers.insert(name.to_owned(), json!(value));
        }
        let value = match String::from_utf8(value) {
            Ok(text) => json!({"text": text}),
            Err(error) => json!({"base64": BASE64.encode(error.as_bytes())}),
        };
        let mut body = json!({
            "to": self.to.json(&self.routing_key, self.partition)?,
            "value": value, "headers": headers, "retain": self.retain,
        });
        if let Some(key) = self.key {
            body["key"] = json!({"text": key});
        }
        let answer = client.ask(Method::POST, "/publish", &[], Some(&body))?;
        table::print(self.options.output, &answer, &[])?;
        Ok(())
    }
}

/// Tell where a publish would go; nothing is published.
#[derive(Debug, Args)]
pub(crate) struct Route {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    to: To,
    /// The routing key for an exchange.
    #[arg(long, default_value = "")]
    routing_key: String,
    /// The protocol that would publish, for capture rules that name one.
    #[arg(long)]
    protocol: Option<String>,
}

impl Route {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.options.client()?;
        let mut body = json!({"to": self.to.json(&self.routing_key, None)?});
        if let Some(protocol) = self.protocol {
            body["protocol"] = json!(protocol);
        }
        let answer = client.ask(Method::POST, "/routes/test", &[], Some(&body))?;
        table::print(self.options.output, &answer, &[])?;
        Ok(())
    }
}

/// Retained messages, at most `limit`.
pub(super) fn retained(client: &Client, filter: &str, limit: usize) -> anyhow::Result<Vec<Value>> {
    let (mut items, mut after): (Vec<Value>, Option<String>) = (Vec::new(), None);
    loop {
        let count = limit.saturating_sub(items.len()).clamp(1, 500);
        let mut parameters = vec![("count", count.to_string())];
        if !filter.is_empty() {
            parameters.push(("filter", filter.to_owned()));
        }
        parameters.extend(after.take().map(|after| ("after", after)));
        let answer = client.get("/retained", &parameters)?;
        items.extend(answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default());
        after = answer.get("next").and_then(Value::as_str).map(str::to_owned);
        if after.is_none() || items.len() >= limit {
            items.truncate(limit);
            return Ok(items);
        }
    }
}
