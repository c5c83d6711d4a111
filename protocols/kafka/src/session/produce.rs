//! Produce: record batches in, kept as they came.
//!
//! A partition's records must be one batch of format 2 whose checksum holds. It is appended verbatim; only where the
//! topic's settings ask for it (timestamps by the broker), or where the producer left out its greatest timestamp, is
//! the header written anew. Acknowledged (`acks` 1 and −1 alike: there is one node) when the log has committed it.

use std::sync::Arc;

use bytes::Bytes;
use inver_broker::{Partition, Topic, now_ms};
use inver_storage::batch::{Batch, BatchError, Compression};
use inver_storage::{Lsn, SubmitError};

use super::settings::TopicSettings;
use super::{Call, Session, offset, partition_index};
use crate::codec::api::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceResponse,
};
use crate::codec::error_code::ErrorCode;
use crate::codec::text::Str;
use crate::error::ConnectionError;
use crate::map::batch::{self, BatchRefusal, Checked};

/// Version from which zstd is allowed (KIP-110).
const ZSTD_SINCE: i16 = 7;

/// Version from which topics are named by identity.
const BY_ID_SINCE: i16 = 13;

/// Batches up to this many bytes are copied out of the buffer that they arrived in: it is shared with other requests,
/// and a small batch must not keep all of it alive.
const COPIED_BYTES_MAX: usize = 4096;

/// Where a batch says its format.
const MAGIC_AT: usize = 16;

/// Why a partition's records were not taken.
struct Refusal {
    code: ErrorCode,
    message: String,
    /// The records that are at fault (KIP-467), if not all are.
    records: Vec<(i32, &'static str)>,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), records: Vec::new() }
    }
}

impl From<BatchRefusal> for Refusal {
    fn from(refusal: BatchRefusal) -> Refusal {
        Refusal { code: refusal.code, message: refusal.message, records: refusal.records }
    }
}

/// What became of a partition's records.
struct Appended {
    base_offset: i64,
    append_time_ms: i64,
    log_start_offset: i64,
}

impl Session {
    pub(super) fn produce(&mut self, mut call: Call) -> Result<(), ConnectionError> {
        let request: ProduceRequest = call.read()?;
        let refuse_all = if !matches!(request.acks, -1..=1) {
            Some((ErrorCode::INVALID_REQUIRED_ACKS, "acks must be 0, 1 or -1"))
        } else if request.transactional_id.is_some() {
            Some((ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "transactions are not supported"))
        } else {
            None
        };
        let mut last = None;
        let mut failure = None;
        let mut responses = Vec::with_capacity(request.topic_data.len());
        for data in request.topic_data {
            let topic = self.topic(call.version(), BY_ID_SINCE, &data.name, data.topic_id);
            let settings = topic.as_ref().map(|topic| TopicSettings::of(topic, &self.node.config));
            let mut partition_responses = Vec::with_capacity(data.partition_data.len());
            for partition in data.partition_data {
                let index = partition.index;
                let outcome = match (&refuse_all, &topic, &settings) {
                    (Some((code, message)), ..) => Err(Refusal::new(*code, *message)),
                    (None, Some(topic), Some(settings)) => {
                        self.append(call.version(), topic, settings, partition, &mut last)
                    }
                    _ if call.version() >= BY_ID_SINCE => {
                        Err(Refusal::new(ErrorCode::UNKNOWN_TOPIC_ID, "there is no topic of this id"))
                    }
                    _ => Err(Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "there is no such topic")),
                };
                if let Err(refusal) = &outcome {
                    tracing::debug!(topic = %data.name, index, code = %refusal.code, refusal.message, "not appended");
                    failure.get_or_insert_with(|| refusal.message.clone());
                }
                partition_responses.push(response(index, outcome));
            }
            responses.push(TopicProduceResponse {
                name: data.name,
                topic_id: data.topic_id,
                partition_responses,
            });
        }
        if request.acks == 0 {
            return match failure {
                Some(message) => Err(ConnectionError::Unanswerable(message)),
                None => Ok(()),
            };
        }
        self.answer_after(&call, &ProduceResponse { responses, throttle_time_ms: 0 }, last);
        Ok(())
    }

    fn append(
        &self,
        version: i16,
        topic: &Arc<Topic>,
        settings: &TopicSettings,
        data: PartitionProduceData,
        last: &mut Option<Lsn>,
    ) -> Result<Appended, Refusal> {
        let partition =
            partition_index(data.index).and_then(|index| topic.partition(index)).ok_or_else(|| {
                Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "the topic has no such partition")
            })?;
        let (batch, checked) = check(version, settings, data.records)?;
        let (batch, append_time_ms) = batch::stamped(batch, &checked, settings.append_time)?;
        let (bytes, records) = (batch.bytes().len(), batch.record_count());
        let base_offset = self.submit(topic, &partition, batch, last)?;
        self.node.metrics.produced_bytes.increment(bytes as u64);
        self.node.metrics.produced_records.increment(u64::from(records));
        Ok(Appended { base_offset, append_time_ms, log_start_offset: offset(partition.stream().start()) })
    }

    fn submit(
        &self,
        topic: &Topic,
        partition: &Partition,
        batch: Batch,
        last: &mut Option<Lsn>,
    ) -> Result<i64, Refusal> {
        let (base, lsn) = match partition.produce(&self.node.namespace, topic, batch) {
            Ok(submitted) => (submitted.bases.first().copied().unwrap_or_default(), submitted.lsn),
            // The producer did not hear the first answer: it gets the same one again, once it is true.
            Err(SubmitError::DuplicateSequence { base_offset, lsn }) => (base_offset, lsn),
            Err(error) => return Err(refused(&error)),
        };
        *last = Some(last.map_or(lsn, |earlier| earlier.max(lsn)));
        Ok(offset(base))
    }
}

