//! The checkpoint store in a redb file.
//!
//! One table, whose keys begin with their space and whose values begin with a checksum of key and value: redb's own
//! checksums detect torn writes and are not verified by reads. A count and a sum of checksums per space, and per table of
//! state, detect missing rows. redb may panic on a damaged file; such a panic is reported as damage.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, StorageBackend, Table, TableDefinition};

use super::codec::Meta;
use super::overlay::Overlay;
use super::store::{Fill, Sink, Space, Visit};
use crate::error::CheckpointError;
use crate::format::Fields;
use crate::medium::{Medium, MediumFile};
use crate::seeded_bugs::{Bug, is_seeded};

const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("checkpoint");

/// Key in [`Space::Meta`]: the totals of the other spaces.
const TOTALS_KEY: &[u8] = b"totals";
/// Key in [`Space::Meta`]: the number of the last commit, by which the two files of a checkpoint are compared.
pub(super) const COMMITS_KEY: &[u8] = b"commits";
/// A space and, in [`Space::State`], a table.
const PREFIX_BYTES: usize = 3;
const CHECKSUM_BYTES: usize = 4;

/// Checkpoints in a redb file.
#[derive(Debug)]
pub(crate) struct RedbStore {
    /// `None` during the drop.
    database: Option<Database>,
    totals: Totals,
    /// A sync of the file failed: the medium may not hold what a read of the file returns.
    has_sync_failed: Arc<AtomicBool>,
}

/// Called with the space, key and value of each row.
type VisitSpace<'a> = dyn FnMut(Space, &[u8], &[u8]) -> Result<(), CheckpointError> + 'a;

/// Rows and the sum of their checksums, by the first bytes of their keys.
type Totals = BTreeMap<[u8; PREFIX_BYTES], Total>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    rows: u64,
    sum: u64,
}

impl RedbStore {
    /// Opens a file that exists.
    pub(crate) fn open(
        medium: &dyn Medium,
        name: &str,
        cache_bytes_max: usize,
    ) -> Result<Self, CheckpointError> {
        Self::on(medium.open(name)?, cache_bytes_max)
    }

    /// Creates the file, replacing one that exists, with what `fill` puts into it. After a crash it is whole or absent.
    pub(crate) fn create(
        medium: &dyn Medium,
        name: &str,
        cache_bytes_max: usize,
        fill: &mut Fill<'_>,
    ) -> Result<Self, CheckpointError> {
        let unfinished = format!("{name}.tmp");
        if medium.list()?.contains(&unfinished) {
            medium.remove(&unfinished)?;
        }
        let created = Self::filled(medium, &unfinished, cache_bytes_max, fill);
        let renamed = created.and_then(|store| {
            medium.rename(&unfinished, name)?;
            medium.sync_folder()?;
            Ok(store)
        });
        if renamed.is_err() {
            // Best effort: recovery removes it as well.
            let _ = medium.remove(&unfinished);
        }
        renamed
    }

    fn filled(
        medium: &dyn Medium,
        name: &str,
        cache_bytes_max: usize,
        fill: &mut Fill<'_>,
    ) -> Result<Self, CheckpointError> {
        let file = medium.create(name)?;
        let mut store = Self::on(file.clone(), cache_bytes_max)?;
        store.commit(fill)?;
        file.sync()?;
        Ok(store)
    }

    fn on(file: Arc<dyn MediumFile>, cache_bytes_max: usize) -> Result<Self, CheckpointError> {
        let has_sync_failed = Arc::new(AtomicBool::new(false));
        let backend = Backend { file, has_sync_failed: has_sync_failed.clone() };
        Self::with(backend, cache_bytes_max, has_sync_failed)
    }

    fn with(
        backend: impl StorageBackend,
        cache_bytes_max: usize,
        has_sync_failed: Arc<AtomicBool>,
    ) -> Result<Self, CheckpointError> {
        let mut builder = Database::builder();
        let builder = builder.set_cache_size(cache_bytes_max);
        let database = catch_panic(|| builder.create_with_backend(backend).map_err(failed))?;
        let mut store = Self { database: Some(database), totals: Totals::new(), has_sync_failed };
        match store.get(Space::Meta, TOTALS_KEY)? {
            Some(row) => {
                store.totals = decode_totals(&row).ok_or_else(|| damaged("malformed totals"))?;
            }
            None if store.get(Space::Meta, Meta::KEY)?.is_some() => {
                return Err(damaged("totals are missing"));
            }
            None => {}
        }
        Ok(store)
    }

    /// Opens a file to inspect it: nothing is written to it.
    pub(crate) fn inspect(
        file: Arc<dyn MediumFile>,
        cache_bytes_max: usize,
    ) -> Result<Self, CheckpointError> {
        Self::with(Overlay::new(file)?, cache_bytes_max, Arc::default())
    }

