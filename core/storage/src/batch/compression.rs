//! The four compression codecs of record batches, with a limit for decompressed bytes.
//!
//! Snappy is decompressed in both forms that clients produce (a raw block, and the framing of snappy-java) and compressed
//! in the framed form, which all clients accept. LZ4 is the frame format with independent blocks.

use std::error::Error;
use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;

use super::error::BatchError;
use super::header::COMPRESSION_MASK;

/// Limit for the decompressed records of one batch, in bytes.
pub const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;
/// The largest zstd window accepted, as a power of two: that of the highest level (22). The decoder reserves address space
/// for the window and touches no more of it than it decodes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// A snappy block expands to at most this many times its size (a 3-byte copy element yields 64 bytes).
const SNAPPY_RATIO_MAX: usize = 32;
/// Header of the snappy-java framing: magic, version 1, compatible with version 1.
const XERIAL_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_MAGIC_BYTES: usize = 8;
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// Compression of the records of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// gzip; multi-member streams are accepted.
    Gzip,
    /// Snappy, raw or framed.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// The codec in the attributes of a batch.
    pub fn from_attributes(attributes: i16) -> Result<Self, BatchError> {
        match attributes & COMPRESSION_MASK {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(BatchError::Codec(other)),
        }
    }

    /// The bits of the attributes of a batch.
    #[must_use]
    pub fn attribute(self) -> i16 {
        self as i16
    }
}

/// Compresses records. `None` if the codec failed; the caller then stores the records uncompressed.
pub(crate) fn compress(codec: Compression, bytes: &[u8]) -> Option<Vec<u8>> {
    match codec {
        Compression::None => None,
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).ok()?;
            encoder.finish().ok()
        }
        Compression::Snappy => snappy_framed(bytes),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).ok()?;
            encoder.finish().ok()
        }
        Compression::Zstd => zstd::bulk::compress(bytes, zstd::DEFAULT_COMPRESSION_LEVEL).ok(),
    }
}

/// The bytes that `bytes` decompress to, at most `bytes_max`.
pub fn decompress(codec: Compression, bytes: &Bytes, bytes_max: usize) -> Result<Bytes, BatchError> {
    match codec {
        Compression::None => Ok(bytes.clone()),
        Compression::Snappy => {
            let (mut blocks, mut out) = (SnappyBlocks::new(bytes)?, Vec::new());
            loop {
                let left = bytes_max - out.len();
                if !blocks.next_into(&mut out, left, bytes_max)? {
                    break;
                }
            }
            Ok(Bytes::from(out))
        }
        codec => drain(reader(codec, bytes)?, bytes_max),
    }
}

/// Reads what bytes of a codec other than snappy decompress to.
pub(super) fn reader(codec: Compression, bytes: &[u8]) -> Result<Box<dyn Read + Send + '_>, BatchError> {
    Ok(match codec {
        Compression::None | Compression::Snappy => Box::new(bytes),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(bytes)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
            Box::new(decoder)
        }
    })
}

/// Reads to the end or to the limit. Memory grows with the decompressed data only.
fn drain(decoder: impl Read, bytes_max: usize) -> Result<Bytes, BatchError> {
    let mut out = Vec::new();
    decoder.take(bytes_max as u64 + 1).read_to_end(&mut out).map_err(failed)?;
    if out.len() > bytes_max {
        return Err(BatchError::TooLarge { bytes_max });
    }
    Ok(Bytes::from(out))
}

pub(super) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> BatchError {
    BatchError::Decompress(Arc::from(error.into()))
}

fn snappy_framed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = snap::raw::Encoder::new();
    let mut out = XERIAL_HEADER.to_vec();
    for block in bytes.chunks(XERIAL_BLOCK_BYTES) {
        let block = encoder.compress_vec(block).ok()?;
        out.extend_from_slice(&u32::try_from(block.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&block);
    }
    Some(out)
}

/// The blocks of snappy in either form: one block, or those of the framing.
pub(super) struct SnappyBlocks<'a> {
    rest: &'a [u8],
    is_framed: bool,
    is_done: bool,
}

impl<'a> SnappyBlocks<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<SnappyBlocks<'a>, BatchError> {
        let is_framed = bytes.get(..XERIAL_MAGIC_BYTES) == XERIAL_HEADER.get(..XERIAL_MAGIC_BYTES);
        let rest = match is_framed {
            true => bytes.get(XERIAL_HEADER.len()..).ok_or_else(|| failed("framing is truncated"))?,
            false => bytes,
        };
        Ok(SnappyBlocks { rest, is_framed, is_done: false })
    }

    /// Appends what the next block decompresses to, at most `left` bytes of `bytes_max`. False if there is no block.
    pub(super) fn next_into(
        &mut self,
        out: &mut Vec<u8>,
        left: usize,
        bytes_max: usize,
    ) -> Result<bool, BatchError> {
        if self.is_done || (self.is_framed && self.rest.is_empty()) {
            return Ok(false);
        }
        let block = if self.is_framed {
            let (length, after) =
                self.rest.split_first_chunk::<4>().ok_or_else(|| failed("framing is truncated"))?;
            let length = u32::from_be_bytes(*length) as usize;
            self.rest = after.get(length..).ok_or_else(|| failed("block is truncated"))?;
            after.get(..length).unwrap_or_default()
        } else {
            self.is_done = true;
            self.rest
        };
        decompress_snappy_block(block, left, bytes_max, out)?;
        Ok(true)
    }
}

fn decompress_snappy_block(
    block: &[u8],
    left: usize,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let length = snap::raw::decompress_len(block).map_err(failed)?;
    if length > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(failed("block length exceeds the largest possible expansion"));
    }
    if length > left {
        return Err(BatchError::TooLarge { bytes_max });
    }
    let start = out.len();
    out.resize(start + length, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let yielded = snap::raw::Decoder::new().decompress(block, room).map_err(failed)?;
    out.truncate(start + yielded);
    Ok(())
}
