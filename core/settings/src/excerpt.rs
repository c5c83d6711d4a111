//! Texts of others in messages for people: bounded, whatever their length.

use std::borrow::Cow;

/// Bytes of a message for people.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// A message of at most about so many bytes: what lies between its beginning and its end is left out. Errors repeat what is
/// wrong, which may be of any length, and say behind it what would be right.
#[must_use]
pub fn excerpt(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let half = bytes_max / 2;
    let head = text.get(..text.floor_char_boundary(half)).unwrap_or_default();
    let tail = text.get(text.ceil_char_boundary(text.len() - half)..).unwrap_or_default();
    let left_out = text.len() - head.len() - tail.len();
    Cow::Owned(format!("{head} … ({left_out} bytes) … {tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_are_kept() {
        assert_eq!(excerpt("short", 5), "short");
        assert_eq!(excerpt("beginning and end", 8), "begi … (9 bytes) …  end");
        assert_eq!(excerpt("äöüäöü", 6), "ä … (8 bytes) … ü");
        assert!(excerpt(&"ä".repeat(80_000), 100).len() < 150);
    }
}
