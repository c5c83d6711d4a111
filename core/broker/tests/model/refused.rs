//! A log that rejects writes: every durable operation of the model reports it.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::fixture::*;
use bytes::Bytes;
use inver_broker::{
    BindDestination, BindError, Broker, BrokerConfig, CommittedOffset, ConsumerSpec, DeadLetter,
    ExchangeError, Expiry, Mailbox, Mode, Opened, ProduceError, PublishError, QueueError, QueueLimits,
    QueueSpec, SessionError, SessionSpec, Start, SubscribeError, SubscriptionError, TopicConfig, TopicError,
    TopicSpec,
};
use inver_storage::medium::fake::{FakeMedium, Fault};
use inver_storage::{BatchBuilder, Log, LogOptions, Offset, SubmitError, SystemClock};

/// Fails the next write and waits until the log has noticed.
pub(crate) async fn fail(log: &Log, medium: &FakeMedium, broker: &Broker) {
    medium.schedule(0, Fault::Fail(ErrorKind::StorageFull));
    let lsn = broker.put_state("t", b"k", Bytes::from_static(b"v")).expect("accepted before the failure");
    log.wait_committed(lsn).await.expect_err("the write failed");
}

fn is_log_error(error: &SubmitError) -> bool {
    matches!(error, SubmitError::Log(_))
}

fn session_spec<'a>(
    sessions: &inver_broker::Sessions,
    client_id: &'a str,
    terms: &'a Arc<inver_broker::SessionTerms>,
    expiry: Expiry,
) -> SessionSpec<'a> {
    let permissions = permissions(sessions, None, client_id);
    SessionSpec { client_id, clean_start: false, expiry, mailbox: Mailbox::new(), terms, permissions }
}

