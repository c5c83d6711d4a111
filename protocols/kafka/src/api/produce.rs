//! Produce: appends record batches, verbatim.
//!
//! The records of a partition must be one batch of format 2 with a valid checksum. Its header is rewritten only where
//! the topic assigns timestamps itself, or where the producer's greatest timestamp is wrong. Records are checked as a stream: a
//! request may decompress to `kafka.inflated_bytes_max`, and one that is much work is handled on another thread. The response waits until
//! the log has committed all batches; `acks` 1 and -1 are the same, since there is one node.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use inver_access::Operation;
use inver_broker::{Completion, LimitReached, Partition, ProduceError, Topic, TransactionError};
use inver_driver::{Count, count};
use inver_storage::SubmitError;
use inver_storage::batch::{Batch, BatchError, Compression};
use smallvec::SmallVec;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::access;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::codec::wire::Uuid;
use crate::error::ConnectionError;
use crate::map::batch::{self, Allowance, BatchRefusal, CheckError, Checked};
use crate::map::partition::{partition_index, wire_offset};
use crate::settings::topic::ProduceSettings;
use crate::traced;
use crate::transactions::{abortable, error_code};

messages! {
    /// Versions 3-13, flexible 9+.
    pub struct ProduceRequest {
        transactional_id: Option<Str> [3..; null 3..],
        acks: i16 [0..],
        timeout_ms: i32 [0..],
        topic_data: Vec<TopicProduceData> [0..],
    }

    /// Each topic to produce to.
    pub struct TopicProduceData {
        name: Str [0..=12],
        topic_id: Uuid [13..],
        partition_data: Vec<PartitionProduceData> [0..],
    }

    /// Each partition to produce to.
    pub struct PartitionProduceData {
        index: i32 [0..],
        records: Option<Bytes> [0..; null 0..],
    }

    /// Versions 3-13, flexible 9+.
    pub struct ProduceResponse {
        responses: Vec<TopicProduceResponse> [0..],
        throttle_time_ms: i32 [1..],
    }

    /// Each produce response.
    pub struct TopicProduceResponse {
        name: Str [0..=12],
        topic_id: Uuid [13..],
        partition_responses: Vec<PartitionProduceResponse> [0..],
    }

    /// Each partition that we produced to within the topic.
    pub struct PartitionProduceResponse {
        index: i32 [0..],
        error_code: ErrorCode [0..],
        base_offset: i64 [0..],
        log_append_time_ms: i64 [2..; default -1],
        log_start_offset: i64 [5..; default -1],
        record_errors: Vec<BatchIndexAndErrorMessage> [8..],
        error_message: Option<Str> [8..; null 8..],
    }

    /// The batch indices of records that caused the batch to be dropped.
    pub struct BatchIndexAndErrorMessage {
        batch_index: i32 [8..],
        batch_index_error_message: Option<Str> [8..; null 8..],
    }
}

/// The Produce API.
pub struct Produce;

/// First version in which batches have format 2.
const RECORD_BATCH_SINCE: i16 = 3;

/// First version that allows zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;

/// First version with TRANSACTION_ABORTABLE (KIP-890).
const ABORTABLE_SINCE: i16 = 11;

/// First version that adds partitions to a transaction by itself (KIP-890).
const ADDS_PARTITIONS_SINCE: i16 = 12;

/// First version that names topics by id (KIP-516).
const BY_ID_SINCE: i16 = 13;

/// Batches up to this many bytes are copied out of the input buffer: other requests share it, and a small batch must
/// not keep all of it alive.
const COPIED_BYTES_MAX: usize = 4096;

/// Time for which clients are asked to wait when the disk or the memory is low, milliseconds.
const GATE_THROTTLE_MS: i32 = 500;

/// What is checked within a turn: about as much as its time allows for. A request of more is handled on another thread.
const PRODUCE_IN_A_TURN: Allowance = Allowance { plain: 2 << 20, inflated: 512 << 10 };

