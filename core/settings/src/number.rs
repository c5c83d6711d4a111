//! Numbers: which types hold one, and how bytes are spelled.

use std::time::Duration;

/// A type that holds a whole number.
pub trait Number: Sized {
    /// The value of that number; `None` where the type has no room for it.
    fn from_u64(number: u64) -> Option<Self>;

    /// Its number.
    fn to_u64(&self) -> u64;
}

macro_rules! numbers {
    ($($type:ty),*) => {
        $(impl Number for $type {
            fn from_u64(number: u64) -> Option<Self> {
                number.try_into().ok()
            }

            fn to_u64(&self) -> u64 {
                (*self).try_into().unwrap_or(0)
            }
        })*
    };
}

numbers!(u16, u32, u64, usize, i32);

/// Milliseconds.
impl Number for Duration {
    fn from_u64(number: u64) -> Option<Self> {
        Some(Duration::from_millis(number))
    }

    fn to_u64(&self) -> u64 {
        self.as_millis().try_into().unwrap_or(u64::MAX)
    }
}

/// Zero stands for none.
impl<T: Number> Number for Option<T> {
    fn from_u64(number: u64) -> Option<Self> {
        if number == 0 { Some(None) } else { T::from_u64(number).map(Some) }
    }

    fn to_u64(&self) -> u64 {
        self.as_ref().map_or(0, T::to_u64)
    }
}

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes, in the largest unit that leaves a whole number.
pub(crate) fn show_bytes(number: u64) -> String {
    match UNITS.iter().find(|(_, size)| number != 0 && number.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{} {unit}", number / size),
        None => number.to_string(),
    }
}

/// A number of bytes; `KiB`, `MiB`, `GiB` or `TiB` may follow it. `None` where it is not one or exceeds 64 bits.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let size = match unit.trim() {
        "" | "B" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    digits.parse::<u64>().ok()?.checked_mul(size)
}
