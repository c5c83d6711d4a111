//! A response on its way out: what was encoded, with stored batches spliced in where they belong.
//!
//! Encoding a response writes everything but record sets into one buffer; record sets stay where they lie and are
//! told to the socket as they are, or copied if they are so small that the copy is cheaper than the telling.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::header;
use super::wire::{Version, Wire};
use super::{api_key::Api, header::RequestHeader};

/// Record sets up to this many bytes are copied into the output rather than told to the socket on their own.
const COPIED_BYTES_MAX: usize = 4096;

/// Slices given to one write.
const SLICES_MAX: usize = 64;

/// A response, its length in front.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Everything encoded. The first four bytes are the length of all that follows, splices included.
    encoded: Bytes,
    /// Bytes to be put in, each before the given place of `encoded`, in order.
    splices: Vec<(usize, Bytes)>,
    bytes: usize,
}

impl Frame {
    /// Bytes that go over the wire.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// With `dress` put around what is not copied on its way out. All that is, is small.
    #[must_use]
    pub fn dressed(mut self, dress: impl Fn(Bytes) -> Bytes) -> Frame {
        let spliced = self.splices.iter_mut().map(|(_, bytes)| bytes);
        for bytes in spliced.chain([&mut self.encoded]).filter(|bytes| bytes.len() > COPIED_BYTES_MAX) {
            *bytes = dress(std::mem::take(bytes));
        }
        self
    }

    /// Everything in one piece; for tests and tools.
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

/// Encodes one response. `arena` is memory that many small responses share.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    arena: &'a mut BytesMut,
    splices: Vec<(usize, Bytes)>,
    spliced_bytes: usize,
}

/// Bytes that the arena grows by.
const ARENA_BYTES: usize = 16 * 1024;

impl<'a> FrameWriter<'a> {
    /// Begins the response to a request: its length, to be filled in, and its header.
    pub fn new(arena: &'a mut BytesMut, request: &RequestHeader) -> FrameWriter<'a> {
        FrameWriter::start(arena, request.api, request.version, request.correlation_id)
    }

    /// As [`FrameWriter::new`], for a request whose header is only partly known.
    pub fn start(
        arena: &'a mut BytesMut,
        api: &Api,
        version: Version,
        correlation_id: i32,
    ) -> FrameWriter<'a> {
        if arena.capacity() < 512 {
            arena.reserve(ARENA_BYTES);
        }
        arena.put_i32(0);
        header::write_response(arena, api, version, correlation_id);
        FrameWriter { arena, splices: Vec::new(), spliced_bytes: 0 }
    }

    /// What was written to the arena, as it is: a frame that is no response.
    pub fn bare(arena: &'a mut BytesMut) -> FrameWriter<'a> {
        FrameWriter { arena, splices: Vec::new(), spliced_bytes: 0 }
    }

    /// Where fields are written to.
    pub fn out(&mut self) -> &mut BytesMut {
        self.arena
    }

    /// Puts stored bytes in here, without copying them if they are large.
    pub fn splice(&mut self, bytes: Bytes) {
        if bytes.len() <= COPIED_BYTES_MAX {
            self.arena.put_slice(&bytes);
            return;
        }
        self.spliced_bytes += bytes.len();
        self.splices.push((self.arena.len(), bytes));
    }

    /// The whole response.
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

/// Encodes a response that carries no records.
pub fn respond<T: Wire>(arena: &mut BytesMut, request: &RequestHeader, body: &T) -> Frame {
    let mut writer = FrameWriter::new(arena, request);
    body.write(writer.out(), request.version);
    writer.finish()
}

/// What waits to be written to a socket, in order.
#[derive(Debug, Default)]
pub struct Output {
    closed: VecDeque<Bytes>,
    open: BytesMut,
    bytes: usize,
}

impl Output {
    /// Bytes that wait.
    pub fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a response.
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

    /// The next bytes to write, as slices; how many of them.
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

    /// So many bytes were written.
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
            // The memory of a large answer is not kept by an idle connection.
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

    fn frame(arena: &mut BytesMut, splices: &[usize]) -> Frame {
        let mut writer = FrameWriter::start(arena, &Api::Fetch, Api::Fetch.version(4).unwrap(), 7);
        for (place, length) in splices.iter().enumerate() {
            writer.out().put_u8(0xee);
            writer.splice(vec![place as u8; *length].into());
        }
        writer.out().put_u8(0xff);
        writer.finish()
    }

    #[test]
    fn splices_stand_where_they_were_put() {
        let mut arena = BytesMut::new();
        let bytes = frame(&mut arena, &[2, 5000, 3]).to_bytes();
        assert_eq!(bytes.len(), 4 + 4 + 3 + 5005 + 1);
        assert_eq!(bytes.slice(..4), Bytes::copy_from_slice(&(bytes.len() as u32 - 4).to_be_bytes()));
        assert_eq!(bytes.slice(4..12), Bytes::from_static(&[0, 0, 0, 7, 0xee, 0, 0, 0xee]));
        assert!(bytes.slice(12..5012).iter().all(|byte| *byte == 1));
        assert_eq!(bytes.slice(5012..), Bytes::from_static(&[0xee, 2, 2, 2, 0xff]));
    }

    #[test]
    fn records_that_were_copied_are_dressed_as_well() {
        let dressed = |splices: &[usize]| {
            let count = std::cell::Cell::new(0);
            let count_bytes = |bytes: Bytes| {
                count.set(count.get() + bytes.len());
                bytes
            };
            let plain = frame(&mut BytesMut::new(), splices);
            assert_eq!(plain.clone().dressed(count_bytes).to_bytes(), plain.to_bytes());
            count.get()
        };
        assert_eq!(dressed(&[5000, 9000]), 14_000);
        assert_eq!(dressed(&[100; 50]), 4 + 4 + 50 * 101 + 1);
        assert_eq!(dressed(&[100; 2]), 0);
    }

    #[test]
    fn written_in_any_pieces_it_is_the_same() {
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
