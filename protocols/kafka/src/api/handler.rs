//! The interface of an API: its messages, its versions and its handler.

use std::ops::RangeInclusive;

use bytes::BytesMut;

use super::context::RequestContext;
use super::reply::Reply;
use crate::codec::api::Api;
use crate::codec::frame::Frame;
use crate::codec::reader::Reader;
use crate::codec::wire::Wire;
use crate::error::ConnectionError;
use crate::response::encode;

/// Bytes of a request from which it counts as long, where its size tells.
const LONG_REQUEST_BYTES: usize = 8 * 1024;

/// How long the requests of an API may take. Those that may take longer than a turn are handled on another thread
/// ([`Reply::Detach`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// They fit in a turn, or their handler finds out that they do not, or they need the connection's session.
    Turn,
    /// The larger ones may be long.
    BySize,
    /// All may be: an administrator's, for example.
    Long,
}

/// An API. Its handler is a function of the request and a [`RequestContext`]; it knows no socket and no connection.
pub(crate) trait Handler {
    /// Api key.
    const KEY: i16;
    /// Versions answered.
    const VERSIONS: RangeInclusive<i16>;
    /// First version with compact lengths and tagged fields (KIP-482); above [`Handler::VERSIONS`] if there is none.
    const FLEXIBLE_FROM: i16;
    /// Whether an unauthenticated client may call it.
    const BEFORE_AUTHENTICATION: bool = false;
    /// Whether requests carry record batches, for which `produce_bytes_max` holds instead of `request_bytes_max`.
    const CARRIES_RECORDS: bool = false;

    /// How long a request may take.
    const LENGTH: Length = Length::BySize;

    /// Body of a request.
    type Request: Wire;
    /// Body of a response.
    type Response: Wire;

    /// Whether a request may take longer than a turn although its size does not tell.
    fn is_long(cx: &RequestContext<'_>, request: &Self::Request) -> bool {
        let _ = (cx, request);
        false
    }

    /// Handles a request.
    fn handle(cx: &mut RequestContext<'_>, request: Self::Request) -> Reply<Self::Response>;
}

impl Api {
    /// The description of the API that `H` handles.
    pub(super) const fn of<H: Handler>(name: &'static str) -> Api {
        Api {
            key: H::KEY,
            name,
            version_min: *H::VERSIONS.start(),
            version_max: *H::VERSIONS.end(),
            flexible_from: H::FLEXIBLE_FROM,
            before_authentication: H::BEFORE_AUTHENTICATION,
            carries_records: H::CARRIES_RECORDS,
        }
    }
}

/// Decodes a request, handles it and encodes the response into `arena`. Bytes after the request are ignored, as
/// Kafka does.
///
/// Not inlined: the dispatch would have the stack frames of all handlers.
#[inline(never)]
pub(super) fn run<H: Handler>(
    cx: &mut RequestContext<'_>,
    mut body: Reader,
    arena: &mut BytesMut,
) -> Result<Reply<Frame>, ConnectionError> {
    let header = cx.header;
    let is_long = match H::LENGTH {
        Length::Turn => false,
        Length::BySize => cx.request_bytes > LONG_REQUEST_BYTES,
        Length::Long => true,
    };
    if is_long && !cx.is_detached {
        return Ok(Reply::Detach);
    }
    let request = H::Request::read(&mut body, header.version).map_err(|source| {
        ConnectionError::Malformed { api: header.api.name, version: header.version.number, source }
    })?;
    if !cx.is_detached && H::is_long(cx, &request) {
        return Ok(Reply::Detach);
    }
    let reply = H::handle(cx, request);
    let throttle_time_ms = cx.throttle_time_ms();
    Ok(reply.map(|mut response| {
        if throttle_time_ms > 0 {
            response.throttle(throttle_time_ms);
        }
        encode(arena, header, &response)
    }))
}
