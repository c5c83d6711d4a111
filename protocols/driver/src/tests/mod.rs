//! The driver under a toy protocol of lines, with paused time and a log whose writer the tests step.

mod closing;
mod commits;
mod quotas;
mod stalling;
mod turns;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use inver_broker::{CloseReason, Completion, Connection, ConnectionHandle, Io, LiveConnection, Mailbox};
use inver_storage::medium::Files;
use inver_storage::{CommitPolicy, Entry, Log, LogError, LogOptions, Lsn, SystemClock, TableId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Activity, Close, CommitQueue, Connections, Count, Driver, End, Machine, Output, Progress, Serving,
    Shared, Timeouts, count, is_over,
};

/// Bytes of output above which a toy takes no input.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// Why a toy ends its connection.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("bye")]
    Bye(Close),
    #[error("silent")]
    Silent,
    #[error("shutdown")]
    Shutdown,
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What a toy counts.
#[derive(Debug, Default)]
struct Counts {
    turns: AtomicUsize,
    input_bytes: AtomicUsize,
    pending_bytes_max: AtomicUsize,
}

/// A protocol of lines: `echo TEXT`, `commit TEXT` (answered when the log has it), `fill BYTES`, `deliver MESSAGES` of ten
/// bytes, `work` (until the time of the turn is over), `bye`, `leave`.
struct Toy<const BYTES_ARE_ACTIVITY: bool> {
    log: Log,
    mailbox: Arc<Mailbox>,
    timeouts: Timeouts,
    silence_max: Option<Duration>,
    answers: CommitQueue<String>,
    place: Option<ConnectionHandle>,
    is_at_gate: bool,
    turn: Instant,
    /// Messages to be delivered.
    messages: usize,
    counts: Arc<Counts>,
}

impl<const BYTES_ARE_ACTIVITY: bool> Toy<BYTES_ARE_ACTIVITY> {
    fn line(&mut self, line: &str, out: &mut Output) -> Result<(), Ended> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("echo", text) => self.answers.push(Completion::Now, format!("{text}\n")),
            ("commit", text) => {
                let mut entry = Entry::new();
                entry.put(TableId(1), Bytes::from_static(b"key"), Bytes::copy_from_slice(text.as_bytes()));
                let submitted = self.log.submit(entry).unwrap();
                self.answers.push(submitted.lsn, format!("{text}\n"));
            }
            ("fill", bytes) => out.push_shared(Bytes::from(vec![b'x'; bytes.parse().unwrap()])),
            ("deliver", messages) => self.messages += messages.parse::<usize>().unwrap(),
            ("work", _) => while !is_over(self.turn) {},
            ("bye", _) => return Err(Ended::Bye(Close::Linger)),
            ("leave", _) => return Err(Ended::Bye(Close::PeerFirst)),
            other => panic!("{other:?}"),
        }
        self.counts.pending_bytes_max.fetch_max(out.pending_bytes(), Ordering::Relaxed);
        Ok(())
    }
}

impl<const ACTIVITY: bool> Machine for Toy<ACTIVITY> {
    type Input = Shared;
    type Error = Ended;

    const READ_BYTES: usize = 4096;
    const BYTES_ARE_ACTIVITY: bool = ACTIVITY;

    fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn place(&self) -> Option<&LiveConnection> {
        self.place.as_deref()
    }

