//! The form of a journal object: a header, then the bytes of consecutive entries of the log, as they are in its files.
//!
//! Numbers are little-endian. The header:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | `IVJ1` |
//! | 4 | 1 | kind: 0 entries, 1 fence |
//! | 5 | 3 | zero |
//! | 8 | 16 | id of the log |
//! | 24 | 8 | epoch of the owner |
//! | 32 | 8 | the owner's random number |
//! | 40 | 8 | number of the object |
//! | 48 | 8 | position of the first entry |
//! | 56 | 8 | position behind the last entry |
//! | 64 | 8 | of a fence: the number at which reading goes on; else zero |
//! | 72 | 4 | bytes of the body |
//! | 76 | 4 | CRC-32C of the body |
//! | 80 | 4 | CRC-32C of bytes 0 to 80 |

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 84;

const MAGIC: [u8; 4] = *b"IVJ1";
const ENTRIES: u8 = 0;
const FENCE: u8 = 1;

/// The id of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

/// Who appends: an epoch of the register, and a random number of the process, since bodies may be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Grows with each owner.
    pub epoch: u64,
    /// Another one in each epoch.
    pub random: u64,
}

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Entries of the log.
    Entries,
    /// Nothing: the mark of a new owner.
    Fence {
        /// The number at which reading goes on.
        resume: u64,
    },
}

/// What is known of an object without its body.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The log to which it belongs.
    pub log: LogId,
    /// Who made it.
    pub owner: Owner,
    /// Its number.
    pub number: u64,
    /// Positions in the log, in bytes; empty for a fence.
    pub positions: Range<u64>,
    /// What it holds.
    pub kind: Kind,
}

/// Bytes that are no journal object, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("journal object: {0}")]
pub struct Damaged(pub &'static str);

/// The bytes of an object.
///
/// # Errors
///
/// If the body has 4 GiB or more.
pub fn encode(header: &Header, body: &[u8]) -> Result<Bytes, Damaged> {
    let length = u32::try_from(body.len()).map_err(|_| Damaged("the body is too long"))?;
    let (kind, resume) = match header.kind {
        Kind::Entries => (ENTRIES, 0),
        Kind::Fence { resume } => (FENCE, resume),
    };
    let mut out = BytesMut::with_capacity(HEADER_BYTES + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&header.log.0);
    let Owner { epoch, random } = header.owner;
    for number in [epoch, random, header.number, header.positions.start, header.positions.end, resume] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(body);
    Ok(out.freeze())
}

/// The header and the body of an object's bytes.
///
/// # Errors
///
/// If they are not what [`encode`] made.
pub fn decode(bytes: &Bytes) -> Result<(Header, Bytes), Damaged> {
    let mut rest = Fields(bytes);
    if rest.take::<4>()? != MAGIC {
        return Err(Damaged("it does not begin with `IVJ1`"));
    }
    let [kind, zeros @ ..] = rest.take::<4>()?;
    let log = LogId(rest.take()?);
    let owner = Owner { epoch: rest.number()?, random: rest.number()? };
    let number = rest.number()?;
    let positions = rest.number()?..rest.number()?;
    let resume = rest.number()?;
    let (length, body_checksum) = (u32::from_le_bytes(rest.take()?), u32::from_le_bytes(rest.take()?));
    let checksum = u32::from_le_bytes(rest.take()?);
    if crc32c::crc32c(&bytes[..HEADER_BYTES - 4]) != checksum {
        return Err(Damaged("the checksum of the header is wrong"));
    }
    let kind = match kind {
        ENTRIES if resume == 0 => Kind::Entries,
        FENCE if resume > number && positions.is_empty() && length == 0 => Kind::Fence { resume },
        ENTRIES | FENCE => return Err(Damaged("the header contradicts its kind")),
        _ => return Err(Damaged("it is of an unknown kind; a newer version wrote it")),
    };
    if zeros != [0; 3] || positions.start > positions.end {
        return Err(Damaged("the header is malformed"));
    }
    let body = bytes.slice(HEADER_BYTES..);
    if body.len() as u64 != u64::from(length) || crc32c::crc32c(&body) != body_checksum {
        return Err(Damaged("the body is not whole"));
    }
    Ok((Header { log, owner, number, positions, kind }, body))
}

/// Takes fields from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Damaged("it is shorter than a header"))?;
        self.0 = rest;
        Ok(*field)
    }

    fn number(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(kind: Kind, positions: Range<u64>) -> Header {
        let owner = Owner { epoch: 3, random: 0x0123_4567_89ab_cdef };
        Header { log: LogId(*b"0123456789abcdef"), owner, number: 7, positions, kind }
    }

    #[test]
    fn the_form_is_as_documented() {
        let bytes = encode(&header(Kind::Entries, 100..105), b"bytes").unwrap();
        assert_eq!(bytes.len(), HEADER_BYTES + 5);
        assert_eq!(&bytes[..8], b"IVJ1\0\0\0\0");
        assert_eq!(bytes[24..32], 3_u64.to_le_bytes());
        assert_eq!(bytes[40..48], 7_u64.to_le_bytes());
        assert_eq!(bytes[48..64], [100_u64.to_le_bytes(), 105_u64.to_le_bytes()].concat());
        assert_eq!(bytes[72..76], 5_u32.to_le_bytes());
        assert_eq!(&bytes[HEADER_BYTES..], b"bytes");
        let fence = encode(&header(Kind::Fence { resume: 12 }, 105..105), b"").unwrap();
        assert_eq!((fence[4], &fence[64..72]), (1, &12_u64.to_le_bytes()[..]));
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        let no = |bytes: &[u8]| decode(&Bytes::copy_from_slice(bytes)).unwrap_err().0;
        let bytes = encode(&header(Kind::Entries, 0..3), b"abc").unwrap();
        assert_eq!(no(b""), "it is shorter than a header");
        assert_eq!(no(&bytes[..HEADER_BYTES + 2]), "the body is not whole");
        assert_eq!(no(&[&bytes[..], b"d"].concat()), "the body is not whole");
        assert_eq!(no(b"IVJ2 and more"), "it does not begin with `IVJ1`");
        let back = encode(&header(Kind::Fence { resume: 7 }, 0..0), b"").unwrap();
        assert_eq!(no(&back), "the header contradicts its kind");
        let mut newer = bytes[..HEADER_BYTES - 4].to_vec();
        newer[4] = 2;
        newer.extend(crc32c::crc32c(&newer).to_le_bytes());
        assert_eq!(no(&newer), "it is of an unknown kind; a newer version wrote it");
    }

    proptest! {
        #[test]
        fn an_object_is_read_as_it_was_written(body in prop::collection::vec(any::<u8>(), 0..64), start in any::<u32>()) {
            let start = u64::from(start);
            let header = header(Kind::Entries, start..start + body.len() as u64);
            let bytes = encode(&header, &body).unwrap();
            prop_assert_eq!(decode(&bytes).unwrap(), (header, body.into()));
        }

        #[test]
        fn a_flipped_bit_is_noticed(at in 0..(HEADER_BYTES + 5) * 8) {
            let mut bytes = encode(&header(Kind::Entries, 0..5), b"hello").unwrap().to_vec();
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert!(decode(&bytes.into()).is_err());
        }
    }
}
