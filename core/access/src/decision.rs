//! The decision: whether a subject may perform an operation on a resource, and by which rule.
//!
//! Rules are selected once for each subject ([`Rules::for_subject`]), which shares the compiled patterns of rules without
//! variables with all others; a decision then walks only the subject's own rules of the resource's kind. Deny wins over allow; without a matching rule the answer is no.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::grant::Grant;
use crate::pattern::{Matcher, Pattern, Variables, quoted};
use crate::rule::{
    Effect, HUB_EXCHANGE, KEY_SEPARATOR, Operation, Operations, Principal, ResourceKind, Rule, RuleId,
};
use crate::user::{Tag, Tags};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The user; none for an anonymous client.
    pub user: Option<&'a str>,
    /// The user's tags.
    pub tags: &'a Tags,
    /// The client id or connection name; may be empty.
    pub client_id: &'a str,
    /// The namespace of the connection.
    pub namespace: &'a str,
    /// The address that the client connected from.
    pub host: IpAddr,
}

/// An answer, with the rule that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the operation is allowed.
    pub allowed: bool,
    /// The rule that allowed or denied it; none if no rule matched, or the subject is an administrator.
    pub by: Option<RuleId>,
}

/// All rules, indexed by principal.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    users: HashMap<String, Vec<Arc<Rule>>>,
    tags: HashMap<Tag, Vec<Arc<Rule>>>,
    anyone: Vec<Arc<Rule>>,
    anonymous: Vec<Arc<Rule>>,
    /// The compiled patterns without variables, which all rules and subjects share, each with the number of its rules.
    compiled: HashMap<Pattern, (Arc<Matcher>, usize)>,
}

impl Rules {
    /// Indexes rules.
    pub fn new(rules: impl IntoIterator<Item = Arc<Rule>>) -> Rules {
        let mut indexed = Rules::default();
        rules.into_iter().for_each(|rule| indexed.insert(rule));
        indexed
    }

    /// Adds a rule.
    pub fn insert(&mut self, rule: Arc<Rule>) {
        if let Some((_, count)) = self.compiled.get_mut(&rule.pattern) {
            *count += 1;
        } else if let Some(matcher) = rule.pattern.fixed_matcher() {
            self.compiled.insert(rule.pattern.clone(), (Arc::new(matcher), 1));
        }
        match &rule.principal {
            Principal::User(name) => self.users.entry(name.clone()).or_default().push(rule),
            Principal::Tag(tag) => self.tags.entry(tag.clone()).or_default().push(rule),
            Principal::Anyone => self.anyone.push(rule),
            Principal::Anonymous => self.anonymous.push(rule),
        }
    }

    /// Removes the rule with this id and principal.
    pub fn remove(&mut self, rule: &Rule) {
        let compiled = &mut self.compiled;
        let others = |each: &Arc<Rule>| {
            let is_other = each.id != rule.id;
            if !is_other && let Some((_, count)) = compiled.get_mut(&each.pattern) {
                *count -= 1;
                if *count == 0 {
                    compiled.remove(&each.pattern);
                }
            }
            is_other
        };
        match &rule.principal {
            Principal::User(name) => {
                if let Some(rules) = self.users.get_mut(name) {
                    rules.retain(others);
                    if rules.is_empty() {
                        self.users.remove(name);
                    }
                }
            }
            Principal::Tag(tag) => {
                if let Some(rules) = self.tags.get_mut(tag) {
                    rules.retain(others);
                    if rules.is_empty() {
                        self.tags.remove(tag);
                    }
                }
            }
            Principal::Anyone => self.anyone.retain(others),
            Principal::Anonymous => self.anonymous.retain(others),
        }
    }

    /// The rules that apply to a subject, with its values in their patterns.
    #[must_use]
    pub fn for_subject(&self, subject: &Subject<'_>) -> EffectiveRules {
        let variables = Variables {
            username: subject.user.unwrap_or_default(),
            client_id: subject.client_id,
            namespace: subject.namespace,
        };
        let of_user = match subject.user {
            Some(name) => self.users.get(name),
            None => Some(&self.anonymous),
        };
        let of_user = of_user.into_iter().flatten();
        let of_tags = subject.tags.iter().filter_map(|tag| self.tags.get(tag)).flatten();
        let mut rules = EffectiveRules {
            is_administrator: subject.tags.contains(&Tag::Administrator),
            ..EffectiveRules::default()
        };
        for rule in of_user.chain(of_tags).chain(&self.anyone) {
            let is_here = rule.namespace.as_deref().is_none_or(|namespace| namespace == subject.namespace);
            let is_host = rule.host.is_none_or(|host| host == subject.host.to_canonical());
            if is_here && is_host {
                self.add(&mut rules, rule, &variables);
            }
        }
        rules
    }

