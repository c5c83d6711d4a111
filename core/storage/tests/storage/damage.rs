//! Torn tails are cut at the last whole entry; other damage is an error with its place; a failed medium ends the log.

use std::io::ErrorKind;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::shorthand::*;
use inver_storage::medium::fake::{FakeMedium, Fault, Random};
use inver_storage::{
    CommitPolicy, Entry, Log, LogError, LogOptions, Lsn, Offset, OpenError, ReadError, StreamId, SubmitError,
    SystemClock,
};

fn manual(medium: &FakeMedium, options: &LogOptions) -> Result<Log, OpenError> {
    Log::open_manual(Arc::new(medium.clone()), Arc::new(SystemClock), options.clone())
}

fn options() -> LogOptions {
    LogOptions { segment_bytes_max: 8 << 10, preallocate: false, ..LogOptions::default() }
}

/// A log with known ends of entries and known values.
struct Recorded {
    medium: FakeMedium,
    stream: StreamId,
    /// After each entry: the end of the log, and the number of values in the stream.
    ends: Vec<(u64, usize)>,
}

fn record(entries: usize, options: &LogOptions) -> Recorded {
    let medium = FakeMedium::new(1);
    let log = manual(&medium, options).unwrap();
    let stream = create_stream(&log);
    let mut ends = vec![(log.committed().0, 0)];
    for i in 0..entries {
        append(&log, std::slice::from_ref(&stream), &[&[i as u8; 30]]);
        ends.push((log.committed().0, i + 1));
    }
    let stream = stream.id();
    let image = medium.image();
    Recorded { medium: image, stream, ends }
}

const FIRST: &str = "0000000000000000.seg";

#[test]
fn a_tail_cut_at_every_byte_keeps_exactly_the_whole_entries() {
    let recorded = record(12, &options());
    let whole = recorded.medium.content(FIRST).unwrap();
    // Before the first entry's end the stream does not exist; the header is never torn, because it is synced first.
    for length in recorded.ends[0].0 as usize..=whole.len() {
        let medium = recorded.medium.image();
        let mut torn = whole.clone();
        torn.truncate(length);
        medium.set_content(FIRST, torn);
        let log = manual(&medium, &options()).unwrap();
        let expected = recorded.ends.iter().rfind(|(end, _)| *end <= length as u64).unwrap();
        let stream = log.stream(recorded.stream).unwrap();
        assert_eq!(log.committed().0, expected.0, "cut at {length}");
        assert_eq!(values(&stream).len(), expected.1, "cut at {length}");
        // Appending continues at the end of the last whole entry.
        append(&log, std::slice::from_ref(&stream), &[b"after"]);
        drop(log);
        let log = manual(&medium, &options()).unwrap();
        let values = values(&log.stream(recorded.stream).unwrap());
        assert_eq!((values.len(), values.last().unwrap().as_slice()), (expected.1 + 1, b"after".as_slice()));
    }
}

#[test]
fn a_tail_of_random_bytes_is_cut_off() {
    let recorded = record(5, &options());
    let whole = recorded.medium.content(FIRST).unwrap();
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut torn = whole.clone();
        for _ in 0..random.below(300) {
            torn.push(random.any() as u8);
        }
        let medium = recorded.medium.image();
        medium.set_content(FIRST, torn);
        let log = manual(&medium, &options()).unwrap();
        assert_eq!(values(&log.stream(recorded.stream).unwrap()).len(), 5);
    }
}

#[test]
fn a_flipped_bit_in_synced_data_is_reported() {
    let recorded = record(6, &options());
    let whole = recorded.medium.content(FIRST).unwrap();
    // No later entry proves that the last two entries were synced; all earlier ones are proven.
    let proven = recorded.ends[recorded.ends.len() - 2].0 as usize;
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let medium = recorded.medium.image();
        medium.set_content(FIRST, damaged);
        match manual(&medium, &options()) {
            Err(OpenError::Damaged { file, position, .. }) => {
                assert_eq!(file, FIRST);
                assert!(position <= (bit / 8) as u64, "bit {bit} reported at {position}");
            }
            Err(OpenError::Version { .. }) => assert!((8..12).contains(&(bit / 8))),
            Err(error) => panic!("bit {bit}: {error}"),
            Ok(log) => {
                assert!(bit / 8 >= proven, "bit {bit} was not detected");
                let values = values(&log.stream(recorded.stream).unwrap());
                assert!(values.len() >= 5, "only the damaged entry is lost");
            }
        }
    }
}

#[test]
fn damage_in_an_earlier_segment_is_detected_by_replay_and_by_reads() {
    let options = LogOptions { tail_cache_bytes_max: 0, ..options() };
    let medium = FakeMedium::new(2);
    let log = manual(&medium, &options).unwrap();
    let stream = create_stream(&log);
    for i in 0..200u8 {
        append(&log, std::slice::from_ref(&stream), &[&[i; 50]]);
    }
    let id = stream.id();
    let unchecked = medium.image();
    let flip = |medium: &FakeMedium| {
        let mut bytes = medium.content(FIRST).unwrap();
        let at = bytes.windows(50).position(|window| window == [9; 50]).unwrap();
        bytes[at + 10] ^= 1;
        medium.set_content(FIRST, bytes);
    };
    flip(&unchecked);
    let error = manual(&unchecked, &options).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged { file, .. } if file == FIRST), "{error}");
    log.shutdown().unwrap();
    let checked = medium.image();
    flip(&checked);
    let log = manual(&checked, &options).unwrap();
    let stream = log.stream(id).unwrap();
    let error = (0..200).find_map(|from| read_once(&stream, from, 1).err()).unwrap();
    assert!(matches!(&error, ReadError::Damaged { file, .. } if file == FIRST), "{error}");
    assert_eq!(read_all(&stream, 20).len(), 180);
}

