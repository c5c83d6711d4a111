//! Metrics of single objects: queues, partitions, consumer groups. Asked for by family and name, and bounded.

use std::sync::Arc;

use inver_broker::{Broker, Namespace, Queue, Topic};
use inver_storage::{Read, StoredBatch};

use super::text::{Exposition, Kind, Labels};

/// The families that can be asked for, beside those of RabbitMQ's names.
pub(super) const FAMILIES: [&str; 4] = ["queues", "partitions", "groups", "ages"];

/// Bytes of the oldest batch of a partition that are read to find its time.
const BATCH_BYTES: usize = 1;

/// Where the timestamp of the first record is in a record batch.
const TIMESTAMP_AT: usize = 27;

/// Which objects are asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// The namespace; none: all.
    pub(super) namespace: Option<String>,
    /// The name of a topic, queue or group, or its beginning and `*`; none: all.
    pub(super) name: Option<String>,
}

impl Wanted {
    fn namespaces(&self, broker: &Broker) -> Vec<Namespace> {
        let mut all = broker.namespaces();
        all.retain(|namespace| self.namespace.as_deref().is_none_or(|name| name == namespace.name()));
        all
    }

    fn has(&self, name: &str) -> bool {
        match self.name.as_deref() {
            None => true,
            Some(wanted) => match wanted.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => name == wanted,
            },
        }
    }

    fn queues(&self, broker: &Broker) -> Vec<(Namespace, Arc<Queue>)> {
        let mut found = Vec::new();
        for namespace in self.namespaces(broker) {
            let queues = namespace.queues().into_iter().filter(|queue| self.has(queue.name()));
            found.extend(queues.map(|queue| (namespace.clone(), queue)));
        }
        found
    }

    fn topics(&self, broker: &Broker) -> Vec<(Namespace, Arc<Topic>)> {
        let mut found = Vec::new();
        for namespace in self.namespaces(broker) {
            let topics = namespace.topics().into_iter().filter(|topic| self.has(topic.name()));
            found.extend(topics.map(|topic| (namespace.clone(), topic)));
        }
        found
    }
}

/// A text of at most so many series.
pub(super) struct Bounded<'a> {
    text: &'a mut Exposition,
    left: usize,
    omitted: u64,
}

/// A family of series and their values.
struct Column<'a, T> {
    name: &'a str,
    kind: Kind,
    help: &'a str,
    value: &'a dyn Fn(&T) -> f64,
}

