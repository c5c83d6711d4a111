//! Requests of the commands to the running broker, over HTTP or HTTPS: one connection for each.

mod connect;
mod reach;

use std::io::{self, Read};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use self::connect::Target;
pub(super) use self::reach::{Login, Reach, VARIABLES, read_password};
use crate::config::Config;

/// Time within which a request is answered.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of the largest answer.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Items of the largest page of a list.
const PAGE_ITEMS: usize = 500;

/// How often the broker is asked for a list until it has read all of it, and the pause in between.
const LIST_ATTEMPTS: usize = 600;
const LIST_PAUSE: Duration = Duration::from_millis(100);

/// Parameters of a request; their values are encoded when it is sent.
pub(super) type Parameters = Vec<(&'static str, String)>;

/// A client of one broker.
pub(super) struct Client {
    target: Target,
    authorization: Option<String>,
    namespace: String,
    runtime: tokio::runtime::Runtime,
}

/// An answer of the broker.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as JSON; null without one.
    fn json(&self) -> serde_json::Result<Value> {
        if self.body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&self.body) }
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A part of a path or a parameter, percent-encoded.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl Client {
    fn new(target: Target, authorization: Option<String>) -> anyhow::Result<Client> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Client { target, authorization, namespace: "/".into(), runtime })
    }

    /// A client without a login, of the broker that this configuration describes.
    pub(super) fn of(config: &Config) -> anyhow::Result<Client> {
        Client::new(Target::of_config(config, None)?, None)
    }

    /// As the client, for resources of this namespace.
    pub(super) fn within(self, namespace: String) -> Client {
        Client { namespace, ..self }
    }

    /// Asks for a resource of the namespace.
    pub(super) fn get(&self, path: &str, parameters: &[(&'static str, String)]) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, parameters, None)
    }

    /// A request about a resource of the namespace.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        self.ask_node(method, path, &self.scoped(parameters, true), body)
    }

    /// The parameters, with the namespace if the resource belongs to one.
    fn scoped(&self, parameters: &[(&'static str, String)], of_namespace: bool) -> Parameters {
        let mut all = parameters.to_vec();
        if of_namespace && self.namespace != "/" {
            all.push(("namespace", self.namespace.clone()));
        }
        all
    }

    /// A request about a resource of the broker as a whole.
    pub(super) fn ask_node(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let query: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let answer = self.request(method, &format!("/api/v1{path}{query}"), body)?;
        let json = answer.json();
        if !answer.status.is_success() {
            return Err(self.refusal(answer.status, json.ok()));
        }
        json.context("the answer is not JSON: is this the broker's HTTP listener?")
    }

    /// Whether there is something at a path.
    pub(super) fn knows(&self, path: &str) -> anyhow::Result<bool> {
        let answer = self.request(Method::GET, &format!("/api/v1{path}"), None)?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(self.refusal(status, answer.json().ok())),
        }
    }

    /// The items of a list, at most `limit`.
    pub(super) fn list(
        &self,
        path: &str,
        of_namespace: bool,
        parameters: &[(&'static str, String)],
        limit: usize,
    ) -> anyhow::Result<Vec<Value>> {
        let mut items: Vec<Value> = Vec::new();
        for page in 1.. {
            let size = PAGE_ITEMS.min(limit.max(1));
            let mut all = self.scoped(parameters, of_namespace);
            all.extend([("page", page.to_string()), ("size", size.to_string())]);
            let answer = self.page(path, &all)?;
            let found = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            let count = found.len();
            items.extend(found);
            if count < size || items.len() >= limit {
                break;
            }
        }
        items.truncate(limit);
        Ok(items)
    }

    /// A page of a list, once the broker has read all of the list that it needs for it.
    fn page(&self, path: &str, parameters: &[(&'static str, String)]) -> anyhow::Result<Value> {
        for _ in 0..LIST_ATTEMPTS {
            let answer = self.ask_node(Method::GET, path, parameters, None)?;
            if answer.get("complete").and_then(Value::as_bool) != Some(false) {
                return Ok(answer);
            }
            std::thread::sleep(LIST_PAUSE);
        }
        bail!("the broker has not read the whole list in time")
    }

    /// Asks for a stream, which is read as it arrives.
    pub(super) fn stream(self, path: &str, body: &Value) -> anyhow::Result<Box<dyn Read>> {
        let request = self.built(Method::POST, &format!("/api/v1{path}"), Some(body))?;
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, self.answered(request)).await.context("no answer in time")?
        })?;
        if answer.status().is_success() {
            return Ok(Box::new(Streamed {
                runtime: self.runtime,
                body: answer.into_body(),
                rest: Bytes::new(),
            }));
        }
        let status = answer.status();
        let body = self.runtime.block_on(Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect());
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        Err(self.refusal(status, serde_json::from_slice(&body).ok()))
    }

    /// Why a request failed.
    fn refusal(&self, status: StatusCode, problem: Option<Value>) -> anyhow::Error {
        let detail = problem.and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned()));
        let detail = detail.unwrap_or_else(|| status.to_string());
        if status == StatusCode::UNAUTHORIZED && self.authorization.is_none() {
            return anyhow::anyhow!("{detail}; name an administrator with --login");
        }
        anyhow::anyhow!("{detail}")
    }

    /// Sends a request, with a JSON body if there is one.
    pub(super) fn request(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let request = self.built(method, path, body)?;
        self.runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, self.send(request)).await.context("no answer in time")?
        })
    }

    fn built(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.base()))
            .header(header::HOST, self.target.host());
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        Ok(request.body(Full::new(body))?)
    }

    async fn answered(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        let io = self.target.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let answer = self.answered(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        Ok(Answer { status, body })
    }
}

/// The body of an answer, read as it arrives.
struct Streamed {
    runtime: tokio::runtime::Runtime,
    body: Incoming,
    rest: Bytes,
}

impl Read for Streamed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let frame =
                self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, self.body.frame()).await });
            match frame.map_err(io::Error::from)? {
                None => return Ok(0),
                Some(frame) => self.rest = frame.map_err(io::Error::other)?.into_data().unwrap_or_default(),
            }
        }
        let length = into.len().min(self.rest.len());
        let piece = self.rest.split_to(length);
        into.get_mut(..length).unwrap_or_default().copy_from_slice(&piece);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_percent_encoded() {
        assert_eq!(encoded("a/b c%ü"), "a%2Fb%20c%25%C3%BC");
    }
}
