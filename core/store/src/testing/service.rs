//! An S3 service on a port of this machine, over any store: what a bucket's client sees of the store's errors.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use crate::error::{Refusal, StoreError};
use crate::s3::{Credentials, S3Options};
use crate::store::Store;

/// A service with one bucket. It ends when it is dropped.
pub struct Service {
    address: SocketAddr,
    task: AbortHandle,
}

/// The only bucket.
const BUCKET: &str = "bucket";
/// The only key.
const ACCESS_KEY_ID: &str = "test";

type Answer = Response<Full<Bytes>>;

impl Service {
    /// Serves a store in the current runtime. Where the store does not know the outcome, the connection is closed without an
    /// answer.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(store: Arc<dyn Store>) -> io::Result<Service> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serve = async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let store = store.clone();
                let answer = service_fn(move |request| {
                    let store = store.clone();
                    async move { answer(store.as_ref(), request).await.ok_or(io::Error::other("no answer")) }
                });
                connections.spawn(async move {
                    // It ends with an error where an answer is kept back.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        };
        Ok(Service { address, task: tokio::spawn(serve).abort_handle() })
    }

    /// Options of the service's bucket.
    #[must_use]
    pub fn options(&self) -> S3Options {
        S3Options {
            bucket: BUCKET.into(),
            endpoint: Some(format!("http://{}", self.address)),
            region: "us-east-1".into(),
            prefix: "some/prefix".into(),
            path_style: true,
            credentials: Credentials {
                access_key_id: ACCESS_KEY_ID.into(),
                secret_access_key: "secret".into(),
                session_token: None,
            },
            timeout: std::time::Duration::from_secs(30),
            connect_timeout: std::time::Duration::from_secs(30),
            tls: None,
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(store: &dyn Store, request: Request<Incoming>) -> Option<Answer> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let signed = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !signed.is_some_and(|value| value.contains(&format!("Credential={ACCESS_KEY_ID}/"))) {
        return Some(refused(StatusCode::FORBIDDEN, "InvalidAccessKeyId"));
    }
    let path = head.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    if bucket != BUCKET {
        return Some(refused(StatusCode::NOT_FOUND, "NoSuchBucket"));
    }
    let of = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let result = match head.method {
        Method::GET if key.is_empty() => list(store, head.uri.query().unwrap_or_default()).await,
        Method::GET => match of("range").and_then(range) {
            None => store.get(key).await.map(|body| found(StatusCode::OK, body)),
            Some(range) => store.get_range(key, range.clone()).await.map(|body| partial(&range, body)),
        },
        Method::PUT if of("if-none-match") == Some("*") => store.create(key, body).await.map(|()| done()),
        Method::PUT => store.put(key, body).await.map(|()| done()),
        Method::DELETE => store.delete(key).await.map(|()| done()),
        _ => Ok(refused(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed")),
    };
    match result {
        Ok(answer) => Some(answer),
        Err(StoreError::NotFound) => Some(refused(StatusCode::NOT_FOUND, "NoSuchKey")),
        Err(StoreError::AlreadyExists) => {
            Some(refused(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"))
        }
        Err(StoreError::Conflict(_)) => Some(refused(StatusCode::CONFLICT, "ConditionalRequestConflict")),
        Err(StoreError::Again(_)) => Some(refused(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
        Err(StoreError::Unknown(_)) => None,
        Err(StoreError::Refused(Refusal::Request, _)) => {
            Some(refused(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"))
        }
        Err(StoreError::Refused(..)) => Some(refused(StatusCode::BAD_REQUEST, "InvalidRequest")),
    }
}

fn refused(status: StatusCode, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>Said by a test.</Message></Error>");
    found(status, body.into())
}

fn found(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_static("\"e\""));
    headers.insert(header::LAST_MODIFIED, HeaderValue::from_static("Mon, 12 Oct 2009 17:50:00 GMT"));
    answer
}

fn done() -> Answer {
    found(StatusCode::OK, Bytes::new())
}

/// A part of an object. How long the whole is, the store does not say: at least as long as the part.
fn partial(range: &Range<u64>, body: Bytes) -> Answer {
    let end = range.start + body.len() as u64;
    let shown = HeaderValue::try_from(format!("bytes {}-{}/{end}", range.start, end.saturating_sub(1)));
    let mut answer = found(StatusCode::PARTIAL_CONTENT, body);
    if let Ok(shown) = shown {
        answer.headers_mut().insert(header::CONTENT_RANGE, shown);
    }
    answer
}

/// `bytes=2-4`, both included.
fn range(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some(start.parse().ok()?..end.parse::<u64>().ok()? + 1)
}

async fn list(store: &dyn Store, query: &str) -> Result<Answer, StoreError> {
    let of = |name: &str| {
        let found =
            query.split('&').filter_map(|pair| pair.split_once('=')).find(|(named, _)| *named == name);
        found.map(|(_, value)| value.replace("%2F", "/")).unwrap_or_default()
    };
    let (prefix, after) = (of("prefix"), of("start-after"));
    let after = Some(after).filter(|after| !after.is_empty());
    let page = store.list(&prefix, after.as_deref(), of("max-keys").parse().unwrap_or(1000)).await?;
    let mut text =
        format!("<ListBucketResult><Prefix>{prefix}</Prefix><IsTruncated>{}</IsTruncated>", page.has_more);
    if page.has_more {
        text += "<NextContinuationToken>more</NextContinuationToken>";
    }
    for object in page.objects {
        let (key, bytes) = (object.key, object.bytes);
        let _ = write!(
            text,
            "<Contents><Key>{key}</Key><Size>{bytes}</Size><LastModified>2009-10-12T17:50:00.000Z</LastModified>\
             <ETag>\"e\"</ETag></Contents>"
        );
    }
    Ok(found(StatusCode::OK, (text + "</ListBucketResult>").into()))
}