    /// Verifies the checksum of every page in use, and what the file says of its free pages.
    pub(crate) fn check_pages(&mut self) -> Result<(), CheckpointError> {
        let database = self.database.as_mut().ok_or_else(|| damaged("store is closed"))?;
        match catch_panic(|| database.check_integrity().map_err(failed))? {
            true => Ok(()),
            false => Err(damaged("inconsistent pages")),
        }
    }

    /// The record of the log as a whole, if there is any.
    pub(crate) fn meta(&self) -> Result<Option<Meta>, CheckpointError> {
        let Some(bytes) = self.get(Space::Meta, Meta::KEY)? else { return Ok(None) };
        Meta::decode(&bytes).map(Some).ok_or_else(|| damaged("malformed header"))
    }

    /// The number of the last commit; 0 in a file of an earlier build.
    pub(super) fn commits(&self) -> Result<u64, CheckpointError> {
        // An unreadable header is found first.
        self.meta()?;
        let Some(row) = self.get(Space::Meta, COMMITS_KEY)? else { return Ok(0) };
        row.as_ref().try_into().map(u64::from_le_bytes).map_err(|_| damaged("malformed commit number"))
    }

    /// Puts all rows into another store.
    pub(crate) fn copy_rows(&self, sink: &mut dyn Sink) -> Result<(), CheckpointError> {
        self.each_row(&mut |space, key, value| sink.put(space, key, value))?;
        for key in [Meta::KEY, COMMITS_KEY] {
            if let Some(value) = self.get(Space::Meta, key)? {
                sink.put(Space::Meta, key, &value)?;
            }
        }
        Ok(())
    }

    /// Whether a sync of the file failed since it was opened.
    pub(crate) fn has_sync_failed(&self) -> bool {
        self.has_sync_failed.load(Ordering::Relaxed)
    }

    /// Reads one value.
    pub(super) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, CheckpointError> {
        catch_panic(|| self.read_row(space, key))
    }

    /// Visits the keys of a space that start with a prefix, in order.
    pub(crate) fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), CheckpointError> {
        catch_panic(|| self.read_rows(space, prefix, visit))
    }

    /// Runs one transaction.
    pub(crate) fn commit(&mut self, fill: &mut Fill<'_>) -> Result<(), CheckpointError> {
        catch_panic(|| {
            let mut transaction = self.database()?.begin_write().map_err(failed)?;
            // An open after a crash then reads the allocator's state instead of walking all pages.
            transaction.set_quick_repair(true);
            let totals = {
                let table = transaction.open_table(TABLE).map_err(failed)?;
                let mut filled = Transaction { table, totals: self.totals.clone() };
                fill(&mut filled)?;
                filled.put(Space::Meta, TOTALS_KEY, &encode_totals(&filled.totals))?;
                filled.totals
            };
            transaction.commit().map_err(failed)?;
            self.totals = totals;
            Ok(())
        })
    }

    /// Closes the file: later calls fail.
    pub(super) fn close(&mut self) {
        // redb writes during its drop; nothing depends on that.
        let database = self.database.take();
        let _ = catch_panic(|| {
            drop(database);
            Ok(())
        });
    }

    fn database(&self) -> Result<&Database, CheckpointError> {
        self.database.as_ref().ok_or_else(|| damaged("store is closed"))
    }

    /// Verifies the checksum of every row.
    pub(crate) fn check_rows(&self) -> Result<(), CheckpointError> {
        self.each_row(&mut |_, _, _| Ok(()))
    }

    fn each_row(&self, visit: &mut VisitSpace<'_>) -> Result<(), CheckpointError> {
        for prefix in self.totals.keys() {
            for space in [Space::Segments, Space::Streams, Space::Cursors, Space::State] {
                if let [first, table @ ..] = prefix
                    && *first == space as u8
                {
                    let table: &[u8] = if space == Space::State { table } else { &[] };
                    self.scan(space, table, &mut |key, value| visit(space, key, value))?;
                }
            }
        }
        Ok(())
    }

    fn read_row(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, CheckpointError> {
        let transaction = self.database()?.begin_read().map_err(failed)?;
        let table = match transaction.open_table(TABLE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let key = full_key(space, key);
        let Some(row) = table.get(key.as_slice()).map_err(failed)? else { return Ok(None) };
        Ok(Some(Bytes::copy_from_slice(checked(&key, row.value())?)))
    }

    fn read_rows(&self, space: Space, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        let transaction = self.database()?.begin_read().map_err(failed)?;
        let table = match transaction.open_table(TABLE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let from = full_key(space, prefix);
        let mut total = Total::default();
        for row in table.range(from.as_slice()..).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            let key = key.value();
            if !key.starts_with(&from) {
                break;
            }
            let value = value.value();
            total.add(checksum_of(value));
            visit(key.get(1..).unwrap_or_default(), checked(key, value)?)?;
        }
        if total != self.totals.get(&total_key(&from)).copied().unwrap_or_default() {
            return Err(damaged("rows are missing"));
        }
        Ok(())
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.close();
    }
}

struct Transaction<'t> {
    table: Table<'t, &'static [u8], &'static [u8]>,
    totals: Totals,
}

