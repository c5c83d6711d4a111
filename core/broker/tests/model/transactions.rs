//! Transactions that a client holds open: their records and offsets become visible together, or never.

use std::sync::Arc;
use std::time::Duration;

use inver_broker::{
    Broker, BrokerConfig, CommittedOffset, Completion, LimitReached, Limits, Mode, Namespace, NamespaceSpec,
    ProduceError, Producer, Start, Subscription, Topic, TopicConfig, TopicSpec, TransactionEnd,
    TransactionError, TransactionState,
};
use inver_storage::medium::fake::{FakeMedium, Fault};
use inver_storage::{
    Batch, BatchBuilder, CommitPolicy, Compression, Log, LogOptions, Offset, ProducerStamp, SubmitError,
    SystemClock,
};

use crate::fixture::*;

pub(crate) const ID: &str = "id";

pub(crate) fn topic(namespace: &Namespace, name: &str, partitions: u32) -> Arc<Topic> {
    namespace.create_topic(name, &TopicSpec { partitions, config: TopicConfig::new() }).unwrap().0
}

/// Gives the id to a producer whose ids count from 7.
pub(crate) fn begin(namespace: &Namespace, expected: Option<Producer>) -> Result<Producer, TransactionError> {
    let new = || Ok((7, Completion::Now));
    let (producer, completion) = namespace.transactions().begin(ID, 60_000, expected, new)?;
    committed(namespace, completion);
    Ok(producer)
}

pub(crate) fn stamp(producer: Producer, base_sequence: i32) -> Option<ProducerStamp> {
    let Producer { id, epoch } = producer;
    Some(ProducerStamp { id, epoch, base_sequence, transactional: true, control: false })
}

pub(crate) fn part(producer: Producer, base_sequence: i32, value: &str) -> Batch {
    parts(producer, base_sequence, &[value])
}

fn parts(producer: Producer, base_sequence: i32, values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new(64);
    values.iter().for_each(|value| builder.push(5, Some(b"k"), &[], Some(value.as_bytes())));
    builder.finish_as(Compression::None, stamp(producer, base_sequence))
}

pub(crate) fn produce(
    namespace: &Namespace,
    to: (&Topic, u32),
    producer: Producer,
    sequence: i32,
    value: &str,
) -> Result<(), ProduceError> {
    produce_batch(namespace, to, part(producer, sequence, value))
}

pub(crate) fn produce_batch(
    namespace: &Namespace,
    (topic, partition): (&Topic, u32),
    batch: Batch,
) -> Result<(), ProduceError> {
    let partition = topic.partition(partition).unwrap();
    let submitted = namespace.produce_in_transaction(ID, topic, &partition, batch, true)?;
    committed(namespace, submitted.lsn);
    Ok(())
}

fn plain(namespace: &Namespace, topic: &Topic, value: &str) {
    let mut builder = BatchBuilder::new(0);
    builder.push(1, Some(b"k"), &[], Some(value.as_bytes()));
    let submitted = namespace.produce(topic, &topic.partition(0).unwrap(), builder.finish()).unwrap();
    committed(namespace, submitted.lsn);
}

fn offset(offset: i64) -> CommittedOffset {
    CommittedOffset { offset, leader_epoch: -1, metadata: None, committed_ms: 0 }
}

pub(crate) fn end(
    namespace: &Namespace,
    producer: Producer,
    is_commit: bool,
    bumps: bool,
) -> Result<Producer, TransactionError> {
    let new = || Ok((8, Completion::Now));
    let how = TransactionEnd { is_commit, bumps, may_block: true };
    let ended = namespace.end_transaction(None, ID, producer, how, new)?;
    committed(namespace, ended.completion);
    Ok(ended.producer)
}

fn state(namespace: &Namespace) -> TransactionState {
    namespace.transactions().info(ID).unwrap().state
}

fn stable(topic: &Topic, partition: u32) -> u64 {
    topic.partition(partition).unwrap().stream().stable_offset().0
}

