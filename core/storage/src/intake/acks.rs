//! Acknowledgements: gathered over a commit window into one entry.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::Intake;
use super::queue::{IntakeState, Pending, WriterWaits};
use crate::cursor::{AckSink, CursorInner};
use crate::entry::Part;
use crate::error::LogError;
use crate::format::entry::entry_bytes;
use crate::ids::{Lsn, Offset};

/// Bytes of one acknowledged range in an entry.
const ACK_BYTES: usize = 24;

impl AckSink for Intake {
    fn submit_acks(&self, cursor: &Arc<CursorInner>, ranges: &[Range<Offset>]) -> Result<Lsn, LogError> {
        let mut cursor_state = cursor.state.lock();
        let mut changed: SmallVec<[(u64, u64); 4]> = SmallVec::new();
        for range in ranges {
            if cursor_state.ack(range.start.0, range.end.0) {
                changed.push((range.start.0, range.end.0));
            }
        }
        let mut state = self.lock();
        self.check_open(&state)?;
        if changed.is_empty() || cursor.deleted.load(Ordering::Acquire) {
            // These offsets were acknowledged by the entry being gathered at the latest.
            return Ok(Lsn(state.submitted()));
        }
        for (start, end) in changed {
            match state.acks.last_mut() {
                Some(last) if last.0 == cursor.id && last.2 == start => last.2 = end,
                _ => {
                    state.acks.push((cursor.id, start, end));
                    self.queued_bytes.fetch_add(ACK_BYTES, Ordering::Relaxed);
                }
            }
        }
        state.mark_cursor(cursor);
        // The writer places the entry at or after this position and in the same group, so it is committed when anything
        // beyond this position is.
        let lsn = Lsn(state.next_lsn + 1);
        if state.queue.is_empty() {
            self.are_acks_lingering.store(true, Ordering::Release);
        }
        self.wake_writer(state, WriterWaits::Idle);
        Ok(lsn)
    }
}

impl Intake {
    /// Turns the gathered acknowledgements into an entry.
    pub(crate) fn flush_acks(&self, state: &mut IntakeState) {
        if state.acks.is_empty() {
            return;
        }
        let acks = std::mem::take(&mut state.acks);
        self.queued_bytes.fetch_sub(acks.len() * ACK_BYTES, Ordering::Relaxed);
        let description_bytes = 1 + 4 + acks.len() * ACK_BYTES;
        let length = entry_bytes(description_bytes, 0);
        let (start, rolls) = state.place(length, self.limits.segment_bytes_max);
        let pending = Pending {
            start,
            length: length as u32,
            description_bytes: description_bytes as u32,
            rolls,
            parts: SmallVec::from_iter([Part::Acks(acks)]),
            bases: SmallVec::new(),
        };
        self.push(state, pending);
    }
}