impl Transaction<'_> {
    /// Updates the totals for a row that was replaced or removed.
    fn count(&mut self, key: &[u8], old: Option<u32>, new: Option<u32>) {
        if key.first() == Some(&(Space::Meta as u8)) {
            return;
        }
        let total = self.totals.entry(total_key(key)).or_default();
        if let Some(old) = old {
            total.remove(old);
        }
        if let Some(new) = new {
            total.add(new);
        }
    }
}

impl Total {
    fn add(&mut self, checksum: u32) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(u64::from(checksum));
    }

    fn remove(&mut self, checksum: u32) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(u64::from(checksum));
    }
}

impl Sink for Transaction<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), CheckpointError> {
        let key = full_key(space, key);
        let mut row = Vec::with_capacity(CHECKSUM_BYTES + value.len());
        let checksum = checksum(&key, value);
        row.extend_from_slice(&checksum.to_le_bytes());
        row.extend_from_slice(value);
        let old = self.table.insert(key.as_slice(), row.as_slice()).map_err(failed)?;
        let old = old.map(|row| checksum_of(row.value()));
        self.count(&key, old, Some(checksum));
        Ok(())
    }

    fn remove(&mut self, space: Space, key: &[u8]) -> Result<(), CheckpointError> {
        let key = full_key(space, key);
        let old = self.table.remove(key.as_slice()).map_err(failed)?.map(|row| checksum_of(row.value()));
        self.count(&key, old, None);
        Ok(())
    }
}

fn full_key(space: Space, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(space as u8);
    full.extend_from_slice(key);
    full
}

thread_local! {
    /// This thread runs redb, whose panics are reported as damage.
    static IS_IN_STORE: Cell<bool> = const { Cell::new(false) };
}

/// Reports a panic in redb, which a damaged file can cause, as damage and without the text of a panic.
fn catch_panic<T>(work: impl FnOnce() -> Result<T, CheckpointError>) -> Result<T, CheckpointError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_IN_STORE.get() {
                print(panic);
            }
        }));
    });
    let was_in_store = IS_IN_STORE.replace(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    IS_IN_STORE.set(was_in_store);
    result.unwrap_or_else(|_| Err(damaged("inconsistent pages")))
}

fn checksum(full_key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(full_key), value)
}

/// The checksum stored in a row.
fn checksum_of(row: &[u8]) -> u32 {
    row.first_chunk().map_or(0, |crc| u32::from_le_bytes(*crc))
}

/// Key of the total that counts a row.
fn total_key(full_key: &[u8]) -> [u8; PREFIX_BYTES] {
    let mut out = [0; PREFIX_BYTES];
    let is_state = full_key.first() == Some(&(Space::State as u8));
    for (to, from) in out.iter_mut().zip(full_key.iter().take(if is_state { PREFIX_BYTES } else { 1 })) {
        *to = *from;
    }
    out
}

fn encode_totals(totals: &Totals) -> Vec<u8> {
    let mut out = Vec::new();
    for (prefix, total) in totals {
        out.extend_from_slice(prefix);
        out.extend_from_slice(&total.rows.to_le_bytes());
        out.extend_from_slice(&total.sum.to_le_bytes());
    }
    out
}

fn decode_totals(bytes: &[u8]) -> Option<Totals> {
    let mut fields = Fields::new(bytes);
    let mut totals = Totals::new();
    while !fields.is_empty() {
        totals.insert(fields.array()?, Total { rows: fields.u64()?, sum: fields.u64()? });
    }
    Some(totals)
}

fn damaged(detail: &'static str) -> CheckpointError {
    CheckpointError::Damaged(detail)
}

/// The value of a row, after its checksum was verified.
fn checked<'a>(full_key: &[u8], row: &'a [u8]) -> Result<&'a [u8], CheckpointError> {
    match row.split_first_chunk::<CHECKSUM_BYTES>() {
        Some((crc, value)) if u32::from_le_bytes(*crc) == checksum(full_key, value) => Ok(value),
        _ => Err(damaged("checksum mismatch in a row")),
    }
}

fn failed(error: impl Into<redb::Error>) -> CheckpointError {
    CheckpointError::Store(Box::new(error.into()))
}

/// The file of redb on the log's medium.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn MediumFile>,
    has_sync_failed: Arc<AtomicBool>,
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        if self.file.read_at(offset, out)? < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if is_seeded(Bug::SkipCheckpointSync) {
            return Ok(());
        }
        self.file.sync().inspect_err(|_| self.has_sync_failed.store(true, Ordering::Relaxed))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file.write_at(offset, &[io::IoSlice::new(data)])
    }
}

#[cfg(test)]
mod tests;
