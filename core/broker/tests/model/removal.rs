//! What is removed from the topology: the log has it first. A rejected removal changes nothing, an acknowledged one holds
//! after the process was killed or the power was lost, one that was not acknowledged happened as a whole or not at all.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use crate::fixture::*;
use bytes::Bytes;
use inver_broker::{
    BindDestination, BindError, Broker, BrokerConfig, Completion, ExchangeError, ExchangeKind, ExchangeSpec,
    Namespace, QueueError, QueueLimits, Target,
};
use inver_storage::medium::fake::{FakeMedium, Fault, Random};
use inver_storage::{Log, LogOptions, SystemClock};

fn open(medium: &FakeMedium, options: LogOptions) -> Broker {
    let log = Log::open_on(Arc::new(medium.clone()), Arc::new(SystemClock), options).expect("the log opens");
    Broker::open(log, BrokerConfig::default()).expect("the broker opens")
}

fn auto_delete_exchange() -> ExchangeSpec {
    ExchangeSpec { kind: ExchangeKind::Fanout, auto_delete: true, ..durable_exchange() }
}

fn bind(namespace: &Namespace, source: &str, queue: &str, key: &str) {
    let to = BindDestination::Queue(queue);
    committed(namespace, namespace.bind(source, to, key.as_bytes(), &Default::default()).unwrap());
}

fn to<'a>(exchange: &'a str, key: &'a str) -> Target<'a> {
    Target::Exchange { name: exchange, routing_key: key.as_bytes(), more_keys: &[] }
}

/// A queue, an exchange and a binding were gone from memory though the log had rejected their removal, and came back with
/// the next start.
#[tokio::test]
async fn a_rejected_removal_changes_nothing() {
    let medium = FakeMedium::new(11);
    let broker = open(&medium, LogOptions::default());
    let ns = broker.default_namespace();
    for name in ["q", "r"] {
        declare(&ns, name, durable(QueueLimits::default()));
    }
    committed(&ns, ns.declare_exchange("e", durable_exchange()).unwrap().completion);
    committed(&ns, ns.declare_exchange("auto", auto_delete_exchange()).unwrap().completion);
    bind(&ns, "e", "q", "k");
    bind(&ns, "auto", "q", "");
    bind(&ns, "e", "r", "k");
    medium.schedule(0, Fault::Fail(ErrorKind::StorageFull));
    let lsn = broker.put_state("t", b"k", Bytes::from_static(b"v")).unwrap();
    broker.log().wait_committed(lsn).await.expect_err("the write failed");

    assert!(matches!(ns.delete_queue("q", false, false), Err(QueueError::Log(_))));
    assert!(matches!(ns.delete_exchange("e", false), Err(ExchangeError::Log(_))));
    for (source, key) in [("e", "k"), ("auto", "")] {
        let unbound = ns.unbind(source, BindDestination::Queue("q"), key.as_bytes(), &Default::default());
        assert!(matches!(unbound, Err(BindError::Log(_))));
    }
    let is_as_before = |ns: &Namespace| {
        let queues: Vec<_> = ns.queues().iter().map(|q| q.name().to_owned()).collect();
        assert_eq!(queues, ["q", "r"]);
        assert_eq!(ns.exchange("e").map(|e| e.binding_count()), Some(2));
        assert_eq!(ns.exchange("auto").map(|e| e.binding_count()), Some(1));
        let mut p = publisher(ns);
        let routed = |to| p.publish(to, &message(b"x")).unwrap().destinations;
        assert_eq!([to("e", "k"), to("auto", ""), queue("q")].map(routed), [2, 1, 1]);
    };
    is_as_before(&ns);
    drop((ns, broker));
    medium.kill();
    is_as_before(&open(&medium, LogOptions::default()).default_namespace());
}

/// The bindings of one object that was deleted did not fit one entry, so it could not be deleted at all.
#[test]
fn an_object_with_more_bindings_than_an_entry_holds_is_removed() {
    const BINDINGS: usize = 9000;
    let medium = FakeMedium::new(12);
    let options = LogOptions { entry_bytes_max: 64 * 1024, ..LogOptions::default() };
    let broker = open(&medium, options.clone());
    let ns = broker.default_namespace();
    for exchange in ["e", "f"] {
        committed(&ns, ns.declare_exchange(exchange, durable_exchange()).unwrap().completion);
    }
    declare(&ns, "q", durable(QueueLimits::default()));
    let mut last = Completion::Now;
    for n in 0..BINDINGS {
        for exchange in ["e", "f"] {
            let key = format!("{n}");
            let bound = ns.bind(exchange, BindDestination::Queue("q"), key.as_bytes(), &Default::default());
            last = bound.unwrap();
        }
    }
    committed(&ns, last);
    committed(&ns, ns.delete_exchange("e", false).unwrap());
    assert_eq!(ns.exchange("f").unwrap().binding_count(), BINDINGS);
    let (_, deleted) = ns.delete_queue("q", false, false).unwrap();
    committed(&ns, deleted);
    assert_eq!(ns.exchange("f").unwrap().binding_count(), 0);
    drop((ns, broker));
    medium.kill();
    let ns = open(&medium, options).default_namespace();
    assert!(ns.queue("q").is_none() && ns.exchange("e").is_none());
    declare(&ns, "q", durable(QueueLimits::default()));
    assert_eq!(ns.exchange("f").unwrap().binding_count(), 0);
}

