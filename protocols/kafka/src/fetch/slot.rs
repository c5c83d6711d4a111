//! One partition of a plan, and the batches that the fetch under way has found in it.

use std::sync::Arc;

use inver_access::{Operation, ResourceKind};
use inver_broker::{Partition, Topic, TopicId};
use inver_storage::batch::HEADER_BYTES;
use inver_storage::{AbortedTransaction, Listening, Offset, StoredBatch};

use super::ahead::Ahead;
use super::message::FetchPartition;
use crate::access::Access;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::map::partition::{check_leader_epoch, partition_index, visible_end, wire_offset};
use crate::node::LEADER_EPOCH;

/// A topic as the client names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TopicKey {
    Name(Str),
    Id(Uuid),
}

impl TopicKey {
    /// By id from version 13 on, by name before.
    pub(super) fn of(version: i16, name: &Str, id: Uuid) -> TopicKey {
        if version >= 13 { TopicKey::Id(id) } else { TopicKey::Name(name.detached()) }
    }

    pub(super) fn find(&self, access: &Access) -> Option<Arc<Topic>> {
        match self {
            TopicKey::Name(name) => access.node.namespace.topic(name),
            TopicKey::Id(id) => access.node.namespace.topic_by_id(TopicId(id.0)),
        }
    }

    /// Whether the client may read the topic, which may not exist.
    fn may_read(&self, topic: Option<&Topic>, access: &Access) -> bool {
        self.name(topic).is_none_or(|name| access.may_topic(name, Operation::Read))
    }

    fn name<'a>(&'a self, topic: Option<&'a Topic>) -> Option<&'a str> {
        match self {
            TopicKey::Name(name) => Some(name.as_str()),
            TopicKey::Id(_) => topic.map(Topic::name),
        }
    }

    fn unknown_error(&self) -> ErrorCode {
        match self {
            TopicKey::Name(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            TopicKey::Id(_) => ErrorCode::UNKNOWN_TOPIC_ID,
        }
    }
}

/// One partition of a plan.
pub(super) struct Slot {
    pub(super) topic: TopicKey,
    pub(super) index: i32,
    pub(super) fetch_offset: i64,
    bytes_max: usize,
    leader_epoch: i32,
    last_fetched_epoch: i32,
    pub(super) partition: Option<Arc<Partition>>,
    /// Error of a partition that does not exist.
    unknown: ErrorCode,
    pub(super) listening: Option<Listening>,
    /// High watermark and start offset in the last response.
    pub(super) reported: Option<(Offset, Offset)>,
    pub(super) error: ErrorCode,
    pub(super) found: Vec<StoredBatch>,
    pub(super) found_bytes: usize,
    /// Offset of the next read.
    pub(super) next: Offset,
    /// Bytes that the read in progress may return.
    pub(super) granted: Option<usize>,
    /// Whether the disk has no more for this fetch.
    pub(super) exhausted: bool,
    /// Whether some of the batches found come from disk.
    pub(super) cold: bool,
    /// Whether the fetch starts where the last one ended.
    sequential: bool,
    /// Whether the client reads only what is committed.
    committed: bool,
    pub(super) ahead: Ahead,
    /// Whether the request that replaces the plan names it.
    pub(super) named: bool,
    /// Whether the last response had records of it.
    pub(super) had_records: bool,
}

impl Slot {
    pub(super) fn new(topic: TopicKey, wanted: &FetchPartition) -> Slot {
        let mut slot = Slot {
            topic,
            index: wanted.partition,
            fetch_offset: 0,
            bytes_max: 0,
            leader_epoch: -1,
            last_fetched_epoch: -1,
            partition: None,
            unknown: ErrorCode::NONE,
            listening: None,
            reported: None,
            error: ErrorCode::NONE,
            found: Vec::new(),
            found_bytes: 0,
            next: Offset(0),
            granted: None,
            exhausted: false,
            cold: false,
            sequential: false,
            committed: false,
            ahead: Ahead::Nothing,
            named: false,
            had_records: false,
        };
        slot.update(wanted);
        slot
    }

    /// Takes offset and limits from a request.
    pub(super) fn update(&mut self, wanted: &FetchPartition) {
        self.fetch_offset = wanted.fetch_offset;
        self.bytes_max = usize::try_from(wanted.partition_max_bytes).unwrap_or(0);
        self.leader_epoch = wanted.current_leader_epoch;
        self.last_fetched_epoch = wanted.last_fetched_epoch;
    }

    /// Looks up the partition. One that the client may not read is not found.
    pub(super) fn resolve(&mut self, access: &Access) {
        let topic = self.topic.find(access);
        let allowed = self.topic.may_read(topic.as_deref(), access);
        self.unknown = match &topic {
            _ if !allowed => ErrorCode::TOPIC_AUTHORIZATION_FAILED,
            None => self.topic.unknown_error(),
            Some(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        };
        if !allowed && let Some(name) = self.topic.name(topic.as_deref()) {
            access.permissions.denied(ResourceKind::Topic, name, Operation::Read);
        }
        let topic = topic.filter(|_| allowed);
        let index = partition_index(self.index);
        let partition = topic.zip(index).and_then(|(topic, index)| topic.partition(index));
        let same = match (&partition, &self.partition) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            _ => false,
        };
        if !same {
            self.listening = None;
            self.reported = None;
            self.ahead = Ahead::Nothing;
        }
        self.partition = partition;
    }

