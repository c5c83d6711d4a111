//! The checkpoint store in a redb file.
//!
//! One table, whose keys begin with their space and whose values begin with a checksum of key and value: redb's own
//! checksums detect torn writes and are not verified by reads. A count and a sum of checksums per space, and per table of
//! state, detect missing rows. redb may panic on a damaged file; such a panic is reported as damage.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, StorageBackend, Table, TableDefinition};

use super::codec::Meta;
use super::store::{CheckpointStore, Fill, Sink, Space, Visit};
use crate::error::{CHECKPOINT_FILE, CheckpointError};
use crate::format::Fields;
use crate::medium::{Medium, MediumFile};
use crate::seeded_bugs::{Bug, is_seeded};

const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("checkpoint");

/// Key in [`Space::Meta`]: the totals of the other spaces.
const TOTALS_KEY: &[u8] = b"totals";
/// A space and, in [`Space::State`], a table.
const PREFIX_BYTES: usize = 3;
const CHECKSUM_BYTES: usize = 4;
const NEW_FILE: &str = "checkpoint.tmp";

/// Checkpoints in a redb file.
#[derive(Debug)]
pub(crate) struct RedbStore {
    /// `None` during the drop.
    database: Option<Database>,
    totals: Totals,
}

/// Rows and the sum of their checksums, by the first bytes of their keys.
type Totals = BTreeMap<[u8; PREFIX_BYTES], Total>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    rows: u64,
    sum: u64,
}

impl RedbStore {
    /// Opens the file, creating it if it does not exist.
    pub(crate) fn open(medium: &dyn Medium, cache_bytes_max: usize) -> Result<Self, CheckpointError> {
        let exists = medium.list()?.iter().any(|name| name == CHECKPOINT_FILE);
        if exists {
            let file = medium.open(CHECKPOINT_FILE)?;
            return Self::on(file, cache_bytes_max);
        }
        // Created under another name: after a crash it is whole or absent.
        let file = medium.create(NEW_FILE)?;
        let store = Self::on(file.clone(), cache_bytes_max)?;
        file.sync()?;
        medium.rename(NEW_FILE, CHECKPOINT_FILE)?;
        medium.sync_folder()?;
        Ok(store)
    }

    fn on(file: Arc<dyn MediumFile>, cache_bytes_max: usize) -> Result<Self, CheckpointError> {
        let mut builder = Database::builder();
        let builder = builder.set_cache_size(cache_bytes_max);
        let database = catch_panic(|| builder.create_with_backend(Backend(file)).map_err(failed))?;
        let mut store = Self { database: Some(database), totals: Totals::new() };
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
}

impl CheckpointStore for RedbStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, CheckpointError> {
        catch_panic(|| self.read_row(space, key))
    }

    fn scan(&self, space: Space, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        catch_panic(|| self.read_rows(space, prefix, visit))
    }

    fn commit(&mut self, fill: &mut Fill<'_>) -> Result<(), CheckpointError> {
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
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // redb writes during its drop; nothing depends on that.
        let database = self.database.take();
        let _ = catch_panic(|| {
            drop(database);
            Ok(())
        });
    }
}

impl RedbStore {
    fn database(&self) -> Result<&Database, CheckpointError> {
        self.database.as_ref().ok_or_else(|| damaged("store is closed"))
    }

    /// Verifies the checksum of every row.
    pub(crate) fn check_rows(&self) -> Result<(), CheckpointError> {
        for prefix in self.totals.keys() {
            for space in [Space::Segments, Space::Streams, Space::Cursors, Space::State] {
                if let [first, table @ ..] = prefix
                    && *first == space as u8
                {
                    let table: &[u8] = if space == Space::State { table } else { &[] };
                    self.scan(space, table, &mut |_, _| Ok(()))?;
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

/// Reports a panic in redb, which a damaged file can cause, as damage.
fn catch_panic<T>(work: impl FnOnce() -> Result<T, CheckpointError>) -> Result<T, CheckpointError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged("inconsistent pages")))
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
struct Backend(Arc<dyn MediumFile>);

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        if self.0.read_at(offset, out)? < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if is_seeded(Bug::SkipCheckpointSync) { Ok(()) } else { self.0.sync() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_at(offset, &[io::IoSlice::new(data)])
    }
}
