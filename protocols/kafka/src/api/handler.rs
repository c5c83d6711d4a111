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

    /// Body of a request.
    type Request: Wire;
    /// Body of a response.
    type Response: Wire;

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
    let request = H::Request::read(&mut body, header.version).map_err(|source| {
        ConnectionError::Malformed { api: header.api.name, version: header.version.number, source }
    })?;
    let reply = H::handle(cx, request);
    let throttle_time_ms = cx.throttle_time_ms();
    Ok(reply.map(|mut response| {
        if throttle_time_ms > 0 {
            response.throttle(throttle_time_ms);
        }
        encode(arena, header, &response)
    }))
}
