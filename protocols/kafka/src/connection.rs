//! The task of one connection: reads big, takes every whole request that is there, writes all that may go out at once.
//!
//! It waits for whatever comes first: bytes from the client (only while there is room for more requests and the log
//! admits more), room in the socket, the commit that the oldest response waits for, tokens in the mailbox (streams,
//! the disk, groups), a deadline, the end of the server.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use inver_broker::{AuthError, Connection, Credentials, Io, Mailbox};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tracing::Instrument;

use crate::alarm::Alarm;
use crate::budget::Share;
use crate::codec::frame::Output;
use crate::error::ConnectionError;
use crate::node::Node;
use crate::session::Session;

/// Bytes of the length before a request.
const LENGTH_BYTES: usize = 4;

/// The buffer for reading begins so large, grows while reads fill it, and shrinks when they no longer do.
const READ_BYTES_MIN: usize = 1 << 10;
const READ_BYTES_MAX: usize = 256 << 10;

/// Requests above this many bytes need a share of the memory that all connections have for such.
const LARGE_REQUEST_BYTES: usize = 1 << 20;

/// A connection that was silent for so long gives back the memory that it used while it was busy.
const TIDY_AFTER: Duration = Duration::from_secs(2);

/// Slices given to one write: enough for 1 MiB in batches of 16 KiB, two slices each.
const SLICES_MAX: usize = 160;

/// How long a connection that is ended still tries to tell its client why.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves one connection until its end.
pub(crate) async fn serve(connection: Connection, node: Arc<Node>) {
    let span = tracing::debug_span!("kafka", peer = %connection.peer);
    async {
        match run(connection, node).await {
            Ok(()) | Err(ConnectionError::Idle) => tracing::debug!("connection closed"),
            Err(error @ (ConnectionError::Io(_) | ConnectionError::ProduceWithoutAcks(_))) => {
                tracing::debug!(%error, "connection ended");
            }
            Err(error @ (ConnectionError::Log(_) | ConnectionError::Unanswered)) => {
                tracing::error!(%error, "connection ended");
            }
            Err(error) => tracing::info!(%error, "connection ended"),
        }
    }
    .instrument(span)
    .await;
}

