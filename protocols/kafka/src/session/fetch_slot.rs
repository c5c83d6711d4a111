//! One partition that a client wants to read, and what the fetch that is under way has found of it.

use std::sync::Arc;

use inver_broker::{Namespace, Partition, TopicId};
use inver_storage::batch::HEADER_BYTES;
use inver_storage::{Listening, Offset, StoredBatch};

use super::fetch_cold::Ahead;
use super::offset;
use crate::codec::api::fetch::FetchPartition;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;

/// How a client names a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TopicKey {
    Name(Str),
    Id(Uuid),
}

impl TopicKey {
    /// By identity from version 13 on.
    pub(super) fn of(version: i16, name: &Str, id: Uuid) -> TopicKey {
        if version >= 13 { TopicKey::Id(id) } else { TopicKey::Name(name.detached()) }
    }

    fn unknown(&self) -> ErrorCode {
        match self {
            TopicKey::Name(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            TopicKey::Id(_) => ErrorCode::UNKNOWN_TOPIC_ID,
        }
    }
}

/// One partition of a plan, and what the fetch that is under way has found of it.
pub(super) struct Slot {
    pub(super) topic: TopicKey,
    pub(super) index: i32,
    pub(super) fetch_offset: i64,
    bytes_max: usize,
    leader_epoch: i32,
    pub(super) partition: Option<Arc<Partition>>,
    unknown: ErrorCode,
    pub(super) listening: Option<Listening>,
    /// High watermark and start as last told to the client.
    pub(super) told: Option<(Offset, Offset)>,
    pub(super) error: ErrorCode,
    pub(super) found: Vec<StoredBatch>,
    pub(super) found_bytes: usize,
    /// Where to read on.
    pub(super) next: Offset,
    /// Bytes that a read from the disk, which is under way, may bring.
    pub(super) granted: Option<usize>,
    /// The disk has no more for this fetch.
    pub(super) dry: bool,
    /// Something of what was found comes from the disk.
    pub(super) cold: bool,
    /// The fetch goes on where the one before it ended.
    pub(super) goes_on: bool,
    pub(super) ahead: Ahead,
}

impl Slot {
    pub(super) fn new(topic: TopicKey, wanted: &FetchPartition) -> Slot {
        let mut slot = Slot {
            topic,
            index: wanted.partition,
            fetch_offset: 0,
            bytes_max: 0,
            leader_epoch: -1,
            partition: None,
            unknown: ErrorCode::NONE,
            listening: None,
            told: None,
            error: ErrorCode::NONE,
            found: Vec::new(),
            found_bytes: 0,
            next: Offset(0),
            granted: None,
            dry: false,
            cold: false,
            goes_on: false,
            ahead: Ahead::Nothing,
        };
        slot.update(wanted);
        slot
    }

    pub(super) fn update(&mut self, wanted: &FetchPartition) {
        self.fetch_offset = wanted.fetch_offset;
        self.bytes_max = usize::try_from(wanted.partition_max_bytes).unwrap_or(0);
        self.leader_epoch = wanted.current_leader_epoch;
    }

    pub(super) fn resolve(&mut self, namespace: &Namespace) {
        let topic = match &self.topic {
            TopicKey::Name(name) => namespace.topic(name),
            TopicKey::Id(id) => namespace.topic_by_id(TopicId(id.0)),
        };
        self.unknown = match &topic {
            None => self.topic.unknown(),
            Some(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        };
        let index = super::partition_index(self.index);
        let partition = topic.zip(index).and_then(|(topic, index)| topic.partition(index));
        let same = match (&partition, &self.partition) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            _ => false,
        };
        if !same {
            self.listening = None;
            self.told = None;
            self.ahead = Ahead::Nothing;
        }
        self.partition = partition;
    }

    /// Begins a fetch: nothing is found yet, but perhaps that nothing can be.
    pub(super) fn begin(&mut self) {
        self.forget_found();
        self.dry = false;
        self.cold = false;
        self.granted = None;
        self.error = self.check();
        let from = Offset(u64::try_from(self.fetch_offset).unwrap_or(0));
        // `next` is where the last fetch ended.
        self.goes_on = self.next == from;
        self.next = from;
        self.ahead.keep_if_from(from);
    }

    pub(super) fn forget_found(&mut self) {
        self.found = Vec::new();
        self.found_bytes = 0;
    }

    fn check(&self) -> ErrorCode {
        let Some(partition) = &self.partition else { return self.unknown };
        if let Err(code) = super::offsets::check_epoch(self.leader_epoch) {
            return code;
        }
        let stream = partition.stream();
        // What is submitted and not committed yet is no error: it will be there soon.
        let kept = offset(stream.start())..=offset(stream.next_offset());
        if kept.contains(&self.fetch_offset) { ErrorCode::NONE } else { ErrorCode::OFFSET_OUT_OF_RANGE }
    }

    pub(super) fn partition(&self) -> Option<&Arc<Partition>> {
        self.partition.as_ref()
    }

    /// Bytes that the client still wants of it.
    pub(super) fn wants(&self) -> usize {
        self.bytes_max.saturating_sub(self.found_bytes)
    }

    /// Bytes that the client wants of it in one fetch.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether it is read from the disk, one fetch after the other, and the next part of it is not there yet.
    pub(super) fn wants_ahead(&self) -> bool {
        self.cold
            && self.goes_on
            && !self.found.is_empty()
            && self.error.is_none()
            && matches!(self.ahead, Ahead::Nothing)
    }

    /// Whether there is something to read now.
    pub(super) fn has_more(&self) -> bool {
        let visible = self.partition.as_ref().map(|partition| partition.stream().high_watermark());
        self.error.is_none()
            && self.granted.is_none()
            && !self.dry
            && visible.is_some_and(|end| end > self.next)
    }

    /// Batches were found, of which at least the first is to be taken, and the others while `room` lasts; what is not
    /// taken stays. The bytes taken.
    pub(super) fn take(
        &mut self,
        batches: &mut Vec<StoredBatch>,
        room: usize,
        first_at_any_size: bool,
    ) -> usize {
        let (mut taken, mut count) = (0, 0);
        for batch in &*batches {
            let bytes = batch.bytes.len();
            let forced = first_at_any_size && taken == 0;
            if bytes < HEADER_BYTES || (!forced && taken + bytes > room) {
                break;
            }
            taken += bytes;
            count += 1;
            self.next = after(batch);
        }
        self.found.extend(batches.drain(..count));
        self.found_bytes += taken;
        taken
    }

    /// Where the partition starts and ends, as it is told to the client.
    pub(super) fn bounds(&self) -> Option<(Offset, Offset)> {
        let stream = self.partition.as_ref()?.stream();
        Some((stream.high_watermark(), stream.start()))
    }

    /// Whether an incremental response has something to say about it.
    pub(super) fn is_news(&self) -> bool {
        !self.error.is_none() || !self.found.is_empty() || self.bounds() != self.told
    }
}

/// The offset after a batch.
fn after(batch: &StoredBatch) -> Offset {
    const LAST_OFFSET_DELTA: std::ops::Range<usize> = 23..27;
    let field = batch.bytes.get(LAST_OFFSET_DELTA).and_then(|field| field.first_chunk());
    let last = field.map_or(0, |field| u32::from_be_bytes(*field));
    batch.base_offset.plus(u64::from(last) + 1)
}
