//! Back-pressure of the log: `connection.blocked`, and replies that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use inver_amqp::Limits;
use inver_amqp::codec::FRAME_HEARTBEAT;
use inver_amqp::codec::content::Properties;
use inver_amqp::codec::table::{Table, Value};
use inver_storage::medium::Files;
use inver_storage::{CommitPolicy, Log, LogOptions, SystemClock};

use crate::client::Client;
use crate::dead_letters::declare_dead_lettering;
use crate::server::Server;

/// A log whose writer can be held.
struct Held {
    log: Log,
    held: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Held {
    fn start() -> Held {
        let dir = tempfile::tempdir().unwrap();
        let options =
            LogOptions { commit: CommitPolicy::Os, submit_bytes_max: 64 * 1024, ..LogOptions::default() };
        let medium = Arc::new(Files::new(dir.path()).unwrap());
        let log = Log::open_manual(medium, Arc::new(SystemClock), options).unwrap();
        let (held, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let writer = std::thread::spawn({
            let (log, held, ended) = (log.clone(), held.clone(), ended.clone());
            move || {
                while !ended.load(Ordering::Relaxed) {
                    // The server closes the log at its end.
                    if !held.load(Ordering::Relaxed) && log.step_writer().is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Held { log, held, ended, writer: Some(writer), _dir: dir }
    }

    fn hold(&self, hold: bool) {
        self.held.store(hold, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.writer.take().unwrap().join().unwrap();
    }
}

fn persistent(client: &mut Client, body: &[u8]) {
    let properties = Properties { delivery_mode: Some(2), ..Properties::default() };
    client.publish_with(1, "", "q", false, &properties, body);
}

#[test]
fn a_publisher_is_sent_blocked_and_unblocked() {
    let held = Held::start();
    let limits = Limits { blocked_after: Duration::from_millis(50), ..Limits::default() };
    let server = Server::over(held.log.clone(), limits);
    let (mut publisher, mut other) = (server.client(), server.client());
    publisher.declare_with("q", true, Table::default());
    held.hold(true);
    for _ in 0..200 {
        persistent(&mut publisher, &[7; 1024]);
    }
    publisher.expect("ConnectionBlocked { reason: \"low on disk throughput\" }");
    // No method is repeated, and none is sent to a client that has not published.
    publisher.expect_silence();
    other.expect_silence();
    held.hold(false);
    publisher.expect("ConnectionUnblocked");
    assert!(publisher.declare_with("q", true, Table::default()).contains("message_count: 200"));
}

#[test]
fn a_get_sees_what_others_published_before_it() {
    let held = Held::start();
    let server = Server::over(held.log.clone(), Limits::default());
    let (mut publisher, mut getter) = (server.client(), server.client());
    publisher.declare_with("q", true, Table::default());
    assert!(getter.get("q", true).is_none());
    held.hold(true);
    let before = held.log.submitted();
    persistent(&mut publisher, b"pending");
    while held.log.submitted() == before {
        std::thread::yield_now();
    }
    getter.ask("q", true);
    getter.expect_silence();
    held.hold(false);
    assert_eq!(getter.message().text(), "pending");
    assert!(getter.get("q", true).is_none(), "nothing else is waited for");
}

#[test]
fn a_client_that_is_not_read_need_not_send_heartbeats() {
    let held = Held::start();
    let limits = Limits { blocked_after: Duration::from_millis(50), ..Limits::default() };
    let server = Server::over(held.log.clone(), limits);
    let mut client = Client::open_with(server.address, 131_072, 1);
    client.open_channel(1);
    client.declare_with("q", true, Table::default());
    held.hold(true);
    for _ in 0..200 {
        persistent(&mut client, &[7; 1024]);
    }
    client.expect("ConnectionBlocked");
    // Heartbeats from the server follow the same timer, two per interval: after four, a client that is read would have
    // been disconnected.
    for _ in 0..6 {
        assert_eq!(client.next().map(|got| got.kind), Some(FRAME_HEARTBEAT));
    }
    held.hold(false);
    client.expect("ConnectionUnblocked");
    assert!(client.declare_with("q", true, Table::default()).contains("message_count: 200"));
}

#[test]
fn a_message_written_late_counts_against_the_length_limit() {
    let held = Held::start();
    let server = Server::over(held.log.clone(), Limits::default());
    let (mut publisher, mut dead_letters) = (server.client(), server.client());
    declare_dead_lettering(&mut dead_letters, true, &[("x-max-length", Value::I32(2))]);
    held.hold(true);
    (1..=3).for_each(|n| persistent(&mut publisher, n.to_string().as_bytes()));
    // The depth is queried meanwhile; the message is not visible yet.
    dead_letters.expect_silence();
    held.hold(false);
    assert_eq!(dead_letters.message().text(), "1");
}
