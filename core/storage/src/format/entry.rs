//! An entry: header, descriptions of its parts, then its batches verbatim, padded to 8 bytes.
//!
//! ```text
//!  0 magic "ENTR"                                          } header, 40 bytes
//!  4 CRC-32C of bytes 8..40, the descriptions,             }
//!    and the first 61 bytes of each batch         u32      }
//!  8 length of the whole entry, a multiple of 8   u32      }
//! 12 length of the descriptions                   u32      }
//! 16 position of this entry in the log            u64      }
//! 24 synced: everything below was on the medium   u64      }
//!    when this entry was written                           }
//! 32 number of parts                              u32      }
//! 36 kind: 0 appended, 1 copied by the cleaner,   u8, then 3 zero bytes
//!    2 lost
//! 40 descriptions …, batches …, zero bytes up to the length
//! ```
//! The batches' own checksums cover the rest of their bytes, so that every byte is covered and records are summed once.

use bytes::{BufMut, BytesMut};

use super::{Fields, Flaw};
use crate::batch;
use crate::seeded_bugs::{Bug, is_seeded};

pub(crate) const ENTRY_HEADER_BYTES: usize = 40;
pub(crate) const ENTRY_ALIGNMENT: usize = 8;
pub(crate) const ENTRY_MAGIC: [u8; 4] = *b"ENTR";
/// Kind of an entry appended to the log.
pub(crate) const KIND_APPENDED: u8 = 0;
/// Kind of an entry copied by the cleaner.
pub(crate) const KIND_COPIED: u8 = 1;
/// Kind of an entry that replaces salvaged damage: no parts, zero bytes up to its length.
pub(crate) const KIND_LOST: u8 = 2;

/// Tags of part descriptions.
pub(crate) mod tag {
    pub(crate) const BATCH: u8 = 1;
    pub(crate) const PUT: u8 = 2;
    pub(crate) const DELETE: u8 = 3;
    pub(crate) const CREATE_STREAM: u8 = 4;
    pub(crate) const DELETE_STREAM: u8 = 5;
    pub(crate) const TRIM: u8 = 6;
    pub(crate) const CREATE_CURSOR: u8 = 7;
    pub(crate) const DELETE_CURSOR: u8 = 8;
    pub(crate) const ACK: u8 = 9;
    pub(crate) const COUNTS: u8 = 10;
    pub(crate) const SEEK: u8 = 11;
    pub(crate) const ACKS: u8 = 12;
}

/// Bytes of an entry with descriptions and batches of these sizes.
pub(crate) fn entry_bytes(description_bytes: usize, batch_bytes: usize) -> usize {
    (ENTRY_HEADER_BYTES + description_bytes + batch_bytes).next_multiple_of(ENTRY_ALIGNMENT)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    pub(crate) crc: u32,
    pub(crate) length: u32,
    pub(crate) description_bytes: u32,
    pub(crate) lsn: u64,
    pub(crate) synced: u64,
    pub(crate) part_count: u32,
    pub(crate) kind: u8,
}

impl EntryHeader {
    /// Appends the header; [`seal`] sets the checksum later.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_slice(&ENTRY_MAGIC);
        out.put_u32_le(self.crc);
        out.put_u32_le(self.length);
        out.put_u32_le(self.description_bytes);
        out.put_u64_le(self.lsn);
        out.put_u64_le(self.synced);
        out.put_u32_le(self.part_count);
        out.put_slice(&[self.kind, 0, 0, 0]);
    }

    /// Reads a header at a known position and checks everything that does not need the rest of the entry.
    pub(crate) fn decode(bytes: &[u8], lsn: u64) -> Result<Self, Flaw> {
        let mut fields = Fields::new(bytes);
        if fields.array() != Some(ENTRY_MAGIC) {
            return Err("no entry starts here");
        }
        let mut read = || {
            Some(Self {
                crc: fields.u32()?,
                length: fields.u32()?,
                description_bytes: fields.u32()?,
                lsn: fields.u64()?,
                synced: fields.u64()?,
                part_count: fields.u32()?,
                kind: fields.u8()?,
            })
        };
        let header = read().ok_or("entry header is truncated")?;
        if header.lsn != lsn {
            return Err("entry is of another position");
        }
        let least = ENTRY_HEADER_BYTES as u64 + u64::from(header.description_bytes);
        if u64::from(header.length) < least || !(header.length as usize).is_multiple_of(ENTRY_ALIGNMENT) {
            return Err("entry length is wrong");
        }
        Ok(header)
    }
}

