//! HTTP for `object_store`: connections that are kept, whole and bounded answers, and a note of how far each request came.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpService,
};
use parking_lot::Mutex;
use tokio_rustls::TlsConnector;

use super::answer::{Answer, Outcome};
use super::connect::Connector;

/// Connections that are kept without a request.
const IDLE_MAX: usize = 32;
/// Bytes of the longest answer that is no success.
const ERROR_BYTES_MAX: u64 = 64 << 10;
/// Time that a connection is kept without a request.
const IDLE_TIME_MAX: Duration = Duration::from_secs(20);

tokio::task_local! {
    /// The call of [`S3`](super::S3) that a request is made for.
    static CALL: Call;
}

/// One call: how long its answer may be, and how far its request came.
#[derive(Clone)]
pub(super) struct Call {
    body_bytes_max: u64,
    outcome: Arc<Mutex<Outcome>>,
}

impl Call {
    pub(super) fn new(body_bytes_max: u64) -> Call {
        Call { body_bytes_max, outcome: Arc::new(Mutex::new(Outcome::NotSent)) }
    }

    /// Runs what makes the request.
    pub(super) async fn scope<T>(self, request: impl Future<Output = T>) -> T {
        CALL.scope(self, request).await
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.outcome.lock().clone()
    }

    fn note(&self, outcome: Outcome) {
        *self.outcome.lock() = outcome;
    }
}

/// The connections to one service.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    client: Client<Connector, HttpRequestBody>,
}

impl Pool {
    pub(super) fn new(connect_timeout: Duration, tls: Option<TlsConnector>) -> Pool {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(Connector::new(connect_timeout, tls));
        Pool { client }
    }
}

impl HttpConnector for Pool {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Pool {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let Ok(call) = CALL.try_with(Clone::clone) else {
            return Err(HttpError::new(
                HttpErrorKind::Unknown,
                std::io::Error::other("no call asked for it"),
            ));
        };
        call.note(Outcome::NoAnswer(String::new()));
        let answer = match self.client.request(request).await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => {
                call.note(Outcome::NotConnected(causes(&error)));
                return Err(HttpError::new(HttpErrorKind::Connect, error));
            }
            Err(error) => {
                call.note(Outcome::NoAnswer(causes(&error)));
                return Err(HttpError::new(HttpErrorKind::Interrupted, error));
            }
        };
        let (head, body) = answer.into_parts();
        let bytes_max = if head.status.is_success() { call.body_bytes_max } else { ERROR_BYTES_MAX };
        let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        match Limited::new(body, limit).collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                let said: &[u8] = if head.status.is_success() { &[] } else { &body };
                call.note(Outcome::Answered(Answer::of_error(head.status, said)));
                Ok(HttpResponse::from_parts(head, body.into()))
            }
            Err(error) => {
                let outcome = if !head.status.is_success() {
                    Outcome::Answered(Answer::of_error(head.status, &[]))
                } else if error.is::<LengthLimitError>() {
                    Outcome::TooLong
                } else {
                    Outcome::NoAnswer(causes(error.as_ref()))
                };
                call.note(outcome);
                Err(HttpError::new(HttpErrorKind::Decode, std::io::Error::other(error)))
            }
        }
    }
}

/// An error with what caused it.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