    /// The same, with the rules of a grant beside them.
    #[must_use]
    pub fn with_grant(&self, subject: &Subject<'_>, grant: &Grant) -> EffectiveRules {
        let mut rules = self.for_subject(subject);
        let variables = Variables {
            username: subject.user.unwrap_or_default(),
            client_id: subject.client_id,
            namespace: subject.namespace,
        };
        for granted in &grant.rules {
            if granted.namespaces.matcher(&variables).matches(subject.namespace) {
                self.add(&mut rules, &granted.rule, &variables);
            }
        }
        rules
    }

    /// Adds a rule to those of a subject, and what it narrows for an administrator.
    fn add(&self, rules: &mut EffectiveRules, rule: &Rule, variables: &Variables<'_>) {
        if rules.is_administrator
            && let Some((operations, pattern)) = narrowed_addresses(rule)
        {
            rules.narrowed = rules.narrowed.or(operations);
            rules.by_kind.entry(ResourceKind::Address).or_default().push(EffectiveRule {
                id: rule.id,
                matcher: Arc::new(matcher(&pattern, Effect::Allow, variables)),
                operations,
                effect: Effect::Allow,
            });
        }
        rules.by_kind.entry(rule.kind).or_default().push(EffectiveRule {
            id: rule.id,
            matcher: match self.compiled.get(&rule.pattern) {
                Some((shared, _)) => shared.clone(),
                None => Arc::new(matcher(&rule.pattern, rule.effect, variables)),
            },
            operations: rule.operations,
            effect: rule.effect,
        });
    }
}

/// The operations on addresses that a rule about keys of the hub's exchange narrows, and to which addresses: of an
/// administrator, whom no other rule narrows. Others get rules about addresses beside those about keys.
fn narrowed_addresses(rule: &Rule) -> Option<(Operations, Pattern)> {
    if rule.kind != ResourceKind::RoutingKey || rule.effect != Effect::Allow {
        return None;
    }
    let keys = match &rule.pattern {
        Pattern::Within { exchange, keys } if exchange == HUB_EXCHANGE => keys.as_ref(),
        Pattern::Within { .. } => return None,
        keys_of_every_exchange => keys_of_every_exchange,
    };
    let narrows = [(Operation::Write, Operation::Write), (Operation::Read, Operation::Subscribe)];
    let operations = narrows
        .into_iter()
        .filter(|(of_keys, _)| rule.operations.contains(*of_keys))
        .fold(Operations::NONE, |all, (_, of_addresses)| all.or(Operations::of(&[of_addresses])));
    let pattern = match keys {
        Pattern::Regex(expression) => Pattern::Dotted(expression.clone()),
        Pattern::Literal(key) => Pattern::Dotted(format!("^{}$", quoted(key))),
        Pattern::Prefix(key) => Pattern::Dotted(format!("^{}", quoted(key))),
        Pattern::Any | Pattern::Filter(_) | Pattern::Dotted(_) => keys.clone(),
        Pattern::Within { .. } => return None,
    };
    (operations != Operations::NONE).then_some((operations, pattern))
}

/// What a pattern matches for a subject. One that allows matches nothing where a variable of it has no value; one that denies
/// matches all the more.
fn matcher(pattern: &Pattern, effect: Effect, variables: &Variables<'_>) -> Matcher {
    match effect {
        Effect::Allow if pattern.lacks_value(variables) => Matcher::Nothing,
        _ => pattern.matcher(variables),
    }
}

#[derive(Clone, Debug)]
struct EffectiveRule {
    id: RuleId,
    matcher: Arc<Matcher>,
    operations: Operations,
    effect: Effect,
}

/// The rules of one subject.
#[derive(Clone, Debug, Default)]
pub struct EffectiveRules {
    by_kind: HashMap<ResourceKind, Vec<EffectiveRule>>,
    is_administrator: bool,
    /// Operations on addresses that rules about keys narrow for an administrator too.
    narrowed: Operations,
}

