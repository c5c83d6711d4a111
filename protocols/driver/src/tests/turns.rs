//! The turn loop: fairness, bounds, and what an idle connection holds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;
use crate::TURNS_MAX;

/// A stream from which the same line can always be read, and that takes output or not.
struct Endless {
    line: &'static [u8],
    takes_output: bool,
}

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while room.remaining() >= self.line.len() {
            room.put_slice(self.line);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.takes_output { Poll::Ready(Ok(bytes.len())) } else { Poll::Pending }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_yields_after_its_turns_and_is_polled_again() {
    let toys = Toys::new();
    let mut driver = toys.driver(Box::new(Endless { line: b"echo a\n", takes_output: true }));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    for polls in 1..4 {
        assert!(driver.poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(toys.counts.turns.load(Ordering::Relaxed), polls * TURNS_MAX);
        assert_eq!(woken.0.load(Ordering::Relaxed), polls);
    }
}

#[tokio::test]
async fn a_connection_whose_work_takes_long_yields_before_its_next_turn() {
    let toys = Toys::new();
    let mut driver = toys.driver(Box::new(Endless { line: b"work\n", takes_output: true }));
    let mut cx = Context::from_waker(Waker::noop());
    for polls in 1..4 {
        assert!(driver.poll(&mut cx).is_pending());
        assert_eq!(toys.counts.turns.load(Ordering::Relaxed), polls);
        assert_eq!(toys.counts.input_bytes.load(Ordering::Relaxed), polls * b"work\n".len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_served_beside_one_that_is_always_busy() {
    let toys = Toys::new();
    let busy = Serving::Running(toys.driver(Box::new(Endless { line: b"echo a\n", takes_output: true })));
    let busy = tokio::spawn(busy);
    let mut client = toys.connect(100);
    client.send("echo served\n").await;
    client.expect("served\n").await;
    busy.abort();
}

#[tokio::test]
async fn a_client_that_only_sends_is_read_up_to_the_bound_of_its_output() {
    let toys = Toys::new();
    let mut driver = toys.driver(Box::new(Endless { line: b"fill 100\n", takes_output: false }));
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        assert!(driver.poll(&mut cx).is_pending());
    }
    let pending = toys.counts.pending_bytes_max.load(Ordering::Relaxed);
    assert!((OUTPUT_BYTES_MAX..OUTPUT_BYTES_MAX + 100).contains(&pending), "{pending}");
    let read = toys.counts.input_bytes.load(Ordering::Relaxed);
    assert!(read <= (OUTPUT_BYTES_MAX / 100 + 1) * b"fill 100\n".len(), "{read}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_owns_no_buffer() {
    let toys = Toys::new();
    let (mut client, server) = tokio::io::duplex(1000);
    let mut driver = toys.driver(Box::new(server));
    let mut cx = Context::from_waker(Waker::noop());
    client.write_all(b"echo a\ncommit b\nfill 500\n").await.unwrap();
    assert!(driver.poll(&mut cx).is_pending());
    toys.commit();
    assert!(driver.poll(&mut cx).is_pending());
    assert!(driver.link.output.is_none(), "everything was written");
    assert!(driver.link.timer.is_none(), "no deadline was set");
    assert_eq!(format!("{:?}", driver.link.input), "Shared { kept: None }");
}

#[tokio::test(start_paused = true)]
async fn a_token_of_the_mailbox_is_a_turn() {
    let toys = Toys::new();
    let (mut client, server) = tokio::io::duplex(1000);
    let driver = toys.driver(Box::new(server));
    let mailbox = driver.machine.mailbox.clone();
    tokio::spawn(Serving::Running(driver));
    mailbox.post(7);
    mailbox.post(3);
    let mut read = [0; 16];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"token 3\ntoken 7\n");
}