fn refused(error: &SubmitError) -> Refusal {
    let code = match error {
        SubmitError::OutOfOrderSequence => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        SubmitError::InvalidProducerEpoch => ErrorCode::INVALID_PRODUCER_EPOCH,
        SubmitError::TooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
        SubmitError::DuplicateSequence { .. } => ErrorCode::DUPLICATE_SEQUENCE_NUMBER,
        _ => ErrorCode::KAFKA_STORAGE_ERROR,
    };
    Refusal::new(code, error.to_string())
}

/// The one batch that a partition's records must be.
fn check(
    version: i16,
    settings: &TopicSettings,
    records: Option<Bytes>,
) -> Result<(Batch, Checked), Refusal> {
    let invalid = |message: &str| Refusal::new(ErrorCode::INVALID_RECORD, message);
    let mut records =
        records.filter(|records| !records.is_empty()).ok_or_else(|| invalid("there are no records"))?;
    if records.len() <= COPIED_BYTES_MAX {
        records = Bytes::copy_from_slice(&records);
    }
    // The place of the format's number is the same in all formats, but what is before it is not.
    if records.get(MAGIC_AT).is_some_and(|magic| *magic < 2) {
        let message = "formats before 2 are not taken";
        return Err(Refusal::new(ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT, message));
    }
    let batch = Batch::split_first(&mut records).map_err(|error| malformed(&error))?;
    if !records.is_empty() {
        return Err(invalid("the records of a partition must be exactly one batch"));
    }
    if batch.bytes().len() > settings.message_bytes_max {
        let (bytes, bytes_max) = (batch.bytes().len(), settings.message_bytes_max);
        let message = format!("the batch has {bytes} bytes, the topic takes {bytes_max} (max.message.bytes)");
        return Err(Refusal::new(ErrorCode::MESSAGE_TOO_LARGE, message));
    }
    let header = batch.header();
    if header.is_control() || header.is_transactional() {
        return Err(invalid("control batches and batches of transactions are not taken from this client"));
    }
    let compression = Compression::from_attributes(header.attributes)
        .map_err(|error| Refusal::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, error.to_string()))?;
    if compression == Compression::Zstd && version < ZSTD_SINCE {
        let message = "zstd needs version 7 of this request";
        return Err(Refusal::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, message));
    }
    let checked = batch::check_records(&batch, settings.rules(now_ms()))?;
    Ok((batch, checked))
}

fn malformed(error: &BatchError) -> Refusal {
    let code = match error {
        BatchError::Magic(_) => ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT,
        BatchError::Count | BatchError::Record { .. } => ErrorCode::INVALID_RECORD,
        _ => ErrorCode::CORRUPT_MESSAGE,
    };
    Refusal::new(code, error.to_string())
}

fn response(index: i32, outcome: Result<Appended, Refusal>) -> PartitionProduceResponse {
    match outcome {
        Ok(appended) => PartitionProduceResponse {
            index,
            base_offset: appended.base_offset,
            log_append_time_ms: appended.append_time_ms,
            log_start_offset: appended.log_start_offset,
            ..PartitionProduceResponse::default()
        },
        Err(refusal) => PartitionProduceResponse {
            index,
            error_code: refusal.code,
            base_offset: -1,
            record_errors: (refusal.records.into_iter())
                .map(|(batch_index, why)| BatchIndexAndErrorMessage {
                    batch_index,
                    batch_index_error_message: Some(Str::from_static(why)),
                })
                .collect(),
            error_message: super::message(refusal.message),
            ..PartitionProduceResponse::default()
        },
    }
}
