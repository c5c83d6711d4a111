//! Quotas: a client is held to its rate, nothing is lost, and others go on.

use inver_broker::{
    Admission, Broker, BrokerConfig, Endpoints, EntityName, Identity, ListenerInfo, QuotaEntity, QuotaLimits,
};

use super::*;
use crate::traffic::{count_received, counted_messages};

/// Toys with a broker, which has the quotas.
struct Limited {
    toys: Toys,
    broker: Broker,
}

impl Limited {
    fn new() -> Limited {
        let toys = Toys::new();
        let broker = Broker::open(toys.log.clone(), BrokerConfig::default()).unwrap();
        toys.commit();
        Limited { toys, broker }
    }

    fn limit(&self, user: &str, limit: impl FnOnce(&mut QuotaLimits)) {
        let entity = QuotaEntity::Client { user: Some(EntityName::parse(user)), client_id: None };
        let _ = self.broker.quotas().update(&entity, limit).unwrap();
        self.toys.commit();
    }

    /// A client of a user, whose stream holds so many bytes in each direction.
    fn connect(&self, user: &str, stream_bytes: usize) -> Client {
        let (io, server) = tokio::io::duplex(stream_bytes);
        let mut machine = self.toys.machine::<true>();
        let connection = self.toys.connection(Box::new(server));
        let endpoints = Endpoints {
            peer: connection.peer,
            local: connection.local,
            encrypted: false,
            listener: Arc::new(ListenerInfo::default()),
        };
        let admitted = self.broker.admit(&Admission {
            protocol: "test",
            identity: &Identity::user(user),
            endpoints: &endpoints,
            namespace: None,
            client_id: "c",
            mailbox: &machine.mailbox,
            wait_max: Duration::from_secs(5),
        });
        machine.place = Some(admitted.unwrap().connection);
        let driver = Driver::new(connection, &self.toys.connections, machine);
        Client { io, started: Instant::now(), serving: tokio::spawn(Serving::Running(driver)) }
    }
}

fn is_about(time: Duration, seconds: f64) -> bool {
    (seconds * 0.95..=seconds * 1.1 + 0.05).contains(&time.as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn a_client_is_read_at_its_rate_and_others_at_theirs() {
    let limited = Limited::new();
    limited.limit("ann", |limits| limits.bytes_in = Some(1000));
    let (mut ann, mut bob) = (limited.connect("ann", 100), limited.connect("bob", 100));
    let sent = tokio::spawn(async move {
        for number in 1000..2000 {
            ann.send(&format!("echo {number}\n")).await;
            ann.expect(&format!("{number}\n")).await;
        }
        ann
    });
    advance(Duration::from_secs(3)).await;
    let before = Instant::now();
    for _ in 0..1000 {
        bob.send("echo a\n").await;
        bob.expect("a\n").await;
    }
    assert_eq!(before.elapsed(), Duration::ZERO, "another user is not held back");
    let throttled: Vec<bool> =
        limited.broker.connections().list().iter().map(|live| live.is_throttled()).collect();
    assert_eq!(throttled, [true, false]);
    let ann = sent.await.unwrap();
    // The first 1,000 bytes were saved up.
    assert!(is_about(ann.started.elapsed(), 9.0), "{:?}", ann.started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_shared_by_the_connections_of_a_user() {
    let limited = Limited::new();
    limited.limit("ann", |limits| limits.messages_in = Some(10));
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = limited.connect("ann", 100);
        clients.push(tokio::spawn(async move {
            for _ in 0..22 {
                client.send("echo a\n").await;
                client.expect("a\n").await;
            }
            client.started.elapsed()
        }));
    }
    let mut longest = Duration::ZERO;
    for client in clients {
        longest = longest.max(client.await.unwrap());
    }
    assert!(is_about(longest, 10.0), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_held_back_and_answers_are_not() {
    for by_bytes in [true, false] {
        let limited = Limited::new();
        limited.limit("ann", |limits| match by_bytes {
            true => limits.bytes_out = Some(100),
            false => limits.messages_out = Some(10),
        });
        let mut ann = limited.connect("ann", 100_000);
        ann.send("deliver 110\n").await;
        // Ten were saved up, and one may go into debt.
        for _ in 0..11 {
            ann.expect("message 1\n").await;
        }
        assert_eq!(ann.started.elapsed(), Duration::ZERO);
        ann.expect_silence_of(Duration::from_millis(15)).await;
        ann.send("echo a\n").await;
        ann.expect("a\n").await;
        assert!(ann.started.elapsed() < Duration::from_millis(20));
        for _ in 0..99 {
            ann.expect("message 1\n").await;
        }
        assert!(is_about(ann.started.elapsed(), 10.0), "{by_bytes}: {:?}", ann.started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn the_silence_of_a_client_that_is_held_back_does_not_count() {
    let mut limited = Limited::new();
    limited.toys.silence_max = Some(Duration::from_secs(2));
    limited.limit("ann", |limits| limits.bytes_in = Some(100));
    let mut ann = limited.connect("ann", 10_000);
    // Ten seconds of debt, of which the first is saved up.
    ann.send(&"echo aaaa\n".repeat(100)).await;
    for _ in 0..100 {
        ann.expect("aaaa\n").await;
    }
    assert!(ann.started.elapsed() > Duration::from_secs(4), "{:?}", ann.started.elapsed());
    ann.send("echo a\n").await;
    ann.expect("a\n").await;
    assert!(is_about(ann.started.elapsed(), 9.0), "{:?}", ann.started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn quotas_set_and_lifted_reach_an_open_connection() {
    let limited = Limited::new();
    let mut ann = limited.connect("ann", 100);
    ann.send("echo a\n").await;
    ann.expect("a\n").await;
    limited.limit("ann", |limits| limits.messages_in = Some(1));
    for _ in 0..3 {
        ann.send("echo a\n").await;
        ann.expect("a\n").await;
    }
    assert!(ann.started.elapsed() >= Duration::from_secs(1), "{:?}", ann.started.elapsed());
    limited.limit("ann", |limits| limits.messages_in = None);
    let lifted = Instant::now();
    for _ in 0..100 {
        ann.send("echo a\n").await;
        ann.expect("a\n").await;
    }
    assert!(lifted.elapsed() <= Duration::from_secs(2), "{:?}", lifted.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_too_fast_is_served_later() {
    let limited = Limited::new();
    limited.limit("ann", |limits| limits.connections = Some(1));
    let (mut first, mut second) = (limited.connect("ann", 100), limited.connect("ann", 100));
    for (client, seconds) in [(&mut first, 0), (&mut second, 1)] {
        client.send("echo a\n").await;
        client.expect("a\n").await;
        assert_eq!(client.started.elapsed().as_secs(), seconds);
    }
}

/// A quota on messages held nobody while only their sizes were counted.
#[test]
fn received_messages_are_counted_for_quotas() {
    let (before, _) = counted_messages();
    count_received(1);
    count_received(1_000_000);
    assert_eq!(counted_messages().0, before + 2);
}
