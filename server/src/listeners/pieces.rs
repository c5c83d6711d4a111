//! The frames of a WebSocket client in pieces, so that no memory is held for the length that a frame claims.
//!
//! The library keeps a whole message before it passes it on. What is below it splits binary frames, and the fragments of
//! a message, into small messages of their own: their boundaries have no meaning [MQTT-6.0.0-2], and so the limits of
//! the protocol above (the largest CONNECT, back pressure) hold for WebSocket as for TCP. All other frames are passed on
//! as they are, and violations of RFC 6455 stay violations.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, ReadBuf};

/// Payload of a piece: a multiple of 4, so that the mask of the frame (RFC 6455, 5.3) is that of each piece.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1024;
/// Bytes read ahead, so that small frames cost one system call and not three.
const READ_AHEAD_BYTES: usize = 2 * 1024;
/// Two bytes, a length of eight, a mask of four (RFC 6455, 5.2).
const HEADER_BYTES_MAX: usize = 14;

const FINAL: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CONTROL: u8 = 8;
const MASKED: u8 = 0x80;

/// A socket whose incoming frames are split.
pub(super) struct Pieces<S> {
    io: BufReader<S>,
    /// Whether the handshake is over, and frames come.
    started: bool,
    /// The largest frame that is split; a larger one is left for the library to refuse.
    frame_bytes_max: u64,
    /// The header that is being read.
    header: Header,
    /// Payload of the frame that was not put in a piece yet.
    left: u64,
    /// Payload of the piece that was not passed on yet.
    piece_left: u64,
    /// A header to pass on, and how much of it was.
    out: Header,
    out_taken: usize,
    /// A binary message was begun and its last fragment has not come.
    is_fragmented: bool,
}

#[derive(Clone, Copy, Default)]
struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    length: usize,
}

impl Header {
    fn filled(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    /// Bytes of the whole header, as far as it is known.
    fn needed(&self) -> usize {
        if self.length < 2 {
            return 2;
        }
        let mask = if self.bytes[1] & MASKED == 0 { 0 } else { 4 };
        2 + self.length_bytes() + mask
    }

    fn length_bytes(&self) -> usize {
        match self.bytes[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn payload_bytes(&self) -> u64 {
        let count = self.length_bytes();
        if count == 0 {
            return u64::from(self.bytes[1] & !MASKED);
        }
        self.bytes.iter().skip(2).take(count).fold(0, |length, byte| length << 8 | u64::from(*byte))
    }

    /// The header of a piece of this frame.
    fn of_piece(&self, first: u8, payload: u64) -> Header {
        let mut piece = Header::default();
        let masked = self.bytes[1] & MASKED;
        match (u8::try_from(payload), u16::try_from(payload)) {
            (Ok(short @ ..=125), _) => piece.push(&[first, masked | short]),
            (_, Ok(middle)) => {
                piece.push(&[first, masked | 126]);
                piece.push(&middle.to_be_bytes());
            }
            _ => {
                piece.push(&[first, masked | 127]);
                piece.push(&payload.to_be_bytes());
            }
        }
        piece.push(self.filled().get(2 + self.length_bytes()..).unwrap_or_default());
        piece
    }
}

impl<S: AsyncRead> Pieces<S> {
    pub(super) fn new(io: S, frame_bytes_max: usize) -> Pieces<S> {
        Pieces {
            io: BufReader::with_capacity(READ_AHEAD_BYTES, io),
            started: false,
            frame_bytes_max: frame_bytes_max as u64,
            header: Header::default(),
            left: 0,
            piece_left: 0,
            out: Header::default(),
            out_taken: 0,
            is_fragmented: false,
        }
    }

    /// What comes from now on are frames.
    pub(super) fn start(&mut self) {
        self.started = true;
    }

    /// Decides about the frame whose header was read.
    fn begin_frame(&mut self) {
        let (first, payload) = (self.header.bytes[0], self.header.payload_bytes());
        let opcode = first & OPCODE;
        let is_data = opcode < CONTROL;
        let belongs = if self.is_fragmented { opcode == CONTINUATION } else { opcode == BINARY };
        if belongs && payload <= self.frame_bytes_max {
            self.is_fragmented = first & FINAL == 0;
            self.left = payload;
            self.begin_piece();
            return;
        }
        // A message within an unfinished one: a continuation of nothing, to the library.
        let first = if is_data && self.is_fragmented { first & !OPCODE } else { first };
        self.pass(first, payload);
    }

    /// The next piece of a binary frame is a whole message.
    fn begin_piece(&mut self) {
        let reserved = self.header.bytes[0] & !(FINAL | OPCODE);
        let payload = self.left.min(PIECE_BYTES_MAX as u64);
        self.left -= payload;
        self.pass(FINAL | reserved | BINARY, payload);
    }

    fn pass(&mut self, first: u8, payload: u64) {
        self.out = self.header.of_piece(first, payload);
        self.out_taken = 0;
        self.piece_left = payload;
        if self.left == 0 {
            self.header = Header::default();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Pieces<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.started {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        loop {
            let waiting = this.out.filled().get(this.out_taken..).unwrap_or_default();
            if !waiting.is_empty() {
                let count = waiting.len().min(buf.remaining());
                buf.put_slice(waiting.get(..count).unwrap_or_default());
                this.out_taken += count;
                return Poll::Ready(Ok(()));
            }
            if this.piece_left > 0 {
                let most = usize::try_from(this.piece_left).unwrap_or(usize::MAX);
                let have = ready!(Pin::new(&mut this.io).poll_fill_buf(cx))?;
                let count = have.len().min(most).min(buf.remaining());
                buf.put_slice(have.get(..count).unwrap_or_default());
                Pin::new(&mut this.io).consume(count);
                this.piece_left -= count as u64;
                return Poll::Ready(Ok(()));
            }
            if this.left > 0 {
                this.begin_piece();
                continue;
            }
            let needed = this.header.needed();
            if this.header.length == needed {
                this.begin_frame();
                continue;
            }
            let have = ready!(Pin::new(&mut this.io).poll_fill_buf(cx))?;
            let count = have.len().min(needed - this.header.length);
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            this.header.push(have.get(..count).unwrap_or_default());
            Pin::new(&mut this.io).consume(count);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Pieces<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.io.get_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.io.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.io.get_mut()).poll_shutdown(cx)
    }
}
