//! FindCoordinator: the node that coordinates a group or a transaction. This one coordinates all.

use std::ops::RangeInclusive;

use inver_access::Operation;

use super::context::RequestContext;
use super::handler::Handler;
use super::reply::{Reply, message};
use crate::access::{self, Access};
use crate::codec::error_code::ErrorCode;
use crate::codec::messages::messages;
use crate::codec::text::Str;

messages! {
    /// Versions 0-6, flexible 3+.
    pub struct FindCoordinatorRequest {
        key: Str [0..=3],
        key_type: i8 [1..],
        coordinator_keys: Vec<Str> [4..],
    }

    /// Versions 0-6, flexible 3+.
    pub struct FindCoordinatorResponse {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode [0..=3],
        error_message: Option<Str> [1..=3; null 1..=3],
        node_id: i32 [0..=3],
        host: Str [0..=3],
        port: i32 [0..=3],
        coordinators: Vec<Coordinator> [4..],
    }

    /// Each coordinator result in the response.
    pub struct Coordinator {
        key: Str [4..],
        node_id: i32 [4..],
        host: Str [4..],
        port: i32 [4..],
        error_code: ErrorCode [4..],
        error_message: Option<Str> [4..; null 4..],
    }
}

/// The FindCoordinator API.
pub struct FindCoordinator;

/// Key type of groups.
const GROUP: i8 = 0;
/// Key type of transactions.
const TRANSACTION: i8 = 1;

impl Handler for FindCoordinator {
    const KEY: i16 = 10;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    const FLEXIBLE_FROM: i16 = 3;

    type Request = FindCoordinatorRequest;
    type Response = FindCoordinatorResponse;

    fn handle(
        cx: &mut RequestContext<'_>,
        request: FindCoordinatorRequest,
    ) -> Reply<FindCoordinatorResponse> {
        let (host, port) = cx.advertised_address();
        let node_id = cx.config().node_id;
        let access = cx.access;
        let coordinator = |key: Str| match check(access, request.key_type, &key) {
            Ok(()) => Coordinator {
                key,
                node_id,
                host: host.clone(),
                port,
                error_code: ErrorCode::NONE,
                error_message: None,
            },
            Err((error_code, text)) => Coordinator {
                key,
                node_id: -1,
                host: Str::default(),
                port: -1,
                error_code,
                error_message: message(text),
            },
        };
        if cx.version() >= 4 {
            let coordinators = request.coordinator_keys.into_iter().map(coordinator).collect();
            return Reply::now(FindCoordinatorResponse {
                coordinators,
                ..FindCoordinatorResponse::default()
            });
        }
        let found = coordinator(request.key);
        Reply::now(FindCoordinatorResponse {
            error_code: found.error_code,
            error_message: found.error_message,
            node_id: found.node_id,
            host: found.host,
            port: found.port,
            ..FindCoordinatorResponse::default()
        })
    }
}

/// Whether a key has a coordinator that the client may use.
fn check(access: &Access, key_type: i8, key: &str) -> Result<(), (ErrorCode, &'static str)> {
    match key_type {
        GROUP => access.check_group(key, Operation::Describe).map_err(|code| (code, access::text(code))),
        TRANSACTION if key.is_empty() => Err((ErrorCode::INVALID_REQUEST, "the transactional id is empty")),
        TRANSACTION => {
            access.check_transaction(key, Operation::Describe).map_err(|code| (code, access::text(code)))
        }
        _ => Err((ErrorCode::INVALID_REQUEST, "only groups and transactions have a coordinator")),
    }
}
