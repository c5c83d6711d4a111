//! What stays of a stream that is compacted: two passes over its batches in order, without any I/O.
//!
//! The first pass ([`Survivors::note`]) finds where each key is last, and how transactions ended; the second
//! ([`Survivors::keep`]) takes the batches again and gives back what stays of each. Nothing at or beyond
//! [`Survivors::end`] is touched: there was no more room for keys, or a transaction is open there.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use bytes::{Bytes, BytesMut};

use crate::batch::{self, BatchHeader, Compression, HEADER_BYTES, LOG_APPEND_TIME, Record};
use crate::sabotage::{Bug, is_seeded};
use crate::stream::StoredBatch;

/// A key, by 128 bits of two keyed hashes.
type KeyHash = (u64, u64);

/// A transaction whose marker was not seen yet.
#[derive(Default)]
struct OpenTransaction {
    batches: Vec<u64>,
    keys: Vec<(KeyHash, u64)>,
}

pub(super) struct Survivors {
    hashers: [RandomState; 2],
    last: HashMap<KeyHash, u64>,
    /// Keys, and what is remembered of transactions.
    remembered_max: usize,
    open: HashMap<i64, OpenTransaction>,
    in_open: usize,
    /// Base offsets of batches of transactions that were aborted.
    aborted: HashSet<u64>,
    /// Nothing from here on is touched.
    end: u64,
    /// There was no more room for keys.
    is_full: bool,
    /// Tombstones and markers older than this go.
    expired_to_ms: i64,
    /// Second pass: producers of whose transaction something stayed.
    staying: HashSet<i64>,
}