impl EffectiveRules {
    /// Decides about a resource by its name. Administrators may do everything that no rule denies, but that rules about keys
    /// of an exchange narrow theirs as everybody's. Who may do anything in
    /// a namespace may connect to it, unless a rule denies that.
    #[must_use]
    pub fn decide(&self, kind: ResourceKind, name: &str, operation: Operation) -> Decision {
        if kind == ResourceKind::RoutingKey {
            return self.decide_key(name, operation);
        }
        let decision =
            self.decide_by(kind, operation, |matcher| matcher.matches(name), |matcher| matcher.matches(name));
        let is_connect = (kind, operation) == (ResourceKind::Namespace, Operation::Connect);
        if is_connect && decision == (Decision { allowed: false, by: None }) {
            let by = self.by_kind.values().flatten().find(|rule| rule.effect == Effect::Allow);
            return Decision { allowed: by.is_some(), by: by.map(|rule| rule.id) };
        }
        decision
    }

    /// A key is allowed unless a rule denies it, or rules allow the operation on other keys of its exchange only.
    fn decide_key(&self, name: &str, operation: Operation) -> Decision {
        let (exchange, key) = name.split_once(KEY_SEPARATOR).unwrap_or((name, ""));
        let matches = |matcher: &Matcher| matcher.matches_key(exchange, key);
        let decision = self.decide_by(ResourceKind::RoutingKey, operation, matches, matches);
        let is_open = decision == (Decision { allowed: false, by: None })
            && !self.of(ResourceKind::RoutingKey).any(|rule| {
                rule.effect == Effect::Allow
                    && rule.operations.contains(operation)
                    && rule.matcher.concerns_exchange(exchange)
            });
        Decision { allowed: decision.allowed || is_open, ..decision }
    }

