//! The task of a connection: reads big, lets the session parse in place, writes once a turn.
//!
//! Bytes are read into a buffer of the thread, not of the connection: an idle connection owns none. What is left of a frame
//! at the end of a turn is kept aside, and so is output that the socket does not take.
//!
//! Back-pressure: the socket is not read while the log's queue is full, while what was asked must wait for the log, while
//! too many confirms are outstanding, or while the client does not read what it was sent. Heartbeats are not demanded of
//! a client that is not read.

mod clock;
mod pressure;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use inver_broker::{Broker, Connection, Credentials, Io, Mailbox};
use inver_storage::Lsn;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use self::clock::Clock;
use self::pressure::Pressure;
use crate::codec::write;
use crate::session::{Limits, Session};

/// The least that a thread's read buffer holds; a few frames of the largest size fit in any case.
const READ_BYTES: usize = 256 * 1024;
/// Turns before other connections of the thread get theirs.
const TURNS_MAX: usize = 8;
/// After the last word is said, how long the other end has to take it.
const LINGER: Duration = Duration::from_secs(3);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Buffers of a thread, for the time of a turn.
#[derive(Default)]
struct Scratch {
    input: Vec<u8>,
    out: Vec<u8>,
    tokens: Vec<u64>,
}

/// What the task must do beside turns.
enum Event {
    Authenticate(Credentials),
    /// All is said, or the other end is gone.
    End,
}

struct Link {
    io: Box<dyn Io>,
    session: Session,
    mailbox: Arc<Mailbox>,
    limits: Arc<Limits>,
    /// Input that is not done with.
    input: Vec<u8>,
    /// It may hold whole frames.
    retry: bool,
    out: Vec<u8>,
    /// How much of it is written.
    written: usize,
    unflushed: bool,
    /// The position that this task is to be woken at, and the waker left there.
    awaited: Option<(Lsn, Waker)>,
    shutdown: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Until when the client must take some of what waits to be written.
    stalled: Option<Pin<Box<Sleep>>>,
    clock: Clock,
    pressure: Pressure,
}

/// Serves a connection until its end.
pub(crate) async fn serve(connection: Connection, broker: Broker, limits: Arc<Limits>) {
    let peer = connection.peer;
    let mailbox = Mailbox::new();
    let mut shutdown = connection.shutdown;
    let mut link = Link {
        io: connection.io,
        session: Session::new(broker.clone(), limits.clone(), mailbox.clone()),
        mailbox,
        input: Vec::new(),
        retry: false,
        out: Vec::new(),
        written: 0,
        unflushed: false,
        stalled: None,
        awaited: None,
        shutdown: Some(Box::pin(async move { shutdown.requested().await })),
        clock: Clock::new(limits.handshake_timeout),
        pressure: Pressure::default(),
        limits,
    };
    while let Event::Authenticate(credentials) = poll_fn(|cx| link.poll(cx)).await {
        let verdict = broker.authenticate(peer.ip(), &credentials).await;
        if let Err(error) = &verdict {
            tracing::info!(%error, "login refused");
        }
        link.session.authenticated(verdict, &mut link.out);
        link.retry = true;
    }
    link.session.end();
    // What is left to say is said, and heard: unread input would make the kernel throw it away.
    _ = timeout(LINGER, link.last_words()).await;
    if link.session.was_closed_by_client() {
        // Clients like to be the ones who close.
        _ = timeout(LINGER, link.drain()).await;
    }
    _ = timeout(LINGER, link.part()).await;
}

