//! ListTransactions: the transactions (KIP-664), by state, producer, age and id (KIP-1152).

use std::ops::RangeInclusive;

use inver_access::Operation;
use inver_broker::TransactionInfo;
use regex::{Regex, RegexBuilder};

use super::context::RequestContext;
use super::handler::{Handler, Length};
use super::reply::Reply;
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::transactions::state_name;

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

/// Bytes of a compiled pattern: a class of all letters takes some ten thousand.
const PATTERN_BYTES_MAX: usize = 1 << 20;

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
        cx: &mut RequestContext<'_>,
        request: ListTransactionsRequest,
    ) -> Reply<ListTransactionsResponse> {
        let (known, unknown): (Vec<Str>, Vec<Str>) =
            request.state_filters.iter().cloned().partition(|state| STATES.contains(&state.as_str()));
        let mut response = ListTransactionsResponse {
            unknown_state_filters: unknown,
            ..ListTransactionsResponse::default()
        };
        let pattern = match request.transactional_id_pattern.as_deref().filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => match whole(text) {
                Ok(pattern) => Some(pattern),
                Err(_) => {
                    response.error_code = ErrorCode::INVALID_REGULAR_EXPRESSION;
                    return Reply::now(response);
                }
            },
        };
        let now_ms = cx.node.broker.clock().steady_ms();
        let is_listed = |info: &TransactionInfo| {
            let state = state_name(info.state);
            let producers = &request.producer_id_filters;
            let age_ms = info.started_ms.map(|started_ms| now_ms.saturating_sub(started_ms));
            (request.state_filters.is_empty() || known.iter().any(|wanted| wanted.as_str() == state))
                && (producers.is_empty() || producers.contains(&info.producer.id))
                && (request.duration_filter < 0
                    || age_ms.is_some_and(|age_ms| age_ms > request.duration_filter))
                && pattern.as_ref().is_none_or(|pattern| pattern.is_match(&info.id))
                && cx.access.may_transaction(&info.id, Operation::Describe)
        };
        let listed = cx.namespace().transactions().list().into_iter().filter(is_listed);
        let states = listed.map(|info| TransactionState {
            transactional_id: Str::from(&*info.id),
            producer_id: info.producer.id,
            transaction_state: Str::from_static(state_name(info.state)),
        });
        response.transaction_states = states.collect();
        Reply::now(response)
    }
}

/// A pattern that matches whole ids.
fn whole(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{text})$")).size_limit(PATTERN_BYTES_MAX).build()
}
