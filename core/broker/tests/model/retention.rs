//! Retention of log topics on a clock that the test moves, in a log of the default file size that nothing else writes to.

use std::time::Duration;

use inver_broker::{
    AppliesTo, Clock, Namespace, PolicyKind, PolicySpec, QueueSpec, TopicConfig, TopicSpec, Value,
};
use inver_storage::{BatchBuilder, Entry, Stream};

use crate::fixture::{Fixture, committed};

/// The time within which a record whose retention is over is gone.
const BOUND: Duration = Duration::from_secs(5 * 60);

fn topic(ns: &Namespace, name: &str, settings: &[(&str, &str)]) -> Stream {
    let config: TopicConfig =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let spec = TopicSpec { partitions: 1, config };
    let (topic, lsn) = ns.create_topic(name, &spec).unwrap();
    committed(ns, lsn);
    topic.partition(0).unwrap().stream().clone()
}

/// Appends a batch of a record now.
fn append(ns: &Namespace, stream: &Stream, clock: &Clock, bytes: usize) {
    let mut builder = BatchBuilder::new(64);
    builder.push(clock.now_ms(), Some(b"key"), &[], Some(&vec![7; bytes]));
    let mut entry = Entry::new();
    entry.batch(std::slice::from_ref(stream), builder.finish());
    committed(ns, ns.log().submit(entry).unwrap().lsn);
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

#[tokio::test]
async fn records_go_soon_after_their_retention_on_a_quiet_broker() {
    let (fixture, clock) = Fixture::manual();
    let ns = fixture.namespace();
    let week = topic(&ns, "week", &[]);
    let seconds = topic(&ns, "seconds", &[("retention.ms", "3000")]);
    let kept = topic(&ns, "kept", &[("retention.ms", "-1")]);
    let compacted = topic(&ns, "compacted", &[("cleanup.policy", "compact"), ("retention.ms", "1")]);
    let both = topic(&ns, "both", &[("cleanup.policy", "compact,delete"), ("retention.ms", "3600000")]);
    let all = [&week, &seconds, &kept, &compacted, &both];
    for _ in 0..24 {
        all.iter().for_each(|stream| append(&ns, stream, &clock, 100));
        clock.advance(hours(1));
    }
    let starts = || {
        fixture.broker.keep_bounds();
        all.map(|stream| stream.start().0)
    };
    assert_eq!(starts(), [0, 24, 0, 0, 23], "the last hour's");
    clock.advance(hours(6 * 24));
    assert_eq!(starts(), [0, 24, 0, 0, 24]);
    for gone in 1..=24 {
        clock.advance(BOUND);
        assert_eq!(starts(), [gone, 24, 0, 0, 24]);
        clock.advance(hours(1) - BOUND);
    }
    assert_eq!(fixture.broker.log().stats().segments, 1, "nothing waits for a full file");
}

#[tokio::test]
async fn the_oldest_records_go_beyond_the_bytes_of_a_partition() {
    let (fixture, clock) = Fixture::manual();
    let ns = fixture.namespace();
    let stream = topic(&ns, "t", &[("retention.bytes", "50000")]);
    for _ in 0..200 {
        append(&ns, &stream, &clock, 1000);
    }
    fixture.broker.keep_bounds();
    let left = stream.next_offset().0 - stream.start().0;
    assert!((46..=50).contains(&left), "{left} of about 1,080 bytes");
}

#[tokio::test]
async fn a_busy_stream_is_not_trimmed_record_by_record() {
    let (fixture, clock) = Fixture::manual();
    let ns = fixture.namespace();
    let stream = topic(&ns, "t", &[("retention.ms", "86400000")]);
    for _ in 0..25 * 60 {
        append(&ns, &stream, &clock, 10);
        clock.advance(Duration::from_secs(60));
    }
    fixture.broker.keep_bounds();
    let start = stream.start().0;
    assert!((60..=61).contains(&start), "{start}");
    let mut moves = 0;
    for _ in 0..60 {
        append(&ns, &stream, &clock, 10);
        clock.advance(Duration::from_secs(60));
        let before = stream.start();
        fixture.broker.keep_bounds();
        moves += u32::from(stream.start() > before);
        assert!(stream.start().0 + 5 + 24 * 60 >= stream.next_offset().0, "within the bound");
    }
    assert!((12..=20).contains(&moves), "{moves}");
}

/// A queue of the type `stream` with these arguments, and the stream of the log that it is.
fn stream_queue(ns: &Namespace, name: &str, arguments: &[(&str, Value)]) -> Stream {
    let kind = ("x-queue-type", Value::from("stream"));
    let arguments = arguments.iter().chain([&kind]).map(|(name, value)| ((*name).to_owned(), value.clone()));
    let spec = QueueSpec { durable: true, arguments: arguments.collect(), ..QueueSpec::default() };
    let declared = ns.declare_queue(name, spec).unwrap();
    committed(ns, declared.completion);
    ns.topic(name).unwrap().partition(0).unwrap().stream().clone()
}

fn set_policy(ns: &Namespace, kind: PolicyKind, pattern: &str, definition: &[(&str, Value)]) {
    let definition = definition.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let spec =
        PolicySpec { pattern: pattern.into(), applies_to: AppliesTo::Streams, priority: 0, definition };
    committed(ns, ns.set_policy(kind, "p", spec).unwrap().1);
}

#[tokio::test]
async fn policies_bound_the_age_and_the_bytes_of_streams() {
    let (fixture, clock) = Fixture::manual();
    let ns = fixture.namespace();
    let own = stream_queue(&ns, "own", &[("x-max-age", "1h".into())]);
    let none = stream_queue(&ns, "none", &[]);
    let other = topic(&ns, "a-topic", &[("retention.ms", "-1")]);
    let all = [&own, &none, &other];
    for _ in 0..10 {
        all.iter().for_each(|stream| append(&ns, stream, &clock, 1000));
        clock.advance(hours(1));
    }
    let left = || {
        fixture.broker.keep_bounds();
        all.map(|stream| stream.next_offset().0 - stream.start().0)
    };
    set_policy(&ns, PolicyKind::Ordinary, "", &[("max-age", "300m".into())]);
    assert_eq!(left(), [1, 5, 10], "the smaller of argument and policy, and no topic of others");
    set_policy(&ns, PolicyKind::Operator, "^none$", &[("max-length-bytes", Value::Int(3500))]);
    assert_eq!(left(), [1, 4, 10], "as many as there must be to reach the bytes");
    committed(&ns, ns.delete_policy(PolicyKind::Ordinary, "p").unwrap());
    committed(&ns, ns.delete_policy(PolicyKind::Operator, "p").unwrap());
    (0..5).for_each(|_| append(&ns, &none, &clock, 1000));
    clock.advance(hours(24));
    assert_eq!(left(), [0, 9, 10], "what policies set holds no longer");
}
