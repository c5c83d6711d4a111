//! Entries of a `Publish`: one message each, or a batch of several under one publishing id, which may be compressed.

use std::io::Read;

use bytes::Bytes;
use inver_storage::batch::{Compression, decompress};

use super::wire::{Malformed, Reader};

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// One message.
    Message(&'a [u8]),
    /// A batch of messages.
    Batch {
        /// How they are compressed.
        compression: Compression,
        /// How many they are.
        count: u16,
        /// Their bytes once decompressed, as the client claims.
        plain_bytes: u32,
        /// The bytes.
        data: &'a [u8],
    },
}

/// The bit that marks a batch in the first byte of an entry, which is else the first one of a length.
const BATCH: u8 = 0x80;

impl<'a> Entry<'a> {
    /// Takes an entry from the front.
    pub fn take(reader: &mut Reader<'a>) -> Result<Entry<'a>, Malformed> {
        let first = *reader.0.first().ok_or(Malformed)?;
        if first & BATCH == 0 {
            let length = reader.u32()?;
            return reader.take(length as usize).map(Entry::Message);
        }
        reader.u8()?;
        let compression = match (first >> 4) & 0x7 {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            _ => return Err(Malformed),
        };
        let (count, plain_bytes, length) = (reader.u16()?, reader.u32()?, reader.u32()?);
        Ok(Entry::Batch { compression, count, plain_bytes, data: reader.take(length as usize)? })
    }
}

/// The beginning of the framing format of snappy.
const SNAPPY_FRAMES: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// The messages of a batch, decompressed; no more bytes than `bytes_max`.
pub fn unpack(
    compression: Compression,
    count: u16,
    data: &[u8],
    bytes_max: usize,
) -> Result<Vec<Bytes>, Malformed> {
    let plain = match compression {
        Compression::Snappy if data.starts_with(SNAPPY_FRAMES) => {
            let (mut plain, frames) = (Vec::new(), snap::read::FrameDecoder::new(data));
            frames.take(bytes_max as u64 + 1).read_to_end(&mut plain).map_err(|_| Malformed)?;
            Bytes::from(plain)
        }
        compression => {
            decompress(compression, &Bytes::copy_from_slice(data), bytes_max).map_err(|_| Malformed)?
        }
    };
    if plain.len() > bytes_max {
        return Err(Malformed);
    }
    let (mut messages, mut reader) = (Vec::new(), Reader(&plain));
    for _ in 0..count {
        let length = reader.u32()? as usize;
        messages.push(plain.slice_ref(reader.take(length)?));
    }
    if reader.0.is_empty() { Ok(messages) } else { Err(Malformed) }
}
