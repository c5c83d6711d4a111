//! Values as they come from a file or a variable, and the readers that turn them into what they mean.
//!
//! A scalar is the same text in both places, so there is one reader a kind of value. Lists and tables are
//! TOML in a variable too.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use toml_edit::Item;

use crate::protocols::PLUGS;

use super::{CaptureRule, Commit, Listen, RuntimeKind};

/// A value before it is known what it means.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Text, a number or a truth value, as it was written.
    Scalar(String),
    /// Name to text.
    Map(BTreeMap<String, String>),
    /// Tables of names to texts.
    List(Vec<BTreeMap<String, String>>),
    /// Texts, one or more; without any it is an empty [`List`](Self::List).
    Texts(Vec<String>),
}

impl Value {
    /// What a TOML item holds.
    pub(crate) fn from_item(item: &Item) -> Result<Value, String> {
        if let Some(text) = scalar(item) {
            return Ok(Value::Scalar(text));
        }
        if let Some(tables) = item.as_array_of_tables() {
            let rows: Result<_, String> = tables.iter().map(|table| map(table)).collect();
            return Ok(Value::List(rows?));
        }
        if let Some(array) = item.as_array() {
            if !array.is_empty() && array.iter().all(|row| row.is_str()) {
                let texts = array.iter().filter_map(|row| row.as_str().map(str::to_string));
                return Ok(Value::Texts(texts.collect()));
            }
            let rows: Result<_, String> = array
                .iter()
                .map(|row| {
                    let table = row.as_inline_table().ok_or("a list of tables is wanted")?;
                    map(table)
                })
                .collect();
            return Ok(Value::List(rows?));
        }
        match item.as_table_like() {
            Some(table) => Ok(Value::Map(map(table)?)),
            None => Err("a value is wanted here".into()),
        }
    }

    /// Text of a scalar.
    pub(crate) fn text(&self) -> Result<&str, String> {
        match self {
            Value::Scalar(text) => Ok(text),
            Value::Map(_) | Value::List(_) | Value::Texts(_) => {
                Err("a single value is wanted, not a table or a list".into())
            }
        }
    }
}

fn scalar(item: &Item) -> Option<String> {
    let value = item.as_value()?;
    if let Some(text) = value.as_str() {
        return Some(text.to_string());
    }
    if let Some(number) = value.as_integer() {
        return Some(number.to_string());
    }
    value.as_bool().map(|truth| truth.to_string())
}

fn map(table: &dyn toml_edit::TableLike) -> Result<BTreeMap<String, String>, String> {
    table
        .iter()
        .map(|(name, item)| match scalar(item) {
            Some(text) => Ok((name.to_string(), text)),
            None => Err(format!("`{name}` wants a single value")),
        })
        .collect()
}

/// `address:port`, `port`, or `off`. A name is resolved once, now.
pub(crate) fn listen(value: &Value) -> Result<Listen, String> {
    let text = value.text()?.trim();
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let wanted =
        || format!("`{text}` is not `address:port` (such as 127.0.0.1:9092 or [::1]:9092), nor `off`");
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Some(address));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
    let port: u16 = port.parse().map_err(|_| wanted())?;
    let host = if host.is_empty() || host == "*" { "0.0.0.0" } else { host };
    match (host, port).to_socket_addrs() {
        Ok(mut found) => found.next().map(Some).ok_or_else(wanted),
        Err(_) => Err(wanted()),
    }
}

/// `host:port` that clients are told; empty for none.
pub(crate) fn host_port(value: &Value) -> Result<Option<(String, u16)>, String> {
    let text = value.text()?.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let wanted = || format!("`{text}` is not `host:port` (such as broker.example.org:9092)");
    let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
    let port: u16 = port.parse().map_err(|_| wanted())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || port == 0 {
        return Err(wanted());
    }
    Ok(Some((host.to_string(), port)))
}

/// A list of texts; it may be empty.
pub(crate) fn texts(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Texts(texts) => Ok(texts.clone()),
        Value::List(rows) if rows.is_empty() => Ok(Vec::new()),
        _ => Err("a list of texts is wanted, such as [\"a\", \"b\"]".into()),
    }
}

/// A path; empty for none.
pub(crate) fn path(value: &Value) -> Result<Option<PathBuf>, String> {
    let text = value.text()?;
    Ok(if text.is_empty() { None } else { Some(PathBuf::from(text)) })
}

