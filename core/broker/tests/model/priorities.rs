//! Queues whose messages have priorities, against a plain model: of what waits, the oldest of the highest priority comes
//! next, whatever was returned, and after a restart too.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fixture::*;
use inver_broker::message::Property;
use inver_broker::{
    BrokerConfig, Consumer, ConsumerSpec, DeliveryId, HeaderWriter, Mailbox, Namespace, QueueLimits,
    QueueSpec, Value,
};
use proptest::prelude::*;

const MAX: u8 = 5;

fn spec(durable: bool, limits: QueueLimits) -> QueueSpec {
    let arguments = [("x-max-priority".to_owned(), Value::Int(MAX.into()))].into();
    QueueSpec { durable, limits, arguments, ..QueueSpec::default() }
}

/// Publishes numbers with priorities, as one write batch; a priority of `None` is not given.
fn publish_all(namespace: &Namespace, messages: &[(u64, Option<u8>)]) {
    let mut publisher = publisher(namespace);
    for (number, priority) in messages {
        let mut headers = HeaderWriter::default();
        headers.begin("test", None);
        if let Some(priority) = priority {
            headers.put(Property::Priority(*priority));
        }
        let value = number.to_string();
        let mut message = message(value.as_bytes());
        message.headers = headers.headers();
        message.timestamp_ms = namespace.clock().now_ms();
        publisher.publish(queue("q"), &message).unwrap();
    }
    committed(namespace, publisher.flush().unwrap());
}

fn numbers(priorities: &[u8]) -> Vec<(u64, Option<u8>)> {
    (0..).zip(priorities.iter().map(|priority| Some(*priority))).collect()
}

#[derive(Clone, Debug)]
enum Act {
    Push(Vec<Option<u8>>),
    Pull { consumer: prop::sample::Index, messages_max: u8 },
    Ack { consumer: prop::sample::Index, which: prop::sample::Index },
    Requeue { consumer: prop::sample::Index, which: prop::sample::Index },
    Detach(prop::sample::Index),
    Purge,
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<prop::sample::Index>;
    let priority = prop_oneof![1 => Just(None), 4 => (0..8u8).prop_map(Some)];
    let act = prop_oneof![
        12 => prop::collection::vec(priority, 1..12).prop_map(Act::Push),
        18 => (index(), 0..12u8).prop_map(|(consumer, messages_max)| Act::Pull { consumer, messages_max }),
        12 => (index(), index()).prop_map(|(consumer, which)| Act::Ack { consumer, which }),
        9 => (index(), index()).prop_map(|(consumer, which)| Act::Requeue { consumer, which }),
        3 => index().prop_map(Act::Detach),
        1 => Just(Act::Purge),
        1 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 1..60)
}

/// The rank and the number of a message: the order in which they come out.
type Place = (u8, u64);

/// The unacknowledged messages of a consumer, and how often each was delivered.
type Unacked = BTreeMap<Place, (DeliveryId, u32)>;

struct World {
    fixture: Fixture,
    durable: bool,
    pushed: u64,
    /// What waits, and how often each was delivered at least.
    waits: BTreeMap<Place, u32>,
    consumers: Vec<(Arc<Mailbox>, Consumer, Unacked)>,
}

impl World {
    fn new(durable: bool) -> World {
        let fixture = Fixture::new();
        declare(&fixture.namespace(), "q", spec(durable, QueueLimits::default()));
        let mut world = World { fixture, durable, pushed: 0, waits: BTreeMap::new(), consumers: Vec::new() };
        world.attach_all();
        world
    }

    fn attach_all(&mut self) {
        let queue = self.fixture.namespace().queue("q").unwrap();
        while self.consumers.len() < 2 {
            let (mailbox, consumer) = attach(queue.subscription());
            self.consumers.push((mailbox, consumer, BTreeMap::new()));
        }
    }