    /// Whether the client may not read it any more; what was found in it is dropped then.
    pub(super) fn recheck(&mut self, access: &Access) -> bool {
        let revoked = !self.topic.may_read(self.topic.find(access).as_deref(), access);
        if revoked {
            self.clear_found();
            self.unknown = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
            self.error = self.unknown;
            self.partition = None;
            self.listening = None;
            self.ahead = Ahead::Nothing;
        }
        revoked
    }

    /// Sets whether the client reads only what is committed.
    pub(super) fn isolate(&mut self, committed: bool) {
        self.committed = committed;
    }

    /// Begins a fetch.
    pub(super) fn begin(&mut self) {
        self.clear_found();
        self.exhausted = false;
        self.cold = false;
        self.granted = None;
        self.error = self.check();
        let from = Offset(u64::try_from(self.fetch_offset).unwrap_or(0));
        // The last fetch ended at `next`.
        self.sequential = self.next == from;
        self.next = from;
        self.ahead.keep_if_from(from);
    }

    pub(super) fn clear_found(&mut self) {
        self.found = Vec::new();
        self.found_bytes = 0;
    }

    fn check(&self) -> ErrorCode {
        let Some(partition) = &self.partition else { return self.unknown };
        if let Err(code) = check_leader_epoch(self.leader_epoch) {
            return code;
        }
        if self.last_fetched_epoch > LEADER_EPOCH {
            // There was no such epoch here.
            return ErrorCode::OFFSET_OUT_OF_RANGE;
        }
        let stream = partition.stream();
        // Records submitted but not committed are in range: a fetch of them waits.
        let kept = wire_offset(stream.start())..=wire_offset(stream.next_offset());
        if kept.contains(&self.fetch_offset) { ErrorCode::NONE } else { ErrorCode::OFFSET_OUT_OF_RANGE }
    }

    pub(super) fn partition(&self) -> Option<&Arc<Partition>> {
        self.partition.as_ref()
    }

    /// Bytes that this fetch may still take of it.
    pub(super) fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.found_bytes)
    }

    /// Bytes of it in one fetch at most.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether the read-ahead with this number is in progress.
    pub(super) fn is_reading_ahead(&self, wanted: u64) -> bool {
        matches!(self.ahead, Ahead::Reading { number, .. } if number == wanted)
    }

    /// Whether to read ahead: the client reads it sequentially from disk, and nothing was read ahead yet.
    pub(super) fn wants_ahead(&self) -> bool {
        self.cold
            && self.sequential
            && !self.found.is_empty()
            && self.error.is_none()
            && matches!(self.ahead, Ahead::Nothing)
    }

    /// Whether there are committed records to read now.
    pub(super) fn has_more(&self) -> bool {
        let visible = self.visible_end();
        self.error.is_none()
            && self.granted.is_none()
            && !self.exhausted
            && visible.is_some_and(|end| end > self.next)
    }

    /// The end of what the client may see.
    fn visible_end(&self) -> Option<Offset> {
        let stream = self.partition.as_ref()?.stream();
        Some(visible_end(stream, self.committed))
    }

    /// Takes batches from the front while they fit into `room`, and a first one of any size if allowed. Returns the
    /// bytes taken.
    pub(super) fn take(
        &mut self,
        batches: &mut Vec<StoredBatch>,
        room: usize,
        first_at_any_size: bool,
    ) -> usize {
        let (mut taken, mut count) = (0, 0);
        let end = self.visible_end().zip(self.bounds()).map(|(end, (_, start))| (end, start));
        let end = end.filter(|_| self.committed);
        for batch in &*batches {
            let bytes = batch.bytes.len();
            let forced = first_at_any_size && taken == 0;
            // A trim makes the start stable, in whatever batch it is.
            let is_open = end.is_some_and(|(end, start)| batch.base_offset.max(start) >= end);
            if bytes < HEADER_BYTES || is_open || (!forced && taken + bytes > room) {
                break;
            }
            taken += bytes;
            count += 1;
            self.next = end_of(batch);
        }
        self.found.extend(batches.drain(..count));
        self.found_bytes += taken;
        taken
    }

    /// High watermark and start offset.
    pub(super) fn bounds(&self) -> Option<(Offset, Offset)> {
        let stream = self.partition.as_ref()?.stream();
        Some((stream.high_watermark(), stream.start()))
    }

    /// The last stable offset.
    pub(super) fn stable_offset(&self) -> Option<Offset> {
        Some(self.partition.as_ref()?.stream().stable_offset())
    }

    /// What was found, with the aborted transactions that the client has to leave out of it. Nothing if some of it was
    /// trimmed meanwhile: which transactions were aborted there is not known any more.
    pub(super) fn readable(&self) -> (&[StoredBatch], Vec<AbortedTransaction>) {
        let (Some(partition), Some(first), true) = (&self.partition, self.found.first(), self.committed)
        else {
            return (&self.found, Vec::new());
        };
        let aborted = partition.stream().aborted_transactions(first.base_offset..self.next);
        // In this order: the start moves before transactions are forgotten.
        match end_of(first) <= partition.stream().start() {
            true => (&[], Vec::new()),
            false => (&self.found, aborted),
        }
    }

    /// Whether an incremental response includes it.
    pub(super) fn has_changed(&self) -> bool {
        !self.error.is_none() || !self.found.is_empty() || self.bounds() != self.reported
    }
}

/// The offset after a batch.
fn end_of(batch: &StoredBatch) -> Offset {
    const LAST_OFFSET_DELTA: std::ops::Range<usize> = 23..27;
    let field = batch.bytes.get(LAST_OFFSET_DELTA).and_then(|field| field.first_chunk());
    let last = field.map_or(0, |field| u32::from_be_bytes(*field));
    batch.base_offset.plus(u64::from(last) + 1)
}
