//! Rules that rewrite the topics of publishes and the filters of subscriptions, before permissions are asked for.

use inver_settings::serde::Deserializer;
use inver_settings::serde::de::Error;
use inver_settings::{Form, Setting};
use serde::Deserialize;

use super::template::{self, Values};

/// Bound of the rules: each is tried for every publish.
const RULES_MAX: usize = 100;

/// What a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RewriteAction {
    /// Publishes and subscriptions.
    #[default]
    All,
    /// Publishes, and wills.
    Publish,
    /// Subscriptions.
    Subscribe,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewriteRule {
    /// What it is about.
    #[serde(default)]
    pub action: RewriteAction,
    /// The topics that are rewritten: a filter.
    pub source: String,
    /// The template of what they become.
    pub destination: String,
}

/// Rules in order: the first one that matches applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RewriteRules(pub Vec<RewriteRule>);

/// Whose topics are rewritten.
#[derive(Clone, Copy)]
pub(crate) struct By<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) user: Option<&'a str>,
}

impl RewriteRules {
    /// The topic of a publish, if it is rewritten: only [`is_topic_name`] tells whether it is one.
    pub(crate) fn publish(&self, topic: &str, by: By<'_>) -> Option<String> {
        self.rewrite(RewriteAction::Subscribe, topic, by)
    }

    /// The filter of a subscription, if it is rewritten; of a shared one without its group. It must be checked again.
    pub(crate) fn subscribe(&self, filter: &str, by: By<'_>) -> Option<String> {
        self.rewrite(RewriteAction::Publish, filter, by)
    }

    fn rewrite(&self, not_for: RewriteAction, topic: &str, by: By<'_>) -> Option<String> {
        let mut rules = self.0.iter().filter(|rule| rule.action != not_for);
        let (rule, matched) = rules.find_map(|rule| Some((rule, template::matched(&rule.source, topic)?)))?;
        let (client_id, user) = (by.client_id, by.user.unwrap_or_default());
        if template::is_widened(&rule.destination, client_id, user) {
            return None;
        }
        Some(template::fill(&rule.destination, Values { matched: &matched, client_id, user }))
    }
}

/// Whether a topic name that was made by a rule is one.
pub(crate) fn is_topic_name(rewritten: &str) -> bool {
    !rewritten.is_empty()
        && rewritten.len() <= usize::from(u16::MAX)
        && !rewritten.bytes().any(|byte| matches!(byte, b'+' | b'#' | 0))
}

impl Setting for RewriteRules {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let rules: Vec<RewriteRule> = Vec::deserialize(value)?;
        if rules.len() > RULES_MAX {
            return Err(D::Error::custom(format_args!("more than {RULES_MAX} rules")));
        }
        for rule in &rules {
            let wildcards = template::wildcards(&rule.source).ok_or_else(|| {
                D::Error::custom(format_args!("source `{}` is no topic filter", rule.source))
            })?;
            template::check(&rule.destination, wildcards).map_err(D::Error::custom)?;
            if rule.destination.is_empty() || rule.destination.contains(['+', '#', '\0']) {
                return Err(D::Error::custom("destination is a topic without wildcards"));
            }
        }
        Ok(RewriteRules(rules))
    }

    fn show(&self) -> String {
        let rules = self.0.iter().map(|rule| {
            let action = match rule.action {
                RewriteAction::All => "all",
                RewriteAction::Publish => "publish",
                RewriteAction::Subscribe => "subscribe",
            };
            format!(
                "{{ action = {action:?}, source = {:?}, destination = {:?} }}",
                rule.source, rule.destination
            )
        });
        format!("[{}]", rules.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_wildcard_makes_no_wildcard() {
        let rule = |source: &str, destination: &str| RewriteRule {
            action: RewriteAction::All,
            source: source.into(),
            destination: destination.into(),
        };
        let rules = RewriteRules(vec![rule("a", "to/{client_id}"), rule("b", "to/{user}"), rule("+", "x")]);
        let by = |client_id, user| By { client_id, user: Some(user) };
        for (topic, client_id, user, wanted) in [
            ("a", "c", "#", Some("to/c")),
            ("a", "#", "u", None),
            ("b", "#", "u", Some("to/u")),
            ("b", "c", "a+", None),
            ("c", "#", "#", Some("x")),
        ] {
            assert_eq!(rules.subscribe(topic, by(client_id, user)).as_deref(), wanted, "{topic} {client_id}");
            assert_eq!(rules.publish(topic, by(client_id, user)).as_deref(), wanted, "{topic} {client_id}");
        }
        assert!(is_topic_name("a/b") && is_topic_name(&"a".repeat(65_535)));
        for not in ["", "a/+", "#", &"a".repeat(65_536)] {
            assert!(!is_topic_name(not));
        }
    }
}
