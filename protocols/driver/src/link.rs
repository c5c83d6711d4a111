//! The socket of a connection with its buffers and its timer.

mod kept;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use inver_broker::{Io, Mailbox};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

pub(crate) use self::kept::{Holding, Kept, TIGHT_BYTES};

use crate::connections::Connections;
use crate::login_memory;
use crate::machine::Activity;
use crate::output::Output;
use crate::pool;
use crate::quota::Throttle;
use crate::timer::Timer;
use crate::traffic::{Count, count};

/// Slices given to one write: enough for 1 MiB in batches of 16 KiB, two slices each.
const SLICES_MAX: usize = 160;

/// Bytes read at a time of input that is dropped.
const DROPPED_READ_BYTES: usize = 1024;

/// Everything of a connection that is not its machine.
pub(crate) struct Link<I> {
    pub(crate) io: Box<dyn Io>,
    pub(crate) input: I,
    /// There while bytes wait to be written.
    pub(crate) output: Option<Box<Output>>,
    /// There when a deadline was set once.
    pub(crate) timer: Option<Pin<Box<Timer>>>,
    /// There while quotas concern the connection.
    pub(crate) throttle: Option<Box<Throttle>>,
    /// There once more than a little was kept for the client.
    pub(crate) kept: Option<Box<Kept>>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) slot: u32,
    /// Pages of memory that are counted for a client that has not logged in.
    login_pages: u16,
    pub(crate) flags: Flags,
}

/// States of a connection, in one byte: every idle connection has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flags(u8);

impl Flags {
    /// Something was written and not flushed.
    const UNFLUSHED: u8 = 1;
    /// Kept input may hold whole messages.
    pub(crate) const BLOCKED: u8 = 1 << 1;
    /// The client is read; its silence counts.
    pub(crate) const READ: u8 = 1 << 2;
    /// The log or the gate holds input back.
    pub(crate) const HELD_BACK: u8 = 1 << 3;
    /// Memory of the input is freed once the client has been silent.
    pub(crate) const HOLDS_MEMORY: u8 = 1 << 4;
    /// The machine has more to send once the output is written.
    pub(crate) const MORE: u8 = 1 << 5;
    /// The client has not logged in: what it holds is counted.
    pub(crate) const BEFORE_LOGIN: u8 = 1 << 6;
    /// It is told when the gate opens.
    pub(crate) const AT_GATE: u8 = 1 << 7;

    pub(crate) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub(crate) fn set(&mut self, flag: u8, value: bool) {
        if value {
            self.0 |= flag;
        } else {
            self.0 &= !flag;
        }
    }
}

impl<I: Default> Link<I> {
    pub(crate) fn new(io: Box<dyn Io>, connections: Arc<Connections>, mailbox: &Arc<Mailbox>) -> Link<I> {
        Link {
            io,
            input: I::default(),
            output: None,
            timer: None,
            throttle: None,
            kept: None,
            slot: connections.enter(mailbox),
            connections,
            login_pages: 0,
            flags: Flags(Flags::READ | Flags::MORE | Flags::BEFORE_LOGIN),
        }
    }
}

impl<I> Link<I> {
    /// Registers another mailbox instead of the present one.
    pub(crate) fn move_to(&mut self, mailbox: &Arc<Mailbox>) {
        let slot = self.connections.enter(mailbox);
        self.connections.leave(std::mem::replace(&mut self.slot, slot));
        // The account is the mailbox's.
        self.kept = None;
    }

    /// Counts what a client holds that has not logged in.
    pub(crate) fn hold(&mut self, bytes: usize) -> io::Result<()> {
        self.login_pages = login_memory::hold(self.login_pages, bytes)?;
        Ok(())
    }

    /// The output to append to.
    pub(crate) fn output(&mut self) -> &mut Output {
        self.output.get_or_insert_with(pool::take_output)
    }

    pub(crate) fn pending_bytes(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.pending_bytes())
    }

    /// Of these, bytes that nobody shares.
    pub(crate) fn own_pending_bytes(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.own_pending_bytes())
    }

    /// Since when the socket has taken nothing of what waits.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.output.as_ref()?.stalled_since
    }

    pub(crate) fn activity(&self, now: Instant) -> Activity {
        let (heard, wrote) = self.timer.as_ref().map_or((now, now), |timer| (timer.heard, timer.wrote));
        Activity { heard, wrote, is_read: self.flags.has(Flags::READ) }
    }

    pub(crate) fn has_heard(&mut self, now: Instant) {
        if let Some(timer) = &mut self.timer {
            timer.as_mut().has_heard(now);
        }
    }

    /// Writes as much as the socket takes. True if nothing waits any more.
    pub(crate) fn poll_write(&mut self, now: Instant, cx: &mut Context<'_>) -> io::Result<bool> {
        if let Some(output) = &mut self.output {
            let mut any = false;
            while output.pending_bytes() > 0 {
                match write_once(&mut *self.io, output, cx) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(written) => {
                        let written = written?;
                        output.advance(written);
                        count(Count::BytesSent, written as u64);
                        output.stalled_since = None;
                        any = true;
                    }
                    Poll::Pending => {
                        output.stalled_since.get_or_insert(now);
                        break;
                    }
                }
            }
            if any {
                self.flags.set(Flags::UNFLUSHED, true);
                if let Some(timer) = &mut self.timer {
                    timer.as_mut().has_written(now);
                }
            }
            if output.pending_bytes() > 0 {
                return Ok(false);
            }
            self.output.take().into_iter().for_each(pool::give_output);
        }
        // TLS and WebSocket gather what is written; TCP does nothing here.
        if self.flags.has(Flags::UNFLUSHED)
            && let Poll::Ready(flushed) = Pin::new(&mut *self.io).poll_flush(cx)
        {
            flushed?;
            self.flags.set(Flags::UNFLUSHED, false);
        }
        Ok(true)
    }

    /// Writes everything that waits.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        if let Some(mut output) = self.output.take() {
            while output.pending_bytes() > 0 {
                let written = std::future::poll_fn(|cx| write_once(&mut *self.io, &output, cx)).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                output.advance(written);
                count(Count::BytesSent, written as u64);
                self.connections.traffic().add_tally();
            }
            pool::give_output(output);
        }
        self.io.flush().await
    }

    /// Reads and drops what the client sends until it closes its side.
    pub(crate) async fn drain(&mut self) -> io::Result<()> {
        let mut dropped = [0; DROPPED_READ_BYTES];
        while self.io.read(&mut dropped).await? > 0 {}
        Ok(())
    }
}

impl<I> Drop for Link<I> {
    fn drop(&mut self) {
        self.connections.leave(self.slot);
        login_memory::release(self.login_pages);
        self.output.take().into_iter().for_each(pool::give_output);
    }
}

fn write_once(mut io: &mut dyn Io, output: &Output, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    if let Some(flat) = output.only_flat() {
        return Pin::new(&mut io).poll_write(cx, flat);
    }
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = output.slices(&mut slices);
    let count = ready!(Pin::new(&mut io).poll_write_vectored(cx, slices.get(..count).unwrap_or_default()))?;
    Poll::Ready(Ok(count))
}