impl Link {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        SCRATCH.with_borrow_mut(|scratch| {
            let wanted = READ_BYTES.max(2 * self.limits.frame_bytes_max as usize);
            if scratch.input.len() < wanted {
                scratch.input.resize(wanted, 0);
            }
            if self.out.is_empty() {
                std::mem::swap(&mut self.out, &mut scratch.out);
            }
            let polled = self.turns(cx, scratch);
            if self.written == self.out.len() {
                self.written = 0;
                self.out.clear();
                std::mem::swap(&mut self.out, &mut scratch.out);
            }
            polled
        })
    }

    fn turns(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Event> {
        for _ in 0..TURNS_MAX {
            self.session.begin_turn(inver_broker::now_ms());
            self.poll_shutdown(cx);
            if self.poll_clock(cx).is_ready() {
                return Poll::Ready(Event::End);
            }
            let mut busy = self.poll_mailbox(cx, &mut scratch.tokens);
            busy |= self.poll_log(cx);
            match self.poll_input(cx, &mut scratch.input) {
                Ok(read) => busy |= read,
                Err(error) => {
                    tracing::debug!(%error, "read ended");
                    return Poll::Ready(Event::End);
                }
            }
            self.session.finish_input(&mut self.out);
            busy |= self.session.deliver(&mut self.out);
            match self.poll_output(cx) {
                Ok(stuck) => busy &= !stuck,
                Err(error) => {
                    tracing::debug!(%error, "write failed");
                    return Poll::Ready(Event::End);
                }
            }
            if let Some(credentials) = self.session.take_credentials() {
                return Poll::Ready(Event::Authenticate(credentials));
            }
            if self.session.is_over() {
                return Poll::Ready(Event::End);
            }
            self.clock.set(&self.session, self.shutdown.is_none(), cx);
            // A halt may be over by now, or a position awaited that was not before.
            let pending = self.poll_log(cx) || (self.retry && self.takes_input());
            if !busy && !pending {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_mailbox(&mut self, cx: &mut Context<'_>, tokens: &mut Vec<u64>) -> bool {
        // The future keeps nothing between polls but the waker, which stays in the mailbox.
        if pin!(self.mailbox.wait()).poll(cx).is_pending() {
            return false;
        }
        self.mailbox.drain(tokens);
        self.session.wake(tokens);
        true
    }

    /// Answers what the log has by now, and asks to be woken for the next.
    fn poll_log(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(lsn) = self.session.awaits() else { return false };
        if let Some((awaited, waker)) = &self.awaited
            && *awaited == lsn
            && waker.will_wake(cx.waker())
            && self.session.log().committed() < lsn
        {
            if let Some(error) = self.session.log().failure() {
                self.session.log_failed(error, &mut self.out);
                return true;
            }
            return false;
        }
        match self.session.log().poll_committed(lsn, cx) {
            Poll::Ready(Ok(())) => {
                self.awaited = None;
                self.session.write_replies(&mut self.out);
                true
            }
            Poll::Ready(Err(error)) => {
                self.session.log_failed(error, &mut self.out);
                true
            }
            Poll::Pending => {
                self.awaited = Some((lsn, cx.waker().clone()));
                false
            }
        }
    }

    fn takes_input(&self) -> bool {
        self.session.takes_input() && self.out.len() - self.written < self.limits.output_bytes_max
    }

    /// Reads once and has it parsed. True if there may be more to read.
    fn poll_input(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> io::Result<bool> {
        if !self.takes_input() {
            return Ok(false);
        }
        if self.retry {
            let input = std::mem::take(&mut self.input);
            self.parse(&input);
            return Ok(true);
        }
        if self.session.is_open() && self.pressure.poll(&mut self.session, &mut self.out, cx).is_pending() {
            return Ok(false);
        }
        let kept = self.input.len();
        let Some(start) = buffer.get_mut(..kept) else {
            return Err(io::Error::other("frame larger than the read buffer"));
        };
        start.copy_from_slice(&self.input);
        let mut room = ReadBuf::new(buffer.get_mut(kept..).unwrap_or_default());
        match Pin::new(&mut self.io).poll_read(cx, &mut room) {
            Poll::Pending => return Ok(false),
            Poll::Ready(result) => result?,
        }
        let (read, full) = (room.filled().len(), room.remaining() == 0);
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.clock.has_read();
        self.input.clear();
        self.parse(buffer.get(..kept + read).unwrap_or_default());
        Ok(full || read > 0)
    }

    /// Lets the session look at input, and keeps what it leaves.
    fn parse(&mut self, input: &[u8]) {
        let progress = self.session.input(input, &mut self.out);
        self.retry = !progress.partial && progress.done < input.len();
        self.input = Vec::new();
        self.input.extend_from_slice(input.get(progress.done..).unwrap_or_default());
    }

    /// Writes what there is. True if the socket takes no more for now.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            // A heartbeat does not spare the next one.
            let beat = rest == write::HEARTBEAT;
            match Pin::new(&mut self.io).poll_write(cx, rest) {
                Poll::Pending => {
                    let stalled =
                        self.stalled.get_or_insert_with(|| Box::pin(sleep(self.limits.write_stall_timeout)));
                    return match stalled.as_mut().poll(cx) {
                        Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
                        Poll::Pending => Ok(true),
                    };
                }
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    if !beat {
                        self.clock.has_written();
                    }
                    self.unflushed = true;
                    self.stalled = None;
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        self.written = 0;
        self.out.clear();
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(result) => result?,
            }
            self.unflushed = false;
        }
        Ok(false)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) {
        if let Some(shutdown) = &mut self.shutdown
            && shutdown.as_mut().poll(cx).is_ready()
        {
            self.shutdown = None;
            self.session.close("shutdown", &mut self.out);
        }
    }

    /// Ready when the connection is at its end.
    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Heartbeats are not demanded of a client that is not read, for whichever reason.
        let heeded = self.takes_input() && self.session.log().is_admitting();
        self.clock.poll(heeded, &mut self.out, cx)
    }

    /// Writes what is left.
    async fn last_words(&mut self) -> io::Result<()> {
        poll_fn(|cx| match self.poll_output(cx) {
            Ok(true) => Poll::Pending,
            Ok(false) if self.unflushed => Poll::Pending,
            Ok(false) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        })
        .await
    }

    /// Reads until the other end closes.
    async fn drain(&mut self) -> io::Result<()> {
        let mut unread = [0; 4096];
        while self.io.read(&mut unread).await? > 0 {}
        Ok(())
    }

    /// Closes our direction, and waits for the other to be closed.
    async fn part(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await?;
        self.drain().await
    }
}