/// A topic of one partition, and a producer that has the id.
fn produced(namespace: &Namespace) -> (Arc<Topic>, Producer) {
    (topic(namespace, "t", 1), begin(namespace, None).unwrap())
}

/// A subscription to all that is in a topic.
fn subscribed(namespace: &Namespace, topic: &Arc<Topic>) -> Arc<Subscription> {
    namespace.subscribe(topic, "s", Mode::Shared, true, Start::Earliest).unwrap()
}

#[tokio::test]
async fn readers_get_committed_records_in_order() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (t, producer) = produced(&ns);
    let subscription = subscribed(&ns, &t);
    let (mailbox, mut consumer) = attach(&subscription);
    plain(&ns, &t, "before");
    produce(&ns, (&t, 0), producer, 0, "one").unwrap();
    plain(&ns, &t, "behind");
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["before"]);
    assert!(pull_now(&mut consumer).is_empty());
    assert_eq!(subscription.depth().ready, 0);
    produce(&ns, (&t, 0), producer, 1, "two").unwrap();
    end(&ns, producer, true, false).unwrap();
    assert_eq!(values(&take(&mailbox, &mut consumer, 3).await), ["one", "behind", "two"]);
    produce(&ns, (&t, 0), producer, 2, "never").unwrap();
    plain(&ns, &t, "last");
    end(&ns, producer, false, false).unwrap();
    let got = take(&mailbox, &mut consumer, 1).await;
    assert_eq!(values(&got), ["last"]);
    assert!(pull_now(&mut consumer).is_empty());
}

#[test]
fn offsets_are_committed_with_the_records() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let t = topic(&ns, "t", 1);
    topic(&ns, "in", 4);
    let mut producer = begin(&ns, None).unwrap();
    let transactions = ns.transactions();
    let of_group = |adds| transactions.commit_offsets(ID, producer, "g", &[("in", 3, offset(42))], adds);
    assert_eq!(of_group(false).unwrap_err(), TransactionError::InvalidState);
    transactions.add_group(ID, producer, "g").unwrap();
    of_group(false).unwrap();
    produce(&ns, (&t, 0), producer, 0, "out").unwrap();
    assert!(transactions.has_pending_offset("g", "in", 3) && !transactions.has_pending_offset("g", "in", 4));
    assert_eq!((ns.committed_offsets().get("g", "in", 3), stable(&t, 0)), (None, 0));
    producer = end(&ns, producer, true, true).unwrap();
    assert_eq!(producer.epoch, 1);
    assert_eq!(ns.committed_offsets().get("g", "in", 3).unwrap().offset, 42);
    assert!(!transactions.has_pending_offset("g", "in", 3));
    // Of an aborted one nothing remains.
    transactions.commit_offsets(ID, producer, "g", &[("in", 3, offset(50))], true).unwrap();
    end(&ns, producer, false, true).unwrap();
    assert_eq!(ns.committed_offsets().get("g", "in", 3).unwrap().offset, 42);
    assert!(!transactions.has_pending_offset("g", "in", 3));
}

#[test]
fn a_new_producer_fences_the_one_before_and_aborts_its_transaction() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (t, old) = produced(&ns);
    produce(&ns, (&t, 0), old, 0, "old").unwrap();
    let new = begin(&ns, None).unwrap();
    assert_eq!((new.id, new.epoch), (old.id, 1));
    assert_eq!((state(&ns), stable(&t, 0)), (TransactionState::Empty, 2));
    assert_eq!(produce(&ns, (&t, 0), old, 1, "late").unwrap_err(), TransactionError::Fenced.into());
    assert_eq!(end(&ns, old, true, false).unwrap_err(), TransactionError::Fenced);
    assert_eq!(begin(&ns, Some(old)).unwrap_err(), TransactionError::Fenced);
    produce(&ns, (&t, 0), new, 0, "new").unwrap();
    end(&ns, new, true, false).unwrap();
    // The producer asks for an epoch itself, twice.
    let next = begin(&ns, Some(new)).unwrap();
    assert_eq!((next.epoch, begin(&ns, Some(new)).unwrap()), (2, next));
}

