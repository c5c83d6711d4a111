//! Selection of the records that survive a compaction: two passes over a stream's batches in order, without any I/O.
//!
//! The first pass ([`Survivors::note`]) finds the last offset of each key and the outcome of transactions; the second
//! ([`Survivors::keep`]) takes the batches again and returns the surviving part of each. Nothing at or beyond
//! [`Survivors::end`] is changed: the limit of keys was reached there, or a transaction is open. If the limit is reached
//! within transactions, the first pass continues until their outcome is known, so that their noted keys are compacted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use bytes::{Bytes, BytesMut};

use crate::batch::{self, BatchHeader, Compression, HEADER_BYTES, LOG_APPEND_TIME, Record};
use crate::read::StoredBatch;
use crate::seeded_bugs::{Bug, is_seeded};

/// A key, as 128 bits of two keyed hashes.
type KeyHash = (u64, u64);

/// A transaction without a marker so far.
struct OpenTransaction {
    /// Base offset of its first batch.
    first: u64,
    keys: Vec<(KeyHash, u64)>,
}

pub(super) struct Survivors {
    hashers: [RandomState; 2],
    last: HashMap<KeyHash, u64>,
    /// Below this each key already occurs once.
    from: u64,
    /// Limit of keys and transactions together.
    remembered_max: usize,
    open: HashMap<i64, OpenTransaction>,
    /// Number of keys in open transactions.
    in_open: usize,
    /// Aborted transactions: producer and base offset of the first batch → offset of the marker.
    aborted: BTreeMap<(i64, u64), u64>,
    /// Offset from which on nothing is changed.
    end: u64,
    /// The limit of keys was reached.
    is_full: bool,
    /// Tombstones and markers below this offset are dropped.
    expired_to: u64,
    /// The second pass left a tombstone, or a marker that will be dropped.
    has_tombstones: bool,
    /// Second pass: producers with surviving records in their current transaction.
    surviving: HashSet<i64>,
}

