//! Typed values of topology arguments, and of headers that routing depends on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A typed value. Equality is by type and content, except that integers of all widths compare by number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Nothing.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer of any width and sign.
    Int(i128),
    /// A floating-point number.
    Float(f64),
    /// A decimal number: `unscaled × 10^-scale`.
    Decimal {
        /// Digits after the point.
        scale: u8,
        /// The digits.
        unscaled: i64,
    },
    /// Text, not necessarily valid UTF-8.
    Text(Vec<u8>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Seconds since 1970.
    Timestamp(u64),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Map(Arguments),
}

/// Named values, in the order of their names.
pub type Arguments = BTreeMap<String, Value>;

impl Value {
    /// The number, if it is an integer.
    #[must_use]
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The text, if it is valid UTF-8 text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(t) => std::str::from_utf8(t).ok(),
            _ => None,
        }
    }

    /// Bytes that are equal for equal values, for hashing.
    #[must_use]
    pub(crate) fn as_bytes_to_hash(&self) -> Vec<u8> {
        match self {
            Value::Text(bytes) | Value::Bytes(bytes) => bytes.clone(),
            Value::Int(number) => number.to_string().into_bytes(),
            other => format!("{other:?}").into_bytes(),
        }
    }

    /// About how many bytes it holds.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Value::Text(bytes) | Value::Bytes(bytes) => bytes.len(),
            Value::List(values) => values.iter().map(|value| size_of::<Value>() + value.bytes()).sum(),
            Value::Map(map) => {
                map.iter().map(|(name, value)| name.len() + size_of::<Value>() + value.bytes()).sum()
            }
            _ => 0,
        }
    }

    /// The boolean, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.as_bytes().to_vec())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text.into_bytes())
    }
}

impl From<bool> for Value {
    fn from(bool: bool) -> Value {
        Value::Bool(bool)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Int(number.into())
    }
}

impl From<Arguments> for Value {
    fn from(map: Arguments) -> Value {
        Value::Map(map)
    }
}

/// The headers of a published message, for headers exchanges.
pub trait HeaderLookup {
    /// The typed value of a header; none if the message does not have it.
    fn get(&self, name: &str) -> Option<Value>;
}