impl<'a> Bounded<'a> {
    pub(super) fn new(text: &'a mut Exposition, series_max: usize) -> Bounded<'a> {
        Bounded { text, left: series_max, omitted: 0 }
    }

    /// Writes a family for each column, with a series for each row while there is room.
    fn table<T>(
        &mut self,
        rows: &[T],
        labels: &dyn Fn(&T) -> Vec<(&'static str, String)>,
        columns: &[Column<'_, T>],
    ) {
        let shown = rows.len().min(self.left / columns.len().max(1));
        self.left -= shown * columns.len();
        self.omitted += (rows.len() - shown) as u64;
        for column in columns {
            self.text.family(column.name, column.kind, column.help);
            for row in rows.iter().take(shown) {
                let labels = labels(row);
                let labels: Vec<(&str, &str)> =
                    labels.iter().map(|(name, text)| (*name, text.as_str())).collect();
                self.text.sample(column.name, &labels, (column.value)(row));
            }
        }
    }

    /// Says how many objects found no room.
    pub(super) fn finish(self) {
        let help = "Objects left out of this answer, to keep within http.detailed_series_max.";
        let labels: Labels<'_> = &[];
        self.text.single("inver_detailed_omitted", Kind::Gauge, help, labels, self.omitted as f64);
    }
}

/// Writes one of [`FAMILIES`]. Can read from disk: call where blocking is allowed.
pub(super) fn write(family: &str, text: &mut Bounded<'_>, wanted: &Wanted, broker: &Broker) {
    match family {
        "queues" => queues(text, wanted, broker),
        "partitions" => partitions(text, wanted, broker),
        "groups" => groups(text, wanted, broker),
        "ages" => ages(text, wanted, broker),
        _ => {}
    }
}

fn queues(text: &mut Bounded<'_>, wanted: &Wanted, broker: &Broker) {
    let rows = wanted.queues(broker);
    let labels = |(namespace, queue): &(Namespace, Arc<Queue>)| {
        vec![("namespace", namespace.name().to_owned()), ("queue", queue.name().to_owned())]
    };
    let column = |name, help, value| Column { name, kind: Kind::Gauge, help, value };
    type Row = (Namespace, Arc<Queue>);
    text.table(
        &rows,
        &labels,
        &[
            column("inver_detailed_queue_messages_ready", "Messages that can be delivered.", &|row: &Row| {
                row.1.depth().ready as f64
            }),
            column(
                "inver_detailed_queue_messages_unacked",
                "Messages delivered and not acknowledged.",
                &|row: &Row| row.1.depth().unacked as f64,
            ),
            column("inver_detailed_queue_consumers", "Consumers attached.", &|row: &Row| {
                row.1.depth().consumers as f64
            }),
        ],
    );
}

/// RabbitMQ's names for queues, as on `/metrics/per-object` (`prefix` `rabbitmq_`) and `/metrics/detailed`.
pub(super) fn rabbitmq_queues(prefix: &str, text: &mut Bounded<'_>, wanted: &Wanted, broker: &Broker) {
    type Row = (Namespace, Arc<Queue>);
    let rows = wanted.queues(broker);
    let labels = |(namespace, queue): &Row| {
        vec![("vhost", namespace.name().to_owned()), ("queue", queue.name().to_owned())]
    };
    let name = |name: &str| format!("{prefix}{name}");
    let (ready, unacked, all, consumers) = (
        name("queue_messages_ready"),
        name("queue_messages_unacked"),
        name("queue_messages"),
        name("queue_consumers"),
    );
    let column = |name, help, value| Column { name, kind: Kind::Gauge, help, value };
    text.table(
        &rows,
        &labels,
        &[
            column(&ready, "Messages ready to be delivered to consumers", &|row: &Row| {
                row.1.depth().ready as f64
            }),
            column(&unacked, "Messages delivered to consumers but not yet acknowledged", &|row: &Row| {
                row.1.depth().unacked as f64
            }),
            column(&all, "Sum of ready and unacknowledged messages", &|row: &Row| {
                let depth = row.1.depth();
                (depth.ready + depth.unacked) as f64
            }),
            column(&consumers, "Consumers on a queue", &|row: &Row| row.1.depth().consumers as f64),
        ],
    );
}

/// One partition.
struct PartitionRow {
    namespace: Namespace,
    topic: Arc<Topic>,
    index: u32,
    start: u64,
    end: u64,
    bytes: u64,
}

impl PartitionRow {
    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![
            ("namespace", self.namespace.name().to_owned()),
            ("topic", self.topic.name().to_owned()),
            ("partition", self.index.to_string()),
        ]
    }

    fn all(wanted: &Wanted, broker: &Broker) -> Vec<PartitionRow> {
        let mut rows = Vec::new();
        for (namespace, topic) in wanted.topics(broker) {
            rows.extend(topic.partitions().iter().map(|partition| PartitionRow {
                namespace: namespace.clone(),
                topic: topic.clone(),
                index: partition.index(),
                start: partition.stream().start().0,
                end: partition.stream().high_watermark().0,
                bytes: partition.stream().bytes(),
            }));
        }
        rows
    }
}

fn partitions(text: &mut Bounded<'_>, wanted: &Wanted, broker: &Broker) {
    let column = |name, kind, help, value| Column { name, kind, help, value };
    text.table(
        &PartitionRow::all(wanted, broker),
        &PartitionRow::labels,
        &[
            column(
                "inver_detailed_partition_end_offset_total",
                Kind::Counter,
                "High watermark: its rate is that of the messages appended.",
                &|row: &PartitionRow| row.end as f64,
            ),
            column(
                "inver_detailed_partition_start_offset",
                Kind::Gauge,
                "Offset of the first record kept.",
                &|row: &PartitionRow| row.start as f64,
            ),
            column("inver_detailed_partition_bytes", Kind::Gauge, "Bytes kept.", &|row: &PartitionRow| {
                row.bytes as f64
            }),
        ],
    );
}

/// A committed offset.
struct GroupRow {
    namespace: String,
    group: String,
    topic: String,
    partition: u32,
    offset: i64,
    lag: u64,
}

fn groups(text: &mut Bounded<'_>, wanted: &Wanted, broker: &Broker) {
    let mut rows = Vec::new();
    for namespace in wanted.namespaces(broker) {
        let offsets = namespace.committed_offsets();
        for group in offsets.groups().into_iter().filter(|group| wanted.has(group)) {
            for (topic, partition, committed) in offsets.of_group(&group) {
                let end = namespace.topic(&topic).and_then(|topic| topic.partition(partition));
                let end = end.map_or(0, |partition| partition.stream().high_watermark().0);
                let lag = end.saturating_sub(u64::try_from(committed.offset).unwrap_or(0));
                let (namespace, group) = (namespace.name().to_owned(), group.clone());
                rows.push(GroupRow { namespace, group, topic, partition, offset: committed.offset, lag });
            }
        }
    }
    let labels = |row: &GroupRow| {
        vec![
            ("namespace", row.namespace.clone()),
            ("group", row.group.clone()),
            ("topic", row.topic.clone()),
            ("partition", row.partition.to_string()),
        ]
    };
    let column = |name, kind, help, value| Column { name, kind, help, value };
    text.table(
        &rows,
        &labels,
        &[
            column(
                "inver_detailed_group_committed_offset",
                Kind::Gauge,
                "Next offset that the group consumes.",
                &|row: &GroupRow| row.offset as f64,
            ),
            column(
                "inver_detailed_group_lag",
                Kind::Gauge,
                "High watermark minus committed offset.",
                &|row: &GroupRow| row.lag as f64,
            ),
        ],
    );
}

fn ages(text: &mut Bounded<'_>, wanted: &Wanted, broker: &Broker) {
    let mut rows: Vec<PartitionRow> = PartitionRow::all(wanted, broker);
    rows.retain(|row| row.end > row.start);
    let value = |row: &PartitionRow| {
        let partition = row.topic.partition(row.index);
        let oldest = partition.and_then(|partition| {
            let batches = match partition.stream().read(partition.stream().start(), BATCH_BYTES).ok()? {
                Read::Ready(batches) => batches,
                Read::Empty => return None,
                Read::Cold(cold) => cold.run().ok()?,
            };
            timestamp_ms(batches.first()?)
        });
        oldest.map_or(f64::NAN, |milliseconds| milliseconds as f64 / 1000.0)
    };
    let column = Column {
        name: "inver_detailed_partition_oldest_timestamp_seconds",
        kind: Kind::Gauge,
        help: "Time of the first message of the oldest batch kept, seconds since 1970.",
        value: &value,
    };
    text.table(&rows, &PartitionRow::labels, &[column]);
}

fn timestamp_ms(batch: &StoredBatch) -> Option<i64> {
    batch.bytes.get(TIMESTAMP_AT..)?.first_chunk().map(|bytes| i64::from_be_bytes(*bytes))
}