fn trim(namespace: &Namespace, topic: &Topic, to: u64) {
    committed(namespace, namespace.delete_records(topic, 0, Offset(to)).unwrap());
}

#[tokio::test]
async fn a_trim_shows_no_records_that_a_consumer_has_read_ahead() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (t, producer) = produced(&ns);
    let (mailbox, mut consumer) = attach(&subscribed(&ns, &t));
    plain(&ns, &t, "first");
    produce(&ns, (&t, 0), producer, 0, "aborted").unwrap();
    end(&ns, producer, false, false).unwrap();
    plain(&ns, &t, "second");
    produce(&ns, (&t, 0), producer, 1, "open").unwrap();
    plain(&ns, &t, "third");
    // All of it is read, and one record is taken.
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["first"]);
    trim(&ns, &t, 3);
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["second"]);
    assert!(pull_now(&mut consumer).is_empty());
    trim(&ns, &t, 5);
    assert!(pull_now(&mut consumer).is_empty(), "the transaction is open");
    end(&ns, producer, true, false).unwrap();
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["third"]);
}

#[tokio::test]
async fn a_trim_into_an_open_transaction_does_not_show_its_batch() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (t, producer) = produced(&ns);
    let (mailbox, mut consumer) = attach(&subscribed(&ns, &t));
    plain(&ns, &t, "first");
    produce_batch(&ns, (&t, 0), parts(producer, 0, &["one", "two"])).unwrap();
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["first"]);
    trim(&ns, &t, 2);
    assert!(pull_now(&mut consumer).is_empty());
    end(&ns, producer, true, false).unwrap();
    let mut got = values(&take(&mailbox, &mut consumer, 1).await);
    // What a consumer has read ahead before the trim it may still get.
    if got == ["one"] {
        got = values(&take(&mailbox, &mut consumer, 1).await);
    }
    assert_eq!(got, ["two"]);
    assert!(pull_now(&mut consumer).is_empty());
}

#[test]
fn the_time_of_a_message_is_found_behind_aborted_ones() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (t, producer) = produced(&ns);
    let value = "v".repeat(64 << 10);
    for sequence in 0..8 {
        produce(&ns, (&t, 0), producer, sequence, &value).unwrap();
    }
    end(&ns, producer, false, false).unwrap();
    let partition = t.partition(0).unwrap();
    assert_eq!(partition.timestamp_at(Offset(0)).unwrap(), None);
    plain(&ns, &t, "message");
    assert_eq!(partition.timestamp_at(Offset(0)).unwrap(), Some(1));
}

#[test]
fn an_end_that_is_repeated_is_answered_again() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (t, first) = produced(&ns);
    assert_eq!(end(&ns, first, true, true).unwrap_err(), TransactionError::InvalidState);
    produce(&ns, (&t, 0), first, 0, "v").unwrap();
    let second = end(&ns, first, true, true).unwrap();
    assert_eq!(end(&ns, first, true, true), Ok(second));
    assert_eq!(produce(&ns, (&t, 0), first, 1, "late").unwrap_err(), TransactionError::Fenced.into());
    assert_eq!(stable(&t, 0), 2);
}

#[test]
fn a_producer_whose_epochs_are_used_up_gets_another_id() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (t, mut producer) = produced(&ns);
    while producer.epoch < i16::MAX - 1 {
        producer = begin(&ns, Some(producer)).unwrap();
    }
    produce(&ns, (&t, 0), producer, 0, "v").unwrap();
    assert_eq!(end(&ns, producer, true, true), Ok(Producer { id: 8, epoch: 0 }));
    assert_eq!(stable(&t, 0), 2);
}

