//! Patterns over names of resources.
//!
//! `{username}`, `{client_id}` and `{namespace}` in a pattern stand for the subject's own. They are replaced as plain
//! text: a value never acts as a wildcard or as part of a regular expression.

use regex::Regex;
use serde::{Deserialize, Serialize};

/// Bytes of a pattern.
const PATTERN_BYTES_MAX: usize = 64 * 1024;
/// Memory of a compiled regular expression.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// Which names a rule applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pattern {
    /// Every name.
    Any,
    /// This name.
    Literal(String),
    /// Names that begin with this text.
    Prefix(String),
    /// Addresses that the filter matches: levels separated by `/`, `+` for one level, `#` at the end for any number. A
    /// wildcard at the beginning does not match names that begin with `$`.
    Filter(String),
    /// Names in which the regular expression finds a match; it is not anchored.
    Regex(String),
    /// Names of routing keys: those of this exchange whose key the other pattern matches.
    Within {
        /// The exchange's name.
        exchange: String,
        /// The keys.
        keys: Box<Pattern>,
    },
    /// Addresses in whose dotted form the regular expression finds a match: `.` between levels, `*` for `+`. It applies to
    /// the filter of a subscription as a text.
    Dotted(String),
}

/// A pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is too long.
    #[error("pattern longer than {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    /// A pattern of routing keys is part of another.
    #[error("a pattern of routing keys has no exchange of its own")]
    Nested,
    /// The filter has a wildcard beside other characters, or `#` before its end.
    #[error("invalid filter `{0}`")]
    Filter(String),
    /// The regular expression does not compile, or is too large.
    #[error("invalid regular expression `{pattern}`: {reason}")]
    Regex {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The variables of patterns; `{vhost}` is the name that the namespace has in those of topic permissions.
const VARIABLES: [&str; 4] = ["{username}", "{client_id}", "{namespace}", "{vhost}"];

/// The subject's values for the variables of a pattern.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variables<'a> {
    pub(crate) username: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) namespace: &'a str,
}

impl Variables<'_> {
    /// Whether a text names one that has no value.
    fn are_missing_in(&self, text: &str) -> bool {
        (self.username.is_empty() && text.contains("{username}"))
            || (self.client_id.is_empty() && text.contains("{client_id}"))
    }
}

/// A pattern with the values of one subject, ready to match.
#[derive(Clone, Debug)]
pub(crate) enum Matcher {
    Any,
    Literal(String),
    Prefix(String),
    /// Levels; `None` for a level that no name has.
    Filter(Vec<Level>),
    Regex(Regex),
    Within(String, Box<Matcher>),
    Dotted(Regex),
    /// A value cannot be a part of such a pattern.
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Exactly(String),
    One,
    Rest,
}

impl Pattern {
    /// Checks that the pattern can be used.
    pub fn check(&self) -> Result<(), PatternError> {
        let text = match self {
            Pattern::Any => return Ok(()),
            Pattern::Within { exchange, keys } => {
                if exchange.len() > PATTERN_BYTES_MAX {
                    return Err(PatternError::TooLong);
                }
                return match **keys {
                    Pattern::Within { .. } => Err(PatternError::Nested),
                    ref keys => keys.check(),
                };
            }
            Pattern::Literal(text)
            | Pattern::Prefix(text)
            | Pattern::Filter(text)
            | Pattern::Regex(text)
            | Pattern::Dotted(text) => text,
        };
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        match self {
            Pattern::Filter(filter) if !is_filter(filter) => Err(PatternError::Filter(filter.clone())),
            Pattern::Regex(pattern) | Pattern::Dotted(pattern) => {
                let sample = Variables { username: "user", client_id: "client", namespace: "/" };
                compile(&expand(pattern, &sample, regex::escape)).map(drop).map_err(|error| {
                    PatternError::Regex { pattern: pattern.clone(), reason: error.to_string() }
                })
            }
            _ => Ok(()),
        }
    }

