//! Best-effort messages, by the batch, and their encoding that sessions share.
//!
//! A batch that many sessions hear is the same bytes in each of their live queues. Sessions of one version that want
//! nothing of their own with it (no alias, no subscription identifier, no expiry to count down) get the same PUBLISH
//! packets: they are encoded once a thread, from the second session that meets the batch on, and copied to the others.
//!
//! Bound: a thread remembers [`REMEMBERED_MAX`] batches of [`REMEMBERED_BYTES_MAX`] bytes at most with their encoding.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::Bytes;
use inver_broker::LiveBatch;
use inver_storage::batch::records;

use super::Session;
use crate::buffers;
use crate::codec::{PropertiesBuf, Publish, Qos, Version};
use crate::map::Outgoing;

/// Batches that a thread remembers: a session that is a little behind meets as many at once.
const REMEMBERED_MAX: usize = 16;

/// A larger batch is not remembered.
const REMEMBERED_BYTES_MAX: usize = 256 * 1024;

impl Session {
    /// Writes what waits in the live queue, as far as the output takes it.
    pub(super) fn deliver_live(&mut self, out: &mut Vec<u8>) {
        let full = self.config.output_bytes_max;
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
        if self.is_like_others() && put_shared(batch, self.version, self.asks(), out) {
            self.sent += batch.messages as u32;
            return;
        }
        let records = match records(&batch.bytes) {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%error, "a batch cannot be read");
                return;
            }
        };
        for record in records {
            match record {
                Ok(record) => self.send_live(&record, batch.topic.as_deref(), out),
                Err(error) => {
                    tracing::error!(%error, "the rest of a batch cannot be read");
                    return;
                }
            }
        }
    }

    /// Whether what it gets at QoS 0 is what other sessions get.
    fn is_like_others(&self) -> bool {
        !self.subscriptions.any_id() && (self.version != Version::V5 || !self.aliases_out.sets_any())
    }

    fn asks(&self) -> Asks {
        Asks {
            packet_bytes_max: self.client_packet_bytes_max,
            retain_as_published: self.subscriptions.any_retain_as_published(),
        }
    }
}

/// What a session asks of packets made for all.
#[derive(Clone, Copy)]
struct Asks {
    packet_bytes_max: usize,
    /// Some of them would have the RETAIN flag, if they were published with it.
    retain_as_published: bool,
}

/// A batch that was met.
struct Met {
    batch: Bytes,
    version: Version,
    encoded: Encoded,
}

enum Encoded {
    /// By one session only, so far.
    NotYet,
    /// Not every session gets the same.
    Never,
    Packets {
        bytes: Vec<u8>,
        /// The largest of them.
        packet_bytes_max: usize,
        /// One was published with RETAIN.
        retain: bool,
    },
}

thread_local! {
    static MET: RefCell<VecDeque<Met>> = const { RefCell::new(VecDeque::new()) };
}

/// Writes the packets of a batch that all get alike. False, and nothing written, if there are none for who asks.
fn put_shared(batch: &LiveBatch, version: Version, asks: Asks, out: &mut Vec<u8>) -> bool {
    // A finished batch is part of a larger buffer, which must not be kept because of it.
    if batch.topic.is_some() || batch.bytes.len() > REMEMBERED_BYTES_MAX {
        return false;
    }
    MET.with_borrow_mut(|met| {
        let same = |met: &Met| {
            met.version == version
                && met.batch.as_ptr() == batch.bytes.as_ptr()
                && met.batch.len() == batch.bytes.len()
        };
        let Some(met) = met.iter_mut().rev().find(|met| same(met)) else {
            if met.len() == REMEMBERED_MAX {
                met.pop_front();
            }
            met.push_back(Met { batch: batch.bytes.clone(), version, encoded: Encoded::NotYet });
            return false;
        };
        if let Encoded::NotYet = met.encoded {
            met.encoded = encode(&met.batch, version).unwrap_or(Encoded::Never);
        }
        match &met.encoded {
            Encoded::Packets { bytes, packet_bytes_max, retain }
                if *packet_bytes_max <= asks.packet_bytes_max && !(*retain && asks.retain_as_published) =>
            {
                out.extend_from_slice(bytes);
                true
            }
            _ => false,
        }
    })
}

/// The packets of a batch, unless what they are depends on when or to whom they are sent.
fn encode(batch: &Bytes, version: Version) -> Option<Encoded> {
    let mut bytes = Vec::with_capacity(batch.len());
    let (mut packet_bytes_max, mut retain) = (0, false);
    let mut properties = PropertiesBuf::new();
    for record in records(batch).ok()? {
        let record = record.ok()?;
        let Some(outgoing) = Outgoing::read(&record, None) else { continue };
        if outgoing.expires_ms.is_some() {
            return None;
        }
        retain |= outgoing.retain;
        properties.clear();
        if version == Version::V5 {
            outgoing.put_properties(0, &mut properties);
        }
        let start = bytes.len();
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: &outgoing.topic,
            packet_id: 0,
            properties: properties.as_ref(),
            payload: record.value.as_deref().unwrap_or_default(),
        };
        publish.encode(version, &mut bytes).ok()?;
        packet_bytes_max = packet_bytes_max.max(bytes.len() - start);
    }
    Some(Encoded::Packets { bytes, packet_bytes_max, retain })
}
