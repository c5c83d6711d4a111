//! Best-effort messages for sessions whose client is away.

use crate::fixture::*;
use inver_broker::{BrokerConfig, InboxBounds, SubscriptionOptions, Target};

#[tokio::test]
async fn best_effort_messages_wait_for_a_client_that_is_away_if_they_are_kept() {
    for keeps in [false, true] {
        let inbox = InboxBounds { best_effort: keeps, ..InboxBounds::default() };
        let fixture = Fixture::with(BrokerConfig { inbox, ..BrokerConfig::default() });
        let (ns, sessions) = (fixture.namespace(), fixture.sessions());
        let mut publisher = publisher(&ns);
        let mut send = |value: &'static [u8]| {
            let best_effort = inver_broker::Message { guaranteed: false, ..message(value) };
            publisher.publish(Target::Hub(b"a"), &best_effort).unwrap();
            committed(&ns, publisher.flush().unwrap());
        };
        let (mailbox, mut opened) = open(&sessions, "c", true).await;
        opened.session.subscribe(b"a", &SubscriptionOptions::default()).unwrap();
        send(b"here");
        drop((mailbox, opened));
        let inbox = sessions.inbox_stream("c").unwrap();
        let stored = || inbox.high_watermark().0;
        assert_eq!(stored(), 0, "a client that is here has it in its live queue");
        send(b"away");
        committed(&ns, ns.log().submitted());
        assert_eq!(stored(), u64::from(keeps), "stored if they are kept");
        let (_mailbox, mut opened) = open(&sessions, "c", true).await;
        assert!(opened.present);
        send(b"back");
        until("the log", || {
            let mut got = Vec::new();
            opened.session.pull_inbox(10, usize::MAX, &mut got);
            let inbox = values(&got);
            if keeps { inbox == ["away"] } else { inbox.is_empty() }
        })
        .await;
        let mut live = Vec::new();
        opened.session.pull_live(usize::MAX, &mut live);
        assert_eq!(live.iter().map(|batch| batch.messages).sum::<u64>(), 1, "the last");
    }
}

#[tokio::test]
async fn a_session_to_which_no_route_leads_leaves_all_routes_as_they_are() {
    let inbox = InboxBounds { best_effort: true, ..InboxBounds::default() };
    let fixture = Fixture::with(BrokerConfig { inbox, ..BrokerConfig::default() });
    let (ns, sessions) = (fixture.namespace(), fixture.sessions());
    let (_mailbox, mut opened) = open(&sessions, "c", true).await;
    opened.session.subscribe(b"a", &SubscriptionOptions::default()).unwrap();
    let version = ns.version();
    drop(opened);
    assert_eq!(ns.version(), version);
}
