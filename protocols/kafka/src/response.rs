//! The encoding of responses, with the errors in them counted.

use std::time::Duration;

use bytes::BytesMut;

use crate::codec::frame::{self, Frame};
use crate::codec::header::ResponseHeader;
use crate::codec::wire::Wire;
use crate::metrics;

/// Encodes a response into `arena` and counts the errors in it.
pub(crate) fn encode<T: Wire>(arena: &mut BytesMut, header: ResponseHeader, body: &T) -> Frame {
    body.each_error(&mut |code| metrics::count_error(header.api, code));
    frame::encode(arena, header, body)
}

/// A delay as responses have it; not 0 if there is one.
pub(crate) fn throttle_ms(delay: Duration) -> i32 {
    i32::try_from(delay.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}
