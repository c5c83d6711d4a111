//! The byte stream with its buffers: what was read and not parsed, what is to be written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use inver_broker::Io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::buffers::{self, Output};
use crate::error::Stop;

/// See the module's text.
pub(crate) struct Socket {
    io: Box<dyn Io>,
    /// The beginning of a packet whose rest has not come. In a box: mostly there is none.
    #[expect(clippy::box_collection, reason = "a pointer is all that an idle connection holds")]
    partial: Option<Box<Vec<u8>>>,
    /// There while something is to be written.
    output: Option<Box<Output>>,
    /// Something was written and not flushed.
    unflushed: bool,
}

/// What was read.
pub(crate) struct Chunk {
    buffer: Box<[u8]>,
    read: usize,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.read).unwrap_or_default()
    }

    /// Nothing more comes.
    pub(crate) fn is_empty(&self) -> bool {
        self.read == 0
    }
}

impl Socket {
    pub(crate) fn new(io: Box<dyn Io>) -> Socket {
        Socket { io, partial: None, output: None, unflushed: false }
    }

    /// Where to write to; [`poll_write`](Self::poll_write) takes it from there.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output.get_or_insert_with(buffers::take_output).bytes
    }

    /// Bytes that the socket has not taken.
    pub(crate) fn output_len(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.bytes.len() - output.written)
    }

    /// Writes as much as the socket takes. Whether there is room for more.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        if let Some(output) = &mut self.output {
            while let Some(rest) = output.bytes.get(output.written..).filter(|rest| !rest.is_empty()) {
                match Pin::new(&mut *self.io).poll_write(cx, rest) {
                    Poll::Pending => return Ok(false),
                    Poll::Ready(Ok(0)) => return Err(Stop::Socket(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(bytes)) => output.written += bytes,
                    Poll::Ready(Err(error)) => return Err(error.into()),
                }
            }
            self.unflushed |= output.written > 0;
            self.output.take().into_iter().for_each(buffers::give_output);
        }
        // TLS and WebSocket gather; TCP does nothing here.
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut *self.io).poll_flush(cx)
        {
            flushed?;
            self.unflushed = false;
        }
        Ok(true)
    }

    /// Reads once. What was read is parsed by [`parse`](Self::parse), in the same turn.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Chunk, Stop>> {
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
                Poll::Ready(Err(error.into()))
            }
            Poll::Ready(Ok(())) => Poll::Ready(Ok(Chunk { buffer: chunk, read })),
        }
    }

    /// Hands what was read to `packet` until it takes nothing more: it returns how many bytes it used, 0 if what it got
    /// is no whole packet. What is left waits for its rest. `read` is what [`poll_read`](Self::poll_read) gave; without
    /// it, what was left is handed out again.
    pub(crate) fn parse<E>(
        &mut self,
        read: Option<Chunk>,
        mut packet: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<(), E> {
        let output = &mut self.output.get_or_insert_with(buffers::take_output).bytes;
        let fresh = read.as_ref().map_or(&[][..], Chunk::bytes);
        let result = if let Some(partial) = &mut self.partial {
            partial.extend_from_slice(fresh);
            let (used, result) = feed(partial, output, &mut packet);
            partial.drain(..used);
            if partial.is_empty() {
                self.partial = None;
            }
            result
        } else {
            let (used, result) = feed(fresh, output, &mut packet);
            let rest = fresh.get(used..).unwrap_or_default();
            self.partial = (!rest.is_empty()).then(|| Box::new(rest.to_vec()));
            result
        };
        if let Some(Chunk { buffer, .. }) = read {
            buffers::give_read(buffer);
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
        let output = self.output.take().unwrap_or_default();
        let finishing = async {
            self.io.write_all(output.bytes.get(output.written..).unwrap_or_default()).await?;
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
