//! Control batches: the markers that end a transaction in a stream (KIP-98).
//!
//! A marker is a batch of one record. Its key: version and type, i16 each; its value: version, i16, and the epoch of the
//! coordinator, i32. All are big-endian.

use bytes::Bytes;

use super::builder::{BatchBuilder, ProducerStamp};
use super::checked::Batch;
use super::compression::Compression;
use super::records::records;

/// Types of markers.
const ABORT: [u8; 2] = [0, 0];
const COMMIT: [u8; 2] = [0, 1];

/// A marker that ends the transactions of a producer: commits them, or aborts them.
#[must_use]
pub fn marker(
    producer_id: i64,
    producer_epoch: i16,
    is_commit: bool,
    coordinator_epoch: i32,
    now_ms: i64,
) -> Batch {
    let [high, low] = if is_commit { COMMIT } else { ABORT };
    let [a, b, c, d] = coordinator_epoch.to_be_bytes();
    let mut builder = BatchBuilder::new(128);
    builder.push(now_ms, Some(&[0, 0, high, low]), &[], Some(&[0, 0, a, b, c, d]));
    let stamp = ProducerStamp {
        id: producer_id,
        epoch: producer_epoch,
        base_sequence: -1,
        transactional: true,
        control: true,
    };
    builder.finish_as(Compression::None, Some(stamp))
}

/// Whether a control batch commits a transaction or aborts it; `None` when it does neither.
#[must_use]
pub fn commits(control: &Bytes) -> Option<bool> {
    let marker = records(control).ok()?.next()?.ok()?;
    match marker.key?.get(2..4)? {
        of_type if of_type == ABORT => Some(false),
        of_type if of_type == COMMIT => Some(true),
        _ => None,
    }
}
