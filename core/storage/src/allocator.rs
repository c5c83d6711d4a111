//! Creation of segment files, one of them ahead of its use, and the segment that is being appended to.
//!
//! A segment gets its name only after its header is on the medium: after a crash it is whole or absent.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::format::segment::{SegmentHeader, SegmentId};
use crate::medium::{Medium, MediumFile};
use crate::options::{LogOptions, segment_bytes_at};
use crate::read::ReadPath;
use crate::read::segments::Segment;
use crate::seeded_bugs::{Bug, is_seeded};
use crate::space::{DiskSpace, is_full};

/// A segment being appended to, and its file.
#[derive(Clone)]
pub(crate) struct ActiveSegment {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn MediumFile>,
}

pub(crate) struct SegmentAllocator {
    medium: Arc<dyn Medium>,
    clock: Arc<dyn Clock>,
    read: Arc<ReadPath>,
    log_id: u128,
    segment_bytes_max: u64,
    preallocate: bool,
    space: Arc<DiskSpace>,
    spare: Mutex<Spare>,
    active: Mutex<Option<ActiveSegment>>,
}

/// A segment file created ahead of its use, under a temporary name that recovery removes.
#[derive(Default)]
struct Spare {
    file: Option<(String, Arc<dyn MediumFile>)>,
    number: u64,
}

impl SegmentAllocator {
    pub(crate) fn new(
        medium: Arc<dyn Medium>,
        clock: Arc<dyn Clock>,
        read: Arc<ReadPath>,
        log_id: u128,
        options: &LogOptions,
        space: Arc<DiskSpace>,
    ) -> Self {
        Self {
            medium,
            clock,
            read,
            log_id,
            segment_bytes_max: options.segment_bytes_max,
            preallocate: options.preallocate,
            space,
            spare: Mutex::default(),
            active: Mutex::new(None),
        }
    }

    /// The segment being appended to; `None` after the log was closed.
    pub(crate) fn active(&self) -> Option<ActiveSegment> {
        self.active.lock().clone()
    }

    pub(crate) fn set_active(&self, active: Option<ActiveSegment>) {
        *self.active.lock() = active;
    }

    /// Creates the segment at a position, with its header and name synced and space for so many bytes, and makes it the
    /// active one.
    pub(crate) fn create(&self, base: u64, bytes: u64) -> io::Result<ActiveSegment> {
        let spare = self.spare.lock().file.take();
        let (name, file) = match spare {
            Some(spare) => spare,
            None => self.create_spare()?,
        };
        let created = self.name(base, bytes, &name, file);
        if created.is_err() {
            self.discard(&name);
        }
        created
    }

    fn name(
        &self,
        base: u64,
        bytes: u64,
        name: &str,
        file: Arc<dyn MediumFile>,
    ) -> io::Result<ActiveSegment> {
        let id = SegmentId(base);
        let created_ms = self.clock.now_ms();
        self.reserve(file.as_ref(), bytes)?;
        let header = SegmentHeader { log_id: self.log_id, id, base, created_ms }.encode();
        file.write_at(0, &[IoSlice::new(&header)])?;
        file.sync()?;
        self.medium.rename(name, &id.file_name())?;
        if !is_seeded(Bug::SkipNameSync) {
            self.medium.sync_folder()?;
        }
        let segment = Segment::new(id, base, Some(created_ms));
        segment.file_bytes.store(file.len()?, Ordering::Relaxed);
        let active = ActiveSegment { segment: Arc::new(segment), file };
        self.read.segments.insert(active.segment.clone());
        self.set_active(Some(active.clone()));
        Ok(active)
    }

    /// Reserves space for a file's first bytes, if space is reserved at all.
    pub(crate) fn reserve(&self, file: &dyn MediumFile, bytes: u64) -> io::Result<()> {
        if !self.preallocate || file.len()? >= bytes {
            return Ok(());
        }
        let reserved = file.allocate(bytes);
        self.space.created(&reserved);
        reserved
    }

    /// Whether space is reserved for segments.
    pub(crate) fn is_reserving(&self) -> bool {
        self.preallocate
    }

    /// Creates the next segment's file ahead, if space is reserved at all. A failure is not the log's: the writer tries
    /// again when it needs the file.
    pub(crate) fn prepare_spare(&self) {
        if !self.preallocate || self.spare.lock().file.is_some() {
            return;
        }
        let created = self.create_spare().and_then(|(name, file)| match file.sync() {
            Ok(()) => Ok((name, file)),
            Err(error) => {
                self.discard(&name);
                Err(error)
            }
        });
        match created {
            Ok(spare) => self.spare.lock().file = Some(spare),
            // Reported with the gate.
            Err(error) if is_full(&error) => tracing::debug!(%error, "no space for the next segment file"),
            Err(error) => tracing::warn!(%error, "failed to create the next segment file ahead"),
        }
    }

    /// Removes a file that did not become a segment, with the space that it has.
    fn discard(&self, name: &str) {
        if let Err(error) = self.medium.remove(name) {
            tracing::debug!(%error, name, "failed to remove an unfinished segment file");
        }
    }

    fn create_spare(&self) -> io::Result<(String, Arc<dyn MediumFile>)> {
        let name = {
            let mut spare = self.spare.lock();
            spare.number += 1;
            format!("spare-{}.tmp", spare.number)
        };
        let file = self.medium.create(&name)?;
        if self.preallocate {
            // That of the segment after the one being appended to.
            let base = self.active().map_or(0, |active| {
                active.segment.base + segment_bytes_at(active.segment.base, self.segment_bytes_max)
            });
            let allocated = file.allocate(segment_bytes_at(base, self.segment_bytes_max));
            self.space.created(&allocated);
            if let Err(error) = allocated {
                self.discard(&name);
                return Err(error);
            }
        }
        Ok((name, file))
    }
}
