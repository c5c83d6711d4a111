//! Death records: which queues dropped a message, why, and how often. A dead-lettered message carries one property
//! `death` for each queue and reason, newest first.
//!
//! The stored form is one byte for its version, then the record's fields in the `postcard` encoding, names as bytes with
//! their length. No UTF-8 text begins with a version byte (0xF8 to 0xFF), which distinguishes the binary form
//! from the text form of the first version. That form is still read. The text form has seven lines (queue, reason,
//! exchange, routing key, time, count, time to live or nothing), in which `\` and line feeds are `\\` and `\n`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::properties::parse;
use crate::spec::DropReason;

/// The version byte of the binary form.
const VERSION_1: u8 = 0xF9;

/// The reasons by their names.
const REASONS: [DropReason; 5] = [
    DropReason::Expired,
    DropReason::Rejected,
    DropReason::MaxLength,
    DropReason::DeliveryLimit,
    DropReason::Damaged,
];

/// The times that one queue dropped a message for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death<'a> {
    /// The queue.
    pub queue: Cow<'a, str>,
    /// The reason.
    pub reason: DropReason,
    /// The exchange that the message had been published to when it was dropped last.
    pub exchange: Cow<'a, [u8]>,
    /// The routing key that it had been published with.
    pub routing_key: Cow<'a, [u8]>,
    /// When it was dropped last: milliseconds since 1970.
    pub time_ms: i64,
    /// How often it was dropped.
    pub count: u64,
    /// The message's own time to live until then, in milliseconds.
    pub ttl_ms: Option<i64>,
}

/// The fields of a [`Death`] as version 1 stores them, in this order.
#[derive(Serialize, Deserialize)]
struct RowV1<'a> {
    queue: &'a str,
    reason: DropReason,
    exchange: &'a [u8],
    routing_key: &'a [u8],
    time_ms: i64,
    count: u64,
    ttl_ms: Option<i64>,
}

impl<'a> Death<'a> {
    /// Decodes a property's value; none if it is damaged or of a later version.
    #[must_use]
    pub fn decode(value: &'a [u8]) -> Option<Death<'a>> {
        match value.split_first()? {
            (&VERSION_1, row) => {
                let row: RowV1<'a> = postcard::from_bytes(row).ok()?;
                Some(Death {
                    queue: row.queue.into(),
                    reason: row.reason,
                    exchange: row.exchange.into(),
                    routing_key: row.routing_key.into(),
                    time_ms: row.time_ms,
                    count: row.count,
                    ttl_ms: row.ttl_ms,
                })
            }
            (0xF8..=0xFF, _) => None,
            _ => Death::decode_text(std::str::from_utf8(value).ok()?),
        }
    }

    /// Decodes the text form of the first version.
    fn decode_text(text: &'a str) -> Option<Death<'a>> {
        let bytes = |text: Cow<'a, str>| match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        let mut lines = text.split('\n').map(unescaped);
        let queue = lines.next()?;
        let reason = lines.next()?;
        Some(Death {
            queue,
            reason: REASONS.into_iter().find(|known| known.as_str() == reason)?,
            exchange: bytes(lines.next()?),
            routing_key: bytes(lines.next()?),
            time_ms: lines.next()?.parse().ok()?,
            count: lines.next()?.parse().ok()?,
            ttl_ms: parse(lines.next().unwrap_or_default().as_bytes()),
        })
    }

    /// Encodes a property's value in the newest form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let row = RowV1 {
            queue: &self.queue,
            reason: self.reason,
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            time_ms: self.time_ms,
            count: self.count,
            ttl_ms: self.ttl_ms,
        };
        // Writing to memory fails only for values that postcard has no form for; a row has none of those.
        postcard::to_extend(&row, vec![VERSION_1]).unwrap_or_default()
    }
}

/// A line of the text form without its escapes.
fn unescaped(line: &str) -> Cow<'_, str> {
    if !line.contains('\\') {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn death(queue: &str) -> Death<'_> {
        Death {
            queue: queue.into(),
            reason: DropReason::Expired,
            exchange: Cow::Borrowed(b"ex\nch"),
            routing_key: Cow::Borrowed(b"k\\n\xff"),
            time_ms: 1_700_000_001_000,
            count: 3,
            ttl_ms: Some(100),
        }
    }

    #[test]
    fn the_binary_form_is_fixed() {
        let death = Death { queue: "q".into(), exchange: Cow::Borrowed(b""), ..death("q") };
        let stored = b"\xf9\x01q\x00\x00\x04k\\n\xff\xd0\xaf\xab\xfe\xf9\x62\x03\x01\xc8\x01";
        assert_eq!(death.encode(), stored);
        assert_eq!(Death::decode(stored), Some(death));
    }

    #[test]
    fn names_with_backslashes_and_line_feeds_are_kept() {
        for queue in ["loop\\new", "loop\nnew", "\\", "\\n", "\\\\n", "", "é"] {
            let death = death(queue);
            assert_eq!(Death::decode(&death.encode()), Some(death));
        }
    }

    #[test]
    fn the_text_form_of_the_first_version_is_read() {
        let death = Death::decode(b"loop\\\\new\nexpired\nex\\nch\nk\\\\n\n1700000001000\n3\n100").unwrap();
        let wanted = Death { routing_key: Cow::Borrowed(b"k\\n"), ..self::death("loop\\new") };
        assert_eq!(death, wanted);
        for (line, reason) in [
            ("rejected", DropReason::Rejected),
            ("maxlen", DropReason::MaxLength),
            ("delivery_limit", DropReason::DeliveryLimit),
        ] {
            let text = format!("q\n{line}\n\nk\n1700000002000\n1\n");
            let death = Death::decode(text.as_bytes()).unwrap();
            assert_eq!((&*death.queue, death.reason, death.ttl_ms), ("q", reason, None));
        }
    }

    #[test]
    fn damaged_records_are_none() {
        for value in [
            &b""[..],
            b"\xf9",
            b"\xfa\x01q",
            b"\xf9\xff\xff\xff\xff\x0f",
            b"q\nlost\n\n\n1\n1\n",
            b"q\nexpired\n",
        ] {
            assert_eq!(Death::decode(value), None, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn any_death_decodes_to_what_was_encoded(
            queue in ".{0,20}",
            reason in 0..REASONS.len(),
            exchange in vec(any::<u8>(), 0..20),
            routing_key in vec(any::<u8>(), 0..20),
            time_ms in any::<i64>(),
            count in any::<u64>(),
            ttl_ms in any::<Option<i64>>(),
        ) {
            let death = Death {
                queue: queue.into(),
                reason: REASONS[reason],
                exchange: exchange.into(),
                routing_key: routing_key.into(),
                time_ms,
                count,
                ttl_ms,
            };
            let stored = death.encode();
            prop_assert_eq!(Death::decode(&stored), Some(death));
        }

        #[test]
        fn any_bytes_decode_to_something_or_nothing(bytes in vec(any::<u8>(), 0..60)) {
            let _either = Death::decode(&bytes);
            let _either = Death::decode(&[&[VERSION_1], &bytes[..]].concat());
        }
    }
}
