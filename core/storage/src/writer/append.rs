//! The file being appended to, and how bytes are written to it.
//!
//! Under the policies `Interval` and `Os`, bytes are written through the page cache. Under `Always` the cost of a sync
//! dominates, and a sync is cheapest when the file system has nothing to flush but the bytes themselves:
//!
//! - Small groups are written with `O_DIRECT`, in whole blocks. The last, partly filled block is kept in memory and
//!   written again with the bytes that follow. Its synced bytes are rewritten unchanged, so a torn write keeps them.
//! - Space ahead is filled with zeros in larger steps before it is used. Space that is only reserved would make each
//!   write change the file system's metadata, and a sync would wait for the journal.
//!
//! Large groups are written through the page cache, where readers find them, in whole blocks as well, so that no block has
//! to be read first. Without `O_DIRECT` support everything is written through the page cache. The content of the file is
//! the same in all cases, except for zeros behind its end.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;

use crate::medium::{BLOCK_BYTES, Medium, MediumFile};
use crate::options::{CommitPolicy, LogOptions};
use crate::seeded_bugs::{Bug, is_seeded};

/// Zeros written ahead at a time. Only one sync per so many bytes of log has to flush metadata.
const AHEAD_BYTES: usize = 512 << 10;

/// Whether and how segment files are opened for direct writes.
pub(super) struct DirectWrites {
    medium: Arc<dyn Medium>,
    is_enabled: bool,
    group_bytes_max: usize,
    segment_bytes_max: u64,
}

impl DirectWrites {
    pub(super) fn new(medium: Arc<dyn Medium>, options: &LogOptions) -> Self {
        let is_enabled =
            options.commit == CommitPolicy::Always && options.preallocate && options.direct_bytes_max > 0;
        Self {
            medium,
            is_enabled,
            group_bytes_max: options.direct_bytes_max,
            segment_bytes_max: options.segment_bytes_max,
        }
    }

    /// Opens a file for direct writes. After the first failure none is opened any more.
    fn open(&mut self, name: &str, position: u64) -> Option<Direct> {
        if !self.is_enabled {
            return None;
        }
        let reason = match Direct::open(self, name, position) {
            Ok(Some(direct)) => return Some(direct),
            Ok(None) => "not supported by the file system".to_owned(),
            Err(error) => error.to_string(),
        };
        self.is_enabled = false;
        let folder = self.medium.describe();
        tracing::info!(%folder, %reason, "O_DIRECT unavailable, using buffered writes (slower fsync)");
        None
    }
}

/// An open segment file and the position of the next byte.
pub(super) struct AppendFile {
    file: Arc<dyn MediumFile>,
    position: u64,
    direct: Option<Direct>,
}

/// A file opened for direct writes, with aligned memory.
struct Direct {
    file: Arc<dyn MediumFile>,
    /// Begins with the bytes of the file's last, partly filled block.
    buffer: AlignedBytes,
    zeros: AlignedBytes,
    /// Larger groups are written through the page cache.
    group_bytes_max: usize,
    /// End of the bytes written so far, zeros included.
    prepared: u64,
    /// End of the space that may be filled with zeros.
    prepared_max: u64,
}