/// Computes and sets the checksum of an entry whose header and descriptions are at `start` of `out`.
/// `heads`: the first 61 bytes of each batch.
pub(crate) fn seal<'a>(
    out: &mut BytesMut,
    start: usize,
    description_bytes: usize,
    heads: impl Iterator<Item = &'a [u8]>,
) {
    let end = start + ENTRY_HEADER_BYTES + description_bytes;
    let mut crc = crc32c::crc32c(out.get(start + 8..end).unwrap_or_default());
    for head in heads {
        crc = crc32c::crc32c_append(crc, head);
    }
    if let Some(place) = out.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// One part of a decoded entry, as slices of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartView<'a> {
    /// A batch, and its place within the entry.
    Batch {
        /// The first of the streams that it was submitted for; not always a destination of a copied batch.
        origin: u64,
        destinations: Destinations<'a>,
        batch: &'a [u8],
        at: usize,
    },
    Put {
        table: u16,
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        table: u16,
        key: &'a [u8],
    },
    CreateStream {
        id: u64,
    },
    DeleteStream {
        id: u64,
    },
    Trim {
        stream: u64,
        to: u64,
    },
    CreateCursor {
        id: u64,
        stream: u64,
        at: u64,
    },
    DeleteCursor {
        id: u64,
    },
    Ack {
        cursor: u64,
        ranges: Pairs<'a>,
    },
    Counts {
        cursor: u64,
        counts: &'a [u8],
    },
    Seek {
        cursor: u64,
        to: u64,
    },
    Acks {
        acks: &'a [u8],
    },
}

/// Encoded pairs of u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pairs<'a>(pub(crate) &'a [u8]);

/// Encoded pairs of stream and base offset.
pub(crate) type Destinations<'a> = Pairs<'a>;

impl<'a> Pairs<'a> {
    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = (u64, u64)> + 'a {
        let (pairs, _) = self.0.as_chunks::<16>();
        pairs.iter().map(|pair| {
            let mut fields = Fields::new(pair);
            (fields.u64().unwrap_or_default(), fields.u64().unwrap_or_default())
        })
    }
}

/// Offsets and delivery counts of a `Counts` part.
pub(crate) fn counts(bytes: &[u8]) -> impl Iterator<Item = (u64, u32)> + '_ {
    let (counts, _) = bytes.as_chunks::<12>();
    counts.iter().map(|count| {
        let mut fields = Fields::new(count);
        (fields.u64().unwrap_or_default(), fields.u32().unwrap_or_default())
    })
}

/// Cursor, start and end of each range of an `Acks` part.
pub(crate) fn acks(bytes: &[u8]) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
    let (acks, _) = bytes.as_chunks::<24>();
    acks.iter().map(|ack| {
        let mut fields = Fields::new(ack);
        let mut next = || fields.u64().unwrap_or_default();
        (next(), next(), next())
    })
}

