//! RabbitMQ's permissions: three expressions for each user and virtual host, and topic permissions beside them.
//!
//! A virtual host is a namespace. The rules of a [`Permission`]:
//!
//! | expression | rules |
//! |---|---|
//! | any, also when all are empty | connecting to the namespace |
//! | configure | [`Configure`](Operation::Configure) of topics (queues) and exchanges |
//! | write | [`Write`](Operation::Write) to topics and exchanges; to every address if it matches `amq.topic` |
//! | read | [`Read`](Operation::Read) of topics, exchanges and groups; if it matches `amq.topic`, subscribing to and receiving from every address |
//!
//! An empty expression allows nothing. A [`TopicPermission`] narrows the routing keys of one exchange, and for `amq.topic`
//! the addresses too.
//!
//! `{username}`, `{client_id}` and `{vhost}` stand for the client's own, here in all expressions.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;

use super::expression::{ExpressionError, check_expression};
use crate::pattern::Pattern;
use crate::rule::{Effect, HUB_EXCHANGE, Operation, Operations, Principal, ResourceKind, Rule, RuleId};

/// The name of the dialect in its rules.
pub const DIALECT: &str = "rabbitmq";

/// What a user may do in a virtual host (`set_permissions`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// The user.
    pub user: String,
    /// The virtual host.
    pub vhost: String,
    /// Names of queues and exchanges that the user may declare and delete.
    pub configure: String,
    /// Names of exchanges to publish to, and of queues and exchanges to bind.
    pub write: String,
    /// Names of queues to consume from and purge, and of exchanges to bind to.
    pub read: String,
}

/// Which routing keys of an exchange a user may use (`set_topic_permissions`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPermission {
    /// The user.
    pub user: String,
    /// The virtual host.
    pub vhost: String,
    /// The exchange.
    pub exchange: String,
    /// Keys to publish with.
    pub write: String,
    /// Keys to bind with.
    pub read: String,
}

/// Whether a rule was made of the permissions of this user in this virtual host.
#[must_use]
pub fn is_of(rule: &Rule, user: &str, vhost: &str) -> bool {
    rule.dialect == DIALECT
        && rule.namespace.as_deref() == Some(vhost)
        && matches!(&rule.principal, Principal::User(name) if name == user)
}

/// What the rules of one user in one virtual host become when its permission is set, or cleared.
pub fn set_permission(
    present: &[Arc<Rule>],
    user: &str,
    vhost: &str,
    permission: Option<&Permission>,
) -> Result<Vec<Rule>, ExpressionError> {
    rules(user, vhost, permission, &topic_permissions(present.iter().map(Arc::as_ref)))
}

/// What the rules of one user in one virtual host become when its permission for the topics of an exchange is set, or
/// cleared. Without an exchange all are cleared.
pub fn set_topic_permission(
    present: &[Arc<Rule>],
    user: &str,
    vhost: &str,
    exchange: Option<&str>,
    permission: Option<TopicPermission>,
) -> Result<Vec<Rule>, ExpressionError> {
    let mut topics = topic_permissions(present.iter().map(Arc::as_ref));
    topics.retain(|topic| exchange.is_some_and(|exchange| topic.exchange != exchange));
    topics.extend(permission);
    let present = permissions(present.iter().map(Arc::as_ref));
    rules(user, vhost, present.iter().find(|of| of.user == user && of.vhost == vhost), &topics)
}

/// All rules of one user in one virtual host. They replace those that [`is_of`] selects. Topic permissions of others are
/// left out.
pub fn rules(
    user: &str,
    vhost: &str,
    permission: Option<&Permission>,
    topics: &[TopicPermission],
) -> Result<Vec<Rule>, ExpressionError> {
    let topics = || topics.iter().filter(|topic| topic.user == user && topic.vhost == vhost);
    let mut rules = Rules { user, vhost, rules: Vec::new() };
    for topic in topics() {
        check_expression(&topic.write)?;
        check_expression(&topic.read)?;
        rules.topic(topic);
    }
    if let Some(permission) = permission {
        for expression in [&permission.configure, &permission.write, &permission.read] {
            check_expression(expression)?;
        }
        rules.permission(permission);
        rules.addresses(permission, topics().find(|topic| topic.exchange == HUB_EXCHANGE));
    }
    Ok(rules.rules)
}

