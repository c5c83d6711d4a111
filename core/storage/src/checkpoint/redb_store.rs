//! Checkpoints in a redb file, one table whose keys start with their space, and whose values with a checksum of key and
//! value: redb's own checksums are for torn writes and are not looked at while reading. Damage may lead redb astray
//! before a value is reached; where it panics then, that is damage as well.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, StorageBackend, Table, TableDefinition};

use super::{CheckpointError, CheckpointStore, Fill, Sink, Space, Visit};
use crate::medium::{Medium, MediumFile};
use crate::sabotage::{Bug, is_seeded};

const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("checkpoint");

/// The checkpoint's file.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint.redb";
const CHECKSUM_BYTES: usize = 4;
const NEW_FILE: &str = "checkpoint.tmp";

/// Checkpoints in a redb file.
#[derive(Debug)]
pub(crate) struct RedbStore {
    /// Gone while it is dropped.
    database: Option<Database>,
}

impl RedbStore {
    /// Opens the file, making it if it is not there.
    pub(crate) fn open(medium: &dyn Medium, cache_bytes_max: usize) -> Result<Self, CheckpointError> {
        let exists = medium.list().map_err(failed)?.iter().any(|name| name == CHECKPOINT_FILE);
        if exists {
            let file = medium.open(CHECKPOINT_FILE).map_err(failed)?;
            return Self::on(file, cache_bytes_max);
        }
        // Made under another name: after a crash it is whole or absent.
        let file = medium.create(NEW_FILE).map_err(failed)?;
        let store = Self::on(file.clone(), cache_bytes_max)?;
        file.sync().map_err(failed)?;
        medium.rename(NEW_FILE, CHECKPOINT_FILE).map_err(failed)?;
        medium.sync_folder().map_err(failed)?;
        Ok(store)
    }

    fn on(file: Arc<dyn MediumFile>, cache_bytes_max: usize) -> Result<Self, CheckpointError> {
        let mut builder = Database::builder();
        let builder = builder.set_cache_size(cache_bytes_max);
        let database = unpanicked(|| builder.create_with_backend(Backend(file)).map_err(failed))?;
        Ok(Self { database: Some(database) })
    }
}

impl CheckpointStore for RedbStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, CheckpointError> {
        unpanicked(|| self.read_row(space, key))
    }

    fn scan(&self, space: Space, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        unpanicked(|| self.read_rows(space, prefix, visit))
    }

    fn commit(&mut self, fill: &mut Fill<'_>) -> Result<(), CheckpointError> {
        unpanicked(|| {
            let mut transaction = self.database()?.begin_write().map_err(failed)?;
            // Opening after a crash then reads the allocator's state instead of walking everything.
            transaction.set_quick_repair(true);
            {
                let table = transaction.open_table(TABLE).map_err(failed)?;
                fill(&mut Transaction { table })?;
            }
            transaction.commit().map_err(failed)
        })
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // It writes while it is dropped, which is no promise of ours.
        let database = self.database.take();
        let _ = unpanicked(|| {
            drop(database);
            Ok(())
        });
    }
}

impl RedbStore {
    fn database(&self) -> Result<&Database, CheckpointError> {
        self.database.as_ref().ok_or_else(|| CheckpointError("it is closed".to_owned()))
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
        for row in table.range(from.as_slice()..).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            let key = key.value();
            if !key.starts_with(&from) {
                break;
            }
            visit(key.get(1..).unwrap_or_default(), checked(key, value.value())?)?;
        }
        Ok(())
    }
}

struct Transaction<'t> {
    table: Table<'t, &'static [u8], &'static [u8]>,
}

impl Sink for Transaction<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), CheckpointError> {
        let key = full_key(space, key);
        let mut row = Vec::with_capacity(CHECKSUM_BYTES + value.len());
        row.extend_from_slice(&checksum(&key, value).to_le_bytes());
        row.extend_from_slice(value);
        self.table.insert(key.as_slice(), row.as_slice()).map(drop).map_err(failed)
    }

    fn remove(&mut self, space: Space, key: &[u8]) -> Result<(), CheckpointError> {
        self.table.remove(full_key(space, key).as_slice()).map(drop).map_err(failed)
    }
}

fn full_key(space: Space, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(space as u8);
    full.extend_from_slice(key);
    full
}

/// What a panic in redb says about a damaged file.
fn unpanicked<T>(work: impl FnOnce() -> Result<T, CheckpointError>) -> Result<T, CheckpointError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(CheckpointError("its pages do not hold together".to_owned())))
}

fn checksum(full_key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(full_key), value)
}

/// The value of a row whose checksum holds.
fn checked<'a>(full_key: &[u8], row: &'a [u8]) -> Result<&'a [u8], CheckpointError> {
    match row.split_first_chunk::<CHECKSUM_BYTES>() {
        Some((crc, value)) if u32::from_le_bytes(*crc) == checksum(full_key, value) => Ok(value),
        _ => Err(CheckpointError("a row's checksum does not hold".to_owned())),
    }
}

fn failed(error: impl Display) -> CheckpointError {
    CheckpointError(error.to_string())
}

/// redb's file on the log's medium.
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
