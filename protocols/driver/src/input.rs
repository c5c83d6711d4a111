//! Received bytes that are not taken yet.
//!
//! Two ways to keep them. [`Shared`]: bytes are read into a buffer of the thread and parsed where they are; a connection
//! keeps the beginning of a message only. [`Owned`]: bytes are read into a buffer of the connection, from which whole
//! messages are split off without a copy, for protocols that store what they received.
//!
//! Neither reserves memory for bytes that are only announced: a buffer at most doubles with what has arrived.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use inver_broker::Io;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// How far input was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were taken. For [`Owned`] input, whose machine removes them itself, only whether there
    /// were any counts.
    pub used: usize,
    /// Whether whole messages may be left, which are offered again when the machine takes input. Otherwise what is left
    /// is the beginning of one message.
    pub blocked: bool,
    /// Bytes that the message at the end of the input lacks, if that is known; 0 otherwise.
    pub missing: usize,
}

impl Progress {
    /// Every whole message was taken.
    #[must_use]
    pub fn all(used: usize) -> Progress {
        Progress { used, blocked: false, missing: 0 }
    }

    /// A message must wait.
    #[must_use]
    pub fn blocked(used: usize) -> Progress {
        Progress { used, blocked: true, missing: 0 }
    }
}

/// A way to keep received bytes.
pub trait Input: Default + Send + Unpin {
    /// Input as a machine sees it.
    type View<'a>;

    /// Whether a connection holds memory after its input was taken, until [`free`](Input::free).
    const HOLDS_MEMORY: bool;

    /// Reads once; returns the number of bytes, 0 at the end of the stream. `scratch` is the thread's buffer, and must be
    /// the same until [`offer`](Input::offer).
    fn poll_read(
        &mut self,
        io: &mut dyn Io,
        scratch: &mut Vec<u8>,
        bytes_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>>;

    /// Offers the input to `take`, with the `read` bytes of the last [`poll_read`](Input::poll_read), and keeps the rest.
    fn offer<E>(
        &mut self,
        scratch: &mut Vec<u8>,
        read: usize,
        take: impl FnOnce(Self::View<'_>) -> Result<Progress, E>,
    ) -> Result<Progress, E>;

    /// Bytes of input that is kept.
    fn kept_bytes(&self) -> usize;

    /// Frees memory that holds no input.
    fn free(&mut self) {}
}

/// Up to this many kept bytes are copied before the ones that were read; more are read to where they are.
const COPIED_BYTES_MAX: usize = 64 * 1024;

/// The least that there is room for in a read to where kept bytes are.
const READ_BYTES_MIN: usize = 4 * 1024;

/// Capacity for kept bytes that is not given back, to avoid an allocation with every turn.
const KEPT_CAPACITY_MAX: usize = 1024;

/// Input in the thread's buffer. A machine sees a slice.
#[derive(Debug, Default)]
pub struct Shared {
    /// Not taken yet. A pointer: most connections have none most of the time.
    #[expect(clippy::box_collection, reason = "an idle connection holds a pointer")]
    kept: Option<Box<Vec<u8>>>,
}

impl Shared {
    fn is_copied(kept: &[u8]) -> bool {
        kept.len() <= COPIED_BYTES_MAX
    }

    fn shrink(&mut self) {
        if let Some(kept) = &mut self.kept {
            if kept.is_empty() {
                self.kept = None;
            } else if kept.capacity() > (2 * kept.len()).max(KEPT_CAPACITY_MAX) {
                kept.shrink_to_fit();
            }
        }
    }
}

impl Input for Shared {
    type View<'a> = &'a [u8];

    const HOLDS_MEMORY: bool = false;

    fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.len())
    }

    fn poll_read(
        &mut self,
        mut io: &mut dyn Io,
        scratch: &mut Vec<u8>,
        bytes_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Some(kept) = &mut self.kept
            && !Shared::is_copied(kept)
        {
            if kept.capacity() - kept.len() < READ_BYTES_MIN {
                kept.reserve(bytes_max.min(kept.len()));
            }
            let mut room = (&mut **kept).limit(bytes_max);
            return pin!(io.read_buf(&mut room)).poll(cx);
        }
        if scratch.len() < COPIED_BYTES_MAX + bytes_max {
            scratch.resize(COPIED_BYTES_MAX + bytes_max, 0);
        }
        // Room is left for what was kept, which is copied when bytes have come.
        let start = self.kept.as_ref().map_or(0, |kept| kept.len());
        let mut room = ReadBuf::new(scratch.get_mut(start..start + bytes_max).unwrap_or_default());
        ready!(Pin::new(&mut io).poll_read(cx, &mut room))?;
        Poll::Ready(Ok(room.filled().len()))
    }

