//! AddPartitionsToTxn: adds partitions to a producer's transaction (KIP-98), or tells whether they are in it (KIP-890).

use std::ops::RangeInclusive;
use std::sync::Arc;

use inver_access::Operation;
use inver_broker::{Completion, Partition, TransactionError};
use inver_storage::Stream;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::transactions::{abortable, error_code, fenced, producer};

messages! {
    /// Versions 0-5, flexible 3+.
    pub struct AddPartitionsToTxnRequest {
        transactions: Vec<AddPartitionsToTxnTransaction> [4..],
        v3_and_below_transactional_id: Str [0..=3],
        v3_and_below_producer_id: i64 [0..=3],
        v3_and_below_producer_epoch: i16 [0..=3],
        v3_and_below_topics: Vec<AddPartitionsToTxnTopic> [0..=3],
    }

    /// List of transactions to add partitions to.
    pub struct AddPartitionsToTxnTransaction {
        transactional_id: Str [4..],
        producer_id: i64 [4..],
        producer_epoch: i16 [4..],
        verify_only: bool [4..],
        topics: Vec<AddPartitionsToTxnTopic> [4..],
    }

    /// The partitions to add to the transaction.
    pub struct AddPartitionsToTxnTopic {
        name: Str [0..],
        partitions: Vec<i32> [0..],
    }

    /// Versions 0-5, flexible 3+.
    pub struct AddPartitionsToTxnResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [4..],
        results_by_transaction: Vec<AddPartitionsToTxnResult> [4..],
        results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult> [0..=3],
    }

    /// Results categorized by transactional ID.
    pub struct AddPartitionsToTxnResult {
        transactional_id: Str [4..],
        topic_results: Vec<AddPartitionsToTxnTopicResult> [4..],
    }

    /// The results for each topic.
    pub struct AddPartitionsToTxnTopicResult {
        name: Str [0..],
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult> [0..],
    }

    /// The results for each partition.
    pub struct AddPartitionsToTxnPartitionResult {
        partition_index: i32 [0..],
        partition_error_code: ErrorCode [0..],
    }
}

/// The AddPartitionsToTxn API.
pub struct AddPartitionsToTxn;

/// First version in which other nodes ask for several transactions.
const SEVERAL_SINCE: i16 = 4;
/// First version with PRODUCER_FENCED (KIP-588).
const FENCED_SINCE: i16 = 2;

impl Handler for AddPartitionsToTxn {
    const KEY: i16 = 24;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const FLEXIBLE_FROM: i16 = 3;

    type Request = AddPartitionsToTxnRequest;
    type Response = AddPartitionsToTxnResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: AddPartitionsToTxnRequest,
    ) -> Reply<AddPartitionsToTxnResponse> {
        if cx.version() >= SEVERAL_SINCE {
            if let Err(error_code) = cx.access.check_cluster(Operation::ClusterAction) {
                return Reply::now(AddPartitionsToTxnResponse { error_code, ..Default::default() });
            }
            let mut completion = Completion::Now;
            let mut results_by_transaction = Vec::with_capacity(request.transactions.len());
            for transaction in request.transactions {
                let (topic_results, done) = add(cx, &transaction);
                completion = completion.and(done);
                let transactional_id = transaction.transactional_id;
                results_by_transaction.push(AddPartitionsToTxnResult { transactional_id, topic_results });
            }
            let response = AddPartitionsToTxnResponse { results_by_transaction, ..Default::default() };
            return Reply::Response(response, completion);
        }
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            verify_only: false,
            topics: request.v3_and_below_topics,
        };
        let (results_by_topic_v3_and_below, completion) = add(cx, &transaction);
        let response = AddPartitionsToTxnResponse { results_by_topic_v3_and_below, ..Default::default() };
        Reply::Response(response, completion)
    }
}

/// First version with TRANSACTION_ABORTABLE (KIP-890).
const ABORTABLE_SINCE: i16 = 5;

/// A partition that a request names.
type Named = (Arc<str>, Arc<Partition>);

/// Adds the partitions of one transaction: all of them or none.
fn add(
    cx: &RequestContext<'_>,
    transaction: &AddPartitionsToTxnTransaction,
) -> (Vec<AddPartitionsToTxnTopicResult>, Completion) {
    let may_write = cx.access.check_transaction(&transaction.transactional_id, Operation::Write);
    let mut found: Vec<Named> = Vec::new();
    let mut results: Vec<AddPartitionsToTxnTopicResult> = Vec::with_capacity(transaction.topics.len());
    let mut any_refused = false;
    for topic in &transaction.topics {
        let results_by_partition = topic.partitions.iter().map(|index| {
            let partition = may_write.and_then(|()| cx.partition_for(Operation::Write, &topic.name, *index));
            let partition_error_code = match partition {
                Ok(partition) => {
                    found.push((topic.name.as_str().into(), partition));
                    ErrorCode::NONE
                }
                Err(code) => code,
            };
            any_refused |= !partition_error_code.is_none();
            AddPartitionsToTxnPartitionResult { partition_index: *index, partition_error_code }
        });
        let results_by_partition = results_by_partition.collect();
        results.push(AddPartitionsToTxnTopicResult { name: topic.name.clone(), results_by_partition });
    }
    let all = |results: &mut [AddPartitionsToTxnTopicResult], codes: &mut dyn FnMut() -> ErrorCode| {
        let partitions = results.iter_mut().flat_map(|topic| topic.results_by_partition.iter_mut());
        let allowed = partitions.filter(|partition| partition.partition_error_code.is_none());
        allowed.for_each(|partition| partition.partition_error_code = codes());
    };
    if any_refused {
        all(&mut results, &mut || ErrorCode::OPERATION_NOT_ATTEMPTED);
        return (results, Completion::Now);
    }
    let fenced = fenced(cx.version(), FENCED_SINCE);
    match change(cx, transaction, &found) {
        Ok((missing, completion)) => {
            let mut missing = missing.into_iter();
            all(&mut results, &mut || match missing.next() {
                Some(true) => abortable(ErrorCode::INVALID_TXN_STATE, cx.version(), ABORTABLE_SINCE),
                _ => ErrorCode::NONE,
            });
            (results, completion)
        }
        Err(error) => {
            let code = error_code(&error, fenced);
            all(&mut results, &mut || code);
            (results, Completion::Now)
        }
    }
}

/// Adds partitions, or looks for them. Which are missing, if they were looked for.
fn change(
    cx: &RequestContext<'_>,
    transaction: &AddPartitionsToTxnTransaction,
    found: &[Named],
) -> Result<(Vec<bool>, Completion), TransactionError> {
    let (transactions, id) = (cx.namespace().transactions(), transaction.transactional_id.as_str());
    let producer = producer(transaction.producer_id, transaction.producer_epoch);
    if transaction.verify_only {
        let streams: Vec<&Stream> = found.iter().map(|(_, partition)| partition.stream()).collect();
        return Ok((transactions.missing_partitions(id, producer, &streams)?, Completion::Now));
    }
    let partitions: Vec<(Arc<str>, u32, &Stream)> = found
        .iter()
        .map(|(topic, partition)| (topic.clone(), partition.index(), partition.stream()))
        .collect();
    Ok((Vec::new(), transactions.add_partitions(id, producer, &partitions)?))
}
