//! What a protocol supplies: a state machine without a socket.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use inver_broker::{CloseReason, LiveConnection, Mailbox};
use inver_storage::{Log, LogError, Lsn, NoMemory};
use tokio::time::{Duration, Instant};

use crate::input::{Input, Progress};
use crate::output::Output;
use crate::timeouts::Timeouts;

/// One connection's side of a protocol.
///
/// A *turn* is everything that one wake-up brings: [`begin_turn`](Machine::begin_turn), then what happened
/// ([`wake`](Machine::wake), [`input`](Machine::input), [`expired`](Machine::expired), …), then
/// [`end_turn`](Machine::end_turn). Output is written after the turn, in one write if the socket takes it. No method
/// waits; an error ends the connection.
pub trait Machine: Send + Unpin {
    /// How received bytes are kept: [`Shared`](crate::Shared) or [`Owned`](crate::Owned).
    type Input: Input;

    /// Why the protocol ends a connection.
    type Error: From<LogError> + Send;

    /// Bytes of one read, at most. [`Owned`](crate::Owned) input reads less than that on its own.
    const READ_BYTES: usize = 64 * 1024;

    /// Whether any byte of a client counts as activity, or only whole messages.
    const BYTES_ARE_ACTIVITY: bool = true;

    /// Whether the driver measures the bytes and messages of the connection for its quotas. Otherwise the machine does.
    const IS_METERED: bool = true;

    /// The bounds of time.
    fn timeouts(&self) -> &Timeouts;

    /// The mailbox that wakes this connection.
    fn mailbox(&self) -> &Arc<Mailbox>;

    /// Its place among the live connections, once the client is admitted: the quotas of the connection hold from then on. Until
    /// then what it holds counts as held by a client that has not logged in; for ever, without one.
    fn place(&self) -> Option<&LiveConnection> {
        None
    }

    /// Bytes that the machine keeps of messages whose rest has not come, of a login, and of requests that wait, beside the
    /// input.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Bytes that the machine has encoded for the client and that are not in the output yet.
    fn encoded_bytes(&self) -> usize {
        0
    }

    /// Bytes of messages that the machine keeps until their transaction is committed.
    fn transaction_bytes(&self) -> usize {
        0
    }

    /// The log whose commits this connection waits for.
    fn log(&self) -> &Log;

    /// Starts a turn.
    fn begin_turn(&mut self, now: Instant) {
        let _nothing_to_note = now;
    }

    /// Takes the tokens of the mailbox, sorted, each once.
    fn wake(&mut self, tokens: &[u64], out: &mut Output) -> Result<(), Self::Error>;

    /// Whether more input may be taken while so many bytes wait to be written. The socket is not read otherwise. Must be
    /// false after [`Progress::blocked`], unless the log does not admit input, until what was waited for has happened.
    fn takes_input(&self, pending_bytes: usize) -> bool;

    /// Whether input waits for the log to admit more writes.
    fn needs_admission(&self) -> bool {
        true
    }

    /// Whether the first message of the input publishes something and was left there because the gate is shut
    /// ([`Gate`](inver_storage::Gate)). The client is not read until it opens; a machine that can tell its client to try
    /// again later does so instead.
    fn is_at_gate(&self) -> bool {
        false
    }

    /// Learns that input is held back by the log or by the gate, or no longer is. Called when that changes.
    fn held_back(&mut self, is_held_back: bool, now: Instant, out: &mut Output) {
        let _nothing_to_say = (is_held_back, now, out);
    }

    /// Takes the whole messages at the start of `input`, until one must wait.
    fn input(
        &mut self,
        input: <Self::Input as Input>::View<'_>,
        out: &mut Output,
    ) -> Result<Progress, Self::Error>;

    /// Ends a turn: hands writes to the log, and writes the answers and messages that may be sent now. True if there is
    /// more to send as soon as the output is written. Of messages, no more than there is [`Output::room`] for.
    fn end_turn(&mut self, out: &mut Output) -> Result<bool, Self::Error>;

    /// The log position that the first answer waits for. When it is committed, a turn follows, after which it must be
    /// another one; none for an answer that waits for room in the output.
    fn awaits(&self) -> Option<Lsn>;

    /// Learns that the log failed while this connection waited for it. Ends the connection unless the machine does
    /// otherwise.
    fn log_failed(&mut self, error: LogError, out: &mut Output) -> Result<(), Self::Error> {
        let _nothing_to_say = out;
        Err(error.into())
    }

    /// The earliest time at which [`expired`](Machine::expired) has something to do.
    fn deadline(&self, activity: &Activity) -> Option<Instant>;

    /// Does what is due at `now`. Afterwards [`deadline`](Machine::deadline) must be later than `now`.
    fn expired(&mut self, activity: &Activity, now: Instant, out: &mut Output) -> Result<(), Self::Error>;

    /// Polls work of the machine's own, such as checking credentials; the machine should take no input meanwhile. Ready
    /// when it, or a part of it, is done; a turn follows.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let _no_work = cx;
        Poll::Pending
    }

    /// Learns that shutdown was requested.
    fn shutdown(&mut self, now: Instant, out: &mut Output) -> Result<(), Self::Error>;

    /// Learns that the broker closes this connection, and why. By default it ends as at a shutdown.
    fn close(&mut self, reason: &CloseReason, now: Instant, out: &mut Output) -> Result<(), Self::Error> {
        tracing::debug!(%reason, "connection closed by the broker");
        self.shutdown(now, out)
    }

    /// Frees memory that a connection without traffic does not need. Called for [`Owned`](crate::Owned) input only.
    fn idle(&mut self) {}

    /// Ends the protocol's part and writes the last bytes.
    fn end(&mut self, end: &End<Self::Error>, out: &mut Output) -> Close;

    /// The log position of an answer that is still sent after the end, within [`Timeouts::linger`].
    fn owes(&self) -> Option<Lsn> {
        None
    }
}

/// Since when a connection has been quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    pub(crate) heard: Instant,
    pub(crate) wrote: Instant,
    pub(crate) is_read: bool,
}

impl Activity {
    /// When the client has been silent for `time`; none while the client is not read.
    #[must_use]
    pub fn silent_for(&self, time: Duration) -> Option<Instant> {
        self.is_read.then(|| self.heard + time)
    }

    /// When the server has written nothing for `time`.
    #[must_use]
    pub fn unwritten_for(&self, time: Duration) -> Instant {
        self.wrote + time
    }

    /// Whether the client is being read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_read
    }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum End<E> {
    /// The client closed its side.
    #[error("client closed the connection")]
    Closed,
    /// The socket failed.
    #[error("socket failed: {0}")]
    Io(#[from] io::Error),
    /// The client makes the broker keep more of its input than there is memory for.
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    /// The client took no output for [`Timeouts::write_stall`].
    #[error("client stopped reading")]
    Stalled,
    /// The protocol ends it.
    #[error("{0}")]
    Protocol(E),
}

/// How the socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// At once, without writing what is left.
    Abort,
    /// After the output is written. What the client still sends is read and dropped until it closes its side: unread
    /// bytes would make the system reset the connection and the last output could be lost.
    Linger,
    /// As `Linger`, but the client is first given the time to close.
    PeerFirst,
}