impl Survivors {
    pub(super) fn new(remembered_max: usize, expired_to_ms: i64) -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            last: HashMap::new(),
            remembered_max,
            open: HashMap::new(),
            in_open: 0,
            aborted: HashSet::new(),
            end: u64::MAX,
            is_full: false,
            expired_to_ms,
            staying: HashSet::new(),
        }
    }

    /// The first pass. False when there is no more room: it is over then.
    pub(super) fn note(&mut self, stored: &StoredBatch) -> bool {
        let (Ok(header), Ok(records)) = (BatchHeader::parse(&stored.bytes), batch::records(&stored.bytes))
        else {
            return true;
        };
        let base = stored.base_offset.0;
        if header.is_control() {
            return match is_commit(&stored.bytes) {
                Some(is_commit) => self.note_marker(&header, is_commit),
                None => true,
            };
        }
        if header.is_transactional() {
            self.open.entry(header.producer_id).or_default().batches.push(base);
            self.in_open += 1;
        }
        for record in records.flatten() {
            let Some(key) = &record.key else { continue };
            let (key, offset) = (self.hash(key), base + u64::from(record.offset_delta));
            let has_room = self.remembered() < self.remembered_max;
            if header.is_transactional() {
                self.open.entry(header.producer_id).or_default().keys.push((key, offset));
                self.in_open += 1;
            } else if has_room || self.last.contains_key(&key) {
                self.note_key(key, offset);
                continue;
            }
            if !has_room {
                self.end = offset;
                self.is_full = true;
                return false;
            }
        }
        true
    }

    fn note_marker(&mut self, header: &BatchHeader, is_commit: bool) -> bool {
        let Some(transaction) = self.open.remove(&header.producer_id) else { return true };
        self.in_open -= transaction.batches.len() + transaction.keys.len();
        if is_commit {
            for (key, offset) in transaction.keys {
                self.note_key(key, offset);
            }
        } else {
            self.aborted.extend(transaction.batches);
        }
        true
    }

    fn note_key(&mut self, key: KeyHash, offset: u64) {
        let last = self.last.entry(key).or_insert(offset);
        *last = if is_seeded(Bug::KeepOldest) { offset.min(*last) } else { offset.max(*last) };
    }

    fn remembered(&self) -> usize {
        self.last.len() + self.in_open + self.aborted.len()
    }

    fn hash(&self, key: &[u8]) -> KeyHash {
        let [one, two] = &self.hashers;
        (one.hash_one(key), two.hash_one(key))
    }

    /// Below this each key is there once, after both passes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Between the passes. What is in a transaction that did not end, or comes after its start, is left alone: whether it
    /// counts is not known yet.
    pub(super) fn turn(&mut self) {
        let firsts = self.open.values().filter_map(|open| open.batches.first().copied());
        self.end = firsts.fold(self.end, u64::min);
        self.open.clear();
    }

    /// The second pass: what stays of a batch, `None` when nothing does.
    pub(super) fn keep(&mut self, stored: &StoredBatch) -> Option<Bytes> {
        let whole = || Some(stored.bytes.clone());
        let Ok(header) = BatchHeader::parse(&stored.bytes) else { return whole() };
        if stored.base_offset.0 >= self.end {
            return whole();
        }
        if header.is_control() {
            // A reader that saw the transaction's beginning must see its end.
            let had_anything = self.staying.remove(&header.producer_id);
            let goes = !had_anything
                && header.max_timestamp < self.expired_to_ms
                && is_commit(&stored.bytes).is_some();
            return if goes { None } else { whole() };
        }
        if self.aborted.contains(&stored.base_offset.0) {
            return None;
        }
        let kept = self.keep_records(stored, &header);
        if kept.is_some() && header.is_transactional() {
            self.staying.insert(header.producer_id);
        }
        kept
    }

    fn keep_records(&self, stored: &StoredBatch, header: &BatchHeader) -> Option<Bytes> {
        let whole = || Some(stored.bytes.clone());
        let Ok(mut records) = batch::records(&stored.bytes) else { return whole() };
        let mut kept = BytesMut::new();
        let (mut count, mut max_timestamp) = (0, i64::MIN);
        while let Some(record) = records.next() {
            let Ok(record) = record else { return whole() };
            if self.stays(stored.base_offset.0 + u64::from(record.offset_delta), &record) {
                kept.extend_from_slice(&records.last_encoded());
                count += 1;
                max_timestamp = max_timestamp.max(record.timestamp_ms);
            }
        }
        match count {
            // One that never had any is not ours to judge.
            0 if header.record_count > 0 => None,
            _ if count == header.record_count => whole(),
            _ => {
                let is_append_time = header.attributes & LOG_APPEND_TIME != 0;
                let max_timestamp = if is_append_time { header.max_timestamp } else { max_timestamp };
                rebuild(header, &kept, count, max_timestamp).or_else(whole)
            }
        }
    }

    fn stays(&self, offset: u64, record: &Record) -> bool {
        let Some(key) = &record.key else { return true };
        if offset >= self.end {
            return true;
        }
        let last = self.last.get(&self.hash(key)).copied().unwrap_or(offset);
        let is_last = last <= offset && !(is_seeded(Bug::KeepOldest) && last < offset);
        let is_old = record.timestamp_ms < self.expired_to_ms || is_seeded(Bug::DropTombstones);
        let is_expired = record.value.is_none() && is_old;
        is_last && !is_expired
    }
}

/// Whether a control batch commits a transaction or aborts it; `None` when it does neither.
fn is_commit(bytes: &Bytes) -> Option<bool> {
    let marker = batch::records(bytes).ok()?.next()?.ok()?;
    // The key: version and type, i16 each.
    match marker.key?.get(2..4)? {
        [0, 0] => Some(false),
        [0, 1] => Some(true),
        _ => None,
    }
}

/// A batch with fewer records, in the place of the old one.
fn rebuild(header: &BatchHeader, records: &[u8], count: u32, max_timestamp: i64) -> Option<Bytes> {
    let mut header = *header;
    let codec = Compression::from_attributes(header.attributes).ok()?;
    let compressed = batch::compress(codec, records);
    if compressed.is_none() {
        header.attributes &= !batch::COMPRESSION_MASK;
    }
    let records = compressed.as_deref().unwrap_or(records);
    header.batch_length = u32::try_from(HEADER_BYTES + records.len()).ok()?.checked_sub(12)?;
    header.record_count = count;
    header.max_timestamp = max_timestamp;
    let mut out = BytesMut::with_capacity(HEADER_BYTES + records.len());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(records);
    Some(batch::seal(out, &mut header))
}
