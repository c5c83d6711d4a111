//! Errors of the API as problem details (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use inver_broker::{
    AccessError, BansError, BindError, ExchangeError, GroupError, NamespaceError, PolicyError, ProduceError,
    PublishError, QueueError, QuotasError, SessionError, SkipError, SubscriptionError, TopicError,
};
use inver_settings::{MESSAGE_BYTES_MAX, excerpt};
use inver_storage::{LogError, ReadError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::bridges::BridgesError;

/// Bytes of the reasons why something is refused that may have many faults.
const REASONS_BYTES_MAX: usize = 64 << 10;

/// A problem: its type is `about:blank`, so its title is the status' phrase.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
}

/// Problem details (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'a> {
    /// `about:blank`: the status says what kind of problem it is.
    r#type: &'static str,
    /// The status' phrase.
    title: &'static str,
    status: u16,
    /// What is wrong.
    detail: &'a str,
}

impl Problem {
    /// The media type of a problem as a body (RFC 9457).
    pub(super) const MEDIA_TYPE: &str = "application/problem+json";

    fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem::bounded(status, &detail.into(), MESSAGE_BYTES_MAX)
    }

    fn bounded(status: StatusCode, detail: &str, bytes_max: usize) -> Problem {
        Problem { status, detail: excerpt(detail, bytes_max).into_owned() }
    }

    /// A problem of this status.
    pub(super) fn of(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem::new(status, detail)
    }

    /// Its status, and what is wrong.
    pub(super) fn into_parts(self) -> (StatusCode, String) {
        (self.status, self.detail)
    }

    /// The request is not one that the resource understands.
    pub(super) fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Credentials are missing or wrong.
    pub(super) fn unauthorized(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// The user may not do this.
    pub(super) fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, detail)
    }

    /// There is no such resource.
    pub(super) fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// The request did not come in time.
    pub(super) fn timeout(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
    }

    /// The resource does not have this method.
    pub(super) fn method_not_allowed() -> Problem {
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the Allow header names the methods of this resource")
    }

    /// The request is understood and cannot be carried out as things are.
    pub(super) fn unprocessable(detail: impl Into<String>) -> Problem {
        Problem::bounded(StatusCode::UNPROCESSABLE_ENTITY, &detail.into(), REASONS_BYTES_MAX)
    }

    /// The state of the resource does not allow it.
    pub(super) fn conflict(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, detail)
    }

    /// The body is larger than the resource accepts.
    pub(super) fn too_large(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// The body is of another media type than the resource accepts.
    pub(super) fn unsupported_media_type(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// A limit is reached; later it may work.
    pub(super) fn too_many(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
    }

    /// A fault of the broker.
    pub(super) fn internal(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// The broker cannot write.
    pub(super) fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = Body { r#type: "about:blank", title, status: self.status.as_u16(), detail: &self.detail };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE));
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Basic realm=\"inver\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Problem {
        let text = error.to_string();
        match error {
            AccessError::NoSuchUser(_) => Problem::not_found(text),
            AccessError::InvalidName | AccessError::Pattern(_) => Problem::bad_request(text),
            AccessError::ReadOnly(_) | AccessError::Limit(_) => Problem::conflict(text),
            AccessError::Log(error) => error.into(),
        }
    }
}

impl From<BansError> for Problem {
    fn from(error: BansError) -> Problem {
        let text = error.to_string();
        match error {
            BansError::BadText => Problem::bad_request(text),
            BansError::Limit(_) => Problem::conflict(text),
            BansError::Log(error) => error.into(),
        }
    }
}

impl From<BridgesError> for Problem {
    fn from(error: BridgesError) -> Problem {
        let text = error.to_string();
        match error {
            BridgesError::Invalid(_) => Problem::bad_request(text),
            BridgesError::Configured(_) | BridgesError::SameSession(_) | BridgesError::TooMany => {
                Problem::conflict(text)
            }
            BridgesError::Unfinished => Problem::unavailable(text),
            BridgesError::Log(error) => error.into(),
            BridgesError::Session(error) => error.into(),
        }
    }
}

impl From<QuotasError> for Problem {
    fn from(error: QuotasError) -> Problem {
        let text = error.to_string();
        match error {
            QuotasError::Invalid(_) => Problem::bad_request(text),
            QuotasError::ReadOnly(_) | QuotasError::Limit(_) => Problem::conflict(text),
            QuotasError::Log(error) => error.into(),
        }
    }
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Problem {
        let text = error.to_string();
        match error {
            PolicyError::Unknown { .. } => Problem::not_found(text),
            PolicyError::Invalid(_) => Problem::bad_request(text),
            PolicyError::NotAllowed(_) => Problem::forbidden(text),
            PolicyError::Limit(_) => Problem::conflict(text),
            PolicyError::Log(error) => error.into(),
        }
    }
}

impl From<NamespaceError> for Problem {
    fn from(error: NamespaceError) -> Problem {
        let text = error.to_string();
        match error {
            NamespaceError::Unknown(_) => Problem::not_found(text),
            NamespaceError::InvalidName | NamespaceError::InvalidSpec => Problem::bad_request(text),
            NamespaceError::Exists(_)
            | NamespaceError::BeingDeleted(_)
            | NamespaceError::Protected(_)
            | NamespaceError::Default
            | NamespaceError::Limit(_) => Problem::conflict(text),
            NamespaceError::Log(error) => error.into(),
        }
    }
}

impl From<TopicError> for Problem {
    fn from(error: TopicError) -> Problem {
        let detail = error.to_string();
        match error {
            TopicError::Unknown(_) => Problem::not_found(detail),
            TopicError::Exists(_) | TopicError::IsQueue(_) | TopicError::Limit(_) => {
                Problem::conflict(detail)
            }
            TopicError::BadName(..) | TopicError::BadPartitions(_) | TopicError::BadConfig(_) => {
                Problem::bad_request(detail)
            }
            TopicError::NotAllowed(_) => Problem::forbidden(detail),
            TopicError::Log(_) => Problem::unavailable(detail),
        }
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Problem {
        let detail = error.to_string();
        match error {
            QueueError::Unknown(_) => Problem::not_found(detail),
            QueueError::BadName(_) => Problem::bad_request(detail),
            QueueError::NotAllowed(_) => Problem::forbidden(detail),
            QueueError::IsLogTopic(_)
            | QueueError::InUse(_)
            | QueueError::NotEmpty(_)
            | QueueError::Limit(_) => Problem::conflict(detail),
            QueueError::StreamMissing(_) => Problem::internal(detail),
            QueueError::Log(_) => Problem::unavailable(detail),
        }
    }
}

impl From<ExchangeError> for Problem {
    fn from(error: ExchangeError) -> Problem {
        let detail = error.to_string();
        match error {
            ExchangeError::Unknown(_) => Problem::not_found(detail),
            ExchangeError::InUse(_) | ExchangeError::Limit(_) => Problem::conflict(detail),
            ExchangeError::NotAllowed(_) => Problem::forbidden(detail),
            ExchangeError::Log(_) => Problem::unavailable(detail),
        }
    }
}

impl From<BindError> for Problem {
    fn from(error: BindError) -> Problem {
        let detail = error.to_string();
        match error {
            BindError::NoSource(_) | BindError::NoQueue(_) | BindError::NoExchange(_) => {
                Problem::not_found(detail)
            }
            BindError::NotAllowed(_) => Problem::forbidden(detail),
            BindError::Limit(_) => Problem::conflict(detail),
            BindError::Log(_) => Problem::unavailable(detail),
        }
    }
}

impl From<SubscriptionError> for Problem {
    fn from(error: SubscriptionError) -> Problem {
        let detail = error.to_string();
        match error {
            SubscriptionError::Unknown(_) => Problem::not_found(detail),
            SubscriptionError::ModeClash(_)
            | SubscriptionError::NotDurable
            | SubscriptionError::InUse(_)
            | SubscriptionError::Limit(_) => Problem::conflict(detail),
            SubscriptionError::Log(_) => Problem::unavailable(detail),
        }
    }
}

impl From<GroupError> for Problem {
    fn from(error: GroupError) -> Problem {
        let detail = error.to_string();
        match error {
            GroupError::Unknown(_) => Problem::not_found(detail),
            GroupError::InUse(_) => Problem::conflict(detail),
            GroupError::Log(_) => Problem::unavailable(detail),
        }
    }
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Problem {
        let detail = error.to_string();
        match error {
            SessionError::Busy | SessionError::Limit(_) => Problem::conflict(detail),
            SessionError::OtherOwner => Problem::forbidden(detail),
            SessionError::InboxMissing => Problem::internal(detail),
            SessionError::Log(_) => Problem::unavailable(detail),
        }
    }
}

impl From<SkipError> for Problem {
    fn from(error: SkipError) -> Problem {
        let detail = error.to_string();
        match error {
            SkipError::Unknown(_) => Problem::conflict(detail),
            SkipError::Log(_) => Problem::unavailable(detail),
        }
    }
}

impl From<ProduceError> for Problem {
    fn from(error: ProduceError) -> Problem {
        let detail = error.to_string();
        match error {
            ProduceError::Address { .. } => Problem::bad_request(detail),
            ProduceError::Transaction(_) | ProduceError::Log(_) => Problem::unavailable(detail),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Problem {
        let detail = error.to_string();
        match error {
            PublishError::NoSuchExchange(_) => Problem::not_found(detail),
            PublishError::TooLong(_) => Problem::bad_request(detail),
            PublishError::Internal(_) => Problem::conflict(detail),
            PublishError::Refused(_) | PublishError::KeyRefused { .. } => Problem::forbidden(detail),
            PublishError::Log(_) => Problem::unavailable(detail),
        }
    }
}

impl From<inver_storage::SubmitError> for Problem {
    fn from(error: inver_storage::SubmitError) -> Problem {
        Problem::unavailable(error.to_string())
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Problem {
        Problem::unavailable(error.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Problem {
        match error {
            ReadError::OutOfRange { .. } => Problem::bad_request(error.to_string()),
            ReadError::Deleted => Problem::not_found(error.to_string()),
            _ => Problem::internal(error.to_string()),
        }
    }
}
