//! HTTP: health and metrics.
//!
//! It is served like a protocol, on a listener with an admission of its own: health and metrics stay available when the
//! client connections are at their limit. It is not in the list of protocols, since it gives no access to messages.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use inver_broker::{Broker, Connection, ProtocolPlugin};
use tracing::debug;

use crate::telemetry::Metrics;

/// Time within which a client must send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of the largest request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Serves health and metrics.
pub(crate) struct Http {
    metrics: Metrics,
    /// Memory, processor time, threads and open files of this process.
    process: metrics_process::Collector,
    ready: Arc<AtomicBool>,
}

impl Http {
    /// `ready`: whether the broker accepts connections.
    pub(crate) fn new(metrics: Metrics, ready: Arc<AtomicBool>) -> Http {
        let process = metrics_process::Collector::default();
        process.describe();
        Http { metrics, process, ready }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/health/live" => text(StatusCode::OK, "live\n"),
            "/health/ready" if self.ready.load(Ordering::Acquire) => text(StatusCode::OK, "ready\n"),
            "/health/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            "/metrics" => {
                self.process.collect();
                let mut response = text(StatusCode::OK, self.metrics.render());
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            _ => text(StatusCode::NOT_FOUND, "not found; available: /health/live, /health/ready, /metrics\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[async_trait]
impl ProtocolPlugin for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    async fn serve(&self, connection: Connection, _broker: Broker) {
        let service = service_fn(|request: Request<Incoming>| {
            let response = self.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        let shutdown = connection.shutdown;
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(connection.io), service);
        let mut served = std::pin::pin!(served);
        let result = tokio::select! {
            result = served.as_mut() => result,
            () = shutdown.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = result {
            debug!(%error, "HTTP connection failed");
        }
    }
}
