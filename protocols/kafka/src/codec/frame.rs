//! Encoded responses.
//!
//! A response is encoded into one buffer, except for its record batches: these are spliced in by reference and reach
//! the socket without a copy, unless they are so small that copying is cheaper than another I/O slice.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{self, ResponseHeader};
use super::wire::Wire;

/// Splices up to this many bytes are copied into the output instead of becoming an I/O slice of their own.
pub(crate) const COPIED_BYTES_MAX: usize = 4096;

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

    /// Of these, bytes that were encoded for it.
    pub fn encoded_len(&self) -> usize {
        self.encoded.len()
    }

    /// Whether the frame is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Wraps every buffer that the output will hold by reference. Buffers that are copied are not wrapped: they are small,
    /// and released as soon as they are copied.
    #[must_use]
    pub fn wrapped(mut self, wrap: impl Fn(Bytes) -> Bytes) -> Frame {
        let spliced = self.splices.iter_mut().map(|(_, bytes)| bytes);
        for bytes in spliced.chain([&mut self.encoded]).filter(|bytes| bytes.len() > COPIED_BYTES_MAX) {
            *bytes = wrap(std::mem::take(bytes));
        }
        self
    }

    /// The buffers of the frame, in order.
    pub fn into_buffers(self) -> impl Iterator<Item = Bytes> {
        let Frame { encoded, splices, .. } = self;
        let mut from = 0;
        let last = encoded.len();
        let ends = splices.into_iter().map(|(place, bytes)| (place, Some(bytes))).chain([(last, None)]);
        ends.flat_map(move |(place, bytes)| {
            let before = encoded.slice(from..place);
            from = place;
            [Some(before), bytes].into_iter().flatten()
        })
        .filter(|bytes| !bytes.is_empty())
    }

    /// The whole frame in one buffer; for tests.
    pub fn to_bytes(&self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.bytes);
        self.clone().into_buffers().for_each(|bytes| all.put_slice(&bytes));
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
}
