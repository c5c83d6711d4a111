//! Compaction settings of a topic: translates `cleanup.policy` and its companions into the log's policy.
//!
//! A topic with the policy `compact` keeps the last record of each key only. The log stores the policy with each stream
//! and applies it by itself; it is set in the entry that creates or changes the topic.

use std::time::Duration;

use inver_storage::{Compaction, Entry, StreamId};

use crate::spec::TopicConfig;

/// Defaults of the settings, as in Kafka.
const DELETE_RETENTION_MS: u64 = 86_400_000;
const DIRTY_RATIO_MIN: f64 = 0.5;

/// Sets the compaction of a topic's streams in an entry, if it changed.
pub(super) fn put(
    entry: &mut Entry,
    streams: impl IntoIterator<Item = StreamId>,
    before: Option<&TopicConfig>,
    config: &TopicConfig,
) {
    let policy = of_settings(config);
    if before.and_then(of_settings) != policy {
        streams.into_iter().for_each(|stream| entry.set_compaction(stream, policy));
    }
}

/// The policy of the settings; `None` without compaction.
fn of_settings(config: &TopicConfig) -> Option<Compaction> {
    config.get("cleanup.policy").filter(|policy| policy.split(',').any(|part| part.trim() == "compact"))?;
    let ms = |name: &str, default| {
        let set = config.get(name).and_then(|value| value.trim().parse().ok());
        Duration::from_millis(set.unwrap_or(default))
    };
    let ratio = config.get("min.cleanable.dirty.ratio").and_then(|value| value.trim().parse::<f64>().ok());
    let percent = ratio.filter(|ratio| ratio.is_finite()).unwrap_or(DIRTY_RATIO_MIN).clamp(0.0, 1.0) * 100.0;
    Some(Compaction {
        delete_retention: ms("delete.retention.ms", DELETE_RETENTION_MS),
        dirty_percent_min: percent as u32,
        lag_min: ms("min.compaction.lag.ms", 0),
        lag_max: ms("max.compaction.lag.ms", i64::MAX as u64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(settings: &[(&str, &str)]) -> Option<Compaction> {
        of_settings(&settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn only_topics_with_the_policy_are_compacted() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("cleanup.policy", "delete"), ("delete.retention.ms", "5")]), None);
        let defaults = Compaction {
            delete_retention: Duration::from_secs(86_400),
            dirty_percent_min: 50,
            lag_min: Duration::ZERO,
            lag_max: Duration::from_millis(i64::MAX as u64),
        };
        assert_eq!(of(&[("cleanup.policy", "compact")]), Some(defaults));
        assert_eq!(of(&[("cleanup.policy", "delete, compact")]), Some(defaults));
        let set = of(&[
            ("cleanup.policy", "compact"),
            ("delete.retention.ms", "5"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("min.compaction.lag.ms", "7"),
            ("max.compaction.lag.ms", "9"),
        ]);
        let expected = Compaction {
            delete_retention: Duration::from_millis(5),
            dirty_percent_min: 1,
            lag_min: Duration::from_millis(7),
            lag_max: Duration::from_millis(9),
        };
        assert_eq!(set, Some(expected));
    }
}
