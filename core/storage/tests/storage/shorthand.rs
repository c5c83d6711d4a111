//! Helper functions that append and read.

use std::path::Path;

use inver_storage::{
    Batch, BatchBuilder, CursorId, Entry, Log, LogOptions, Offset, Read, ReadError, StoredBatch, Stream,
    StreamId, records,
};

/// Options with small segments, so that a test creates many.
pub(crate) fn small() -> LogOptions {
    LogOptions { segment_bytes_max: 16 << 10, ..LogOptions::default() }
}

pub(crate) fn open(dir: &Path, options: &LogOptions) -> Log {
    Log::open(dir, options.clone()).unwrap()
}

pub(crate) fn batch(values: &[&[u8]]) -> Batch {
    let mut builder = BatchBuilder::new(256);
    for (at, value) in values.iter().enumerate() {
        builder.push(1000 + at as i64, None, &[], Some(value));
    }
    builder.finish()
}

pub(crate) fn create_stream(log: &Log) -> Stream {
    let id = log.allocate_stream();
    let mut entry = Entry::new();
    entry.create_stream(id);
    commit(log, entry);
    log.stream(id).unwrap()
}

pub(crate) fn create_cursor(log: &Log, stream: StreamId) -> CursorId {
    let id = log.allocate_cursor();
    let mut entry = Entry::new();
    entry.create_cursor(id, stream, Offset(0));
    commit(log, entry);
    id
}

pub(crate) fn commit(log: &Log, entry: Entry) -> Vec<u64> {
    let submitted = log.submit(entry).unwrap();
    log.wait_committed_blocking(submitted.lsn).unwrap();
    submitted.bases.iter().map(|base| base.0).collect()
}

pub(crate) fn append(log: &Log, destinations: &[Stream], values: &[&[u8]]) -> Vec<u64> {
    let mut entry = Entry::new();
    entry.batch(destinations, batch(values));
    commit(log, entry)
}

pub(crate) fn read_once(stream: &Stream, from: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
    match stream.read(Offset(from), bytes_max)? {
        Read::Ready(batches) => Ok(batches),
        Read::Empty => Ok(Vec::new()),
        Read::Cold(cold) => cold.run(),
    }
}

/// Offset and value of all records from an offset on.
pub(crate) fn read_all(stream: &Stream, from: u64) -> Vec<(u64, Vec<u8>)> {
    try_read_all(stream, from).unwrap()
}

pub(crate) fn try_read_all(stream: &Stream, from: u64) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
    let rows = try_rows(stream, from)?;
    Ok(rows.into_iter().map(|row| (row.offset, row.value.unwrap())).collect())
}

/// A record with its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) offset: u64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

/// All records from an offset on, without control batches.
pub(crate) fn try_rows(stream: &Stream, from: u64) -> Result<Vec<Row>, ReadError> {
    let mut found = Vec::new();
    let mut next = from;
    loop {
        let batches = read_once(stream, next, 4096)?;
        if batches.is_empty() {
            return Ok(found);
        }
        for stored in &batches {
            next = take_rows(stored, from, &mut found);
        }
    }
}

/// Adds the records of a batch at and above an offset. Returns the end of the batch.
pub(crate) fn take_rows(stored: &StoredBatch, from: u64, found: &mut Vec<Row>) -> u64 {
    let header = inver_storage::BatchHeader::parse(&stored.bytes).unwrap();
    if !header.is_control() {
        for record in records(&stored.bytes).unwrap() {
            let record = record.unwrap();
            let offset = stored.base_offset.0 + u64::from(record.offset_delta);
            if offset >= from {
                let (key, value) =
                    (record.key.map(|key| key.to_vec()), record.value.map(|value| value.to_vec()));
                found.push(Row { offset, key, value });
            }
        }
    }
    stored.base_offset.0 + header.offset_span()
}

pub(crate) fn values(stream: &Stream) -> Vec<Vec<u8>> {
    read_all(stream, stream.start().0).into_iter().map(|(_, value)| value).collect()
}
