//! Records of transactions for the subscribers in the hub, who get them when the transaction is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use inver_broker::{
    BindDestination, Broker, BrokerConfig, Completion, Filter, HUB, HubMode, Namespace, Queue, QueueLimits,
    Topic, TopicConfig, TopicSpec, TransactionEnd, TransactionError,
};
use inver_storage::medium::fake::FakeMedium;
use inver_storage::{BatchBuilder, CommitPolicy, Compression, Log, LogOptions, SystemClock};

use crate::fixture::*;
use crate::transactions::{ID, begin, end, part, produce, produce_batch, stamp, topic};

const ADDRESS_HEADER: &[u8] = b"to-address";

fn open_hub() -> BrokerConfig {
    BrokerConfig {
        hub_default: HubMode::Open,
        address_header: "to-address".into(),
        ..BrokerConfig::default()
    }
}

/// A broker whose entries have so many bytes at most.
fn with_entries_of(entry_bytes_max: usize) -> Fixture {
    Fixture::over(
        open_hub(),
        LogOptions { commit: CommitPolicy::Os, entry_bytes_max, ..LogOptions::default() },
    )
}

/// A durable queue that gets what the hub has for a key.
fn bound(namespace: &Namespace, name: &str, key: &str) -> Arc<Queue> {
    let queue = declare(namespace, name, durable(QueueLimits::default()));
    let to = BindDestination::Queue(name);
    committed(namespace, namespace.bind(HUB, to, key.as_bytes(), &Default::default()).unwrap());
    queue
}

/// Takes all records of a queue; their texts, in order.
async fn texts(queue: &Queue, count: usize) -> Vec<String> {
    let (mailbox, mut consumer) = attach(queue.subscription());
    let got = take(&mailbox, &mut consumer, count).await;
    assert!(pull_now(&mut consumer).is_empty());
    let _ = consumer.ack(&got.iter().map(|delivery| delivery.id).collect::<Vec<_>>()).unwrap();
    values(&got)
}

#[tokio::test]
async fn subscribers_in_the_hub_get_records_once_they_are_committed() {
    let fixture = Fixture::with(open_hub());
    let ns = fixture.namespace();
    let t = topic(&ns, "a.b", 2);
    let queue = bound(&ns, "q", "a.#");
    let (mailbox, mut consumer) = attach(queue.subscription());
    let producer = begin(&ns, None).unwrap();
    for (sequence, is_commit) in [(0, false), (1, true)] {
        for partition in 0..2 {
            produce(&ns, (&t, partition), producer, sequence, &format!("{is_commit} {partition}")).unwrap();
        }
        assert!(pull_now(&mut consumer).is_empty());
        assert!(ns.relays_transaction(ID));
        end(&ns, producer, is_commit, false).unwrap();
    }
    let mut got = values(&take(&mailbox, &mut consumer, 2).await);
    got.sort();
    assert_eq!(got, ["true 0", "true 1"]);
    assert!(pull_now(&mut consumer).is_empty());
}

#[tokio::test]
async fn ends_that_follow_each_other_pass_on_only_their_own_records() {
    let fixture = Fixture::with(open_hub());
    let ns = fixture.namespace();
    let queue = bound(&ns, "q", "#");
    let t = topic(&ns, "t", 1);
    let producer = begin(&ns, None).unwrap();
    let partition = t.partition(0).unwrap();
    let mut completion = Completion::Now;
    // Nothing waits for the log in between.
    for (sequence, is_commit) in (0..).zip([false, true, true, false, true]) {
        let batch = part(producer, sequence, &format!("{is_commit} {sequence}"));
        ns.produce_in_transaction(ID, &t, &partition, batch, true).unwrap();
        let how = TransactionEnd { is_commit, bumps: false, may_block: true };
        let ended = ns.end_transaction(None, ID, producer, how, || Ok((8, Completion::Now))).unwrap();
        completion = completion.and(ended.completion);
    }
    committed(&ns, completion);
    assert_eq!(texts(&queue, 3).await, ["true 1", "true 2", "true 4"]);
}

