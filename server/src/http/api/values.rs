//! Typed values of arguments and headers as JSON, and bytes that may not be text.

use data_encoding::BASE64;
use inver_broker::{Arguments, HeaderLookup, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value as Json};
use utoipa::ToSchema;

use crate::http::problem::Problem;

/// Arguments of one object.
const ARGUMENTS_MAX: usize = 256;
/// Levels of lists and maps within arguments.
const DEPTH_MAX: usize = 8;

/// A value as JSON. Bytes that are not text are shown with replacement characters.
pub(in crate::http) fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Int(number) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => Json::from(number),
            (_, Ok(number)) => Json::from(number),
            _ => Json::String(number.to_string()),
        },
        Value::Float(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Value::Decimal { scale, unscaled } => Json::String(format!("{unscaled}e-{scale}")),
        Value::Text(text) | Value::Bytes(text) => Json::String(String::from_utf8_lossy(text).into_owned()),
        Value::Timestamp(seconds) => Json::from(*seconds),
        Value::List(list) => Json::Array(list.iter().map(to_json).collect()),
        Value::Map(map) => Json::Object(arguments_to_json(map)),
    }
}

/// Arguments as JSON.
pub(in crate::http) fn arguments_to_json(arguments: &Arguments) -> Map<String, Json> {
    arguments.iter().map(|(name, value)| (name.clone(), to_json(value))).collect()
}

/// Arguments from JSON, within bounds.
pub(in crate::http) fn arguments(json: Map<String, Json>) -> Result<Arguments, Problem> {
    if json.len() > ARGUMENTS_MAX {
        return Err(Problem::bad_request(format!("more than {ARGUMENTS_MAX} arguments")));
    }
    json.into_iter().map(|(name, value)| Ok((name, from_json(value, 0)?))).collect()
}

fn from_json(json: Json, depth: usize) -> Result<Value, Problem> {
    if depth > DEPTH_MAX {
        return Err(Problem::bad_request(format!("arguments have more than {DEPTH_MAX} levels")));
    }
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::Int(i128::from(number)),
            (_, Some(number), _) => Value::Int(i128::from(number)),
            (_, _, number) => Value::Float(number.unwrap_or_default()),
        },
        Json::String(text) => Value::Text(text.into_bytes()),
        Json::Array(list) => {
            let list: Result<Vec<Value>, Problem> =
                list.into_iter().map(|value| from_json(value, depth + 1)).collect();
            Value::List(list?)
        }
        Json::Object(map) => {
            let map: Result<Arguments, Problem> =
                map.into_iter().map(|(name, value)| Ok((name, from_json(value, depth + 1)?))).collect();
            Value::Map(map?)
        }
    })
}

/// Headers to route by.
pub(super) struct Lookup<'a>(pub(super) &'a Arguments);

impl HeaderLookup for Lookup<'_> {
    fn get(&self, name: &str) -> Option<Value> {
        self.0.get(name).cloned()
    }
}

/// Bytes: `text` where they are UTF-8, else `base64`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Data {
    /// The bytes as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(in crate::http) text: Option<String>,
    /// The bytes in base64 (RFC 4648).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(in crate::http) base64: Option<String>,
}

impl Data {
    /// The bytes, or a part of them, as JSON shows them.
    pub(in crate::http) fn of(bytes: &[u8]) -> Data {
        match std::str::from_utf8(bytes) {
            Ok(text) => Data { text: Some(text.to_owned()), base64: None },
            Err(_) => Data { text: None, base64: Some(BASE64.encode(bytes)) },
        }
    }

    /// The bytes; none without either form.
    pub(in crate::http) fn bytes(self) -> Result<Option<Vec<u8>>, Problem> {
        match (self.text, self.base64) {
            (None, None) => Ok(None),
            (Some(text), None) => Ok(Some(text.into_bytes())),
            (None, Some(encoded)) => {
                let decoded = BASE64.decode(encoded.as_bytes());
                decoded.map(Some).map_err(|error| Problem::bad_request(format!("base64: {error}")))
            }
            (Some(_), Some(_)) => Err(Problem::bad_request("give `text` or `base64`, not both")),
        }
    }
}
