//! A client that stops reading is disconnected after the one configured time.

use std::time::Duration;

use tokio::time::Instant;

use inver_amqp::Limits;
use inver_amqp::codec::table::Table;
use inver_driver::Timeouts;

use crate::client::TIMEOUT;
use crate::server::Server;

/// More than the system buffers of a connection hold.
const MESSAGES: usize = 160;
const MESSAGE_BYTES: usize = 256 * 1024;

#[test]
fn a_consumer_that_stops_reading_is_disconnected_and_its_messages_are_requeued() {
    let write_stall = Duration::from_millis(500);
    let timeouts = Timeouts { write_stall, ..Timeouts::default() };
    let server = Server::with(Limits { timeouts, heartbeat_s: 0, ..Limits::default() });
    let mut observer = server.client();
    observer.declare("q");
    for _ in 0..MESSAGES {
        observer.publish(1, "", "q", &vec![7; MESSAGE_BYTES]);
    }
    let mut stalled = server.client();
    let started = Instant::now();
    stalled.consume_with("q", "stalled", false, false, Table::default());
    while !observer.declare("q").contains("consumer_count: 1") {
        assert!(started.elapsed() < TIMEOUT, "not consuming");
    }
    let closed = loop {
        let declared = observer.declare("q");
        if declared.contains("consumer_count: 0") {
            break declared;
        }
        assert!(started.elapsed() < TIMEOUT, "still connected");
    };
    assert!(started.elapsed() >= write_stall);
    assert!(closed.contains(&format!("message_count: {MESSAGES}")), "{closed}");
}