/// `true` or `false`.
pub(crate) fn truth(value: &Value) -> Result<bool, String> {
    match value.text()?.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("`{other}` is neither `true` nor `false`")),
    }
}

/// A whole number within bounds.
pub(crate) fn number(value: &Value, least: u64, most: u64) -> Result<u64, String> {
    let text = value.text()?.trim();
    let number: u64 =
        text.parse().map_err(|_| format!("`{text}` is not a whole number from {least} to {most}"))?;
    if number < least || number > most {
        return Err(format!("{number} is out of bounds: from {least} to {most}"));
    }
    Ok(number)
}

/// A number of items within bounds.
pub(crate) fn count(value: &Value, least: usize, most: usize) -> Result<usize, String> {
    let number = number(value, least as u64, most as u64)?;
    usize::try_from(number).map_err(|_| format!("{number} is too large for this machine"))
}

/// A number of bytes within bounds; `KiB`, `MiB` and `GiB` may follow it.
pub(crate) fn bytes(value: &Value, least: u64, most: u64) -> Result<u64, String> {
    let text = value.text()?.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("`{text}` is not a number of bytes, such as 1048576, 512 KiB or 16 MiB")),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match number {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        Some(number) => Err(format!("{number} bytes is out of bounds: from {least} to {most}")),
        None => Err(format!("`{text}` is not a number of bytes, such as 1048576, 512 KiB or 16 MiB")),
    }
}

/// A number of milliseconds within bounds.
pub(crate) fn milliseconds(value: &Value, least: u64, most: u64) -> Result<Duration, String> {
    number(value, least, most).map(Duration::from_millis)
}

/// `always`, `interval` or `os`.
pub(crate) fn commit(value: &Value) -> Result<Commit, String> {
    match value.text()?.trim() {
        "always" => Ok(Commit::Always),
        "interval" => Ok(Commit::Interval),
        "os" => Ok(Commit::Os),
        other => Err(format!("`{other}` is not one of always, interval, os")),
    }
}

/// `per-core` or `multi-thread`.
pub(crate) fn runtime_kind(value: &Value) -> Result<RuntimeKind, String> {
    match value.text()?.trim() {
        "per-core" => Ok(RuntimeKind::PerCore),
        "multi-thread" => Ok(RuntimeKind::MultiThread),
        other => Err(format!("`{other}` is not one of per-core, multi-thread")),
    }
}

/// A level, or `target=level` pairs.
pub(crate) fn log_filter(value: &Value) -> Result<tracing_subscriber::filter::Targets, String> {
    let text = value.text()?;
    text.parse().map_err(|_| {
        format!("`{text}` is not a level (error, warn, info, debug, trace) nor target=level pairs")
    })
}

/// Names and their password hashes.
pub(crate) fn users(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let Value::Map(users) = value else {
        return Err("a table of names and password hashes is wanted: `inver user add` writes it".into());
    };
    for (name, hash) in users {
        if name.is_empty() {
            return Err("a user's name is empty".into());
        }
        if crate::passwords::parse(hash).is_err() {
            return Err(format!(
                "the password of `{name}` is not an argon2 hash: `inver user add {name}` writes one"
            ));
        }
    }
    Ok(users.clone())
}

/// Ordered capture rules.
pub(crate) fn capture_rules(value: &Value) -> Result<Vec<CaptureRule>, String> {
    let Value::List(rows) = value else {
        return Err("a list of tables with filter, topic and key is wanted".into());
    };
    rows.iter().map(capture_rule).collect()
}

fn capture_rule(row: &BTreeMap<String, String>) -> Result<CaptureRule, String> {
    const NAMES: [&str; 4] = ["protocol", "filter", "topic", "key"];
    if let Some(unknown) = row.keys().find(|name| !NAMES.contains(&name.as_str())) {
        return Err(format!("a capture rule has filter, topic, key and protocol, not `{unknown}`"));
    }
    let text = |name: &str| row.get(name).cloned().filter(|text| !text.is_empty());
    let protocol = text("protocol");
    if let Some(name) = &protocol
        && !PLUGS.iter().any(|plug| plug.name == name)
    {
        return Err(format!("there is no protocol `{name}`"));
    }
    Ok(CaptureRule {
        protocol,
        filter: text("filter").ok_or("a capture rule needs a filter")?,
        topic: text("topic").ok_or("a capture rule needs a topic")?,
        key: text("key").unwrap_or_else(|| "{address}".into()),
    })
}
