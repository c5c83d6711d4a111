//! Fetch sessions (KIP-227): the broker keeps the plan, and requests name only what changes.

use super::message::FetchRequest;
use crate::codec::error_code::ErrorCode;

/// Epoch of a request that starts a session.
const INITIAL_EPOCH: i32 = 0;

/// Epoch of a request without a session; it ends the current one.
const FINAL_EPOCH: i32 = -1;

/// Session id of a response without a session.
pub(super) const NO_SESSION: i32 = 0;

/// First version with sessions.
const SINCE: i16 = 7;

/// First version that names topics by id.
const BY_ID_SINCE: i16 = 13;

/// The fetch session of a connection.
pub(super) struct FetchSession {
    id: i32,
    /// Epoch of the next request.
    epoch: i32,
    by_id: bool,
}

/// How to answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Negotiated {
    /// Session id of the response.
    pub(super) session_id: i32,
    /// Whether the request changes the plan, and the response leaves out what has not changed. Otherwise the request
    /// replaces the plan.
    pub(super) incremental: bool,
}

/// Starts, continues or ends the session as a request asks.
pub(super) fn negotiate(
    session: &mut Option<FetchSession>,
    version: i16,
    request: &FetchRequest,
) -> Result<Negotiated, ErrorCode> {
    let by_id = version >= BY_ID_SINCE;
    let (id, epoch) = match version {
        SINCE.. => (request.session_id, request.session_epoch),
        _ => (NO_SESSION, FINAL_EPOCH),
    };
    match epoch {
        FINAL_EPOCH => {
            *session = None;
            return Ok(Negotiated { session_id: NO_SESSION, incremental: false });
        }
        INITIAL_EPOCH => {
            let id = (uuid::Uuid::new_v4().as_u128() as i32 & i32::MAX).max(1);
            *session = Some(FetchSession { id, epoch: 1, by_id });
            return Ok(Negotiated { session_id: id, incremental: false });
        }
        _ => {}
    }
    let session = session.as_mut().filter(|session| session.id == id);
    let session = session.ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
    if session.epoch != epoch {
        return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
    }
    if session.by_id != by_id {
        return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
    }
    session.epoch = epoch.checked_add(1).unwrap_or(1);
    Ok(Negotiated { session_id: id, incremental: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(session_id: i32, session_epoch: i32) -> FetchRequest {
        FetchRequest { session_id, session_epoch, ..FetchRequest::default() }
    }

    #[test]
    fn epochs_start_continue_and_end_a_session() {
        let mut session = None;
        let started = negotiate(&mut session, 12, &request(0, 0)).unwrap();
        let id = started.session_id;
        assert!(id > 0 && !started.incremental);
        for epoch in 1..4 {
            let continued = negotiate(&mut session, 12, &request(id, epoch));
            assert_eq!(continued, Ok(Negotiated { session_id: id, incremental: true }));
        }
        let repeated = negotiate(&mut session, 12, &request(id, 3));
        assert_eq!(repeated, Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        let by_id = negotiate(&mut session, 13, &request(id, 4));
        assert_eq!(by_id, Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR));
        let other = negotiate(&mut session, 12, &request(id ^ 1, 4));
        assert_eq!(other, Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        let ended = negotiate(&mut session, 12, &request(id, -1));
        assert_eq!(ended, Ok(Negotiated { session_id: NO_SESSION, incremental: false }));
        let gone = negotiate(&mut session, 12, &request(id, 4));
        assert_eq!(gone, Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
    }

    #[test]
    fn versions_without_sessions_ignore_id_and_epoch() {
        let negotiated = negotiate(&mut None, 6, &request(5, 5));
        assert_eq!(negotiated, Ok(Negotiated { session_id: NO_SESSION, incremental: false }));
    }
}
