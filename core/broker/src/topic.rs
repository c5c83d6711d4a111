//! Topics and their partitions.
//!
//! Owns the handles of a topic's streams and its settings; the namespace owns its rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use inver_storage::{Offset, ReadError, Stream};
use parking_lot::RwLock;

use crate::batch_format::BatchFormat;
use crate::ordered::Named;
use crate::peek;
use crate::spec::{HubMode, TopicConfig, TopicId, TopicKind, hub};

/// A topic.
pub struct Topic {
    id: TopicId,
    name: Arc<str>,
    kind: TopicKind,
    partitions: RwLock<Vec<Arc<Partition>>>,
    config: RwLock<Arc<TopicConfig>>,
    format: RwLock<Option<Arc<BatchFormat>>>,
    /// The broker's default, and the present mode as a number of [`HubMode`]: read for every batch.
    hub_default: HubMode,
    hub: AtomicU8,
    /// See [`Topic::retains`].
    retains: AtomicBool,
}

/// A partition of a topic: a stream of the log.
pub struct Partition {
    index: u32,
    stream: Stream,
}

impl Topic {
    pub(crate) fn new(
        id: TopicId,
        name: &str,
        kind: TopicKind,
        streams: Vec<Stream>,
        config: TopicConfig,
        hub_default: HubMode,
    ) -> Topic {
        let partitions = streams.into_iter().enumerate().map(|(i, s)| Partition::new(i as u32, s)).collect();
        Topic {
            id,
            name: name.into(),
            kind,
            partitions: RwLock::new(partitions),
            format: RwLock::new(BatchFormat::of(&config)),
            hub_default,
            hub: AtomicU8::new(HubMode::of(name, kind, &config, hub_default) as u8),
            retains: AtomicBool::new(hub::retains(&config)),
            config: RwLock::new(Arc::new(config)),
        }
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> TopicId {
        self.id
    }

    /// Its name within its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    /// Log or queue.
    #[must_use]
    pub fn kind(&self) -> TopicKind {
        self.kind
    }

    /// The number of partitions.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        self.partitions.read().len() as u32
    }

    /// The partition of this index.
    #[must_use]
    pub fn partition(&self, index: u32) -> Option<Arc<Partition>> {
        self.partitions.read().get(index as usize).cloned()
    }

    /// All partitions, in order.
    #[must_use]
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().clone()
    }

    /// Visits all partitions without copying the list.
    pub(crate) fn for_each_partition(&self, act: impl FnMut(&Arc<Partition>)) {
        self.partitions.read().iter().for_each(act);
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.read().clone()
    }

    pub(crate) fn set_config(&self, config: TopicConfig) {
        *self.format.write() = BatchFormat::of(&config);
        let hub = HubMode::of(&self.name, self.kind, &config, self.hub_default);
        self.hub.store(hub as u8, Ordering::Release);
        self.retains.store(hub::retains(&config), Ordering::Release);
        *self.config.write() = Arc::new(config);
    }

    /// How it takes part in the hub.
    #[must_use]
    pub fn hub(&self) -> HubMode {
        match self.hub.load(Ordering::Acquire) {
            open if open == HubMode::Open as u8 => HubMode::Open,
            off if off == HubMode::Off as u8 => HubMode::Off,
            _ => HubMode::Named,
        }
    }

    /// Whether its records can set retained values.
    pub(crate) fn retains(&self) -> bool {
        self.retains.load(Ordering::Acquire)
    }

    /// The format of batches that the broker composes for it, if not the default.
    pub(crate) fn format(&self) -> Option<Arc<BatchFormat>> {
        self.format.read().clone()
    }

    pub(crate) fn add_partitions(&self, streams: Vec<Stream>) {
        let mut partitions = self.partitions.write();
        for stream in streams {
            let index = partitions.len() as u32;
            partitions.push(Partition::new(index, stream));
        }
    }

    /// The partition of a key, as Kafka clients' default partitioner chooses it; the first without a key.
    #[must_use]
    pub fn partition_of(&self, key: Option<&[u8]>) -> Option<Arc<Partition>> {
        let partitions = self.partitions.read();
        let index = match (key, partitions.len()) {
            (_, 0) => return None,
            (None, _) | (_, 1) => 0,
            (Some(key), n) => (murmur2(key) & 0x7fff_ffff) as usize % n,
        };
        partitions.get(index).cloned()
    }
}

impl Named for Topic {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Partition {
    fn new(index: u32, stream: Stream) -> Arc<Partition> {
        Arc::new(Partition { index, stream })
    }

    /// Its index within the topic.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its stream in the log.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The offset of the first message with a timestamp at or after a time (milliseconds since 1970); the end of the
    /// partition if there is none. Can read from disk: call where blocking is allowed.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn offset_at(&self, timestamp_ms: i64) -> Result<Offset, ReadError> {
        peek::offset_at(&self.stream, timestamp_ms)
    }

    /// The timestamp of the first message at or above an offset, milliseconds since 1970; none if there is none, or only
    /// behind megabytes of aborted transactions. Can read from disk: call where blocking is allowed.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn timestamp_at(&self, from: Offset) -> Result<Option<i64>, ReadError> {
        peek::timestamp_at(&self.stream, from)
    }
}

/// MurmurHash2 with the seed that producers use to choose a partition (public-domain algorithm by A. Appleby).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for c in &mut chunks {
        let mut k = u32::from_le_bytes([c[0], c[1], c[2], c[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (i, b) in rest.iter().enumerate() {
            h ^= u32::from(*b) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::murmur2;

    #[test]
    fn hashes_agree_with_the_clients_partitioner() {
        // Vectors of Kafka's Utils.murmur2.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }
}