    /// The pattern for every subject, if it has no variables.
    pub(crate) fn fixed_matcher(&self) -> Option<Matcher> {
        self.is_fixed().then(|| self.matcher(&Variables { username: "", client_id: "", namespace: "" }))
    }

    fn is_fixed(&self) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Within { keys, .. } => keys.is_fixed(),
            Pattern::Literal(text)
            | Pattern::Prefix(text)
            | Pattern::Filter(text)
            | Pattern::Regex(text)
            | Pattern::Dotted(text) => !VARIABLES.iter().any(|name| text.contains(name)),
        }
    }

    /// Whether it names a variable that has no value for a subject: what is left of it would match more than it says.
    pub(crate) fn lacks_value(&self, variables: &Variables<'_>) -> bool {
        match self {
            Pattern::Any => false,
            Pattern::Within { keys, .. } => keys.lacks_value(variables),
            Pattern::Literal(text)
            | Pattern::Prefix(text)
            | Pattern::Filter(text)
            | Pattern::Regex(text)
            | Pattern::Dotted(text) => variables.are_missing_in(text),
        }
    }

    /// The pattern for one subject.
    pub(crate) fn matcher(&self, variables: &Variables<'_>) -> Matcher {
        let plain = |text: &str| expand(text, variables, str::to_owned);
        match self {
            Pattern::Any => Matcher::Any,
            Pattern::Literal(text) => Matcher::Literal(plain(text)),
            Pattern::Prefix(text) => Matcher::Prefix(plain(text)),
            Pattern::Filter(filter) if is_filter(filter) => {
                let levels: Option<Vec<Level>> =
                    filter.split('/').map(|level| filter_level(level, variables)).collect();
                levels.map_or(Matcher::Nothing, Matcher::Filter)
            }
            Pattern::Filter(_) => Matcher::Nothing,
            Pattern::Regex(pattern) if matches!(pattern.as_str(), "" | ".*") => Matcher::Any,
            Pattern::Regex(pattern) => {
                compile(&expand(pattern, variables, regex::escape)).map_or(Matcher::Nothing, Matcher::Regex)
            }
            Pattern::Within { exchange, keys } => {
                Matcher::Within(exchange.clone(), Box::new(keys.matcher(variables)))
            }
            Pattern::Dotted(pattern) => {
                compile(&expand(pattern, variables, regex::escape)).map_or(Matcher::Nothing, Matcher::Dotted)
            }
        }
    }
}

