//! WriteTxnMarkers: ends the transactions of producers in partitions, for administrators whose partition hangs (KIP-664).

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use inver_access::Operation;
use inver_broker::{Completion, Partition};
use inver_storage::{Stream, StreamId};

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::transactions::producer;

messages! {
    /// Versions 1-2, flexible 1+.
    pub struct WriteTxnMarkersRequest {
        markers: Vec<WritableTxnMarker> [0..],
    }

    /// The transaction markers to be written.
    pub struct WritableTxnMarker {
        producer_id: i64 [0..],
        producer_epoch: i16 [0..],
        transaction_result: bool [0..],
        topics: Vec<WritableTxnMarkerTopic> [0..],
        coordinator_epoch: i32 [0..],
        transaction_version: i8 [2..],
    }

    /// Each topic that we want to write transaction marker(s) for.
    pub struct WritableTxnMarkerTopic {
        name: Str [0..],
        partition_indexes: Vec<i32> [0..],
    }

    /// Versions 1-2, flexible 1+.
    pub struct WriteTxnMarkersResponse {
        markers: Vec<WritableTxnMarkerResult> [0..],
    }

    /// The results for writing makers.
    pub struct WritableTxnMarkerResult {
        producer_id: i64 [0..],
        topics: Vec<WritableTxnMarkerTopicResult> [0..],
    }

    /// The results by topic.
    pub struct WritableTxnMarkerTopicResult {
        name: Str [0..],
        partitions: Vec<WritableTxnMarkerPartitionResult> [0..],
    }

    /// The results by partition.
    pub struct WritableTxnMarkerPartitionResult {
        partition_index: i32 [0..],
        error_code: ErrorCode [0..],
    }
}

/// The WriteTxnMarkers API.
pub struct WriteTxnMarkers;

impl Handler for WriteTxnMarkers {
    const KEY: i16 = 27;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const FLEXIBLE_FROM: i16 = 1;
    const LENGTH: Length = Length::Long;

    type Request = WriteTxnMarkersRequest;
    type Response = WriteTxnMarkersResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: WriteTxnMarkersRequest,
    ) -> Reply<WriteTxnMarkersResponse> {
        // An administrator's right, or that of brokers among themselves (KIP-1037).
        let allowed = match cx.access.may_cluster(Operation::Alter) {
            true => Ok(()),
            false => cx.access.check_cluster(Operation::ClusterAction),
        };
        let mut completion = Completion::Now;
        let mut markers = Vec::with_capacity(request.markers.len());
        for marker in request.markers {
            let (topics, done) = write(cx, &marker, allowed);
            completion = completion.and(done);
            markers.push(WritableTxnMarkerResult { producer_id: marker.producer_id, topics });
        }
        Reply::Response(WriteTxnMarkersResponse { markers }, completion)
    }
}

/// Writes one marker to the partitions that exist and whose producer has no newer epoch.
fn write(
    cx: &RequestContext<'_>,
    marker: &WritableTxnMarker,
    allowed: Result<(), ErrorCode>,
) -> (Vec<WritableTxnMarkerTopicResult>, Completion) {
    let (mut found, mut named): (Vec<Stream>, HashSet<StreamId>) = Default::default();
    let mut find = |topic: &str, index: i32| {
        let partition: Option<Arc<Partition>> = cx.partition(topic, index);
        let stream = match (allowed, &partition) {
            (Err(code), _) => return code,
            (Ok(()), None) => return ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            (Ok(()), Some(partition)) => partition.stream(),
        };
        if stream.producer_epoch(marker.producer_id).is_some_and(|epoch| epoch > marker.producer_epoch) {
            return ErrorCode::INVALID_PRODUCER_EPOCH;
        }
        // A partition that is named twice gets one.
        if named.insert(stream.id()) {
            found.push(stream.clone());
        }
        ErrorCode::NONE
    };
    let mut topics: Vec<WritableTxnMarkerTopicResult> = Vec::with_capacity(marker.topics.len());
    for topic in &marker.topics {
        let partitions = topic.partition_indexes.iter().map(|index| WritableTxnMarkerPartitionResult {
            partition_index: *index,
            error_code: find(&topic.name, *index),
        });
        let partitions = partitions.collect();
        topics.push(WritableTxnMarkerTopicResult { name: topic.name.clone(), partitions });
    }
    let producer = producer(marker.producer_id, marker.producer_epoch);
    let (is_commit, epoch) = (marker.transaction_result, marker.coordinator_epoch);
    match cx.namespace().write_markers(producer, is_commit, epoch, &found) {
        Ok(completion) => (topics, completion),
        Err(error) => {
            tracing::error!(%error, "failed to write the markers of a transaction");
            let partitions = topics.iter_mut().flat_map(|topic| topic.partitions.iter_mut());
            let known = partitions.filter(|partition| partition.error_code.is_none());
            known.for_each(|partition| partition.error_code = ErrorCode::KAFKA_STORAGE_ERROR);
            (topics, Completion::Now)
        }
    }
}
