//! Death records as the headers that RabbitMQ's consumers read: `x-death`, `x-first-death-*`, `x-last-death-*`.

use inver_broker::message::Death;

use crate::codec::table::{Table, TableWriter, Value, array_of};

const X_DEATH: &[u8] = b"x-death";
const SUMMARIES: [(&[u8], &[u8], &[u8]); 2] = [
    (b"x-first-death-queue", b"x-first-death-reason", b"x-first-death-exchange"),
    (b"x-last-death-queue", b"x-last-death-reason", b"x-last-death-exchange"),
];

/// Writes the headers of a dead-lettered message: its deaths, newest first, then the headers that it had.
pub(super) fn write(deaths: &[Death<'_>], headers: Table<'_>, out: &mut Vec<u8>) {
    let (Some(last), Some(first)) = (deaths.first(), deaths.last()) else { return };
    let mut entries = Vec::new();
    for death in deaths {
        let (mut entry, mut keys) = (Vec::new(), Vec::new());
        let mut writer = TableWriter::new(&mut keys);
        writer.value(Value::Text(&death.routing_key));
        if let (Some(Value::Array(more)), true) = (headers.get("CC"), death.routing_key == first.routing_key)
        {
            more.iter().for_each(|key| writer.value(key));
        }
        let mut table = TableWriter::new(&mut entry);
        table.field(b"count", Value::I64(i64::try_from(death.count).unwrap_or(i64::MAX)));
        table.field(b"reason", Value::Text(death.reason.as_str().as_bytes()));
        table.field(b"queue", Value::Text(death.queue.as_bytes()));
        table.field(b"time", Value::Timestamp(u64::try_from(death.time_ms / 1000).unwrap_or_default()));
        table.field(b"exchange", Value::Text(&death.exchange));
        table.field(b"routing-keys", array_of(&keys));
        if let Some(ttl_ms) = death.ttl_ms {
            table.field(b"original-expiration", Value::Text(itoa::Buffer::new().format(ttl_ms).as_bytes()));
        }
        TableWriter::new(&mut entries).value(Value::Table(Table::of(&entry)));
    }
    let mut table = TableWriter::new(out);
    table.field(X_DEATH, array_of(&entries));
    for ((queue, reason, exchange), death) in SUMMARIES.iter().zip([first, last]) {
        table.field(queue, Value::Text(death.queue.as_bytes()));
        table.field(reason, Value::Text(death.reason.as_str().as_bytes()));
        table.field(exchange, Value::Text(&death.exchange));
    }
    for (name, value) in headers.iter().filter(|(name, _)| !is_own(name)) {
        table.field(name, value);
    }
}

/// Whether it is the name of a header that tells deaths.
pub(super) fn is_own(name: &[u8]) -> bool {
    name == X_DEATH || SUMMARIES.iter().any(|(q, r, e)| [*q, *r, *e].contains(&name))
}