#[test]
fn a_missing_segment_is_reported() {
    let medium = FakeMedium::new(2);
    let log = manual(&medium, &options()).unwrap();
    let stream = create_stream(&log);
    for i in 0..200u8 {
        append(&log, std::slice::from_ref(&stream), &[&[i; 50]]);
    }
    log.shutdown().unwrap();
    use inver_storage::medium::Medium;
    let segments: Vec<String> =
        medium.list().unwrap().into_iter().filter(|name| name.ends_with(".seg")).collect();
    assert!(segments.len() > 2);
    for lost in &segments {
        let image = medium.image();
        image.lose(lost);
        let error = manual(&image, &options()).unwrap_err();
        assert!(matches!(&error, OpenError::Damaged { file, .. } if file == lost), "{error}");
    }
    // A complete log is replayed without a checkpoint.
    let image = medium.image();
    lose_checkpoint(&image);
    let log = manual(&image, &options()).unwrap();
    assert_eq!(values(&log.stream(stream.id()).unwrap()).len(), 200);
    let image = medium.image();
    lose_checkpoint(&image);
    image.lose(&segments[0]);
    assert!(matches!(manual(&image, &options()), Err(OpenError::Damaged { .. })));
}

fn lose_checkpoint(image: &FakeMedium) {
    image.lose("checkpoint.redb");
    image.lose("checkpoint-copy.redb");
}

#[test]
fn a_failed_write_or_sync_ends_the_log() {
    for operations in 1..=2 {
        let medium = FakeMedium::new(3);
        let log = manual(&medium, &options()).unwrap();
        let stream = create_stream(&log);
        append(&log, std::slice::from_ref(&stream), &[b"kept"]);
        medium.schedule(operations, Fault::Fail(ErrorKind::StorageFull));
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), batch(&[b"lost"]));
        let lsn = log.submit(entry).unwrap().lsn;
        let committed = log.committed();
        let mut waiting = Box::pin(log.wait_committed(lsn));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        assert!(matches!(log.step_writer(), Err(LogError::Poisoned(_))));
        let Poll::Ready(Err(LogError::Poisoned(failure))) = waiting.as_mut().poll(&mut cx) else {
            panic!("waiting tasks get the error")
        };
        assert!(failure.attempt.contains(FIRST), "{failure}");
        assert!(matches!(log.submit(Entry::new()), Err(SubmitError::Log(LogError::Poisoned(_)))));
        assert!(matches!(log.wait_committed_blocking(Lsn(u64::MAX)), Err(LogError::Poisoned(_))));
        assert!(log.poll_admit(&mut cx).is_ready() && !log.is_admitting());
        assert!(log.shutdown().is_err());
        // Visible records stay visible, and no others become so.
        assert_eq!(log.committed(), committed);
        assert_eq!(stream.high_watermark(), Offset(1));
        assert_eq!(read_once(&stream, 0, 100).unwrap().len(), 1);
        drop(log);
        medium.crash();
        let log = manual(&medium, &options()).unwrap();
        let values = values(&log.stream(stream.id()).unwrap());
        assert_eq!(values[0], b"kept");
    }
}

#[test]
fn callers_wait_at_the_limits_of_the_queue() {
    for (submit_bytes_max, submit_entries_max) in [(800, 1000), (1 << 20, 4)] {
        let medium = FakeMedium::new(4);
        let options = LogOptions { submit_bytes_max, submit_entries_max, ..options() };
        let log = manual(&medium, &options).unwrap();
        let stream = create_stream(&log);
        let mut cx = Context::from_waker(Waker::noop());
        let mut submitted = 0;
        while log.poll_admit(&mut cx) == Poll::Ready(Ok(())) {
            let mut entry = Entry::new();
            entry.batch(std::slice::from_ref(&stream), batch(&[&[0; 100]]));
            log.submit(entry).unwrap();
            submitted += 1;
        }
        assert_eq!(submitted, 4, "each takes a little more than a quarter of the limit");
        assert!(!log.is_admitting());
        log.step_writer().unwrap();
        assert_eq!(log.poll_admit(&mut cx), Poll::Ready(Ok(())));
        assert_eq!((log.stats().queued_bytes, log.stats().queued_entries), (0, 0));
    }
}

#[test]
fn entries_are_visible_only_when_the_commit_policy_is_satisfied() {
    for (commit, written) in [(CommitPolicy::Always, 2), (CommitPolicy::Os, 1)] {
        let medium = FakeMedium::new(5);
        let log = manual(&medium, &LogOptions { commit, ..options() }).unwrap();
        let stream = create_stream(&log);
        let before = medium.operations();
        let mut entry = Entry::new();
        entry.batch(std::slice::from_ref(&stream), batch(&[b"x"]));
        let submitted = log.submit(entry).unwrap();
        assert_eq!((stream.next_offset(), stream.high_watermark()), (Offset(1), Offset(0)));
        assert!(log.committed() < submitted.lsn);
        log.step_writer().unwrap();
        assert_eq!(medium.operations() - before, written, "one write, and one sync under `Always`");
        assert_eq!(stream.high_watermark(), Offset(1));
        assert_eq!(log.committed(), submitted.lsn);
        assert_eq!(log.durable() == submitted.lsn, commit == CommitPolicy::Always);
        assert_eq!(log.sync().unwrap(), submitted.lsn);
        assert_eq!(log.durable(), submitted.lsn);
    }
}
