//! The response to a share fetch. Records are encoded for it: what a member acquires is rarely a whole stored batch, and what
//! it did not acquire is not its own to see.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use inver_broker::Delivery;
use inver_storage::batch::BatchBuilder;

use super::message::{
    AcquiredRecords, LeaderIdAndEpoch, PartitionData, ShareFetchResponse, ShareFetchableTopicResponse,
};
use super::running::Running;
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::metrics::count_sent;
use crate::node::LEADER_EPOCH;

/// Bytes at the start of a batch that are told with the partition's offset: base offset, length, leader epoch.
const REWRITTEN_BYTES: usize = 16;

type Partitions = BTreeMap<(Uuid, i32), PartitionData>;

/// The response to a fetch, with what it found and acknowledged.
pub(super) fn response(running: &mut Running, node_id: i32, lock_timeout_ms: i32) -> ShareFetchResponse {
    let mut partitions = Partitions::new();
    for (topic, partition, error) in std::mem::take(&mut running.acknowledged) {
        let answer = answer(&mut partitions, (topic, partition), node_id);
        answer.acknowledge_error_code = error;
        answer.acknowledge_error_message = text(error);
    }
    for (topic, partition, error) in std::mem::take(&mut running.failed) {
        let answer = answer(&mut partitions, (topic, partition), node_id);
        answer.error_code = error;
        answer.error_message = text(error);
    }
    let mut found = std::mem::take(&mut running.found);
    found.sort_unstable_by_key(|(topic, delivery)| (*topic, delivery.id));
    for of_partition in found.chunk_by(|(a, x), (b, y)| a == b && x.id.partition == y.id.partition) {
        let Some((topic, first)) = of_partition.first() else { continue };
        let index = i32::try_from(first.id.partition).unwrap_or(i32::MAX);
        let answer = answer(&mut partitions, (*topic, index), node_id);
        answer.records = Some(records(of_partition));
        answer.acquired_records = acquired(of_partition);
    }
    let mut responses: Vec<ShareFetchableTopicResponse> = Vec::new();
    for ((topic_id, _), partition) in partitions {
        match responses.last_mut().filter(|topic| topic.topic_id == topic_id) {
            Some(topic) => topic.partitions.push(partition),
            None => responses.push(ShareFetchableTopicResponse { topic_id, partitions: vec![partition] }),
        }
    }
    ShareFetchResponse {
        acquisition_lock_timeout_ms: lock_timeout_ms,
        responses,
        ..ShareFetchResponse::default()
    }
}

fn answer(partitions: &mut Partitions, key: (Uuid, i32), node_id: i32) -> &mut PartitionData {
    partitions.entry(key).or_insert_with(|| PartitionData {
        partition_index: key.1,
        current_leader: LeaderIdAndEpoch { leader_id: node_id, leader_epoch: LEADER_EPOCH },
        records: Some(Bytes::new()),
        ..PartitionData::default()
    })
}

/// A text for an error, where Kafka's own says more than its name.
pub(crate) fn text(error: ErrorCode) -> Option<Str> {
    match error {
        ErrorCode::NONE => None,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::GROUP_AUTHORIZATION_FAILED => {
            Some(Str::from_static(access::text(error)))
        }
        other => Some(Str::from_static(other.name())),
    }
}

/// Records of a partition as batches, one for each run of offsets.
fn records(found: &[(Uuid, Delivery)]) -> Bytes {
    let bytes: usize = found.iter().map(|(_, of)| super::running::record_bytes(&of.record)).sum();
    let mut out = BytesMut::with_capacity(bytes + 2 * inver_storage::batch::HEADER_BYTES);
    for run in found.chunk_by(|(_, a), (_, b)| a.id.offset + 1 == b.id.offset) {
        let Some((_, first)) = run.first() else { continue };
        let bytes: usize = run.iter().map(|(_, of)| super::running::record_bytes(&of.record)).sum();
        let mut builder = BatchBuilder::new(bytes + inver_storage::batch::HEADER_BYTES);
        for (_, Delivery { record, .. }) in run {
            builder.push_with(
                record.timestamp_ms,
                record.key.as_deref(),
                record.header_count as usize,
                &record.headers,
                record.value.as_deref(),
            );
        }
        let batch = builder.finish();
        count_sent(batch.bytes());
        out.put_i64(i64::try_from(first.id.offset).unwrap_or(i64::MAX));
        out.put_slice(batch.bytes().get(8..12).unwrap_or_default());
        out.put_i32(LEADER_EPOCH);
        out.put_slice(batch.bytes().get(REWRITTEN_BYTES..).unwrap_or_default());
    }
    out.freeze()
}

/// Ranges of records of a partition, each of records that were delivered equally often.
fn acquired(found: &[(Uuid, Delivery)]) -> Vec<AcquiredRecords> {
    let wire = |offset| i64::try_from(offset).unwrap_or(i64::MAX);
    let ranges =
        found.chunk_by(|(_, a), (_, b)| a.id.offset + 1 == b.id.offset && a.redelivered == b.redelivered);
    let range = |of: &[(Uuid, Delivery)]| {
        let ((_, first), (_, last)) = of.first().zip(of.last())?;
        Some(AcquiredRecords {
            first_offset: wire(first.id.offset),
            last_offset: wire(last.id.offset),
            delivery_count: i16::try_from(first.redelivered.saturating_add(1)).unwrap_or(i16::MAX),
        })
    };
    ranges.filter_map(range).collect()
}
