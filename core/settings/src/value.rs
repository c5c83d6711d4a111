//! Values with a spelling of their own.

use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use crate::Form;

/// A value that knows how it is spelled.
pub trait Setting: Sized {
    /// How it is spelled in a TOML file.
    const FORM: Form = Form::Text;

    /// Reads it.
    ///
    /// # Errors
    /// The value is not one of the type's.
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error>;

    /// Its spelling in a variable.
    fn show(&self) -> String;
}

impl Setting for bool {
    const FORM: Form = Form::Bare;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Flag;
        impl Visitor<'_> for Flag {
            type Value = bool;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true or false")
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<bool, E> {
                Ok(flag)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
                text.trim().parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        value.deserialize_any(Flag)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A path that must be given.
impl Setting for PathBuf {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(value)?;
        if path.as_os_str().is_empty() { Err(D::Error::custom("the path is empty")) } else { Ok(path) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// A path; an empty text stands for none.
impl Setting for Option<PathBuf> {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        Ok(Some(PathBuf::deserialize(value)?).filter(|path| !path.as_os_str().is_empty()))
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, Setting::show)
    }
}

/// `host:port`; an empty text stands for none. An IPv6 address is written in brackets.
impl Setting for Option<(String, u16)> {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let text = String::deserialize(value)?;
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
            (!host.is_empty()).then(|| (host.to_string(), port))
        });
        match parsed {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(D::Error::invalid_value(
                Unexpected::Str(text),
                &"`host:port`, such as broker.example.org:9092",
            )),
        }
    }

    fn show(&self) -> String {
        match self {
            Some((host, port)) if host.contains(':') => format!("[{host}]:{port}"),
            Some((host, port)) => format!("{host}:{port}"),
            None => String::new(),
        }
    }
}

/// A text; it may be empty.
impl Setting for String {
    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        String::deserialize(value)
    }

    fn show(&self) -> String {
        self.clone()
    }
}

/// An array of texts.
impl Setting for Vec<String> {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        Vec::deserialize(value)
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}
