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
        send(b"away");
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
