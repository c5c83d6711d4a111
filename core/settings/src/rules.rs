//! The rules that fields are declared with.

use std::marker::PhantomData;
use std::ops::{ControlFlow, RangeInclusive};

use serde::Deserializer;
use serde::de::{Error, Visitor};

use crate::number::{Number, parse_bytes, show_bytes};
use crate::value::Setting;
use crate::{Form, Key, Rule, Section};

/// 1024 bytes.
pub const KIB: u64 = 1 << 10;
/// 1024 KiB.
pub const MIB: u64 = 1 << 20;
/// 1024 MiB.
pub const GIB: u64 = 1 << 30;
/// 1024 GiB.
pub const TIB: u64 = 1 << 40;
/// An hour in milliseconds.
pub const HOUR_MS: u64 = 3_600_000;
/// A day in milliseconds.
pub const DAY_MS: u64 = 24 * HOUR_MS;

/// A whole number within bounds.
#[derive(Debug, Clone)]
pub struct NumberRule {
    unit: Unit,
    bounds: RangeInclusive<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    None,
    Bytes,
    Milliseconds,
    Seconds,
    Percent,
}

/// A plain number.
#[must_use]
pub const fn count(bounds: RangeInclusive<u64>) -> NumberRule {
    NumberRule { unit: Unit::None, bounds }
}

/// A number of bytes; `KiB`, `MiB`, `GiB` or `TiB` may follow it.
#[must_use]
pub const fn bytes(bounds: RangeInclusive<u64>) -> NumberRule {
    NumberRule { unit: Unit::Bytes, bounds }
}

/// A number of milliseconds. The key is the field's name and `_ms`, since the field is a `Duration`.
#[must_use]
pub const fn milliseconds(bounds: RangeInclusive<u64>) -> NumberRule {
    NumberRule { unit: Unit::Milliseconds, bounds }
}

/// A number of seconds.
#[must_use]
pub const fn seconds(bounds: RangeInclusive<u64>) -> NumberRule {
    NumberRule { unit: Unit::Seconds, bounds }
}

/// A share in percent.
#[must_use]
pub const fn percent(bounds: RangeInclusive<u64>) -> NumberRule {
    NumberRule { unit: Unit::Percent, bounds }
}

impl NumberRule {
    fn name(&self, field: &str) -> String {
        if self.unit == Unit::Milliseconds { format!("{field}_ms") } else { field.to_string() }
    }

    fn show(&self, number: u64) -> String {
        if self.unit == Unit::Bytes { show_bytes(number) } else { number.to_string() }
    }

    fn accepts(&self) -> String {
        format!("{} to {}", self.show(*self.bounds.start()), self.show(*self.bounds.end()))
    }

    fn check<E: Error>(&self, number: u64) -> Result<u64, E> {
        if self.bounds.contains(&number) {
            return Ok(number);
        }
        Err(E::custom(format_args!("{number} is out of bounds: {}", self.accepts())))
    }
}

