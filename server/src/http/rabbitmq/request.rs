//! What handlers take from a request, and how they run.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use inver_broker::Completion;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::error::Fault;
use crate::http::App;
use crate::http::api;
use crate::http::auth::{Caller, Scope};
use crate::http::problem::Problem;
use crate::http::request::{BODY_TIMEOUT, pairs};
use crate::protocols::Operator;

/// The names in a path.
pub(super) struct Names<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Names<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(names)| Names(names)).map_err(|error| Fault::bad_request(error.body_text()))
    }
}

/// The parameters of a query.
#[derive(Debug, Default)]
pub(super) struct Params(pub(super) BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Fault> {
        Ok(Params(pairs(parts).await?))
    }
}

impl Params {
    /// Whether a flag is set.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value == "true")
    }
}

/// A JSON object as the body; an empty body is an empty object. The media type does not matter, as in RabbitMQ.
#[derive(Debug)]
pub(super) struct Object(pub(super) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let bytes = match timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                return Err(Fault::too_large("Exceeded HTTP request body size limit"));
            }
            Ok(Err(error)) => return Err(Fault::bad_request(error.body_text())),
            Err(_elapsed) => return Err(Problem::timeout("the body did not come in time").into()),
        };
        if bytes.is_empty() {
            return Ok(Object(Map::new()));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => Ok(Object(fields)),
            _ => Err(Fault::bad_request("not_json")),
        }
    }
}

impl Object {
    /// Refuses a body that lacks one of these fields.
    pub(super) fn needs(&self, names: &[&str]) -> Result<(), Fault> {
        let missing = names.iter().filter(|name| !self.0.contains_key(**name));
        let missing: Vec<String> = missing.map(|name| format!("{{key_missing,{name}}}")).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Fault::bad_request(format!("[{}]", missing.join(","))))
    }

    /// A text; none if it is absent or null.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Fault> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Fault::bad_request(format!("{name} is a text"))),
        }
    }

    /// A flag, also as a text; none if it is absent.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(other) => Err(Fault::bad_request(format!("not_boolean: {other}"))),
        }
    }

    /// A whole number, also as a text.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Fault> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
                number.map(Some).ok_or_else(|| Fault::bad_request(format!("not_int: {name}")))
            }
        }
    }

    /// A list of texts, also as one text with commas; none if it is absent.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Fault> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                texts(value).map(Some).ok_or_else(|| Fault::bad_request(format!("{name} is a list of texts")))
            }
        }
    }

    /// The field `arguments`, within bounds.
    pub(super) fn arguments(&self) -> Result<inver_broker::Arguments, Fault> {
        match self.0.get("arguments") {
            None | Some(Value::Null) => Ok(inver_broker::Arguments::new()),
            Some(Value::Object(fields)) => Ok(api::values::arguments(fields.clone())?),
            // What some clients make of an empty map.
            Some(Value::Array(list)) if list.is_empty() => Ok(inver_broker::Arguments::new()),
            Some(_) => Err(Fault::bad_request("arguments is an object")),
        }
    }
}

/// A list of texts, also as one text with commas.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => {
            Some(text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect())
        }
        Value::Array(list) => list.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// The virtual host of a request, if the client may connect to it.
pub(super) fn scope(app: &App, caller: &Caller, vhost: &str) -> Result<Scope, Fault> {
    Scope::of(&app.broker, caller, Some(vhost)).map_err(|problem| match problem.into_parts() {
        (StatusCode::FORBIDDEN, _) => Fault::not_authorised("User not authorised to access virtual host"),
        (status, detail) => Fault::from(Problem::of(status, detail)),
    })
}

/// The client as an operator in a virtual host.
pub(super) fn operator(scope: &Scope) -> Operator {
    Operator::new(scope.namespace().clone(), scope.permissions().clone())
}

/// Runs `act` on a blocking thread.
pub(super) async fn work<T: Send + 'static>(
    app: &App,
    act: impl FnOnce(&App) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    api::blocking(app, move |app| Ok(act(app))).await?
}

/// As [`work`]; answers when what was done is durable.
pub(super) async fn durable<T: Send + 'static>(
    app: &App,
    act: impl FnOnce(&App) -> Result<(T, Completion), Fault> + Send + 'static,
) -> Result<T, Fault> {
    let (done, completion) = work(app, act).await?;
    api::committed(app, completion).await?;
    Ok(done)
}

/// The status of a PUT: 201 for something new, else 204.
pub(super) fn put_status(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT }
}

/// An object, or 404.
pub(super) fn found(value: Option<Value>) -> Result<Json<Value>, Fault> {
    value.map(Json).ok_or_else(Fault::not_found)
}