    fn offer<E>(
        &mut self,
        scratch: &mut Vec<u8>,
        read: usize,
        take: impl FnOnce(&[u8]) -> Result<Progress, E>,
    ) -> Result<Progress, E> {
        let Some(kept) = &mut self.kept else {
            let input = scratch.get(..read).unwrap_or_default();
            let progress = take(input)?;
            let rest = input.get(progress.used..).unwrap_or_default();
            self.kept = (!rest.is_empty()).then(|| Box::new(rest.to_vec()));
            return Ok(progress);
        };
        // As long as it was before the read, if that went to the thread's buffer.
        if read == 0 || !Shared::is_copied(kept) {
            let progress = take(kept)?;
            kept.drain(..progress.used.min(kept.len()));
            self.shrink();
            return Ok(progress);
        }
        let start = kept.len();
        if let Some(front) = scratch.get_mut(..start) {
            front.copy_from_slice(kept);
        }
        let input = scratch.get(..start + read).unwrap_or_default();
        let progress = take(input)?;
        kept.clear();
        kept.extend_from_slice(input.get(progress.used..).unwrap_or_default());
        self.shrink();
        Ok(progress)
    }
}

/// Bytes of one read to an owned buffer: it begins with the least, doubles while reads fill it and halves while they do
/// not.
const OWNED_READ_BYTES_MIN: usize = 1024;
const OWNED_READ_BYTES_MAX: usize = 256 * 1024;

/// Input in a buffer of the connection. A machine sees the buffer and splits whole messages off it.
#[derive(Debug)]
pub struct Owned {
    buffer: BytesMut,
    read_bytes: usize,
    /// What the message at the end lacks, at least.
    missing: usize,
}

impl Default for Owned {
    fn default() -> Owned {
        Owned { buffer: BytesMut::new(), read_bytes: OWNED_READ_BYTES_MIN, missing: 0 }
    }
}

impl Input for Owned {
    type View<'a> = &'a mut BytesMut;

    const HOLDS_MEMORY: bool = true;

