//! The system's time is set while the broker runs, or between two processes: what counts time goes on with what has elapsed.

use std::time::Duration;

use crate::fixture::*;
use inver_broker::{
    BrokerConfig, Clock, Expiry, Mailbox, QueueLimits, SessionSpec, Sessions, SubscriptionOptions, Will,
};
use inver_storage::BatchBuilder;

const DAY_MS: i64 = 86_400_000;
const NOW_MS: i64 = 1_700_000_000_000;

fn will(delay_s: u32) -> Will {
    let mut batch = BatchBuilder::new(0);
    batch.push(NOW_MS, None, &[], Some(b"gone"));
    Will {
        address: b"w".to_vec(),
        batch: batch.finish().bytes().to_vec(),
        delay_s,
        expiry_s: None,
        retain: false,
        guaranteed: true,
        origin: "test".into(),
    }
}

async fn opened(sessions: &Sessions, client_id: &str, expiry: Expiry) -> inver_broker::Session {
    let terms = session_terms();
    let permissions = permissions(sessions, None, client_id);
    let mailbox = Mailbox::new();
    let spec = SessionSpec { client_id, clean_start: false, expiry, mailbox, terms: &terms, permissions };
    sessions.open(spec).await.unwrap().session
}

fn run(fixture: &Fixture, clock: &Clock, seconds: u64) {
    for _ in 0..seconds * 4 {
        clock.advance(Duration::from_millis(250));
        fixture.broker.run_due();
    }
}

#[tokio::test]
async fn a_step_of_the_systems_time_expires_nothing_and_holds_nothing_up() {
    for step_ms in [DAY_MS, -DAY_MS] {
        let (fixture, clock) = Fixture::manual();
        let (ns, sessions) = (fixture.namespace(), fixture.sessions());
        let used = QueueLimits { expires_after_ms: Some(60_000), ..QueueLimits::default() };
        declare(&ns, "used", durable(used));
        let ttl = QueueLimits { message_ttl_ms: Some(60_000), ..QueueLimits::default() };
        let messages = declare(&ns, "messages", durable(ttl));
        let wills = declare(&ns, "wills", durable(QueueLimits::default()));
        let to = inver_broker::BindDestination::Queue("wills");
        let _ = ns.bind(inver_broker::HUB, to, b"w", &Default::default()).unwrap();
        let mut away = opened(&sessions, "away", Expiry::After(60)).await;
        away.subscribe(b"a", &SubscriptionOptions { guaranteed: true, ..Default::default() }).unwrap();
        let willing = opened(&sessions, "willing", Expiry::After(600)).await;
        let _ = willing.set_will(Some(will(60))).unwrap();
        publish(&ns, queue("messages"), "kept");
        drop((away, willing));
        clock.step(step_ms);
        run(&fixture, &clock, 58);
        assert!(ns.queue("used").is_some());
        assert_eq!((messages.depth().ready, wills.depth().ready, sessions.len()), (1, 0, 2), "{step_ms}");
        run(&fixture, &clock, 4);
        assert!(ns.queue("used").is_none());
        assert_eq!((messages.depth().ready, wills.depth().ready, sessions.len()), (0, 1, 1), "{step_ms}");
    }
}

/// A machine without a clock of its own begins in the past until its time is set.
#[tokio::test]
async fn a_process_that_begins_in_the_past_goes_on_at_the_last_time_of_the_log() {
    let (fixture, clock) = Fixture::manual();
    let sessions = fixture.sessions();
    let session = opened(&sessions, "away", Expiry::After(3600)).await;
    drop(session);
    run(&fixture, &clock, 1);
    fixture.broker.note_time();
    drop(sessions);
    let late = Clock::manual(1000);
    let config = BrokerConfig { clock: late.clone(), ..BrokerConfig::default() };
    let fixture = Fixture { config, ..fixture }.restart();
    assert!((late.steady_ms() - clock.steady_ms()).abs() < 10);
    run(&fixture, &late, 3500);
    assert_eq!(fixture.sessions().len(), 1, "it has been away for less than an hour");
    run(&fixture, &late, 110);
    assert_eq!(fixture.sessions().len(), 0);
}

#[tokio::test]
async fn an_idle_broker_writes_no_time() {
    let (fixture, _clock) = Fixture::manual();
    fixture.broker.note_time();
    let written = fixture.broker.log().submitted();
    fixture.broker.log().wait_committed_blocking(written).unwrap();
    fixture.broker.note_time();
    assert_eq!(fixture.broker.log().submitted(), written);
    declare(&fixture.namespace(), "q", durable(QueueLimits::default()));
    let before = fixture.broker.log().submitted();
    fixture.broker.note_time();
    assert!(fixture.broker.log().submitted() > before);
}
