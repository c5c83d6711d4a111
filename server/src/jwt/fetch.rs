//! One GET of a key set: bounded in time and size.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use hyper::{Request, Uri, header};

use crate::http_client;

/// Bytes of a key set.
pub(super) const SET_BYTES_MAX: usize = 1 << 20;
/// The time for a whole request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the answer to a GET.
pub(super) async fn get(url: &str, ca: Option<&Path>) -> anyhow::Result<Bytes> {
    let fetched = tokio::time::timeout(TIMEOUT, request(url, ca)).await;
    fetched.with_context(|| format!("no answer within {} s", TIMEOUT.as_secs()))?
}

async fn request(url: &str, ca: Option<&Path>) -> anyhow::Result<Bytes> {
    let uri: Uri = url.parse()?;
    let tls = match http_client::is_tls(&uri) {
        false => None,
        true => {
            let ca = ca.map(Path::to_owned);
            Some(tokio::task::spawn_blocking(move || http_client::tls(ca.as_deref())).await??)
        }
    };
    let request = Request::builder().header(header::ACCEPT, "application/json");
    http_client::ok(http_client::send(&uri, tls.as_ref(), request, Bytes::new(), SET_BYTES_MAX).await?)
}
