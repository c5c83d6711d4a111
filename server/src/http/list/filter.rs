//! Filters of names: a text that the name contains, or a pattern of the whole name.

use memchr::memmem::Finder;

/// A filter, prepared for many names.
pub(super) enum Filter {
    All,
    Contains(Box<Finder<'static>>),
    /// With `*` (any text) or `?` (one character).
    Pattern(Vec<char>),
}

impl Filter {
    pub(super) fn new(text: &str) -> Filter {
        match text {
            "" => Filter::All,
            text if text.contains(['*', '?']) => Filter::Pattern(text.chars().collect()),
            text => Filter::Contains(Box::new(Finder::new(text).into_owned())),
        }
    }

    pub(super) fn is_all(&self) -> bool {
        matches!(self, Filter::All)
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Filter::All => true,
            Filter::Contains(finder) => finder.find(name.as_bytes()).is_some(),
            Filter::Pattern(pattern) => is_of_pattern(pattern, name),
        }
    }
}

fn is_of_pattern(pattern: &[char], name: &str) -> bool {
    let (mut at, mut rest) = (0, name.chars());
    // Where the last `*` was, and the name behind what it takes so far.
    let mut star: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let before = rest.clone();
        let next = rest.next();
        match (pattern.get(at), next) {
            (Some('*'), _) => {
                at += 1;
                rest = before.clone();
                star = Some((at, before));
            }
            (Some(wanted), Some(c)) if *wanted == '?' || *wanted == c => at += 1,
            (None, None) => return true,
            _ => match &mut star {
                Some((behind, taken)) => {
                    if taken.next().is_none() {
                        return false;
                    }
                    at = *behind;
                    rest = taken.clone();
                }
                None => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_texts_or_patterns() {
        for (filter, name, expected) in [
            ("", "anything", true),
            ("b", "abc", true),
            ("bd", "abc", false),
            ("b*", "abc", false),
            ("*b*", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "abbc", false),
            ("a*c*e", "abcde", true),
            ("a*ce", "abcbce", true),
            ("a*ce", "abcbc", false),
            ("*", "", true),
            ("**", "a", true),
            ("?", "", false),
            ("ü?", "üö", true),
            ("*ö", "üöüö", true),
        ] {
            assert_eq!(Filter::new(filter).matches(name), expected, "{filter} {name}");
        }
    }
}
