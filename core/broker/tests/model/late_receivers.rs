//! Receivers of a session that are made for the first message: none is missed, and the connection is told.

use crate::fixture::*;
use inver_broker::{Message, Target};

/// Messages of a round, every other one guaranteed.
const MESSAGES: usize = 40;

#[tokio::test]
async fn a_receiver_made_late_misses_no_message() {
    let fixture = Fixture::new();
    let (ns, sessions) = (fixture.namespace(), fixture.sessions());
    for round in 0..100 {
        let durable = round % 2 == 1;
        let client_id = if durable { "durable" } else { "c" };
        let (mailbox, mut opened) = open(&sessions, client_id, durable).await;
        opened.session.subscribe(b"a", &guaranteed()).unwrap();
        let publishing = {
            let mut publisher = publisher(&ns);
            std::thread::spawn(move || {
                for number in 0..MESSAGES {
                    let value = [number as u8];
                    let message = Message { guaranteed: number % 2 == 0, ..message(&value) };
                    publisher.publish(Target::Hub(b"a"), &message).unwrap();
                    let _ = publisher.flush().unwrap();
                }
            })
        };
        let (mut inbox, mut live, mut messages) = (Vec::new(), Vec::new(), 0);
        let receive = async {
            // As a connection does: pulls what its tokens tell, until nothing more is there.
            let (mut tokens, mut inbox_ready, mut live_ready) = (Vec::new(), true, true);
            while messages < MESSAGES as u64 {
                if !inbox_ready && !live_ready {
                    mailbox.wait().await;
                }
                mailbox.drain(&mut tokens);
                inbox_ready |= tokens.contains(&1);
                live_ready |= tokens.contains(&2);
                if std::mem::take(&mut inbox_ready) {
                    inbox_ready = opened.session.pull_inbox(5, usize::MAX, &mut inbox).more;
                }
                if std::mem::take(&mut live_ready) {
                    live_ready = opened.session.pull_live(usize::MAX, &mut live).more;
                }
                messages = inbox.len() as u64 + live.iter().map(|batch| batch.messages).sum::<u64>();
            }
        };
        let received = tokio::time::timeout(std::time::Duration::from_secs(60), receive).await;
        assert!(received.is_ok(), "round {round}: {} guaranteed, {messages} in all", inbox.len());
        assert_eq!(inbox.len(), MESSAGES / 2);
        let offsets: Vec<u64> = inbox.iter().map(|delivery| delivery.id.offset).collect();
        committed(&ns, opened.session.ack(&offsets).unwrap());
        publishing.join().unwrap();
        assert!(opened.session.unsubscribe(b"a").unwrap().0);
    }
}
