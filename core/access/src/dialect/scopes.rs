//! OAuth 2 scopes in the form of RabbitMQ's OAuth 2 plugin: what a token allows.
//!
//! | scope | allows |
//! |---|---|
//! | `configure:VHOST/NAME` | declaring and deleting queues (topics) and exchanges of these names |
//! | `write:VHOST/NAME/KEY` | publishing to and binding them; with keys that match `KEY`, all without it |
//! | `read:VHOST/NAME/KEY` | consuming from and binding to them, groups of these names; likewise |
//! | `tag:NAME` | the tag |
//!
//! `*` stands for any characters, `%2F` for a slash. A prefix before the form (usually the name of the resource server and a
//! dot) is required where one is configured. A scope whose name matches `amq.topic` is one for addresses of the hub too.
//!
//! A key pattern other than `*` is used where the name has no wildcard or is `*`: a scope such as `write:v/a*/b` allows
//! nothing, so that it never allows more than it says.

use crate::grant::{Grant, GrantedRule};
use crate::pattern::Pattern;
use crate::rule::{Effect, HUB_EXCHANGE, Operation, Operations, Principal, ResourceKind, Rule};
use crate::user::Tag;

/// The name of the dialect in its rules.
pub const DIALECT: &str = "scope";

/// What scopes allow. Those without the prefix and those of another form allow nothing.
#[must_use]
pub fn grant<'a>(scopes: impl IntoIterator<Item = &'a str>, prefix: &str) -> Grant {
    let mut rules = Vec::new();
    let mut tags = Vec::new();
    for scope in scopes {
        let Some((verb, what)) = scope.strip_prefix(prefix).and_then(|rest| rest.split_once(':')) else {
            continue;
        };
        let operation = match verb {
            "tag" => {
                tags.push(Tag::named(what));
                continue;
            }
            "configure" => Operation::Configure,
            "write" => Operation::Write,
            "read" => Operation::Read,
            _ => continue,
        };
        if let Some(scope) = Scope::parse(operation, what) {
            scope.add_to(&mut rules);
        }
    }
    Grant { tags: tags.into_iter().collect(), rules }
}

/// `VHOST/NAME` or `VHOST/NAME/KEY` of an operation.
struct Scope {
    operation: Operation,
    vhosts: Glob,
    names: Glob,
    keys: Glob,
}

impl Scope {
    fn parse(operation: Operation, text: &str) -> Option<Scope> {
        let mut parts = text.splitn(3, '/');
        let (vhosts, names) = (Glob::parse(parts.next()?)?, Glob::parse(parts.next()?)?);
        let keys = Glob::parse(parts.next().unwrap_or("*"))?;
        Some(Scope { operation, vhosts, names, keys })
    }

    fn add_to(&self, rules: &mut Vec<GrantedRule>) {
        use ResourceKind::{Exchange, Group, RoutingKey, Topic};
        let keys = match (self.names.literal(), self.keys.is_any()) {
            (Some(exchange), _) => {
                Pattern::Within { exchange: exchange.to_owned(), keys: Box::new(self.keys.pattern()) }
            }
            (None, true) => Pattern::Any,
            (None, false) if self.names.is_any() => self.keys.pattern(),
            (None, false) => return,
        };
        let operations = &[self.operation][..];
        let kinds = match self.operation {
            Operation::Read => &[Topic, Exchange, Group][..],
            _ => &[Topic, Exchange],
        };
        kinds.iter().for_each(|kind| self.allow(rules, *kind, self.names.pattern(), operations));
        if self.operation == Operation::Configure {
            return;
        }
        self.allow(rules, RoutingKey, keys, operations);
        if self.names.matches(HUB_EXCHANGE) {
            match self.operation {
                Operation::Write => self.allow(rules, ResourceKind::Address, self.keys.dotted(), operations),
                _ => {
                    let operations = [Operation::Subscribe, Operation::Receive];
                    self.allow(rules, ResourceKind::Address, self.keys.dotted(), &operations);
                }
            }
        }
    }

    fn allow(
        &self,
        rules: &mut Vec<GrantedRule>,
        kind: ResourceKind,
        pattern: Pattern,
        operations: &[Operation],
    ) {
        let rule = Rule {
            id: Grant::rule_id(rules.len()),
            principal: Principal::Anyone,
            namespace: None,
            kind,
            pattern,
            operations: Operations::of(operations),
            effect: Effect::Allow,
            host: None,
            dialect: DIALECT.to_owned(),
        };
        rules.push(GrantedRule { namespaces: self.vhosts.pattern(), rule });
    }
}

/// A pattern whose wildcard is `*`: the texts around the wildcards.
struct Glob(Vec<String>);

impl Glob {
    /// None where percent signs encode no text.
    fn parse(text: &str) -> Option<Glob> {
        text.split('*').map(percent_decoded).collect::<Option<_>>().map(Glob)
    }

    fn literal(&self) -> Option<&str> {
        if let [text] = self.0.as_slice() { Some(text) } else { None }
    }

    fn is_any(&self) -> bool {
        self.0.len() > 1 && self.0.iter().all(String::is_empty)
    }

    fn regex(&self) -> String {
        let parts: Vec<String> = self.0.iter().map(|part| regex::escape(part)).collect();
        format!("^{}$", parts.join(".*"))
    }

