//! The metrics of RabbitMQ, by its names, so that its dashboards and alerts can be used.
//!
//! The values are this broker's: connections, publishers and consumers of all protocols, each labelled with its protocol.
//! Names and labels are those of `rabbitmq_prometheus` 4.

use super::node::{Disk, Monitored, Totals};
use super::text::{Exposition, Kind, Samples};
use crate::memory::available_bytes;

/// The protocols, as they are named here and by RabbitMQ.
const PROTOCOLS: [(&str, &str); 4] =
    [("amqp", "amqp091"), ("stream", "stream"), ("mqtt", "mqtt"), ("kafka", "kafka")];

/// Upper bounds of the buckets of message sizes: as the recorder writes them, and as Prometheus writes them.
const SIZES: [(&str, &str); 9] = [
    ("100", "100.0"),
    ("1000", "1000.0"),
    ("10000", "10000.0"),
    ("100000", "100000.0"),
    ("1000000", "1e+06"),
    ("10000000", "1e+07"),
    ("50000000", "5e+07"),
    ("100000000", "1e+08"),
    ("+Inf", "+Inf"),
];

/// A counter by protocol: its name, the counters that it is the sum of, with their labels, and its help.
type Global =
    (&'static str, &'static [(&'static str, &'static [(&'static str, &'static str)])], &'static str);

const SENT: &str = "inver_protocol_messages_sent_total";
const UNROUTABLE: &str = "inver_protocol_messages_unroutable_total";

#[rustfmt::skip]
const GLOBALS: [Global; 14] = [
    ("received", &[("inver_protocol_messages_received_total", &[])], "Messages received from publishers"),
    ("received_confirm", &[("inver_protocol_messages_to_confirm_total", &[])], "Messages received from publishers expecting confirmations"),
    ("confirmed", &[("inver_protocol_messages_confirmed_total", &[])], "Messages confirmed to publishers"),
    ("routed", &[("inver_protocol_messages_routed_total", &[])], "Messages routed to at least one queue, session or topic"),
    ("unroutable_dropped", &[(UNROUTABLE, &[("action", "dropped")])], "Messages published as non-mandatory that had no receiver and were dropped"),
    ("unroutable_returned", &[(UNROUTABLE, &[("action", "returned")])], "Messages published as mandatory that had no receiver and were returned"),
    ("delivered", &[(SENT, &[])], "Messages delivered to consumers"),
    ("delivered_consume_auto_ack", &[(SENT, &[("by", "consume"), ("ack", "auto")])], "Messages delivered to consumers using automatic acknowledgement"),
    ("delivered_consume_manual_ack", &[(SENT, &[("by", "consume"), ("ack", "manual")])], "Messages delivered to consumers using manual acknowledgement"),
    ("delivered_get_auto_ack", &[(SENT, &[("by", "get"), ("ack", "auto")])], "Messages fetched with basic.get in automatic acknowledgement mode"),
    ("delivered_get_manual_ack", &[(SENT, &[("by", "get"), ("ack", "manual")])], "Messages fetched with basic.get in manual acknowledgement mode"),
    ("get_empty", &[("inver_protocol_gets_empty_total", &[])], "Times basic.get operations fetched no message"),
    ("redelivered", &[("inver_protocol_messages_redelivered_total", &[])], "Messages redelivered to consumers"),
    ("acknowledged", &[("inver_protocol_messages_acknowledged_total", &[])], "Messages acknowledged by consumers"),
];

/// What the values are taken from.
pub(super) struct Source<'a> {
    pub(super) monitored: &'a Monitored,
    /// Free bytes of the disk below which publishers are held back.
    pub(super) disk_free_min: u64,
    pub(super) samples: &'a Samples<'a>,
    pub(super) totals: Totals,
    pub(super) uptime_s: f64,
    /// The path that is asked for: `aggregated`, `per-object` or `detailed`.
    pub(super) endpoint: &'static str,
}

