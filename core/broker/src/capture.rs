//! Captures: rules that say which publishes in the hub are appended to which log topic, under which key.
//! The first rule that matches wins.

use bytes::Bytes;

use crate::address::{Address, Filter, Form, Step};

/// One rule. In the templates `{address}` is the whole address (slashed), `{1}`, `{2}` … are what the
/// filter's wildcards stood for, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureRule {
    /// Publishes of this origin only (a plug's name); of every origin if none.
    pub origin: Option<String>,
    /// Addresses that it captures.
    pub filter: Filter,
    /// The log topic, a template.
    pub topic: String,
    /// The record's key, a template.
    pub key: String,
}

/// The rules, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captures(pub(crate) Vec<CaptureRule>);

impl Captures {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The topic and key that a publish is captured under.
    pub(crate) fn capture(&self, origin: &str, address: &Address) -> Option<(String, Bytes)> {
        let rule = self
            .0
            .iter()
            .find(|r| r.origin.as_deref().is_none_or(|o| o == origin) && r.filter.matches(address))?;
        let topic = fill(&rule.topic, Form::Dotted, rule, address);
        let key = fill(&rule.key, Form::Slashed, rule, address);
        Some((String::from_utf8(topic).ok()?, Bytes::from(key)))
    }
}

fn fill(template: &str, form: Form, rule: &CaptureRule, address: &Address) -> Vec<u8> {
    if template == "{address}" {
        return address.write(form);
    }
    let mut out = Vec::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.extend_from_slice(&rest.as_bytes()[..open]);
        let Some(close) = rest[open..].find('}') else { break };
        match &rest[open + 1..open + close] {
            "address" => out.extend_from_slice(&address.write(form)),
            n => match n.parse::<usize>().ok().and_then(|n| captured(rule, address, n)) {
                Some(levels) => out.extend_from_slice(&levels.write(form)),
                None => out.extend_from_slice(&rest.as_bytes()[open..=open + close]),
            },
        }
        rest = &rest[open + close + 1..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// What the n-th wildcard (from 1) stood for. Filters of rules have `#` at their end only.
fn captured(rule: &CaptureRule, address: &Address, n: usize) -> Option<Address> {
    let (at, step) = rule
        .filter
        .steps()
        .iter()
        .enumerate()
        .filter(|(_, s)| !matches!(s, Step::Literal(_)))
        .nth(n.checked_sub(1)?)?;
    let levels = address.levels();
    match step {
        Step::Many => Some(Address::from_levels(levels.get(at..)?.to_vec())),
        _ => Some(Address::from_levels(vec![levels.get(at)?.clone()])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(rules: &[(&str, &str, &str)], address: &str) -> Option<(String, Bytes)> {
        let rules = rules.iter().map(|(filter, topic, key)| CaptureRule {
            origin: None,
            filter: Filter::slashed(filter.as_bytes()),
            topic: (*topic).into(),
            key: (*key).into(),
        });
        Captures(rules.collect()).capture("x", &Address::parse(Form::Slashed, address.as_bytes()))
    }

    #[test]
    fn the_first_rule_that_matches_wins() {
        let rules = [("s/+/t/#", "data.{1}", "{1}:{2}"), ("#", "all", "{address}")];
        assert_eq!(capture(&rules, "s/a.b/t/x/y"), Some(("data.a%2Eb".into(), Bytes::from("a.b:x/y"))));
        assert_eq!(capture(&rules, "q/r"), Some(("all".into(), Bytes::from("q/r"))));
        assert_eq!(capture(&rules, "$SYS/r"), None);
    }
}
