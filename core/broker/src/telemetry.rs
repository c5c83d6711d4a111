//! Metrics of the model: their names and meanings. The server renders them.

use metrics::{Counter, Gauge, counter, gauge};

/// Messages published singly; finished batches are counted by their protocol.
const PUBLISHED: &str = "inver_messages_published_total";
/// Of those, messages without a receiver.
const UNROUTABLE: &str = "inver_messages_unroutable_total";
/// Messages delivered to consumers.
const DELIVERED: &str = "inver_messages_delivered_total";
/// Messages acknowledged by consumers.
const ACKNOWLEDGED: &str = "inver_messages_acknowledged_total";
/// Messages that consumers returned.
const RETURNED: &str = "inver_messages_returned_total";
/// Messages that queues dropped and published to their dead-letter exchange.
const DEAD_LETTERED: &str = "inver_messages_dead_lettered_total";
/// Messages that an in-memory queue spilled to the log.
const SPILLED: &str = "inver_messages_spilled_total";
/// Messages dropped without a dead-letter exchange: expired, over a length or delivery limit, in a cycle of dead-letter
/// exchanges, or best-effort messages that a full in-memory queue refused.
const DROPPED: &str = "inver_messages_dropped_total";
/// Topics, including durable queues.
const TOPICS: &str = "inver_topics";
/// Queues, durable and in memory.
const QUEUES: &str = "inver_queues";
/// Sessions, connected or not.
const SESSIONS: &str = "inver_sessions";
/// Addresses with a retained value.
const RETAINED: &str = "inver_retained_messages";

/// Logins by protocol, result (`accepted`, `refused`) and, for refused ones, reason.
pub(crate) const LOGINS: &str = "inver_logins_total";
/// Log lines about clients that were not written, to keep within the limits.
pub(crate) const LINES_SUPPRESSED: &str = "inver_log_lines_suppressed_total";

/// Handles of the metrics. All handles of one name count together.
pub(crate) struct Counters {
    pub(crate) published: Counter,
    pub(crate) unroutable: Counter,
    pub(crate) delivered: Counter,
    pub(crate) acknowledged: Counter,
    pub(crate) returned: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) spilled: Counter,
    pub(crate) dropped: Counter,
    pub(crate) topics: Gauge,
    pub(crate) queues: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) retained: Gauge,
}

impl Counters {
    /// The handles of a namespace.
    pub(crate) fn of(namespace: &str) -> Counters {
        let label = namespace.to_owned();
        Counters {
            published: counter!(PUBLISHED, "namespace" => label.clone()),
            unroutable: counter!(UNROUTABLE, "namespace" => label.clone()),
            delivered: counter!(DELIVERED, "namespace" => label.clone()),
            acknowledged: counter!(ACKNOWLEDGED, "namespace" => label.clone()),
            returned: counter!(RETURNED, "namespace" => label.clone()),
            dead_lettered: counter!(DEAD_LETTERED, "namespace" => label.clone()),
            spilled: counter!(SPILLED, "namespace" => label.clone()),
            dropped: counter!(DROPPED, "namespace" => label.clone()),
            topics: gauge!(TOPICS, "namespace" => label.clone()),
            queues: gauge!(QUEUES, "namespace" => label.clone()),
            sessions: gauge!(SESSIONS, "namespace" => label.clone()),
            retained: gauge!(RETAINED, "namespace" => label),
        }
    }
}