    fn pattern(&self) -> Pattern {
        match self.0.as_slice() {
            [text] => Pattern::Literal(text.clone()),
            _ if self.is_any() => Pattern::Any,
            [start, end] if end.is_empty() => Pattern::Prefix(start.clone()),
            _ => Pattern::Regex(self.regex()),
        }
    }

    /// The pattern of addresses whose form with dots matches.
    fn dotted(&self) -> Pattern {
        if self.is_any() { Pattern::Any } else { Pattern::Dotted(self.regex()) }
    }

    fn matches(&self, name: &str) -> bool {
        match self.literal() {
            Some(text) => text == name,
            None => regex::Regex::new(&self.regex()).is_ok_and(|regex| regex.is_match(name)),
        }
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            out.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::decision::{EffectiveRules, Rules, Subject};
    use crate::rule::key_name;
    use crate::user::Tags;

    fn rules(scopes: &[&str], namespace: &str) -> EffectiveRules {
        let grant = grant(scopes.iter().copied(), "rabbitmq.");
        let subject = Subject {
            user: Some("ann"),
            tags: &Tags::default(),
            client_id: "",
            namespace,
            host: IpAddr::from([127, 0, 0, 1]),
        };
        Rules::default().with_grant(&subject, &grant)
    }

    fn may(scopes: &[&str], kind: ResourceKind, name: &str, operation: Operation) -> bool {
        rules(scopes, "prod").decide(kind, name, operation).allowed
    }

    #[test]
    fn scopes_allow_what_they_name() {
        use Operation::{Configure, Read, Write};
        use ResourceKind::{Exchange, Group, Topic};
        for (scope, kind, name, operation, allowed) in [
            ("rabbitmq.read:prod/orders", Topic, "orders", Read, true),
            ("rabbitmq.read:prod/orders", Group, "orders", Read, true),
            ("rabbitmq.read:prod/orders", Topic, "orders", Write, false),
            ("rabbitmq.read:prod/orders", Topic, "orders2", Read, false),
            ("rabbitmq.read:test/orders", Topic, "orders", Read, false),
            ("rabbitmq.read:p*/o*s", Topic, "orders", Read, true),
            ("rabbitmq.write:*/*", Exchange, "x", Write, true),
            ("rabbitmq.configure:*/team-*", Topic, "team-a", Configure, true),
            ("rabbitmq.configure:*/team-*", Topic, "other", Configure, false),
            ("rabbitmq.read:prod/a%2Fb", Topic, "a/b", Read, true),
            ("rabbitmq.read:prod/a%2A", Topic, "ab", Read, false),
            ("read:prod/orders", Topic, "orders", Read, false),
            ("other.read:prod/orders", Topic, "orders", Read, false),
            ("rabbitmq.read:prod", Topic, "orders", Read, false),
            ("rabbitmq.read:prod/%zz", Topic, "orders", Read, false),
            ("rabbitmq.delete:prod/orders", Topic, "orders", Read, false),
            ("rabbitmq.write:prod/o*/key", Topic, "orders", Write, false),
        ] {
            assert_eq!(may(&[scope], kind, name, operation), allowed, "{scope} {name}");
        }
    }

    #[test]
    fn keys_and_addresses_follow_the_third_part() {
        let key = |scopes: &[&str], exchange: &str, key: &str| {
            may(scopes, ResourceKind::RoutingKey, &key_name(exchange, key), Operation::Write)
        };
        assert!(
            key(&["rabbitmq.write:prod/x/a.*"], "x", "a.b") && !key(&["rabbitmq.write:prod/x/a.*"], "x", "b")
        );
        let both = ["rabbitmq.write:prod/x/a.*", "rabbitmq.write:prod/*"];
        assert!(key(&both, "x", "b"), "another scope allows every key");
        let address =
            |scope: &str, name: &str, operation| may(&[scope], ResourceKind::Address, name, operation);
        assert!(address("rabbitmq.write:prod/amq.topic/up.*", "up/1", Operation::Write));
        assert!(!address("rabbitmq.write:prod/amq.topic/up.*", "down/1", Operation::Write));
        assert!(!address("rabbitmq.write:prod/x/up.*", "up/1", Operation::Write));
        assert!(address("rabbitmq.read:*/*/*", "up/1", Operation::Receive));
    }

    #[test]
    fn keys_narrow_the_addresses_of_administrators() {
        let administrator = Tags::from_iter([Tag::Administrator]);
        let address = |scope: &str, name: &str| {
            let subject = Subject {
                user: Some("ann"),
                tags: &administrator,
                client_id: "",
                namespace: "prod",
                host: IpAddr::from([127, 0, 0, 1]),
            };
            let rules = Rules::default().with_grant(&subject, &grant([scope], ""));
            rules.decide(ResourceKind::Address, name, Operation::Write).allowed
        };
        for scope in ["write:prod/amq.topic/up.*", "write:prod/*/up.*"] {
            assert!(address(scope, "up/1") && !address(scope, "down/1"), "{scope}");
        }
        assert!(address("write:prod/x/up.*", "down/1") && address("write:*/*", "down/1"));
        assert!(address("write:other/amq.topic/up.*", "down/1"));
    }

    #[test]
    fn tags_are_granted() {
        let grant = grant(["rabbitmq.tag:administrator", "tag:monitoring"], "rabbitmq.");
        assert_eq!(grant.tags.iter().collect::<Vec<_>>(), [&Tag::Administrator]);
    }
}