    /// Whether every operation on every resource is allowed.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        let allows_all = |kind: ResourceKind| {
            let is_open = kind == ResourceKind::RoutingKey && self.of(kind).next().is_none();
            is_open
                || self.of(kind).any(|rule| {
                    rule.effect == Effect::Allow
                        && rule.operations == Operations::ALL
                        && matches!(*rule.matcher, Matcher::Any)
                })
        };
        self.by_kind.values().flatten().all(|rule| rule.effect == Effect::Allow)
            && ResourceKind::ALL.into_iter().all(|kind| {
                let is_narrowed = kind == ResourceKind::Address && self.narrowed != Operations::NONE;
                allows_all(kind) || self.is_administrator && kind != ResourceKind::RoutingKey && !is_narrowed
            })
    }

    /// Whether a rule denies the operation on some resource of this kind.
    #[must_use]
    pub fn has_denials(&self, kind: ResourceKind, operation: Operation) -> bool {
        self.of(kind)
            .any(|rule| rule.effect == Effect::Deny && rule.operations.intersects(operation.denied_with()))
    }

    /// Whether the operation may be allowed on some resource of this kind: a rule allows it, and no rule denies it wherever
    /// that one allows it.
    #[must_use]
    pub fn decide_any(&self, kind: ResourceKind, operation: Operation) -> bool {
        let own = Operations::of(&[operation]);
        let including = own.or(operation.included_in());
        let denials: Vec<&Matcher> = (self.of(kind))
            .filter(|rule| rule.effect == Effect::Deny && rule.operations.intersects(operation.denied_with()))
            .map(|rule| &*rule.matcher)
            .collect();
        let is_open = |allowed: &Matcher| !denials.iter().any(|denied| denied.covers(allowed));
        let allows = |rule: &EffectiveRule| {
            rule.effect == Effect::Allow
                && rule.operations.intersects(including)
                && !matches!(*rule.matcher, Matcher::Nothing)
                && is_open(&rule.matcher)
        };
        self.of(kind).any(allows) || (self.administers(kind, operation) && is_open(&Matcher::Any))
    }

    /// Whether an administrator needs no rule for this.
    fn administers(&self, kind: ResourceKind, operation: Operation) -> bool {
        let is_narrowed = match kind {
            ResourceKind::RoutingKey => true,
            ResourceKind::Address => self.narrowed.contains(operation),
            _ => false,
        };
        self.is_administrator && !is_narrowed
    }

    fn of(&self, kind: ResourceKind) -> impl Iterator<Item = &EffectiveRule> {
        self.by_kind.get(&kind).into_iter().flatten()
    }

    /// Decides about a subscription to a filter: an allowing rule must cover all of it; a denying rule applies if it
    /// covers all of it. What is delivered is decided address by address.
    #[must_use]
    pub fn decide_filter(&self, filter: &str, operation: Operation) -> Decision {
        let covers = |matcher: &Matcher| matcher.covers_filter(filter);
        self.decide_by(ResourceKind::Address, operation, covers, covers)
    }

    /// Whether the operation is certainly allowed on every address that a filter matches. False where that is not known.
    #[must_use]
    pub fn allows_all_of(&self, filter: &str, operation: Operation) -> bool {
        if !filter.contains(['+', '#']) {
            return self.decide(ResourceKind::Address, filter, operation).allowed;
        }
        let allows = |matcher: &Matcher| matcher.matches_all_of(filter);
        let denies = |matcher: &Matcher| matcher.may_match_some_of(filter);
        self.decide_by(ResourceKind::Address, operation, allows, denies).allowed
    }

    /// Whether the operation is certainly allowed on every resource of a kind whose name is among those in question, which all
    /// begin so; a denial of one name counts if that is among them. False where that is not known.
    #[must_use]
    pub fn allows_every(
        &self,
        kind: ResourceKind,
        operation: Operation,
        beginning: &str,
        is_in_question: impl Fn(&str) -> bool,
    ) -> bool {
        let denies = |matcher: &Matcher| match matcher {
            Matcher::Literal(name) => is_in_question(name),
            Matcher::Nothing => false,
            _ => true,
        };
        let all = Matcher::Prefix(beginning.to_owned());
        self.decide_by(kind, operation, |matcher| matcher.covers(&all), denies).allowed
    }

    fn decide_by(
        &self,
        kind: ResourceKind,
        operation: Operation,
        allows: impl Fn(&Matcher) -> bool,
        denies: impl Fn(&Matcher) -> bool,
    ) -> Decision {
        let denying = operation.denied_with();
        let including = Operations::of(&[operation]).or(operation.included_in());
        let mut allowed = None;
        for rule in self.of(kind) {
            match rule.effect {
                Effect::Deny if rule.operations.intersects(denying) && denies(&rule.matcher) => {
                    return Decision { allowed: false, by: Some(rule.id) };
                }
                Effect::Allow
                    if allowed.is_none()
                        && rule.operations.intersects(including)
                        && allows(&rule.matcher) =>
                {
                    allowed = Some(rule.id);
                }
                _ => {}
            }
        }
        Decision { allowed: allowed.is_some() || self.administers(kind, operation), by: allowed }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pattern::Pattern;

    fn rule(
        id: u64,
        principal: Principal,
        pattern: Pattern,
        operations: &[Operation],
        effect: Effect,
    ) -> Rule {
        Rule {
            id: RuleId(id),
            principal,
            namespace: None,
            kind: ResourceKind::Topic,
            pattern,
            operations: Operations::of(operations),
            effect,
            host: None,
            dialect: String::new(),
        }
    }

    fn subject<'a>(user: Option<&'a str>, tags: &'a Tags) -> Subject<'a> {
        Subject { user, tags, client_id: "c", namespace: "/", host: IpAddr::from([127, 0, 0, 1]) }
    }

    fn rules(rules: Vec<Rule>) -> Rules {
        Rules::new(rules.into_iter().map(Arc::new))
    }

    #[test]
    fn a_rule_allows_nothing_where_a_variable_of_it_has_no_value() {
        for pattern in [
            Pattern::Prefix("{client_id}".into()),
            Pattern::Prefix("{username}".into()),
            Pattern::Literal("{username}".into()),
            Pattern::Regex("^{client_id}".into()),
            Pattern::Filter("{username}/#".into()),
        ] {
            let none = Tags::default();
            let anonymous = Subject { client_id: "", ..subject(None, &none) };
            let own = rule(1, Principal::Anyone, pattern.clone(), &[Operation::Read], Effect::Allow);
            let own = rules(vec![own]).for_subject(&anonymous);
            for name in ["secret", ""] {
                let decided = own.decide(ResourceKind::Topic, name, Operation::Read);
                assert!(!decided.allowed, "{pattern:?} {name}");
            }
        }
        let none = Tags::default();
        let anonymous = Subject { client_id: "", ..subject(None, &none) };
        let rules = rules(vec![
            rule(1, Principal::Anyone, Pattern::Any, &[Operation::Read], Effect::Allow),
            rule(
                2,
                Principal::Anyone,
                Pattern::Prefix("of-{client_id}".into()),
                &[Operation::Read],
                Effect::Deny,
            ),
        ]);
        let own = rules.for_subject(&anonymous);
        assert!(!own.decide(ResourceKind::Topic, "of-x", Operation::Read).allowed, "a denial stays one");
    }

    #[test]
    fn deny_wins_and_nothing_is_allowed_without_a_rule() {
        let ann = || Principal::User("ann".into());
        let rules = rules(vec![
            rule(1, ann(), Pattern::Prefix("a".into()), &[Operation::Read], Effect::Allow),
            rule(2, Principal::Anyone, Pattern::Literal("ab".into()), &[Operation::Read], Effect::Deny),
        ]);
        let none = Tags::default();
        let own = rules.for_subject(&subject(Some("ann"), &none));
        let decide = |name, operation| own.decide(ResourceKind::Topic, name, operation);
        assert_eq!(decide("aa", Operation::Read), Decision { allowed: true, by: Some(RuleId(1)) });
        assert_eq!(decide("ab", Operation::Read), Decision { allowed: false, by: Some(RuleId(2)) });
        assert_eq!(decide("aa", Operation::Write), Decision { allowed: false, by: None });
        assert!(decide("aa", Operation::Describe).allowed, "reading includes describing");
        assert!(
            !rules
                .for_subject(&subject(Some("bob"), &none))
                .decide(ResourceKind::Topic, "aa", Operation::Read)
                .allowed
        );
        let administrator = Tags::from_iter([Tag::Administrator]);
        let all = rules.for_subject(&subject(Some("root"), &administrator));
        assert!(all.decide(ResourceKind::Topic, "zz", Operation::Delete).allowed);
        assert!(
            !all.decide(ResourceKind::Topic, "ab", Operation::Read).allowed,
            "deny binds administrators too"
        );
    }

    #[test]
    fn some_resource_is_allowed_unless_denials_cover_every_allowance() {
        let any_of = |allowed: Pattern, denied: Option<Pattern>| {
            let write = &[Operation::Write];
            let allow = rule(1, Principal::Anyone, allowed, write, Effect::Allow);
            let deny = denied.map(|denied| rule(2, Principal::Anyone, denied, write, Effect::Deny));
            let rules = rules(std::iter::once(allow).chain(deny).collect());
            let none = Tags::default();
            let own = rules.for_subject(&subject(None, &none));
            assert!(!own.decide_any(ResourceKind::Topic, Operation::Read));
            own.decide_any(ResourceKind::Topic, Operation::Write)
        };
        let (literal, prefix) =
            (|text: &str| Pattern::Literal(text.into()), |text: &str| Pattern::Prefix(text.into()));
        assert!(any_of(literal("ab"), None) && any_of(Pattern::Any, Some(literal("ab"))));
        assert!(any_of(prefix("a"), Some(prefix("ab"))) && any_of(literal("a"), Some(prefix("ab"))));
        assert!(!any_of(literal("ab"), Some(literal("ab"))) && !any_of(literal("ab"), Some(prefix("a"))));
        assert!(!any_of(prefix("ab"), Some(prefix("a"))) && !any_of(prefix("a"), Some(Pattern::Any)));
        let administrator = Tags::from_iter([Tag::Administrator]);
        let all = Rules::default().for_subject(&subject(Some("root"), &administrator));
        assert!(all.decide_any(ResourceKind::Topic, Operation::Write));
    }

    #[test]
    fn namespace_host_and_tag_select_rules() {
        let monitoring = Tags::from_iter([Tag::Monitoring]);
        let mut by_tag =
            rule(1, Principal::Tag(Tag::Monitoring), Pattern::Any, &[Operation::Describe], Effect::Allow);
        by_tag.namespace = Some("/".into());
        let mut by_host = rule(2, Principal::Anyone, Pattern::Any, &[Operation::Read], Effect::Allow);
        by_host.host = Some(IpAddr::from([192, 0, 2, 1]));
        let rules = rules(vec![by_tag, by_host]);
        let here = subject(Some("m"), &monitoring);
        let may = |subject: &Subject<'_>, operation| {
            rules.for_subject(subject).decide(ResourceKind::Topic, "t", operation).allowed
        };
        assert!(may(&here, Operation::Describe) && !may(&here, Operation::Read));
        assert!(!may(&Subject { namespace: "other", ..here }, Operation::Describe));
        assert!(may(&Subject { host: "::ffff:192.0.2.1".parse().unwrap(), ..here }, Operation::Read));
    }

    #[test]
    fn topic_permissions_narrow_administrators_too() {
        let within = |exchange: &str, keys: &str| Pattern::Within {
            exchange: exchange.into(),
            keys: Box::new(Pattern::Regex(keys.into())),
        };
        let root = || Principal::User("root".into());
        let key = |id, exchange: &str, operation| Rule {
            kind: ResourceKind::RoutingKey,
            ..rule(id, root(), within(exchange, "^{username}\\."), &[operation], Effect::Allow)
        };
        let administrator = Tags::from_iter([Tag::Administrator]);
        let of_root = subject(Some("root"), &administrator);
        let other = rules(vec![key(1, "x", Operation::Write)]).for_subject(&of_root);
        assert!(!other.is_unrestricted());
        let may_key = |rules: &EffectiveRules, exchange, key| {
            rules.decide(ResourceKind::RoutingKey, &crate::key_name(exchange, key), Operation::Write).allowed
        };
        assert!(may_key(&other, "x", "root.a") && !may_key(&other, "x", "a") && may_key(&other, "y", "a"));
        assert!(other.decide(ResourceKind::Address, "a", Operation::Write).allowed);
        assert!(other.decide(ResourceKind::Exchange, "x", Operation::Write).allowed);

        let hub = rules(vec![key(1, HUB_EXCHANGE, Operation::Write), key(2, HUB_EXCHANGE, Operation::Read)]);
        let hub = hub.for_subject(&of_root);
        let may = |address, operation| hub.decide(ResourceKind::Address, address, operation).allowed;
        assert!(may("root/a", Operation::Write) && !may("a", Operation::Write));
        assert!(may("a", Operation::Receive), "what an allowed filter matches is received");
        assert!(hub.decide_filter("root/#", Operation::Subscribe).allowed);
        assert!(!hub.decide_filter("#", Operation::Subscribe).allowed);
        assert!(!hub.is_unrestricted() && !may_key(&hub, HUB_EXCHANGE, "a"));
        assert!(hub.decide_any(ResourceKind::Address, Operation::Write));
        let none = rules(vec![]).for_subject(&of_root);
        assert!(none.is_unrestricted() && may_key(&none, "x", "a"));
    }

    #[test]
    fn narrowed_addresses_of_administrators_are_those_of_the_keys() {
        let administrator = Tags::from_iter([Tag::Administrator]);
        let of_root = |client_id| Subject { client_id, ..subject(Some("root"), &administrator) };
        let within = |keys| Pattern::Within { exchange: HUB_EXCHANGE.into(), keys: Box::new(keys) };
        let key = |pattern, operations: &[Operation]| Rule {
            kind: ResourceKind::RoutingKey,
            ..rule(1, Principal::Anyone, pattern, operations, Effect::Allow)
        };
        let may = |pattern: &Pattern, client_id, address| {
            let rules = rules(vec![key(pattern.clone(), &[Operation::Read, Operation::Write])]);
            let own = rules.for_subject(&of_root(client_id));
            let write = own.decide(ResourceKind::Address, address, Operation::Write).allowed;
            assert_eq!(
                own.decide_filter(address, Operation::Subscribe).allowed,
                write,
                "{pattern:?} {address}"
            );
            write
        };
        for (keys, allowed, refused) in [
            (Pattern::Regex("^{client_id}\\.?".into()), "c/a", "a"),
            (Pattern::Literal("up.{client_id}".into()), "up/c", "up/c/a"),
            (Pattern::Prefix("up.{client_id}.".into()), "up/c/a", "up/d/a"),
            (Pattern::Literal("up.{client_id}{1}".into()), "up/c{1}", "up/c"),
            (Pattern::Filter("{client_id}/#".into()), "c/a", "a"),
        ] {
            for pattern in [within(keys.clone()), keys] {
                assert!(may(&pattern, "c", allowed) && !may(&pattern, "c", refused), "{pattern:?}");
                assert!(!may(&pattern, "", allowed) && !may(&pattern, "", refused), "{pattern:?}");
            }
        }
        let neither = rules(vec![key(within(Pattern::Literal("a".into())), &[Operation::Configure])]);
        let neither = neither.for_subject(&of_root("c"));
        assert!(neither.decide_filter("b", Operation::Subscribe).allowed);
    }

    fn patterns() -> impl Strategy<Value = Pattern> {
        prop_oneof![
            Just(Pattern::Any),
            "[ab]{0,2}".prop_map(Pattern::Literal),
            "[ab]{0,2}".prop_map(Pattern::Prefix),
            Just(Pattern::Filter("+/{username}".into())),
            Just(Pattern::Filter("a/#".into())),
            "\\^?[ab]{1,2}\\$?".prop_map(Pattern::Regex),
        ]
    }

    fn operations() -> impl Strategy<Value = Operation> {
        proptest::sample::select(Operation::ALL.to_vec())
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let principal = prop_oneof![
            Just(Principal::Anyone),
            Just(Principal::Anonymous),
            "[ab]".prop_map(Principal::User),
            Just(Principal::Tag(Tag::Custom("x".into()))),
        ];
        let effect = prop_oneof![Just(Effect::Allow), Just(Effect::Deny)];
        let kind = prop_oneof![Just(ResourceKind::Topic), Just(ResourceKind::Address)];
        let namespace = proptest::option::of(prop_oneof![Just("/".to_owned()), Just("n".to_owned())]);
        let some = proptest::collection::vec(operations(), 1..4);
        (any::<u64>(), principal, namespace, kind, patterns(), some, effect).prop_map(
            |(id, principal, namespace, kind, pattern, operations, effect)| Rule {
                id: RuleId(id),
                principal,
                namespace,
                kind,
                pattern,
                operations: Operations::of(&operations),
                effect,
                host: None,
                dialect: String::new(),
            },
        )
    }

    /// Whether a pattern matches, said again in the plainest way.
    fn plain_match(pattern: &Pattern, user: &str, name: &str) -> bool {
        match pattern {
            Pattern::Any => true,
            Pattern::Literal(text) => text == name,
            Pattern::Prefix(text) => name.starts_with(text.as_str()),
            Pattern::Within { .. } | Pattern::Dotted(_) => false,
            Pattern::Filter(filter) if filter == "a/#" => name == "a" || name.starts_with("a/"),
            Pattern::Filter(_) => {
                let levels: Vec<&str> = name.split('/').collect();
                !user.is_empty() && !name.starts_with('$') && levels.len() == 2 && levels[1] == user
            }
            Pattern::Regex(text) => {
                let middle = text.trim_start_matches('^').trim_end_matches('$');
                match (text.starts_with('^'), text.ends_with('$')) {
                    (true, true) => name == middle,
                    (true, false) => name.starts_with(middle),
                    (false, true) => name.ends_with(middle),
                    (false, false) => name.contains(middle),
                }
            }
        }
    }

    #[test]
    fn a_compiled_pattern_is_shared_until_its_rule_is_removed() {
        let regex = |id, text: &str| {
            rule(id, Principal::Anyone, Pattern::Regex(text.into()), &[Operation::Read], Effect::Allow)
        };
        let mut rules = rules(vec![regex(1, "^a"), regex(2, "^{username}$")]);
        let none = Tags::default();
        let shared = |rules: &Rules, user| {
            let own = rules.for_subject(&subject(Some(user), &none));
            own.of(ResourceKind::Topic).map(|rule| rule.matcher.clone()).collect::<Vec<_>>()
        };
        let (ann, bob) = (shared(&rules, "ann"), shared(&rules, "bob"));
        assert!(Arc::ptr_eq(&ann[0], &bob[0]) && !Arc::ptr_eq(&ann[1], &bob[1]));
        drop((ann, bob));
        rules.remove(&regex(1, "^a"));
        rules.insert(Arc::new(regex(1, "^b")));
        let own = rules.for_subject(&subject(Some("ann"), &none));
        assert!(own.decide(ResourceKind::Topic, "b", Operation::Read).allowed);
        assert!(!own.decide(ResourceKind::Topic, "a", Operation::Read).allowed);
    }

    fn key_rule() -> impl Strategy<Value = Rule> {
        let within = |pattern: Pattern, exchange: Option<String>| match exchange {
            Some(exchange) => Pattern::Within { exchange, keys: Box::new(pattern) },
            None => pattern,
        };
        (any_rule(), proptest::option::of("[xy]")).prop_map(move |(rule, exchange)| Rule {
            kind: ResourceKind::RoutingKey,
            pattern: within(rule.pattern, exchange),
            ..rule
        })
    }

    proptest! {
        /// Keys are open until a rule allows the operation on some of the exchange's keys.
        #[test]
        fn decisions_about_keys_equal_a_slow_model(
            list in proptest::collection::vec(key_rule(), 0..6),
            exchange in "[xy]",
            key in "[ab/]{0,3}",
            operation in prop_oneof![Just(Operation::Read), Just(Operation::Write)],
        ) {
            let parts = |pattern: &Pattern| match pattern {
                Pattern::Within { exchange, keys } => (Some(exchange.clone()), keys.as_ref().clone()),
                other => (None, other.clone()),
            };
            let mut of_operation: Vec<(Effect, bool)> = Vec::new();
            for rule in &list {
                let (of, keys) = parts(&rule.pattern);
                let applies = match &rule.principal {
                    Principal::Anyone => true,
                    Principal::User(name) => name == "a",
                    Principal::Tag(_) | Principal::Anonymous => false,
                } && rule.namespace.as_deref().is_none_or(|of| of == "/")
                    && of.is_none_or(|of| of == exchange)
                    && rule.operations.contains(operation);
                if applies {
                    of_operation.push((rule.effect, plain_match(&keys, "a", &key)));
                }
            }
            let denied = of_operation.contains(&(Effect::Deny, true));
            let granted = of_operation.contains(&(Effect::Allow, true))
                || !of_operation.iter().any(|(effect, _)| *effect == Effect::Allow);
            let none = Tags::default();
            let name = crate::key_name(&exchange, &key);
            let decided = rules(list).for_subject(&subject(Some("a"), &none)).decide(ResourceKind::RoutingKey, &name, operation);
            prop_assert_eq!(decided.allowed, granted && !denied);
        }

        /// The decision equals that of a model which looks at every rule.
        #[test]
        fn decisions_equal_a_slow_model(
            list in proptest::collection::vec(any_rule(), 0..12),
            user in proptest::option::of("[ab]"),
            tagged: bool,
            namespace in prop_oneof![Just("/"), Just("n")],
            kind in prop_oneof![Just(ResourceKind::Topic), Just(ResourceKind::Address)],
            name in "[ab/]{0,3}",
            operation in operations(),
        ) {
            let tags: Tags = tagged.then(|| Tag::Custom("x".into())).into_iter().collect();
            let own = user.as_deref().unwrap_or_default();
            let applies = |rule: &&Rule| {
                (match &rule.principal {
                    Principal::Anyone => true,
                    Principal::Anonymous => user.is_none(),
                    Principal::User(of) => user.as_ref() == Some(of),
                    Principal::Tag(_) => tagged,
                }) && rule.namespace.as_deref().is_none_or(|of| of == namespace)
                    && rule.kind == kind
                    && plain_match(&rule.pattern, own, &name)
            };
            let denied = list.iter().filter(applies).any(|rule| {
                rule.effect == Effect::Deny
                    && (rule.operations.contains(operation)
                        || matches!(operation, Operation::Create | Operation::Delete)
                            && rule.operations.contains(Operation::Configure))
            });
            let granted = list.iter().filter(applies).any(|rule| {
                rule.effect == Effect::Allow
                    && (rule.operations.contains(operation)
                        || rule.operations.intersects(operation.included_in()))
            });
            let subject = Subject { user: user.as_deref(), tags: &tags, client_id: "", namespace, host: IpAddr::from([127, 0, 0, 1]) };
            let decided = rules(list).for_subject(&subject).decide(kind, &name, operation);
            prop_assert_eq!(decided.allowed, granted && !denied);
        }
    }
}
