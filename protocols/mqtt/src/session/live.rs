//! QoS 0 messages from the session's in-memory queue, by the batch.

use inver_broker::LiveBatch;
use inver_driver::{Count, count};
use inver_storage::batch::records;

use super::Session;
use super::live_encoding::{Requirements, put_shared};
use crate::buffers;
use crate::codec::Version;

impl Session {
    /// Writes the queued batches as far as the output has room.
    pub(super) fn deliver_live(&mut self, out: &mut Vec<u8>) {
        let full = self.server.config.output_bytes_max;
        while out.len() < full
            && let Some(batch) = self.live_rest.pop_front()
        {
            self.send_batch(&batch, out);
        }
        if !self.live_ready || !self.live_rest.is_empty() {
            return;
        }
        let mut pulled = buffers::take_batches();
        self.live_ready = self.core.pull_live(self.bytes_wanted(out), &mut pulled).more;
        for batch in pulled.drain(..) {
            if out.len() < full {
                self.send_batch(&batch, out);
            } else {
                self.live_rest.push_back(batch);
            }
        }
        buffers::give_batches(pulled);
    }

    fn send_batch(&mut self, batch: &LiveBatch, out: &mut Vec<u8>) {
        if self.accepts_shared_encoding() && put_shared(batch, self.version, self.requirements(), out) {
            self.sent += batch.messages as u32;
            count(Count::SentAuto, batch.messages);
            return;
        }
        let records = match records(&batch.bytes) {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%error, "failed to read a batch");
                return;
            }
        };
        for record in records {
            match record {
                Ok(record) => self.send_live(&record, batch.topic.as_deref(), out),
                Err(error) => {
                    tracing::error!(%error, "failed to read the rest of a batch");
                    return;
                }
            }
        }
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
