//! Encoded responses, and the queue of bytes for the socket.
//!
//! A response is encoded into one buffer, except for its record batches: these are spliced in by reference and reach
//! the socket without a copy, unless they are so small that copying is cheaper than another I/O slice.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::header::{self, ResponseHeader};
use super::wire::Wire;

/// Splices up to this many bytes are copied into the output instead of becoming an I/O slice of their own.
const COPIED_BYTES_MAX: usize = 4096;

/// I/O slices gathered at a time.
const SLICES_MAX: usize = 64;

/// An encoded response, with its length prefix.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// The encoded part. The first four bytes are the length of everything after them, splices included.
    encoded: Bytes,
    /// (position in `encoded` before which the bytes belong, bytes), ascending.
    splices: Vec<(usize, Bytes)>,
    bytes: usize,
}

impl Frame {
    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the frame is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Wraps every buffer that [`Output`] will hold by reference. Buffers that it copies are not wrapped: they are
    /// small, and released as soon as they are copied.
    #[must_use]
    pub fn wrapped(mut self, wrap: impl Fn(Bytes) -> Bytes) -> Frame {
        let spliced = self.splices.iter_mut().map(|(_, bytes)| bytes);
        for bytes in spliced.chain([&mut self.encoded]).filter(|bytes| bytes.len() > COPIED_BYTES_MAX) {
            *bytes = wrap(std::mem::take(bytes));
        }
        self
    }

    /// The whole frame in one buffer; for tests.
    pub fn to_bytes(&self) -> Bytes {
        let mut output = Output::default();
        output.push(self.clone());
        let mut all = BytesMut::with_capacity(self.bytes);
        while output.pending_bytes() > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = output.slices(&mut slices);
            let taken: usize = slices.iter().take(count).map(|slice| slice.len()).sum();
            slices.iter().take(count).for_each(|slice| all.put_slice(slice));
            output.advance(taken);
        }
        all.freeze()
    }
}

/// Encodes one response into `arena`, a buffer that many small responses share.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    arena: &'a mut BytesMut,
    splices: Vec<(usize, Bytes)>,
    spliced_bytes: usize,
}

/// Bytes by which the arena grows.
const ARENA_BYTES: usize = 16 * 1024;

impl<'a> FrameWriter<'a> {
    /// Begins a response: reserves its length prefix and writes its header.
    pub fn new(arena: &'a mut BytesMut, header: ResponseHeader) -> FrameWriter<'a> {
        if arena.capacity() < 512 {
            arena.reserve(ARENA_BYTES);
        }
        arena.put_i32(0);
        header::write_response(arena, header);
        FrameWriter { arena, splices: Vec::new(), spliced_bytes: 0 }
    }

    /// A frame of what the arena already holds, without a response header.
    pub fn bare(arena: &'a mut BytesMut) -> FrameWriter<'a> {
        FrameWriter { arena, splices: Vec::new(), spliced_bytes: 0 }
    }

    /// The buffer for fields.
    pub fn out(&mut self) -> &mut BytesMut {
        self.arena
    }

    /// Inserts stored bytes at the current position, by reference if they are large.
    pub fn splice(&mut self, bytes: Bytes) {
        if bytes.len() <= COPIED_BYTES_MAX {
            self.arena.put_slice(&bytes);
            return;
        }
        self.spliced_bytes += bytes.len();
        self.splices.push((self.arena.len(), bytes));
    }

    /// Fills in the length and returns the frame.
    pub fn finish(self) -> Frame {
        let encoded = self.arena.len();
        let bytes = encoded + self.spliced_bytes;
        let length = u32::try_from(bytes - 4).unwrap_or(u32::MAX);
        if let Some(prefix) = self.arena.first_chunk_mut() {
            *prefix = length.to_be_bytes();
        }
        Frame { encoded: self.arena.split().freeze(), splices: self.splices, bytes }
    }
}

/// Encodes a response that carries no record batches.
pub fn encode<T: Wire>(arena: &mut BytesMut, header: ResponseHeader, body: &T) -> Frame {
    let mut writer = FrameWriter::new(arena, header);
    body.write(writer.out(), header.version);
    writer.finish()
}

/// Bytes to be written to a socket, in order.
#[derive(Debug, Default)]
pub struct Output {
    closed: VecDeque<Bytes>,
    open: BytesMut,
    bytes: usize,
}

impl Output {
    /// Bytes not written yet.
    pub fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a response.
    pub fn push(&mut self, frame: Frame) {
        self.bytes += frame.bytes;
        let mut from = 0;
        for (place, bytes) in frame.splices {
            self.add(frame.encoded.slice(from..place));
            from = place;
            self.add(bytes);
        }
        self.add(frame.encoded.slice(from..));
    }

    fn add(&mut self, bytes: Bytes) {
        if bytes.len() <= COPIED_BYTES_MAX {
            self.open.put_slice(&bytes);
            return;
        }
        if !self.open.is_empty() {
            self.closed.push_back(self.open.split().freeze());
        }
        self.closed.push_back(bytes);
    }

    /// Fills `slices` with the next bytes to write and returns the number of slices filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let chunks = self.closed.iter().map(|chunk| chunk.as_ref());
        let open = (!self.open.is_empty()).then_some(self.open.as_ref());
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks.chain(open)) {
            *slice = IoSlice::new(chunk);
            count += 1;
        }
        count
    }

