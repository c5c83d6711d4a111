//! Reads of a stream that need files. They run where the caller allows blocking, and never hold up the writer.
//!
//! The cleaner may replace a segment between lookup and read; the read then starts over.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::state::StreamInner;
use crate::error::ReadError;
use crate::format::index::Extent;
use crate::ids::Offset;
use crate::read::segments::Segment;
use crate::read::{ReadPath, StoredBatch};

/// How often a read starts over because the cleaner replaced a segment.
const ATTEMPTS_MAX: u32 = 3;

/// A read that needs the disk. Run it where blocking is allowed.
#[derive(Debug)]
pub struct ColdRead {
    stream: Arc<StreamInner>,
    from: Offset,
    bytes_max: usize,
}

/// A run of the stream, as found under its lock.
pub(super) struct Found {
    pub(super) segment: Arc<Segment>,
    /// The wanted extents, when they are in memory.
    pub(super) resident: Option<Vec<Extent>>,
    /// Offsets of this run: a segment that the cleaner wrote can hold several runs of a stream.
    pub(super) from: u64,
    pub(super) end: u64,
}

impl ColdRead {
    pub(super) fn new(stream: Arc<StreamInner>, from: Offset, bytes_max: usize) -> Self {
        Self { stream, from, bytes_max }
    }

    /// The offset from which it reads.
    #[must_use]
    pub fn from(&self) -> Offset {
        self.from
    }

    /// Reads from the files; blocks on I/O. At least one batch, unless the stream holds none at or above the offset.
    pub fn run(&self) -> Result<Vec<StoredBatch>, ReadError> {
        let read = self.stream.read_path()?;
        retrying(|| match self.find(&read)? {
            Place::Nowhere => Ok(Vec::new()),
            Place::Memory(batches) => Ok(batches),
            Place::Files(segment, extents) => read_up_to_damage(&read, &segment, &extents),
        })
    }

    /// The offsets of the first batch that [`run`](Self::run) reads, by the indexes alone: what cannot be read if that batch
    /// is damaged. None if it is not in a file. Blocks on I/O.
    pub fn first_batch(&self) -> Result<Option<Range<Offset>>, ReadError> {
        let read = self.stream.read_path()?;
        let found = retrying(|| self.find(&read))?;
        let Place::Files(_, extents) = found else { return Ok(None) };
        Ok(extents.first().map(|first| Offset(first.base)..Offset(first.end())))
    }

    fn find(&self, read: &ReadPath) -> Result<Place, ReadError> {
        let mut step = 0;
        loop {
            let found = {
                let state = self.stream.state.lock();
                if !self.stream.check(self.from)? {
                    return Ok(Place::Nowhere);
                }
                // The offset may be in a gap that compaction left in front of the tail.
                let at = state.runs.find(self.from.0) + step;
                let Some(run) = state.runs.get(at) else {
                    let tail = state.read_tail(self.from.0, self.bytes_max);
                    return Ok(Place::Memory(tail.unwrap_or_default()));
                };
                let resident = (!run.extents.is_empty()).then(|| {
                    let first = run.extents.partition_point(|extent| extent.end() <= self.from.0);
                    take_extents(run.extents.get(first..).unwrap_or_default(), self.bytes_max)
                });
                let end = state.runs.get(at + 1).map_or(u64::MAX, |next| next.first);
                let end = end.min(self.stream.high.load(Ordering::Acquire));
                Found { segment: run.segment.clone(), resident, from: self.from.0.max(run.first), end }
            };
            let mut extents = match found.resident {
                Some(extents) => extents,
                None => read.extents(&found.segment, self.stream.id, found.from, self.bytes_max)?,
            };
            extents.retain(|extent| extent.base < found.end);
            if !extents.is_empty() {
                return Ok(Place::Files(found.segment, extents));
            }
            step += 1;
        }
    }
}

/// Where the batches of a read are.
enum Place {
    Nowhere,
    Memory(Vec<StoredBatch>),
    Files(Arc<Segment>, Vec<Extent>),
}

/// Runs a read again while it fails with an I/O error, a bounded number of times.
pub(super) fn retrying<T>(mut attempt: impl FnMut() -> Result<T, ReadError>) -> Result<T, ReadError> {
    let mut attempts = 0;
    loop {
        match attempt() {
            Err(ReadError::Io { .. }) if attempts < ATTEMPTS_MAX => attempts += 1,
            result => return result,
        }
    }
}

/// Reads batches. In front of damage, the sound batches are returned; damage of the first is an error.
fn read_up_to_damage(
    read: &ReadPath,
    segment: &Segment,
    extents: &[Extent],
) -> Result<Vec<StoredBatch>, ReadError> {
    let one = |extent: &Extent| read.batches(segment, std::slice::from_ref(extent));
    match read.batches(segment, extents) {
        Err(damage @ ReadError::Damaged { .. }) if extents.len() > 1 => {
            let sound: Vec<StoredBatch> =
                extents.iter().map_while(|extent| one(extent).ok()).flatten().collect();
            match (sound.is_empty(), extents.first()) {
                (false, _) => Ok(sound),
                (true, Some(first)) => one(first),
                (true, None) => Err(damage),
            }
        }
        result => result,
    }
}

/// The first of the extents, up to a number of bytes, at least one.
fn take_extents(extents: &[Extent], bytes_max: usize) -> Vec<Extent> {
    let mut bytes = 0usize;
    let mut count = 0;
    for extent in extents {
        bytes = bytes.saturating_add(extent.length as usize);
        if bytes > bytes_max && count > 0 {
            break;
        }
        count += 1;
    }
    extents.get(..count).unwrap_or_default().to_vec()
}
