//! The settings of a broker that a topic's settings have their defaults from, in Kafka.

/// Topic setting and broker setting, ordered by the first.
const SYNONYMS: &[(&str, &str)] = &[
    ("cleanup.policy", "log.cleanup.policy"),
    ("compression.gzip.level", "compression.gzip.level"),
    ("compression.lz4.level", "compression.lz4.level"),
    ("compression.type", "compression.type"),
    ("compression.zstd.level", "compression.zstd.level"),
    ("delete.retention.ms", "log.cleaner.delete.retention.ms"),
    ("file.delete.delay.ms", "log.segment.delete.delay.ms"),
    ("flush.messages", "log.flush.interval.messages"),
    ("index.interval.bytes", "log.index.interval.bytes"),
    ("local.retention.bytes", "log.local.retention.bytes"),
    ("local.retention.ms", "log.local.retention.ms"),
    ("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
    ("max.decompressed.message.bytes", "max.decompressed.message.bytes"),
    ("max.message.bytes", "message.max.bytes"),
    ("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms"),
    ("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms"),
    ("message.timestamp.type", "log.message.timestamp.type"),
    ("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio"),
    ("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms"),
    ("min.insync.replicas", "min.insync.replicas"),
    ("preallocate", "log.preallocate"),
    ("remote.copy.lag.bytes", "log.remote.copy.lag.bytes"),
    ("remote.copy.lag.ms", "log.remote.copy.lag.ms"),
    ("retention.bytes", "log.retention.bytes"),
    ("segment.bytes", "log.segment.bytes"),
    ("segment.index.bytes", "log.index.size.max.bytes"),
    ("unclean.leader.election.enable", "unclean.leader.election.enable"),
];

/// The broker's setting that a topic's setting has its default from, if it has one of the same unit.
pub(crate) fn of(topic_setting: &str) -> Option<&'static str> {
    let place = SYNONYMS.binary_search_by_key(&topic_setting, |(name, _)| name).ok()?;
    SYNONYMS.get(place).map(|(_, synonym)| *synonym)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::topic;

    #[test]
    fn every_setting_with_a_synonym_exists() {
        assert!(SYNONYMS.is_sorted_by_key(|(name, _)| name));
        assert!(SYNONYMS.iter().all(|(name, _)| topic::find(name).is_some()));
        assert_eq!((of("cleanup.policy"), of("retention.ms")), (Some("log.cleanup.policy"), None));
    }
}