impl Visitor<'_> for &NumberRule {
    type Value = u64;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.unit {
            Unit::Bytes => write!(f, "a number of bytes such as 1048576, \"512 KiB\" or \"16 MiB\""),
            _ => write!(f, "a whole number from {}", self.accepts()),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        self.check(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        match u64::try_from(number) {
            Ok(number) => self.check(number),
            Err(_) => Err(E::custom(format_args!("{number} is out of bounds: {}", self.accepts()))),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        let number = match self.unit {
            Unit::Bytes => parse_bytes(text),
            _ => text.trim().parse().ok(),
        };
        match number {
            Some(number) => self.check(number),
            None => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }
}

impl<T: Number> Rule<T> for NumberRule {
    fn describe(&self, field: &str, help: &str, value: &T, keys: &mut Vec<Key>) {
        let default = self.show(value.to_u64());
        let unit = match self.unit {
            Unit::None => "",
            Unit::Bytes => "bytes",
            Unit::Milliseconds => "milliseconds",
            Unit::Seconds => "seconds",
            Unit::Percent => "percent",
        };
        let form = if default.contains(' ') { Form::Text } else { Form::Bare };
        let (name, help) = (self.name(field), sentence(help));
        keys.push(Key { name, help, default, unit, accepts: self.accepts(), form });
    }

    fn apply<'de, D: Deserializer<'de>>(
        &self,
        field: &str,
        key: &str,
        into: &mut T,
        value: D,
    ) -> ControlFlow<Result<(), D::Error>, D> {
        if self.name(field) != key {
            return ControlFlow::Continue(value);
        }
        ControlFlow::Break(value.deserialize_any(self).and_then(|number| {
            *into = T::from_u64(number)
                .ok_or_else(|| D::Error::custom(format_args!("{number} is too large for this machine")))?;
            Ok(())
        }))
    }
}

/// A value with a spelling of its own.
#[derive(Debug, Clone, Copy)]
pub struct ValueRule<T> {
    accepts: &'static str,
    of: PhantomData<fn() -> T>,
}

/// A value that its type reads; `accepts` says which spellings it takes.
#[must_use]
pub const fn value<T: Setting>(accepts: &'static str) -> ValueRule<T> {
    ValueRule { accepts, of: PhantomData }
}

/// `true` or `false`.
#[must_use]
pub const fn flag() -> ValueRule<bool> {
    value("`true` or `false`")
}

impl<T: Setting> Rule<T> for ValueRule<T> {
    fn describe(&self, field: &str, help: &str, value: &T, keys: &mut Vec<Key>) {
        keys.push(Key {
            name: field.to_string(),
            help: sentence(help),
            default: value.show(),
            unit: "",
            accepts: self.accepts.to_string(),
            form: T::FORM,
        });
    }

    fn apply<'de, D: Deserializer<'de>>(
        &self,
        field: &str,
        key: &str,
        into: &mut T,
        value: D,
    ) -> ControlFlow<Result<(), D::Error>, D> {
        if field != key {
            return ControlFlow::Continue(value);
        }
        ControlFlow::Break(T::read(value).map(|read| *into = read))
    }
}

/// The keys of a struct within this one.
#[derive(Debug, Clone, Copy)]
pub struct NestedRule {
    prefix: &'static str,
}

/// A field that is itself a [`Section`]: its keys are keys of this section, each with `prefix` before its name.
#[must_use]
pub const fn nested(prefix: &'static str) -> NestedRule {
    NestedRule { prefix }
}

impl<T: Section> Rule<T> for NestedRule {
    fn describe(&self, _field: &str, _help: &str, value: &T, keys: &mut Vec<Key>) {
        let inner = value.keys().into_iter();
        keys.extend(inner.map(|key| Key { name: format!("{}{}", self.prefix, key.name), ..key }));
    }

    fn apply<'de, D: Deserializer<'de>>(
        &self,
        _field: &str,
        key: &str,
        into: &mut T,
        value: D,
    ) -> ControlFlow<Result<(), D::Error>, D> {
        match key.strip_prefix(self.prefix) {
            Some(inner) if into.keys().iter().any(|key| key.name == inner) => {
                ControlFlow::Break(into.set(inner, value))
            }
            _ => ControlFlow::Continue(value),
        }
    }
}

/// A field that is no key.
#[derive(Debug, Clone, Copy)]
pub struct NoKey;

/// A field that is no key: it is computed from other sections, or set by tests.
#[must_use]
pub const fn no_key() -> NoKey {
    NoKey
}

impl<T> Rule<T> for NoKey {
    fn describe(&self, _field: &str, _help: &str, _value: &T, _keys: &mut Vec<Key>) {}

    fn apply<'de, D: Deserializer<'de>>(
        &self,
        _field: &str,
        _key: &str,
        _into: &mut T,
        value: D,
    ) -> ControlFlow<Result<(), D::Error>, D> {
        ControlFlow::Continue(value)
    }
}

/// The lines of a documentation comment as one line.
fn sentence(help: &str) -> String {
    help.split_whitespace().collect::<Vec<_>>().join(" ")
}
