//! ListTransactions: the transactions (KIP-664). There are none.

use std::ops::RangeInclusive;

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-2, flexible 0+.
    pub struct ListTransactionsRequest {
        state_filters: Vec<Str> [0..],
        producer_id_filters: Vec<i64> [0..],
        duration_filter: i64 [1..; default -1],
        transactional_id_pattern: Option<Str> [2..; null 2..],
    }

    /// Versions 0-2, flexible 0+.
    pub struct ListTransactionsResponse {
        throttle_time_ms: i32 [0..],
        error_code: ErrorCode [0..],
        unknown_state_filters: Vec<Str> [0..],
        transaction_states: Vec<TransactionState> [0..],
    }

    /// The current state of the transaction for the transactional id.
    pub struct TransactionState {
        transactional_id: Str [0..],
        producer_id: i64 [0..],
        transaction_state: Str [0..],
    }
}

/// The ListTransactions API.
pub struct ListTransactions;

/// States that a filter can name.
const STATES: &[&str] = &[
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

impl Handler for ListTransactions {
    const KEY: i16 = 66;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE_FROM: i16 = 0;

    const LENGTH: Length = Length::Long;

    type Request = ListTransactionsRequest;
    type Response = ListTransactionsResponse;

    fn handle(
        _: &mut RequestContext<'_>,
        request: ListTransactionsRequest,
    ) -> Reply<ListTransactionsResponse> {
        let unknown = request.state_filters.into_iter().filter(|state| !STATES.contains(&state.as_str()));
        Reply::now(ListTransactionsResponse {
            unknown_state_filters: unknown.collect(),
            ..ListTransactionsResponse::default()
        })
    }
}
