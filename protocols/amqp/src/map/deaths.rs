//! Dead letters: the deaths of a message as properties of its record, and as the headers that RabbitMQ's consumers read
//! (`x-death`, `x-first-death-*`, `x-last-death-*`).
//!
//! A death is one property `death`, newest first: lines of text, `queue`, `reason`, `exchange`, `routing-key`, `time_ms`,
//! `count`, `original expiry` (empty if none), in which `\` and line feeds are escaped.

use crate::codec::table::{Table, TableWriter, Value, array_of};

/// One queue that the message died in, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Death {
    queue: String,
    reason: String,
    exchange: String,
    routing_key: String,
    time_ms: i64,
    count: i64,
    original_expiration: Option<String>,
}

/// Names of the headers that say it.
const X_DEATH: &[u8] = b"x-death";
const SUMMARIES: [(&[u8], &[u8], &[u8]); 2] = [
    (b"x-first-death-queue", b"x-first-death-reason", b"x-first-death-exchange"),
    (b"x-last-death-queue", b"x-last-death-reason", b"x-last-death-exchange"),
];

impl Death {
    /// Reads a property's value.
    pub(super) fn parse(value: &[u8]) -> Option<Death> {
        let text = std::str::from_utf8(value).ok()?;
        let mut lines = text.split('\n').map(unescape);
        Some(Death {
            queue: lines.next()?,
            reason: lines.next()?,
            exchange: lines.next()?,
            routing_key: lines.next()?,
            time_ms: lines.next()?.parse().ok()?,
            count: lines.next()?.parse().ok()?,
            original_expiration: lines.next().filter(|text| !text.is_empty()),
        })
    }
}

fn unescape(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    out
}

/// Writes the headers of a message that died: the deaths, then what it had before.
pub(super) fn write(deaths: &[Death], headers: Table<'_>, out: &mut Vec<u8>) {
    let (Some(last), Some(first)) = (deaths.first(), deaths.last()) else { return };
    let mut entries = Vec::new();
    for death in deaths {
        let (mut entry, mut keys) = (Vec::new(), Vec::new());
        let mut writer = TableWriter::new(&mut keys);
        writer.value(Value::Text(death.routing_key.as_bytes()));
        if let (Some(Value::Array(more)), true) = (headers.get("CC"), death.routing_key == first.routing_key)
        {
            more.iter().for_each(|key| writer.value(key));
        }
        let mut table = TableWriter::new(&mut entry);
        table.field(b"count", Value::I64(death.count));
        table.field(b"reason", Value::Text(death.reason.as_bytes()));
        table.field(b"queue", Value::Text(death.queue.as_bytes()));
        table.field(b"time", Value::Timestamp(u64::try_from(death.time_ms / 1000).unwrap_or_default()));
        table.field(b"exchange", Value::Text(death.exchange.as_bytes()));
        table.field(b"routing-keys", array_of(&keys));
        if let Some(expiration) = &death.original_expiration {
            table.field(b"original-expiration", Value::Text(expiration.as_bytes()));
        }
        TableWriter::new(&mut entries).value(Value::Table(Table::of(&entry)));
    }
    let mut table = TableWriter::new(out);
    table.field(X_DEATH, array_of(&entries));
    for ((queue, reason, exchange), death) in SUMMARIES.iter().zip([first, last]) {
        table.field(queue, Value::Text(death.queue.as_bytes()));
        table.field(reason, Value::Text(death.reason.as_bytes()));
        table.field(exchange, Value::Text(death.exchange.as_bytes()));
    }
    let ours =
        |name: &[u8]| name == X_DEATH || SUMMARIES.iter().any(|(q, r, e)| [*q, *r, *e].contains(&name));
    for (name, value) in headers.iter().filter(|(name, _)| !ours(name)) {
        table.field(name, value);
    }
}