    /// Drops the first `written` bytes.
    pub fn advance(&mut self, mut written: usize) {
        self.bytes -= written.min(self.bytes);
        while let Some(first) = self.closed.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.closed.pop_front();
        }
        self.open.advance(written.min(self.open.len()));
        if self.open.is_empty() {
            // An idle connection must not keep the memory of a large response.
            if self.open.capacity() > 4 * ARENA_BYTES {
                self.open = BytesMut::new();
            } else {
                self.open.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::api::Api;

    fn frame(arena: &mut BytesMut, splices: &[usize]) -> Frame {
        let version = Api::Fetch.version(4).unwrap();
        let header = ResponseHeader { api: &Api::Fetch, version, correlation_id: 7 };
        let mut writer = FrameWriter::new(arena, header);
        for (place, length) in splices.iter().enumerate() {
            writer.out().put_u8(0xee);
            writer.splice(vec![place as u8; *length].into());
        }
        writer.out().put_u8(0xff);
        writer.finish()
    }

    #[test]
    fn splices_are_inserted_at_their_positions() {
        let mut arena = BytesMut::new();
        let bytes = frame(&mut arena, &[2, 5000, 3]).to_bytes();
        assert_eq!(bytes.len(), 4 + 4 + 3 + 5005 + 1);
        assert_eq!(bytes.slice(..4), Bytes::copy_from_slice(&(bytes.len() as u32 - 4).to_be_bytes()));
        assert_eq!(bytes.slice(4..12), Bytes::from_static(&[0, 0, 0, 7, 0xee, 0, 0, 0xee]));
        assert!(bytes.slice(12..5012).iter().all(|byte| *byte == 1));
        assert_eq!(bytes.slice(5012..), Bytes::from_static(&[0xee, 2, 2, 2, 0xff]));
    }

    #[test]
    fn buffers_held_by_reference_are_wrapped() {
        let wrapped = |splices: &[usize]| {
            let count = std::cell::Cell::new(0);
            let count_bytes = |bytes: Bytes| {
                count.set(count.get() + bytes.len());
                bytes
            };
            let plain = frame(&mut BytesMut::new(), splices);
            assert_eq!(plain.clone().wrapped(count_bytes).to_bytes(), plain.to_bytes());
            count.get()
        };
        assert_eq!(wrapped(&[5000, 9000]), 14_000);
        assert_eq!(wrapped(&[100; 50]), 4 + 4 + 50 * 101 + 1);
        assert_eq!(wrapped(&[100; 2]), 0);
    }

    #[test]
    fn partial_writes_of_any_size_preserve_the_bytes() {
        let mut arena = BytesMut::new();
        let frames =
            [frame(&mut arena, &[]), frame(&mut arena, &[9000, 1, 5000]), frame(&mut arena, &[4097])];
        let whole: Vec<u8> = frames.iter().flat_map(|frame| frame.to_bytes().to_vec()).collect();
        for step in [1, 7, 100, 4096, 100_000] {
            let mut output = Output::default();
            frames.iter().for_each(|frame| output.push(frame.clone()));
            let mut written = Vec::new();
            while output.pending_bytes() > 0 {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = output.slices(&mut slices);
                let bytes: Vec<u8> =
                    slices[..count].iter().flat_map(|slice| slice.to_vec()).take(step).collect();
                written.extend_from_slice(&bytes);
                output.advance(bytes.len());
            }
            assert_eq!(written, whole, "{step}");
        }
    }
}
