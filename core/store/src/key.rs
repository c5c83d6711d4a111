//! Names of objects: segments of ASCII letters, digits, `.`, `_` and `-`, with `/` between. They need no escaping in a URL
//! and are names of files. No object has the name of a folder that another is in: a file system cannot have both.

use crate::error::StoreError;

/// Bytes of the longest name. S3 takes 1024, of which a prefix uses some.
pub const KEY_BYTES_MAX: usize = 512;
/// Bytes of the longest segment; file systems take 255.
pub const SEGMENT_BYTES_MAX: usize = 200;

/// Checks a name.
///
/// # Errors
/// [`StoreError::Refused`]: it is empty, too long, has another character, or a segment that is empty or begins with `.`.
pub fn check(key: &str) -> Result<(), StoreError> {
    let is_right = key.len() <= KEY_BYTES_MAX && key.split('/').all(is_segment);
    is_right.then_some(()).ok_or_else(|| {
        let shown: String = key.chars().take(KEY_BYTES_MAX).collect();
        StoreError::request(format!("`{shown}` is not the name of an object"))
    })
}

fn is_segment(segment: &str) -> bool {
    (1..=SEGMENT_BYTES_MAX).contains(&segment.len()) && !segment.starts_with('.') && has_only_allowed(segment)
}

fn has_only_allowed(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Checks the beginning of names that a list asks for: empty, or the beginning of a name.
///
/// # Errors
/// [`StoreError::Refused`]: no name can begin with it.
pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    let folder = prefix.strip_suffix('/').unwrap_or(prefix);
    if folder.is_empty() && prefix.is_empty() { Ok(()) } else { check(folder) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_files_too() {
        for key in ["a", "log/jnl/0000000000001a2b", "a-b_c.d/1", &"a".repeat(SEGMENT_BYTES_MAX)] {
            assert_eq!(check(key), Ok(()), "{key}");
        }
        let long = "a".repeat(SEGMENT_BYTES_MAX + 1);
        let deep = "a/".repeat(KEY_BYTES_MAX) + "a";
        for key in
            ["", "/", "/a", "a/", "a//b", "..", "a/../b", ".new", "a b", "ä", "a%2f", "a\\b", &long, &deep]
        {
            assert!(matches!(check(key), Err(StoreError::Refused(..))), "{key}");
        }
    }

    #[test]
    fn a_prefix_may_end_within_a_segment_or_behind_it() {
        for prefix in ["", "a", "a/", "a/b"] {
            assert_eq!(check_prefix(prefix), Ok(()), "{prefix}");
        }
        for prefix in ["/", "//", "a//", "../"] {
            assert!(check_prefix(prefix).is_err(), "{prefix}");
        }
    }
}
