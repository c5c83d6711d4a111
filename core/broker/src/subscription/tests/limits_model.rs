//! Limits against a plain model: random appends, checks, pulls, acknowledgements and requeues on a queue whose messages
//! are mostly on the disk. Every message is delivered or dropped, once and in order, and none for want of a reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use inver_storage::{CommitPolicy, LogOptions};
use proptest::prelude::*;

use super::fixture::{Fixture, TestQueue, dead_letter, until};
use crate::mailbox::Mailbox;
use crate::spec::{DeliveryId, QueueLimits};
use crate::subscription::{Consumer, ConsumerSpec};

const TTL_MS: u64 = 100;

#[derive(Clone, Debug)]
enum Act {
    Append {
        batches: usize,
        messages: usize,
    },
    Advance(u64),
    Check,
    Depth,
    /// Lets loads that are under way end.
    Load,
    Pull(usize),
    Ack,
    Requeue,
    Detach,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (1..6usize, 1..20usize).prop_map(|(batches, messages)| Act::Append { batches, messages }),
        2 => (1..60u64).prop_map(Act::Advance),
        4 => Just(Act::Check),
        1 => Just(Act::Depth),
        3 => Just(Act::Load),
        3 => (1..40usize).prop_map(Act::Pull),
        2 => Just(Act::Ack),
        1 => Just(Act::Requeue),
        1 => Just(Act::Detach),
    ];
    prop::collection::vec(act, 1..40)
}

fn limits() -> impl Strategy<Value = QueueLimits> {
    let bound = prop::option::of(5..80u64);
    (any::<bool>(), bound.clone(), bound, any::<bool>()).prop_map(|(ttl, messages_max, values_max, dead)| {
        QueueLimits {
            message_ttl_ms: ttl.then_some(TTL_MS),
            messages_max,
            bytes_max: values_max.map(|values| values * VALUE_BYTES as u64),
            dead_letter: dead_letter().filter(|_| dead),
            ..QueueLimits::default()
        }
    })
}

const VALUE_BYTES: usize = 50;

struct World {
    fixture: Fixture,
    queue: TestQueue,
    limits: QueueLimits,
    consumer: Option<(Arc<Mailbox>, Consumer)>,
    /// The time of each message.
    appended: Vec<i64>,
    unacked: Vec<DeliveryId>,
    acked: BTreeMap<u64, ()>,
}

impl World {
    fn new(limits: QueueLimits) -> World {
        let options =
            LogOptions { commit: CommitPolicy::Os, tail_cache_bytes_max: 1024, ..LogOptions::default() };
        let fixture = Fixture::with(options);
        let queue = fixture.queue(fixture.create(), limits.clone());
        let (appended, unacked, acked) = (Vec::new(), Vec::new(), BTreeMap::new());
        World { fixture, queue, limits, consumer: None, appended, unacked, acked }
    }

    async fn loaded(&self) {
        let is_loading =
            || self.queue.subscription.locked(|state| state.sources.iter().any(|source| source.is_loading()));
        until("loads end", || !is_loading()).await;
    }

    fn pull(&mut self, messages: usize) -> usize {
        let (_, consumer) = self.consumer.get_or_insert_with(|| {
            let mailbox = Mailbox::new();
            let spec = ConsumerSpec::new(mailbox.clone(), 1);
            (mailbox, self.queue.subscription.attach(spec).unwrap())
        });
        let mut got = Vec::new();
        consumer.pull(messages, usize::MAX, &mut got);
        for delivery in &got {
            assert!(!self.acked.contains_key(&delivery.id.offset), "{:?} came again", delivery.id);
            assert!(!self.unacked.contains(&delivery.id), "{:?} is unacknowledged", delivery.id);
            assert!(!self.is_dead_lettered(delivery.id.offset), "{:?} was dropped", delivery.id);
            self.unacked.push(delivery.id);
        }
        assert!(got.windows(2).all(|pair| pair[0].id < pair[1].id), "in order");
        got.len()
    }

    fn is_dead_lettered(&self, offset: u64) -> bool {
        self.queue.calls.dropped.lock().iter().any(|(dropped, _)| *dropped == offset)
    }

    fn ack(&mut self) {
        let Some((_, consumer)) = &self.consumer else { return };
        consumer.ack(&self.unacked).unwrap();
        self.acked.extend(self.unacked.drain(..).map(|id| (id.offset, ())));
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Append { batches, messages } => {
                self.queue.subscription.add_bytes(batches * messages * VALUE_BYTES);
                self.fixture.append(&self.queue, *batches, *messages, VALUE_BYTES);
                self.appended.extend(vec![self.fixture.now_ms(); batches * messages]);
            }
            Act::Advance(ms) => self.fixture.advance_ms(*ms),
            Act::Check => drop(self.queue.check(&self.fixture, true)),
            Act::Depth => drop(self.queue.subscription.depth()),
            Act::Load => self.loaded().await,
            Act::Pull(messages) => drop(self.pull(*messages)),
            Act::Ack => self.ack(),
            Act::Requeue => {
                if let Some((_, consumer)) = &self.consumer {
                    consumer.requeue(&self.unacked).unwrap();
                    self.unacked.clear();
                }
            }
            Act::Detach => {
                self.consumer = None;
                self.unacked.clear();
            }
        }
    }

    /// All that is left is delivered; then every message was acknowledged or dropped for a reason.
    async fn end(mut self) {
        self.ack();
        loop {
            self.loaded().await;
            self.queue.check(&self.fixture, true);
            self.loaded().await;
            self.pull(usize::MAX);
            self.ack();
            if self.queue.ready() == 0 {
                break;
            }
        }
        let dead: Vec<u64> = self.queue.calls.dropped.lock().iter().map(|(offset, _)| *offset).collect();
        let now_ms = self.fixture.now_ms();
        let is_bounded = self.limits.messages_max.is_some() || self.limits.bytes_max.is_some();
        for (offset, at_ms) in self.appended.iter().enumerate() {
            let offset = offset as u64;
            let (acked, dropped) = (self.acked.contains_key(&offset), dead.contains(&offset));
            if self.limits.dead_letter.is_some() {
                assert!(acked ^ dropped, "{offset}: acknowledged {acked}, dead-lettered {dropped}");
            } else if !acked && !is_bounded {
                let expired = self.limits.message_ttl_ms.is_some() && at_ms + TTL_MS as i64 <= now_ms;
                assert!(expired, "{offset} is lost");
            }
        }
        let mut once = dead.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), dead.len(), "dead-lettered twice");
        let position = self.queue.subscription.locked(|state| state.positions()[0].1.0);
        assert_eq!(position, self.appended.len() as u64, "all is acknowledged in the log");
    }
}

#[test]
fn every_message_is_delivered_or_dropped_for_a_reason() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let config = ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(200) };
    proptest!(config, |(limits in limits(), acts in acts())| {
        runtime.block_on(async {
            let mut world = World::new(limits);
            for act in &acts {
                world.act(act).await;
            }
            world.end().await;
        });
    });
}