async fn run(connection: Connection, node: Arc<Node>) -> Result<(), ConnectionError> {
    let Connection { io, peer, local, shutdown, .. } = connection;
    let identity = match node.broker.authenticate(peer.ip(), &Credentials::Anonymous).await {
        Ok(identity) => Some(identity),
        Err(AuthError::CredentialsRequired | AuthError::Refused) => None,
        Err(error @ AuthError::LoopbackOnly) => {
            tracing::warn!(%error, "connection refused");
            return Ok(());
        }
    };
    let mailbox = Mailbox::new();
    let session = Session::new(node.clone(), peer, local, identity, mailbox.clone());
    let (idle_max, login_max) = (node.config.limits.idle_max, node.config.limits.login_max);
    let now = Instant::now();
    let mut task = Task {
        io,
        node,
        session,
        mailbox,
        input: BytesMut::new(),
        read_bytes: READ_BYTES_MIN,
        output: Output::default(),
        unflushed: false,
        tokens: Vec::new(),
        idle_max,
        heard: now,
        login_by: now + login_max,
        whole_by: None,
        alarm: Alarm::new(),
        tidy_at: None,
        large: None,
    };
    let outcome = tokio::select! {
        outcome = task.serve() => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    task.farewell().await;
    outcome
}

struct Task {
    io: Box<dyn Io>,
    node: Arc<Node>,
    session: Session,
    mailbox: Arc<Mailbox>,
    input: BytesMut,
    read_bytes: usize,
    output: Output,
    /// Something was written since the last flush.
    unflushed: bool,
    tokens: Vec<u64>,
    idle_max: Duration,
    /// When the last bytes came.
    heard: Instant,
    /// Who has not shown by then who they are has to go, however much they send.
    login_by: Instant,
    /// When the request that has begun to come in has to be whole, however slowly it comes.
    whole_by: Option<Instant>,
    alarm: Alarm,
    /// When to give back memory, if there is any to give back.
    tidy_at: Option<Instant>,
    /// The large request that is coming in, or waits for room to do so.
    large: Option<Large>,
}

/// A request above [`LARGE_REQUEST_BYTES`].
struct Large {
    bytes: usize,
    share: Option<Share>,
    /// When it asked for its share.
    asked: Instant,
}

/// What a turn of the loop brought.
#[derive(Default)]
struct Happened {
    /// The client has closed its side.
    ended: bool,
}

impl Task {
    async fn serve(&mut self) -> Result<(), ConnectionError> {
        loop {
            let now = Instant::now();
            self.mailbox.drain(&mut self.tokens);
            self.session.wake(&self.tokens, now);
            self.session.advance(&mut self.output)?;
            let starved = self.take_requests(now).await?;
            self.session.advance(&mut self.output)?;
            let happened = self.turn(starved).await?;
            if happened.ended {
                return Ok(());
            }
        }
    }

    /// Takes the whole requests that are there, while there is room. Whether more bytes are wanted.
    async fn take_requests(&mut self, now: Instant) -> Result<bool, ConnectionError> {
        while self.session.has_room(&self.output) && self.node.broker.log().is_admitting() {
            let Some(request) = self.next_request()? else {
                let time = self.node.config.limits.request_time_max;
                let begun = (!self.input.is_empty()).then_some(now + time);
                self.whole_by = begun.map(|by| self.whole_by.unwrap_or(by));
                return Ok(true);
            };
            self.whole_by = None;
            if let Some(credentials) = self.session.handle(request, now)? {
                let shown = Credentials::Password {
                    user: credentials.user.clone(),
                    password: credentials.password.clone(),
                };
                let outcome = self.node.broker.authenticate(self.session.peer().ip(), &shown).await;
                self.session.authenticated(&credentials, outcome)?;
            }
            self.session.advance(&mut self.output)?;
        }
        // The client is not to blame for what is not read.
        self.whole_by = None;
        Ok(false)
    }

    /// When the client's time is up, and for what.
    fn patience(&self) -> Option<(Instant, ConnectionError)> {
        let login = (!self.session.is_open()).then_some((self.login_by, ConnectionError::NoLogin));
        if self.lacking_bytes().is_some() {
            // It may not send what it would: it waits for room here.
            return login;
        }
        let idle = (self.heard + self.idle_max, ConnectionError::Idle);
        let whole = self.whole_by.map(|by| (by, ConnectionError::TooSlow));
        [Some(idle), login, whole].into_iter().flatten().min_by_key(|(by, _)| *by)
    }

    /// Bytes of the large request that waits for room, if one does.
    fn lacking_bytes(&self) -> Option<usize> {
        self.large.as_ref().filter(|large| large.share.is_none()).map(|large| large.bytes)
    }

    /// There is room for the large request. The time that it waited is not the client's.
    fn make_room(&mut self, share: Option<Share>) {
        let Some(large) = &mut self.large else { return };
        large.share = share;
        let now = Instant::now();
        self.whole_by = self.whole_by.map(|by| by + now.duration_since(large.asked));
        self.heard = now;
    }

    /// The next request, without its length, if it is whole.
    fn next_request(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        let Some(prefix) = self.input.first_chunk() else { return Ok(None) };
        let length = i32::from_be_bytes(*prefix);
        let rest = self.input.get(LENGTH_BYTES..).unwrap_or_default();
        if rest.len() < 2 && length >= 2 {
            // Its kind is not known yet, on which the bound depends.
            return Ok(None);
        }
        let bytes_max = self.session.request_bytes_max(rest);
        let too_long = ConnectionError::TooLong { bytes: i64::from(length), bytes_max };
        let Ok(length) = usize::try_from(length) else { return Err(too_long) };
        if length > bytes_max {
            return Err(too_long);
        }
        if rest.len() < length {
            if length > LARGE_REQUEST_BYTES && self.large.is_none() {
                let share = self.node.large_requests.try_take(length);
                self.large = Some(Large { bytes: length, share, asked: Instant::now() });
            }
            return Ok(None);
        }
        self.large = None;
        self.input.advance(LENGTH_BYTES);
        Ok(Some(self.input.split_to(length).freeze()))
    }

    /// Bytes that the next read has room for: what is missing of a long request, but never more than has come of it
    /// already, so that a claimed length alone reserves little.
    fn wanted_bytes(&self) -> usize {
        let missing = match self.input.first_chunk() {
            Some(prefix) => {
                let length = usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(0);
                (LENGTH_BYTES + length).saturating_sub(self.input.len())
            }
            None => 0,
        };
        missing.min(self.input.len()).max(self.read_bytes)
    }

    /// Waits until something can be done, and does the reading and writing that can be done at once.
    async fn turn(&mut self, wants_input: bool) -> Result<Happened, ConnectionError> {
        let log = self.node.broker.log().clone();
        let lsn = self.session.awaited_lsn();
        // Held back by the log, not by the client: wait for the log.
        let held_back = !wants_input && self.session.has_room(&self.output);
        let mut admitted = pin!(awaited(held_back.then(|| log.admit())));
        let mailbox = self.mailbox.clone();
        let mut mail = pin!(mailbox.wait());
        let lacking = self.lacking_bytes();
        let mut room = pin!(awaited(lacking.map(|bytes| self.node.large_requests.take(bytes))));
        let wants_input = wants_input && lacking.is_none();
        let patience_end = self.patience().map(|(by, _)| by);
        let deadline = [patience_end, self.session.deadline(), self.tidy_at].into_iter().flatten().min();
        if let Some(deadline) = deadline {
            self.alarm.set(deadline);
        }
        poll_fn(|cx| {
            let mut happened = Happened::default();
            let mut any = false;
            // Writing first: what goes out may make room for what comes in.
            while self.output.pending_bytes() > 0 || self.unflushed {
                match self.poll_write(cx) {
                    Poll::Ready(result) => {
                        result?;
                        any = true;
                    }
                    Poll::Pending => break,
                }
            }
            if wants_input {
                match self.poll_read(cx) {
                    Poll::Ready(count) => {
                        any = true;
                        happened.ended = count? == 0;
                        self.heard = Instant::now();
                        self.tidy_at = Some(self.heard + TIDY_AFTER);
                    }
                    Poll::Pending => {}
                }
            }
            // Asked anew each time: the log lists a task once and forgets it when it wakes it.
            if let Some(lsn) = lsn
                && let Poll::Ready(result) = log.poll_committed(lsn, cx)
            {
                result?;
                any = true;
            }
            if let Poll::Ready(result) = admitted.as_mut().poll(cx) {
                result?;
                any = true;
            }
            if lacking.is_some()
                && let Poll::Ready(share) = room.as_mut().poll(cx)
            {
                self.make_room(share);
                any = true;
            }
            any |= mail.as_mut().poll(cx).is_ready();
            if !any && deadline.is_some() && self.alarm.poll(cx).is_ready() {
                let now = Instant::now();
                if let Some((_, error)) = self.patience().filter(|(by, _)| *by <= now) {
                    return Poll::Ready(Err(error));
                }
                if self.tidy_at.is_some_and(|at| at <= now) {
                    self.tidy();
                }
                any = true;
            }
            if any { Poll::Ready(Ok(happened)) } else { Poll::Pending }
        })
        .await
    }

    /// Gives back memory that a silent connection does not need.
    fn tidy(&mut self) {
        self.tidy_at = None;
        if self.input.is_empty() {
            self.input = BytesMut::new();
            self.read_bytes = READ_BYTES_MIN;
        }
        self.tokens = Vec::new();
        self.session.tidy();
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wanted = self.wanted_bytes();
        if self.input.capacity() - self.input.len() < wanted / 2 {
            self.input.reserve(wanted);
        }
        let room = self.input.capacity() - self.input.len();
        let count = {
            let mut read = pin!(self.io.read_buf(&mut self.input));
            ready!(read.as_mut().poll(cx))?
        };
        if count == room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if count < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Poll::Ready(Ok(count))
    }

    /// Writes what waits; when nothing does, makes sure that TLS or WebSocket hold nothing back.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.pending_bytes() == 0 {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
            return Poll::Ready(Ok(()));
        }
        self.unflushed = true;
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = self.output.slices(&mut slices);
        let slices = slices.get(..count).unwrap_or_default();
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.output.advance(written);
        Poll::Ready(Ok(()))
    }

    /// Sends what may still be sent, for a short time.
    async fn farewell(&mut self) {
        let send = async {
            loop {
                self.session.advance(&mut self.output)?;
                while self.output.pending_bytes() > 0 || self.unflushed {
                    poll_fn(|cx| self.poll_write(cx)).await?;
                }
                // What the log has yet to commit is still acknowledged.
                match self.session.awaited_lsn() {
                    Some(lsn) => self.node.broker.log().wait_committed(lsn).await?,
                    None => break,
                }
            }
            self.io.shutdown().await?;
            Ok::<(), ConnectionError>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(FAREWELL, send).await {
            tracing::trace!(%error, "farewell not sent");
        }
    }
}

/// A future that may not be there: then it never ends.
async fn awaited<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
