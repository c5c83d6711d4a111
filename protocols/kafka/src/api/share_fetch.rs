//! ShareFetch: a member of a share group acknowledges records and acquires others (KIP-932). The connection's
//! [`Sharer`](crate::share::Sharer) does the work.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::{Reply, message};
use crate::access;
pub use crate::share::message::*;
use crate::share::{self, Rejected};

/// The ShareFetch API.
pub struct ShareFetch;

impl Handler for ShareFetch {
    const KEY: i16 = 78;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const FLEXIBLE_FROM: i16 = 0;

    const LENGTH: Length = Length::Turn;

    type Request = ShareFetchRequest;
    type Response = ShareFetchResponse;

    fn handle(cx: &mut RequestContext<'_>, request: ShareFetchRequest) -> Reply<ShareFetchResponse> {
        match submit(cx, &request) {
            Ok(number) => Reply::ShareFetch(number),
            Err((error_code, text)) => Reply::now(ShareFetchResponse {
                error_code,
                error_message: message(text),
                ..ShareFetchResponse::default()
            }),
        }
    }
}

fn submit(cx: &mut RequestContext<'_>, request: &ShareFetchRequest) -> Result<u64, Rejected> {
    let member = share::member(request.group_id.as_ref(), request.member_id.as_ref())?;
    cx.access.check_group(&member.0, Operation::Read).map_err(|code| (code, access::text(code)))?;
    let (header, now) = (cx.header, cx.now);
    cx.sharer().submit(header, request, member, now)
}
