//! Sections of the configuration without their types, and values as they arrive from a file or a variable.

use std::ops::Range;

use inver_settings::{Key, Section};
use serde::de::IntoDeserializer;
use serde::de::value::{Error as TextError, StrDeserializer};
use toml_edit::Item;

/// A value of a key before it is read.
pub(crate) enum Input {
    /// From a file, or from a variable whose value is a table or an array.
    Toml(Item),
    /// From a variable.
    Text(String),
}

/// Why a value was rejected.
#[derive(Debug)]
pub(crate) struct InputError {
    /// What is wrong and what would be right.
    pub(crate) message: String,
    /// The bytes of the file that are wrong, where they are a part of the value.
    pub(crate) span: Option<Range<usize>>,
}

impl InputError {
    fn new(message: impl Into<String>) -> InputError {
        InputError { message: message.into(), span: None }
    }
}

/// A [`Section`] of any type.
pub(crate) trait Settings: Send + Sync {
    /// Its keys; the defaults shown are its present values.
    fn keys(&self) -> Vec<Key>;

    /// Sets one of its keys.
    fn set(&mut self, key: &str, input: Input) -> Result<(), InputError>;
}

impl<S: Section + Send + Sync> Settings for S {
    fn keys(&self) -> Vec<Key> {
        Section::keys(self)
    }

    fn set(&mut self, key: &str, input: Input) -> Result<(), InputError> {
        match input {
            Input::Text(text) => {
                let result = Section::set(self, key, StrDeserializer::<TextError>::new(&text));
                result.map_err(|error| InputError::new(error.to_string()))
            }
            Input::Toml(item) => {
                let value = item.into_value().map_err(|_| InputError::new("a value is missing"))?;
                let result = Section::set(self, key, value.into_deserializer());
                result.map_err(|error| InputError {
                    message: error.message().trim().to_string(),
                    span: error.span(),
                })
            }
        }
    }
}
