//! The system's time is set while the broker runs, or between two processes: what counts time goes on with what has elapsed.

use std::time::Duration;

use crate::fixture::*;
use inver_broker::{
    BrokerConfig, Clock, Expiry, Mailbox, QueueLimits, SessionSpec, Sessions, SubscriptionOptions,
};

const DAY_MS: i64 = 86_400_000;

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
        let _ = willing.set_will(Some(will(b"gone", 60))).unwrap();
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

/// The client took up a session that had expired, and its will was never published.
#[tokio::test]
async fn a_session_that_expired_is_not_resumed_before_its_timer_runs() {
    let (fixture, clock) = Fixture::manual();
    let (ns, sessions) = (fixture.namespace(), fixture.sessions());
    let wills = declare(&ns, "wills", durable(QueueLimits::default()));
    let to = inver_broker::BindDestination::Queue("wills");
    let _ = ns.bind(inver_broker::HUB, to, b"w", &Default::default()).unwrap();
    let mut away = opened(&sessions, "away", Expiry::After(10)).await;
    away.subscribe(b"a", &guaranteed()).unwrap();
    let _ = away.set_will(Some(will(b"gone", 60))).unwrap();
    drop(away);
    clock.advance(Duration::from_secs(11));
    let back = opened(&sessions, "away", Expiry::After(10)).await;
    committed(&ns, ns.log().submitted());
    assert_eq!(wills.depth().ready, 1);
    assert_eq!((sessions.tally().expired, sessions.len()), (1, 1));
    assert_eq!(sessions.filters("away", 10).unwrap().len(), 0, "it is another session");
    drop(back);
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
