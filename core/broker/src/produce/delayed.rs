//! Records of a batch that are appended later, as a header of theirs says: [`DELIVER_AT`] or [`DELIVER_AFTER`]. They wait
//! with the other delayed messages; the rest of the batch keeps its offsets, as in a compacted topic, and the sequences
//! of its producer.

use std::sync::Arc;

use inver_storage::batch::{Batch, Record, records};

use super::{ProduceError, holds};
use crate::message::{DelayedTarget, DelayedTo, HeaderWriter, Message, RawHeaders, Rights};
use crate::namespace::Namespace;
use crate::publisher::later::{Later, store};
use crate::queue::Queue;
use crate::topic::{Partition, Topic};
use crate::write_batch::WriteBatch;

/// What both headers begin with.
const BOTH: &[u8] = b"inver-deliver-";

/// The header with the time when a record is appended: a decimal number of milliseconds since 1970.
const DELIVER_AT: &[u8] = b"inver-deliver-at";

/// The header with the time after which a record is appended: a decimal number of milliseconds.
const DELIVER_AFTER: &[u8] = b"inver-deliver-after";

/// What is left of a batch, and what is appended later.
pub(super) struct Diverted {
    pub(super) batch: Batch,
    pub(super) copies: WriteBatch,
    /// The queues that they wait in, and when the first of each is due.
    pub(super) queues: Vec<(Arc<Queue>, i64)>,
}

/// Takes the records out of a batch that are appended later, if it has any.
pub(super) fn divert(
    namespace: &Namespace,
    topic: &Topic,
    partition: &Partition,
    batch: &Batch,
) -> Result<Option<Diverted>, ProduceError> {
    if !holds(batch, BOTH).unwrap_or(false) {
        return Ok(None);
    }
    let clock = namespace.clock();
    let (now_ms, steady_ms) = (clock.now_ms(), clock.steady_ms());
    let (mut copies, mut queues) = (WriteBatch::default(), Vec::new());
    let (mut headers, mut failed) = (HeaderWriter::default(), None);
    let mut take_out = |record: &Record| -> Result<bool, ProduceError> {
        let refused = |why| ProduceError::Delay { record: record.offset_delta, why };
        let Some(delay_ms) = delay_of(record, now_ms).map_err(refused)? else { return Ok(false) };
        let target =
            DelayedTarget::Topic { id: topic.id().0, name: topic.name(), partition: partition.index() };
        let later = Later {
            to: DelayedTo { target, ttl_ms: None, guaranteed: true, rights: Rights::ALL },
            delay_ms,
            leave_out: is_delay,
        };
        let mut message = Message { timestamp_ms: steady_ms, ..Message::of_record(record, true) };
        if record.is_marked {
            headers.copy(record);
            message.headers = headers.headers();
        }
        let stored =
            if namespace.has_all_delayed() { None } else { store(namespace, &mut copies, &message, &later)? };
        let (queue, due_ms) =
            stored.ok_or_else(|| refused("There are as many delayed messages as there may be"))?;
        match queues.iter_mut().find(|(known, _): &&mut (Arc<Queue>, i64)| Arc::ptr_eq(known, &queue)) {
            Some((_, first_ms)) => *first_ms = due_ms.min(*first_ms),
            None => queues.push((queue, due_ms)),
        }
        Ok(true)
    };
    let rest = batch.retain(|record| match failed {
        Some(_) => true,
        None => take_out(record).map_or_else(
            |error| {
                failed = Some(error);
                true
            },
            |is_out| !is_out,
        ),
    });
    match (failed, rest) {
        (Some(error), _) => Err(error),
        // What cannot be read is appended as it is.
        (None, Err(_)) => Ok(None),
        (None, Ok(_)) if queues.is_empty() => Ok(None),
        (None, Ok(batch)) => Ok(Some(Diverted { batch, copies, queues })),
    }
}

/// Refuses a batch of a transaction with a record that is to be appended later.
pub(super) fn refuse(batch: &Batch) -> Result<(), ProduceError> {
    if !holds(batch, BOTH).unwrap_or(false) {
        return Ok(());
    }
    let mut all = records(batch.bytes()).into_iter().flatten().flatten();
    match all.find(|record| RawHeaders::of(record).any(|(name, _)| is_delay(name))) {
        None => Ok(()),
        Some(record) => {
            let why = "A record of a transaction cannot be delayed";
            Err(ProduceError::Delay { record: record.offset_delta, why })
        }
    }
}

fn is_delay(header: &[u8]) -> bool {
    header == DELIVER_AT || header == DELIVER_AFTER
}

/// The delay in milliseconds that a record asks for, if it is not to be appended at once. The first of the headers counts.
fn delay_of(record: &Record, now_ms: i64) -> Result<Option<i64>, &'static str> {
    let Some((name, value)) = RawHeaders::of(record).find(|(name, _)| is_delay(name)) else {
        return Ok(None);
    };
    let number = value.and_then(|value| std::str::from_utf8(value).ok()?.parse::<i64>().ok());
    let number = number.ok_or("Its delay is no number of milliseconds")?;
    let delay_ms = if name == DELIVER_AT { number.saturating_sub(now_ms) } else { number };
    Ok((delay_ms > 0).then_some(delay_ms))
}
