//! Routing against a plain model: exchanges of all kinds, bound to queues and to each other, with alternates.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fixture::*;
use inver_broker::{
    Arguments, BindDestination, ExchangeKind, ExchangeSpec, HeaderLookup, Message, Namespace, QueueSpec,
    Target, Value,
};
use proptest::prelude::*;

const EXCHANGES: usize = 5;
const QUEUES: usize = 5;

#[derive(Clone, Debug)]
struct Plan {
    kinds: Vec<ExchangeKind>,
    alternates: Vec<Option<usize>>,
    bindings: Vec<Binding>,
    unbound: Vec<prop::sample::Index>,
    /// To which exchange, with which keys and headers.
    publishes: Vec<(usize, Vec<String>, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Binding {
    from: usize,
    /// A queue, or from `QUEUES` on an exchange.
    to: usize,
    key: String,
    /// `x-match` is `any`, and the headers asked for.
    headers: (bool, Vec<u8>),
}

fn plan() -> impl Strategy<Value = Plan> {
    let kind = prop_oneof![
        Just(ExchangeKind::Direct),
        Just(ExchangeKind::Fanout),
        Just(ExchangeKind::Topic),
        Just(ExchangeKind::Headers)
    ];
    let headers = || prop::collection::vec(0..4u8, 0..3);
    let binding =
        (0..EXCHANGES, 0..QUEUES + EXCHANGES, "([ab]|\\*|#)(\\.([ab]|\\*|#)){0,2}", any::<bool>(), headers())
            .prop_map(|(from, to, key, any, headers)| Binding { from, to, key, headers: (any, headers) });
    let keys = prop::collection::vec("[ab](\\.[ab]){0,2}", 1..4);
    let publish = (0..EXCHANGES, keys, headers());
    (
        prop::collection::vec(kind, EXCHANGES),
        prop::collection::vec(prop::option::weighted(0.3, 0..EXCHANGES), EXCHANGES),
        prop::collection::vec(binding, 0..16),
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        prop::collection::vec(publish, 1..8),
    )
        .prop_map(|(kinds, alternates, bindings, unbound, publishes)| Plan {
            kinds,
            alternates,
            bindings,
            unbound,
            publishes,
        })
}

struct Headers(Vec<u8>);

impl HeaderLookup for Headers {
    fn get(&self, name: &str) -> Option<Value> {
        let number: u8 = name.strip_prefix('h')?.parse().ok()?;
        self.0.contains(&number).then_some(Value::Int(1))
    }
}

fn arguments(binding: &Binding, kind: ExchangeKind) -> Arguments {
    let mut arguments = Arguments::new();
    if kind == ExchangeKind::Headers {
        let how = if binding.headers.0 { "any" } else { "all" };
        arguments.insert("x-match".into(), Value::Text(how.into()));
        for h in &binding.headers.1 {
            arguments.insert(format!("h{h}"), Value::Int(1));
        }
    }
    arguments
}

fn topic_matches(pattern: &[&str], words: &[&str]) -> bool {
    match (pattern, words) {
        ([], []) => true,
        (["#", rest @ ..], _) => {
            topic_matches(rest, words) || (!words.is_empty() && topic_matches(pattern, &words[1..]))
        }
        ([p, rest @ ..], [w, words @ ..]) => (*p == "*" || p == w) && topic_matches(rest, words),
        _ => false,
    }
}

fn matches(kind: ExchangeKind, binding: &Binding, keys: &[String], headers: &[u8]) -> bool {
    match kind {
        ExchangeKind::Direct => keys.contains(&binding.key),
        ExchangeKind::Fanout => true,
        ExchangeKind::Topic => {
            let pattern: Vec<_> = binding.key.split('.').collect();
            keys.iter().any(|key| topic_matches(&pattern, &key.split('.').collect::<Vec<_>>()))
        }
        ExchangeKind::Headers => {
            let has = |h: &u8| headers.contains(h);
            let (any, wanted) = &binding.headers;
            if *any { wanted.iter().any(has) } else { wanted.iter().all(has) }
        }
        // Those that choose one binding have tests of their own.
        _ => unreachable!("{kind:?} is not drawn"),
    }
}

fn reach(
    plan: &Plan,
    bindings: &[Binding],
    at: usize,
    keys: &[String],
    headers: &[u8],
    been: &mut BTreeSet<usize>,
) -> BTreeSet<usize> {
    let mut queues = BTreeSet::new();
    if !been.insert(at) {
        return queues;
    }
    let hit: Vec<&Binding> =
        bindings.iter().filter(|b| b.from == at && matches(plan.kinds[at], b, keys, headers)).collect();
    for binding in &hit {
        match binding.to.checked_sub(QUEUES) {
            None => drop(queues.insert(binding.to)),
            Some(next) => queues.extend(reach(plan, bindings, next, keys, headers, been)),
        }
    }
    if let (true, Some(next)) = (hit.is_empty(), plan.alternates[at]) {
        queues.extend(reach(plan, bindings, next, keys, headers, been));
    }
    queues
}

fn build(namespace: &Namespace, plan: &Plan, name: &dyn Fn(&str, usize) -> String) -> Vec<Binding> {
    for (i, kind) in plan.kinds.iter().enumerate() {
        let mut arguments = Arguments::new();
        if let Some(alternate) = plan.alternates[i] {
            arguments.insert("alternate-exchange".into(), Value::Text(name("e", alternate).into()));
        }
        let spec =
            ExchangeSpec { kind: *kind, durable: false, auto_delete: false, internal: false, arguments };
        namespace.declare_exchange(&name("e", i), spec).unwrap();
    }
    for i in 0..QUEUES {
        namespace.declare_queue(&name("q", i), QueueSpec::default()).unwrap();
    }
    let mut bindings: Vec<Binding> = Vec::new();
    let ends = |b: &Binding| match b.to.checked_sub(QUEUES) {
        None => (false, name("q", b.to)),
        Some(exchange) => (true, name("e", exchange)),
    };
    let to = |(is_exchange, name): &(bool, String)| -> BindDestination<'static> {
        let name: &'static str = Box::leak(name.clone().into_boxed_str());
        if *is_exchange { BindDestination::Exchange(name) } else { BindDestination::Queue(name) }
    };
    for b in &plan.bindings {
        let arguments = arguments(b, plan.kinds[b.from]);
        namespace.bind(&name("e", b.from), to(&ends(b)), b.key.as_bytes(), &arguments).unwrap();
        bindings.push(b.clone());
    }
    for which in &plan.unbound {
        if bindings.is_empty() {
            break;
        }
        let b = bindings.remove(which.index(bindings.len()));
        let taken = arguments(&b, plan.kinds[b.from]);
        namespace.unbind(&name("e", b.from), to(&ends(&b)), b.key.as_bytes(), &taken).unwrap();
        // The very same binding is there once, however often it was made.
        bindings.retain(|o| {
            (o.from, o.to, &o.key) != (b.from, b.to, &b.key) || arguments(o, plan.kinds[o.from]) != taken
        });
    }
    bindings
}

#[test]
fn exchanges_route_as_the_model_has_it() {
    let fixture = Fixture::new();
    let namespace = fixture.namespace();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let runs = AtomicU64::new(0);
    proptest!(ProptestConfig::with_cases(200), |(plan in plan())| {
        let run = runs.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str, i: usize| format!("{what}{i}-{run}");
        let bindings = build(&namespace, &plan, &name);
        let mut wanted = [0u64; QUEUES];
        let mut publisher = publisher(&namespace);
        for (at, keys, headers) in &plan.publishes {
            let queues = reach(&plan, &bindings, *at, keys, headers, &mut BTreeSet::new());
            queues.iter().for_each(|q| wanted[*q] += 1);
            let headers = Headers(headers.clone());
            let message = Message { lookup: Some(&headers), ..message(b"x") };
            let exchange_name = name("e", *at);
            let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            let to = Target::Exchange { name: &exchange_name, routing_key: keys[0], more_keys: &keys[1..] };
            // Twice: found, and remembered.
            for _ in 0..2 {
                let routed = publisher.publish(to, &message).unwrap();
                prop_assert_eq!(routed.destinations, queues.len());
            }
        }
        publisher.flush().unwrap();
        for (i, wanted) in wanted.iter().enumerate() {
            let queue = namespace.queue(&name("q", i)).unwrap();
            prop_assert_eq!(queue.depth().ready, wanted * 2);
            namespace.delete_queue(&name("q", i), false, false).unwrap();
        }
        for i in 0..EXCHANGES {
            namespace.delete_exchange(&name("e", i), false).unwrap();
        }
    });
}
