//! The response to a fetch, encoded by hand: it carries stored batches by reference.

use bytes::BufMut;

use super::plan::FetchPlan;
use super::running::Running;
use super::slot::{Slot, TopicKey};
use crate::codec::error_code::ErrorCode;
use crate::codec::frame::FrameWriter;
use crate::codec::wire::{Wire, write_length, write_no_tagged_fields};
use crate::map::partition::wire_offset;
use crate::metrics::{count_error, count_sent};
use crate::node::LEADER_EPOCH;

/// Bytes at the start of a batch that differ from the stored ones: base offset, length (unchanged), leader epoch.
const REWRITTEN_BYTES: usize = 16;

/// Writes the body of a response.
pub(super) fn write(writer: &mut FrameWriter<'_>, running: &Running, plan: &FetchPlan, throttle_ms: i32) {
    let version = running.header.version;
    let out = writer.out();
    out.put_i32(throttle_ms);
    if version.number >= 7 {
        ErrorCode::NONE.write(out, version);
        out.put_i32(running.session_id);
    }
    let topics = plan.reported(running.incremental);
    write_length(out, topics.len(), version.flexible);
    for (topic, slots) in topics {
        let out = writer.out();
        match topic {
            TopicKey::Name(name) => name.write(out, version),
            TopicKey::Id(id) => id.write(out, version),
        }
        write_length(out, slots.len(), version.flexible);
        for slot in slots {
            write_partition(writer, running, slot);
        }
        write_no_tagged_fields(writer.out(), version);
    }
    write_no_tagged_fields(writer.out(), version);
}

fn write_partition(writer: &mut FrameWriter<'_>, running: &Running, slot: &Slot) {
    let version = running.header.version;
    let out = writer.out();
    if !slot.error.is_none() {
        count_error(running.header.api, slot.error);
    }
    let (end, start) = match slot.bounds() {
        Some((end, start)) if slot.error.is_none() => (wire_offset(end), wire_offset(start)),
        _ => (-1, -1),
    };
    out.put_i32(slot.index);
    slot.error.write(out, version);
    // High watermark.
    out.put_i64(end);
    // Not above the high watermark, which was read before.
    let stable = slot.stable_offset().filter(|_| end >= 0).map_or(-1, |stable| wire_offset(stable).min(end));
    out.put_i64(stable);
    if version.number >= 5 {
        out.put_i64(start);
    }
    let (found, aborted) = slot.readable();
    write_length(out, aborted.len(), version.flexible);
    for transaction in aborted {
        out.put_i64(transaction.producer_id);
        out.put_i64(wire_offset(transaction.first));
        write_no_tagged_fields(out, version);
    }
    if version.number >= 11 {
        // Preferred read replica: none.
        out.put_i32(-1);
    }
    let found_bytes = if found.is_empty() { 0 } else { slot.found_bytes };
    write_length(out, found_bytes, version.flexible);
    for batch in found {
        count_sent(&batch.bytes);
        let out = writer.out();
        out.put_i64(wire_offset(batch.base_offset));
        out.put_slice(batch.bytes.get(8..12).unwrap_or_default());
        out.put_i32(LEADER_EPOCH);
        writer.splice(batch.bytes.slice(REWRITTEN_BYTES.min(batch.bytes.len())..));
    }
    write_no_tagged_fields(writer.out(), version);
}
