//! Policies on queues and exchanges that exist, and after a restart.

use std::time::Duration;

use crate::fixture::*;
use inver_broker::{
    AppliesTo, Arguments, BindDestination, Limits, Namespace, PolicyError, PolicyKind, PolicySpec,
    QueueLimits, QueueSpec, Value,
};

fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().to_vec())
}

fn spec(pattern: &str, definition: &[(&str, Value)]) -> PolicySpec {
    PolicySpec {
        pattern: pattern.into(),
        applies_to: AppliesTo::All,
        priority: 0,
        definition: definition.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    }
}

fn set(ns: &Namespace, name: &str, spec: PolicySpec) {
    let (_, done) = ns.set_policy(PolicyKind::Ordinary, name, spec).unwrap();
    committed(ns, done);
}

#[tokio::test]
async fn limits_hold_at_once_for_what_is_in_a_queue() {
    for is_durable in [true, false] {
        let (fixture, clock) = Fixture::manual();
        let ns = fixture.namespace();
        let _housekeeping = fixture.housekeep();
        let spec_of = QueueSpec { durable: is_durable, ..QueueSpec::default() };
        let q = declare(&ns, "q", spec_of);
        for value in ["1111", "2222", "3333", "4444"] {
            publish(&ns, queue("q"), value);
        }
        set(&ns, "length", spec("^q$", &[("max-length", Value::Int(3))]));
        assert_eq!(q.depth().ready, 3, "durable: {is_durable}");
        set(&ns, "length", spec("^q$", &[("max-length-bytes", Value::Int(8))]));
        until("the bytes are bounded", || q.depth().ready == 2).await;
        publish(&ns, queue("q"), "55555");
        until("they stay bounded", || q.depth().ready == 1).await;
        committed(&ns, ns.delete_policy(PolicyKind::Ordinary, "length").unwrap());
        assert!(q.applied().is_empty() && q.limits() == QueueLimits::default());
        publish(&ns, queue("q"), "long enough to be over what was the limit");
        assert_eq!(q.depth().ready, 2);
        set(&ns, "ttl", spec("^q$", &[("message-ttl", Value::Int(1000))]));
        clock.advance(Duration::from_millis(1500));
        until("all have expired", || q.depth().ready == 0).await;
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_dead_letters_by_policy() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    let _housekeeping = fixture.housekeep();
    ns.declare_exchange("dlx", durable_exchange()).unwrap();
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    let dead = declare(&ns, "dead", durable(QueueLimits::default()));
    ns.bind("dlx", BindDestination::Queue("dead"), b"k", &Arguments::new()).unwrap();
    let definition = [
        ("max-length", Value::Int(1)),
        ("dead-letter-exchange", text("dlx")),
        ("dead-letter-routing-key", text("k")),
    ];
    set(&ns, "p", spec("^q$", &definition));
    publish(&ns, queue("q"), "1");
    publish(&ns, queue("q"), "2");
    until("the first is dead-lettered", || dead.depth().ready == 1).await;
    assert_eq!(q.depth().ready, 1);
    let rejecting = [("max-length", Value::Int(1)), ("overflow", text("reject-publish"))];
    set(&ns, "p", spec("^q$", &rejecting));
    let mut publisher = publisher(&ns);
    assert!(publisher.publish(queue("q"), &message(b"3")).unwrap().refused);
    committed(&ns, ns.delete_policy(PolicyKind::Ordinary, "p").unwrap());
    assert!(!publisher.publish(queue("q"), &message(b"3")).unwrap().refused);
}

#[tokio::test]
async fn an_unused_queue_expires_from_when_the_policy_is_set() {
    let (fixture, clock) = Fixture::manual();
    let ns = fixture.namespace();
    let _housekeeping = fixture.housekeep();
    declare(&ns, "q", durable(QueueLimits::default()));
    clock.advance(Duration::from_secs(10));
    set(&ns, "p", spec("^q$", &[("expires", Value::Int(5000))]));
    clock.advance(Duration::from_secs(4));
    tokio::task::yield_now().await;
    assert!(ns.queue("q").is_some(), "the time before does not count");
    clock.advance(Duration::from_secs(2));
    until("it expires", || ns.queue("q").is_none()).await;
}

#[tokio::test]
async fn an_alternate_exchange_by_policy_gets_what_has_no_binding() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    ns.declare_exchange("x", durable_exchange()).unwrap();
    ns.declare_exchange("other", durable_exchange()).unwrap();
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    ns.bind("other", BindDestination::Queue("q"), b"k", &Arguments::new()).unwrap();
    assert_eq!(publish(&ns, exchange("x", "k"), "1"), 0);
    set(&ns, "p", spec("^x$", &[("alternate-exchange", text("other"))]));
    assert_eq!(publish(&ns, exchange("x", "k"), "2"), 1);
    committed(&ns, ns.delete_policy(PolicyKind::Ordinary, "p").unwrap());
    assert_eq!(publish(&ns, exchange("x", "k"), "3"), 0);
    assert_eq!(q.depth().ready, 1);
}

#[tokio::test]
async fn policies_survive_a_restart_and_apply_to_new_objects() {
    let fixture = Fixture::new();
    let ns = fixture.namespace();
    declare(&ns, "q", durable(QueueLimits::default()));
    set(&ns, "p", spec("^q", &[("max-length", Value::Int(5)), ("queue-mode", text("lazy"))]));
    set(&ns, "gone", spec("", &[("max-length", Value::Int(1))]));
    set(&ns, "hub", spec("^amq.topic$", &[("alternate-exchange", text("amq.fanout"))]));
    let operator = ns.set_policy(PolicyKind::Operator, "o", spec("^q", &[("max-length", Value::Int(2))]));
    committed(&ns, operator.unwrap().1);
    committed(&ns, ns.delete_policy(PolicyKind::Ordinary, "gone").unwrap());
    drop(ns);
    let fixture = fixture.restart();
    let ns = fixture.namespace();
    for name in ["q", "q2"] {
        let q = declare(&ns, name, durable(QueueLimits::default()));
        let applied = q.applied();
        assert_eq!(applied.policy.as_ref().map(|policy| policy.name()), Some("p"), "{name}");
        assert_eq!(applied.operator.as_ref().map(|policy| policy.name()), Some("o"), "{name}");
        assert_eq!(q.limits().messages_max, Some(2), "{name}");
        assert_eq!(q.spec().limits, QueueLimits::default(), "what it was declared as stays");
    }
    let hub = ns.exchange("amq.topic").unwrap().applied();
    assert_eq!(hub.policy.map(|policy| policy.name().to_owned()).as_deref(), Some("hub"));
    assert_eq!(ns.policy(PolicyKind::Ordinary, "p").unwrap().without_effect(), ["queue-mode"]);
    assert!(matches!(
        ns.delete_policy(PolicyKind::Ordinary, "gone"),
        Err(PolicyError::Unknown { kind: PolicyKind::Ordinary, .. })
    ));
}

#[tokio::test]
async fn policies_are_bounded() {
    let config = inver_broker::BrokerConfig {
        limits: Limits { policies_max: 1, ..Limits::default() },
        ..Default::default()
    };
    let fixture = Fixture::with(config);
    let ns = fixture.namespace();
    let one = || spec("^q", &[("max-length", Value::Int(5))]);
    set(&ns, "a", one());
    set(&ns, "a", one());
    let refused = ns.set_policy(PolicyKind::Ordinary, "b", one());
    assert!(matches!(refused, Err(PolicyError::Limit(_))), "{refused:?}");
    ns.set_policy(PolicyKind::Operator, "b", one()).unwrap();
}