struct Rules<'a> {
    user: &'a str,
    vhost: &'a str,
    rules: Vec<Rule>,
}

impl Rules<'_> {
    fn allow(&mut self, kind: ResourceKind, pattern: Pattern, operations: &[Operation]) {
        self.rules.push(Rule {
            id: RuleId(0),
            principal: Principal::User(self.user.to_owned()),
            namespace: Some(self.vhost.to_owned()),
            kind,
            pattern,
            operations: Operations::of(operations),
            effect: Effect::Allow,
            host: None,
            dialect: DIALECT.to_owned(),
        });
    }

    fn permission(&mut self, permission: &Permission) {
        use ResourceKind::{Exchange, Group, Namespace, Topic};
        self.allow(Namespace, Pattern::Literal(self.vhost.to_owned()), &[Operation::Connect]);
        let expressions = [
            (&permission.configure, &[Topic, Exchange][..], Operation::Configure),
            (&permission.write, &[Topic, Exchange], Operation::Write),
            (&permission.read, &[Topic, Exchange, Group], Operation::Read),
        ];
        for (expression, kinds, operation) in expressions {
            if !expression.is_empty() {
                for kind in kinds {
                    self.allow(*kind, Pattern::Regex(expression.clone()), &[operation]);
                }
            }
        }
    }

    fn topic(&mut self, topic: &TopicPermission) {
        for (expression, operation) in [(&topic.write, Operation::Write), (&topic.read, Operation::Read)] {
            // An empty expression matches the empty key only, and is told apart from `^$`.
            let keys = match expression.as_str() {
                "" => Pattern::Literal(String::new()),
                expression => Pattern::Regex(expression.to_owned()),
            };
            let pattern = Pattern::Within { exchange: topic.exchange.clone(), keys: Box::new(keys) };
            self.allow(ResourceKind::RoutingKey, pattern, &[operation]);
        }
    }

    /// What the exchange's clients may do over other protocols.
    fn addresses(&mut self, permission: &Permission, topic: Option<&TopicPermission>) {
        let addresses = |expression: Option<&String>| match expression.map(String::as_str) {
            None => Some(Pattern::Any),
            Some("") => None,
            Some(expression) => Some(Pattern::Dotted(expression.to_owned())),
        };
        if is_match(&permission.write, HUB_EXCHANGE)
            && let Some(pattern) = addresses(topic.map(|topic| &topic.write))
        {
            self.allow(ResourceKind::Address, pattern, &[Operation::Write]);
        }
        if is_match(&permission.read, HUB_EXCHANGE)
            && let Some(pattern) = addresses(topic.map(|topic| &topic.read))
        {
            self.allow(ResourceKind::Address, pattern, &[Operation::Subscribe]);
            // What the filter of an allowed subscription matches is received.
            self.allow(ResourceKind::Address, Pattern::Any, &[Operation::Receive]);
        }
    }
}

fn is_match(expression: &str, name: &str) -> bool {
    !expression.is_empty() && Regex::new(expression).is_ok_and(|regex| regex.is_match(name))
}

/// The permissions that rules were made of, sorted.
pub fn permissions<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Vec<Permission> {
    let mut found: BTreeMap<(&str, &str), Permission> = BTreeMap::new();
    for (rule, user, vhost) in own(rules) {
        if !matches!(rule.kind, ResourceKind::Namespace | ResourceKind::Topic) {
            continue;
        }
        let permission = found.entry((user, vhost)).or_insert_with(|| Permission {
            user: user.to_owned(),
            vhost: vhost.to_owned(),
            configure: String::new(),
            write: String::new(),
            read: String::new(),
        });
        if let Pattern::Regex(expression) = &rule.pattern {
            let field = match operation(rule) {
                Some(Operation::Configure) => &mut permission.configure,
                Some(Operation::Write) => &mut permission.write,
                _ => &mut permission.read,
            };
            field.clone_from(expression);
        }
    }
    found.into_values().collect()
}

