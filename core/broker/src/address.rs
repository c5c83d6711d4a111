//! Addresses: lists of levels, common to the address spaces of all protocols.
//!
//! Two written forms exist. *Slashed* separates levels by `/`, *dotted* by `.`. A separator that occurs inside
//! a level is percent-escaped, and the escape itself is escaped where it would be ambiguous, so that each
//! form is a bijection between strings and level lists: `a.b/c` (slashed) is `a%2Eb.c` (dotted), and back.
//!
//! The rule, for the separator whose escape is `%XX`: inside a level the separator is written `%XX`, and a
//! literal `%(25)*XX` gets one more `25` after its `%`. All other bytes are written unchanged. Hence a string
//! without escapes denotes itself, and no two strings of one form name the same address.
//!
//! Does not know which protocol uses which form.

use std::borrow::Cow;

/// The levels of a name, as raw bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    levels: Vec<Box<[u8]>>,
}

/// One written form of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Levels separated by `/`.
    Slashed,
    /// Levels separated by `.`.
    Dotted,
}

impl Form {
    /// The byte between two levels.
    #[must_use]
    pub const fn separator(self) -> u8 {
        match self {
            Form::Slashed => b'/',
            Form::Dotted => b'.',
        }
    }

    const fn escape_digits(self) -> &'static [u8; 2] {
        match self {
            Form::Slashed => b"2F",
            Form::Dotted => b"2E",
        }
    }
}

impl Address {
    /// Parses the written form of an address. Every byte string is one.
    #[must_use]
    pub fn parse(form: Form, text: &[u8]) -> Address {
        let levels = if text.is_empty() {
            Vec::new()
        } else {
            text.split(|b| *b == form.separator()).map(|level| unescape(form, level).into()).collect()
        };
        Address { levels }
    }

    /// An address of these levels.
    #[must_use]
    pub fn from_levels(levels: Vec<Box<[u8]>>) -> Address {
        Address { levels }
    }

    /// The levels, outermost first. The empty string has none.
    #[must_use]
    pub fn levels(&self) -> &[Box<[u8]>] {
        &self.levels
    }

    /// Writes the address in a form.
    #[must_use]
    pub fn write(&self, form: Form) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.levels.iter().map(|l| l.len() + 1).sum());
        for (i, level) in self.levels.iter().enumerate() {
            if i > 0 {
                out.push(form.separator());
            }
            out.extend_from_slice(&escape(form, level));
        }
        out
    }

    /// Whether a leading wildcard of a guarded filter does not match it (`$SYS/…`).
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.levels.first().is_some_and(|l| l.first() == Some(&b'$'))
    }
}

/// Whether a slashed address is one of the server's own statistics, where no client publishes: everything below `$SYS`
/// but the state of a bridge, `$SYS/broker/connection/NAME/state`, which the bridge itself tells.
#[must_use]
pub fn is_reserved(slashed: &[u8]) -> bool {
    let Some(below) = slashed.strip_prefix(b"$SYS/") else { return false };
    let name = below.strip_prefix(b"broker/connection/").and_then(|rest| rest.strip_suffix(b"/state"));
    name.is_none_or(<[u8]>::is_empty)
}

/// Converts a name from one written form to another.
#[must_use]
pub fn rewrite<'a>(from: Form, to: Form, text: &'a [u8]) -> Cow<'a, [u8]> {
    if from == to {
        return Cow::Borrowed(text);
    }
    if !text.contains(&b'%') && !text.contains(&to.separator()) {
        // The common case: nothing to escape, only the separators change.
        let mut out = text.to_vec();
        for b in &mut out {
            if *b == from.separator() {
                *b = to.separator();
            }
        }
        return Cow::Owned(out);
    }
    Cow::Owned(Address::parse(from, text).write(to))
}

/// One level of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Exactly this level.
    Literal(Box<[u8]>),
    /// Any one level.
    One,
    /// Any number of levels, including none.
    Many,
}

/// A pattern over addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter {
    steps: Vec<Step>,
    /// A leading wildcard does not match system addresses.
    guarded: bool,
}

impl Filter {
    /// Parses a slashed filter: `+` is one level, `#` any number. Guarded: its leading wildcards do not match addresses
    /// that begin with `$` [MQTT-4.7.2-1]. The caller has validated the places of wildcards.
    #[must_use]
    pub fn slashed(text: &[u8]) -> Filter {
        Filter { steps: steps(Form::Slashed, text, b"+"), guarded: true }
    }

    /// Parses a dotted filter: `*` is one level, `#` any number, anywhere.
    #[must_use]
    pub fn dotted(text: &[u8]) -> Filter {
        Filter { steps: steps(Form::Dotted, text, b"*"), guarded: false }
    }

