//! Walks the entries of a segment file in order, through one buffer.

use crate::format::Flaw;
use crate::format::entry::{ENTRY_ALIGNMENT, ENTRY_HEADER_BYTES, ENTRY_MAGIC, EntryHeader, decode};
use crate::format::segment::{FrameFlaw, HEADER_BYTES, SegmentHeader};
use crate::medium::MediumFile;
use crate::sabotage::{Bug, is_seeded};

const BUFFER_BYTES: usize = 1 << 20;

/// Why the walk cannot go on.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io(std::io::Error),
    Flaw { position: u64, detail: Flaw },
    Version(u32),
}

/// A walk over one segment file.
pub(crate) struct Scanner<'f> {
    file: &'f dyn MediumFile,
    file_bytes: u64,
    base: u64,
    /// Where the next entry starts, or where the walk stopped.
    pub(crate) position: u64,
    /// Where entries are known to end.
    end: Option<u64>,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'f> Scanner<'f> {
    /// Reads the file's header. `end`: where entries end, if that is known.
    pub(crate) fn open(
        file: &'f dyn MediumFile,
        end: Option<u64>,
    ) -> Result<(SegmentHeader, Scanner<'f>), ScanError> {
        let file_bytes = file.len().map_err(ScanError::Io)?;
        let mut bytes = [0; HEADER_BYTES as usize];
        file.read_at(0, &mut bytes).map_err(ScanError::Io)?;
        let header = SegmentHeader::decode(&bytes).map_err(|flaw| match flaw {
            FrameFlaw::Flaw(detail) => ScanError::Flaw { position: 0, detail },
            FrameFlaw::Version(version) => ScanError::Version(version),
        })?;
        let scanner = Self {
            file,
            file_bytes,
            base: header.base,
            position: HEADER_BYTES,
            end,
            buffer: Vec::new(),
            buffer_at: 0,
        };
        Ok((header, scanner))
    }

    /// The next entry, whole and with all of its checksums held; `None` at the known end.
    pub(crate) fn next(&mut self) -> Result<Option<(EntryHeader, &[u8])>, ScanError> {
        if self.end == Some(self.position) {
            return Ok(None);
        }
        let position = self.position;
        let flaw = |detail| ScanError::Flaw { position, detail };
        let lsn = self.base.saturating_add(position);
        let end = self.end.unwrap_or(self.file_bytes).min(self.file_bytes);
        let bytes = self.at(position, ENTRY_HEADER_BYTES as u64)?;
        let header = EntryHeader::decode(bytes, lsn).map_err(flaw)?;
        if position + u64::from(header.length) > end {
            return Err(flaw("entry reaches beyond the end"));
        }
        let bytes = self.at(position, u64::from(header.length))?;
        decode(&header, bytes, !is_seeded(Bug::SkipBatchChecksumInReplay)).map_err(flaw)?;
        self.position += u64::from(header.length);
        let bytes = self.at(position, u64::from(header.length))?;
        Ok(Some((header, bytes)))
    }

    /// Bytes of the file, as many as there are.
    fn at(&mut self, position: u64, length: u64) -> Result<&[u8], ScanError> {
        let length = length.min(self.file_bytes.saturating_sub(position)) as usize;
        let is_in = position >= self.buffer_at
            && position + length as u64 <= self.buffer_at + self.buffer.len() as u64;
        if !is_in {
            let wanted = BUFFER_BYTES.max(length).min(self.file_bytes.saturating_sub(position) as usize);
            self.buffer.resize(wanted, 0);
            let read = self.file.read_at(position, &mut self.buffer).map_err(ScanError::Io)?;
            self.buffer.truncate(read);
            self.buffer_at = position;
        }
        let start = (position - self.buffer_at) as usize;
        let end = (start + length).min(self.buffer.len());
        Ok(self.buffer.get(start..end).unwrap_or_default())
    }

    /// What lies behind a place where the entries stopped: whether anything at all does, and whether an entry there
    /// proves that the place had been synced, i.e. that it is damaged and not torn.
    pub(crate) fn look_behind(&mut self, stopped_at: u64) -> Result<Behind, ScanError> {
        let mut behind = Behind::default();
        let mut position = stopped_at;
        while position < self.file_bytes {
            let chunk = self.at(position, BUFFER_BYTES as u64)?;
            if chunk.is_empty() {
                break;
            }
            let Some(offset) = first_not_zero(chunk) else {
                position += chunk.len() as u64;
                continue;
            };
            behind.is_anything = true;
            let is_entry = chunk.get(offset..).is_some_and(|rest| rest.starts_with(&ENTRY_MAGIC));
            position += offset as u64;
            match if is_entry { self.synced_claim(position)? } else { None } {
                Some((length, synced)) => {
                    behind.is_damage |= synced > self.base + stopped_at;
                    position += length;
                }
                None => position += ENTRY_ALIGNMENT as u64,
            }
        }
        Ok(behind)
    }

    /// Where the next entry starts behind a place, all of whose checksums hold.
    pub(crate) fn find_sound(&mut self, behind: u64) -> Result<Option<u64>, ScanError> {
        let end = self.end.unwrap_or(self.file_bytes).min(self.file_bytes);
        let mut position = behind + ENTRY_ALIGNMENT as u64;
        while position < end {
            let chunk = self.at(position, BUFFER_BYTES as u64)?;
            if chunk.is_empty() {
                break;
            }
            let words = chunk.chunks(ENTRY_ALIGNMENT);
            let Some(word) = words.into_iter().position(|word| word.starts_with(&ENTRY_MAGIC)) else {
                position += chunk.len().next_multiple_of(ENTRY_ALIGNMENT) as u64;
                continue;
            };
            position += (word * ENTRY_ALIGNMENT) as u64;
            let lsn = self.base + position;
            if let Ok(header) = EntryHeader::decode(self.at(position, ENTRY_HEADER_BYTES as u64)?, lsn)
                && position + u64::from(header.length) <= end
                && decode(&header, self.at(position, u64::from(header.length))?, true).is_ok()
            {
                return Ok(Some(position));
            }
            position += ENTRY_ALIGNMENT as u64;
        }
        Ok(None)
    }

    /// Length and synced mark of an entry whose own checksum holds.
    fn synced_claim(&mut self, position: u64) -> Result<Option<(u64, u64)>, ScanError> {
        let lsn = self.base + position;
        let Ok(header) = EntryHeader::decode(self.at(position, ENTRY_HEADER_BYTES as u64)?, lsn) else {
            return Ok(None);
        };
        if position + u64::from(header.length) > self.file_bytes {
            return Ok(None);
        }
        let bytes = self.at(position, u64::from(header.length))?;
        let holds = decode(&header, bytes, false).is_ok();
        Ok(holds.then_some((u64::from(header.length), header.synced)))
    }
}

/// Where the first aligned word lies that is not zero. Pages of zeros, of which a reserved file is full, are compared
/// as a whole.
fn first_not_zero(chunk: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let is_zero = |bytes: &[u8]| ZEROS.get(..bytes.len()) == Some(bytes);
    let page = chunk.chunks(ZEROS.len()).position(|page| !is_zero(page))? * ZEROS.len();
    let word = chunk.get(page..)?.chunks(ENTRY_ALIGNMENT).position(|word| !is_zero(word))?;
    Some(page + word * ENTRY_ALIGNMENT)
}

/// See [`Scanner::look_behind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) is_anything: bool,
    pub(crate) is_damage: bool,
}
