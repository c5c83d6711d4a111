//! Times of compaction, which are the log's: those of records do not matter.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use inver_storage::medium::Files;
use inver_storage::{
    Batch, BatchBuilder, Compaction, Compression, Entry, Log, LogOptions, ProducerStamp, Stream, records,
};

use crate::shorthand::*;
use crate::simulator::SimulatedClock;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A quiet log with segments of the default size, and a stream that is compacted.
struct Fixture {
    dir: tempfile::TempDir,
    clock: Arc<SimulatedClock>,
    log: Log,
    stream: Stream,
}

fn open(dir: &Path, clock: &Arc<SimulatedClock>) -> Log {
    Log::open_manual(Arc::new(Files::new(dir).unwrap()), clock.clone(), LogOptions::default()).unwrap()
}

impl Fixture {
    fn new(policy: Compaction) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimulatedClock(AtomicI64::new(1_700_000_000_000)));
        let log = open(dir.path(), &clock);
        let stream = create_stream(&log);
        let mut entry = Entry::new();
        entry.set_compaction(stream.id(), Some(policy));
        commit(&log, entry);
        Self { dir, clock, log, stream }
    }

    /// Appends a record, of this age by its own timestamp.
    fn append(&self, key: &str, value: Option<&str>, age: Duration) {
        let mut builder = BatchBuilder::new(64);
        let timestamp_ms = self.clock.0.load(Ordering::SeqCst) - age.as_millis() as i64;
        builder.push(timestamp_ms, Some(key.as_bytes()), &[], value.map(str::as_bytes));
        self.append_batch(builder.finish());
    }

    fn append_batch(&self, batch: Batch) {
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&self.stream), batch);
        commit(&self.log, entry);
    }

    /// Time passes, and maintenance runs every minute.
    fn pass(&self, time: Duration) {
        for _ in 0..time.as_secs() / 60 {
            self.clock.0.fetch_add(60_000, Ordering::SeqCst);
            self.maintain();
        }
    }

    fn maintain(&self) {
        // A segment that one pass closes is sealed and compacted by the next.
        (0..3).for_each(|_| self.log.step_maintenance().unwrap());
    }

    fn restart(self) -> Self {
        let Self { dir, clock, log, stream } = self;
        log.shutdown().unwrap();
        drop(log);
        let log = open(dir.path(), &clock);
        let stream = log.stream(stream.id()).unwrap();
        Self { dir, clock, log, stream }
    }

    /// The records, as text: a tombstone ends with `-`.
    fn rows(&self) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut rows = Vec::new();
        let mut next = self.stream.start().0;
        loop {
            let batches = read_once(&self.stream, next, 1 << 20).unwrap();
            if batches.is_empty() {
                return rows;
            }
            for stored in batches {
                let header = *Batch::parse(stored.bytes.clone()).unwrap().header();
                next = stored.base_offset.0 + header.offset_span();
                if header.is_control() {
                    rows.push("marker".to_owned());
                    continue;
                }
                for record in records(&stored.bytes).unwrap().map(Result::unwrap) {
                    let value = record.value.map_or("-".to_owned(), |value| text(&value));
                    rows.push(text(&record.key.unwrap()) + &value);
                }
            }
        }
    }
}

fn policy(delete_retention: Duration) -> Compaction {
    Compaction { delete_retention, dirty_percent_min: 0, ..Compaction::default() }
}

