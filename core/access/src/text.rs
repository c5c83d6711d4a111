//! Rules as people write them: in the configuration, the HTTP API and the command line.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::pattern::{Pattern, PatternError};
use crate::rule::{Effect, Operation, Operations, Principal, ResourceKind, Rule, RuleId};
use crate::user::Tag;

/// A rule in its written form. Exactly one of `user`, `tag`, `anyone` and `anonymous` says whom it applies to; at most one
/// of `name`, `prefix`, `filter`, `regex` and `dotted` says which resources, all of the kind if none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// The id of a stored rule; not for new ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The user that it applies to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The tag whose users it applies to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whether it applies to everybody, anonymous clients included.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anyone: bool,
    /// Whether it applies to clients without a user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// The namespace in which it applies; none: in every namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The kind of resource; none: every kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The name of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the names of the resources begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A filter (levels separated by `/`, with `+` and `#`) that matches the names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// A regular expression that matches in the names; not anchored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// A regular expression that matches in the dotted form of addresses (`a.b.*` for the filter `a/b/+`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dotted: Option<String>,
    /// Of routing keys: the exchange whose keys they are; none: of every exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// The operations; `all` for every operation. One alone can be written without a list.
    #[serde(deserialize_with = "one_or_several")]
    pub operations: Vec<String>,
    /// `allow` (the default) or `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// The address that the client must connect from; none: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// The dialect that wrote it; not for new ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
}

/// Why a written rule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleTextError {
    /// Not exactly one principal.
    #[error("a permission needs exactly one of `user`, `tag`, `anyone = true` and `anonymous = true`")]
    Principal,
    /// More than one pattern.
    #[error("a permission has at most one of `name`, `prefix`, `filter`, `regex` and `dotted`")]
    Patterns,
    /// An exchange, or an expression over addresses, with another kind of resource.
    #[error(
        "`exchange` is for permissions of the kind `routing-key`, `dotted` for those of the kind `address`"
    )]
    NotOfKind,
    /// The kind of resource is unknown.
    #[error("unknown kind of resource `{0}`: one of {known}", known = known(&ResourceKind::ALL.map(ResourceKind::name)))]
    Kind(String),
    /// No operation.
    #[error("a permission needs `operations`: `all`, or some of {known}", known = known(&Operation::ALL.map(Operation::name)))]
    NoOperation,
    /// An operation is unknown.
    #[error("unknown operation `{0}`: `all`, or some of {known}", known = known(&Operation::ALL.map(Operation::name)))]
    Operation(String),
    /// The effect is unknown.
    #[error("unknown effect `{0}`: `allow` or `deny`")]
    Effect(String),
    /// The pattern cannot be used.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

fn one_or_several<'de, D: Deserializer<'de>>(written: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected an operation, `all`, or a list of operations")]
    enum Written {
        One(String),
        Several(Vec<String>),
    }
    Written::deserialize(written).map(|written| match written {
        Written::One(operation) => vec![operation],
        Written::Several(operations) => operations,
    })
}

fn known(names: &[&str]) -> String {
    names.join(", ")
}

impl RuleText {
    /// The rules that it stands for: one, or one for each kind of resource.
    pub fn rules(&self) -> Result<Vec<Rule>, RuleTextError> {
        let principal = match (&self.user, &self.tag, self.anyone, self.anonymous) {
            (Some(user), None, false, false) if !user.is_empty() => Principal::User(user.clone()),
            (None, Some(tag), false, false) if !tag.is_empty() => Principal::Tag(Tag::named(tag)),
            (None, None, true, false) => Principal::Anyone,
            (None, None, false, true) => Principal::Anonymous,
            _ => return Err(RuleTextError::Principal),
        };
        let pattern = self.pattern()?;
        let kinds = match &self.kind {
            None => ResourceKind::ALL.to_vec(),
            Some(name) => {
                vec![ResourceKind::named(name).ok_or_else(|| RuleTextError::Kind(name.clone()))?]
            }
        };
        let effect = match self.effect.as_deref() {
            None | Some("allow") => Effect::Allow,
            Some("deny") => Effect::Deny,
            Some(other) => return Err(RuleTextError::Effect(other.to_owned())),
        };
        let operations = self.operations()?;
        let rule = |kind| Rule {
            id: RuleId(0),
            principal: principal.clone(),
            namespace: self.namespace.clone(),
            kind,
            pattern: pattern.clone(),
            operations,
            effect,
            host: self.host.map(|host| host.to_canonical()),
            dialect: String::new(),
        };
        Ok(kinds.into_iter().map(rule).collect())
    }

    fn pattern(&self) -> Result<Pattern, RuleTextError> {
        let texts = [
            (&self.name, Pattern::Literal as fn(String) -> Pattern),
            (&self.prefix, Pattern::Prefix),
            (&self.filter, Pattern::Filter),
            (&self.regex, Pattern::Regex),
            (&self.dotted, Pattern::Dotted),
        ];
        let mut given = texts.into_iter().filter_map(|(text, of)| text.clone().map(of));
        let pattern = given.next().unwrap_or(Pattern::Any);
        if given.next().is_some() {
            return Err(RuleTextError::Patterns);
        }
        let kind = self.kind.as_deref().and_then(ResourceKind::named);
        let is_misplaced = |is_given, of| is_given && kind != Some(of);
        if is_misplaced(self.exchange.is_some(), ResourceKind::RoutingKey)
            || is_misplaced(self.dotted.is_some(), ResourceKind::Address)
        {
            return Err(RuleTextError::NotOfKind);
        }
        let pattern = match &self.exchange {
            Some(exchange) => Pattern::Within { exchange: exchange.clone(), keys: Box::new(pattern) },
            None => pattern,
        };
        pattern.check()?;
        Ok(pattern)
    }

