//! Rules for topic names and topic filters (section 4.7), and the parts of shared subscriptions (section 4.8.2).

use super::error::DecodeError;
use super::reason::Reason;

type Result<T> = std::result::Result<T, DecodeError>;

/// Checks that a topic name has no wildcards [MQTT-3.3.2-2]. An empty name [MQTT-4.7.3-1] is checked where it is known
/// whether a topic alias replaces it.
pub(crate) fn check_topic(topic: &str) -> Result<()> {
    if topic.bytes().any(|byte| byte == b'+' || byte == b'#') {
        return Err(DecodeError::because(
            Reason::TopicNameInvalid,
            "a wildcard in a topic name [MQTT-3.3.2-2]",
        ));
    }
    Ok(())
}

/// Checks a topic filter of SUBSCRIBE or UNSUBSCRIBE, with or without `$share/{group}/`.
pub(crate) fn check_filter(filter: &str) -> Result<()> {
    const fn invalid<T>(what: &'static str) -> Result<T> {
        Err(DecodeError::because(Reason::TopicFilterInvalid, what))
    }
    let filter = match split_shared(filter) {
        Shared::No => filter,
        Shared::Yes { filter, .. } => filter,
        Shared::Invalid => {
            return invalid(
                "a shared subscription without a name or a filter [MQTT-4.8.2-1], [MQTT-4.8.2-2]",
            );
        }
    };
    if filter.is_empty() {
        return invalid("an empty topic filter [MQTT-4.7.3-1]");
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level.len() > 1 || levels.peek().is_some()) {
            return invalid("# must be the whole last level of a topic filter [MQTT-4.7.1-1]");
        }
        if level.contains('+') && level.len() > 1 {
            return invalid("+ must be a whole level of a topic filter [MQTT-4.7.1-2]");
        }
    }
    Ok(())
}

/// The parts of a topic filter that may be a shared subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared<'a> {
    /// Not shared: it does not begin with `$share/`.
    No,
    /// `$share/{group}/{filter}`.
    Yes {
        /// The share name.
        group: &'a str,
        /// The topic filter.
        filter: &'a str,
    },
    /// `$share` without a name [MQTT-4.8.2-1], with a wildcard in the name, or without a filter [MQTT-4.8.2-2].
    Invalid,
}

/// Splits `$share/{group}/{filter}`.
pub fn split_shared(filter: &str) -> Shared<'_> {
    let Some(rest) = filter.strip_prefix("$share") else { return Shared::No };
    let Some(rest) = rest.strip_prefix('/') else {
        return if rest.is_empty() { Shared::Invalid } else { Shared::No };
    };
    match rest.split_once('/') {
        Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty() => {
            Shared::Yes { group, filter }
        }
        _ => Shared::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for good in
            ["a", "/", "+", "#", "a/#", "+/a/+", "/+", "a//b", "$share/g/a/#", "$SYS/#", "$shares/x", "é/#"]
        {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "#/a",
            "a#",
            "a/#/b",
            "a+",
            "+a/b",
            "$share",
            "$share/g",
            "$share//a",
            "$share/g/",
            "$share/+/a",
            "$share/g/a#",
        ] {
            assert_eq!(
                check_filter(bad).map_err(|error| error.reason),
                Err(Reason::TopicFilterInvalid),
                "{bad}"
            );
        }
    }

    #[test]
    fn shared_filters_are_split_into_group_and_filter() {
        assert_eq!(split_shared("$share/g/a/b"), Shared::Yes { group: "g", filter: "a/b" });
        assert_eq!(split_shared("$share/g//b"), Shared::Yes { group: "g", filter: "/b" });
        assert_eq!(split_shared("share/g/b"), Shared::No);
    }
}
