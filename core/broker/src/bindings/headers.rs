//! Rules of headers exchanges: `x-match` and the headers that a binding requires.

use crate::value::{Arguments, HeaderLookup, Value};

/// The rule of a binding. A header required with the value [`Value::Null`] needs only be present.
pub(crate) struct HeaderRule {
    any: bool,
    wanted: Vec<(String, Value)>,
}

impl HeaderRule {
    pub(crate) fn new(arguments: &Arguments) -> HeaderRule {
        let how = arguments.get("x-match").and_then(Value::as_str).unwrap_or("all");
        let with_x = how.ends_with("-with-x");
        let wanted = arguments
            .iter()
            .filter(|(name, _)| name.as_str() != "x-match" && (with_x || !name.starts_with("x-")))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        HeaderRule { any: how.starts_with("any"), wanted }
    }

    pub(crate) fn matches(&self, headers: Option<&dyn HeaderLookup>) -> bool {
        let fits = |(name, value): &(String, Value)| {
            headers.and_then(|h| h.get(name)).is_some_and(|found| *value == Value::Null || found == *value)
        };
        if self.any { self.wanted.iter().any(fits) } else { self.wanted.iter().all(fits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Map(Arguments);
    impl HeaderLookup for Map {
        fn get(&self, name: &str) -> Option<Value> {
            self.0.get(name).cloned()
        }
    }

    fn args(pairs: &[(&str, Value)]) -> Arguments {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect()
    }

    #[test]
    fn all_any_and_the_x_headers() {
        let text = |s: &str| Value::Text(s.as_bytes().to_vec());
        let message = Map(args(&[("a", Value::Int(1)), ("x-b", text("2"))]));
        let matches = |rule: &[(&str, Value)]| HeaderRule::new(&args(rule)).matches(Some(&message));
        assert!(matches(&[("a", Value::Int(1))]));
        assert!(matches(&[("a", Value::Null)]));
        assert!(!matches(&[("a", Value::Int(1)), ("c", Value::Null)]));
        assert!(matches(&[("x-match", text("any")), ("a", Value::Int(1)), ("c", Value::Null)]));
        assert!(matches(&[("x-match", text("all")), ("a", Value::Int(1)), ("x-b", text("other"))]));
        assert!(!matches(&[("x-match", text("all-with-x")), ("a", Value::Int(1)), ("x-b", text("other"))]));
        assert!(!matches(&[("x-match", text("any"))]));
        assert!(matches(&[]));
    }
}
