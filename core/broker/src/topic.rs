//! Topics and their partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use dashmap::DashMap;
use inver_storage::batch::Batch;
use inver_storage::{Stream, StreamId, SubmitError, Submitted};
use parking_lot::RwLock;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use crate::limits::LimitReached;
use crate::namespace::Namespace;
use crate::shape::Shape;

/// A topic's identity, which a topic of the same name made later does not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicId(pub u128);

/// How long a topic keeps what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopicKind {
    /// By time, size or key.
    Log,
    /// Until acknowledged.
    Queue,
}

/// What was set on a topic; what is not set has the default.
pub type TopicConfig = BTreeMap<String, String>;

/// What a new topic is to be.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// At least one.
    pub partitions: u32,
    /// Settings by name.
    pub config: TopicConfig,
}

/// Why a topic cannot be made, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The name is taken.
    #[error("topic '{0}' exists")]
    Exists(String),
    /// There is none of that name.
    #[error("there is no topic '{0}'")]
    Unknown(String),
    /// Empty, too long, or `.` or `..`.
    #[error("'{0}' cannot be the name of a topic: {1}")]
    BadName(String, &'static str),
    /// None, too many, or fewer than there are.
    #[error("{0}")]
    BadPartitions(String),
    /// A setting's value does not fit.
    #[error("{0}")]
    BadConfig(String),
    /// A queue belongs to those who declared it and is deleted by them.
    #[error("'{0}' is a queue")]
    IsQueue(String),
    /// There are too many.
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// The log takes no more.
    #[error("the log refuses: {0}")]
    Log(String),
}

/// Partitions of one topic.
pub const PARTITIONS_MAX: u32 = 100_000;

/// Bytes of a topic's name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Which topic a stream belongs to, by name.
#[derive(Default)]
pub(crate) struct StreamNames(DashMap<u64, Arc<str>, FxBuildHasher>);

impl StreamNames {
    pub(crate) fn get(&self, stream: StreamId) -> Option<Arc<str>> {
        self.0.get(&stream.0).map(|n| n.clone())
    }

    pub(crate) fn enter(&self, topic: &Topic) {
        for partition in topic.partitions() {
            self.0.insert(partition.stream.id().0, topic.name.clone());
        }
    }

    pub(crate) fn forget(&self, topic: &Topic) {
        for partition in topic.partitions() {
            self.0.remove(&partition.stream.id().0);
        }
    }
}

/// A named place for messages. See the crate's text.
pub struct Topic {
    id: TopicId,
    name: Arc<str>,
    kind: TopicKind,
    partitions: RwLock<Vec<Arc<Partition>>>,
    config: RwLock<Arc<TopicConfig>>,
    shape: RwLock<Option<Arc<Shape>>>,
}

/// One ordered part of a topic: a stream, and how the hub hears of what is appended to it.
pub struct Partition {
    index: u32,
    stream: Stream,
    pub(crate) hub: crate::produce::HubEar,
}

impl Topic {
    pub(crate) fn new(
        id: TopicId,
        name: &str,
        kind: TopicKind,
        streams: Vec<Stream>,
        config: TopicConfig,
    ) -> Topic {
        let partitions = streams.into_iter().enumerate().map(|(i, s)| Partition::new(i as u32, s)).collect();
        Topic {
            id,
            name: name.into(),
            kind,
            partitions: RwLock::new(partitions),
            shape: RwLock::new(Shape::of(&config)),
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

    /// How many partitions it has.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        self.partitions.read().len() as u32
    }

    /// One of them.
    #[must_use]
    pub fn partition(&self, index: u32) -> Option<Arc<Partition>> {
        self.partitions.read().get(index as usize).cloned()
    }

    /// All of them, in order.
    #[must_use]
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().clone()
    }

    /// Walks over them, without a copy of the list.
    pub(crate) fn for_each_partition(&self, act: impl FnMut(&Arc<Partition>)) {
        self.partitions.read().iter().for_each(act);
    }

    /// What was set on it.
    #[must_use]
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.read().clone()
    }

    pub(crate) fn set_config(&self, config: TopicConfig) {
        *self.shape.write() = Shape::of(&config);
        *self.config.write() = Arc::new(config);
    }

    /// How it wants the batches that the broker composes, if not as they come.
    pub(crate) fn shape(&self) -> Option<Arc<Shape>> {
        self.shape.read().clone()
    }

    pub(crate) fn add_partitions(&self, streams: Vec<Stream>) {
        let mut partitions = self.partitions.write();
        for stream in streams {
            let index = partitions.len() as u32;
            partitions.push(Partition::new(index, stream));
        }
    }

    /// The partition of a key, as the clients' default partitioner chooses it; without a key the first.
    #[must_use]
    pub(crate) fn partition_of(&self, key: Option<&[u8]>) -> Option<Arc<Partition>> {
        let partitions = self.partitions.read();
        let index = match (key, partitions.len()) {
            (_, 0) => return None,
            (None, _) | (_, 1) => 0,
            (Some(key), n) => (murmur2(key) & 0x7fff_ffff) as usize % n,
        };
        partitions.get(index).cloned()
    }
}

impl Partition {
    fn new(index: u32, stream: Stream) -> Arc<Partition> {
        Arc::new(Partition { index, stream, hub: crate::produce::HubEar::default() })
    }

    /// Its place within the topic.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What it is in the log.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Appends a finished batch as it is. Subscribers of the topic's address in the hub, and of the addresses
    /// that records name themselves, receive it too; where all records go the same way it is stored once.
    pub fn produce(
        &self,
        namespace: &Namespace,
        topic: &Topic,
        batch: Batch,
    ) -> Result<Submitted, SubmitError> {
        crate::produce::produce(namespace, topic, self, batch)
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

/// Checks a topic's name.
pub(crate) fn check_name(name: &str) -> Result<(), TopicError> {
    let bad = |why| Err(TopicError::BadName(name.to_owned(), why));
    match name {
        "" => bad("it is empty"),
        "." | ".." => bad("it is '.' or '..'"),
        n if n.len() > TOPIC_NAME_BYTES_MAX => bad("it is longer than 249 bytes"),
        n if n.bytes().any(|b| b.is_ascii_control()) => bad("it has a control character"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::murmur2;

    #[test]
    fn keys_go_where_the_clients_partitioner_sends_them() {
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