/// Position of the format version in a batch; the same in all formats.
const MAGIC_AT: usize = 16;

impl Handler for Produce {
    const KEY: i16 = 0;
    // Advertised from 0 although batches of formats before 2 are rejected: librdkafka takes a broker without the old
    // versions to be unable to compress (KAFKA-18659), which is why Kafka advertises them too.
    const VERSIONS: RangeInclusive<i16> = 0..=13;
    const FLEXIBLE_FROM: i16 = 9;
    const CARRIES_RECORDS: bool = true;

    const LENGTH: Length = Length::Turn;

    type Request = ProduceRequest;
    type Response = ProduceResponse;

    fn handle(cx: &mut RequestContext<'_>, mut request: ProduceRequest) -> Reply<ProduceResponse> {
        let mut throttle_ms = 0;
        let reject_all = if !matches!(request.acks, -1..=1) {
            Some((ErrorCode::INVALID_REQUIRED_ACKS, "acks must be 0, 1 or -1".to_owned()))
        } else if let Some(shortage) = cx.node.broker.log().gate().shortage() {
            // Clients try again; of the errors for that, this one says that nothing was appended.
            throttle_ms = GATE_THROTTLE_MS;
            Some((ErrorCode::NOT_ENOUGH_REPLICAS, shortage.to_string()))
        } else {
            None
        };
        // Every batch is checked before one is appended: what takes long is found out in time.
        let long = Allowance { plain: usize::MAX, inflated: cx.config().limits.inflated_bytes_max };
        let mut allowance = if cx.is_detached { long } else { PRODUCE_IN_A_TURN };
        let mut topics = SmallVec::<[_; 1]>::new();
        let mut batches = SmallVec::<[Result<CheckedBatch, Rejection>; 2]>::new();
        for data in &mut request.topic_data {
            let topic = cx.topic_for(Operation::Write, BY_ID_SINCE, &data.name, data.topic_id);
            let topic = topic.map(|topic| {
                let settings = ProduceSettings::of(&topic, cx.config());
                (topic, settings)
            });
            for partition in &mut data.partition_data {
                let records = partition.records.take();
                let checked = match (&reject_all, &topic) {
                    (Some((code, text)), _) => Err(Rejection::new(*code, text.clone()).into()),
                    (None, Ok(topic)) => check_partition(cx, topic, partition.index, records, &mut allowance),
                    (None, Err(code)) => Err(Rejection::new(*code, no_topic(*code)).into()),
                };
                batches.push(match checked {
                    Ok(batch) => Ok(batch),
                    Err(Unchecked::Rejected(rejection)) => Err(rejection),
                    Err(Unchecked::TooLong) if !cx.is_detached => return Reply::Detach,
                    Err(Unchecked::TooLong) => Err(too_much(cx)),
                });
            }
            topics.push(topic.ok());
        }
        let transaction = check_transaction(cx, request.transactional_id.as_deref());
        let mut completion = Completion::Now;
        let (mut failure, mut records) = (None, 0);
        let mut responses = Vec::with_capacity(request.topic_data.len());
        let mut batches = batches.into_iter();
        for (data, topic) in request.topic_data.into_iter().zip(topics) {
            let mut partition_responses = Vec::with_capacity(data.partition_data.len());
            for (partition, batch) in data.partition_data.into_iter().zip(&mut batches) {
                let index = partition.index;
                let outcome = match &topic {
                    Some((topic, settings)) => {
                        batch.and_then(|batch| append(cx, topic, settings, transaction, batch))
                    }
                    None => batch.map(|_| Appended::default()),
                };
                match &outcome {
                    Ok(appended) => {
                        completion = completion.and(appended.completion);
                        records += u64::from(appended.records);
                    }
                    Err(rejection) => {
                        tracing::debug!(topic = %data.name, index, code = %rejection.code, rejection.message, "batch rejected");
                        failure.get_or_insert_with(|| rejection.message.clone());
                    }
                }
                partition_responses.push(response(index, outcome));
            }
            responses.push(TopicProduceResponse {
                name: data.name,
                topic_id: data.topic_id,
                partition_responses,
            });
        }
        if request.acks != 0 {
            // Sent once the log has committed them.
            count(Count::ToConfirm, records);
            count(Count::Confirmed, records);
        }
        let throttle_time_ms = cx.take_produced(records).max(throttle_ms);
        match (request.acks, failure) {
            (0, Some(message)) => Reply::Close(None, ConnectionError::ProduceWithoutAcks(message)),
            (0, None) => Reply::None,
            _ => Reply::Response(ProduceResponse { responses, throttle_time_ms }, completion),
        }
    }
}

