//! Queues that are log topics of one partition: every consumer reads all of it, from where it asks for.

use std::ops::RangeInclusive;

use inver_storage::{Offset, Stream};

use super::delivery::Start;
use super::queue::QueueSpec;
use super::topic::TopicConfig;
use crate::value::Value;

/// Milliseconds of the units of an age.
const UNITS: [(char, u64); 6] = [
    ('Y', 365 * 24 * 3_600_000),
    ('M', 30 * 24 * 3_600_000),
    ('D', 24 * 3_600_000),
    ('h', 3_600_000),
    ('m', 60_000),
    ('s', 1000),
];

/// The milliseconds of an age, as in `7D`: a number and one of the units `Y`, `M`, `D`, `h`, `m`, `s`.
#[must_use]
pub fn age_ms(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number = text.strip_suffix(unit)?;
    let number: u64 = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    number.checked_mul(*unit_ms).filter(|ms| *ms > 0 && *ms <= i64::MAX as u64)
}

/// The largest segment that a declaration may ask for; it has no effect.
pub const STREAM_SEGMENT_BYTES_MAX: u64 = 3_000_000_000;
/// The sizes of a filter that a declaration may ask for; they have no effect.
pub const STREAM_FILTER_BYTES: RangeInclusive<i128> = 16..=255;

/// Where a reader of a stream starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// With the first message that is kept.
    First,
    /// With the last message.
    Last,
    /// With the next message that is published.
    Next,
    /// With the message of this offset.
    Offset(u64),
    /// With the first message of this time or later, milliseconds since 1970.
    Time(i64),
}

impl OffsetSpec {
    /// The place in a stream; none for a time: where that is may need the disk. Only the last message needs the stream.
    #[must_use]
    pub fn start(self, stream: Option<&Stream>) -> Option<Start> {
        match self {
            OffsetSpec::First => Some(Start::Earliest),
            OffsetSpec::Last => {
                stream.map(|stream| Start::At(Offset(stream.high_watermark().0.saturating_sub(1))))
            }
            OffsetSpec::Next => Some(Start::Latest),
            OffsetSpec::Offset(offset) => Some(Start::At(Offset(offset))),
            OffsetSpec::Time(_) => None,
        }
    }
}

/// Which messages a reader of a stream gets, by their filter values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFilter {
    /// Messages with one of these values.
    pub values: Vec<String>,
    /// Messages without a value too.
    pub unfiltered: bool,
}

impl StreamFilter {
    /// Whether a message with this filter value is among them.
    #[must_use]
    pub fn matches(&self, value: Option<&[u8]>) -> bool {
        match value {
            Some(value) => self.values.iter().any(|wanted| wanted.as_bytes() == value),
            None => self.unfiltered,
        }
    }
}

/// The settings of the topic that such a queue is. Its name is no address in the hub; it keeps everything unless its
/// arguments bound it.
pub(crate) fn topic_config(spec: &QueueSpec) -> TopicConfig {
    let age = spec.arguments.get("x-max-age").and_then(Value::as_str).and_then(age_ms);
    let bytes = spec.arguments.get("x-max-length-bytes").and_then(Value::as_int).filter(|bytes| *bytes > 0);
    let shown = |number: Option<i128>| number.unwrap_or(-1).min(i64::MAX.into()).to_string();
    TopicConfig::from([
        ("inver.hub".to_owned(), "off".to_owned()),
        ("retention.ms".to_owned(), shown(age.map(i128::from))),
        ("retention.bytes".to_owned(), shown(bytes)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_units() {
        for (text, ms) in
            [("7D", 604_800_000), ("1Y", 31_536_000_000), ("2M", 5_184_000_000), ("3h", 10_800_000)]
        {
            assert_eq!(age_ms(text), Some(ms), "{text}");
        }
        assert_eq!((age_ms("10m"), age_ms("30s")), (Some(600_000), Some(30_000)));
        for bad in ["", "5", "D", "5x", "0s", "-1s", "+1s", "1.5h", "99999999999999999999D", "5é"] {
            assert_eq!(age_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_stream_keeps_what_its_arguments_say() {
        let config = |arguments: &[(&str, Value)]| {
            let arguments =
                arguments.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            let config = topic_config(&QueueSpec { arguments, ..QueueSpec::default() });
            (config["retention.ms"].clone(), config["retention.bytes"].clone())
        };
        assert_eq!(config(&[]), ("-1".into(), "-1".into()));
        let both = [("x-max-age", Value::Text(b"1h".to_vec())), ("x-max-length-bytes", Value::Int(5000))];
        assert_eq!(config(&both), ("3600000".into(), "5000".into()));
        assert_eq!(config(&[("x-max-length-bytes", Value::Int(0))]), ("-1".into(), "-1".into()));
    }
}
