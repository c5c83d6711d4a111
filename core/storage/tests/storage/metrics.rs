//! Statistics and published metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::shorthand::*;
use inver_storage::medium::Files;
use inver_storage::{Entry, Log, Offset, SystemClock};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use parking_lot::Mutex;

/// A recorder that keeps the sum and number of samples of each metric, and which are described.
#[derive(Default)]
struct Recording {
    metrics: Mutex<BTreeMap<String, Arc<Metric>>>,
    described: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Metric {
    samples: AtomicU64,
    last: AtomicU64,
}

impl Recording {
    fn metric(&self, key: &Key) -> Arc<Metric> {
        self.metrics.lock().entry(key.name().to_owned()).or_default().clone()
    }

    fn samples(&self, name: &str) -> u64 {
        self.metrics.lock()[name].samples.load(Ordering::Relaxed)
    }

    fn last(&self, name: &str) -> u64 {
        self.metrics.lock()[name].last.load(Ordering::Relaxed)
    }

    fn describe(&self, name: &KeyName) {
        self.described.lock().push(name.as_str().to_owned());
    }
}

impl Metric {
    fn set(&self, value: f64) {
        self.samples.fetch_add(1, Ordering::Relaxed);
        self.last.store(value as u64, Ordering::Relaxed);
    }
}

impl HistogramFn for Metric {
    fn record(&self, value: f64) {
        self.set(value);
    }
}

impl GaugeFn for Metric {
    fn increment(&self, _: f64) {}

    fn decrement(&self, _: f64) {}

    fn set(&self, value: f64) {
        Metric::set(self, value);
    }
}

impl CounterFn for Metric {
    fn increment(&self, value: u64) {
        self.samples.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, _: u64) {}
}

impl Recorder for Recording {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.metric(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.metric(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.metric(key))
    }
}

#[test]
fn groups_syncs_and_sizes_are_published_once_per_group_or_pass() {
    let dir = tempfile::tempdir().unwrap();
    let recording = Recording::default();
    let log = metrics::with_local_recorder(&recording, || {
        let medium = Arc::new(Files::new(dir.path()).unwrap());
        Log::open_manual(medium, Arc::new(SystemClock), small()).unwrap()
    });
    let stream = create_stream(&log);
    let groups = log.stats().groups;
    for _ in 0..5 {
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), batch(&[b"value"]));
        log.submit(entry).unwrap();
    }
    assert!(log.step_writer().unwrap());
    let stats = log.stats();
    assert_eq!(stats.groups, groups + 1);
    for name in ["commit_seconds", "group_entries", "group_bytes", "queue_entries"] {
        assert_eq!(recording.samples(&format!("inver_log_{name}")), stats.groups, "{name}");
    }
    assert_eq!(recording.samples("inver_log_sync_seconds"), stats.syncs);
    assert_eq!(
        (recording.last("inver_log_group_entries"), recording.last("inver_log_queue_entries")),
        (5, 5)
    );
    assert_eq!(recording.samples("inver_log_entries_total"), stats.entries);
    assert_eq!(recording.samples("inver_log_bytes_total"), stats.bytes);
    log.step_maintenance().unwrap();
    assert_eq!((recording.last("inver_log_segments"), recording.last("inver_log_streams")), (1, 1));
    assert_eq!(recording.last("inver_log_disk_bytes"), log.stats().disk_bytes);
    let described = recording.described.lock();
    assert!(recording.metrics.lock().keys().all(|name| described.contains(name)), "{described:?}");
}

#[test]
fn sizes_match_the_files_and_removed_files_count_as_reclaimed() {
    let dir = tempfile::tempdir().unwrap();
    let disk_bytes = || -> u64 {
        let files = std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        let segments = files.filter(|file| file.file_name().to_string_lossy().ends_with(".seg"));
        segments.map(|file| file.metadata().unwrap().len()).sum()
    };
    let open = || {
        let medium = Arc::new(Files::new(dir.path()).unwrap());
        Log::open_manual(medium, Arc::new(SystemClock), small()).unwrap()
    };
    let log = open();
    let stream = create_stream(&log);
    for _ in 0..200 {
        append(&log, std::slice::from_ref(&stream), &[&[1; 500]]);
    }
    log.checkpoint().unwrap();
    assert!(log.stats().checkpoint_age.as_secs() < 60);
    assert_eq!(log.stats().disk_bytes, disk_bytes());
    log.shutdown().unwrap();
    let log = open();
    let before = log.stats();
    assert_eq!(before.disk_bytes, disk_bytes());
    let mut entry = Entry::new();
    entry.trim(&log.stream(stream.id()).unwrap(), Offset(200));
    commit(&log, entry);
    log.checkpoint().unwrap();
    let after = log.stats();
    assert!(after.reclaimed_segments > 4, "{after:?}");
    assert_eq!(after.disk_bytes, disk_bytes());
    assert_eq!(after.reclaimed_bytes, before.disk_bytes - after.disk_bytes);
}
