//! A file of the checkpoint under inspection: reads come from the file, writes stay in memory.
//!
//! redb writes to a file when it opens it. A file that is only inspected must not change.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use crate::medium::MediumFile;

const PAGE_BYTES: u64 = 4096;

#[derive(Debug)]
pub(super) struct Overlay {
    file: Arc<dyn MediumFile>,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    length: u64,
    /// What the file holds from here on was truncated.
    stored_end: u64,
    /// Pages that were written, by their place in the file divided by [`PAGE_BYTES`].
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(super) fn new(file: Arc<dyn MediumFile>) -> io::Result<Self> {
        let length = file.len()?;
        Ok(Self { file, changed: Mutex::new(Changed { length, stored_end: length, pages: BTreeMap::new() }) })
    }

    /// Reads what is left of the file; zeros behind its end.
    fn read_stored(&self, stored_end: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let length = out.len().min(stored_end.saturating_sub(offset) as usize);
        let read = self.file.read_at(offset, out.get_mut(..length).unwrap_or_default())?;
        out.get_mut(read..).unwrap_or_default().fill(0);
        Ok(())
    }
}

/// The parts of a range: page, place in the page, place in the range, length.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES) as usize;
        let part = (length - done).min(PAGE_BYTES as usize - within);
        let item = (at / PAGE_BYTES, within, done, part);
        done += part;
        (part > 0).then_some(item)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.changed.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let changed = self.changed.lock();
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > changed.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_stored(changed.stored_end, offset, out)?;
        if changed.pages.is_empty() {
            return Ok(());
        }
        for (number, within, at, length) in parts(offset, out.len()) {
            if let Some(page) = changed.pages.get(&number)
                && let (Some(to), Some(from)) =
                    (out.get_mut(at..at + length), page.get(within..within + length))
            {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        let mut changed = self.changed.lock();
        changed.length = length;
        changed.stored_end = changed.stored_end.min(length);
        changed.pages.split_off(&length.div_ceil(PAGE_BYTES));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut changed = self.changed.lock();
        let stored_end = changed.stored_end;
        for (number, within, at, length) in parts(offset, data.len()) {
            let page = match changed.pages.entry(number) {
                Entry::Occupied(page) => page.into_mut(),
                Entry::Vacant(vacant) => {
                    let mut page = vec![0; PAGE_BYTES as usize];
                    self.read_stored(stored_end, number * PAGE_BYTES, &mut page)?;
                    vacant.insert(page)
                }
            };
            if let (Some(to), Some(from)) = (page.get_mut(within..within + length), data.get(at..at + length))
            {
                to.copy_from_slice(from);
            }
        }
        changed.length = changed.length.max(offset + data.len() as u64);
        Ok(())
    }
}
