//! A walk over the entries of a segment file in order, through one buffer.

use crate::error::OpenError;
use crate::format::entry::{ENTRY_ALIGNMENT, ENTRY_HEADER_BYTES, ENTRY_MAGIC, EntryHeader, decode};
use crate::format::segment::{FrameFlaw, HEADER_BYTES, SegmentHeader};
use crate::format::{FORMAT_VERSION, Flaw};
use crate::medium::MediumFile;
use crate::seeded_bugs::{Bug, is_seeded};

const BUFFER_BYTES: usize = 1 << 20;

/// Why a walk stopped.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io(std::io::Error),
    Flaw { position: u64, detail: Flaw },
    Version(u32),
}

impl ScanError {
    /// The error of a walk over the file `name`.
    pub(crate) fn in_file(self, name: &str) -> OpenError {
        match self {
            Self::Io(source) => OpenError::io(format!("read {name}"))(source),
            Self::Flaw { position, detail } => OpenError::damaged(name, position, detail),
            Self::Version(found) => {
                OpenError::Version { file: name.to_owned(), found, supported: FORMAT_VERSION }
            }
        }
    }
}

/// A walk over one segment file.
pub(crate) struct Scanner<'f> {
    file: &'f dyn MediumFile,
    file_bytes: u64,
    base: u64,
    /// Start of the next entry, or the place where the walk stopped.
    pub(crate) position: u64,
    /// Known end of the entries.
    end: Option<u64>,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'f> Scanner<'f> {
    /// Reads the file's header. `end`: the end of the entries, if known.
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

    /// The next entry, after all of its checksums were verified; `None` at the known end.
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

    /// Bytes of the file; fewer at its end.
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

    /// Examines the bytes behind the place where the entries stopped: whether there are any, and whether an entry there
    /// proves that the place had been synced, i.e. that it is damaged and not torn.
    pub(crate) fn examine_tail(&mut self, stopped_at: u64) -> Result<TailExamination, ScanError> {
        let mut found = TailExamination::default();
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
            found.has_data = true;
            let is_entry = chunk.get(offset..).is_some_and(|rest| rest.starts_with(&ENTRY_MAGIC));
            position += offset as u64;
            match if is_entry { self.synced_claim(position)? } else { None } {
                Some((length, synced)) => {
                    found.is_damage |= synced > self.base + stopped_at;
                    position += length;
                }
                None => position += ENTRY_ALIGNMENT as u64,
            }
        }
        Ok(found)
    }

    /// Start of the next sound entry behind a position.
    pub(crate) fn find_sound(&mut self, after: u64) -> Result<Option<u64>, ScanError> {
        let end = self.end.unwrap_or(self.file_bytes).min(self.file_bytes);
        let mut position = after + ENTRY_ALIGNMENT as u64;
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

    /// Length and synced position of an entry, if its own checksum matches.
    fn synced_claim(&mut self, position: u64) -> Result<Option<(u64, u64)>, ScanError> {
        let lsn = self.base + position;
        let Ok(header) = EntryHeader::decode(self.at(position, ENTRY_HEADER_BYTES as u64)?, lsn) else {
            return Ok(None);
        };
        if position + u64::from(header.length) > self.file_bytes {
            return Ok(None);
        }
        let bytes = self.at(position, u64::from(header.length))?;
        let is_sound = decode(&header, bytes, false).is_ok();
        Ok(is_sound.then_some((u64::from(header.length), header.synced)))
    }
}

/// Place of the first aligned word that is not zero. Whole pages are compared at once, because reserved files consist of
/// zeros.
fn first_not_zero(chunk: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let is_zero = |bytes: &[u8]| ZEROS.get(..bytes.len()) == Some(bytes);
    let page = chunk.chunks(ZEROS.len()).position(|page| !is_zero(page))? * ZEROS.len();
    let word = chunk.get(page..)?.chunks(ENTRY_ALIGNMENT).position(|word| !is_zero(word))?;
    Some(page + word * ENTRY_ALIGNMENT)
}

/// Result of [`Scanner::examine_tail`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TailExamination {
    /// There are bytes other than zero.
    pub(crate) has_data: bool,
    /// The place had been synced: it is damaged, not torn.
    pub(crate) is_damage: bool,
}