impl Survivors {
    /// For a stream in which each key occurs once below `from`.
    pub(super) fn new(from: u64, remembered_max: usize, expired_to: u64) -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            last: HashMap::new(),
            from,
            remembered_max,
            open: HashMap::new(),
            in_open: 0,
            aborted: BTreeMap::new(),
            end: u64::MAX,
            is_full: false,
            expired_to,
            has_tombstones: false,
            surviving: HashSet::new(),
        }
    }

    /// The first pass. Returns false when it is done: the limit was reached, and all transactions begun before have ended.
    pub(super) fn note(&mut self, stored: &StoredBatch) -> bool {
        let Ok(header) = BatchHeader::parse(&stored.bytes) else { return true };
        if header.is_control() {
            if let Some(is_commit) = batch::commits(&stored.bytes) {
                self.note_marker(&header, stored.base_offset.0, is_commit);
            }
        } else if !self.is_full {
            self.note_records(&header, stored);
        }
        !self.is_full || !self.open.is_empty()
    }

    fn note_records(&mut self, header: &BatchHeader, stored: &StoredBatch) {
        let Ok(records) = batch::records(&stored.bytes) else { return };
        let (base, producer) = (stored.base_offset.0, header.producer_id);
        if header.is_transactional() && !self.open.contains_key(&producer) {
            if !self.has_room() {
                return self.fill_up(base);
            }
            self.open.insert(producer, OpenTransaction { first: base, keys: Vec::new() });
        }
        for record in records.flatten() {
            let offset = base + u64::from(record.offset_delta);
            let Some(key) = record.key.as_ref().filter(|_| offset >= self.from) else { continue };
            let (key, has_room) = (self.hash(key), self.has_room());
            if let Some(open) = self.open.get_mut(&producer).filter(|_| header.is_transactional() && has_room)
            {
                open.keys.push((key, offset));
                self.in_open += 1;
            } else if !header.is_transactional() && (has_room || self.last.contains_key(&key)) {
                self.note_key(key, offset);
            } else {
                return self.fill_up(offset);
            }
        }
    }

    fn note_marker(&mut self, header: &BatchHeader, at: u64, is_commit: bool) {
        let Some(transaction) = self.open.remove(&header.producer_id) else { return };
        self.in_open -= transaction.keys.len();
        if is_commit {
            for (key, offset) in transaction.keys {
                self.note_key(key, offset);
            }
        } else {
            self.aborted.insert((header.producer_id, transaction.first), at);
        }
    }

    fn is_aborted(&self, header: &BatchHeader, base: u64) -> bool {
        let producer = header.producer_id;
        let before = self.aborted.range((producer, 0)..=(producer, base)).next_back();
        header.is_transactional() && before.is_some_and(|(_, marker)| base < *marker)
    }

    /// Ends the noting of keys at an offset.
    fn fill_up(&mut self, offset: u64) {
        self.end = offset;
        self.is_full = true;
    }

    fn note_key(&mut self, key: KeyHash, offset: u64) {
        let last = self.last.entry(key).or_insert(offset);
        *last = if is_seeded(Bug::KeepOldest) { offset.min(*last) } else { offset.max(*last) };
    }

    /// One transaction is not counted: with a limit of 1 there would be room for it and for none of its keys.
    fn has_room(&self) -> bool {
        let transactions = self.aborted.len() + self.open.len().saturating_sub(1);
        self.last.len() + self.in_open + transactions < self.remembered_max
    }

    fn hash(&self, key: &[u8]) -> KeyHash {
        let [one, two] = &self.hashers;
        (one.hash_one(key), two.hash_one(key))
    }

    /// Offset below which each key occurs once after both passes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Whether the second pass left tombstones below the end.
    pub(super) fn has_tombstones(&self) -> bool {
        self.has_tombstones
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Call between the passes. Records in or after the start of an open transaction are not changed, because its outcome
    /// is unknown.
    pub(super) fn start_second_pass(&mut self) {
        let firsts = self.open.values().map(|open| open.first);
        self.end = firsts.fold(self.end, u64::min);
        self.open.clear();
    }

    /// The second pass: the surviving part of a batch, `None` if nothing survives.
    pub(super) fn keep(&mut self, stored: &StoredBatch) -> Option<Bytes> {
        let whole = || Some(stored.bytes.clone());
        let Ok(header) = BatchHeader::parse(&stored.bytes) else { return whole() };
        if stored.base_offset.0 >= self.end {
            return whole();
        }
        if header.is_control() {
            // A reader that saw a record of the transaction must see its marker.
            let has_survivors = self.surviving.remove(&header.producer_id);
            if has_survivors || batch::commits(&stored.bytes).is_none() {
                return whole();
            }
            let is_dropped = stored.base_offset.0 < self.expired_to;
            self.has_tombstones |= !is_dropped;
            return if is_dropped { None } else { whole() };
        }
        if self.is_aborted(&header, stored.base_offset.0) {
            return None;
        }
        let (kept, has_tombstones) = self.keep_records(stored, &header);
        self.has_tombstones |= has_tombstones;
        if kept.is_some() && header.is_transactional() {
            self.surviving.insert(header.producer_id);
        }
        kept
    }

    /// The surviving records of a batch, and whether there are tombstones among them.
    fn keep_records(&self, stored: &StoredBatch, header: &BatchHeader) -> (Option<Bytes>, bool) {
        let whole = || Some(stored.bytes.clone());
        let Ok(mut records) = batch::records(&stored.bytes) else { return (whole(), false) };
        let mut kept = BytesMut::new();
        let (mut count, mut max_timestamp, mut has_tombstones) = (0, i64::MIN, false);
        while let Some(record) = records.next() {
            let Ok(record) = record else { return (whole(), false) };
            let offset = stored.base_offset.0 + u64::from(record.offset_delta);
            if self.survives(offset, &record) {
                kept.extend_from_slice(&records.last_encoded());
                count += 1;
                max_timestamp = max_timestamp.max(record.timestamp_ms);
                has_tombstones |= offset < self.end && record.key.is_some() && record.value.is_none();
            }
        }
        let kept = match count {
            // A batch that never had records is kept.
            0 if header.record_count > 0 => None,
            _ if count == header.record_count => whole(),
            _ => {
                let is_append_time = header.attributes & LOG_APPEND_TIME != 0;
                let max_timestamp = if is_append_time { header.max_timestamp } else { max_timestamp };
                rebuild(header, &kept, count, max_timestamp).or_else(whole)
            }
        };
        (kept, has_tombstones)
    }

    fn survives(&self, offset: u64, record: &Record) -> bool {
        let Some(key) = &record.key else { return true };
        if offset >= self.end {
            return true;
        }
        let last = self.last.get(&self.hash(key)).copied().unwrap_or(offset);
        let is_last = last <= offset && !(is_seeded(Bug::KeepOldest) && last < offset);
        let is_old = offset < self.expired_to || is_seeded(Bug::DropTombstones);
        let is_expired = record.value.is_none() && is_old;
        is_last && !is_expired
    }
}

/// A batch with fewer records and the same offsets.
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
