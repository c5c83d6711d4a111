//! The trace that a message carries in its headers.

use inver_storage::batch::{BatchHeader, Record};

use super::headers::{HeaderWriter, Headers};
use super::view::RawHeaders;
use crate::traces::TRACEPARENT;

/// The attribute bits that name a compression.
const COMPRESSION: i16 = 0x7;

/// The value of the header [`TRACEPARENT`] of encoded headers.
pub(crate) fn traceparent_of(headers: Headers<'_>) -> Option<&[u8]> {
    find(RawHeaders::encoded(headers.bytes, headers.count))
}

/// The value of the header [`TRACEPARENT`] of a record.
#[must_use]
pub fn traceparent(record: &Record) -> Option<&[u8]> {
    // Most messages have none, and are searched fastest as a whole.
    memchr::memmem::find(&record.headers, TRACEPARENT.as_bytes())?;
    find(RawHeaders::of(record))
}

/// Whether records of a batch can carry traces: compressed ones cannot be searched.
#[must_use]
pub fn may_have_traces(batch: &[u8]) -> bool {
    let is_compressed = BatchHeader::parse(batch).is_ok_and(|header| header.attributes & COMPRESSION != 0);
    is_compressed || memchr::memmem::find(batch, TRACEPARENT.as_bytes()).is_some()
}

fn find(mut headers: RawHeaders<'_>) -> Option<&[u8]> {
    headers.find(|(name, _)| *name == TRACEPARENT.as_bytes()).map(|(_, value)| value.unwrap_or_default())
}

/// The headers with a header [`TRACEPARENT`] behind them, in `buffer`.
pub(crate) fn with_traceparent<'a>(
    headers: Headers<'_>,
    traceparent: &str,
    buffer: &'a mut HeaderWriter,
) -> Headers<'a> {
    buffer.begin_with(headers);
    buffer.user(TRACEPARENT.as_bytes(), Some(traceparent.as_bytes()));
    buffer.headers()
}
