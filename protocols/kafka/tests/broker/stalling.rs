//! A client that stops reading is disconnected after the one configured time.

use std::io::{ErrorKind, Write};
use std::time::Duration;
use tokio::time::Instant;

use inver_driver::Timeouts;
use inver_kafka::KafkaConfig;
use inver_kafka::codec::api::Api;

use crate::test_broker::{TestBroker, batch, encode, fetch_request};

/// Time limit of a test's own waits.
const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn a_client_that_stops_reading_is_disconnected() {
    let write_stall = Duration::from_millis(500);
    let mut config = KafkaConfig::default();
    config.limits.timeouts = Timeouts { write_stall, ..Timeouts::default() };
    let broker = TestBroker::with(config);
    let mut client = broker.with_topic("t", 1, &[]);
    client.produce(9, "t", 0, batch(&[&"x".repeat(1_000_000)]).into_bytes());
    let request = encode(&Api::Fetch, 12, 1, &fetch_request("t", &[(0, 0)]));
    let mut stalled = broker.client();
    let started = Instant::now();
    // Responses of more than the system buffers of a connection hold.
    for _ in 0..64 {
        stalled.stream.write_all(&request).unwrap();
    }
    // Once the broker has closed, with responses unread, a write fails.
    stalled.stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    loop {
        assert!(started.elapsed() < DEADLINE, "still connected");
        match stalled.stream.write(&request[..1]) {
            Ok(_) => std::thread::yield_now(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    assert!(started.elapsed() >= write_stall);
    // The broker serves the others.
    assert_eq!(client.values("t", 0, 0).len(), 1);
}
