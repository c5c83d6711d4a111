//! The queues, exchanges and topics of a simulation, and what each of them promises.

use inver_broker::{
    Arguments, BindDestination, DeadLetter, ExchangeKind, ExchangeSpec, HUB, Mode, Namespace, QueueLimits,
    QueueSpec, Start, TopicSpec,
};

use crate::model::{Place, Terms};

pub(crate) const PLAIN: usize = 0;
pub(crate) const SINGLE: usize = 1;
pub(crate) const LIMITED: usize = 2;
pub(crate) const EXPIRING: usize = 3;
pub(crate) const SHORT: usize = 4;
pub(crate) const MEMORY: usize = 5;
/// The queues to which clients publish by name.
pub(crate) const QUEUES: [&str; 6] = ["plain", "single", "limited", "expiring", "short", "memory"];
/// Where dropped messages are published.
pub(crate) const DEAD: usize = 6;
/// Bound to the addresses of wills.
pub(crate) const WILLS: usize = 7;
/// The two subscriptions of the topic, a place for each of its two partitions.
pub(crate) const SHARED: usize = 8;
pub(crate) const KEYED: usize = 10;
/// The shared subscription of sessions.
pub(crate) const GROUP: usize = 12;
/// The inboxes of sessions that outlive their connections.
pub(crate) const INBOXES: usize = 13;

pub(crate) const FANOUT: &str = "fan";
/// The queues that are bound to the exchange, which changes.
pub(crate) const BOUND: [usize; 3] = [PLAIN, LIMITED, EXPIRING];
pub(crate) const TOPIC: &str = "topic";
pub(crate) const PARTITIONS: u32 = 2;
pub(crate) const TTL_MS: i64 = 20_000;
pub(crate) const SHORT_MAX: u64 = 4;
const DELIVERIES_MAX: u32 = 1;

/// All places without messages.
pub(crate) fn places() -> Vec<Place> {
    let durable = Terms { is_durable: true, ..Terms::default() };
    let plain = Terms { is_ordered: true, has_counts: true, ..durable };
    let inbox = Terms { is_ordered: true, ..durable };
    let dropping = Terms { has_dead_letters: true, ..plain };
    let keyed = Terms { is_keyed: true, has_counts: true, ..durable };
    let all = [
        ("plain", plain),
        ("single", Terms { has_single_active: true, ..plain }),
        ("limited", Terms { deliveries_max: Some(DELIVERIES_MAX), ..dropping }),
        ("expiring", Terms { ttl_ms: Some(TTL_MS), ..dropping }),
        ("short", Terms { messages_max: Some(SHORT_MAX), ..dropping }),
        ("memory", Terms { is_ordered: true, has_counts: true, ..Terms::default() }),
        ("dead", durable),
        ("wills", durable),
        ("shared/0", plain),
        ("shared/1", plain),
        ("keyed/0", keyed),
        ("keyed/1", keyed),
        ("group", plain),
        ("inbox/a", inbox),
        ("inbox/b", inbox),
    ];
    all.into_iter().map(|(name, terms)| Place::new(name, terms)).collect()
}

fn spec_of(queue: usize) -> QueueSpec {
    let mut limits = QueueLimits::default();
    if [LIMITED, EXPIRING, SHORT].contains(&queue) {
        limits.dead_letter =
            Some(DeadLetter { exchange: String::new(), routing_key: Some(b"dead".to_vec()) });
    }
    match queue {
        LIMITED => limits.deliveries_max = Some(DELIVERIES_MAX),
        EXPIRING => limits.message_ttl_ms = Some(TTL_MS as u64),
        SHORT => limits.messages_max = Some(SHORT_MAX),
        _ => {}
    }
    QueueSpec { durable: queue != MEMORY, single_active: queue == SINGLE, limits, ..QueueSpec::default() }
}

/// Declares the queue in memory, which ended with the process.
pub(crate) fn declare_transient(namespace: &Namespace) {
    namespace.declare_queue(QUEUES[MEMORY], spec_of(MEMORY)).unwrap();
}

/// Creates all that lasts.
pub(crate) fn create(namespace: &Namespace) {
    for (at, name) in QUEUES.iter().enumerate() {
        namespace.declare_queue(name, spec_of(at)).unwrap();
    }
    for (name, at) in [("dead", DEAD), ("wills", WILLS)] {
        namespace.declare_queue(name, spec_of(at)).unwrap();
    }
    let fanout = ExchangeSpec {
        kind: ExchangeKind::Fanout,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Arguments::new(),
    };
    namespace.declare_exchange(FANOUT, fanout).unwrap();
    for at in BOUND {
        let _ = namespace.bind(FANOUT, BindDestination::Queue(QUEUES[at]), b"", &Arguments::new()).unwrap();
    }
    let _ = namespace.bind(HUB, BindDestination::Queue("wills"), b"w.*", &Arguments::new()).unwrap();
    let spec = TopicSpec { partitions: PARTITIONS, config: Default::default() };
    let (topic, _) = namespace.create_topic(TOPIC, &spec).unwrap();
    namespace.subscribe(&topic, "shared", Mode::Shared, true, Start::Earliest).unwrap();
    namespace.subscribe(&topic, "keyed", Mode::KeyShared, true, Start::Earliest).unwrap();
    namespace.log().wait_committed_blocking(namespace.log().submitted()).unwrap();
}
