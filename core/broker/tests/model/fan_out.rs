//! Messages to very many queues in memory: delivered in slices, each once, in order, whatever happens in between.

use std::sync::Arc;

use inver_broker::{Arguments, BindDestination, Namespace, Publisher, Queue, QueueSpec, Target};

use crate::fixture::*;

const QUEUES: usize = 2_000;

fn queues(ns: &Namespace) -> Vec<Arc<Queue>> {
    let name = |at: usize| format!("q.{at}");
    let queues = (0..QUEUES).map(|at| declare(ns, &name(at), QueueSpec::default())).collect();
    for at in 0..QUEUES {
        ns.bind("amq.fanout", BindDestination::Queue(&name(at)), b"", &Arguments::new()).unwrap();
    }
    queues
}

fn publish_in_slices(publisher: &mut Publisher, value: &[u8]) {
    let to = Target::Exchange { name: "amq.fanout", routing_key: b"", more_keys: &[] };
    assert_eq!(publisher.publish(to, &message(value)).unwrap().destinations, QUEUES);
    let _ = publisher.flush_in_slices().unwrap();
}

fn waiting(queues: &[Arc<Queue>]) -> u64 {
    queues.iter().map(|queue| queue.depth().ready).sum()
}

#[tokio::test]
async fn a_slice_reaches_a_part_of_the_queues_and_all_slices_each_once() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (queues, mut publisher) = (queues(&ns), publisher(&ns));
    // Of more than a few bytes: they are counted once for all.
    let value = [b'x'; 2_000];
    publish_in_slices(&mut publisher, &value);
    assert!(publisher.has_more_to_deliver());
    let mut slices = 0;
    while publisher.has_more_to_deliver() {
        let before = waiting(&queues);
        assert!(publisher.deliver_slice());
        assert!(waiting(&queues) > before);
        slices += 1;
    }
    assert!(slices > 1);
    assert!(!publisher.deliver_slice());
    assert!(queues.iter().all(|queue| queue.depth().ready == 1));
    let (mailbox, mut consumer) = attach(queues[QUEUES - 1].subscription());
    let got = take(&mailbox, &mut consumer, 1).await;
    assert_eq!(values(&got), [String::from_utf8_lossy(&value)]);
}

#[tokio::test]
async fn what_is_flushed_before_the_last_slice_follows_it() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (queues, mut publisher) = (queues(&ns), publisher(&ns));
    publish_in_slices(&mut publisher, b"1");
    publish_in_slices(&mut publisher, b"2");
    publisher.publish(queue(&format!("q.{}", QUEUES - 1)), &message(b"3")).unwrap();
    let _ = publisher.flush().unwrap();
    assert!(!publisher.has_more_to_deliver());
    let (mailbox, mut consumer) = attach(queues[QUEUES - 1].subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 3).await), ["1", "2", "3"]);
}

#[tokio::test]
async fn a_publisher_that_goes_leaves_nothing_undelivered() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let (queues, mut publisher) = (queues(&ns), publisher(&ns));
    publish_in_slices(&mut publisher, b"1");
    drop(publisher);
    assert_eq!(waiting(&queues), QUEUES as u64);
}