#[tokio::test]
async fn compressed_records_beyond_an_entry_are_passed_on_in_several() {
    let fixture = with_entries_of(4 << 20);
    let ns = fixture.namespace();
    let queue = bound(&ns, "q", "#");
    let t = topic(&ns, "t", 2);
    let producer = begin(&ns, None).unwrap();
    let (batches, records, bytes) = (3, 64, 64 << 10);
    for index in 0..2 {
        for batch in 0..batches {
            let mut builder = BatchBuilder::new(64);
            for record in 0..records {
                let value = format!("{index} {batch} {record} {}", "v".repeat(bytes));
                builder.push(5, None, &[], Some(value.as_bytes()));
            }
            let batch = builder.finish_as(Compression::Zstd, stamp(producer, batch * records));
            assert!(batch.bytes().len() < 64 << 10, "many fit into an entry");
            produce_batch(&ns, (&t, index), batch).unwrap();
        }
    }
    let refused = TransactionEnd { is_commit: true, bumps: false, may_block: false };
    let refused = ns.end_transaction(None, ID, producer, refused, || Ok((8, Completion::Now)));
    assert_eq!(refused.unwrap_err(), TransactionError::Ending, "it would block");
    end(&ns, producer, true, false).unwrap();
    committed(&ns, ns.log().submitted());
    let got = texts(&queue, (2 * batches * records) as usize).await;
    let mut got: Vec<&str> = got.iter().map(|value| value.rsplit_once(' ').unwrap().0).collect();
    let of_batch = |index, batch| (0..records).map(move |record| format!("{index} {batch} {record}"));
    let of_partition = |index| (0..batches).flat_map(move |batch| of_batch(index, batch));
    let mut all: Vec<String> = (0..2).flat_map(of_partition).collect();
    got.sort_unstable();
    all.sort();
    assert_eq!(got, all);
}

/// Each record of such a kind is a batch of its own: headers and destinations take more of an entry than the records.
#[tokio::test]
async fn small_records_for_sets_of_queues_that_overlap_are_passed_on_in_several_entries() {
    let fixture = with_entries_of(64 << 10);
    let ns = fixture.namespace();
    let all: Vec<Arc<Queue>> = (0..4).map(|i| bound(&ns, &format!("all {i}"), "a.#")).collect();
    let some = bound(&ns, "some", "a.b");
    let t = topic(&ns, "t", 1);
    let producer = begin(&ns, None).unwrap();
    let (batches, records) = (4, 250);
    for batch in 0..batches {
        let mut builder = BatchBuilder::new(64);
        for record in 0..records {
            let address = if record % 2 == 0 { &b"a/b"[..] } else { b"a/c" };
            let number = (batch * records + record).to_string();
            builder.push(5, None, &[(ADDRESS_HEADER, Some(address))], Some(number.as_bytes()));
        }
        let batch = builder.finish_as(Compression::None, stamp(producer, batch * records));
        produce_batch(&ns, (&t, 0), batch).unwrap();
    }
    end(&ns, producer, true, false).unwrap();
    let numbers = |step| (0..batches * records).step_by(step).map(|i| i.to_string()).collect::<Vec<_>>();
    assert_eq!(texts(&all[0], numbers(1).len()).await, numbers(1));
    assert_eq!(texts(&some, numbers(2).len()).await, numbers(2));
}

#[tokio::test]
async fn a_record_that_fills_most_of_an_entry_is_passed_on_behind_the_end() {
    let fixture = with_entries_of(1 << 20);
    let ns = fixture.namespace();
    let queue = bound(&ns, "q", "#");
    let t = topic(&ns, "t", 1);
    let producer = begin(&ns, None).unwrap();
    let long = "v".repeat(700 << 10);
    let long = long.as_str();
    let mut sequence = 0;
    for order in [vec![long], vec![long, "one"], vec!["one", long, "three", long]] {
        for value in &order {
            produce(&ns, (&t, 0), producer, sequence, value).unwrap();
            sequence += 1;
        }
        end(&ns, producer, true, false).unwrap();
        let got = texts(&queue, order.len()).await;
        assert!(got == order, "{:?}", got.iter().map(String::len).collect::<Vec<_>>());
    }
}

