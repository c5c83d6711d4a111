//! Subscriptions against a plain model: the set of ready messages and the unacknowledged ones of each consumer. Random
//! publishes, pulls, acknowledgements, requeues, purges, attaches and detaches: no message is lost or unacknowledged at
//! two consumers, and the order holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fixture::*;
use inver_broker::{
    BrokerConfig, Consumer, DeliveryId, Mailbox, Mode, Namespace, QueueLimits, QueueSpec, Start,
    Subscription, TopicSpec,
};
use inver_storage::BatchBuilder;
use proptest::prelude::*;
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Clone, Debug)]
enum Act {
    Push(u8),
    Pull { consumer: prop::sample::Index, messages_max: u8 },
    Ack { consumer: prop::sample::Index, which: prop::sample::Index },
    Requeue { consumer: prop::sample::Index, which: prop::sample::Index },
    Attach,
    Detach(prop::sample::Index),
    Purge,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<prop::sample::Index>;
    let act = prop_oneof![
        4 => (1..20u8).prop_map(Act::Push),
        6 => (index(), 0..12u8).prop_map(|(consumer, messages_max)| Act::Pull { consumer, messages_max }),
        4 => (index(), index()).prop_map(|(consumer, which)| Act::Ack { consumer, which }),
        3 => (index(), index()).prop_map(|(consumer, which)| Act::Requeue { consumer, which }),
        2 => Just(Act::Attach),
        1 => index().prop_map(Act::Detach),
        1 => prop::bool::weighted(0.2).prop_map(|purge| if purge { Act::Purge } else { Act::Push(1) }),
    ];
    prop::collection::vec(act, 1..60)
}

/// The unacknowledged messages of a consumer: number → (id, how often it was requeued).
type Unacked = BTreeMap<u64, (DeliveryId, u32)>;

struct World<'a> {
    namespace: &'a Namespace,
    queue: Option<String>,
    topic: Option<Arc<inver_broker::Topic>>,
    subscription: Arc<Subscription>,
    mode: Mode,
    keys: u64,
    pushed: u64,
    /// Ready messages: number → how often each was requeued.
    waits: BTreeMap<u64, u32>,
    consumers: Vec<(Arc<Mailbox>, Consumer, Unacked)>,
}

impl World<'_> {
    fn key(&self, number: u64) -> u64 {
        number.wrapping_mul(7) % self.keys
    }

    fn push(&mut self, count: u8) {
        let numbers: Vec<u64> = (self.pushed..self.pushed + u64::from(count)).collect();
        self.pushed += u64::from(count);
        self.waits.extend(numbers.iter().map(|n| (*n, 0)));
        if let Some(topic) = &self.topic {
            let mut builder = BatchBuilder::new(0);
            for n in &numbers {
                let key = self.key(*n).to_string();
                builder.push(
                    inver_broker::now_ms(),
                    Some(key.as_bytes()),
                    &[],
                    Some(n.to_string().as_bytes()),
                );
            }
            let partition = topic.partition(0).unwrap();
            let submitted = self.namespace.produce(topic, &partition, builder.finish()).unwrap();
            committed(self.namespace, Some(submitted.lsn));
        } else if let Some(name) = &self.queue {
            let mut publisher = publisher(self.namespace);
            for n in &numbers {
                publisher.publish(queue(name), &message(n.to_string().as_bytes())).unwrap();
            }
            committed(self.namespace, publisher.flush().unwrap());
        }
    }

    fn pull(&mut self, at: usize, messages_max: usize) {
        let mut got = Vec::new();
        self.consumers[at].1.pull(messages_max, usize::MAX, &mut got);
        assert!(got.len() <= messages_max);
        for delivery in got {
            let number: u64 = values(std::slice::from_ref(&delivery))[0].parse().unwrap();
            let count = self.waits.remove(&number).expect("a ready message, not an unacknowledged one");
            assert_eq!(delivery.redelivered, count, "message {number}");
            let passed_over = self.waits.keys().take_while(|n| **n < number);
            match self.mode {
                Mode::KeyShared => {
                    let key = self.key(number);
                    assert!(passed_over.copied().all(|n| self.key(n) != key), "{number} overtook its key");
                    let elsewhere = self.consumers.iter().enumerate().filter(|(i, _)| *i != at);
                    let mut holding = elsewhere.flat_map(|(_, (_, _, unacked))| unacked.keys());
                    assert!(holding.all(|n| self.key(*n) != key), "the key of {number} is on two consumers");
                }
                _ => assert_eq!(passed_over.count(), 0, "{number} overtook others"),
            }
            self.consumers[at].2.insert(number, (delivery.id, count));
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Push(count) => self.push(*count),
            Act::Attach => {
                if self.consumers.len() < 4 {
                    let (mailbox, consumer) = attach(&self.subscription);
                    self.consumers.push((mailbox, consumer, Unacked::new()));
                }
            }
            Act::Purge => {
                let (count, lsn) = self.subscription.purge().unwrap();
                assert_eq!(count, self.waits.len() as u64);
                committed(self.namespace, lsn);
                self.waits.clear();
            }
            _ if self.consumers.is_empty() => {}
            Act::Pull { consumer, messages_max } => {
                self.pull(consumer.index(self.consumers.len()), usize::from(*messages_max));
            }
            Act::Detach(which) => {
                let (_, consumer, unacked) = self.consumers.remove(which.index(self.consumers.len()));
                drop(consumer);
                self.waits.extend(unacked.into_iter().map(|(n, (_, count))| (n, count + 1)));
            }
            Act::Ack { consumer, which } | Act::Requeue { consumer, which } => {
                let at = consumer.index(self.consumers.len());
                let (_, consumer, unacked) = &mut self.consumers[at];
                if unacked.is_empty() {
                    return;
                }
                let number = *unacked.keys().nth(which.index(unacked.len())).unwrap();
                let (id, count) = unacked.remove(&number).unwrap();
                if matches!(act, Act::Ack { .. }) {
                    committed(self.namespace, consumer.ack(&[id]).unwrap());
                } else {
                    let _ = consumer.requeue(&[id]).unwrap();
                    self.waits.insert(number, count + 1);
                }
            }
        }
        let depth = self.subscription.depth();
        let unacked: usize = self.consumers.iter().map(|(_, _, unacked)| unacked.len()).sum();
        assert_eq!((depth.ready, depth.unacked), (self.waits.len() as u64, unacked as u64), "after {act:?}");
        assert_eq!(depth.consumers, self.consumers.len());
    }

    /// All ready messages are delivered to consumers that pull only when they are woken, or got messages before.
    fn drain(&mut self) {
        for _ in self.consumers.len()..2 {
            self.act(&Act::Attach);
        }
        let mut eager: BTreeSet<usize> = (0..self.consumers.len()).collect();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !self.waits.is_empty() {
            assert!(
                std::time::Instant::now() < until,
                "{} are never delivered: {:?}",
                self.waits.len(),
                self.waits
            );
            let mut tokens = Vec::new();
            for at in 0..self.consumers.len() {
                self.consumers[at].0.drain(&mut tokens);
                if !tokens.is_empty() || eager.remove(&at) {
                    let before = self.waits.len();
                    self.pull(at, 5);
                    if self.waits.len() < before {
                        eager.insert(at);
                    }
                }
            }
            std::thread::yield_now();
        }
    }
}

