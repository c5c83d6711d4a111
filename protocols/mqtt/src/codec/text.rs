//! What a topic name and a topic filter may look like (section 4.7), and how a shared one is split (section 4.8.2).

use super::{error::DecodeError, reason::Reason};

type Result<T> = std::result::Result<T, DecodeError>;

/// A topic name: without wildcards [MQTT-3.3.2-2]. That it is not empty [MQTT-4.7.3-1] is asked where it is known
/// whether a topic alias stands for it.
pub(crate) fn check_topic(topic: &str) -> Result<()> {
    if topic.bytes().any(|byte| byte == b'+' || byte == b'#') {
        return Err(DecodeError::because(
            Reason::TopicNameInvalid,
            "a wildcard in a topic name [MQTT-3.3.2-2]",
        ));
    }
    Ok(())
}

/// A topic filter as it is subscribed to, with `$share/…` before it or without.
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
            return invalid("# must stand alone at the end of a topic filter [MQTT-4.7.1-1]");
        }
        if level.contains('+') && level.len() > 1 {
            return invalid("+ must stand alone in its level [MQTT-4.7.1-2]");
        }
    }
    Ok(())
}

/// Whether a topic filter is a shared subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared<'a> {
    /// It does not begin with `$share/`.
    No,
    /// `$share/{group}/{filter}`.
    Yes {
        /// The share name.
        group: &'a str,
        /// The filter after it.
        filter: &'a str,
    },
    /// It begins with `$share` and has no name [MQTT-4.8.2-1], a wildcard in the name, or no filter [MQTT-4.8.2-2].
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
    fn filters() {
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
    fn shared_filters_are_split_at_the_name() {
        assert_eq!(split_shared("$share/g/a/b"), Shared::Yes { group: "g", filter: "a/b" });
        assert_eq!(split_shared("$share/g//b"), Shared::Yes { group: "g", filter: "/b" });
        assert_eq!(split_shared("share/g/b"), Shared::No);
    }
}