fn no_topic(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::UNKNOWN_TOPIC_ID => "unknown topic id",
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => "unknown topic",
        code => access::text(code),
    }
}

/// The reason why a partition's records were rejected.
struct Rejection {
    code: ErrorCode,
    message: String,
    /// Invalid records and the reasons (KIP-467); empty if the batch as a whole is invalid.
    records: Vec<(i32, &'static str)>,
}

impl Rejection {
    fn new(code: ErrorCode, message: impl Into<String>) -> Rejection {
        Rejection { code, message: message.into(), records: Vec::new() }
    }
}

impl From<BatchRefusal> for Rejection {
    fn from(refusal: BatchRefusal) -> Rejection {
        Rejection { code: refusal.code, message: refusal.message, records: refusal.records }
    }
}

/// An appended batch.
#[derive(Default)]
struct Appended {
    base_offset: i64,
    append_time_ms: i64,
    log_start_offset: i64,
    completion: Completion,
    records: u32,
}

/// A batch that may be appended.
struct CheckedBatch {
    partition: Arc<Partition>,
    batch: Batch,
    facts: Checked,
    /// When it was checked.
    now_ms: i64,
}

/// Why a batch was not checked to the end.
enum Unchecked {
    Rejected(Rejection),
    /// The allowance of the request is used up.
    TooLong,
}

impl<R: Into<Rejection>> From<R> for Unchecked {
    fn from(rejection: R) -> Unchecked {
        Unchecked::Rejected(rejection.into())
    }
}

/// The records of a request decompress to more than is allowed: clients send them in smaller batches.
fn too_much(cx: &RequestContext<'_>) -> Rejection {
    let bytes_max = cx.config().limits.inflated_bytes_max;
    let text = format!("the records of a request decompress to more than {bytes_max} bytes");
    Rejection::new(ErrorCode::MESSAGE_TOO_LARGE, text)
}

fn check_partition(
    cx: &RequestContext<'_>,
    (topic, settings): &(Arc<Topic>, ProduceSettings),
    index: i32,
    records: Option<Bytes>,
    allowance: &mut Allowance,
) -> Result<CheckedBatch, Unchecked> {
    let partition = partition_index(index).and_then(|index| topic.partition(index)).ok_or_else(|| {
        Rejection::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "the topic has no such partition")
    })?;
    let now_ms = cx.node.now_ms();
    let (batch, facts) = check(cx.version(), settings, records, now_ms, allowance)?;
    Ok(CheckedBatch { partition, batch, facts, now_ms })
}