#[test]
fn a_transaction_is_aborted_after_its_timeout() {
    let (fixture, clock) = Fixture::manual();
    let ns = fixture.namespace();
    let (t, producer) = produced(&ns);
    for sequence in 0..3 {
        produce(&ns, (&t, 0), producer, sequence, "v").unwrap();
        clock.advance(Duration::from_millis(59_999));
        fixture.broker.run_due();
        end(&ns, producer, true, false).unwrap();
    }
    produce(&ns, (&t, 0), producer, 3, "v").unwrap();
    for _ in 0..3 {
        clock.advance(Duration::from_millis(20_001));
        fixture.broker.run_due();
    }
    assert_eq!(state(&ns), TransactionState::Aborted);
    assert_eq!(end(&ns, producer, true, false).unwrap_err(), TransactionError::Fenced);
    let next = begin(&ns, Some(producer)).unwrap();
    assert_eq!(next.epoch, 1, "it learns the epoch that fenced it");
}

fn expire(namespace: &Namespace, before_ms: i64) {
    let unused = namespace.transactions().unused_since(before_ms);
    committed(namespace, namespace.transactions().expire(&unused, before_ms).unwrap());
}

#[test]
fn a_producer_that_asks_again_sets_its_timeout() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let first = begin(&ns, None).unwrap();
    let second = begin(&ns, Some(first)).unwrap();
    let again = ns.transactions().begin(ID, 5, Some(first), || Ok((8, Completion::Now))).unwrap();
    assert_eq!(again.0, second);
    committed(&ns, again.1);
    drop(ns);
    let fixture = fixture.restart();
    assert_eq!(fixture.namespace().transactions().info(ID).unwrap().timeout_ms, 5);
}

#[test]
fn ids_that_are_not_used_expire() {
    let (fixture, clock) = Fixture::manual();
    let ns = fixture.namespace();
    let (t, producer) = produced(&ns);
    produce(&ns, (&t, 0), producer, 0, "v").unwrap();
    clock.advance(Duration::from_millis(10));
    expire(&ns, clock.steady_ms());
    assert_eq!(state(&ns), TransactionState::Open, "an open one stays");
    end(&ns, producer, true, false).unwrap();
    expire(&ns, clock.steady_ms());
    assert_eq!(state(&ns), TransactionState::Committed);
    clock.advance(Duration::from_millis(10));
    expire(&ns, clock.steady_ms());
    assert_eq!(ns.transactions().info(ID), None);
    assert_eq!(end(&ns, producer, true, false).unwrap_err(), TransactionError::UnknownProducer);
    let fixture = fixture.restart();
    assert_eq!(fixture.namespace().transactions().list(), []);
}

#[test]
fn an_open_transaction_survives_a_restart() {
    let mut fixture = Fixture::new();
    let (mut producer, mut sequence) = (begin(&fixture.namespace(), None).unwrap(), 0);
    topic(&fixture.namespace(), "t", 2);
    for is_commit in [true, false, true] {
        let ns = fixture.namespace();
        let t = ns.topic("t").unwrap();
        for partition in 0..2 {
            produce(&ns, (&t, partition), producer, sequence, "v").unwrap();
        }
        ns.transactions().commit_offsets(ID, producer, "g", &[("t", 0, offset(9))], true).unwrap();
        let before = ns.transactions().info(ID);
        drop((ns, t));
        fixture = fixture.restart();
        let ns = fixture.namespace();
        let t = ns.topic("t").unwrap();
        assert_eq!(ns.transactions().info(ID), before);
        assert!(ns.transactions().has_pending_offset("g", "t", 0));
        let partition = t.partition(1).unwrap();
        assert_eq!(partition.stream().open_transactions().len(), 1);
        producer = end(&ns, producer, is_commit, true).unwrap();
        sequence = 0;
        assert_eq!(stable(&t, 1), partition.stream().high_watermark().0);
        assert!(ns.committed_offsets().get("g", "t", 0).is_some());
    }
    let fixture = fixture.restart();
    assert_eq!(fixture.namespace().transactions().info(ID).unwrap().producer, producer);
    assert!(!fixture.namespace().transactions().has_pending_offset("g", "t", 0));
}

