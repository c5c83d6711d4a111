//! Encoding of QoS 0 batches that several sessions share.
//!
//! A batch with many subscribers is the same bytes in the queue of each. Sessions of one protocol version whose packets
//! carry nothing of their own (no topic alias, no subscription identifier, no expiry to count down) get the same
//! PUBLISH packets. Each thread encodes a batch when the second session sends it, and copies the packets to the others.
//!
//! Bound: a thread caches [`CACHED_BATCHES_MAX`] batches of at most [`CACHED_BATCH_BYTES_MAX`] bytes with their packets.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::Bytes;
use inver_broker::LiveBatch;
use inver_storage::batch::records;

use crate::codec::{PropertiesBuf, Publish, Qos, Version};
use crate::config::AmqpNames;
use crate::map::Outgoing;

/// Batches in a thread's cache: a session slightly behind the others sends as many at once.
const CACHED_BATCHES_MAX: usize = 16;

/// A larger batch is not cached.
const CACHED_BATCH_BYTES_MAX: usize = 256 * 1024;

/// What a session requires of shared packets.
#[derive(Clone, Copy)]
pub(super) struct Requirements {
    /// The client's maximum packet size.
    pub(super) packet_bytes_max: usize,
    /// A subscription keeps the RETAIN flag, which shared packets do not have.
    pub(super) retain_as_published: bool,
}

/// A cached batch.
struct Cached {
    batch: Bytes,
    version: Version,
    encoding: Encoding,
}

enum Encoding {
    /// Only one session has sent the batch so far.
    Pending,
    /// The packets differ by session or time.
    Impossible,
    Packets {
        bytes: Vec<u8>,
        /// Bytes of the payloads.
        payload_bytes: u64,
        /// Size of the largest packet.
        packet_bytes_max: usize,
        /// A message was published with RETAIN.
        retain: bool,
    },
}

thread_local! {
    static CACHE: RefCell<VecDeque<Cached>> = const { RefCell::new(VecDeque::new()) };
}

/// Writes the shared packets of a batch; the bytes of their payloads. None, and nothing written, if there are no packets that
/// meet the requirements.
pub(super) fn put_shared(
    batch: &LiveBatch,
    version: Version,
    requirements: Requirements,
    names: AmqpNames,
    out: &mut Vec<u8>,
) -> Option<u64> {
    // A finished batch (one with a topic) is a slice of a larger buffer, which the cache would keep in memory.
    if batch.topic.is_some() || batch.bytes.len() > CACHED_BATCH_BYTES_MAX {
        return None;
    }
    CACHE.with_borrow_mut(|cache| {
        let is_same = |cached: &Cached| {
            cached.version == version
                && cached.batch.as_ptr() == batch.bytes.as_ptr()
                && cached.batch.len() == batch.bytes.len()
        };
        let Some(cached) = cache.iter_mut().rev().find(|cached| is_same(cached)) else {
            if cache.len() == CACHED_BATCHES_MAX {
                cache.pop_front();
            }
            cache.push_back(Cached { batch: batch.bytes.clone(), version, encoding: Encoding::Pending });
            return None;
        };
        if let Encoding::Pending = cached.encoding {
            cached.encoding = encode(&cached.batch, version, names).unwrap_or(Encoding::Impossible);
        }
        match &cached.encoding {
            Encoding::Packets { bytes, payload_bytes, packet_bytes_max, retain }
                if *packet_bytes_max <= requirements.packet_bytes_max
                    && !(*retain && requirements.retain_as_published) =>
            {
                out.extend_from_slice(bytes);
                Some(*payload_bytes)
            }
            _ => None,
        }
    })
}

/// Encodes a batch; `None` if its packets depend on when or to whom they are sent.
fn encode(batch: &Bytes, version: Version, names: AmqpNames) -> Option<Encoding> {
    let mut bytes = Vec::with_capacity(batch.len());
    let (mut payload_bytes, mut packet_bytes_max, mut retain) = (0, 0, false);
    let mut properties = PropertiesBuf::new();
    for record in records(batch).ok()? {
        let record = record.ok()?;
        let Some(outgoing) = Outgoing::read(&record, None, names) else { continue };
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
        payload_bytes += publish.payload.len() as u64;
        packet_bytes_max = packet_bytes_max.max(bytes.len() - start);
    }
    Some(Encoding::Packets { bytes, payload_bytes, packet_bytes_max, retain })
}