/// The topic permissions that rules were made of, sorted.
pub fn topic_permissions<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Vec<TopicPermission> {
    let mut found: BTreeMap<(&str, &str, &str), TopicPermission> = BTreeMap::new();
    for (rule, user, vhost) in own(rules) {
        let (ResourceKind::RoutingKey, Pattern::Within { exchange, keys }) = (rule.kind, &rule.pattern)
        else {
            continue;
        };
        let topic = found.entry((user, vhost, exchange.as_str())).or_insert_with(|| TopicPermission {
            user: user.to_owned(),
            vhost: vhost.to_owned(),
            exchange: exchange.clone(),
            write: String::new(),
            read: String::new(),
        });
        if let Pattern::Regex(expression) = keys.as_ref() {
            let is_write = operation(rule) == Some(Operation::Write);
            let field = if is_write { &mut topic.write } else { &mut topic.read };
            field.clone_from(expression);
        }
    }
    found.into_values().collect()
}

fn own<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> impl Iterator<Item = (&'a Rule, &'a str, &'a str)> {
    rules.into_iter().filter_map(|rule| match (&rule.principal, &rule.namespace) {
        (Principal::User(user), Some(vhost)) if rule.dialect == DIALECT => {
            Some((rule, user.as_str(), vhost.as_str()))
        }
        _ => None,
    })
}