    fn kept_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn poll_read(
        &mut self,
        io: &mut dyn Io,
        _scratch: &mut Vec<u8>,
        bytes_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        // A claimed length alone reserves no more than what has come already.
        let wanted = self.missing.min(self.buffer.len()).max(self.read_bytes).min(bytes_max);
        if self.buffer.capacity() - self.buffer.len() < wanted / 2 {
            self.buffer.reserve(wanted);
        }
        let room = (self.buffer.capacity() - self.buffer.len()).min(bytes_max);
        let count = ready!(pin!(io.read_buf(&mut (&mut self.buffer).limit(bytes_max))).poll(cx))?;
        if count == room {
            self.read_bytes = (self.read_bytes * 2).min(OWNED_READ_BYTES_MAX);
        } else if count < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(OWNED_READ_BYTES_MIN);
        }
        Poll::Ready(Ok(count))
    }

    fn offer<E>(
        &mut self,
        _scratch: &mut Vec<u8>,
        _read: usize,
        take: impl FnOnce(&mut BytesMut) -> Result<Progress, E>,
    ) -> Result<Progress, E> {
        let before = self.buffer.len();
        let progress = take(&mut self.buffer)?;
        self.missing = progress.missing;
        let taken = before.saturating_sub(self.buffer.len());
        if taken > OWNED_READ_BYTES_MAX && self.buffer.len() <= OWNED_READ_BYTES_MIN {
            // What is left would keep the memory of a large message for as long as the connection is silent.
            self.buffer = BytesMut::from(&*self.buffer);
        }
        Ok(progress)
    }

    fn free(&mut self) {
        if self.buffer.is_empty() {
            *self = Owned::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::Waker;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// Sends messages with a length of four bytes in pieces of `step` bytes through an input; returns what arrived.
    async fn pieces<I: Input>(
        lengths: &[usize],
        step: usize,
        mut split: impl FnMut(I::View<'_>, &mut Vec<usize>) -> Progress,
    ) -> Vec<usize> {
        let (mut client, mut server) = duplex(1 << 20);
        let mut wire = Vec::new();
        for length in lengths {
            wire.extend_from_slice(&(*length as u32).to_be_bytes());
            wire.extend((0..*length).map(|at| at as u8));
        }
        let (mut input, mut scratch, mut seen) = (I::default(), Vec::new(), Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        for piece in wire.chunks(step) {
            client.write_all(piece).await.unwrap();
            // Renews the budget of operations that tokio gives a task.
            tokio::task::yield_now().await;
            while let Poll::Ready(read) = input.poll_read(&mut server, &mut scratch, 10_000, &mut cx) {
                let take = |view: I::View<'_>| Ok::<_, Infallible>(split(view, &mut seen));
                input.offer(&mut scratch, read.unwrap(), take).unwrap();
            }
        }
        seen
    }

    /// The length of the message at the start of `bytes`, if it is whole and as it was sent.
    fn message(bytes: &[u8]) -> Option<usize> {
        let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
        let body = bytes.get(4..4 + length)?;
        assert!(body.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        Some(length)
    }

    const LENGTHS: [usize; 9] = [1, 0, 100, 9_996, 10_000, 70_000, 3, 300_000, 5];

    #[tokio::test]
    async fn shared_input_offers_whole_messages_whatever_the_pieces() {
        for step in [7, 1000, 65_536, 100_000, 1_000_000] {
            let split = |input: &[u8], seen: &mut Vec<usize>| {
                let mut used = 0;
                while let Some(length) = message(&input[used..]) {
                    seen.push(length);
                    used += 4 + length;
                }
                Progress::all(used)
            };
            assert_eq!(pieces::<Shared>(&LENGTHS, step, split).await, LENGTHS);
        }
    }

    #[tokio::test]
    async fn owned_input_offers_whole_messages_whatever_the_pieces() {
        for step in [7, 1000, 65_536, 1_000_000] {
            let split = |input: &mut BytesMut, seen: &mut Vec<usize>| {
                while let Some(length) = message(input) {
                    seen.push(length);
                    drop(input.split_to(4 + length));
                }
                let claimed =
                    input.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize + 4);
                Progress { missing: claimed.saturating_sub(input.len()), ..Progress::all(0) }
            };
            assert_eq!(pieces::<Owned>(&LENGTHS, step, split).await, LENGTHS);
        }
    }

    #[tokio::test]
    async fn a_claimed_length_reserves_no_more_than_twice_what_has_come() {
        let (mut client, mut server) = duplex(1 << 20);
        let (mut shared, mut owned) = (Shared::default(), Owned::default());
        let mut cx = Context::from_waker(Waker::noop());
        let mut scratch = Vec::new();
        for arrived in (1..=100).map(|number| number * 2000) {
            client.write_all(&[255; 2000]).await.unwrap();
            assert!(shared.poll_read(&mut server, &mut scratch, 10_000, &mut cx).is_ready());
            shared.offer(&mut scratch, 2000, |_| Ok::<_, Infallible>(Progress::all(0))).unwrap();
            client.write_all(&[255; 2000]).await.unwrap();
            assert!(owned.poll_read(&mut server, &mut scratch, 10_000, &mut cx).is_ready());
            let missing =
                |_: &mut BytesMut| Ok::<_, Infallible>(Progress { missing: 1 << 30, ..Progress::all(0) });
            owned.offer(&mut scratch, 2000, missing).unwrap();
            let reserved = [shared.kept.as_ref().unwrap().capacity(), owned.buffer.capacity()];
            assert!(
                reserved.iter().all(|bytes| *bytes <= 3 * arrived + 8192),
                "{reserved:?} after {arrived}"
            );
        }
    }

    #[tokio::test]
    async fn no_read_is_longer_than_asked_for() {
        let (mut client, mut server) = duplex(1 << 21);
        let (mut owned, mut cx) = (Owned::default(), Context::from_waker(Waker::noop()));
        client.write_all(&[7; 1 << 20]).await.unwrap();
        let mut longest = |owned: &mut Owned, bytes_max, reads| {
            let reads =
                (0..reads).map(|_| match owned.poll_read(&mut server, &mut Vec::new(), bytes_max, &mut cx) {
                    Poll::Ready(read) => read.unwrap(),
                    Poll::Pending => 0,
                });
            reads.max().unwrap()
        };
        let ordinary = longest(&mut owned, usize::MAX, 6);
        assert!(ordinary > 16 << 10, "{ordinary}");
        tokio::task::yield_now().await;
        assert_eq!(longest(&mut owned, 16 << 10, 6), 16 << 10);
    }

    #[tokio::test]
    async fn the_rest_after_a_large_message_does_not_keep_its_memory() {
        let (mut client, mut server) = duplex(1 << 21);
        let (mut owned, mut cx) = (Owned::default(), Context::from_waker(Waker::noop()));
        client.write_all(&[7; 1 << 20]).await.unwrap();
        while owned.kept_bytes() < 1 << 20 {
            tokio::task::yield_now().await;
            assert!(owned.poll_read(&mut server, &mut Vec::new(), usize::MAX, &mut cx).is_ready());
        }
        let mut message = BytesMut::new();
        owned
            .offer(&mut Vec::new(), 0, |input| {
                message = input.split_to((1 << 20) - 10);
                Ok::<_, Infallible>(Progress::all(message.len()))
            })
            .unwrap();
        assert_eq!((owned.kept_bytes(), owned.buffer.capacity()), (10, 10));
    }

    #[tokio::test]
    async fn input_that_was_taken_leaves_no_memory() {
        let (mut client, mut server) = duplex(1 << 20);
        let (mut shared, mut owned) = (Shared::default(), Owned::default());
        let mut cx = Context::from_waker(Waker::noop());
        let mut scratch = Vec::new();
        client.write_all(&[0; 100]).await.unwrap();
        assert!(shared.poll_read(&mut server, &mut scratch, 10_000, &mut cx).is_ready());
        shared.offer(&mut scratch, 100, |_| Ok::<_, Infallible>(Progress::all(99))).unwrap();
        assert!(shared.kept.is_some());
        shared.offer(&mut scratch, 0, |_| Ok::<_, Infallible>(Progress::all(1))).unwrap();
        assert!(shared.kept.is_none());
        client.write_all(&[0; 100]).await.unwrap();
        assert!(owned.poll_read(&mut server, &mut scratch, 10_000, &mut cx).is_ready());
        owned
            .offer(&mut scratch, 100, |input| {
                input.clear();
                Ok::<_, Infallible>(Progress::all(100))
            })
            .unwrap();
        owned.free();
        assert_eq!(owned.buffer.capacity(), 0);
    }
}
