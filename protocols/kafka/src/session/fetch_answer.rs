//! The response to a fetch, written by hand since it carries stored batches as they lie.

use bytes::BufMut;

use super::fetch::Running;
use super::fetch_plan::FetchPlan;
use super::fetch_slot::{Slot, TopicKey};
use super::offset;
use crate::codec::error_code::ErrorCode;
use crate::codec::frame::FrameWriter;
use crate::codec::wire::{Wire, write_length, write_no_tagged_fields};
use crate::node::LEADER_EPOCH;

/// Bytes of a batch that are written anew: its offset, its length (unchanged), the leader's epoch.
const REWRITTEN_BYTES: usize = 16;

/// Writes the body of a response, by hand since it carries stored batches.
pub(super) fn write(writer: &mut FrameWriter<'_>, running: &Running, plan: &FetchPlan) {
    let version = running.header.version;
    let out = writer.out();
    out.put_i32(0);
    if version.number >= 7 {
        ErrorCode::NONE.write(out, version);
        out.put_i32(running.session_id);
    }
    let runs = plan.told(running.incremental);
    write_length(out, runs.len(), version.flexible);
    for (topic, slots) in runs {
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
    let (end, start) = match slot.bounds() {
        Some((end, start)) if slot.error.is_none() => (offset(end), offset(start)),
        _ => (-1, -1),
    };
    out.put_i32(slot.index);
    slot.error.write(out, version);
    out.put_i64(end);
    // The last stable offset: there are no open transactions.
    out.put_i64(end);
    if version.number >= 5 {
        out.put_i64(start);
    }
    // No aborted transactions.
    write_length(out, 0, version.flexible);
    if version.number >= 11 {
        // No other replica would be better to read from.
        out.put_i32(-1);
    }
    write_length(out, slot.found_bytes, version.flexible);
    for batch in &slot.found {
        let out = writer.out();
        out.put_i64(offset(batch.base_offset));
        out.put_slice(batch.bytes.get(8..12).unwrap_or_default());
        out.put_i32(LEADER_EPOCH);
        writer.splice(batch.bytes.slice(REWRITTEN_BYTES.min(batch.bytes.len())..));
    }
    write_no_tagged_fields(writer.out(), version);
}
