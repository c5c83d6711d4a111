//! What the text of a topic filter asks for: besides `$share`, which the protocol has, `$queue` and `$exclusive` as other
//! servers have them. Functions of other servers that this one lacks are refused, so that a client learns it.

use std::borrow::Cow;

use crate::codec::{Shared, split_shared};
use crate::sys;

/// The prefix of a subscription shared by all that have it (EMQX).
const QUEUE: &str = "$queue/";

/// What a [`QUEUE`] subscription is stored as.
const QUEUE_GROUP: &str = "$share/$queue/";

/// The prefix of a subscription that one client has at a time (EMQX).
const EXCLUSIVE: &str = "$exclusive/";

/// The prefix of a topic that is published at after a delay: `$delayed/SECONDS/topic` (EMQX).
const DELAYED: &str = "$delayed/";

/// The longest delay, seconds, as in EMQX: about 49 days.
const DELAY_S_MAX: u32 = 4_294_967;

/// Topics by which other servers offer functions: delayed messages (in filters), events, transfer of files, streams,
/// administration.
const FOREIGN: [&str; 6] = [DELAYED, "$events/", "$file/", "$file-async/", "$stream/", "$CONTROL/"];

/// A subscription that a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    /// The filter as it is stored, with `$share/group/` if it is shared.
    pub(super) text: Cow<'a, str>,
    pub(super) is_shared: bool,
    pub(super) is_exclusive: bool,
}

/// Reads a topic filter, or says why it is refused.
pub(super) fn asked(filter: &str) -> Result<Asked<'_>, &'static str> {
    if let Some(rest) = filter.strip_prefix(QUEUE) {
        check_inner(rest)?;
        let text = format!("{QUEUE_GROUP}{rest}").into();
        return Ok(Asked { text, is_shared: true, is_exclusive: false });
    }
    if let Some(rest) = filter.strip_prefix(EXCLUSIVE) {
        check_inner(rest)?;
        return Ok(Asked { text: rest.into(), is_shared: false, is_exclusive: true });
    }
    let plain = inner(filter);
    let is_shared = matches!(split_shared(filter), Shared::Yes { .. });
    if is_foreign(plain) {
        return Err("a function of another server");
    }
    if plain.starts_with(sys::PREFIX) && !sys::may_match(plain) {
        return Err("no $SYS topic that this server has");
    }
    Ok(Asked { text: filter.into(), is_shared, is_exclusive: false })
}

/// The delay in milliseconds that a topic of a publish asks for, if it does, and the topic behind it. None: that is not well
/// formed.
pub(super) fn delayed(topic: &str) -> Option<(Option<i64>, &str)> {
    let Some(rest) = topic.strip_prefix(DELAYED) else { return Some((None, topic)) };
    let (seconds, topic) = rest.split_once('/')?;
    let is_number = seconds.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = seconds.parse().ok().filter(|seconds: &u32| is_number && *seconds <= DELAY_S_MAX)?;
    (!topic.is_empty()).then_some((Some(i64::from(seconds) * 1000), topic))
}

/// The filter behind the prefix or the group that it is asked for with, if there is one.
pub(super) fn inner(filter: &str) -> &str {
    if let Some(rest) = filter.strip_prefix(QUEUE).or_else(|| filter.strip_prefix(EXCLUSIVE)) {
        return rest;
    }
    match split_shared(filter) {
        Shared::Yes { filter: inner, .. } => inner,
        Shared::No | Shared::Invalid => filter,
    }
}

/// The text under which a subscription of this filter is stored, if any is.
pub(super) fn stored(filter: &str) -> Cow<'_, str> {
    asked(filter).map_or(Cow::Borrowed(filter), |asked| asked.text)
}

/// Whether a topic, or what a filter matches, is a function of another server.
pub(super) fn is_foreign(topic: &str) -> bool {
    FOREIGN.iter().any(|prefix| topic.starts_with(prefix))
}

/// Checks the filter behind a prefix.
fn check_inner(filter: &str) -> Result<(), &'static str> {
    match filter {
        "" => Err("no topic filter behind the prefix"),
        _ if filter.starts_with('$') => Err("one prefix inside another"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_of_topics() {
        assert_eq!(delayed("a/b"), Some((None, "a/b")));
        assert_eq!(delayed("$delayed/5/a/b"), Some((Some(5000), "a/b")));
        assert_eq!(delayed("$delayed/0//"), Some((Some(0), "/")));
        for topic in
            ["$delayed/", "$delayed/5", "$delayed/5/", "$delayed//a", "$delayed/+5/a", "$delayed/4294968/a"]
        {
            assert_eq!(delayed(topic), None, "{topic}");
        }
    }

    #[test]
    fn filters_are_read() {
        for (filter, text, is_shared, is_exclusive) in [
            ("a/#", "a/#", false, false),
            ("$share/g/a", "$share/g/a", true, false),
            ("$queue/a/+", "$share/$queue/a/+", true, false),
            ("$exclusive//a", "/a", false, true),
            ("$other/a", "$other/a", false, false),
            ("$SYS/#", "$SYS/#", false, false),
            ("$SYS/broker/connection/x/state", "$SYS/broker/connection/x/state", false, false),
        ] {
            assert_eq!(asked(filter), Ok(Asked { text: text.into(), is_shared, is_exclusive }), "{filter}");
        }
        for filter in [
            "$queue/",
            "$exclusive/",
            "$exclusive/$share/g/a",
            "$queue/$exclusive/a",
            "$delayed/5/a",
            "$share/g/$events/client_connected",
            "$CONTROL/dynamic-security/v1/response",
            "$SYS/unknown",
            "$SYS/broker/version/x",
        ] {
            assert!(asked(filter).is_err(), "{filter}");
        }
    }
}