/// Memory aligned to a block.
struct AlignedBytes {
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedBytes {
    /// Allocates zeros.
    fn new(length: usize) -> Self {
        let bytes = vec![0; length + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        Self { bytes, start }
    }

    fn get(&self, length: usize) -> &[u8] {
        self.bytes.get(self.start..self.start + length).unwrap_or_default()
    }

    fn all(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }
}

impl AppendFile {
    /// Continues a segment file at a position.
    pub(super) fn new(
        direct: &mut DirectWrites,
        name: &str,
        file: Arc<dyn MediumFile>,
        position: u64,
    ) -> Self {
        Self { file, position, direct: direct.open(name, position) }
    }

    /// Position of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Writes the pieces, one after the other.
    pub(super) fn write(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        if bytes == 0 {
            return Ok(());
        }
        match &mut self.direct {
            None => {
                let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
                self.file.write_at(self.position, &slices)?;
            }
            Some(direct) if bytes <= direct.group_bytes_max => direct.write(self.position, pieces)?,
            Some(direct) => direct.write_cached(self.file.as_ref(), self.position, pieces)?,
        }
        self.position += bytes as u64;
        Ok(())
    }

    /// Makes everything written survive the loss of power.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Used bytes of the block that contains `position`.
fn tail_bytes(position: u64) -> usize {
    (position % BLOCK_BYTES as u64) as usize
}

impl Direct {
    /// `None` where the medium does not support direct writes.
    fn open(writes: &DirectWrites, name: &str, position: u64) -> io::Result<Option<Self>> {
        let Some(file) = writes.medium.open_direct(name)? else { return Ok(None) };
        let group_bytes_max = writes.group_bytes_max;
        let mut buffer = AlignedBytes::new((BLOCK_BYTES + group_bytes_max).next_multiple_of(BLOCK_BYTES));
        let start = position - tail_bytes(position) as u64;
        // This read also fails if the medium needs larger blocks.
        let block = buffer.all().get_mut(..BLOCK_BYTES).unwrap_or_default();
        if file.read_at(start, block)? < tail_bytes(position) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Only space that is reserved.
        let prepared_max =
            writes.segment_bytes_max.min(file.len()?) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let zeros = AlignedBytes::new(AHEAD_BYTES);
        Ok(Some(Self { file, buffer, zeros, group_bytes_max, prepared: start, prepared_max }))
    }

    /// Writes whole blocks with `O_DIRECT`, and zeros ahead when the previous ones are used up.
    fn write(&mut self, position: u64, pieces: &[Bytes]) -> io::Result<()> {
        let tail = tail_bytes(position);
        let start = position - tail as u64;
        let mut end = tail;
        let buffer = self.buffer.all();
        for piece in pieces {
            if let Some(place) = buffer.get_mut(end..end + piece.len()) {
                place.copy_from_slice(piece);
            }
            end += piece.len();
        }
        let length = end.next_multiple_of(BLOCK_BYTES);
        if let Some(padding) = buffer.get_mut(end..length) {
            padding.fill(0);
        }
        let written = start + length as u64;
        let mut ahead = 0;
        if written > self.prepared {
            ahead = self.prepared_max.saturating_sub(written).min(AHEAD_BYTES as u64);
            self.prepared = written + ahead;
        }
        let slices = [IoSlice::new(self.buffer.get(length)), IoSlice::new(self.zeros.get(ahead as usize))];
        let slices = if ahead == 0 { slices.get(..1) } else { slices.get(..) };
        self.file.write_at(start, slices.unwrap_or_default())?;
        let rest = if is_seeded(Bug::ForgetBlock) { 0 } else { end % BLOCK_BYTES };
        self.buffer.all().copy_within(end - rest..end, 0);
        Ok(())
    }

    /// Writes whole blocks through the page cache.
    fn write_cached(&mut self, file: &dyn MediumFile, position: u64, pieces: &[Bytes]) -> io::Result<()> {
        let tail = tail_bytes(position);
        let end = tail + pieces.iter().map(Bytes::len).sum::<usize>();
        let start = position - tail as u64;
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(pieces.len() + 2);
        if tail > 0 {
            slices.push(IoSlice::new(self.buffer.get(tail)));
        }
        slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
        let padding = end.next_multiple_of(BLOCK_BYTES) - end;
        if padding > 0 {
            slices.push(IoSlice::new(self.zeros.get(padding)));
        }
        file.write_at(start, &slices)?;
        self.prepared = self.prepared.max(start + (end + padding) as u64);
        self.keep_tail(pieces, end % BLOCK_BYTES);
        Ok(())
    }

    /// Keeps the last `rest` bytes written: the next write begins with them.
    fn keep_tail(&mut self, pieces: &[Bytes], mut rest: usize) {
        let block = self.buffer.all();
        for piece in pieces.iter().rev() {
            let taken = rest.min(piece.len());
            if let (Some(place), Some(bytes)) =
                (block.get_mut(rest - taken..rest), piece.get(piece.len() - taken..))
            {
                place.copy_from_slice(bytes);
            }
            rest -= taken;
            if rest == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::medium::fake::FakeMedium;

    const FILE: &str = "file";
    const START: u64 = 64;
    const SEGMENT_BYTES: u64 = 1 << 20;

    fn writes(medium: &FakeMedium, direct_bytes_max: usize) -> DirectWrites {
        let options =
            LogOptions { direct_bytes_max, segment_bytes_max: SEGMENT_BYTES, ..LogOptions::default() };
        DirectWrites::new(Arc::new(medium.clone()), &options)
    }

    /// A file of zeros, as long as a segment.
    fn medium(takes_direct: bool) -> FakeMedium {
        let medium = FakeMedium::new(1);
        if takes_direct {
            medium.take_direct();
        }
        medium.create(FILE).unwrap().allocate(SEGMENT_BYTES).unwrap();
        medium
    }

    #[test]
    fn direct_and_buffered_writes_produce_the_same_bytes() {
        let mut contents = Vec::new();
        for (is_direct, direct_bytes_max) in [(false, 1 << 20), (true, 1 << 20), (true, 5000), (true, 0)] {
            let medium = medium(is_direct);
            let mut writes = writes(&medium, direct_bytes_max);
            let mut end = START;
            for start in 0..3 {
                let file = medium.open(FILE).unwrap();
                let mut append = AppendFile::new(&mut writes, FILE, file, end);
                assert_eq!(append.direct.is_some(), is_direct && direct_bytes_max > 0);
                for length in [1, 4031, 1, 8192, 70_000, 3, 4096, 5001, 4090, 12] {
                    let whole: Vec<u8> = (0..length).map(|at| (at + start) as u8).collect();
                    let (first, second) = whole.split_at(length / 3);
                    append.write(&[Bytes::copy_from_slice(first), Bytes::copy_from_slice(second)]).unwrap();
                    append.sync().unwrap();
                    end += length as u64;
                    assert_eq!(append.position(), end);
                }
            }
            contents.push(medium.content(FILE).unwrap().split_off(START as usize));
        }
        let longest = contents.iter().map(Vec::len).max().unwrap();
        for content in &mut contents {
            content.resize(longest, 0);
        }
        assert!(contents.iter().all(|content| *content == contents[0]));
    }

    #[test]
    fn space_ahead_is_filled_with_zeros_within_the_segment() {
        let medium = medium(true);
        let mut writes = writes(&medium, 1 << 20);
        let mut append = AppendFile::new(&mut writes, FILE, medium.open(FILE).unwrap(), START);
        let prepared = |append: &AppendFile| append.direct.as_ref().unwrap().prepared;
        append.write(&[Bytes::from_static(b"x")]).unwrap();
        assert_eq!(prepared(&append), (BLOCK_BYTES + AHEAD_BYTES) as u64);
        append.write(&[Bytes::from(vec![1; AHEAD_BYTES])]).unwrap();
        assert_eq!(prepared(&append), (BLOCK_BYTES + AHEAD_BYTES) as u64);
        append.write(&[Bytes::from(vec![1; BLOCK_BYTES])]).unwrap();
        assert_eq!(prepared(&append), SEGMENT_BYTES);
        assert_eq!(medium.content(FILE).unwrap().len() as u64, SEGMENT_BYTES);
    }
}