impl Matcher {
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Matcher::Any => true,
            Matcher::Literal(text) => name == text,
            Matcher::Prefix(text) => name.starts_with(text.as_str()),
            Matcher::Filter(levels) => filter_matches(levels, name),
            Matcher::Regex(regex) => regex.is_match(name),
            Matcher::Dotted(regex) => regex.is_match(&dotted(name)),
            Matcher::Within(..) | Matcher::Nothing => false,
        }
    }

    /// Whether it applies to keys of an exchange at all.
    pub(crate) fn concerns_exchange(&self, exchange: &str) -> bool {
        match self {
            Matcher::Within(of, _) => of == exchange,
            _ => true,
        }
    }

    /// Whether it matches a key of an exchange.
    pub(crate) fn matches_key(&self, exchange: &str, key: &str) -> bool {
        match self {
            Matcher::Within(of, keys) => of == exchange && keys.matches(key),
            other => other.matches(key),
        }
    }

    /// Whether it certainly matches every name that another matches. False where that is not known.
    pub(crate) fn covers(&self, other: &Matcher) -> bool {
        match (self, other) {
            (Matcher::Any, _) => true,
            (matcher, Matcher::Literal(name)) => matcher.matches(name),
            (Matcher::Prefix(own), Matcher::Prefix(prefix)) => prefix.starts_with(own.as_str()),
            (Matcher::Prefix(own), Matcher::Any) => own.is_empty(),
            _ => false,
        }
    }

    /// Whether it certainly matches every name that `filter` matches, unlike [`covers_filter`](Self::covers_filter), where
    /// expressions apply to the filter's text. False where that is not known.
    pub(crate) fn matches_all_of(&self, filter: &str) -> bool {
        match self {
            Matcher::Any => true,
            Matcher::Prefix(prefix) => {
                let fixed = fixed_beginning(filter);
                // A filter that ends with `/#` matches the level above as well.
                let shortest = if filter.ends_with("/#") { fixed.strip_suffix('/') } else { None };
                shortest.unwrap_or(fixed).starts_with(prefix.as_str())
            }
            Matcher::Filter(levels) => filter_covers(levels, filter),
            _ => false,
        }
    }

    /// Whether it may match some name that `filter` matches. True where that is not known.
    pub(crate) fn may_match_some_of(&self, filter: &str) -> bool {
        match self {
            Matcher::Nothing | Matcher::Within(..) => false,
            Matcher::Literal(name) => name_matches(filter, name),
            Matcher::Prefix(prefix) => {
                let fixed = fixed_beginning(filter);
                fixed.starts_with(prefix.as_str()) || prefix.starts_with(fixed)
            }
            Matcher::Filter(levels) => filters_meet(levels, filter),
            Matcher::Any | Matcher::Regex(_) | Matcher::Dotted(_) => true,
        }
    }

    /// Whether every name that `filter` matches is matched as well. Used for subscriptions, whose names are filters.
    pub(crate) fn covers_filter(&self, filter: &str) -> bool {
        match self {
            Matcher::Filter(levels) => filter_covers(levels, filter),
            // A prefix covers the filter if its fixed beginning has it.
            Matcher::Prefix(prefix) => fixed_beginning(filter).starts_with(prefix.as_str()),
            other => other.matches(filter),
        }
    }
}

/// An address or filter in the form that routing keys have: what separates levels there is escaped inside one.
fn dotted(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '/' => out.push('.'),
            '+' => out.push('*'),
            '.' => out.push_str("%2E"),
            other => out.push(other),
        }
    }
    out
}

pub(crate) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build()
}

/// Replaces variables, each value changed by `quote`.
fn expand(text: &str, variables: &Variables<'_>, quote: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let Variables { username, client_id, namespace } = variables;
        let values = [username, client_id, namespace, namespace];
        let found =
            VARIABLES.iter().zip(values).find_map(|(name, value)| Some((from.strip_prefix(name)?, value)));
        rest = match found {
            Some((after, value)) => {
                out.push_str(&quote(value));
                after
            }
            None => {
                out.push('{');
                from.get(1..).unwrap_or_default()
            }
        };
    }
    out.push_str(rest);
    out
}

/// A regular expression that finds a text, whose variables stay variables.
pub(crate) fn quoted(text: &str) -> String {
    let escaped = regex::escape(text);
    VARIABLES.iter().fold(escaped, |text, name| text.replace(&regex::escape(name), name))
}

fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_wildcard = level == "+" || (level == "#" && levels.peek().is_none());
        if !is_wildcard && level.contains(['+', '#']) {
            return false;
        }
    }
    !filter.is_empty()
}

/// What every name that a filter matches begins with, but for the level above a `/#`.
fn fixed_beginning(filter: &str) -> &str {
    filter.find(['+', '#']).and_then(|at| filter.get(..at)).unwrap_or(filter)
}