fn operation(rule: &Rule) -> Option<Operation> {
    rule.operations.iter().next()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{EffectiveRules, Subject, Tags, key_name};

    fn permission(configure: &str, write: &str, read: &str) -> Permission {
        Permission {
            user: "ann".into(),
            vhost: "v".into(),
            configure: configure.into(),
            write: write.into(),
            read: read.into(),
        }
    }

    fn topic(exchange: &str, write: &str, read: &str) -> TopicPermission {
        TopicPermission {
            user: "ann".into(),
            vhost: "v".into(),
            exchange: exchange.into(),
            write: write.into(),
            read: read.into(),
        }
    }

    fn effective(permission: &Permission, topics: &[TopicPermission]) -> EffectiveRules {
        let rules = rules("ann", "v", Some(permission), topics).unwrap();
        let none = Tags::default();
        let subject = Subject {
            user: Some("ann"),
            tags: &none,
            client_id: "c",
            namespace: "v",
            host: IpAddr::from([127, 0, 0, 1]),
        };
        crate::Rules::new(rules.into_iter().map(Arc::new)).for_subject(&subject)
    }

    #[test]
    fn permissions_are_listed_as_they_were_given() {
        let topics = [topic("amq.topic", "^$", ""), topic("x", "a", "b"), topic("y", "", "")];
        for permission in
            [permission("", "", ""), permission("^$", ".*", ""), permission("a", "", "^(b|amq\\..*)$")]
        {
            let rules = rules("ann", "v", Some(&permission), &topics).unwrap();
            assert!(rules.iter().all(|rule| is_of(rule, "ann", "v") && rule.pattern.check().is_ok()));
            assert_eq!(permissions(&rules), [permission]);
            assert_eq!(topic_permissions(&rules), topics);
        }
        let rules = rules("ann", "v", None, &topics).unwrap();
        assert_eq!(permissions(&rules), []);
        assert!(super::rules("bob", "v", None, &topics).unwrap().is_empty(), "another's topic permissions");
    }

    #[test]
    fn expressions_are_not_anchored_and_an_empty_one_allows_nothing() {
        let may = |own: &EffectiveRules, kind, name, operation| own.decide(kind, name, operation).allowed;
        let own = effective(&permission("^mine", "x", ""), &[]);
        for kind in [ResourceKind::Topic, ResourceKind::Exchange] {
            assert!(
                may(&own, kind, "mine.q", Operation::Create) && may(&own, kind, "mine", Operation::Delete)
            );
            assert!(!may(&own, kind, "q.mine", Operation::Create));
            assert!(may(&own, kind, "axb", Operation::Write) && !may(&own, kind, "b", Operation::Write));
            assert!(!may(&own, kind, "mine", Operation::Read));
        }
        assert!(may(&own, ResourceKind::Namespace, "v", Operation::Connect));
        let own = effective(&permission("", "", ""), &[]);
        assert!(may(&own, ResourceKind::Namespace, "v", Operation::Connect), "an entry is enough");
        assert!(!may(&own, ResourceKind::Topic, "q", Operation::Read));
    }

    #[test]
    fn topic_permissions_narrow_keys_and_addresses() {
        let write = |own: &EffectiveRules, exchange, key| {
            own.decide(ResourceKind::RoutingKey, &key_name(exchange, key), Operation::Write).allowed
        };
        let address = |own: &EffectiveRules, name, operation| {
            own.decide(ResourceKind::Address, name, operation).allowed
        };
        let all = permission(".*", ".*", ".*");
        let own = effective(&all, &[]);
        assert!(write(&own, "amq.topic", "any") && address(&own, "any/thing", Operation::Write));
        let own = effective(&all, &[topic("amq.topic", "^{username}\\.", ""), topic("x", "", ".*")]);
        assert!(write(&own, "amq.topic", "ann.up") && !write(&own, "amq.topic", "bob.up"));
        assert!(address(&own, "ann/up", Operation::Write) && !address(&own, "bob/up", Operation::Write));
        assert!(!own.decide_filter("ann/#", Operation::Subscribe).allowed, "an empty expression");
        assert!(!write(&own, "x", "k") && write(&own, "other", "k"), "no entry for the exchange");
        let own = effective(&permission(".*", "^x$", "amq"), &[topic("amq.topic", "", "^{vhost}\\.")]);
        assert!(!address(&own, "a", Operation::Write));
        assert!(own.decide_filter("v/#", Operation::Subscribe).allowed);
        assert!(address(&own, "v/a", Operation::Receive));
    }

    #[test]
    fn one_permission_is_changed_and_the_others_stay() {
        let shared = |rules: Vec<Rule>| rules.into_iter().map(Arc::new).collect::<Vec<_>>();
        let listed = |rules: &[Arc<Rule>]| {
            let rules = || rules.iter().map(Arc::as_ref);
            (permissions(rules()), topic_permissions(rules()))
        };
        let first = permission("a", "amq.topic", "c");
        let rules = shared(set_permission(&[], "ann", "v", Some(&first)).unwrap());
        let on = |rules: &[Arc<Rule>], exchange: &str| {
            let topic = topic(exchange, "^k", "");
            shared(set_topic_permission(rules, "ann", "v", Some(exchange), Some(topic)).unwrap())
        };
        let rules = on(&on(&rules, "x"), "amq.topic");
        let both = vec![topic("amq.topic", "^k", ""), topic("x", "^k", "")];
        assert_eq!(listed(&rules), (vec![first], both.clone()));
        assert!(rules.iter().any(|rule| rule.pattern == Pattern::Dotted("^k".into())), "addresses follow");
        let second = permission("", "", "b");
        let rules = shared(set_permission(&rules, "ann", "v", Some(&second)).unwrap());
        assert_eq!(listed(&rules), (vec![second.clone()], both));
        let rules = shared(set_topic_permission(&rules, "ann", "v", Some("x"), None).unwrap());
        assert_eq!(listed(&rules), (vec![second.clone()], vec![topic("amq.topic", "^k", "")]));
        let rules = shared(set_topic_permission(&rules, "ann", "v", None, None).unwrap());
        assert_eq!(listed(&rules), (vec![second], vec![]));
        assert!(set_permission(&rules, "ann", "v", None).unwrap().is_empty());
    }

    #[test]
    fn expressions_that_mean_another_thing_are_refused() {
        assert!(rules("ann", "v", Some(&permission("", "(?!a)", "")), &[]).is_err());
        assert!(rules("ann", "v", None, &[topic("x", "a++", "")]).is_err());
    }
}