    /// The steps, outermost first.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether its leading wildcard does not match system addresses.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.guarded && !matches!(self.steps.first(), Some(Step::Literal(_)))
    }

    /// The one address that this filter matches, if it has no wildcard.
    #[must_use]
    pub fn as_address(&self) -> Option<Address> {
        let levels = self.steps.iter().map(|s| match s {
            Step::Literal(l) => Some(l.clone()),
            Step::One | Step::Many => None,
        });
        Some(Address { levels: levels.collect::<Option<Vec<_>>>()? })
    }

    /// Whether the filter matches the address; cost is bounded by the product of their lengths.
    #[must_use]
    pub fn matches(&self, address: &Address) -> bool {
        if self.is_guarded() && address.is_system() {
            return false;
        }
        // `reached[i]`: the first i steps match the levels read so far.
        let mut reached = vec![false; self.steps.len() + 1];
        reached[0] = true;
        close(&self.steps, &mut reached);
        for level in &address.levels {
            let mut next = vec![false; self.steps.len() + 1];
            for (i, step) in self.steps.iter().enumerate() {
                if !reached[i] {
                    continue;
                }
                match step {
                    Step::Literal(l) => next[i + 1] |= l == level,
                    Step::One => next[i + 1] = true,
                    Step::Many => next[i] = true,
                }
            }
            close(&self.steps, &mut next);
            reached = next;
        }
        reached[self.steps.len()]
    }
}

/// `Many` also matches no level at all.
fn close(steps: &[Step], reached: &mut [bool]) {
    for (i, step) in steps.iter().enumerate() {
        if reached[i] && *step == Step::Many {
            reached[i + 1] = true;
        }
    }
}

fn steps(form: Form, text: &[u8], one: &[u8]) -> Vec<Step> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|b| *b == form.separator())
        .map(|level| match level {
            l if l == one => Step::One,
            b"#" => Step::Many,
            l => Step::Literal(unescape(form, l).into()),
        })
        .collect()
}

/// The length of `%(25)*XX` at the start of `text`, if present.
fn escape_len(form: Form, text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'%') {
        return None;
    }
    let mut at = 1;
    while text.get(at..at + 2) == Some(b"25") {
        at += 2;
    }
    (text.get(at..at + 2) == Some(form.escape_digits())).then_some(at + 2)
}

fn unescape(form: Form, level: &[u8]) -> Cow<'_, [u8]> {
    if !level.contains(&b'%') {
        return Cow::Borrowed(level);
    }
    let mut out = Vec::with_capacity(level.len());
    let mut rest = level;
    while let Some(first) = rest.first() {
        match escape_len(form, rest) {
            Some(3) => {
                out.push(form.separator());
                rest = &rest[3..];
            }
            Some(n) => {
                out.push(b'%');
                out.extend_from_slice(&rest[3..n]);
                rest = &rest[n..];
            }
            None => {
                out.push(*first);
                rest = &rest[1..];
            }
        }
    }
    Cow::Owned(out)
}

fn escape(form: Form, level: &[u8]) -> Cow<'_, [u8]> {
    if !level.contains(&b'%') && !level.contains(&form.separator()) {
        return Cow::Borrowed(level);
    }
    let mut out = Vec::with_capacity(level.len() + 8);
    let mut rest = level;
    while let Some(first) = rest.first() {
        if *first == form.separator() {
            out.push(b'%');
            out.extend_from_slice(form.escape_digits());
            rest = &rest[1..];
        } else if let Some(n) = escape_len(form, rest) {
            out.extend_from_slice(b"%25");
            out.extend_from_slice(&rest[1..n]);
            rest = &rest[n..];
        } else {
            out.push(*first);
            rest = &rest[1..];
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dotted_of(slashed: &str) -> String {
        String::from_utf8(rewrite(Form::Slashed, Form::Dotted, slashed.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn a_separator_inside_a_level_is_escaped() {
        assert_eq!(dotted_of("sensors/room1/temp"), "sensors.room1.temp");
        assert_eq!(dotted_of("a.b/c"), "a%2Eb.c");
        assert_eq!(dotted_of("a%2Eb/c"), "a%252Eb.c");
        assert_eq!(dotted_of("100%/x%25y"), "100%.x%25y");
        assert_eq!(dotted_of("a%2Fb"), "a/b");
    }

    #[test]
    fn filters_match_by_the_rules_of_their_form() {
        let a = |t: &str| Address::parse(Form::Slashed, t.as_bytes());
        assert!(Filter::slashed(b"a/+/c").matches(&a("a/b/c")));
        assert!(Filter::slashed(b"a/#").matches(&a("a")));
        assert!(!Filter::slashed(b"#").matches(&a("$SYS/x")));
        assert!(Filter::dotted(b"#").matches(&a("$SYS/x")));
        assert!(Filter::dotted(b"#.z.*").matches(&a("x/y/z/q")));
        assert!(!Filter::dotted(b"#.z.*").matches(&a("x/y/z")));
        assert!(Filter::dotted(b"a%2Eb.*").matches(&a("a.b/c")));
    }

    proptest! {
        #[test]
        fn both_forms_are_bijections(text in "[a%25EF./]{0,24}") {
            for (from, to) in [(Form::Slashed, Form::Dotted), (Form::Dotted, Form::Slashed)] {
                let there = rewrite(from, to, text.as_bytes()).into_owned();
                let back = rewrite(to, from, &there).into_owned();
                prop_assert_eq!(&back, text.as_bytes());
                prop_assert_eq!(Address::parse(from, text.as_bytes()), Address::parse(to, &there));
            }
        }
    }
}
