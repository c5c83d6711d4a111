//! Delayed messages: when they come, that none is lost or published twice, their list and withdrawing them.

use std::time::Duration;

use crate::fixture::*;
use inver_broker::message::{HeaderView, Property};
use inver_broker::{
    BindDestination, BrokerConfig, Clock, DelayedId, ExchangeKind, ExchangeSpec, HeaderLookup, HeaderWriter,
    Limits, Namespace, QueueLimits, QueueSpec, Target, Value, WithdrawError,
};

/// Publishes a message that comes after a delay; whether it was refused.
fn later(namespace: &Namespace, to: Target<'_>, value: &str, delay_ms: i64) -> bool {
    let mut headers = HeaderWriter::default();
    headers.begin("test", None);
    headers.put(Property::ContentType(b"text/plain"));
    headers.user(b"mine", Some(b"1"));
    let mut publisher = publisher(namespace);
    let mut message = message(value.as_bytes());
    message.timestamp_ms = namespace.clock().now_ms();
    message.headers = headers.headers();
    let routed = publisher.publish_later(to, &message, delay_ms, false).unwrap();
    committed(namespace, publisher.flush().unwrap());
    routed.refused
}

async fn advance_until(clock: &Clock, what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || {
        clock.advance(Duration::from_millis(100));
        holds()
    })
    .await;
}

#[tokio::test]
async fn messages_come_when_they_are_due_and_not_before() {
    let (fixture, clock) = Fixture::manual();
    let _housekeeping = fixture.housekeep();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    for (value, delay_ms) in [("c", 90_000), ("a", 10_000), ("b", 60_000), ("never", 1 << 60)] {
        assert!(!later(&ns, queue("q"), value, delay_ms));
    }
    advance_until(&clock, "the first", || q.counts().ready == 1).await;
    advance_until(&clock, "all", || q.counts().ready == 3).await;
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 3).await;
    assert_eq!(values(&got), ["a", "b", "c"]);
    for (message, delay_ms) in got.iter().zip([10_000, 60_000, 90_000]) {
        assert!(message.record.timestamp_ms >= 1_700_000_000_000 + delay_ms, "none is early");
    }
    let view = HeaderView::of(&got[0].record);
    assert_eq!(view.typed_properties().collect::<Vec<_>>(), [Property::ContentType(b"text/plain")]);
    assert_eq!(view.user().collect::<Vec<_>>(), [(&b"mine"[..], Some(&b"1"[..]))]);
    until("three have left", || ns.delayed_count() == 1).await;
}

#[tokio::test]
async fn delayed_messages_survive_restarts_and_come_once() {
    let (fixture, clock) = Fixture::manual();
    let ns = fixture.namespace();
    declare(&ns, "q", durable(QueueLimits::default()));
    let mut publisher = publisher(&ns);
    for number in 0..5000_i64 {
        let value = number.to_string();
        let mut message = message(value.as_bytes());
        message.timestamp_ms = clock.now_ms();
        // In another order than they are due in; all of them are in one queue.
        let delay_ms = 1000 + number * 7919 % 5000 * 10;
        publisher.publish_later(queue("q"), &message, delay_ms, false).unwrap();
    }
    committed(&ns, publisher.flush().unwrap());
    drop((ns, publisher));
    let mut fixture = fixture;
    let mut got: Vec<i64> = Vec::new();
    for part in 1..=3 {
        fixture = fixture.restart();
        let housekeeping = fixture.housekeep();
        let ns = fixture.namespace();
        let q = ns.queue("q").unwrap();
        let wanted = if part == 3 { 5000 } else { part * 1500 };
        advance_until(&clock, "some", || got.len() as u64 + q.counts().ready >= wanted).await;
        let (mailbox, mut consumer) = attach(q.subscription());
        let ready = q.counts().ready as usize;
        let some = take(&mailbox, &mut consumer, ready).await;
        got.extend(values(&some).iter().map(|value| value.parse::<i64>().unwrap()));
        committed(&ns, consumer.ack(&some.iter().map(|d| d.id).collect::<Vec<_>>()).unwrap());
        // What is being published is in neither for a moment.
        let all = || ns.delayed_count() + got.len() as u64 + q.counts().ready;
        until("each message is in one place", || all() == 5000).await;
        drop((consumer, q, ns, housekeeping));
    }
    let mut expected: Vec<i64> = (0..5000).collect();
    expected.sort_by_key(|number| number * 7919 % 5000);
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_delayed_message_is_listed_and_can_be_withdrawn_once() {
    let (fixture, clock) = Fixture::manual();
    let _housekeeping = fixture.housekeep();
    let ns = fixture.namespace();
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    for (value, delay_ms) in [("a", 10_000), ("b", 5_000), ("c", 10_000_000)] {
        later(&ns, queue("q"), value, delay_ms);
    }
    later(&ns, Target::Hub(b"x/y"), "d", 20_000);
    let (all, next) = ns.delayed(None, 100, 1 << 20).unwrap();
    let listed = |message: &inver_broker::DelayedMessage| {
        let value = String::from_utf8(message.record.value.clone().unwrap().to_vec()).unwrap();
        (value, message.exchange.clone(), String::from_utf8(message.key.clone()).unwrap())
    };
    let shown: Vec<_> = all.iter().map(listed).collect();
    let of_queue = |value: &str| (value.to_owned(), Some(String::new()), "q".to_owned());
    assert_eq!(
        shown,
        [of_queue("a"), of_queue("b"), ("d".to_owned(), None, "x/y".to_owned()), of_queue("c")]
    );
    assert_eq!(next, None);
    assert_eq!(all[0].due_ms, clock.now_ms() + 10_000);
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let (page, next) = ns.delayed(after, 1, 1 << 20).unwrap();
        paged.extend(page.iter().map(|message| message.id));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged, all.iter().map(|message| message.id).collect::<Vec<_>>());
    let id: DelayedId = all[0].id.to_string().parse().unwrap();
    assert_eq!(id, all[0].id);
    assert!("9-1".parse::<DelayedId>().is_err() && "x".parse::<DelayedId>().is_err());
    committed(&ns, ns.withdraw_delayed(&all[0]).unwrap());
    assert!(matches!(ns.withdraw_delayed(&all[0]), Err(WithdrawError::Unknown)));
    assert_eq!(ns.delayed_count(), 3);
    assert!(ns.delayed_message(id).unwrap().is_none());
    advance_until(&clock, "one comes", || ns.delayed_count() == 1).await;
    let (mailbox, mut consumer) = attach(q.subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["b"]);
}

