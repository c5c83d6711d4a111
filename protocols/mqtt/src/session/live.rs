//! QoS 0 messages from the session's in-memory queue, by the batch.

use inver_driver::{Count, count};
use inver_storage::batch::records;

use super::Session;
use super::live_encoding::{Requirements, put_shared};
use super::unsent::RestOfBatch;
use crate::buffers;
use crate::codec::Version;
use crate::sys;

impl Session {
    /// Writes the queued batches as far as the output has room.
    pub(super) fn deliver_live(&mut self, full: usize, out: &mut Vec<u8>) {
        while self.may_send(full, out)
            && let Some(rest) = self.live_rest.pop_front()
        {
            if let Some(rest) = self.send_batch(rest, full, out) {
                self.live_rest.push_front(rest);
            }
        }
        if !self.live_ready || !self.live_rest.is_empty() {
            return;
        }
        let mut pulled = buffers::take_batches();
        self.live_ready = self.core.pull_live(Session::bytes_wanted(full, out), &mut pulled).more;
        for batch in pulled.drain(..) {
            let whole = RestOfBatch { batch, taken: 0 };
            let rest = match self.may_send(full, out) {
                true => self.send_batch(whole, full, out),
                false => Some(whole),
            };
            if let Some(rest) = rest {
                self.live_rest.push_back(rest);
            }
        }
        buffers::give_batches(pulled);
    }

    /// Writes a batch; returns what a quota on messages or bytes leaves of it.
    fn send_batch(&mut self, rest: RestOfBatch, full: usize, out: &mut Vec<u8>) -> Option<RestOfBatch> {
        let RestOfBatch { batch, taken } = rest;
        let is_limited = full < self.server.config.output_bytes_max || self.sent_max < u32::MAX;
        if !is_limited
            && taken == 0
            && self.accepts_shared_encoding()
            && let names = self.server.config.amqp_names
            && let Some(payload_bytes) = put_shared(&batch, self.version, self.requirements(), names, out)
        {
            sys::count(sys::Count::PublishBytesSent, payload_bytes);
            self.trace_batch(&batch);
            self.sent += batch.messages as u32;
            count(Count::SentAuto, batch.messages);
            return None;
        }
        let mut records = match records(&batch.bytes) {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%error, "failed to read a batch");
                return None;
            }
        };
        if let Some(last) = taken.checked_sub(1) {
            let _taken_before = records.nth(last);
        }
        for (place, record) in (taken..).zip(records) {
            if is_limited && !self.may_send(full, out) {
                return Some(RestOfBatch { batch, taken: place });
            }
            match record {
                Ok(record) => self.send_live(&record, batch.topic.as_deref(), out),
                Err(error) => {
                    tracing::error!(%error, "failed to read the rest of a batch");
                    return None;
                }
            }
        }
        None
    }

    /// True if QoS 0 messages carry nothing of this session's own: no subscription identifier, no topic alias.
    fn accepts_shared_encoding(&self) -> bool {
        !self.subscriptions.any_id() && (self.version != Version::V5 || !self.aliases_out.is_enabled())
    }

    fn requirements(&self) -> Requirements {
        Requirements {
            packet_bytes_max: self.client_packet_bytes_max,
            retain_as_published: self.subscriptions.any_retain_as_published(),
        }
    }
}
