//! Queues whose head is on the disk only, under a running broker: limits are enforced at once.
//!
//! A message or a batch a second was dropped, and the queue grew without regard to its length limit.

use crate::fixture::*;
use inver_broker::{BrokerConfig, Completion, Namespace, QueueLimits, QueueSpec};
use inver_storage::{CommitPolicy, LogOptions};

const MESSAGES: u64 = 3_000;

/// Nearly everything that was written must be read from the disk.
fn cold(commit: CommitPolicy) -> Fixture {
    let options = LogOptions { commit, tail_cache_bytes_max: 1024, ..LogOptions::default() };
    Fixture::over(BrokerConfig::default(), options)
}

fn variants() -> impl Iterator<Item = (CommitPolicy, bool, bool)> {
    let policies = [CommitPolicy::Always, CommitPolicy::Os].into_iter();
    let restarts = policies.flat_map(|commit| [false, true].map(|restart| (commit, restart)));
    restarts.flat_map(|(commit, restart)| [false, true].map(|dead| (commit, restart, dead)))
}

/// Publishes messages in a batch each.
fn publish_singly(ns: &Namespace, name: &str, messages: u64) {
    let mut publisher = publisher(ns);
    let mut last = Completion::Now;
    for _ in 0..messages {
        publisher.publish(queue(name), &message(&[b'x'; 100])).unwrap();
        last = publisher.flush().unwrap();
    }
    committed(ns, last);
}

#[tokio::test]
async fn messages_that_are_on_the_disk_expire_in_time() {
    for (commit, restart, dead_letters) in variants() {
        let mut fixture = cold(commit);
        let ns = fixture.namespace();
        declare(&ns, "dead", durable(QueueLimits::default()));
        let dead_letter = dead_letter_to("dead").filter(|_| dead_letters);
        let limits = QueueLimits { message_ttl_ms: Some(300), dead_letter, ..QueueLimits::default() };
        declare(&ns, "q", durable(limits));
        publish_singly(&ns, "q", MESSAGES);
        drop(ns);
        if restart {
            fixture = fixture.restart();
        }
        let _housekeeping = fixture.housekeep();
        let ns = fixture.namespace();
        let (q, dead) = (ns.queue("q").unwrap(), ns.queue("dead").unwrap());
        until("all expired", || q.depth().ready == 0).await;
        let expected = if dead_letters { MESSAGES } else { 0 };
        until("all are dead-lettered", || dead.depth().ready == expected).await;
    }
}

#[tokio::test]
async fn length_limits_hold_although_the_head_is_on_the_disk() {
    let by_number = QueueLimits { messages_max: Some(100), ..QueueLimits::default() };
    let by_bytes = QueueLimits { bytes_max: Some(100 * 100), ..QueueLimits::default() };
    for limits in [by_number, by_bytes] {
        for (commit, restart, dead_letters) in variants() {
            let mut fixture = cold(commit);
            let ns = fixture.namespace();
            declare(&ns, "dead", durable(QueueLimits::default()));
            let dead_letter = dead_letter_to("dead").filter(|_| dead_letters);
            let spec: QueueSpec = durable(QueueLimits { dead_letter, ..limits.clone() });
            declare(&ns, "q", spec);
            publish_singly(&ns, "q", 100);
            drop(ns);
            if restart {
                fixture = fixture.restart();
            }
            let _housekeeping = fixture.housekeep();
            let ns = fixture.namespace();
            let q = ns.queue("q").unwrap();
            for _ in 0..3 {
                publish_singly(&ns, "q", 1_000);
                until("the limit holds", || q.depth().ready == 100).await;
            }
            let expected = if dead_letters { MESSAGES } else { 0 };
            let dead = ns.queue("dead").unwrap();
            until("all are dead-lettered", || dead.depth().ready == expected).await;
        }
    }
}