#[tokio::test]
async fn no_more_are_delayed_than_the_limit_says_and_their_queues_have_no_name() {
    let limits = Limits { delayed_messages_max: 2, ..Limits::default() };
    let fixture = Fixture::with(BrokerConfig { limits, ..BrokerConfig::default() });
    let ns = fixture.namespace();
    declare(&ns, "q", durable(QueueLimits::default()));
    let refused: Vec<bool> = (0..3).map(|_| later(&ns, queue("q"), "a", 60_000)).collect();
    assert_eq!(refused, [false, false, true]);
    let name = "amq.delayed/minute";
    assert!(ns.queue(name).is_none() && ns.declare_queue(name, QueueSpec::default()).is_err());
    assert!(ns.delete_queue(name, false, false).is_err() && ns.topic(name).is_none());
    assert_eq!((publish(&ns, queue(name), "b"), ns.delayed_count()), (0, 2));
    assert_eq!(ns.queues().len(), 1);
}

struct Delay(i128);

impl HeaderLookup for Delay {
    fn get(&self, name: &str) -> Option<Value> {
        (name == "x-delay").then_some(Value::Int(self.0))
    }
}

#[tokio::test]
async fn an_exchange_delays_messages_that_ask_for_it() {
    let (fixture, clock) = Fixture::manual();
    let _housekeeping = fixture.housekeep();
    let ns = fixture.namespace();
    let arguments = [("x-delayed-type".to_owned(), Value::Text(b"topic".to_vec()))].into();
    let spec = ExchangeSpec { kind: ExchangeKind::Topic, arguments, ..durable_exchange() };
    let declared = ns.declare_exchange("x", spec).unwrap();
    committed(&ns, declared.completion);
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    ns.bind("x", BindDestination::Queue("q"), b"a.*", &Default::default()).unwrap();
    let mut publisher = publisher(&ns);
    for (delay, value) in [(5000, "later"), (0, "now"), (-5, "now too"), (1000, "soon")] {
        let lookup = Delay(delay);
        let mut message = message(value.as_bytes());
        message.timestamp_ms = clock.now_ms();
        message.lookup = Some(&lookup);
        publisher.publish(exchange("x", "a.b"), &message).unwrap();
    }
    committed(&ns, publisher.flush().unwrap());
    assert_eq!((q.counts().ready, ns.delayed_count()), (2, 2));
    advance_until(&clock, "all", || q.counts().ready == 4).await;
    let (mailbox, mut consumer) = attach(q.subscription());
    assert_eq!(values(&take(&mailbox, &mut consumer, 4).await), ["now", "now too", "soon", "later"]);
}
