//! Fetch: sends stored record batches as they are. The connection's [`Fetcher`](crate::fetch::Fetcher) does the work.

use std::ops::RangeInclusive;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
pub use crate::fetch::message::*;

/// The Fetch API.
pub struct Fetch;

impl Handler for Fetch {
    const KEY: i16 = 1;
    const VERSIONS: RangeInclusive<i16> = 4..=18;
    const FLEXIBLE_FROM: i16 = 12;

    const LENGTH: Length = Length::Turn;

    type Request = FetchRequest;
    type Response = FetchResponse;

    fn handle(cx: &mut RequestContext<'_>, request: FetchRequest) -> Reply<FetchResponse> {
        if cx.namespace().traces().tracer().is_some() {
            cx.fetcher.trace_as(cx.client_id.as_deref().unwrap_or_default());
        }
        Reply::Fetch(cx.fetcher.submit(cx.header, request, cx.request_bytes))
    }
}
