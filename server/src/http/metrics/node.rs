//! Values of the node that are read when they are asked for: disk, memory limit, queue depths.

use std::path::{Path, PathBuf};
use std::time::Duration;

use inver_broker::{Broker, Namespace, QueueMemory};
use inver_storage::{Share, Shortage};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::text::{Exposition, Kind};
use crate::memory::available_bytes;

/// Time for which the sums over all queues are not computed again.
const TOTALS_KEPT: Duration = Duration::from_secs(5);

/// What of the configuration is shown in metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct Monitored {
    /// Folder of the log.
    pub(crate) data_dir: PathBuf,
    /// `limits.connections_max`, as far as the open files allow.
    pub(crate) connections_max: usize,
    /// `log.commit_wait_max_ms`.
    pub(crate) commit_wait_max: Duration,
    /// `http.detailed_series_max`.
    pub(crate) series_max: usize,
}

/// Space of the file system that the data folder is on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Bytes that this process can still write.
    pub(crate) free_bytes: u64,
    /// Size of the file system.
    pub(crate) size_bytes: u64,
}

impl Disk {
    /// The space at a folder; none where the system does not say.
    pub(crate) fn at(folder: &Path) -> Option<Disk> {
        let stat = rustix::fs::statvfs(folder).ok()?;
        Some(Disk {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            size_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

/// Messages in all queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::http) struct Totals {
    pub(in crate::http) ready: u64,
    pub(in crate::http) unacked: u64,
    pub(in crate::http) consumers: u64,
    pub(in crate::http) memory: QueueMemory,
}

impl Totals {
    /// The sums over the queues of namespaces. Walks over all of them.
    pub(in crate::http) fn of(namespaces: &[Namespace]) -> Totals {
        let mut totals = Totals::default();
        for namespace in namespaces {
            let (depth, memory) = namespace.queue_totals();
            totals.ready += depth.ready;
            totals.unacked += depth.unacked;
            totals.consumers += depth.consumers as u64;
            totals.memory.waiting_bytes += memory.waiting_bytes;
            totals.memory.unacked_bytes += memory.unacked_bytes;
        }
        totals
    }
}

/// The sums over all queues, computed at most once every [`TOTALS_KEPT`].
#[derive(Debug, Default)]
pub(crate) struct CachedTotals(Mutex<Option<(Instant, Totals)>>);

impl CachedTotals {
    /// The sums. Walks over all queues: call where blocking is allowed.
    pub(in crate::http) fn get(&self, broker: &Broker) -> Totals {
        let now = broker.clock().now();
        let mut cached = self.0.lock();
        if let Some((at, totals)) = *cached
            && now.saturating_duration_since(at) < TOTALS_KEPT
        {
            return totals;
        }
        let totals = Totals::of(&broker.namespaces());
        *cached = Some((now, totals));
        totals
    }
}

/// Writes the values of the node.
pub(super) fn write(
    text: &mut Exposition,
    monitored: &Monitored,
    broker: &Broker,
    totals: Totals,
    ready: bool,
) {
    let version = env!("CARGO_PKG_VERSION");
    text.single("inver_build_info", Kind::Gauge, "The version that runs.", &[("version", version)], 1.0);
    let ready = if ready { 1.0 } else { 0.0 };
    text.single("inver_ready", Kind::Gauge, "1 while the broker accepts connections.", &[], ready);
    let max = monitored.connections_max as f64;
    text.single("inver_connections_max", Kind::Gauge, "Limit of client connections.", &[], max);
    if let Some(disk) = Disk::at(&monitored.data_dir) {
        let help = "Bytes that can still be written to the file system of the data folder.";
        text.single("inver_disk_free_bytes", Kind::Gauge, help, &[], disk.free_bytes as f64);
        let help = "Size of the file system of the data folder.";
        text.single("inver_disk_size_bytes", Kind::Gauge, help, &[], disk.size_bytes as f64);
    }
    if let Some((_, min)) = broker.log().free_bytes() {
        let help =
            "Free bytes of that file system below which publishers are held back (log.free_bytes_min).";
        text.single("inver_disk_free_min_bytes", Kind::Gauge, help, &[], min as f64);
    }
    let held = broker.log().gate();
    let help = "1 while publishers are held back because this is low.";
    text.family("inver_publishers_held_back", Kind::Gauge, help);
    for (what, shortage) in [("disk", Shortage::Disk), ("memory", Shortage::Memory)] {
        let is_short = if held.is_short(shortage) { 1.0 } else { 0.0 };
        text.sample("inver_publishers_held_back", &[("by", what)], is_short);
    }
    write_memory_limits(text, broker);
    write_memory(text, broker, totals.memory);
    let log = broker.log().stats();
    let help = "Entries submitted to the log and not yet committed.";
    text.single("inver_log_queued_entries", Kind::Gauge, help, &[], log.queued_entries as f64);
    let help = "Bytes submitted to the log and not yet committed.";
    text.single("inver_log_queued_bytes", Kind::Gauge, help, &[], log.queued_bytes as f64);
    let wait = broker.log().oldest_wait().as_secs_f64();
    let help = "Time for which the oldest entry that is not committed has waited.";
    text.single("inver_log_oldest_wait_seconds", Kind::Gauge, help, &[], wait);
    let help = "Messages in all queues that can be delivered.";
    text.single("inver_queue_messages_ready", Kind::Gauge, help, &[], totals.ready as f64);
    let help = "Messages of all queues that are delivered and not acknowledged.";
    text.single("inver_queue_messages_unacked", Kind::Gauge, help, &[], totals.unacked as f64);
}

/// Writes the memory that may be used: by the process, for clients in sum, and by each share that has a part of that.
fn write_memory_limits(text: &mut Exposition, broker: &Broker) {
    const NAME: &str = "inver_memory_limit_bytes";
    let help = "Memory that may be used: of the control group or machine (process), memory.limit (clients), and a share's part of that.";
    text.family(NAME, Kind::Gauge, help);
    if let Some(bytes) = available_bytes() {
        text.sample(NAME, &[("share", "process")], bytes as f64);
    }
    let memory = broker.log().memory();
    let (_, limit) = memory.total();
    if limit == usize::MAX {
        return;
    }
    text.sample(NAME, &[("share", "clients")], limit as f64);
    for share in Share::ALL {
        text.sample(NAME, &[("share", share.name())], memory.limit(share) as f64);
    }
}

/// Writes the memory that is accounted for, by share. The rest of the process' memory is objects and buffers of single
/// connections, topics and sessions, and what the allocator keeps.
fn write_memory(text: &mut Exposition, broker: &Broker, queues: QueueMemory) {
    const NAME: &str = "inver_memory_used_bytes";
    let (log, memory) = (broker.log().stats(), broker.log().memory());
    let retained = broker.namespaces().iter().map(|namespace| namespace.retained().bytes()).sum();
    let own = [
        ("log_queue", log.queued_bytes),
        ("tail_cache", log.tail_cache_bytes),
        ("index_cache", log.index_cache_bytes),
        ("read_buffers", log.idle_read_buffer_bytes),
        ("in_flight", queues.unacked_bytes),
        ("retained", retained),
    ];
    let held = Share::ALL.map(|share| {
        let bytes = memory.used(share) as u64;
        // The account knows sessions too, but no queue of less than one of its steps.
        let bytes = if share == Share::Queues { bytes.max(queues.waiting_bytes) } else { bytes };
        (share.name(), bytes)
    });
    text.family(NAME, Kind::Gauge, "Memory in use, by share; of what is accounted for.");
    for (share, bytes) in held.into_iter().chain(own).chain(broker.memory_shares()) {
        text.sample(NAME, &[("share", share)], bytes as f64);
    }
}
