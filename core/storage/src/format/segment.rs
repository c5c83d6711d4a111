//! Header and trailer of a segment file: its first and last 64 bytes.
//!
//! ```text
//! header                                   trailer (sealed segments only)
//!  0 magic "INVERSEG"                       0 magic "INVEREND"
//!  8 version        u32                     8 version        u32
//! 12 CRC-32C of 16..64  u32                12 CRC-32C of 16..64  u32
//! 16 log id         u128                   16 segment id     u64
//! 32 segment id     u64                    24 entries end    u64 (file position)
//! 40 base           u64 (lsn of byte 0)    32 index start    u64 (file position)
//! 48 created        i64 (ms)               40 index blocks   u32
//!                                          44 index entries  u32
//!                                          48 greatest timestamp i64
//! 56 zero                                  56 streams        u32
//!                                          60 places         u32
//! ```

use super::{FORMAT_VERSION, Fields, Flaw};

pub(crate) const HEADER_BYTES: u64 = 64;
pub(crate) const TRAILER_BYTES: u64 = 64;
const HEADER_MAGIC: [u8; 8] = *b"INVERSEG";
const TRAILER_MAGIC: [u8; 8] = *b"INVEREND";

/// Identity of a segment file. Segments of the log are named by their base position; segments written by the cleaner have
/// the top bit set and a number of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId(pub(crate) u64);

const CLEANED: u64 = 1 << 63;

impl SegmentId {
    pub(crate) fn cleaned(number: u64) -> Self {
        Self(number | CLEANED)
    }

    pub(crate) fn is_cleaned(self) -> bool {
        self.0 & CLEANED != 0
    }

    pub(crate) fn file_name(self) -> String {
        if self.is_cleaned() {
            format!("c{:016x}.seg", self.0 & !CLEANED)
        } else {
            format!("{:016x}.seg", self.0)
        }
    }

    pub(crate) fn from_file_name(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".seg")?;
        let (cleaned, digits) = match stem.strip_prefix('c') {
            Some(digits) => (true, digits),
            None => (false, stem),
        };
        if digits.len() != 16 {
            return None;
        }
        let number = u64::from_str_radix(digits, 16).ok().filter(|number| number & CLEANED == 0)?;
        Some(if cleaned { Self::cleaned(number) } else { Self(number) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: u128,
    pub(crate) id: SegmentId,
    pub(crate) base: u64,
    pub(crate) created_ms: i64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut body = Vec::with_capacity(48);
        body.extend_from_slice(&self.log_id.to_le_bytes());
        body.extend_from_slice(&self.id.0.to_le_bytes());
        body.extend_from_slice(&self.base.to_le_bytes());
        body.extend_from_slice(&self.created_ms.to_le_bytes());
        frame(HEADER_MAGIC, &body)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FrameFlaw> {
        let mut fields = unframe(HEADER_MAGIC, bytes)?;
        let mut read = || {
            Some(Self {
                log_id: u128::from_le_bytes(fields.array()?),
                id: SegmentId(fields.u64()?),
                base: fields.u64()?,
                created_ms: fields.i64()?,
            })
        };
        read().ok_or(FrameFlaw::Flaw("segment header is truncated"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentTrailer {
    pub(crate) id: SegmentId,
    pub(crate) entries_end: u64,
    pub(crate) index_start: u64,
    pub(crate) index_blocks: u32,
    pub(crate) index_entries: u32,
    pub(crate) max_timestamp: i64,
    pub(crate) spread: Spread,
}

/// How far the streams of a segment are interleaved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spread {
    /// Streams that have batches in it.
    pub(crate) streams: u32,
    /// Places where batches of one stream are adjacent, for all streams together.
    pub(crate) places: u32,
}

impl SegmentTrailer {
    pub(crate) fn encode(&self) -> [u8; TRAILER_BYTES as usize] {
        let mut body = Vec::with_capacity(48);
        body.extend_from_slice(&self.id.0.to_le_bytes());
        body.extend_from_slice(&self.entries_end.to_le_bytes());
        body.extend_from_slice(&self.index_start.to_le_bytes());
        body.extend_from_slice(&self.index_blocks.to_le_bytes());
        body.extend_from_slice(&self.index_entries.to_le_bytes());
        body.extend_from_slice(&self.max_timestamp.to_le_bytes());
        body.extend_from_slice(&self.spread.streams.to_le_bytes());
        body.extend_from_slice(&self.spread.places.to_le_bytes());
        frame(TRAILER_MAGIC, &body)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FrameFlaw> {
        let mut fields = unframe(TRAILER_MAGIC, bytes)?;
        let mut read = || {
            Some(Self {
                id: SegmentId(fields.u64()?),
                entries_end: fields.u64()?,
                index_start: fields.u64()?,
                index_blocks: fields.u32()?,
                index_entries: fields.u32()?,
                max_timestamp: fields.i64()?,
                spread: Spread { streams: fields.u32()?, places: fields.u32()? },
            })
        };
        read().ok_or(FrameFlaw::Flaw("segment trailer is truncated"))
    }
}

/// A fault of a header or trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameFlaw {
    Flaw(Flaw),
    Version(u32),
}

fn frame(magic: [u8; 8], body: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    out[..8].copy_from_slice(&magic);
    out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let length = body.len().min(48);
    out[16..16 + length].copy_from_slice(&body[..length]);
    let crc = crc32c::crc32c(&out[16..]);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

fn unframe(magic: [u8; 8], bytes: &[u8]) -> Result<Fields<'_>, FrameFlaw> {
    let bytes = bytes.get(..64).ok_or(FrameFlaw::Flaw("truncated"))?;
    let mut fields = Fields::new(bytes);
    if fields.array() != Some(magic) {
        return Err(FrameFlaw::Flaw("wrong magic"));
    }
    let version = fields.u32().unwrap_or_default();
    if version == 0 || version > FORMAT_VERSION {
        return Err(FrameFlaw::Version(version));
    }
    if fields.u32() != Some(crc32c::crc32c(fields.rest)) {
        return Err(FrameFlaw::Flaw("wrong checksum"));
    }
    Ok(fields)
}
