//! Chunks: messages with consecutive offsets, as they are delivered.

use flate2::Crc;

/// The first byte: a magic number and the version of the format.
const MAGIC_AND_VERSION: u8 = 0x50;
/// The type of a chunk of messages.
const USER: u8 = 0;
/// Memory that an empty chunk keeps.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// Bytes before the entries.
pub const HEADER_BYTES: usize = 48;
/// Entries of one chunk.
pub const ENTRIES_MAX: usize = u16::MAX as usize;

/// A chunk under construction.
#[derive(Debug, Default)]
pub struct Chunk {
    data: Vec<u8>,
    entries: u16,
    first_offset: u64,
    timestamp_ms: i64,
}

/// What a chunk had at some time.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    bytes: usize,
    entries: u16,
}

impl Chunk {
    /// Empties it. The memory of a large one is given back.
    pub fn clear(&mut self) {
        self.data.clear();
        self.data.shrink_to(KEPT_BYTES_MAX);
        self.entries = 0;
    }

    /// Messages in it.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.entries)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes of its messages.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Whether a message of this offset can follow.
    #[must_use]
    pub fn takes(&self, offset: u64) -> bool {
        self.is_empty() || (offset == self.first_offset + u64::from(self.entries) && self.entries < u16::MAX)
    }

    /// Adds a message, which `write` appends.
    pub fn push(&mut self, offset: u64, timestamp_ms: i64, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_empty() {
            (self.first_offset, self.timestamp_ms) = (offset, timestamp_ms);
        }
        let start = self.data.len();
        self.data.extend_from_slice(&[0; 4]);
        write(&mut self.data);
        let length = (self.data.len() - start - 4) as u32;
        if let Some(field) = self.data.get_mut(start..start + 4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        self.entries += 1;
    }

    /// What it has now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.data.len(), entries: self.entries }
    }

    /// Takes out what was added after a mark.
    pub fn cut(&mut self, mark: Mark) {
        self.data.truncate(mark.bytes);
        self.entries = mark.entries;
    }

    /// Appends it to the output.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut crc = Crc::new();
        crc.update(&self.data);
        out.extend_from_slice(&[MAGIC_AND_VERSION, USER]);
        out.extend_from_slice(&self.entries.to_be_bytes());
        out.extend_from_slice(&u32::from(self.entries).to_be_bytes());
        out.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        // The epoch: there was one leader ever.
        out.extend_from_slice(&1_u64.to_be_bytes());
        out.extend_from_slice(&self.first_offset.to_be_bytes());
        out.extend_from_slice(&crc.sum().to_be_bytes());
        out.extend_from_slice(&(self.data.len() as u32).to_be_bytes());
        // No trailer, and no filter before the entries.
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_this_form() {
        let mut chunk = Chunk::default();
        chunk.push(7, 1000, |out| out.extend_from_slice(b"ab"));
        let one = chunk.mark();
        assert!(chunk.takes(8) && !chunk.takes(9) && !chunk.takes(7));
        chunk.push(8, 1001, |out| out.extend_from_slice(b"c"));
        chunk.cut(one);
        chunk.push(8, 1001, |out| out.extend_from_slice(b"123456789"));
        let mut out = Vec::new();
        chunk.write(&mut out);
        assert_eq!(out.len(), HEADER_BYTES + 4 + 2 + 4 + 9);
        assert_eq!(&out[..8], [0x50, 0, 0, 2, 0, 0, 0, 2]);
        assert_eq!(
            &out[8..32],
            [&1000_i64.to_be_bytes()[..], &1_u64.to_be_bytes(), &7_u64.to_be_bytes()].concat()
        );
        let data = b"\0\0\0\x02ab\0\0\0\x09123456789";
        let mut crc = Crc::new();
        crc.update(data);
        assert_eq!(&out[32..36], crc.sum().to_be_bytes());
        assert_eq!(&out[36..48], [0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&out[48..], data);
        // The checksum is CRC-32 as in ISO 3309.
        let mut crc = Crc::new();
        crc.update(b"123456789");
        assert_eq!(crc.sum(), 0xcbf4_3926);
    }
}
