//! Declaration of configuration keys.
//!
//! [`section!`] declares a struct whose fields are the keys of one section of the configuration: the documentation
//! comment is the key's help, and each field names its default and its [`Rule`] (unit, bounds, spelling). From that one
//! declaration follow the defaults, reading by serde, and the [`Key`]s that documentation is generated from.
//!
//! The crate owns neither files nor environment variables nor the names of sections; the server does. A key that is
//! declared twice in a section is a mistake that only the server's tests find.

mod excerpt;
mod number;
pub mod rules;
mod value;

use std::ops::ControlFlow;

#[doc(hidden)]
pub use serde;
use serde::Deserializer;

pub use crate::excerpt::{MESSAGE_BYTES_MAX, excerpt};
pub use crate::number::Number;
pub use crate::value::Setting;

/// A configuration key, as documentation shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name within its section.
    pub name: String,
    /// What it does, in sentences.
    pub help: String,
    /// Its value where none is given, spelled as in a variable.
    pub default: String,
    /// What its value counts; empty for a plain number and for anything else.
    pub unit: &'static str,
    /// Which values are accepted.
    pub accepts: String,
    /// How a value is spelled in a TOML file.
    pub form: Form,
}

/// How a value is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A whole number or `true`/`false`, without quotes.
    Bare,
    /// A text, in quotes.
    Text,
    /// A table or an array; TOML in a variable too.
    Structured,
}

/// A section of the configuration: a struct declared by [`section!`].
pub trait Section: Default {
    /// Its keys in the order of declaration; the defaults shown are the values of `self`.
    fn keys(&self) -> Vec<Key>;

    /// Sets the key of that name.
    ///
    /// # Errors
    /// The value is not one that the key accepts, or there is no such key.
    fn set<'de, D: Deserializer<'de>>(&mut self, key: &str, value: D) -> Result<(), D::Error>;
}

/// How one field is read and described.
pub trait Rule<T> {
    /// Adds the field's key, or its keys, to `keys`.
    fn describe(&self, field: &str, help: &str, value: &T, keys: &mut Vec<Key>);

    /// Reads `value` into the field if `key` is the field's; else gives the value back.
    fn apply<'de, D: Deserializer<'de>>(
        &self,
        field: &str,
        key: &str,
        into: &mut T,
        value: D,
    ) -> ControlFlow<Result<(), D::Error>, D>;
}

/// Declares a [`Section`]: a struct with a default and a rule beside each field.
///
/// ```
/// use std::time::Duration;
///
/// use inver_settings::rules::{GIB, HOUR_MS, KIB, bytes, milliseconds};
///
/// inver_settings::section! {
///     /// Limits of a connection.
///     #[derive(Debug, Clone)]
///     pub struct Limits {
///         /// Size of the largest request.
///         pub request_bytes_max: usize = 16 << 20 => bytes(KIB..=GIB),
///         /// Time within which a client must log in. The key is `login_max_ms`.
///         pub login_max: Duration = Duration::from_secs(10) => milliseconds(10..=HOUR_MS),
///     }
/// }
///
/// use inver_settings::Section;
/// use inver_settings::serde::de::value::{Error, StrDeserializer};
/// let mut limits = Limits::default();
/// limits.set("login_max_ms", StrDeserializer::<Error>::new("500")).unwrap();
/// assert_eq!(limits.login_max, Duration::from_millis(500));
/// assert_eq!(limits.keys()[0].default, "16 MiB");
/// ```
#[macro_export]
macro_rules! section {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $help:literal])+
                $field_vis:vis $field:ident : $type:ty = $default:expr => $rule:expr
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $( $(#[doc = $help])+ $field_vis $field: $type, )*
        }

        impl ::std::default::Default for $name {
            fn default() -> Self {
                $name { $( $field: $default, )* }
            }
        }

        impl $crate::Section for $name {
            fn keys(&self) -> ::std::vec::Vec<$crate::Key> {
                let mut keys = ::std::vec::Vec::new();
                $( $crate::Rule::<$type>::describe(
                    &$rule, stringify!($field), concat!($($help),+), &self.$field, &mut keys,
                ); )*
                keys
            }

            fn set<'de, D: $crate::serde::Deserializer<'de>>(
                &mut self,
                key: &str,
                input: D,
            ) -> ::std::result::Result<(), D::Error> {
                $( let input = match $crate::Rule::<$type>::apply(
                    &$rule, stringify!($field), key, &mut self.$field, input,
                ) {
                    ::std::ops::ControlFlow::Break(result) => return result,
                    ::std::ops::ControlFlow::Continue(input) => input,
                }; )*
                drop(input);
                ::std::result::Result::Err($crate::unknown(key))
            }
        }
    };
}

/// The error of a key that a section does not have.
#[doc(hidden)]
#[must_use]
pub fn unknown<E: serde::de::Error>(key: &str) -> E {
    E::custom(format_args!("unknown key `{key}`"))
}

#[cfg(test)]
mod tests;
