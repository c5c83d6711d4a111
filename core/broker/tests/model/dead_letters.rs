//! Dead letters: their death records, and cycles.

use crate::fixture::*;
use inver_broker::{BindDestination, DeadLetter, QueueLimits, QueueSpec};

/// An escape of the queue's name in the death record was undone wrongly, so the cycle was not detected.
#[tokio::test]
async fn a_message_that_a_queue_dead_letters_to_itself_by_ttl_is_dropped() {
    for is_durable in [false, true] {
        let fixture = Fixture::new();
        let ns = fixture.namespace();
        let _housekeeping = fixture.housekeep();
        ns.declare_exchange("dlx", durable_exchange()).unwrap();
        let copies = declare(&ns, "copies", durable(QueueLimits::default()));
        for (n, name) in ["loop", r"loop\new", "loop\nnew", r"loop\\new", r"loop\"].into_iter().enumerate() {
            let limits = QueueLimits {
                message_ttl_ms: Some(1),
                dead_letter: Some(DeadLetter { exchange: "dlx".into(), routing_key: Some(b"k".to_vec()) }),
                ..QueueLimits::default()
            };
            let q = declare(&ns, name, QueueSpec { durable: is_durable, limits, ..QueueSpec::default() });
            for to in [name, "copies"] {
                ns.bind("dlx", BindDestination::Queue(to), b"k", &Default::default()).unwrap();
            }
            publish(&ns, queue(name), "x");
            until("the message is dead-lettered", || copies.depth().ready > n as u64).await;
            until("the cycle ends", || q.depth().ready == 0).await;
            assert_eq!(copies.depth().ready, n as u64 + 1, "{name:?} dead-letters to itself once");
            ns.unbind("dlx", BindDestination::Queue(name), b"k", &Default::default()).unwrap();
        }
    }
}