/// Writes who and what this node is.
pub(super) fn write_identity(text: &mut Exposition, source: &Source<'_>) {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node = format!("inver@{host}");
    let labels = [
        ("rabbitmq_node", node.as_str()),
        ("rabbitmq_cluster", node.as_str()),
        ("rabbitmq_cluster_permanent_id", node.as_str()),
        ("rabbitmq_endpoint", source.endpoint),
    ];
    text.single("rabbitmq_identity_info", Kind::Gauge, "Node and cluster identity info", &labels, 1.0);
    let version = env!("CARGO_PKG_VERSION");
    let labels = [
        ("rabbitmq_version", version),
        ("prometheus_plugin_version", version),
        ("prometheus_client_version", version),
        ("erlang_version", "none"),
        ("product_name", "Inver"),
        ("product_version", version),
    ];
    text.single("rabbitmq_build_info", Kind::Gauge, "The version that runs", &labels, 1.0);
}

/// Writes the values of the node, without those of single objects.
pub(super) fn write(text: &mut Exposition, source: &Source<'_>) {
    write_without_queues(text, source);
    write_queues(text, source.totals);
}

/// As [`write()`], without the sums over all queues.
pub(super) fn write_without_queues(text: &mut Exposition, source: &Source<'_>) {
    write_identity(text, source);
    write_globals(text, source.samples);
    write_sizes(text, source.samples);
    write_churn(text, source);
    write_node(text, source);
}

fn write_globals(text: &mut Exposition, samples: &Samples<'_>) {
    for (name, parts, help) in GLOBALS {
        let name = format!("rabbitmq_global_messages_{name}_total");
        text.family(&name, Kind::Counter, help);
        for (own, protocol) in PROTOCOLS {
            let of = |(counter, labels): &(&str, &[(&str, &str)])| {
                let labels: Vec<_> = labels.iter().copied().chain([("protocol", own)]).collect();
                samples.sum(counter, &labels)
            };
            text.sample(&name, &[("protocol", protocol)], parts.iter().map(of).sum());
        }
    }
    for (name, own_name, help) in [
        ("rabbitmq_global_publishers", "inver_protocol_publishers", "Publishers currently connected"),
        ("rabbitmq_global_consumers", "inver_protocol_consumers", "Consumers currently connected"),
    ] {
        text.family(name, Kind::Gauge, help);
        for (own, protocol) in PROTOCOLS {
            text.sample(name, &[("protocol", protocol)], samples.sum(own_name, &[("protocol", own)]));
        }
    }
}

fn write_sizes(text: &mut Exposition, samples: &Samples<'_>) {
    text.family("rabbitmq_message_size_bytes", Kind::Histogram, "Size of messages received from publishers");
    let own_name = "inver_protocol_message_bytes";
    for (own, protocol) in PROTOCOLS {
        for (own_bound, bound) in SIZES {
            let labels = [("protocol", own), ("le", own_bound)];
            let value = samples.sum(&format!("{own_name}_bucket"), &labels);
            text.sample(
                "rabbitmq_message_size_bytes_bucket",
                &[("protocol", protocol), ("le", bound)],
                value,
            );
        }
        for part in ["sum", "count"] {
            let value = samples.sum(&format!("{own_name}_{part}"), &[("protocol", own)]);
            text.sample(&format!("rabbitmq_message_size_bytes_{part}"), &[("protocol", protocol)], value);
        }
    }
}

