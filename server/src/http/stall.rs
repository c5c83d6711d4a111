//! A connection that ends when its client takes nothing of an answer for too long: there are few places for HTTP connections,
//! and some requests need no login.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use inver_broker::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket whose writes fail once it took nothing for a time.
pub(super) struct Stalling<S> {
    io: S,
    clock: Clock,
    time: Duration,
    /// There while a write waits.
    due: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S> Stalling<S> {
    pub(super) fn new(io: S, clock: Clock, time: Duration) -> Stalling<S> {
        Stalling { io, clock, time, due: None }
    }

    /// The outcome of a write, or that it has waited for too long.
    fn bounded<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.due = None;
            return written;
        }
        let due = self.due.get_or_insert_with(|| {
            let (clock, time) = (self.clock.clone(), self.time);
            Box::pin(async move { clock.sleep(time).await })
        });
        ready!(due.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "client stopped reading")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.bounded(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.bounded(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.bounded(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.io).poll_shutdown(cx);
        self.bounded(closed, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_client_that_reads_nothing_ends_the_connection() {
        let (mut client, server) = duplex(16);
        let mut server = Stalling::new(server, Clock::system(), Duration::from_millis(50));
        server.write_all(&[1; 16]).await.unwrap();
        let error = server.write_all(&[2; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // One that reads slowly is kept.
        let mut bytes = [0; 8];
        client.read_exact(&mut bytes).await.unwrap();
        server.due = None;
        server.write_all(&[3; 8]).await.unwrap();
    }
}