/// The parts of an entry, after its checksum was verified. `bytes`: the whole entry. `verify_batches`: also verify the
/// checksums of the batches' records.
pub(crate) fn decode<'a>(
    header: &EntryHeader,
    bytes: &'a [u8],
    verify_batches: bool,
) -> Result<Vec<PartView<'a>>, Flaw> {
    if bytes.len() != header.length as usize {
        return Err("entry is truncated");
    }
    let batches_at = ENTRY_HEADER_BYTES + header.description_bytes as usize;
    let described = bytes.get(8..batches_at).ok_or("entry is truncated")?;
    let mut fields = Fields::new(bytes.get(ENTRY_HEADER_BYTES..batches_at).ok_or("entry is truncated")?);
    let mut crc = crc32c::crc32c(described);
    let mut at = batches_at;
    let mut parts = Vec::new();
    // The descriptions are not verified yet: their lengths are checked against the bytes, and nothing is returned before
    // the checksum matched.
    for _ in 0..header.part_count {
        let part = decode_part(&mut fields, bytes, &mut at).ok_or("entry part is malformed")?;
        if let PartView::Batch { batch, .. } = &part {
            crc = crc32c::crc32c_append(crc, batch.get(..batch::HEADER_BYTES).ok_or("batch is truncated")?);
        }
        parts.push(part);
    }
    if crc != header.crc && !is_seeded(Bug::SkipEntryChecksum) {
        return Err("entry checksum mismatch");
    }
    let is_filled = at.next_multiple_of(ENTRY_ALIGNMENT) == bytes.len();
    let is_lost = header.kind == KIND_LOST && parts.is_empty();
    if !fields.is_empty() || !(is_filled || is_lost) {
        return Err("entry parts do not add up to its length");
    }
    if bytes.get(at..).is_some_and(|padding| padding.iter().any(|byte| *byte != 0)) {
        return Err("entry padding is not zero");
    }
    for part in &parts {
        if let PartView::Batch { batch, .. } = part {
            verify_batch(batch, verify_batches)?;
        }
    }
    Ok(parts)
}

fn verify_batch(bytes: &[u8], checksum: bool) -> Result<(), Flaw> {
    let header = batch::BatchHeader::parse(bytes).map_err(|_| "batch header is malformed")?;
    if header.total_bytes() != bytes.len() {
        return Err("batch length is wrong");
    }
    if checksum && crc32c::crc32c(bytes.get(21..).unwrap_or_default()) != header.crc {
        return Err("batch checksum mismatch");
    }
    Ok(())
}

fn decode_part<'a>(fields: &mut Fields<'a>, entry: &'a [u8], at: &mut usize) -> Option<PartView<'a>> {
    Some(match fields.u8()? {
        tag::BATCH => {
            let count = fields.u32()? as usize;
            let length = fields.u32()? as usize;
            let origin = fields.u64()?;
            let destinations = Pairs(fields.bytes(count.checked_mul(16)?)?);
            let start = *at;
            *at = start.checked_add(length)?;
            PartView::Batch { origin, destinations, batch: entry.get(start..*at)?, at: start }
        }
        tag::PUT => {
            let table = fields.u16()?;
            let key_bytes = fields.u32()? as usize;
            let value_bytes = fields.u32()? as usize;
            PartView::Put { table, key: fields.bytes(key_bytes)?, value: fields.bytes(value_bytes)? }
        }
        tag::DELETE => {
            let table = fields.u16()?;
            let key_bytes = fields.u32()? as usize;
            PartView::Delete { table, key: fields.bytes(key_bytes)? }
        }
        tag::CREATE_STREAM => PartView::CreateStream { id: fields.u64()? },
        tag::DELETE_STREAM => PartView::DeleteStream { id: fields.u64()? },
        tag::TRIM => PartView::Trim { stream: fields.u64()?, to: fields.u64()? },
        tag::CREATE_CURSOR => {
            PartView::CreateCursor { id: fields.u64()?, stream: fields.u64()?, at: fields.u64()? }
        }
        tag::DELETE_CURSOR => PartView::DeleteCursor { id: fields.u64()? },
        tag::ACK => {
            let cursor = fields.u64()?;
            let count = fields.u32()? as usize;
            PartView::Ack { cursor, ranges: Pairs(fields.bytes(count.checked_mul(16)?)?) }
        }
        tag::COUNTS => {
            let cursor = fields.u64()?;
            let count = fields.u32()? as usize;
            PartView::Counts { cursor, counts: fields.bytes(count.checked_mul(12)?)? }
        }
        tag::SEEK => PartView::Seek { cursor: fields.u64()?, to: fields.u64()? },
        tag::ACKS => {
            let count = fields.u32()? as usize;
            PartView::Acks { acks: fields.bytes(count.checked_mul(24)?)? }
        }
        _ => return None,
    })
}
