//! The byte stream with its buffers: what was read and not parsed, what is to be written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use inver_broker::Io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::buffers;
use crate::error::Stop;

/// See the module's text.
pub(crate) struct Socket {
    io: Box<dyn Io>,
    /// The beginning of a packet whose rest has not come.
    partial: Vec<u8>,
    /// What was read last, until it is parsed.
    chunk: Option<Box<[u8]>>,
    output: Vec<u8>,
    /// Bytes of `output` that were written.
    written: usize,
    /// Something was written and not flushed.
    unflushed: bool,
}

impl Socket {
    pub(crate) fn new(io: Box<dyn Io>) -> Socket {
        Socket { io, partial: Vec::new(), chunk: None, output: Vec::new(), written: 0, unflushed: false }
    }

    /// Where to write to; [`poll_write`](Self::poll_write) takes it from there.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        if self.output.capacity() == 0 {
            self.output = buffers::take_output();
        }
        &mut self.output
    }

    /// Bytes that the socket has not taken.
    pub(crate) fn output_len(&self) -> usize {
        self.output.len() - self.written
    }

    /// Writes as much as the socket takes. Whether there is room for more.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        while self.output_len() > 0 {
            let rest = self.output.get(self.written..).unwrap_or_default();
            match Pin::new(&mut *self.io).poll_write(cx, rest) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(Stop::Close("the socket takes no more".into())),
                Poll::Ready(Ok(bytes)) => self.written += bytes,
                Poll::Ready(Err(error)) => return Err(closed(&error)),
            }
        }
        if self.written > 0 {
            self.written = 0;
            self.unflushed = true;
            buffers::give_output(std::mem::take(&mut self.output));
        }
        // TLS and WebSocket gather; TCP does nothing here.
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut *self.io).poll_flush(cx)
        {
            flushed.map_err(|error| closed(&error))?;
            self.unflushed = false;
        }
        Ok(true)
    }

    /// Reads once. What was read is parsed by [`parse`](Self::parse), in the same turn.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Stop>> {
        let mut chunk = buffers::take_read();
        let mut buffer = ReadBuf::new(&mut chunk);
        let polled = Pin::new(&mut *self.io).poll_read(cx, &mut buffer);
        let read = buffer.filled().len();
        match polled {
            Poll::Pending => {
                buffers::give_read(chunk);
                Poll::Pending
            }
            Poll::Ready(Err(error)) => {
                buffers::give_read(chunk);
                Poll::Ready(Err(closed(&error)))
            }
            Poll::Ready(Ok(())) => {
                self.chunk = Some(chunk);
                Poll::Ready(Ok(read))
            }
        }
    }

    /// Hands what was read to `packet` until it takes nothing more: it returns how many bytes it used, 0 if what it got
    /// is no whole packet. What is left waits for its rest. `read` is what [`poll_read`](Self::poll_read) said; without
    /// one before it, what was left is handed out again.
    pub(crate) fn parse<E>(
        &mut self,
        read: usize,
        mut packet: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<(), E> {
        self.output();
        let chunk = self.chunk.take();
        let fresh = chunk.as_deref().and_then(|chunk| chunk.get(..read)).unwrap_or_default();
        let result = if self.partial.is_empty() {
            let (used, result) = feed(fresh, &mut self.output, &mut packet);
            self.partial.extend_from_slice(fresh.get(used..).unwrap_or_default());
            result
        } else {
            self.partial.extend_from_slice(fresh);
            let (used, result) = feed(&self.partial, &mut self.output, &mut packet);
            self.partial.drain(..used);
            if self.partial.is_empty() {
                self.partial = Vec::new();
            }
            result
        };
        if let Some(chunk) = chunk {
            buffers::give_read(chunk);
        }
        result
    }

    /// Writes what is left and closes, within a time.
    pub(crate) async fn finish(mut self, timeout: Duration) {
        self.finish_within(timeout, false).await;
    }

    /// Writes what is left, closes, and passes over what the client still sends until it closes as well. Otherwise the
    /// bytes that it sent meanwhile would reset the connection, and the reason just written could be lost on its way.
    pub(crate) async fn finish_and_linger(mut self, timeout: Duration) {
        self.finish_within(timeout, true).await;
    }

    async fn finish_within(&mut self, timeout: Duration, linger: bool) {
        let rest = self.output.split_off(self.written.min(self.output.len()));
        let finishing = async {
            self.io.write_all(&rest).await?;
            self.io.flush().await?;
            self.io.shutdown().await?;
            let mut passed_over = [0; LINGER_READ_BYTES];
            while linger && self.io.read(&mut passed_over).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(timeout, finishing).await {
            tracing::trace!(%error, "the last bytes were not taken");
        }
    }
}

/// Read at a time of what is passed over.
const LINGER_READ_BYTES: usize = 1024;

fn closed(error: &io::Error) -> Stop {
    Stop::Close(error.to_string().into())
}

/// Packet after packet from `input`, and how many bytes they were.
fn feed<E>(
    input: &[u8],
    output: &mut Vec<u8>,
    packet: &mut impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize, E>,
) -> (usize, Result<(), E>) {
    let mut used = 0;
    while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
        match packet(rest, output) {
            Ok(0) => break,
            Ok(bytes) => used += bytes,
            Err(error) => return (used, Err(error)),
        }
    }
    (used.min(input.len()), Ok(()))
}
