//! Named subscriptions of log topics: the modes, and that one reader's acknowledgements leave the others alone.

use std::sync::Arc;

use crate::fixture::*;
use inver_broker::{AttachError, ConsumerSpec, Mailbox, Mode, Namespace, Start, Topic, TopicSpec};
use inver_storage::{BatchBuilder, Compression};

fn topic(namespace: &Namespace, name: &str, partitions: u32) -> Arc<Topic> {
    let spec = TopicSpec { partitions, config: Default::default() };
    let (topic, lsn) = namespace.create_topic(name, &spec).expect("created");
    committed(namespace, Some(lsn));
    topic
}

fn produce(namespace: &Namespace, topic: &Topic, partition: u32, records: &[(&str, &str)]) {
    let mut builder = BatchBuilder::new(0);
    for (key, value) in records {
        builder.push(inver_broker::now_ms(), Some(key.as_bytes()), &[], Some(value.as_bytes()));
    }
    let partition = topic.partition(partition).expect("partition");
    let submitted = namespace.produce(topic, &partition, builder.finish()).expect("produced");
    committed(namespace, Some(submitted.lsn));
}

#[tokio::test]
async fn shared_consumers_split_a_topic_and_leave_it_whole() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let t = topic(&ns, "t", 1);
    let s = ns.subscribe(&t, "s", Mode::Shared, true, Start::Earliest).unwrap();
    let (mailbox_a, mut a) = attach(&s);
    let (mailbox_b, mut b) = attach(&s);
    produce(&ns, &t, 0, &[("k", "0"), ("k", "1"), ("k", "2"), ("k", "3")]);
    let got_a = take(&mailbox_a, &mut a, 2).await;
    let got_b = take(&mailbox_b, &mut b, 2).await;
    assert_eq!([values(&got_a), values(&got_b)].concat(), ["0", "1", "2", "3"]);
    let ids: Vec<_> = got_a.iter().map(|d| d.id).collect();
    committed(&ns, a.ack(&ids).unwrap());
    let other = ns.subscribe(&t, "other", Mode::Shared, false, Start::Earliest).unwrap();
    let (mailbox, mut consumer) = attach(&other);
    assert_eq!(values(&take(&mailbox, &mut consumer, 4).await), ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn failover_moves_on_and_nothing_is_lost() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let t = topic(&ns, "t", 1);
    let s = ns.subscribe(&t, "s", Mode::Failover, true, Start::Earliest).unwrap();
    let (mailbox_a, mut a) = attach(&s);
    let (mailbox_b, mut b) = attach(&s);
    assert!(pull_now(&mut b).is_empty());
    produce(&ns, &t, 0, &[("k", "0"), ("k", "1")]);
    assert_eq!(values(&take(&mailbox_a, &mut a, 2).await), ["0", "1"]);
    assert!(pull_now(&mut b).is_empty());
    drop(a);
    assert_eq!(values(&take(&mailbox_b, &mut b, 2).await), ["0", "1"]);
}

#[tokio::test]
async fn exclusive_refuses_the_second_and_modes_do_not_mix() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let t = topic(&ns, "t", 1);
    let s = ns.subscribe(&t, "s", Mode::Exclusive, true, Start::Earliest).unwrap();
    let (_, a) = attach(&s);
    let second = s.attach(ConsumerSpec::new(Mailbox::new(), 1));
    assert_eq!(second.err(), Some(AttachError::InUse));
    let clash = ns.subscribe(&t, "s", Mode::Shared, true, Start::Earliest);
    assert_eq!(clash.err(), Some(inver_broker::SubscriptionError::ModeClash(Mode::Exclusive)));
    drop(a);
    assert!(ns.subscribe(&t, "s", Mode::Shared, true, Start::Earliest).is_ok());
}

#[tokio::test]
async fn key_shared_keeps_a_key_on_one_consumer() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let t = topic(&ns, "t", 1);
    let s = ns.subscribe(&t, "s", Mode::KeyShared, true, Start::Earliest).unwrap();
    let mut consumers = [attach(&s), attach(&s), attach(&s)];
    let records: Vec<(String, String)> = (0..300).map(|i| (format!("k{}", i % 20), i.to_string())).collect();
    let borrowed: Vec<(&str, &str)> = records.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    produce(&ns, &t, 0, &borrowed);
    let mut seen: std::collections::HashMap<Vec<u8>, (usize, i32)> = Default::default();
    let mut total = 0;
    while total < 300 {
        for (i, (_, consumer)) in consumers.iter_mut().enumerate() {
            let got = pull_now(consumer);
            total += got.len();
            for d in &got {
                let number: i32 = values(std::slice::from_ref(d))[0].parse().unwrap();
                let at = seen.entry(d.record.key.clone().unwrap().to_vec()).or_insert((i, -1));
                assert_eq!(at.0, i, "a key moved");
                assert!(number > at.1, "a key's order broke");
                at.1 = number;
            }
        }
    }
    let used: std::collections::HashSet<usize> = seen.values().map(|(i, _)| *i).collect();
    assert!(used.len() > 1, "all keys on one consumer");
}

#[tokio::test]
async fn a_durable_position_survives_with_new_partitions() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let t = topic(&ns, "t", 1);
    let s = ns.subscribe(&t, "s", Mode::Shared, true, Start::Earliest).unwrap();
    ns.add_partitions("t", 2).unwrap();
    produce(&ns, &t, 0, &[("k", "a0"), ("k", "a1")]);
    produce(&ns, &t, 1, &[("k", "b0")]);
    let (mailbox, mut consumer) = attach(&s);
    let got = take(&mailbox, &mut consumer, 3).await;
    let acked: Vec<_> =
        got.iter().filter(|d| values(std::slice::from_ref(d))[0] != "a1").map(|d| d.id).collect();
    committed(&ns, consumer.ack(&acked).unwrap());
    drop((consumer, s, t, ns));
    let fixture = fixture.restart();
    let ns = fixture.namespace();
    let t = ns.topic("t").expect("topic");
    let s = ns.subscription(&t, "s").expect("subscription");
    let (mailbox, mut consumer) = attach(&s);
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["a1"]);
    assert!(pull_now(&mut consumer).is_empty());
}

#[tokio::test]
async fn batches_that_decompress_to_much_are_read_in_order_and_again() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let t = topic(&ns, "t", 1);
    let (s, partition) =
        (ns.subscribe(&t, "s", Mode::Shared, true, Start::Earliest).unwrap(), t.partition(0).unwrap());
    let mut expected = Vec::new();
    for (number, compression) in
        [Compression::Zstd, Compression::None, Compression::Gzip, Compression::Lz4, Compression::Snappy]
            .into_iter()
            .enumerate()
    {
        let mut builder = BatchBuilder::new(0);
        for record in 0..3 {
            let value = format!("{number} {record} {}", "x".repeat(400_000));
            builder.push(inver_broker::now_ms(), None, &[], Some(value.as_bytes()));
            expected.push(value);
        }
        let batch = builder.finish_as(compression, None);
        committed(&ns, Some(ns.produce(&t, &partition, batch).unwrap().lsn));
    }
    let (mailbox, mut consumer) = attach(&s);
    let got = take(&mailbox, &mut consumer, expected.len()).await;
    assert!(values(&got) == expected);
    let ids: Vec<_> = got.iter().map(|delivery| delivery.id).collect();
    committed(&ns, consumer.requeue(&ids).unwrap());
    let again = take(&mailbox, &mut consumer, expected.len()).await;
    assert!(values(&again) == expected && again.iter().all(|delivery| delivery.redelivered == 1));
}