/// A topic whose records set retained values.
fn retaining(namespace: &Namespace) -> Arc<Topic> {
    let config = TopicConfig::from([("inver.hub.retain".to_owned(), "true".to_owned())]);
    namespace.create_topic("t", &TopicSpec { partitions: 1, config }).unwrap().0
}

/// They waited for the disk as long as the transaction did.
#[tokio::test]
async fn retained_values_are_found_while_a_transaction_is_read_from_the_disk() {
    let medium = FakeMedium::new(1);
    let options =
        LogOptions { commit: CommitPolicy::Os, tail_cache_bytes_max: 1024, ..LogOptions::default() };
    let log = Log::open_on(Arc::new(medium.clone()), Arc::new(SystemClock), options).unwrap();
    let broker = Broker::open(log, open_hub()).unwrap();
    let ns = broker.default_namespace();
    let t = retaining(&ns);
    let producer = begin(&ns, None).unwrap();
    let value = "v".repeat(64 << 10);
    for sequence in 0..8 {
        produce(&ns, (&t, 0), producer, sequence, &value).unwrap();
    }
    medium.hold_reads();
    let ended = std::thread::spawn({
        let ns = ns.clone();
        move || end(&ns, producer, true, false).unwrap()
    });
    until("the transaction waits for the disk", || medium.held_reads() > 0).await;
    let scanned = Arc::new(AtomicBool::new(false));
    let scanning = std::thread::spawn({
        let scanned = scanned.clone();
        move || {
            ns.retained().scan(&Filter::slashed(b"#"), None, 1, &mut Vec::new());
            scanned.store(true, Ordering::Relaxed);
        }
    });
    until("retained values are found", || scanned.load(Ordering::Relaxed)).await;
    medium.release_reads();
    ended.join().unwrap();
    scanning.join().unwrap();
}

#[tokio::test]
async fn a_long_transaction_sets_retained_values_in_the_order_of_its_records() {
    let fixture = with_entries_of(4 << 20);
    let ns = fixture.namespace();
    let queue = bound(&ns, "q", "a.#");
    let t = retaining(&ns);
    let producer = begin(&ns, None).unwrap();
    let (batches, records) = (20, 16);
    for batch in 0..batches {
        let mut builder = BatchBuilder::new(64);
        for record in 0..records {
            let (address, number) = (format!("a/{record}"), batch * records + record);
            // Batches that nobody hears lie between.
            let address = if batch % 2 == 0 { address } else { "nobody".to_owned() };
            let headers =
                [(ADDRESS_HEADER, Some(address.as_bytes())), (&b"mqtt-retain"[..], Some(&b"true"[..]))];
            let headers = if batch % 2 == 0 { &headers[..] } else { &headers[..1] };
            let value = format!("{number} {}", "v".repeat(64 << 10));
            builder.push(5, None, headers, Some(value.as_bytes()));
        }
        let batch = builder.finish_as(Compression::Zstd, stamp(producer, batch * records));
        produce_batch(&ns, (&t, 0), batch).unwrap();
    }
    assert!(ns.retained().is_empty());
    end(&ns, producer, true, false).unwrap();
    let mut retained = Vec::new();
    ns.retained().scan(&Filter::slashed(b"a/+"), None, 100, &mut retained);
    let number = |value: &[u8]| {
        let text = std::str::from_utf8(value).unwrap();
        text.split_once(' ').unwrap().0.parse::<i32>().unwrap()
    };
    let mut found: Vec<i32> = retained.iter().map(|record| number(record.value.as_ref().unwrap())).collect();
    found.sort_unstable();
    assert_eq!(found, (18 * records..19 * records).collect::<Vec<_>>());
    let got = texts(&queue, (batches * records / 2) as usize).await;
    let heard = (0..batches).step_by(2).flat_map(|batch| batch * records..(batch + 1) * records);
    assert_eq!(got.iter().map(|text| number(text.as_bytes())).collect::<Vec<_>>(), heard.collect::<Vec<_>>());
}
