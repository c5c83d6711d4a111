//! The file that is being appended to, and how bytes get there.
//!
//! Under the lazier policies bytes go through the page cache as they are. Under `Always` what counts is the cost of a
//! sync, and that is least when a sync has nothing to tell the file system but the bytes themselves:
//!
//! - Small groups go past the page cache (`O_DIRECT`), in whole blocks: the last, partly filled block is kept in memory
//!   and written again with what follows in it. The bytes of it that were synced before are written as they were, so a
//!   torn write leaves them as they were.
//! - Room ahead is filled with zeros in larger steps before it is used. Room that is only reserved would cost a change
//!   of the file system's own records with each write into it, and a sync would have to wait for its journal.
//!
//! Large groups go through the page cache, where readers find them, in whole blocks as well, so that no block must be
//! read before it is written. Where the file system takes no direct writes, everything goes through the page cache.
//! What is in the file is the same in all of these ways, but for zeros behind its end.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::inner::Inner;
use crate::medium::MediumFile;
use crate::options::CommitPolicy;
use crate::sabotage::{Bug, is_seeded};

/// Direct writes start, end and lie in memory at multiples of this.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Zeros written ahead at a time. One sync in so many bytes of log is a slow one.
const AHEAD_BYTES: usize = 512 << 10;

/// An open segment file and the position where the next byte goes.
pub(crate) struct AppendFile {
    file: Arc<dyn MediumFile>,
    position: u64,
    direct: Option<Direct>,
}

/// What direct writes need.
struct Direct {
    file: Arc<dyn MediumFile>,
    /// Starts with the bytes of the file's last, partly filled block.
    buffer: AlignedBytes,
    zeros: AlignedBytes,
    /// Groups of more bytes go through the page cache.
    group_bytes_max: usize,
    /// Up to here bytes were written, if only zeros.
    prepared: u64,
    /// Up to here there is room to prepare.
    prepared_max: u64,
}

/// Bytes at an aligned place in memory.
struct AlignedBytes {
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedBytes {
    /// Zeros.
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
    /// Goes on at a position of an open segment file.
    pub(crate) fn new(inner: &Inner, name: &str, file: Arc<dyn MediumFile>, position: u64) -> Self {
        let options = &inner.options;
        let is_wanted =
            options.commit == CommitPolicy::Always && options.preallocate && options.direct_bytes_max > 0;
        let mut direct = None;
        if is_wanted && !inner.is_direct_refused.load(Ordering::Relaxed) {
            let opened = Direct::open(inner, name, position);
            if !matches!(opened, Ok(Some(_))) {
                let reason = opened.as_ref().err().map(ToString::to_string).unwrap_or_default();
                inner.is_direct_refused.store(true, Ordering::Relaxed);
                tracing::info!(folder = %inner.medium.describe(), %reason, "no direct writes here: a sync costs more");
            }
            direct = opened.ok().flatten();
        }
        Self { file, position, direct }
    }

    /// Where the next byte goes.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Writes the pieces, one after the other.
    pub(crate) fn write(&mut self, pieces: &[Bytes]) -> io::Result<()> {
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

    /// What was written survives the loss of power.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Bytes of the last block that are in use when the file's next byte goes to `position`.
fn tail_bytes(position: u64) -> usize {
    (position % BLOCK_BYTES as u64) as usize
}

impl Direct {
    /// `None` where the medium does not take direct writes.
    fn open(inner: &Inner, name: &str, position: u64) -> io::Result<Option<Self>> {
        let Some(file) = inner.medium.open_direct(name)? else { return Ok(None) };
        let group_bytes_max = inner.options.direct_bytes_max;
        let mut buffer = AlignedBytes::new((BLOCK_BYTES + group_bytes_max).next_multiple_of(BLOCK_BYTES));
        let start = position - tail_bytes(position) as u64;
        // Says as well whether blocks of this size are what the medium wants.
        let block = buffer.all().get_mut(..BLOCK_BYTES).unwrap_or_default();
        if file.read_at(start, block)? < tail_bytes(position) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let prepared_max = inner.options.segment_bytes_max / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let zeros = AlignedBytes::new(AHEAD_BYTES);
        Ok(Some(Self { file, buffer, zeros, group_bytes_max, prepared: start, prepared_max }))
    }

    /// Whole blocks, past the page cache, with zeros ahead when those before are used up.
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

    /// Whole blocks through the page cache.
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

    /// The last `rest` bytes of what was written become the start of the next write.
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
    use crate::medium::Medium;
    use crate::medium::fake::FakeMedium;
    use crate::{Log, LogOptions, SystemClock};

    const FIRST: &str = "0000000000000000.seg";

    fn open(medium: &FakeMedium, direct_bytes_max: usize) -> Log {
        let options = LogOptions { direct_bytes_max, segment_bytes_max: 1 << 20, ..LogOptions::default() };
        Log::open_manual(Arc::new(medium.clone()), Arc::new(SystemClock), options).unwrap()
    }

    #[test]
    fn every_way_writes_the_same_bytes() {
        let mut contents = Vec::new();
        for (is_direct, direct_bytes_max) in [(false, 1 << 20), (true, 1 << 20), (true, 5000), (true, 0)] {
            let medium = FakeMedium::new(1);
            if is_direct {
                medium.take_direct();
            }
            let log = open(&medium, direct_bytes_max);
            let mut end = log.inner().writer.lock().take().unwrap().file.position();
            for life in 0..3 {
                let file = medium.open(FIRST).unwrap();
                let mut append = AppendFile::new(log.inner(), FIRST, file, end);
                assert_eq!(append.direct.is_some(), is_direct && direct_bytes_max > 0);
                for length in [1, 4031, 1, 8192, 70_000, 3, 4096, 5001, 4090, 12] {
                    let whole: Vec<u8> = (0..length).map(|at| (at + life) as u8).collect();
                    let (first, second) = whole.split_at(length / 3);
                    append.write(&[Bytes::copy_from_slice(first), Bytes::copy_from_slice(second)]).unwrap();
                    append.sync().unwrap();
                    end += length as u64;
                    assert_eq!(append.position(), end);
                }
            }
            contents.push(medium.content(FIRST).unwrap().split_off(64));
        }
        let longest = contents.iter().map(Vec::len).max().unwrap();
        for content in &mut contents {
            content.resize(longest, 0);
        }
        assert!(contents.iter().all(|content| *content == contents[0]));
    }

    #[test]
    fn room_ahead_is_zeros_within_the_segment() {
        let medium = FakeMedium::new(1);
        medium.take_direct();
        let log = open(&medium, 1 << 20);
        let mut writer = log.inner().writer.lock().take().unwrap();
        let prepared = |writer: &crate::writer::Writer| writer.file.direct.as_ref().unwrap().prepared;
        writer.file.write(&[Bytes::from_static(b"x")]).unwrap();
        assert_eq!(prepared(&writer), (BLOCK_BYTES + AHEAD_BYTES) as u64);
        writer.file.write(&[Bytes::from(vec![1; AHEAD_BYTES])]).unwrap();
        assert_eq!(prepared(&writer), (BLOCK_BYTES + AHEAD_BYTES) as u64);
        writer.file.write(&[Bytes::from(vec![1; BLOCK_BYTES])]).unwrap();
        assert_eq!(prepared(&writer), 1 << 20);
        assert_eq!(medium.content(FIRST).unwrap().len(), 1 << 20);
    }
}
