//! Whether producers can have records of a log topic appended later.

use super::topic::{TopicConfig, TopicError, TopicKind, check_flag, is_true};

/// The setting of a topic.
const SETTING: &str = "inver.delay";

/// Whether records of a topic are appended later if a header says so.
pub(crate) fn delays(kind: TopicKind, config: &TopicConfig) -> bool {
    kind == TopicKind::Log && is_true(config, SETTING)
}

/// Checks the setting.
pub(crate) fn check(config: &TopicConfig) -> Result<(), TopicError> {
    check_flag(config, SETTING)
}