    fn operations(&self) -> Result<Operations, RuleTextError> {
        let mut operations = Operations::NONE;
        for name in &self.operations {
            operations = operations.or(match name.as_str() {
                "all" => Operations::ALL,
                name => Operations::of(&[
                    Operation::named(name).ok_or_else(|| RuleTextError::Operation(name.to_owned()))?
                ]),
            });
        }
        if operations == Operations::NONE { Err(RuleTextError::NoOperation) } else { Ok(operations) }
    }
}

impl RuleText {
    fn set_pattern(&mut self, pattern: &Pattern) {
        match pattern {
            Pattern::Any => {}
            Pattern::Literal(name) => self.name = Some(name.clone()),
            Pattern::Prefix(prefix) => self.prefix = Some(prefix.clone()),
            Pattern::Filter(filter) => self.filter = Some(filter.clone()),
            Pattern::Regex(regex) => self.regex = Some(regex.clone()),
            Pattern::Dotted(regex) => self.dotted = Some(regex.clone()),
            Pattern::Within { exchange, keys } => {
                self.exchange = Some(exchange.clone());
                // Not nested: the keys' pattern names no exchange.
                if !matches!(**keys, Pattern::Within { .. }) {
                    self.set_pattern(keys);
                }
            }
        }
    }
}

impl From<&Rule> for RuleText {
    fn from(rule: &Rule) -> RuleText {
        let mut text = RuleText {
            id: Some(rule.id.0),
            namespace: rule.namespace.clone(),
            kind: Some(rule.kind.name().to_owned()),
            effect: Some(if rule.effect == Effect::Allow { "allow" } else { "deny" }.to_owned()),
            host: rule.host,
            dialect: (!rule.dialect.is_empty()).then(|| rule.dialect.clone()),
            operations: match rule.operations {
                Operations::ALL => vec!["all".to_owned()],
                some => some.iter().map(|operation| operation.name().to_owned()).collect(),
            },
            ..RuleText::default()
        };
        match &rule.principal {
            Principal::User(name) => text.user = Some(name.clone()),
            Principal::Tag(tag) => text.tag = Some(tag.name().to_owned()),
            Principal::Anyone => text.anyone = true,
            Principal::Anonymous => text.anonymous = true,
        }
        text.set_pattern(&rule.pattern);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> RuleText {
        RuleText {
            user: Some("ann".into()),
            kind: Some("topic".into()),
            operations: vec!["read".into(), "write".into()],
            ..RuleText::default()
        }
    }

    #[test]
    fn a_written_rule_is_read_and_written_back() {
        let texts = [
            RuleText { prefix: Some("a.".into()), host: Some(IpAddr::from([192, 0, 2, 1])), ..text() },
            RuleText { regex: Some("^a$".into()), effect: Some("deny".into()), ..text() },
            RuleText { user: None, anonymous: true, ..text() },
            RuleText {
                user: None,
                anyone: true,
                name: Some("t".into()),
                operations: vec!["all".into()],
                ..text()
            },
            RuleText {
                user: None,
                tag: Some("ops".into()),
                kind: Some("address".into()),
                filter: Some("a/+/#".into()),
                namespace: Some("n".into()),
                ..text()
            },
            RuleText {
                kind: Some("routing-key".into()),
                exchange: Some("x".into()),
                regex: Some("^a".into()),
                ..text()
            },
            RuleText { kind: Some("address".into()), dotted: Some("^a\\.".into()), ..text() },
        ];
        for text in texts {
            let rules = text.rules().unwrap();
            assert_eq!(rules.len(), 1);
            let back = RuleText { id: None, ..RuleText::from(&rules[0]) };
            assert_eq!(
                back,
                RuleText { effect: Some(text.effect.clone().unwrap_or("allow".into())), ..text }
            );
        }
        let every = RuleText { kind: None, ..text() }.rules().unwrap();
        assert_eq!(every.iter().map(|rule| rule.kind).collect::<Vec<_>>(), ResourceKind::ALL);
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = |change: fn(&mut RuleText)| {
            let mut text = text();
            change(&mut text);
            text.rules().unwrap_err()
        };
        assert_eq!(wrong(|text| text.user = None), RuleTextError::Principal);
        assert_eq!(wrong(|text| text.anyone = true), RuleTextError::Principal);
        assert_eq!(wrong(|text| text.kind = Some("x".into())), RuleTextError::Kind("x".into()));
        assert_eq!(wrong(|text| text.operations.clear()), RuleTextError::NoOperation);
        assert_eq!(wrong(|text| text.operations.push("x".into())), RuleTextError::Operation("x".into()));
        assert_eq!(wrong(|text| text.effect = Some("x".into())), RuleTextError::Effect("x".into()));
        assert!(matches!(wrong(|text| text.regex = Some("(".into())), RuleTextError::Pattern(_)));
        assert_eq!(wrong(|text| text.exchange = Some("x".into())), RuleTextError::NotOfKind);
        assert_eq!(wrong(|text| text.dotted = Some("x".into())), RuleTextError::NotOfKind);
        let several = wrong(|text| {
            text.regex = Some("a".into());
            text.name = Some("a".into());
        });
        assert_eq!(several, RuleTextError::Patterns);
        assert!(RuleTextError::Kind("x".into()).to_string().contains("transactional-id"));
    }
}
