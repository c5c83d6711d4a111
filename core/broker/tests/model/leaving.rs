//! What is left of sessions that ended: it is removed later where it is much, and never what a successor has.

use std::sync::{Arc, Mutex};

use crate::fixture::*;
use inver_broker::{Blocking, BrokerConfig, HUB, Mailbox, Mode, Opened, Target, Work};

/// What is left of a session that ended was removed later, by its client id: its successor left the group, which was deleted.
#[tokio::test]
async fn a_session_that_ends_leaves_its_successor_in_a_shared_group() {
    let late: Arc<Mutex<Vec<Work>>> = Arc::default();
    let (taken, given) = (late.clone(), late.clone());
    let next_late = || given.lock().unwrap().pop();
    // Slices of work come again.
    let run_late = || std::iter::from_fn(next_late).for_each(|work| work());
    let blocking = Blocking::handed_to(0, move |work| taken.lock().unwrap().push(work));
    let fixture = Fixture::with(BrokerConfig { blocking, ..BrokerConfig::default() });
    let (ns, sessions) = (fixture.namespace(), fixture.sessions());
    let join = |opened: &Opened, mailbox: &Arc<Mailbox>| {
        let spec = inver_broker::ConsumerSpec::new(mailbox.clone(), 1);
        opened.session.join(b"$share/g/a/b", &guaranteed(), Mode::Shared, spec).unwrap().0
    };
    let (mailbox, opened) = open(&sessions, "c", false).await;
    drop(join(&opened, &mailbox));
    drop(opened);
    assert!(!late.lock().unwrap().is_empty(), "it leaves the group later");
    let (mailbox, opened) = open(&sessions, "c", false).await;
    let mut consumer = join(&opened, &mailbox);
    run_late();
    assert_eq!(publish(&ns, Target::Hub(b"a/b"), "x"), 1);
    assert_eq!(values(&take(&mailbox, &mut consumer, 1).await), ["x"]);
    drop((consumer, opened));
    run_late();
    assert!(ns.queue("$share/g/a/b").is_none(), "the group ends with its last member");
}

/// Sessions of very many filters that ended together removed them all at the same time, and clients that published or
/// subscribed meanwhile waited for all of them.
#[tokio::test]
async fn sessions_that_end_together_leave_the_hub_in_slices_one_after_the_other() {
    const SESSIONS: usize = 4;
    const FILTERS: usize = 700;
    const SLICE_MAX: usize = 256;
    let late: Arc<Mutex<Vec<Work>>> = Arc::default();
    let taken = late.clone();
    let blocking = Blocking::handed_to(usize::MAX, move |work| taken.lock().unwrap().push(work));
    let fixture = Fixture::with(BrokerConfig { blocking, ..BrokerConfig::default() });
    let (ns, sessions) = (fixture.namespace(), fixture.sessions());
    let hub = ns.exchange(HUB).unwrap();
    let mut ended = Vec::new();
    for at in 0..SESSIONS {
        let (_, mut opened) = open(&sessions, &format!("c{at}"), false).await;
        for filter in 0..FILTERS {
            opened.session.subscribe(format!("{at}/{filter}/+").as_bytes(), &guaranteed()).unwrap();
        }
        ended.push(opened);
    }
    let (_mailbox, mut other) = open(&sessions, "other", false).await;
    other.session.subscribe(b"#", &guaranteed()).unwrap();
    drop(ended);
    let mut left = SESSIONS * FILTERS + 1;
    loop {
        let mut slices = std::mem::take(&mut *late.lock().unwrap());
        assert!(slices.len() <= 1, "one after the other");
        let Some(slice) = slices.pop() else { break };
        slice();
        let now = hub.binding_count();
        assert!(left - now <= SLICE_MAX, "{left} {now}");
        left = now;
        assert_eq!(publish(&ns, Target::Hub(b"1/1/x"), "x"), 1, "to the one that is open");
    }
    assert_eq!((left, sessions.tally().subscriptions), (1, 1));
}