fn write_churn(text: &mut Exposition, source: &Source<'_>) {
    let samples = source.samples;
    let by_clients =
        |name: &str| PROTOCOLS.iter().map(|(own, _)| samples.sum(name, &[("protocol", own)])).sum::<f64>();
    let opened = samples.sum("inver_protocol_channels_opened_total", &[]);
    let closed = samples.sum("inver_protocol_channels_closed_total", &[]);
    let accepted = by_clients("inver_connections_accepted_total");
    for (name, kind, help, value) in [
        ("rabbitmq_connections", Kind::Gauge, "Connections currently open", by_clients("inver_connections")),
        ("rabbitmq_connections_opened_total", Kind::Counter, "Total number of connections opened", accepted),
        (
            "rabbitmq_connections_closed_total",
            Kind::Counter,
            "Total number of connections closed or terminated",
            by_clients("inver_connections_closed_total"),
        ),
        ("rabbitmq_channels", Kind::Gauge, "Channels currently open", opened - closed),
        ("rabbitmq_channels_opened_total", Kind::Counter, "Total number of channels opened", opened),
        ("rabbitmq_channels_closed_total", Kind::Counter, "Total number of channels closed", closed),
        ("rabbitmq_queues", Kind::Gauge, "Queues available", samples.sum("inver_queues", &[])),
        (
            "rabbitmq_queues_declared_total",
            Kind::Counter,
            "Total number of queues declared",
            samples.sum("inver_queues_declared_total", &[]),
        ),
        (
            "rabbitmq_queues_created_total",
            Kind::Counter,
            "Total number of queues created",
            samples.sum("inver_queues_created_total", &[]),
        ),
        (
            "rabbitmq_queues_deleted_total",
            Kind::Counter,
            "Total number of queues deleted",
            samples.sum("inver_queues_deleted_total", &[]),
        ),
        ("rabbitmq_consumers", Kind::Gauge, "Consumers currently connected", source.totals.consumers as f64),
    ] {
        text.single(name, kind, help, &[], value);
    }
}

fn write_queues(text: &mut Exposition, totals: Totals) {
    let all = totals.ready + totals.unacked;
    for (name, help, value) in [
        ("rabbitmq_queue_messages_ready", "Messages ready to be delivered to consumers", totals.ready),
        (
            "rabbitmq_queue_messages_unacked",
            "Messages delivered to consumers but not yet acknowledged",
            totals.unacked,
        ),
        ("rabbitmq_queue_messages", "Sum of ready and unacknowledged messages", all),
        ("rabbitmq_queue_consumers", "Consumers on queues", totals.consumers),
    ] {
        text.single(name, Kind::Gauge, help, &[], value as f64);
    }
}

fn write_node(text: &mut Exposition, source: &Source<'_>) {
    let samples = source.samples;
    let disk = Disk::at(&source.monitored.data_dir).unwrap_or_default();
    let memory_max = available_bytes().unwrap_or_default();
    for (name, help, value) in [
        ("rabbitmq_process_open_fds", "Open file descriptors", samples.sum("process_open_fds", &[])),
        ("rabbitmq_process_max_fds", "Open file descriptors limit", samples.sum("process_max_fds", &[])),
        (
            "rabbitmq_process_resident_memory_bytes",
            "Memory used in bytes",
            samples.sum("process_resident_memory_bytes", &[]),
        ),
        ("rabbitmq_resident_memory_limit_bytes", "Memory limit of the process in bytes", memory_max as f64),
        ("rabbitmq_disk_space_available_bytes", "Disk space available in bytes", disk.free_bytes as f64),
        (
            "rabbitmq_disk_space_available_limit_bytes",
            "Free disk space below which the alarm disk_low is raised, in bytes",
            source.disk_free_min as f64,
        ),
        ("rabbitmq_erlang_uptime_seconds", "Node uptime", source.uptime_s),
    ] {
        text.single(name, Kind::Gauge, help, &[], value);
    }
    let alarm = |name: &str| samples.sum("inver_alarm", &[("alarm", name)]);
    for (name, help, value) in [
        (
            "rabbitmq_alarms_file_descriptor_limit",
            "is 1 if file descriptor limit alarm is in effect",
            alarm("files_low"),
        ),
        (
            "rabbitmq_alarms_free_disk_space_watermark",
            "is 1 if free disk space watermark alarm is in effect",
            alarm("disk_low"),
        ),
        (
            "rabbitmq_alarms_memory_used_watermark",
            "is 1 if VM memory watermark alarm is in effect",
            alarm("memory_high"),
        ),
    ] {
        text.single(name, Kind::Gauge, help, &[], value);
    }
}
