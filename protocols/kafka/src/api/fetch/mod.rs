//! Fetch: sends stored record batches as they are, and waits for more where there are too few.
//!
//! The files, bottom up: `message`; `ahead` (batches read before they are requested), `slot` (a partition of a plan),
//! `plan` (the partitions that a client fetches), `session` (plans kept between requests, KIP-227); `running` (the
//! fetch under way), `cold` (reads from disk), `response`; `fetcher`, which runs the fetches of a connection.

mod ahead;
mod cold;
mod fetcher;
mod message;
mod plan;
mod response;
mod running;
mod session;
mod slot;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

pub(crate) use self::fetcher::Fetcher;
pub use self::message::*;
use super::context::RequestContext;
use super::handler::Handler;
use super::reply::Reply;

/// The Fetch API.
pub struct Fetch;

impl Handler for Fetch {
    const KEY: i16 = 1;
    const VERSIONS: RangeInclusive<i16> = 4..=18;
    const FLEXIBLE_FROM: i16 = 12;

    type Request = FetchRequest;
    type Response = FetchResponse;

    fn handle(cx: &mut RequestContext<'_>, request: FetchRequest) -> Reply<FetchResponse> {
        Reply::Fetch(cx.fetcher.submit(cx.header, request))
    }
}