#[tokio::test]
async fn every_durable_operation_reports_a_rejected_write() {
    let medium = FakeMedium::new(7);
    let log = Log::open_on(Arc::new(medium.clone()), Arc::new(SystemClock), LogOptions::default()).unwrap();
    let broker = Broker::open(log.clone(), BrokerConfig::default()).unwrap();
    let (ns, sessions, terms) = (broker.default_namespace(), broker.default_sessions(), session_terms());

    // One of everything.
    let spec = TopicSpec { partitions: 1, config: TopicConfig::new() };
    let (topic, _) = ns.create_topic("t", &spec).unwrap();
    let dead_letter = Some(DeadLetter { exchange: "e".into(), routing_key: None });
    let q = declare(&ns, "q", durable(QueueLimits::default()));
    let dl = declare(&ns, "dl", durable(QueueLimits { dead_letter, ..QueueLimits::default() }));
    ns.declare_exchange("e", durable_exchange()).unwrap();
    let _ = ns.bind("e", BindDestination::Queue("q"), b"k", &Default::default()).unwrap();
    let s = ns.subscribe(&topic, "s", Mode::Shared, true, Start::Earliest).unwrap();
    let offset = CommittedOffset { offset: 1, leader_epoch: -1, metadata: None, committed_ms: 0 };
    let offsets = [("t", 0, offset)];
    ns.committed_offsets().commit(&log, "g", &offsets).unwrap();
    for name in ["q", "dl"] {
        for _ in 0..4 {
            publish(&ns, queue(name), "x");
        }
    }
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 3).await;
    let (dl_mailbox, mut dl_consumer) = attach(dl.subscription());
    let dl_got = take(&dl_mailbox, &mut dl_consumer, 1).await;
    let Opened { mut session, .. } =
        sessions.open(session_spec(&sessions, "c", &terms, Expiry::Never)).await.unwrap();
    session.subscribe(b"a/+", &guaranteed()).unwrap();
    let _ = session.put(Bytes::from_static(b"k"), Bytes::from_static(b"v")).unwrap();
    publish(&ns, inver_broker::Target::Hub(b"a/b"), "x");
    let mut inbox = Vec::new();
    session.pull_inbox(1, usize::MAX, &mut inbox);
    let mut waiting = publisher(&ns);
    waiting.publish(queue("q"), &message(b"x")).unwrap();
    let mut retaining = publisher(&ns);
    retaining.retain(b"r", &message(b"x")).unwrap();
    assert_eq!(inbox.len(), 1);

    fail(&log, &medium, &broker).await;

    // Topics.
    let is = |error: &TopicError| matches!(error, TopicError::Log(error) if is_log_error(error));
    assert!(is(&ns.create_topic("u", &spec).err().unwrap()));
    assert!(is(&ns.add_partitions("t", 2).unwrap_err()));
    assert!(is(&ns.alter_config("t", TopicConfig::new()).unwrap_err()));
    assert!(is(&ns.delete_records(&topic, 0, Offset(0)).unwrap_err()));
    assert!(is(&ns.delete_topic("t").unwrap_err()));
    assert!(ns.topic("t").is_some(), "what was not deleted stays");
    // Queues.
    let is = |error: &QueueError| matches!(error, QueueError::Log(error) if is_log_error(error));
    assert!(is(&ns.declare_queue("u", durable(QueueLimits::default())).unwrap_err()));
    assert!(q.subscription().purge().is_err_and(|error| is_log_error(&error)));
    // Exchanges and bindings.
    let is = |error: &ExchangeError| matches!(error, ExchangeError::Log(error) if is_log_error(error));
    assert!(is(&ns.declare_exchange("u", durable_exchange()).unwrap_err()));
    let bind = |key: &[u8]| ns.bind("e", BindDestination::Queue("q"), key, &Default::default());
    assert!(matches!(bind(b"other").unwrap_err(), BindError::Log(error) if is_log_error(&error)));
    let unbind = ns.unbind("e", BindDestination::Queue("q"), b"k", &Default::default());
    assert!(matches!(unbind.unwrap_err(), BindError::Log(error) if is_log_error(&error)));
    // Named subscriptions.
    let is = |error: &SubscriptionError| matches!(error, SubscriptionError::Log(e) if is_log_error(e));
    assert!(is(&ns.subscribe(&topic, "u", Mode::Shared, true, Start::Earliest).unwrap_err()));
    assert!(is(&ns.delete_subscription(&topic, "s", false).unwrap_err()));
    drop(s);
    // Publishing and producing.
    let is = |error: &PublishError| matches!(error, PublishError::Log(error) if is_log_error(error));
    assert!(is(&waiting.flush().unwrap_err()));
    assert!(is(&retaining.flush().unwrap_err()));
    assert!(ns.retained().is_empty(), "a value that was not stored is not shown");
    let mut batch = BatchBuilder::new(0);
    batch.push(0, None, &[], Some(b"x"));
    let produced = ns.produce(&topic, &topic.partition(0).unwrap(), batch.finish());
    assert!(produced.is_err_and(|error| matches!(&error, ProduceError::Log(error) if is_log_error(error))));
    // Acknowledgements.
    assert!(consumer.ack(&[got[0].id]).is_err_and(|error| is_log_error(&error)));
    assert!(consumer.reject(&[got[1].id]).is_err_and(|error| is_log_error(&error)));
    assert!(consumer.requeue(&[got[2].id]).is_err_and(|error| is_log_error(&error)));
    let dead_lettered = dl_consumer.reject(&[dl_got[0].id]);
    assert!(dead_lettered.is_err_and(|error| is_log_error(&error)));
    // Committed offsets.
    let committed = ns.committed_offsets();
    assert!(committed.commit(&log, "g", &offsets).is_err_and(|error| is_log_error(&error)));
    assert!(committed.delete(&log, "g", |_, _| true).is_err_and(|error| is_log_error(&error)));
    assert!(committed.expire(&log, "g", 1).is_err_and(|error| is_log_error(&error)));
    assert!(committed.get("g", "t", 0).is_some(), "what was not deleted stays");
    // Protocol state.
    let state = Bytes::from_static(b"w");
    assert!(broker.put_state("t", b"k", state.clone()).is_err_and(|error| is_log_error(&error)));
    assert!(broker.update_state("t", b"k", |_| state.clone()).is_err_and(|error| is_log_error(&error)));
    assert!(broker.delete_state("t", b"k").is_err_and(|error| is_log_error(&error)));
    // Sessions.
    let opened = sessions.open(session_spec(&sessions, "new", &terms, Expiry::Never)).await;
    assert!(matches!(opened.err(), Some(SessionError::Log(error)) if is_log_error(&error)));
    let is = |error: &SubscribeError| matches!(error, SubscribeError::Log(error) if is_log_error(error));
    assert!(is(&session.subscribe(b"b", &guaranteed()).unwrap_err()));
    assert!(is(&session.stay(b"$share/g/b", &guaranteed()).unwrap_err()));
    let joining = ConsumerSpec::new(Mailbox::new(), 1);
    assert!(is(&session.join(b"$share/g/c", &guaranteed(), Mode::Shared, joining).err().unwrap()));
    assert!(session.ack(&[inbox[0].id.offset]).is_err_and(|error| is_log_error(&error)));
    let puts = [(Bytes::from_static(b"k"), state.clone())];
    assert!(session.ack_and_put(&[], &puts).is_err_and(|error| is_log_error(&error)));
    assert!(session.put(Bytes::from_static(b"k"), state).is_err_and(|error| is_log_error(&error)));
    assert!(session.delete(b"k").is_err_and(|error| is_log_error(&error)));
    assert!(session.set_expiry(Expiry::After(1)).is_err_and(|error| is_log_error(&error)));
    assert!(session.unsubscribe(b"a/+").is_err_and(|error| is_log_error(&error)));
    assert!(
        matches!(ns.delete_queue("q", false, false).unwrap_err(), QueueError::Log(e) if is_log_error(&e))
    );
    assert!(matches!(ns.delete_exchange("e", false).unwrap_err(), ExchangeError::Log(e) if is_log_error(&e)));
    assert!(ns.queue("q").is_some() && ns.exchange("e").is_some(), "what was not deleted stays");
}

/// What is not durable needs no log.
#[tokio::test]
async fn operations_in_memory_go_on_without_the_log() {
    let medium = FakeMedium::new(7);
    let log = Log::open_on(Arc::new(medium.clone()), Arc::new(SystemClock), LogOptions::default()).unwrap();
    let broker = Broker::open(log.clone(), BrokerConfig::default()).unwrap();
    let (ns, terms) = (broker.default_namespace(), session_terms());
    fail(&log, &medium, &broker).await;
    let q = ns.declare_queue("q", QueueSpec::default()).unwrap().it;
    let mut p = publisher(&ns);
    p.publish(queue("q"), &message(b"x")).unwrap();
    assert_eq!(p.flush().unwrap(), inver_broker::Completion::Now);
    let (mailbox, mut consumer) = attach(q.subscription());
    let got = take(&mailbox, &mut consumer, 1).await;
    assert_eq!(consumer.ack(&[got[0].id]).unwrap(), inver_broker::Completion::Now);
    let opened = broker
        .default_sessions()
        .open(session_spec(&broker.default_sessions(), "c", &terms, Expiry::AtDetach))
        .await
        .unwrap();
    assert_eq!(opened.completion, inver_broker::Completion::Now);
}