#[test]
fn ids_and_parts_are_bounded() {
    let limits = Limits { transactional_ids_max: 1, transaction_parts_max: 2, ..Limits::default() };
    let fixture = Fixture::with(BrokerConfig { limits, ..BrokerConfig::default() });
    let ns = fixture.namespace();
    let t = topic(&ns, "t", 3);
    let producer = begin(&ns, None).unwrap();
    let other = ns.transactions().begin("other", 1, None, || Ok((9, Completion::Now)));
    let reached = |what, max| TransactionError::Limit(LimitReached { what, max });
    assert_eq!(other.unwrap_err(), reached("transactional ids", 1));
    produce(&ns, (&t, 0), producer, 0, "v").unwrap();
    produce(&ns, (&t, 1), producer, 0, "v").unwrap();
    produce(&ns, (&t, 0), producer, 1, "v").unwrap();
    let refused = produce(&ns, (&t, 2), producer, 0, "v");
    let reached = reached("partitions, groups and offsets in a transaction", 2);
    assert_eq!(refused.unwrap_err(), reached.into());
}

#[test]
fn an_offset_can_be_committed_again_at_the_bound() {
    let limits = Limits { transaction_parts_max: 3, ..Limits::default() };
    let fixture = Fixture::with(BrokerConfig { limits, ..BrokerConfig::default() });
    let ns = fixture.namespace();
    topic(&ns, "in", 3);
    let producer = begin(&ns, None).unwrap();
    let commit = |offsets: &[(&str, u32, CommittedOffset)]| {
        ns.transactions().commit_offsets(ID, producer, "g", offsets, true)
    };
    commit(&[("in", 0, offset(1)), ("in", 1, offset(1)), ("in", 0, offset(2))]).unwrap();
    commit(&[("in", 1, offset(3))]).unwrap();
    let refused = commit(&[("in", 1, offset(4)), ("in", 2, offset(4))]).unwrap_err();
    assert!(matches!(refused, TransactionError::Limit(LimitReached { max: 3, .. })), "{refused}");
    end(&ns, producer, true, false).unwrap();
    let committed = |partition| ns.committed_offsets().get("g", "in", partition).map(|it| it.offset);
    assert_eq!([0, 1, 2].map(committed), [Some(2), Some(3), None]);
}

/// What a transaction takes in can always be ended in one entry.
#[test]
fn the_bytes_of_a_transaction_are_bounded() {
    let options = LogOptions { commit: CommitPolicy::Os, entry_bytes_max: 1 << 20, ..LogOptions::default() };
    let fixture = Fixture::over(BrokerConfig::default(), options);
    let ns = fixture.namespace();
    topic(&ns, "in", 1000);
    let producer = begin(&ns, None).unwrap();
    let with_text =
        |offset: i64| CommittedOffset { metadata: Some("m".repeat(4096)), ..self::offset(offset) };
    let commit = |partition, value| {
        let offsets = [("in", partition, with_text(value))];
        ns.transactions().commit_offsets(ID, producer, "g", &offsets, true)
    };
    let refused = (0..1000).find_map(|partition| Some((partition, commit(partition, 1).err()?)));
    let (kept, error) = refused.unwrap();
    assert!(matches!(error, TransactionError::Limit(_)), "{error}");
    assert!((32..64).contains(&kept), "{kept}");
    commit(0, 2).unwrap();
    end(&ns, producer, true, false).unwrap();
    assert_eq!(ns.committed_offsets().len(), kept as usize);
    // The next one has room again.
    commit(kept, 1).unwrap();
}

#[test]
fn offsets_of_a_deleted_topic_are_not_committed() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    topic(&ns, "gone", 1);
    topic(&ns, "again", 1);
    topic(&ns, "kept", 1);
    let producer = begin(&ns, None).unwrap();
    let offsets = ["gone", "again", "kept"].map(|topic| (topic, 0, offset(5)));
    ns.transactions().commit_offsets(ID, producer, "g", &offsets, true).unwrap();
    ns.delete_topic("gone").unwrap();
    ns.delete_topic("again").unwrap();
    topic(&ns, "again", 1);
    drop(ns);
    let fixture = fixture.restart();
    let ns = fixture.namespace();
    assert!(!ns.transactions().has_pending_offset("g", "again", 0));
    end(&ns, producer, true, false).unwrap();
    let committed = |topic| ns.committed_offsets().get("g", topic, 0).map(|it| it.offset);
    assert_eq!(["gone", "again", "kept"].map(committed), [None, None, Some(5)]);
}

