//! An S3 bucket. `object_store` signs the requests and reads the answers; what an answer means for the caller is decided here,
//! from its status: that crate takes an undecided create (409) for one that found an object.

mod answer;
mod connect;
mod http;

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig,
};
use tokio_rustls::TlsConnector;

use crate::error::{Refusal, StoreError};
use crate::key;
use crate::store::{Listed, PAGE_OBJECTS_MAX, Page, Store, WHOLE_BYTES_MAX, check_range};
use answer::Intent;
use http::{Call, Pool};

/// Bytes of the longest answer to a list. An object takes some 400 bytes beside its name.
const LIST_BYTES_MAX: u64 = 4 << 20;
/// Pages of a list that have no object, before one that has some.
const EMPTY_PAGES_MAX: usize = 100;
/// Bytes of the longest answer to a request that changes something.
const CHANGE_BYTES_MAX: u64 = 64 << 10;

/// Where a bucket is, and how it is reached.
#[derive(Clone)]
pub struct S3Options {
    /// Its name.
    pub bucket: String,
    /// URL of the service, without the bucket. None: that of AWS in the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// What every object's name begins with, without a `/` at its end; empty: nothing.
    pub prefix: String,
    /// Whether the bucket is in the path of a URL, and not in the name of its host.
    pub path_style: bool,
    /// Who asks.
    pub credentials: Credentials,
    /// Time for one request.
    pub timeout: Duration,
    /// Time for connecting, TLS included.
    pub connect_timeout: Duration,
    /// The TLS client; none: only `http://` can be reached.
    pub tls: Option<TlsConnector>,
}

