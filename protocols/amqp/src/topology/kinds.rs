//! The types of queues, and the arguments that each of them has. Texts and lists are those of RabbitMQ 4.0.

use inver_broker::{Arguments, Value};

use crate::error::Refusal;

/// The argument with a queue's type.
pub(super) const QUEUE_TYPE: &str = "x-queue-type";

/// A type of queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueKind {
    Classic,
    Quorum,
    Stream,
}

/// The arguments that RabbitMQ knows, and the types that have them: classic, quorum, stream.
const KNOWN: [(&str, [bool; 3]); 24] = [
    ("x-expires", [true, true, false]),
    ("x-message-ttl", [true, true, false]),
    ("x-dead-letter-exchange", [true, true, false]),
    ("x-dead-letter-routing-key", [true, true, false]),
    ("x-dead-letter-strategy", [false, true, false]),
    ("x-max-length", [true, true, false]),
    ("x-max-length-bytes", [true, true, true]),
    ("x-max-in-memory-length", [false, true, false]),
    ("x-max-in-memory-bytes", [false, true, false]),
    ("x-max-priority", [true, false, false]),
    ("x-overflow", [true, true, false]),
    ("x-queue-mode", [true, false, false]),
    ("x-queue-version", [true, false, false]),
    ("x-single-active-consumer", [true, true, false]),
    // RabbitMQ refuses it for classic queues; here it holds for them too.
    ("x-delivery-limit", [true, true, false]),
    ("x-quorum-initial-group-size", [false, true, false]),
    ("x-quorum-target-group-size", [false, true, false]),
    ("x-max-age", [false, false, true]),
    ("x-stream-max-segment-size-bytes", [false, false, true]),
    ("x-stream-filter-size-bytes", [false, false, true]),
    ("x-initial-cluster-size", [false, false, true]),
    ("x-queue-leader-locator", [true, true, true]),
    ("x-queue-master-locator", [true, false, false]),
    (QUEUE_TYPE, [true, true, true]),
];

impl QueueKind {
    /// The type that arguments ask for.
    pub(super) fn of(arguments: &Arguments) -> Option<QueueKind> {
        match arguments.get(QUEUE_TYPE).map_or(Some("classic"), Value::as_str)? {
            "classic" => Some(QueueKind::Classic),
            "quorum" => Some(QueueKind::Quorum),
            "stream" => Some(QueueKind::Stream),
            _ => None,
        }
    }

    /// Its name in `x-queue-type`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            QueueKind::Classic => "classic",
            QueueKind::Quorum => "quorum",
            QueueKind::Stream => "stream",
        }
    }

    /// Refuses arguments that another type has and this one does not; unknown ones are ignored.
    pub(super) fn check_names(self, arguments: &Arguments, what: &str) -> Result<(), Refusal> {
        let foreign = |(name, kinds): &&(&str, [bool; 3])| {
            let [classic, quorum, stream] = *kinds;
            let has = match self {
                QueueKind::Classic => classic,
                QueueKind::Quorum => quorum,
                QueueKind::Stream => stream,
            };
            !has && arguments.contains_key(*name)
        };
        match KNOWN.iter().find(foreign) {
            None => Ok(()),
            Some((name, _)) => Err(self.has_no(name, what)),
        }
    }

    /// The refusal of an argument that queues of this type do not have.
    pub(crate) fn has_no(self, name: &str, what: &str) -> Refusal {
        let kind = match self {
            QueueKind::Classic => "rabbit_classic_queue",
            QueueKind::Quorum => "rabbit_quorum_queue",
            QueueKind::Stream => "rabbit_stream_queue",
        };
        Refusal::precondition_failed(format_args!("invalid arg '{name}' for {what} of queue type {kind}"))
    }

    /// Checks that a queue whose messages RabbitMQ replicates is durable, not exclusive and not auto-delete.
    pub(super) fn check_properties(
        self,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        what: &str,
    ) -> Result<(), Refusal> {
        if self == QueueKind::Classic {
            return Ok(());
        }
        let wrong = [(auto_delete, "auto-delete"), (exclusive, "exclusive-owner"), (!durable, "non-durable")];
        match wrong.iter().find(|(is_so, _)| *is_so) {
            Some((_, property)) => {
                Err(Refusal::precondition_failed(format_args!("invalid property '{property}' for {what}")))
            }
            None => Ok(()),
        }
    }
}
