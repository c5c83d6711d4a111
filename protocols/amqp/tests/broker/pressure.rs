//! What clients notice of a log that is behind: `connection.blocked`, and answers that wait.

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
use crate::deaths::mortal;
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
                    // The server closes the log when it ends.
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
fn a_publisher_is_told_that_it_is_held_back_and_that_it_is_no_more() {
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
    // Nothing is said twice, nor to who did not publish.
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
    persistent(&mut publisher, b"on its way");
    while held.log.submitted() == before {
        std::thread::yield_now();
    }
    getter.ask("q", true);
    getter.expect_silence();
    held.hold(false);
    assert_eq!(getter.message().text(), "on its way");
    assert!(getter.get("q", true).is_none(), "and no more than that is waited for");
}

#[test]
fn no_heartbeats_are_demanded_of_a_client_that_is_held_back() {
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
    // The server's own come by the same clock, two an interval: after four a client that is read would be gone.
    for _ in 0..6 {
        assert_eq!(client.next().map(|got| got.kind), Some(FRAME_HEARTBEAT));
    }
    held.hold(false);
    client.expect("ConnectionUnblocked");
    assert!(client.declare_with("q", true, Table::default()).contains("message_count: 200"));
}

#[test]
fn what_has_no_room_dies_however_late_it_is_written() {
    let held = Held::start();
    let server = Server::over(held.log.clone(), Limits::default());
    let (mut publisher, mut grave) = (server.client(), server.client());
    mortal(&mut grave, true, &[("x-max-length", Value::I32(2))]);
    held.hold(true);
    (1..=3).for_each(|n| persistent(&mut publisher, n.to_string().as_bytes()));
    // The queue is looked at meanwhile, and nothing of it can be seen.
    grave.expect_silence();
    held.hold(false);
    assert_eq!(grave.message().text(), "1");
}