    fn act(mut self, act: &Act) -> World {
        match act {
            Act::Push(priorities) => {
                let messages: Vec<_> = (self.pushed..).zip(priorities.iter().copied()).collect();
                publish_all(&self.fixture.namespace(), &messages);
                self.pushed += messages.len() as u64;
                let place = |(number, priority): (u64, Option<u8>)| {
                    ((MAX - priority.unwrap_or(0).min(MAX), number), 0)
                };
                self.waits.extend(messages.into_iter().map(place));
            }
            Act::Pull { consumer, messages_max } => {
                let at = consumer.index(self.consumers.len());
                let mut got = Vec::new();
                self.consumers[at].1.pull(usize::from(*messages_max), usize::MAX, &mut got);
                for delivery in got {
                    let number: u64 = values(std::slice::from_ref(&delivery))[0].parse().unwrap();
                    let (place, count) = self.waits.pop_first().expect("a message that waits");
                    assert_eq!(number, place.1, "in the order of priorities");
                    assert!(delivery.redelivered >= count, "message {number}");
                    self.consumers[at].2.insert(place, (delivery.id, delivery.redelivered));
                }
            }
            Act::Ack { consumer, which } | Act::Requeue { consumer, which } => {
                let at = consumer.index(self.consumers.len());
                let (_, consumer, unacked) = &mut self.consumers[at];
                if unacked.is_empty() {
                    return self;
                }
                let place = *unacked.keys().nth(which.index(unacked.len())).unwrap();
                let (id, count) = unacked.remove(&place).unwrap();
                if matches!(act, Act::Ack { .. }) {
                    committed(&self.fixture.namespace(), consumer.ack(&[id]).unwrap());
                } else {
                    committed(&self.fixture.namespace(), consumer.requeue(&[id]).unwrap());
                    self.waits.insert(place, count + 1);
                }
            }
            Act::Detach(which) => {
                let at = which.index(self.consumers.len());
                let (_, consumer, unacked) = self.consumers.remove(at);
                drop(consumer);
                self.waits.extend(unacked.into_iter().map(|(place, (_, count))| (place, count + 1)));
                self.attach_all();
            }
            Act::Purge => {
                let queue = self.fixture.namespace().queue("q").unwrap();
                let (count, completion) = queue.subscription().purge().unwrap();
                assert_eq!(count, self.waits.len() as u64);
                committed(&self.fixture.namespace(), completion);
                self.waits.clear();
            }
            Act::Restart if self.durable => {
                for (_, consumer, unacked) in self.consumers.drain(..) {
                    drop(consumer);
                    self.waits.extend(unacked.into_iter().map(|(place, (_, count))| (place, count + 1)));
                }
                self.fixture = self.fixture.restart();
                self.attach_all();
            }
            Act::Restart => {}
        }
        let depth = self.fixture.namespace().queue("q").unwrap().depth();
        let unacked: usize = self.consumers.iter().map(|(_, _, unacked)| unacked.len()).sum();
        assert_eq!((depth.ready, depth.unacked), (self.waits.len() as u64, unacked as u64), "after {act:?}");
        self
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn queues_with_priorities_equal_a_plain_model(acts in acts(), durable: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let mut world = World::new(durable);
        for act in &acts {
            world = world.act(act);
        }
    }
}

#[tokio::test]
async fn a_full_queue_drops_its_head_which_is_of_the_highest_priority() {
    for durable in [false, true] {
        for dead_letter in [None, dead_letter_to("dead")] {
            let fixture = Fixture::new();
            let ns = fixture.namespace();
            let dead = declare(&ns, "dead", QueueSpec::default());
            let drops = dead_letter.is_some();
            let limits = QueueLimits { messages_max: Some(2), dead_letter, ..QueueLimits::default() };
            let q = declare(&ns, "q", spec(durable, limits));
            publish_all(&ns, &numbers(&[5, 1, 0, 4]));
            assert_eq!(q.depth().ready, 2);
            let (mailbox, mut consumer) = attach(q.subscription());
            assert_eq!(values(&take(&mailbox, &mut consumer, 2).await), ["1", "2"]);
            assert_eq!(dead.depth().ready, if drops { 2 } else { 0 });
        }
    }
}

#[tokio::test]
async fn messages_expire_in_the_order_of_priorities() {
    let (fixture, clock) = Fixture::manual();
    let ns = fixture.namespace();
    let limits = QueueLimits { message_ttl_ms: Some(1000), ..QueueLimits::default() };
    let q = declare(&ns, "q", spec(true, limits));
    let _housekeeping = fixture.housekeep();
    publish_all(&ns, &numbers(&[0, 3, 1]));
    clock.advance(std::time::Duration::from_millis(1500));
    until("all are expired", || q.counts().ready == 0).await;
}

/// Most has to be read from the disk before the first message can be given out.
#[tokio::test]
async fn a_long_queue_keeps_its_order_across_a_restart() {
    const MESSAGES: u64 = 20_000;
    let fixture = Fixture::cold();
    let ns = fixture.namespace();
    declare(&ns, "q", spec(true, QueueLimits::default()));
    for from in (0..MESSAGES).step_by(1000) {
        let priority = |number: u64| (number, Some((number * 7 % 6) as u8));
        publish_all(&ns, &(from..from + 1000).map(priority).collect::<Vec<_>>());
    }
    drop(ns);
    let fixture = fixture.restart();
    let ns = fixture.namespace();
    let in_log = stored(&ns, "q").into_iter().map(|(_, value)| value.unwrap());
    assert!(in_log.eq((0..MESSAGES).map(|number| number.to_string())), "readers of the log see its order");
    let (mailbox, mut consumer) = attach(ns.queue("q").unwrap().subscription());
    let got = values(&take(&mailbox, &mut consumer, MESSAGES as usize).await);
    let mut expected: Vec<u64> = (0..MESSAGES).collect();
    expected.sort_by_key(|number| (5 - number * 7 % 6, *number));
    assert!(got.iter().map(|value| value.parse::<u64>().unwrap()).eq(expected));
}

/// Beyond its memory a queue in memory is in the order of arrival; all messages come once.
#[tokio::test]
async fn a_queue_in_memory_spills_and_loses_nothing() {
    let config = BrokerConfig { queue_memory_bytes_max: 2000, ..BrokerConfig::default() };
    let fixture = Fixture::with(config);
    let ns = fixture.namespace();
    let q = declare(&ns, "q", spec(false, QueueLimits::default()));
    let priority = |number: u64| (number, Some((number % 4) as u8));
    publish_all(&ns, &(0..10).map(priority).collect::<Vec<_>>());
    for number in 10..500 {
        publish_all(&ns, &[priority(number)]);
    }
    let (mailbox, mut consumer) = attach(q.subscription());
    let mut got = Vec::new();
    while got.len() < 500 {
        let some = take(&mailbox, &mut consumer, 10).await;
        let _ = consumer.ack(&some.iter().map(|d| d.id).collect::<Vec<_>>()).unwrap();
        got.extend(values(&some).iter().map(|value| value.parse::<u64>().unwrap()));
    }
    assert_eq!(got[0], 3, "the highest of those in memory");
    got.sort_unstable();
    assert!(got.into_iter().eq(0..500));
}

/// One pull read all that had arrived.
#[tokio::test]
async fn one_who_asks_once_reads_a_part_of_a_long_queue_at_a_time() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", spec(true, QueueLimits::default()));
    for from in (0..10_000).step_by(1000) {
        publish_all(
            &ns,
            &(from..from + 1000).map(|number| (number, Some((number % 6) as u8))).collect::<Vec<_>>(),
        );
    }
    let spec = ConsumerSpec { passive: true, ..ConsumerSpec::new(Mailbox::new(), 1) };
    let mut getter = q.subscription().attach(spec).unwrap();
    let mut got = Vec::new();
    assert!(getter.pull(1, usize::MAX, &mut got).more && got.is_empty());
    while got.is_empty() {
        assert!(getter.pull(1, usize::MAX, &mut got).more);
    }
    assert_eq!(values(&got), ["5"]);
}
