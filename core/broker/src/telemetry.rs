//! Metrics of the model: their names and meanings. The server renders them.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

/// Logins by protocol, result (`accepted`, `refused`) and, for refused ones, reason.
pub(crate) const LOGINS: &str = "inver_logins_total";
/// Log lines about clients that were not written, to keep within the limits.
pub(crate) const LINES_SUPPRESSED: &str = "inver_log_lines_suppressed_total";

/// Events of the audit log, by kind and result.
pub(crate) const AUDIT_EVENTS: &str = "inver_audit_events_total";
/// Events of the audit log that are not in the audit topic.
pub(crate) const AUDIT_DROPPED: &str = "inver_audit_events_dropped_total";
/// Events for programs that were not published.
pub(crate) const EVENTS_DROPPED: &str = "inver_events_dropped_total";

/// Time until an acknowledgement is committed.
const SETTLE: &str = "inver_messages_settle_seconds";

/// Metrics of one namespace, each with its help.
const COUNTERS: [(&str, &str); 17] = [
    (
        "inver_messages_published_total",
        "Messages published singly; record batches are counted by their protocol.",
    ),
    ("inver_messages_unroutable_total", "Messages published singly that had no receiver."),
    ("inver_messages_delivered_total", "Messages delivered to consumers of subscriptions."),
    ("inver_messages_acknowledged_total", "Messages acknowledged by consumers of subscriptions."),
    ("inver_messages_returned_total", "Messages that consumers requeued or rejected."),
    (
        "inver_messages_dead_lettered_total",
        "Messages that queues dropped and published to their dead-letter exchange.",
    ),
    (
        "inver_messages_dead_letters_refused_total",
        "Dead letters that a queue they were routed to refused because it was full, or that could not be published.",
    ),
    (
        "inver_messages_damaged_total",
        "Messages that subscriptions stepped over because the log is damaged where they are.",
    ),
    (
        "inver_subscriptions_unreadable_total",
        "Times that the consumers of a subscription were stopped because its next messages cannot be read.",
    ),
    ("inver_messages_spilled_total", "Messages that an in-memory queue spilled to the log."),
    (
        "inver_messages_dropped_total",
        "Messages dropped without a dead-letter exchange: expired, over a length or delivery limit, in a cycle of \
         dead-letter exchanges, or best-effort messages that a full in-memory queue refused.",
    ),
    (
        "inver_messages_capture_refused_total",
        "Messages whose capture rule names a topic that cannot be created: refused where the publisher waits for an \
         acknowledgement, else not captured.",
    ),
    (
        "inver_messages_capture_passed_on_total",
        "Messages whose capture rule names a topic that cannot be created, and that went to the next rule.",
    ),
    (
        "inver_messages_inbox_dropped_total",
        "Messages dropped since the inbox of their session was full; the log names the client.",
    ),
    ("inver_queues_declared_total", "Declarations of queues, of those that were there and of new ones."),
    ("inver_queues_created_total", "Queues created."),
    ("inver_queues_deleted_total", "Queues deleted."),
];

const GAUGES: [(&str, &str); 6] = [
    ("inver_topics", "Topics, including durable queues."),
    ("inver_queues", "Queues, durable and in memory."),
    ("inver_exchanges", "Exchanges, the predeclared ones included."),
    ("inver_subscriptions", "Named subscriptions of log topics."),
    ("inver_sessions", "Sessions, connected or not."),
    ("inver_retained_messages", "Addresses with a retained message."),
];

/// Handles of the metrics. All handles of one name count together.
pub(crate) struct Counters {
    pub(crate) published: Counter,
    pub(crate) unroutable: Counter,
    pub(crate) delivered: Counter,
    pub(crate) acknowledged: Counter,
    pub(crate) returned: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) dead_letters_refused: Counter,
    pub(crate) damaged: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) spilled: Counter,
    pub(crate) dropped: Counter,
    pub(crate) capture_refused: Counter,
    pub(crate) capture_passed_on: Counter,
    pub(crate) inbox_dropped: Counter,
    pub(crate) queues_declared: Counter,
    pub(crate) queues_created: Counter,
    pub(crate) queues_deleted: Counter,
    pub(crate) topics: Gauge,
    pub(crate) queues: Gauge,
    pub(crate) exchanges: Gauge,
    pub(crate) subscriptions: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) retained: Gauge,
    pub(crate) settle: Histogram,
}

impl Counters {
    /// The handles of a namespace.
    pub(crate) fn of(namespace: &str) -> Counters {
        describe();
        let [
            published,
            unroutable,
            delivered,
            acknowledged,
            returned,
            dead_lettered,
            dead_letters_refused,
            damaged,
            unreadable,
            spilled,
            dropped,
            capture_refused,
            capture_passed_on,
            inbox_dropped,
            declared,
            created,
            deleted,
        ] = COUNTERS.map(|(name, _)| counter!(name, "namespace" => namespace.to_owned()));
        let [topics, queues, exchanges, subscriptions, sessions, retained] =
            GAUGES.map(|(name, _)| gauge!(name, "namespace" => namespace.to_owned()));
        Counters {
            published,
            unroutable,
            delivered,
            acknowledged,
            returned,
            dead_lettered,
            dead_letters_refused,
            damaged,
            unreadable,
            spilled,
            dropped,
            capture_refused,
            capture_passed_on,
            inbox_dropped,
            queues_declared: declared,
            queues_created: created,
            queues_deleted: deleted,
            topics,
            queues,
            exchanges,
            subscriptions,
            sessions,
            retained,
            settle: histogram!(SETTLE, "namespace" => namespace.to_owned()),
        }
    }
}

fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(name, Unit::Count, help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(name, Unit::Count, help);
    }
    describe_histogram!(
        SETTLE,
        Unit::Seconds,
        "Time from the acknowledgement of messages by a consumer to its commit: of a sample, at most one a millisecond."
    );
    describe_counter!(
        LOGINS,
        Unit::Count,
        "Logins by protocol, result (accepted, refused) and the reason of a refusal."
    );
    describe_counter!(
        LINES_SUPPRESSED,
        Unit::Count,
        "Log lines about clients that were not written, to keep within the limits."
    );
    describe_counter!(AUDIT_EVENTS, Unit::Count, "Events of the audit log by event and result.");
    describe_counter!(
        AUDIT_DROPPED,
        Unit::Count,
        "Events of the audit log that are not in its topic: too many waited, or the write was rejected."
    );
    describe_counter!(
        EVENTS_DROPPED,
        Unit::Count,
        "Events of the exchange amq.rabbitmq.event that were not published: too many waited."
    );
}