#[test]
fn a_rejected_batch_does_not_begin_a_transaction() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (t, producer) = produced(&ns);
    produce(&ns, (&t, 0), producer, 0, "v").unwrap();
    end(&ns, producer, true, false).unwrap();
    let refused = produce(&ns, (&t, 0), producer, 5, "gap");
    assert_eq!(refused.unwrap_err(), ProduceError::Log(SubmitError::OutOfOrderSequence));
    assert_eq!(state(&ns), TransactionState::Committed);
}

#[tokio::test]
async fn a_deleted_namespace_leaves_no_rows() {
    let fixture = Fixture::new();
    let broker = &fixture.broker;
    broker.create_namespace("n", NamespaceSpec::default()).unwrap();
    let ns = broker.namespace("n").unwrap();
    let (t, producer) = produced(&ns);
    produce(&ns, (&t, 0), producer, 0, "v").unwrap();
    drop((ns, t));
    broker.delete_namespace("n").await.unwrap();
    let fixture = fixture.restart();
    for table in [23, 24] {
        assert_eq!(fixture.broker.log().recovered_state(inver_storage::TableId(table)), []);
    }
}

/// A broker over a medium that forgets what was not synced.
fn over(medium: &FakeMedium) -> Broker {
    let options = LogOptions { preallocate: false, ..LogOptions::default() };
    let log = Log::open_manual(Arc::new(medium.clone()), Arc::new(SystemClock), options).unwrap();
    Broker::open(log, BrokerConfig::default()).unwrap()
}

/// Wherever the process or the disk stops while a transaction is committed, it is committed whole or not at all.
#[test]
fn a_crash_leaves_a_transaction_whole() {
    let mut outcomes = [0; 2];
    for operations in 0..8 {
        for seed in 0..6 {
            let medium = FakeMedium::new(seed);
            let broker = over(&medium);
            let ns = broker.default_namespace();
            let t = topic(&ns, "t", 3);
            topic(&ns, "in", 1);
            let producer = begin(&ns, None).unwrap();
            for partition in 0..3 {
                produce(&ns, (&t, partition), producer, 0, "v").unwrap();
            }
            let offsets = [("in", 0, offset(9))];
            committed(&ns, ns.transactions().commit_offsets(ID, producer, "g", &offsets, true).unwrap());
            medium.schedule(operations, Fault::Stop);
            let new = || Ok((8, Completion::Now));
            let how = TransactionEnd { is_commit: true, bumps: true, may_block: false };
            let ended = ns.end_transaction(None, ID, producer, how, new).unwrap();
            assert_eq!(stable(&t, 0), 0, "not before it is in the log");
            let is_answered = ns.log().wait_committed_blocking(ended.completion.lsn().unwrap()).is_ok();
            medium.stop();
            drop((ns, t, broker));
            medium.crash();
            let broker = over(&medium);
            let ns = broker.default_namespace();
            let t = ns.topic("t").unwrap();
            let is_committed = ns.committed_offsets().get("g", "in", 0).is_some();
            assert!(is_committed || !is_answered, "an answered commit is lost");
            outcomes[usize::from(is_committed)] += 1;
            for partition in 0..3 {
                let stream = t.partition(partition).unwrap().stream().clone();
                assert_eq!(stream.stable_offset().0, if is_committed { 2 } else { 0 });
                assert_eq!(stream.aborted_transactions(Offset(0)..Offset(9)), []);
            }
            let info = ns.transactions().info(ID).unwrap();
            let (state, epoch) = match is_committed {
                true => (TransactionState::Committed, 1),
                false => (TransactionState::Open, 0),
            };
            assert_eq!((info.state, info.producer.epoch), (state, epoch));
            // Repeated or not, it is committed once.
            let again = end(&ns, producer, true, true).unwrap();
            assert_eq!((again.epoch, stable(&t, 2)), (1, 2));
            assert_eq!(t.partition(2).unwrap().stream().next_offset(), Offset(2));
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}
