//! Dropping the broker frees its log, whatever sessions there were.

use crate::fixture::*;
use inver_broker::{Broker, BrokerConfig, Expiry, Mailbox, SessionSpec, Will};
use inver_storage::{Log, LogOptions};

/// The namespace and its sessions held each other: the log's threads and the lock of its folder outlived the broker.
#[tokio::test]
async fn dropping_a_broker_with_live_sessions_frees_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Log::open(dir.path(), LogOptions::default());
    let broker = Broker::open(open().unwrap(), BrokerConfig::default()).unwrap();
    let sessions = broker.default_sessions();
    let (mailbox, terms) = (Mailbox::new(), session_terms());
    let mut held = Vec::new();
    for (client_id, expiry) in
        [("durable", Expiry::Never), ("away", Expiry::Never), ("passing", Expiry::AtDetach)]
    {
        let spec = SessionSpec {
            client_id,
            clean_start: false,
            expiry,
            mailbox: mailbox.clone(),
            terms: &terms,
            permissions: permissions(&sessions, None, client_id),
        };
        let mut session = sessions.open(spec).await.unwrap().session;
        session.subscribe(b"a/+", &guaranteed()).unwrap();
        let consumer = inver_broker::ConsumerSpec::new(mailbox.clone(), 9);
        session.join(b"$share/g/a/b", &guaranteed(), inver_broker::Mode::Shared, consumer).unwrap();
        held.push(session);
    }
    let will = Will { address: b"a/b".to_vec(), ..will(b"last words", 3600) };
    let _ = held[1].set_will(Some(will)).unwrap();
    // One session is away with a delayed will and a timer, two are held by their connections.
    drop(held.remove(1));
    publish(&broker.default_namespace(), inver_broker::Target::Hub(b"a/b"), "x");
    assert!(open().is_err(), "the folder is locked while the broker is open");
    drop((broker, sessions));
    drop(held);
    let again = Broker::open(open().expect("the folder is free"), BrokerConfig::default()).unwrap();
    assert_eq!(again.default_sessions().len(), 2);
}