fn append(
    cx: &RequestContext<'_>,
    topic: &Arc<Topic>,
    settings: &ProduceSettings,
    transaction: TransactionalId<'_>,
    checked: CheckedBatch,
) -> Result<Appended, Rejection> {
    let CheckedBatch { partition, batch, facts, now_ms } = checked;
    let transactional_id = match batch.header().is_transactional() {
        true => Some(transaction.map_err(|code| Rejection::new(code, access::text(code)))?),
        false => None,
    };
    let append_ms = settings.append_time.then_some(now_ms);
    let (batch, append_time_ms) = batch::stamped(batch, &facts, append_ms)?;
    let (bytes, records) = (batch.bytes().len(), batch.record_count());
    let tracer = cx.namespace().traces().tracer();
    let spans = tracer.map(|tracer| traced::produced(tracer, topic, &batch, &cx.traced_client()));
    let (base_offset, completion) = submit(cx, topic, &partition, transactional_id, batch)?;
    if let (Some(tracer), Some(spans)) = (tracer, spans) {
        traced::submitted(tracer, spans, partition.index(), base_offset.cast_unsigned(), completion);
    }
    cx.node.metrics.produced_bytes.increment(bytes as u64);
    cx.node.metrics.produced_records.increment(u64::from(records));
    count(Count::Received, records.into());
    count(Count::Routed, records.into());
    let log_start_offset = wire_offset(partition.stream().start());
    Ok(Appended { base_offset, append_time_ms, log_start_offset, completion, records })
}

fn submit(
    cx: &RequestContext<'_>,
    topic: &Topic,
    partition: &Partition,
    transactional_id: Option<&str>,
    batch: Batch,
) -> Result<(i64, Completion), Rejection> {
    let full = |error: LimitReached| Rejection::new(ErrorCode::POLICY_VIOLATION, error.to_string());
    cx.namespace().check_room().map_err(full)?;
    let submitted = match transactional_id {
        Some(id) => {
            let adds_partition = cx.version() >= ADDS_PARTITIONS_SINCE;
            cx.namespace().produce_in_transaction(id, topic, partition, batch, adds_partition)
        }
        None => cx.namespace().produce_as(Some(&cx.access.permissions), topic, partition, batch),
    };
    let (base, lsn) = match submitted {
        Ok(submitted) => (submitted.bases.first().copied().unwrap_or_default(), submitted.lsn),
        // A retry of a batch whose response was lost: it gets the same response, under the same condition.
        Err(ProduceError::Log(SubmitError::DuplicateSequence { base_offset, lsn })) => (base_offset, lsn),
        Err(ProduceError::Log(error)) => return Err(submit_error(&error)),
        Err(ProduceError::Transaction(error)) => return Err(transaction_error(cx.version(), &error)),
        Err(error @ ProduceError::Address { record, .. }) => {
            let records =
                vec![(i32::try_from(record).unwrap_or(i32::MAX), "The address that it names is too long")];
            return Err(Rejection {
                records,
                ..Rejection::new(ErrorCode::INVALID_RECORD, error.to_string())
            });
        }
    };
    Ok((wire_offset(base), Completion::At(lsn)))
}

/// The transactional id that the transactional batches of a request belong to.
type TransactionalId<'a> = Result<&'a str, ErrorCode>;

fn check_transaction<'a>(cx: &RequestContext<'_>, id: Option<&'a str>) -> TransactionalId<'a> {
    let id = id.ok_or(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)?;
    cx.access.check_transaction(id, Operation::Write).map(|()| id)
}

fn transaction_error(version: i16, error: &TransactionError) -> Rejection {
    let code = error_code(error, ErrorCode::INVALID_PRODUCER_EPOCH);
    Rejection::new(abortable(code, version, ABORTABLE_SINCE), error.to_string())
}

fn submit_error(error: &SubmitError) -> Rejection {
    let code = match error {
        SubmitError::OutOfOrderSequence => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        SubmitError::InvalidProducerEpoch => ErrorCode::INVALID_PRODUCER_EPOCH,
        SubmitError::TooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
        SubmitError::DuplicateSequence { .. } => ErrorCode::DUPLICATE_SEQUENCE_NUMBER,
        SubmitError::TransactionOpen => ErrorCode::INVALID_TXN_STATE,
        SubmitError::TooManyTransactions { .. } => ErrorCode::POLICY_VIOLATION,
        _ => ErrorCode::KAFKA_STORAGE_ERROR,
    };
    Rejection::new(code, error.to_string())
}