/// The durable part of a topology, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Topology {
    queues: Vec<String>,
    exchanges: Vec<String>,
    /// Source, queue and key, with how often.
    bindings: BTreeMap<(String, String, String), usize>,
}

fn topology(namespace: &Namespace) -> Topology {
    let mut found = Topology::default();
    for queue in namespace.queues() {
        found.queues.push(queue.name().to_owned());
        for binding in namespace.bindings_to_queue(&queue, 0, usize::MAX).0 {
            let key = String::from_utf8_lossy(&binding.key).into_owned();
            let of = (binding.source.name().to_owned(), queue.name().to_owned(), key);
            *found.bindings.entry(of).or_default() += 1;
        }
    }
    let own = namespace.exchanges().into_iter().map(|e| e.name().to_owned());
    found.exchanges.extend(own.filter(|name| !name.starts_with("amq.")));
    found
}

/// One random change; its completion.
fn change(namespace: &Namespace, random: &mut Random) -> Option<Completion> {
    let queue = format!("q{}", random.below(3));
    let exchange = format!("e{}", random.below(3));
    let key = format!("k{}", random.below(2));
    let to = BindDestination::Queue(&queue);
    match random.below(8) {
        0 => Some(namespace.declare_queue(&queue, durable(QueueLimits::default())).ok()?.completion),
        1 => {
            let spec = if exchange == "e0" { auto_delete_exchange() } else { durable_exchange() };
            Some(namespace.declare_exchange(&exchange, spec).ok()?.completion)
        }
        2..=4 => namespace.bind(&exchange, to, key.as_bytes(), &Default::default()).ok(),
        5 => namespace.unbind(&exchange, to, key.as_bytes(), &Default::default()).ok(),
        6 => Some(namespace.delete_queue(&queue, false, false).ok()?.1),
        _ => namespace.delete_exchange(&exchange, false).ok(),
    }
}

/// The process is stopped in the middle of a write, and goes on with what the medium kept: the topology is one that was
/// there at some instant, not before the last change that was acknowledged.
#[test]
fn acknowledged_removals_hold_whenever_the_process_stops() {
    for seed in 0..20 {
        let medium = FakeMedium::new(seed);
        let mut random = Random::new(seed);
        for life in 0..3 {
            let broker = open(&medium, LogOptions::default());
            let ns = broker.default_namespace();
            // Each state since the last one that is certain, with the position that makes it so.
            let mut states = vec![(None, topology(&ns))];
            medium.schedule(random.below(60), Fault::Stop);
            loop {
                let Some(completion) = change(&ns, &mut random) else {
                    if broker.log().failure().is_some() {
                        break;
                    }
                    continue;
                };
                let lsn = completion.lsn();
                // What was there already may be certain long before the changes that came after it.
                let last = states.last().and_then(|(lsn, _)| *lsn);
                states.push((lsn.max(last), topology(&ns)));
                if random.below(2) == 0 {
                    continue;
                }
                if let Some(lsn) = lsn {
                    if broker.log().wait_committed_blocking(lsn).is_err() {
                        break;
                    }
                    let certain = states.partition_point(|(made, _)| *made <= Some(lsn));
                    states.drain(..certain.saturating_sub(1));
                }
            }
            // The medium is stopped: this only ends the threads, which would go on after the kill.
            medium.stop();
            let _stopped = broker.log().shutdown();
            drop((ns, broker));
            match random.below(2) {
                0 => medium.kill(),
                _ => medium.crash(),
            }
            let broker = open(&medium, LogOptions::default());
            let found = topology(&broker.default_namespace());
            let is_one = states.iter().any(|(_, state)| *state == found);
            assert!(is_one, "seed {seed}, life {life}: {found:?} of {states:?}");
            broker.log().shutdown().unwrap();
            drop(broker);
        }
    }
}