/// Queues in memory spill to the log from a few messages on.
fn fixture() -> Fixture {
    Fixture::with(BrokerConfig { queue_memory_bytes_max: 400, ..BrokerConfig::default() })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Runs housekeeping on a thread of its own until the result is dropped.
fn housekeep(fixture: &Fixture) -> DropGuard {
    let shutdown = CancellationToken::new();
    let guard = shutdown.clone().drop_guard();
    let broker = fixture.broker.clone();
    std::thread::spawn(move || runtime().block_on(broker.housekeep(shutdown)));
    guard
}

/// `has_ttl`: its messages have a long TTL, so that housekeeping checks the queue whenever one is requeued.
fn run(fixture: &Fixture, durable: bool, single_active: bool, has_ttl: bool, acts: &[Act]) {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    let namespace = fixture.namespace();
    let name = format!("q{}", NAMES.fetch_add(1, Ordering::Relaxed));
    let limits = QueueLimits { message_ttl_ms: has_ttl.then_some(3_600_000), ..QueueLimits::default() };
    let spec = QueueSpec { durable, single_active, limits, ..QueueSpec::default() };
    let it = namespace.declare_queue(&name, spec).unwrap().it;
    let mut world = World {
        namespace: &namespace,
        queue: Some(name),
        topic: None,
        subscription: it.subscription().clone(),
        mode: it.subscription().mode(),
        keys: 1,
        pushed: 0,
        waits: BTreeMap::new(),
        consumers: Vec::new(),
    };
    acts.iter().for_each(|act| world.act(act));
    world.drain();
}

#[test]
fn durable_queues_and_spilling_queues_in_memory_agree_with_the_model() {
    let (runtime, fixture) = (runtime(), fixture());
    let _entered = runtime.enter();
    let _housekeeping = housekeep(&fixture);
    proptest!(
        ProptestConfig::with_cases(160),
        |(durable: bool, single_active: bool, has_ttl: bool, acts in acts())| {
            run(&fixture, durable, single_active, has_ttl, &acts);
        }
    );
}

#[test]
fn key_shared_subscriptions_agree_with_the_model() {
    let (runtime, fixture) = (runtime(), fixture());
    let _entered = runtime.enter();
    let names = AtomicU64::new(0);
    proptest!(ProptestConfig::with_cases(80), |(keys in 1..6u64, acts in acts())| {
        let namespace = fixture.namespace();
        let name = format!("t{}", names.fetch_add(1, Ordering::Relaxed));
        let (topic, _) =
            namespace.create_topic(&name, &TopicSpec { partitions: 1, config: Default::default() }).unwrap();
        let subscription = namespace.subscribe(&topic, "s", Mode::KeyShared, true, Start::Earliest).unwrap();
        let mut world = World {
            namespace: &namespace,
            queue: None,
            topic: Some(topic),
            subscription,
            mode: Mode::KeyShared,
            keys,
            pushed: 0,
            waits: BTreeMap::new(),
            consumers: Vec::new(),
        };
        acts.iter().for_each(|act| world.act(act));
        world.drain();
    });
}