/// An access key of S3.
#[derive(Clone)]
pub struct Credentials {
    /// Its id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// The token of temporary credentials.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// A bucket, or the part of one below a prefix.
pub struct S3 {
    bucket: AmazonS3,
    /// The prefix with a `/` at its end, or nothing.
    prefix: String,
    timeout: Duration,
}

impl S3 {
    /// Makes the client of a bucket, without connecting.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: an option is not one that S3 knows.
    pub fn new(options: S3Options) -> Result<S3, StoreError> {
        let prefix = match options.prefix.as_str() {
            "" => String::new(),
            prefix => {
                key::check(prefix)?;
                format!("{prefix}/")
            }
        };
        check_name("the bucket", &options.bucket)?;
        check_name("the region", &options.region)?;
        let Credentials { access_key_id, secret_access_key, session_token } = options.credentials;
        for (name, value) in
            [("access key id", Some(&access_key_id)), ("session token", session_token.as_ref())]
        {
            // It is sent in a header.
            if value.is_some_and(|value| !value.bytes().all(|byte| byte.is_ascii_graphic())) {
                return Err(StoreError::request(format!("the {name} has characters that none has")));
            }
        }
        let pool = Pool::new(options.connect_timeout, options.tls);
        // None is repeated: after a lost answer a second create would find the first one's object.
        let once =
            RetryConfig { max_retries: 0, retry_timeout: options.timeout, backoff: BackoffConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&options.bucket)
            .with_region(options.region)
            .with_access_key_id(access_key_id)
            .with_secret_access_key(secret_access_key)
            .with_virtual_hosted_style_request(!options.path_style)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            // Not every service has the request that deletes many.
            .with_disable_bulk_delete(true)
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_http_connector(pool)
            .with_retry(once);
        if let Some(token) = session_token {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = options.endpoint {
            let endpoint = endpoint.trim_end_matches('/');
            let named = endpoint.split_once("://").filter(|_| !options.path_style);
            let with_bucket = named.map(|(scheme, host)| format!("{scheme}://{}.{host}", options.bucket));
            builder = builder.with_endpoint(with_bucket.as_deref().unwrap_or(endpoint));
        }
        let bucket = builder.build().map_err(|error| StoreError::request(error.to_string()))?;
        Ok(S3 { bucket, prefix, timeout: options.timeout })
    }

    fn path(&self, key: &str) -> Path {
        Path::from(format!("{}{key}", self.prefix))
    }

    /// Carries out one request, whose answer is at most `body_bytes_max` long.
    async fn ask<T>(
        &self,
        intent: Intent,
        body_bytes_max: u64,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        let call = Call::new(body_bytes_max);
        let asked = tokio::time::timeout(self.timeout, call.clone().scope(request)).await;
        let error = match asked {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", self.timeout.as_millis()),
        };
        Err(answer::error(&call.outcome(), intent, error))
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>, bytes_max: u64) -> Result<Bytes, StoreError> {
        key::check(key)?;
        let path = self.path(key);
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let read = async {
            let found = self.bucket.get_opts(&path, options).await?;
            let bytes = found.range.end.saturating_sub(found.range.start);
            Ok((bytes, found.bytes().await?))
        };
        let (bytes, body) = self.ask(Intent::Read, bytes_max, read).await?;
        if body.len() as u64 == bytes {
            Ok(body)
        } else {
            let text = format!("the answer says that it has {bytes} bytes, and has {}", body.len());
            Err(StoreError::Refused(Refusal::Answer, text))
        }
    }

    async fn write(&self, key: &str, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        key::check(key)?;
        let path = self.path(key);
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = self.bucket.put_opts(&path, PutPayload::from_bytes(body), options);
        self.ask(Intent::Write, CHANGE_BYTES_MAX, put).await.map(|_| ())
    }

    async fn list_some(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let prefix = format!("{}{prefix}", self.prefix);
        let mut page_token = None;
        // A service may answer that there are more, and show none: it passed names of deleted objects.
        for _ in 0..EMPTY_PAGES_MAX {
            let options = PaginatedListOptions {
                offset: after.map(|after| format!("{}{after}", self.prefix)),
                max_keys: Some(limit.clamp(1, PAGE_OBJECTS_MAX)),
                page_token,
                ..PaginatedListOptions::default()
            };
            let some = Some(prefix.as_str()).filter(|prefix| !prefix.is_empty());
            let list = self.bucket.list_paginated(some, options);
            let answer = self.ask(Intent::Read, LIST_BYTES_MAX, list).await?;
            let objects = answer.result.objects.into_iter().filter_map(|object| {
                let key = object.location.as_ref().strip_prefix(&self.prefix)?.to_owned();
                Some(Listed { key, bytes: object.size })
            });
            let page = Page { objects: objects.collect(), has_more: answer.page_token.is_some() };
            if !page.objects.is_empty() || !page.has_more {
                return Ok(page);
            }
            page_token = answer.page_token;
        }
        Err(StoreError::Refused(Refusal::Answer, format!("{EMPTY_PAGES_MAX} pages of a list are empty")))
    }
}

/// Checks what becomes a part of a URL or of a signature.
fn check_name(what: &str, name: &str) -> Result<(), StoreError> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !name.is_empty() && name.bytes().all(is_name) {
        Ok(())
    } else {
        Err(StoreError::request(format!("{what} `{}` has characters that none has", name.escape_debug())))
    }
}

#[async_trait]
impl Store for S3 {
    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.read(key, None, WHOLE_BYTES_MAX).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        check_range(&range)?;
        let bytes = range.end - range.start;
        self.read(key, Some(range), bytes).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.write(key, body, PutMode::Overwrite).await
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.write(key, body, PutMode::Create).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        key::check_prefix(prefix)?;
        let list = tokio::time::timeout(self.timeout, self.list_some(prefix, after, limit)).await;
        list.unwrap_or_else(|_| {
            Err(StoreError::Again(format!("no list within {} ms", self.timeout.as_millis())))
        })
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        key::check(key)?;
        let path = self.path(key);
        match self.ask(Intent::Write, CHANGE_BYTES_MAX, self.bucket.delete(&path)).await {
            Err(StoreError::NotFound) => Ok(()),
            deleted => deleted,
        }
    }
}
