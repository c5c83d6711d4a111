//! What very many bindings cost: nothing that each of them has to pay for all others.

use crate::fixture::*;
use inver_broker::{
    Arguments, BindDestination, ExchangeKind, ExchangeSpec, HUB, QueueLimits, QueueSpec, Target, Value,
};

/// Deleting a queue took a walk over all bindings of the exchanges that it was bound to, and binding to a headers
/// exchange one over all of its own.
#[tokio::test]
async fn twenty_thousand_bound_queues_come_and_go() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    for kind in [ExchangeKind::Direct, ExchangeKind::Topic, ExchangeKind::Headers] {
        ns.declare_exchange("e", ExchangeSpec { kind, ..durable_exchange() }).unwrap();
        grows_with_the_number(&format!("{kind:?}"), 20_000, |count| {
            let name = |i: usize| format!("q.{i}");
            for i in 0..count {
                declare(&ns, &name(i), QueueSpec::default());
                let number = Value::Int(i.try_into().unwrap());
                let arguments: Arguments = [("number".to_owned(), number)].into();
                ns.bind("e", BindDestination::Queue(&name(i)), name(i).as_bytes(), &arguments).unwrap();
            }
            for i in 0..count {
                ns.delete_queue(&name(i), false, false).unwrap();
            }
        });
        assert_eq!(ns.exchange("e").unwrap().binding_count(), 0);
        ns.delete_exchange("e", true).unwrap();
    }
}

/// The end of a session with very many filters held up the other connections of its thread until all were unbound.
#[tokio::test]
async fn a_session_with_many_filters_receives_nothing_once_it_ended() {
    let fixture = Fixture::new();
    let (ns, sessions) = (fixture.namespace(), fixture.sessions());
    let bindings = || ns.exchange(HUB).unwrap().binding_count();
    let mut publisher = publisher(&ns);
    let mut publish = || publisher.publish(Target::Hub(b"a/7"), &message(b"v")).unwrap().destinations;
    let (_mailbox, mut opened) = open(&sessions, "c", false).await;
    for i in 0..5_000 {
        opened.session.subscribe(format!("a/{i}").as_bytes(), &guaranteed()).unwrap();
    }
    assert_eq!((publish(), bindings()), (1, 5_000));
    drop(opened);
    // Its bindings are removed on another thread.
    assert_eq!(publish(), 0);
    let (_mailbox, mut again) = open(&sessions, "c", false).await;
    again.session.subscribe(b"a/7", &guaranteed()).unwrap();
    assert_eq!(publish(), 1);
    until("the bindings of the first are removed", || bindings() == 1).await;
    assert_eq!(publish(), 1);
}

#[tokio::test]
async fn who_goes_takes_its_bindings_along_and_no_others() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let kinds = [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers];
    let bindings = || kinds.map(|kind| ns.exchange(kind.as_str()).map_or(0, |e| e.binding_count()));
    let arguments = |number: i128| Arguments::from([("number".to_owned(), Value::Int(number))]);
    for kind in kinds {
        ns.declare_exchange(kind.as_str(), ExchangeSpec { kind, ..durable_exchange() }).unwrap();
    }
    ns.declare_exchange("next", durable_exchange()).unwrap();
    for name in ["stays", "goes"] {
        declare(&ns, name, durable(QueueLimits::default()));
    }
    let ends =
        [BindDestination::Queue("stays"), BindDestination::Queue("goes"), BindDestination::Exchange("next")];
    for kind in kinds {
        for to in ends {
            for (key, number) in [("a", 1), ("a", 2), ("b", 1), ("b", 1)] {
                ns.bind(kind.as_str(), to, key.as_bytes(), &arguments(number)).unwrap();
            }
        }
        ns.unbind(kind.as_str(), ends[1], b"a", &arguments(2)).unwrap();
        ns.unbind(kind.as_str(), ends[1], b"b", &arguments(2)).unwrap();
    }
    assert_eq!(bindings(), [8; 4]);
    ns.delete_queue("goes", false, false).unwrap();
    assert_eq!(bindings(), [6; 4]);
    ns.delete_exchange("direct", false).unwrap();
    ns.declare_exchange("direct", durable_exchange()).unwrap();
    ns.bind("direct", ends[2], b"b", &arguments(3)).unwrap();
    assert_eq!(bindings(), [1, 6, 6, 6]);
    ns.delete_exchange("next", false).unwrap();
    assert_eq!(bindings(), [0, 3, 3, 3]);
    let fixture = fixture.restart();
    let ns = fixture.namespace();
    let left = kinds.map(|kind| ns.exchange(kind.as_str()).unwrap().binding_count());
    assert_eq!(left, [0, 3, 3, 3]);
    ns.delete_queue("stays", false, false).unwrap();
    let left = kinds.map(|kind| ns.exchange(kind.as_str()).unwrap().binding_count());
    assert_eq!(left, [0; 4]);
}