#[test]
fn a_tombstone_stays_for_its_time_from_the_first_compaction_whatever_its_timestamp() {
    let mut fixture = Fixture::new(policy(24 * HOUR));
    fixture.append("a", Some("1"), 48 * HOUR);
    fixture.append("b", Some("1"), 48 * HOUR);
    // Deletes with event times of long ago and of later.
    fixture.append("a", None, 48 * HOUR);
    fixture.append("c", None, Duration::ZERO);
    fixture.append("d", None, Duration::MAX.min(100 * HOUR));
    fixture.pass(2 * HOUR);
    assert_eq!(fixture.rows(), ["b1", "a-", "c-", "d-"]);
    // Later passes, for other data, do not shorten or lengthen the time.
    for hour in 2..24 {
        fixture.append("e", Some(&hour.to_string()), 48 * HOUR);
        fixture.pass(HOUR);
        assert!(fixture.rows().iter().any(|row| row == "a-"), "{hour}");
        if hour == 12 {
            fixture = fixture.restart();
            fixture.append("late", None, 90 * HOUR);
        }
    }
    fixture.pass(2 * HOUR);
    let rows = fixture.rows();
    assert!(!rows.iter().any(|row| ["a-", "c-", "d-"].contains(&row.as_str())), "{rows:?}");
    assert!(rows.contains(&"late-".to_owned()), "{rows:?}");
    // Nothing is written any more.
    fixture.pass(24 * HOUR);
    assert_eq!(fixture.rows(), ["b1", "e23"]);
    let before = fixture.log.stats().segments;
    fixture.pass(48 * HOUR);
    assert_eq!(fixture.log.stats().segments, before, "it comes to rest");
}

#[test]
fn markers_of_transactions_stay_as_tombstones_do() {
    let fixture = Fixture::new(policy(24 * HOUR));
    let stamp = |control| ProducerStamp { id: 7, epoch: 0, base_sequence: -1, transactional: true, control };
    let mut builder = BatchBuilder::new(64);
    builder.push(1, Some(b"a"), &[], Some(b"1"));
    fixture.append_batch(builder.finish_as(Compression::None, Some(stamp(false))));
    let mut builder = BatchBuilder::new(64);
    builder.push(1, Some(&[0, 0, 0, 1]), &[], Some(&[0; 6]));
    fixture.append_batch(builder.finish_as(Compression::None, Some(stamp(true))));
    fixture.append("a", Some("2"), Duration::ZERO);
    fixture.pass(3 * HOUR);
    assert_eq!(fixture.rows(), ["marker", "a2"]);
    fixture.pass(24 * HOUR);
    assert_eq!(fixture.rows(), ["a2"]);
}

#[test]
fn what_was_written_lately_is_not_compacted() {
    let lag_min = 10 * HOUR;
    let mut fixture = Fixture::new(Compaction { lag_min, ..policy(HOUR) });
    for value in ["1", "2"] {
        fixture.append("k", Some(value), 100 * HOUR);
    }
    fixture.pass(5 * HOUR);
    fixture.append("k", Some("3"), 100 * HOUR);
    fixture.append("k", Some("4"), Duration::ZERO);
    fixture.pass(4 * HOUR);
    assert_eq!(fixture.rows(), ["k1", "k2", "k3", "k4"]);
    fixture = fixture.restart();
    assert_eq!(fixture.rows(), ["k1", "k2", "k3", "k4"]);
    fixture.pass(3 * HOUR);
    assert_eq!(fixture.rows(), ["k2", "k3", "k4"]);
    // After a restart, the time at which a file was closed may be taken for a later one, at most that of the restart.
    fixture.pass(8 * HOUR);
    assert_eq!(fixture.rows(), ["k4"]);
}

#[test]
fn what_was_written_long_ago_is_compacted_whatever_its_share() {
    for lag_max in [10 * MINUTE, 10 * HOUR] {
        let mut fixture = Fixture::new(Compaction { lag_max, dirty_percent_min: 100, ..policy(24 * HOUR) });
        for key in 0..100 {
            fixture.append(&format!("k{key}="), Some("1"), Duration::ZERO);
        }
        fixture.pass(lag_max + 2 * MINUTE);
        fixture.append("k7=", None, Duration::ZERO);
        fixture.pass(lag_max / 2);
        if lag_max > HOUR {
            fixture = fixture.restart();
        } else {
            assert!(fixture.rows().contains(&"k7=1".to_owned()), "{lag_max:?}");
        }
        fixture.pass(lag_max / 2 + 2 * MINUTE);
        assert!(!fixture.rows().contains(&"k7=1".to_owned()), "{lag_max:?}");
        let segments = fixture.log.stats().segments;
        fixture.pass(2 * lag_max);
        assert_eq!(fixture.log.stats().segments, segments, "nothing new");
    }
}
