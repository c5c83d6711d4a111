//! Errors as RabbitMQ's management API answers them: `{"error": …, "reason": …}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::http::problem::Problem;
use crate::protocols::{Refused, RefusedKind};

/// An error of this API.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    error: &'static str,
    reason: String,
}

impl Fault {
    /// The request is not understood, or the broker's state does not allow it.
    pub(super) fn bad_request(reason: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, "bad_request", reason)
    }

    /// As [`bad_request`](Self::bad_request), under another name.
    pub(super) fn named(error: &'static str, reason: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, error, reason)
    }

    /// There is no such object.
    pub(super) fn not_found() -> Fault {
        Fault::new(StatusCode::NOT_FOUND, "Object Not Found", "Not Found")
    }

    /// There is no such object, which the reason names.
    pub(super) fn absent(reason: &'static str) -> Fault {
        Fault::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    /// The user may not do this.
    pub(super) fn not_authorised(reason: impl Into<String>) -> Fault {
        Fault::new(StatusCode::UNAUTHORIZED, "not_authorised", reason)
    }

    /// The body is larger than accepted.
    pub(super) fn too_large(reason: impl Into<String>) -> Fault {
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", reason)
    }

    /// The login failed.
    pub(super) fn login_failed() -> Fault {
        Fault::new(StatusCode::UNAUTHORIZED, "not_authorized", "Not_Authorized")
    }

    fn new(status: StatusCode, error: &'static str, reason: impl Into<String>) -> Fault {
        Fault { status, error, reason: reason.into() }
    }

    /// Whether the request could not be carried out, whatever it asks for.
    pub(super) fn is_of_server(&self) -> bool {
        self.status.is_server_error()
    }

    /// What is wrong, in words.
    pub(super) fn into_reason(self) -> String {
        self.reason
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Fault {
        let (status, detail) = problem.into_parts();
        match status {
            StatusCode::UNAUTHORIZED => Fault::login_failed(),
            StatusCode::FORBIDDEN => Fault::not_authorised(detail),
            StatusCode::NOT_FOUND => Fault::not_found(),
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT => Fault::bad_request(detail),
            StatusCode::SERVICE_UNAVAILABLE => Fault::new(status, "service_unavailable", detail),
            StatusCode::INTERNAL_SERVER_ERROR => Fault::new(status, "internal_error", detail),
            _ => Fault::new(status, "bad_request", detail),
        }
    }
}

impl From<Refused> for Fault {
    fn from(Refused { kind, text }: Refused) -> Fault {
        match kind {
            RefusedKind::Access => Fault::not_authorised("Access refused."),
            RefusedKind::NotFound => Fault::new(StatusCode::NOT_FOUND, "not_found", text),
            RefusedKind::Request => Fault::bad_request(text),
            RefusedKind::Internal => Fault::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", text),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.error, "reason": self.reason}))).into_response()
    }
}

/// The answer to a request that shows no credentials.
pub(super) fn who_are_you() -> Response {
    let realm = HeaderValue::from_static("Basic realm=\"RabbitMQ Management\"");
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, realm)]).into_response()
}