/// The one batch in a partition's records, checked.
fn check(
    version: i16,
    settings: &ProduceSettings,
    records: Option<Bytes>,
    now_ms: i64,
    allowance: &mut Allowance,
) -> Result<(Batch, Checked), Unchecked> {
    let invalid = |text: &str| Rejection::new(ErrorCode::INVALID_RECORD, text);
    let mut records =
        records.filter(|records| !records.is_empty()).ok_or_else(|| invalid("there are no records"))?;
    if records.len() <= COPIED_BYTES_MAX {
        records = Bytes::copy_from_slice(&records);
    }
    // Older formats differ before this field, so check it before parsing anything else.
    if records.get(MAGIC_AT).is_some_and(|magic| *magic < 2) {
        let text = "batch formats before 2 are not supported";
        let is_old = version < RECORD_BATCH_SINCE;
        let code = if is_old { ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT } else { ErrorCode::INVALID_RECORD };
        return Err(Rejection::new(code, text).into());
    }
    let batch = Batch::split_first(&mut records).map_err(|error| malformed(&error))?;
    if !records.is_empty() {
        return Err(invalid("the records of a partition must be exactly one batch").into());
    }
    if batch.bytes().len() > settings.message_bytes_max {
        let (bytes, bytes_max) = (batch.bytes().len(), settings.message_bytes_max);
        let text = format!("batch of {bytes} bytes exceeds the topic's max.message.bytes of {bytes_max}");
        return Err(Rejection::new(ErrorCode::MESSAGE_TOO_LARGE, text).into());
    }
    let header = batch.header();
    if header.is_control() {
        return Err(invalid("clients must not write control batches").into());
    }
    if header.is_transactional() && !header.has_producer() {
        return Err(invalid("a transactional batch needs a producer id").into());
    }
    if header.base_offset != 0 {
        let base = header.base_offset;
        return Err(invalid(&format!("the base offset of the batch should be 0, but it is {base}")).into());
    }
    if header.has_producer() && header.base_sequence < 0 {
        let (sequence, producer) = (header.base_sequence, header.producer_id);
        return Err(invalid(&format!("invalid sequence number {sequence} of producer {producer}")).into());
    }
    let compression = Compression::from_attributes(header.attributes)
        .map_err(|error| Rejection::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, error.to_string()))?;
    if compression == Compression::Zstd && version < ZSTD_SINCE {
        let text = format!("zstd requires Produce version {ZSTD_SINCE}");
        return Err(Rejection::new(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, text).into());
    }
    match batch::check_records(&batch, settings.rules(now_ms), allowance) {
        Ok(checked) => Ok((batch, checked)),
        Err(CheckError::Refused(refusal)) => Err(refusal.into()),
        Err(CheckError::Exhausted) => Err(Unchecked::TooLong),
    }
}

fn malformed(error: &BatchError) -> Rejection {
    let code = match error {
        BatchError::Count | BatchError::Record { .. } => ErrorCode::INVALID_RECORD,
        _ => ErrorCode::CORRUPT_MESSAGE,
    };
    Rejection::new(code, error.to_string())
}

fn response(index: i32, outcome: Result<Appended, Rejection>) -> PartitionProduceResponse {
    match outcome {
        Ok(appended) => PartitionProduceResponse {
            index,
            base_offset: appended.base_offset,
            log_append_time_ms: appended.append_time_ms,
            log_start_offset: appended.log_start_offset,
            ..PartitionProduceResponse::default()
        },
        Err(rejection) => PartitionProduceResponse {
            index,
            error_code: rejection.code,
            base_offset: -1,
            record_errors: (rejection.records.into_iter())
                .map(|(batch_index, reason)| BatchIndexAndErrorMessage {
                    batch_index,
                    batch_index_error_message: Some(Str::from_static(reason)),
                })
                .collect(),
            error_message: message(rejection.message),
            ..PartitionProduceResponse::default()
        },
    }
}
