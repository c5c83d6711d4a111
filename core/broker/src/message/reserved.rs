//! Reserved names: those of the origin and of the properties that the broker writes.
//!
//! A consumer that looks a header up by its name must find what the broker wrote, whichever of several headers of that
//! name it takes. So a user's header of a reserved name is stored under another name: with [`CLAIMED`] in front. A name
//! that is reserved behind any number of these prefixes gets one more, so that taking one away gives back what the user
//! wrote. The user's own protocol does that; others deliver the name with its prefix.

use std::borrow::Cow;

use super::origin;
use super::properties::name;

/// The prefix of a user's header whose name is reserved.
pub const CLAIMED: &[u8] = b"claimed-";

/// Names of properties that only one protocol writes and reads.
const OF_ONE_PROTOCOL: [&[u8]; 5] =
    [b"mqtt-retain", b"mqtt-payload-format", b"mqtt-inbox-for", b"amqp-properties", b"stream-message"];

/// Whether the broker writes headers of this name.
fn is_reserved(header: &[u8]) -> bool {
    is_vouched(header)
        || matches!(
            header,
            name::EXPIRES
                | name::DELIVERY_MODE
                | name::PRIORITY
                | name::TIMESTAMP
                | name::CONTENT_TYPE
                | name::CONTENT_ENCODING
                | name::CORRELATION_ID
                | name::REPLY_TO
                | name::MESSAGE_ID
                | name::TYPE
                | name::APP_ID
        )
}

/// Whether the value under this name is the broker's own word, and not the publisher's: who published, where and how.
fn is_vouched(header: &[u8]) -> bool {
    matches!(
        header,
        origin::HEADER
            | name::EXCHANGE
            | name::ROUTING_KEY
            | name::MORE_KEYS
            | name::ADDRESS
            | name::QOS
            | name::USER_ID
            | name::CLIENT_ID
            | name::DEATH
    ) || OF_ONE_PROTOCOL.contains(&header)
}

/// The name behind all prefixes.
fn bare(mut header: &[u8]) -> &[u8] {
    while let Some(rest) = header.strip_prefix(CLAIMED) {
        header = rest;
    }
    header
}

/// Whether a user's header of this name is stored under another.
pub(super) fn needs_claim(header: &[u8]) -> bool {
    is_reserved(bare(header))
}

/// The name that the user wrote, from the one that is stored.
pub(super) fn unclaimed(stored: &[u8]) -> &[u8] {
    match stored.strip_prefix(CLAIMED) {
        Some(written) if needs_claim(written) => written,
        _ => stored,
    }
}

/// How a reader of another protocol is shown the name of a user's header.
pub(super) fn shown(stored: &[u8], from: From) -> Cow<'_, [u8]> {
    let written = match from {
        // The broker put the prefix before all reserved names when it composed the record.
        From::Producer { recomposed: true } => unclaimed(stored),
        _ => stored,
    };
    let claims = match from {
        From::Producer { .. } => is_vouched(written),
        // Composed before names were reserved.
        From::Composed => is_reserved(written),
    };
    if claims { Cow::Owned(claimed(written)) } else { Cow::Borrowed(written) }
}

/// Who wrote the headers of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// A producer, in a batch of its own; the broker may have composed the record again since.
    Producer { recomposed: bool },
    /// The broker.
    Composed,
}

/// A name with the prefix.
pub(super) fn claimed(header: &[u8]) -> Vec<u8> {
    [CLAIMED, header].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What [`super::HeaderWriter::user`](crate::message::HeaderWriter::user) stores.
    fn stored(name: &[u8]) -> Vec<u8> {
        if needs_claim(name) { claimed(name) } else { name.to_vec() }
    }

    proptest! {
        #[test]
        fn a_stored_name_is_never_reserved_and_gives_back_what_was_written(
            prefixes in 0usize..4,
            name in prop_oneof!["[a-z-]{0,12}", Just("user-id".to_owned()), Just("inver-origin".to_owned()), Just("type".to_owned())],
        ) {
            let written = [&b"claimed-".repeat(prefixes)[..], name.as_bytes()].concat();
            let stored = stored(&written);
            prop_assert!(!is_reserved(&stored));
            prop_assert_eq!(unclaimed(&stored), &written[..]);
        }
    }

    #[test]
    fn all_that_the_broker_writes_is_reserved() {
        for name in
            ["inver-origin", "user-id", "client-id", "mqtt-topic", "mqtt-retain", "content-type", "expires"]
        {
            assert_eq!(stored(name.as_bytes()), [b"claimed-", name.as_bytes()].concat(), "{name}");
        }
        for name in ["User-Id", "user-id2", "claimed-", "claimed-x", "", "inver-key"] {
            assert_eq!(stored(name.as_bytes()), name.as_bytes(), "{name}");
        }
    }

    #[test]
    fn readers_of_other_protocols_see_which_names_are_claims() {
        let producer = From::Producer { recomposed: false };
        let again = From::Producer { recomposed: true };
        for (from, stored, wanted) in [
            (producer, "user-id", "claimed-user-id"),
            (producer, "claimed-user-id", "claimed-user-id"),
            (again, "claimed-claimed-user-id", "claimed-user-id"),
            (producer, "content-type", "content-type"),
            (again, "claimed-user-id", "claimed-user-id"),
            (again, "claimed-content-type", "content-type"),
            (From::Composed, "claimed-user-id", "claimed-user-id"),
            (From::Composed, "claimed-type", "claimed-type"),
            (From::Composed, "type", "claimed-type"),
            (From::Composed, "other", "other"),
        ] {
            assert_eq!(&*shown(stored.as_bytes(), from), wanted.as_bytes(), "{from:?} {stored}");
        }
    }
}