    fn begin_turn(&mut self, now: Instant) {
        self.turn = now;
        self.counts.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn wake(&mut self, tokens: &[u64], out: &mut Output) -> Result<(), Ended> {
        tokens.iter().for_each(|token| out.flat().extend_from_slice(format!("token {token}\n").as_bytes()));
        Ok(())
    }

    fn is_at_gate(&self) -> bool {
        self.is_at_gate
    }

    fn takes_input(&self, pending_bytes: usize) -> bool {
        pending_bytes < OUTPUT_BYTES_MAX
    }

    fn input(&mut self, input: &[u8], out: &mut Output) -> Result<Progress, Ended> {
        let mut used = 0;
        while let Some(end) = input[used..].iter().position(|byte| *byte == b'\n') {
            if out.pending_bytes() >= OUTPUT_BYTES_MAX {
                return Ok(Progress::blocked(used));
            }
            let line = std::str::from_utf8(&input[used..used + end]).unwrap();
            self.is_at_gate = line.starts_with("commit") && self.log.gate().shortage().is_some();
            if self.is_at_gate {
                return Ok(Progress::blocked(used));
            }
            self.counts.input_bytes.fetch_add(end + 1, Ordering::Relaxed);
            self.line(line, out)?;
            count(Count::Received, 1);
            used += end + 1;
            if line == "work" {
                return Ok(Progress::blocked(used));
            }
        }
        Ok(Progress::all(used))
    }

    fn end_turn(&mut self, out: &mut Output) -> Result<bool, Ended> {
        while let Some(answer) = self.answers.pop(self.log.committed()) {
            out.flat().extend_from_slice(answer.as_bytes());
        }
        let (room, before) = (out.room(), out.pending_bytes());
        let mut sent = 0;
        while self.messages > 0 && sent < room.messages && out.pending_bytes() - before < room.bytes {
            out.flat().extend_from_slice(b"message 1\n");
            self.messages -= 1;
            sent += 1;
        }
        count(Count::SentAuto, sent as u64);
        Ok(self.messages > 0)
    }

    fn awaits(&self) -> Option<Lsn> {
        self.answers.awaits()
    }

    fn deadline(&self, activity: &Activity) -> Option<Instant> {
        activity.silent_for(self.silence_max?)
    }

    fn expired(&mut self, _activity: &Activity, _now: Instant, _out: &mut Output) -> Result<(), Ended> {
        Err(Ended::Silent)
    }

    fn shutdown(&mut self, _now: Instant, out: &mut Output) -> Result<(), Ended> {
        out.flat().extend_from_slice(b"shutdown\n");
        Err(Ended::Shutdown)
    }

    fn close(&mut self, reason: &CloseReason, now: Instant, out: &mut Output) -> Result<(), Ended> {
        out.flat().extend_from_slice(format!("{reason}\n").as_bytes());
        self.shutdown(now, out)
    }

    fn end(&mut self, end: &End<Ended>, out: &mut Output) -> Close {
        match end {
            End::Protocol(Ended::Bye(close)) => {
                out.flat().extend_from_slice(b"bye\n");
                *close
            }
            End::Io(_) | End::NoMemory(_) | End::Stalled => Close::Abort,
            End::Protocol(_) | End::Closed => Close::Linger,
        }
    }

    fn owes(&self) -> Option<Lsn> {
        self.answers.awaits()
    }
}

/// What connections of a test share.
struct Toys {
    log: Log,
    connections: Arc<Connections>,
    shutdown: CancellationToken,
    counts: Arc<Counts>,
    silence_max: Option<Duration>,
    _dir: tempfile::TempDir,
}

impl Toys {
    fn new() -> Toys {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { commit: CommitPolicy::Os, submit_entries_max: 4, ..LogOptions::default() };
        let medium = Arc::new(Files::new(dir.path()).unwrap());
        let log = Log::open_manual(medium, Arc::new(SystemClock), options).unwrap();
        Toys {
            log,
            connections: Connections::new("test"),
            shutdown: CancellationToken::new(),
            counts: Arc::default(),
            silence_max: None,
            _dir: dir,
        }
    }

    fn machine<const ACTIVITY: bool>(&self) -> Toy<ACTIVITY> {
        Toy {
            log: self.log.clone(),
            mailbox: Mailbox::new(),
            timeouts: Timeouts::default(),
            silence_max: self.silence_max,
            answers: CommitQueue::default(),
            place: None,
            is_at_gate: false,
            turn: Instant::now(),
            messages: 0,
            counts: self.counts.clone(),
        }
    }

    fn connection(&self, io: Box<dyn Io>) -> Connection {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Connection::plain(io, address, address, self.shutdown.clone())
    }

    /// A client and the mailbox of its connection.
    fn connect_with_mailbox(&self) -> (Client, Arc<Mailbox>) {
        let (io, server) = tokio::io::duplex(100);
        let machine = self.machine::<true>();
        let mailbox = machine.mailbox.clone();
        let driver = Driver::new(self.connection(Box::new(server)), &self.connections, machine);
        let serving = tokio::spawn(Serving::Running(driver));
        (Client { io, started: Instant::now(), serving }, mailbox)
    }

    fn driver(&self, io: Box<dyn Io>) -> Driver<Toy<true>> {
        Driver::new(self.connection(io), &self.connections, self.machine())
    }

    /// A client, whose stream holds so many bytes in each direction, and its connection.
    fn connect(&self, stream_bytes: usize) -> Client {
        self.connect_as::<true>(stream_bytes)
    }

    fn connect_as<const ACTIVITY: bool>(&self, stream_bytes: usize) -> Client {
        let (io, server) = tokio::io::duplex(stream_bytes);
        let machine = self.machine::<ACTIVITY>();
        let driver = Driver::new(self.connection(Box::new(server)), &self.connections, machine);
        Client { io, started: Instant::now(), serving: tokio::spawn(Serving::Running(driver)) }
    }

    /// Commits what was submitted.
    fn commit(&self) {
        while self.log.step_writer().unwrap() {}
    }
}

struct Client {
    io: DuplexStream,
    started: Instant,
    serving: JoinHandle<()>,
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    async fn expect(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        self.io.read_exact(&mut bytes).await.unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }

    /// What comes until the server closes its side.
    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.io.read_to_string(&mut rest).await.unwrap();
        rest
    }

    /// Nothing comes within a second.
    async fn expect_silence(&mut self) {
        self.expect_silence_of(Duration::from_secs(1)).await;
    }

    async fn expect_silence_of(&mut self, time: Duration) {
        let mut byte = [0];
        let read = tokio::time::timeout(time, self.io.read(&mut byte)).await;
        assert!(read.is_err(), "{byte:?} came");
    }

    /// Waits for the end of the connection; returns its age then and the stream.
    async fn ended(self) -> (Duration, DuplexStream) {
        self.serving.await.unwrap();
        (self.started.elapsed(), self.io)
    }
}

/// Advances the clock of a test, which stands while there is anything to do; what becomes due happens in its order.
async fn advance(time: Duration) {
    tokio::time::sleep(time).await;
}
