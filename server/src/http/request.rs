//! What handlers take from a request: query parameters, JSON bodies, the namespace.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::{Json, extract};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde::de::value::{Error as TextError, MapDeserializer};
use tokio::time::timeout;

use super::App;
use super::auth::{Caller, Scope};
use super::problem::Problem;

/// Time within which the body of a request must have come.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of the longest value in a query.
const NAME_BYTES_MAX: usize = 4096;

/// Query parameters: those of the namespace, and those of `T`. Others are refused.
pub(super) struct Scoped<T>(pub(super) Scope, pub(super) T);

/// No further parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// All parameters, each at most once.
pub(super) async fn pairs(parts: &mut Parts) -> Result<BTreeMap<String, String>, Problem> {
    let query = extract::Query::<Vec<(String, String)>>::from_request_parts(parts, &()).await;
    let extract::Query(pairs) =
        query.map_err(|error: QueryRejection| Problem::bad_request(error.body_text()))?;
    let mut all = BTreeMap::new();
    for (name, value) in pairs {
        if value.len() > NAME_BYTES_MAX {
            return Err(Problem::bad_request(format!("{name}: longer than {NAME_BYTES_MAX} bytes")));
        }
        if all.contains_key(&name) {
            return Err(Problem::bad_request(format!("{name}: given twice")));
        }
        all.insert(name, value);
    }
    Ok(all)
}

/// Reads a struct of texts, flags and numbers from parameters.
pub(super) fn read<T: DeserializeOwned>(pairs: BTreeMap<String, String>) -> Result<T, Problem> {
    let typed = pairs.into_iter().map(|(name, value)| (name, Scalar(value)));
    T::deserialize(MapDeserializer::<_, TextError>::new(typed))
        .map_err(|error| Problem::bad_request(error.to_string()))
}

/// A parameter's text, which reads as a number or a flag where one is wanted.
struct Scalar(String);

impl serde::de::IntoDeserializer<'_, TextError> for Scalar {
    type Deserializer = Scalar;

    fn into_deserializer(self) -> Scalar {
        self
    }
}

macro_rules! parsed {
    ($($method:ident => $visit:ident: $type:ty),* $(,)?) => { $(
        fn $method<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
            match self.0.parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(error) => Err(serde::de::Error::custom(format_args!("`{}`: {error}", self.0))),
            }
        }
    )* };
}

impl<'de> serde::Deserializer<'de> for Scalar {
    type Error = TextError;

    parsed! {
        deserialize_bool => visit_bool: bool,
        deserialize_u8 => visit_u8: u8,
        deserialize_u16 => visit_u16: u16,
        deserialize_u32 => visit_u32: u32,
        deserialize_u64 => visit_u64: u64,
        deserialize_i64 => visit_i64: i64,
    }

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: serde::de::Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TextError> {
        let text: serde::de::value::StringDeserializer<TextError> =
            serde::de::IntoDeserializer::into_deserializer(self.0);
        text.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// The namespace that the parameters name, which is taken out of them.
pub(super) fn take_scope(
    parts: &Parts,
    pairs: &mut BTreeMap<String, String>,
    app: &App,
) -> Result<Scope, Problem> {
    let caller = parts.extensions.get::<Caller>();
    let caller = caller.ok_or_else(|| Problem::internal("the request was not authenticated"))?;
    Scope::of(&app.broker, caller, pairs.remove("namespace").as_deref())
}

impl<T: DeserializeOwned> FromRequestParts<App> for Scoped<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let mut pairs = pairs(parts).await?;
        let scope = take_scope(parts, &mut pairs, app)?;
        Ok(Scoped(scope, read(pairs)?))
    }
}

/// The parameters of a request that is not about a namespace.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Ok(Query(read(pairs(parts).await?)?))
    }
}

/// The name of the resource, from its path.
#[derive(Debug)]
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|error: PathRejection| Problem::bad_request(error.body_text()))?;
        Ok(Name(name))
    }
}

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match timeout(BODY_TIMEOUT, Json::<T>::from_request(request, state)).await {
            Ok(Ok(Json(body))) => Ok(Body(body)),
            Ok(Err(error)) => Err(refused(&error)),
            Err(_elapsed) => Err(Problem::timeout("the body did not come in time")),
        }
    }
}

fn refused(error: &JsonRejection) -> Problem {
    let detail = error.body_text();
    match error.status() {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::unsupported_media_type(detail),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(detail),
        _ => Problem::bad_request(detail),
    }
}
