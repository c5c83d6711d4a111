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

pub(crate) fn decompress(codec: Compression, bytes: &Bytes, bytes_max: usize) -> Result<Bytes, BatchError> {
    match codec {
        Compression::None => Ok(bytes.clone()),
        Compression::Gzip => drain(flate2::read::MultiGzDecoder::new(bytes.as_ref()), bytes_max),
        Compression::Snappy => decompress_snappy(bytes, bytes_max),
        Compression::Lz4 => drain(lz4_flex::frame::FrameDecoder::new(bytes.as_ref()), bytes_max),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes.as_ref()).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
            drain(decoder, bytes_max)
        }
    }
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

fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> BatchError {
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

fn decompress_snappy(bytes: &[u8], bytes_max: usize) -> Result<Bytes, BatchError> {
    let mut out = Vec::new();
    if bytes.get(..XERIAL_MAGIC_BYTES) != XERIAL_HEADER.get(..XERIAL_MAGIC_BYTES) {
        decompress_snappy_block(bytes, bytes_max, &mut out)?;
        return Ok(Bytes::from(out));
    }
    let mut rest = bytes.get(XERIAL_HEADER.len()..).ok_or_else(|| failed("framing is truncated"))?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(|| failed("framing is truncated"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let block = after.get(..length).ok_or_else(|| failed("block is truncated"))?;
        decompress_snappy_block(block, bytes_max, &mut out)?;
        rest = after.get(length..).unwrap_or_default();
    }
    Ok(Bytes::from(out))
}

fn decompress_snappy_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let length = snap::raw::decompress_len(block).map_err(failed)?;
    if length > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(failed("block length exceeds the largest possible expansion"));
    }
    if out.len() + length > bytes_max {
        return Err(BatchError::TooLarge { bytes_max });
    }
    let start = out.len();
    out.resize(start + length, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let yielded = snap::raw::Decoder::new().decompress(block, room).map_err(failed)?;
    out.truncate(start + yielded);
    Ok(())
}
