//! Regular expressions of other brokers.
//!
//! RabbitMQ's are those of PCRE. What this crate's engine does not have is refused when it compiles the expression; what it
//! reads in another way is found here, so that no expression matches more than it did.

use regex::Regex;

use crate::pattern::{Pattern, PatternError, compile};

/// An expression that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It has something that means another thing here.
    #[error("unsupported regular expression `{expression}`: {what}")]
    Unsupported {
        /// The expression.
        expression: String,
        /// What is not supported.
        what: &'static str,
    },
    /// It does not compile: an error in it, or look-around, a back reference or another construct that cannot be matched in
    /// bounded time.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// Checks that a PCRE expression means the same here.
pub fn check_expression(expression: &str) -> Result<(), ExpressionError> {
    match difference(expression) {
        Some(what) => Err(ExpressionError::Unsupported { expression: expression.to_owned(), what }),
        None => Ok(Pattern::Regex(expression.to_owned()).check()?),
    }
}

/// A PCRE expression over names, ready to match. It is not anchored, and has no variables.
#[derive(Clone, Debug)]
pub struct Expression(Regex);

impl Expression {
    /// Compiles an expression.
    pub fn new(expression: &str) -> Result<Expression, ExpressionError> {
        check_expression(expression)?;
        let compiled = compile(expression).map_err(|error| PatternError::Regex {
            pattern: expression.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Expression(compiled))
    }

    /// Whether it finds a match in a name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

/// What PCRE reads in another way.
fn difference(expression: &str) -> Option<&'static str> {
    let mut rest = expression.chars().peekable();
    // After a quantifier `+` makes it possessive, `?` makes it lazy.
    let mut is_quantified = false;
    while let Some(c) = rest.next() {
        let was_quantified = std::mem::take(&mut is_quantified);
        match c {
            '\\' => match rest.next() {
                Some('<' | '>') => return Some("`\\<` and `\\>`"),
                Some('v') => return Some("`\\v`"),
                Some('b' | 'B') if rest.peek() == Some(&'{') => return Some("`\\b{`"),
                _ => {}
            },
            '[' => {
                if let Some(what) = class(&mut rest) {
                    return Some(what);
                }
            }
            '(' if rest.peek() == Some(&'?') => {
                rest.next();
                let flags = |c: &char| c.is_ascii_alphabetic() || *c == '-';
                while let Some(flag) = rest.next_if(flags) {
                    if matches!(flag, 'R' | 'u') {
                        return Some("recursion, and the flags `R` and `u`");
                    }
                    if flag == 'P' {
                        break;
                    }
                }
            }
            '+' if was_quantified => return Some("possessive quantifiers"),
            '*' | '+' | '}' => is_quantified = true,
            '?' => is_quantified = !was_quantified,
            _ => {}
        }
    }
    None
}

/// Reads a class of characters to its end. Set operations and nested classes are plain characters in PCRE.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<&'static str> {
    const SETS: Option<&str> = Some("`[`, `&&`, `--` and `~~` in a class; write `\\[`, `\\&`, `\\-`, `\\~`");
    rest.next_if_eq(&'^');
    let mut is_first = true;
    while let Some(c) = rest.next() {
        match c {
            ']' if !is_first => return None,
            '\\' => {
                rest.next();
            }
            '[' if rest.peek() == Some(&':') => {
                // A class of POSIX: `[:alpha:]`.
                while rest.next_if(|c| *c != ']').is_some() {}
                rest.next();
            }
            '[' => return SETS,
            '&' | '-' | '~' if rest.peek() == Some(&c) => return SETS,
            _ => {}
        }
        is_first = false;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_expressions_are_accepted() {
        for expression in [
            "",
            ".*",
            "^$",
            "^(amq\\.gen.*|amq\\.default)$",
            "^{username}-",
            "^a{2,3}?b+?c??$",
            "[]a-z\\]_-]+",
            "[[:alpha:]]+",
            "(?i)^events\\.(?:eu|us)\\.",
            "(?P<n>a)(?<m>b)",
            "\\d+\\.\\w*",
            "a\\+\\+",
        ] {
            assert_eq!(check_expression(expression), Ok(()), "{expression}");
        }
    }

    #[test]
    fn what_means_another_thing_here_is_refused() {
        for expression in [
            "^(?!secret)",
            "(?<=a)b",
            "(a)\\1",
            "(?>a)",
            "a\\Z",
            "\\Qa.b\\E",
            "(?#comment)a",
            "(",
            "a++",
            "a*+",
            "a?+",
            "a{2}+",
            "(?R)",
            "(?i-u:a)",
            "[a[b]]",
            "[a&&b]",
            "[a--b]",
            "\\<a",
            "\\bx\\b{start}",
            "\\v",
        ] {
            let error = check_expression(expression).unwrap_err();
            assert!(error.to_string().contains("regular expression `"), "{expression}: {error}");
        }
    }
}