/// Whether a filter matches a name, names that begin with `$` not apart.
fn name_matches(filter: &str, name: &str) -> bool {
    let mut parts = name.split('/');
    for level in filter.split('/') {
        match (level, parts.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(part)) if level == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

/// Whether a name may exist that both filters match.
fn filters_meet(levels: &[Level], filter: &str) -> bool {
    let mut others = filter.split('/');
    for level in levels {
        match (level, others.next()) {
            (Level::Rest, _) | (_, Some("#")) => return true,
            (Level::One, Some(_)) | (Level::Exactly(_), Some("+")) => {}
            (Level::Exactly(text), Some(other)) if text == other => {}
            _ => return false,
        }
    }
    others.next().is_none_or(|other| other == "#")
}

/// None where a value is missing or holds a separator or a wildcard: no level is like that.
fn filter_level(level: &str, variables: &Variables<'_>) -> Option<Level> {
    match level {
        "+" => Some(Level::One),
        "#" => Some(Level::Rest),
        text => {
            let lacks_value = variables.are_missing_in(text);
            let expanded = expand(text, variables, str::to_owned);
            let is_plain = expanded == text || (!lacks_value && !expanded.contains(['/', '+', '#']));
            is_plain.then_some(Level::Exactly(expanded))
        }
    }
}

fn filter_matches(levels: &[Level], name: &str) -> bool {
    if name.starts_with('$') && !matches!(levels.first(), Some(Level::Exactly(_))) {
        return false;
    }
    let mut parts = name.split('/');
    for level in levels {
        match level {
            Level::Rest => return true,
            Level::One if parts.next().is_some() => {}
            Level::Exactly(text) if parts.next() == Some(text) => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

fn filter_covers(levels: &[Level], filter: &str) -> bool {
    if filter.starts_with('$') && !matches!(levels.first(), Some(Level::Exactly(_))) {
        return false;
    }
    let mut parts = filter.split('/');
    for level in levels {
        match (level, parts.next()) {
            (Level::Rest, _) => return true,
            (Level::One, Some(part)) if part != "#" => {}
            (Level::Exactly(text), Some(part)) if part == text => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Variables<'static> = Variables { username: "ann", client_id: "sensor-1", namespace: "/" };

    fn matches(pattern: &Pattern, name: &str) -> bool {
        pattern.matcher(&ANN).matches(name)
    }

    #[test]
    fn filters_match_addresses() {
        let filter = |text: &str| Pattern::Filter(text.into());
        for (pattern, yes, no) in [
            ("a/b", &["a/b"][..], &["a", "a/b/c", "a/c"][..]),
            ("a/+", &["a/b", "a/"], &["a", "a/b/c"]),
            ("a/#", &["a/b", "a/b/c", "a"], &["b", "ab"]),
            ("#", &["a", "a/b", ""], &["$SYS/x"]),
            ("+/x", &["a/x"], &["$SYS/x", "x"]),
            ("$SYS/#", &["$SYS/x"], &["a"]),
            ("devices/{client_id}/#", &["devices/sensor-1/up"], &["devices/sensor-2/up", "devices/+/up"]),
            ("{username}", &["ann"], &["bob"]),
        ] {
            let pattern = filter(pattern);
            assert_eq!(pattern.check(), Ok(()));
            yes.iter().for_each(|name| assert!(matches(&pattern, name), "{pattern:?} {name}"));
            no.iter().for_each(|name| assert!(!matches(&pattern, name), "{pattern:?} {name}"));
        }
        for invalid in ["", "a/b#", "a/#/b", "a+/b"] {
            assert!(filter(invalid).check().is_err(), "{invalid}");
        }
    }

    #[test]
    fn filters_cover_narrower_filters() {
        let covers =
            |wide: &str, narrow: &str| Pattern::Filter(wide.into()).matcher(&ANN).covers_filter(narrow);
        assert!(covers("a/#", "a/b") && covers("a/#", "a/+") && covers("a/#", "a/#") && covers("a/+", "a/+"));
        assert!(
            !covers("a/+", "a/#") && !covers("a/b", "a/+") && !covers("#", "$SYS/#") && !covers("a/+", "+/b")
        );
        let prefix = Pattern::Prefix("a/".into()).matcher(&ANN);
        assert!(prefix.covers_filter("a/#") && !prefix.covers_filter("+/b") && !prefix.covers_filter("#"));
    }

    #[test]
    fn what_a_pattern_has_in_common_with_a_filter_is_never_said_too_small() {
        // (pattern, filter, matches all of it, may match some of it)
        let (prefix, filter) = (|t: &str| Pattern::Prefix(t.into()), |t: &str| Pattern::Filter(t.into()));
        let (literal, regex) = (|t: &str| Pattern::Literal(t.into()), |t: &str| Pattern::Regex(t.into()));
        for (pattern, of, all, some) in [
            (Pattern::Any, "#", true, true),
            (prefix("a"), "a/#", true, true),
            (prefix("a/"), "a/#", false, true),
            (prefix("a/"), "a/+", true, true),
            (prefix("a/b"), "a/+", false, true),
            (prefix("b"), "a/#", false, false),
            (prefix("a"), "+/b", false, true),
            (filter("a/#"), "a/+/c", true, true),
            (filter("a/+"), "a/#", false, true),
            (filter("+/c"), "a/#", false, true),
            (filter("b/#"), "a/#", false, false),
            (filter("a/b"), "a/b/#", false, true),
            (filter("a/b/c"), "a/+", false, false),
            (filter("a"), "a/+", false, false),
            (literal("a/b"), "a/+", false, true),
            (literal("a"), "a/#", false, true),
            (literal("b"), "a/#", false, false),
            (regex("^a/.*$"), "a/#", false, true),
            (Pattern::Dotted("^b".into()), "a/#", false, true),
        ] {
            let matcher = pattern.matcher(&ANN);
            let found = (matcher.matches_all_of(of), matcher.may_match_some_of(of));
            assert_eq!(found, (all, some), "{pattern:?} {of}");
        }
    }

    #[test]
    fn values_of_variables_are_plain_text() {
        let regex = Pattern::Regex("^{username}-".into());
        let odd = Variables { username: ".*", client_id: "a/#", namespace: "/" };
        assert!(matches(&regex, "ann-x") && !matches(&regex, "bob-x"));
        assert!(!regex.matcher(&odd).matches("ann-x") && regex.matcher(&odd).matches(".*-x"));
        let filter = Pattern::Filter("devices/{client_id}".into());
        let nobody = Variables { username: "", client_id: "", namespace: "/" };
        assert!(!Pattern::Filter("by-{username}".into()).matcher(&nobody).matches("by-"));
        assert!(!filter.matcher(&odd).matches("devices/a/b") && !filter.matcher(&odd).matches("devices/a/#"));
        // A variable that is not known is plain text; braces of an expression stay.
        assert!(Pattern::Literal("{other}".into()).matcher(&ANN).matches("{other}"));
        assert!(matches(&Pattern::Regex("^a{2}$".into()), "aa"));
    }

    #[test]
    fn dotted_expressions_match_addresses_and_filters() {
        let pattern = Pattern::Dotted("^up\\.{username}\\.".into());
        assert!(
            matches(&pattern, "up/ann/x") && !matches(&pattern, "up/bob/x") && !matches(&pattern, "up.ann/x")
        );
        assert!(pattern.matcher(&ANN).covers_filter("up/ann/#"));
        assert!(Pattern::Dotted("^a\\.\\*$".into()).matcher(&ANN).covers_filter("a/+"));
    }

    #[test]
    fn expressions_are_bounded_and_not_anchored() {
        assert!(matches(&Pattern::Regex("b".into()), "abc") && matches(&Pattern::Regex(String::new()), "x"));
        assert!(Pattern::Regex("(".into()).check().is_err());
        assert!(Pattern::Regex("((a{1000}){1000}){1000}".into()).check().is_err());
        assert_eq!(Pattern::Literal("x".repeat(PATTERN_BYTES_MAX + 1)).check(), Err(PatternError::TooLong));
    }
}
