//! Capture rules: which publishes in the hub are appended to which log topic, and under which key.
//!
//! The first matching rule applies. Rules from the topics' own settings precede those of the configuration, which often
//! match everything; the former are ordered by the topics' names, the latter as configured.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxBuildHasher;
use tokio::time::Instant;

use crate::address::{Address, Filter, Form, Step};
use crate::bag::Hashed;
use crate::clock::Clock;
use crate::spec::{CaptureRule, TopicConfig, TopicError, check_flag, check_name, is_true};
use crate::trie::Trie;

/// The setting of a topic for the addresses (a slashed filter) whose publishes are appended to it.
pub(crate) const FILTER: &str = "inver.capture.filter";

/// The setting of a topic for the key of those records, a template; by default the whole address.
const KEY: &str = "inver.capture.key";

/// The setting of a topic for null values: `true` appends one for a message that clears a retained value.
const TOMBSTONES: &str = "inver.capture.tombstones";

/// Beginnings of filters that are subscriptions of a protocol and match no address.
const SUBSCRIPTIONS: [&str; 3] = ["$share/", "$queue/", "$exclusive/"];

/// Time between two log lines about captures that fail.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The template for the whole address.
const WHOLE_ADDRESS: &str = "{address}";

/// A rule with its precedence.
struct Ranked {
    rank: Rank,
    rule: CaptureRule,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rank {
    /// A rule of the topic of this name; the name is no template.
    Topic(Box<str>),
    /// The rule of the configuration at this index.
    Configured(usize),
}

impl Hashed for Rank {
    fn hash(&self) -> u64 {
        FxBuildHasher.hash_one(self)
    }
}

impl Hashed for Arc<Ranked> {
    fn hash(&self) -> u64 {
        Hashed::hash(&self.rank)
    }
}

/// All rules; the cost of finding one by an address does not depend on their number.
#[derive(Default)]
pub(crate) struct Captures {
    rules: RwLock<Trie<Arc<Ranked>>>,
    count: AtomicUsize,
    /// Rules for every origin; only these apply to finished batches.
    general: AtomicUsize,
    /// The rules of the configuration.
    configured: Mutex<Vec<CaptureRule>>,
    refusals: Mutex<Refusals>,
}

/// What a rule does with a publish.
pub(crate) struct Capture {
    pub(crate) topic: String,
    pub(crate) key: Bytes,
    /// See [`CaptureRule::tombstones`].
    pub(crate) tombstones: bool,
    /// See [`CaptureRule::passes_on`].
    pub(crate) passes_on: bool,
    pub(crate) rank: Rank,
}

/// Captures that failed since the last log line about them.
#[derive(Default)]
struct Refusals {
    count: u64,
    logged_at: Option<Instant>,
}

impl Captures {
    pub(crate) fn new(rules: &[CaptureRule]) -> Captures {
        let captures = Captures::default();
        captures.set_configured(rules);
        captures
    }

    /// Replaces the rules of the configuration.
    pub(crate) fn set_configured(&self, rules: &[CaptureRule]) {
        let before = std::mem::take(&mut *self.configured.lock());
        for (i, rule) in before.iter().enumerate() {
            self.remove(&Rank::Configured(i), rule);
        }
        for (i, rule) in rules.iter().enumerate() {
            self.insert(Ranked { rank: Rank::Configured(i), rule: rule.clone() });
        }
        *self.configured.lock() = rules.to_vec();
    }

    fn remove(&self, rank: &Rank, rule: &CaptureRule) {
        let removed = self.rules.write().remove(&rule.filter, Hashed::hash(rank), |r| r.rank == *rank).len();
        self.count.fetch_sub(removed, Ordering::AcqRel);
        if rule.origin.is_none() {
            self.general.fetch_sub(removed, Ordering::AcqRel);
        }
    }

    fn insert(&self, ranked: Ranked) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.general.fetch_add(usize::from(ranked.rule.origin.is_none()), Ordering::AcqRel);
        let filter = ranked.rule.filter.clone();
        self.rules.write().insert(&filter, Arc::new(ranked));
    }

    /// Replaces a topic's rule: `before` are its settings until now.
    pub(crate) fn set_topic(&self, topic: &str, before: Option<&TopicConfig>, now: Option<&TopicConfig>) {
        let (before, now) =
            (before.and_then(|c| of_settings(topic, c)), now.and_then(|c| of_settings(topic, c)));
        if before == now {
            return;
        }
        if let Some(before) = before {
            self.remove(&Rank::Topic(topic.into()), &before);
        }
        if let Some(rule) = now {
            self.insert(Ranked { rank: Rank::Topic(topic.into()), rule });
        }
    }

    /// Notes that a message could not be captured; one log line a minute says how many, and why the last.
    pub(crate) fn log_refusal(&self, clock: &Clock, topic: &str, error: &TopicError) {
        let mut refusals = self.refusals.lock();
        refusals.count += 1;
        let now = clock.now();
        if refusals.logged_at.is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL) {
            let messages = std::mem::take(&mut refusals.count);
            tracing::warn!(topic, %error, messages, "failed to create a capture's topic; publishes are refused or go to the next rule");
            refusals.logged_at = Some(now);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Whether finished batches can be captured.
    pub(crate) fn captures_producers(&self) -> bool {
        self.general.load(Ordering::Acquire) > 0
    }

    /// How the first rule, or the first one after that of a rank, captures a publish.
    pub(crate) fn capture(&self, origin: &str, address: &Address, after: Option<&Rank>) -> Option<Capture> {
        let mut first: Option<Arc<Ranked>> = None;
        self.rules.read().matching(address, |ranked| {
            let applies = ranked.rule.origin.as_deref().is_none_or(|o| o == origin)
                && after.is_none_or(|after| *after < ranked.rank);
            if applies && first.as_ref().is_none_or(|f| ranked.rank < f.rank) {
                first = Some(ranked.clone());
            }
        });
        let Ranked { rank, rule } = &*first?;
        let topic = match rank {
            Rank::Topic(name) => name.to_string(),
            // An address may be any bytes, a name may not: a message with such an address is captured all the same.
            Rank::Configured(_) => {
                String::from_utf8_lossy(&fill(&rule.topic, Form::Dotted, rule, address)).into_owned()
            }
        };
        let key = Bytes::from(fill(&rule.key, Form::Slashed, rule, address));
        let (tombstones, passes_on) = (rule.tombstones, rule.passes_on);
        Some(Capture { topic, key, tombstones, passes_on, rank: rank.clone() })
    }
}

/// The rule in a topic's settings, if any.
fn of_settings(topic: &str, config: &TopicConfig) -> Option<CaptureRule> {
    let filter = config.get(FILTER).filter(|filter| !filter.is_empty())?;
    let key = config.get(KEY).filter(|key| !key.is_empty());
    Some(CaptureRule {
        origin: None,
        filter: Filter::slashed(filter.as_bytes()),
        topic: topic.to_owned(),
        key: key.map_or(WHOLE_ADDRESS, String::as_str).to_owned(),
        tombstones: is_true(config, TOMBSTONES),
        passes_on: false,
    })
}

/// Checks the rule in a topic's settings.
pub(crate) fn check(config: &TopicConfig) -> Result<(), TopicError> {
    check_flag(config, TOMBSTONES)?;
    let Some(filter) = config.get(FILTER).filter(|filter| !filter.is_empty()) else { return Ok(()) };
    let key = config.get(KEY).map_or("", String::as_str);
    let wildcards = wildcards(filter).map_err(|what| TopicError::BadConfig(format!("{FILTER} {what}")))?;
    literals(key, wildcards).map_err(|what| TopicError::BadConfig(format!("{KEY} {what}")))?;
    Ok(())
}

/// Checks a rule of the configuration: its filter (slashed), and the templates of the topic's name and the key. The error says
/// which of them is wrong, and why.
pub fn check_capture(filter: &str, topic: &str, key: &str) -> Result<(), String> {
    let wildcards = wildcards(filter).map_err(|what| format!("filter {what}"))?;
    literals(key, wildcards).map_err(|what| format!("key {what}"))?;
    let fixed = literals(topic, wildcards).map_err(|what| format!("topic {what}"))?;
    let is_name = |part: &&str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'%'))
    };
    if !fixed.iter().all(is_name) {
        return Err(format!("topic has letters, digits, `.`, `_`, `-` and `%` only, unlike `{topic}`"));
    }
    if fixed.concat() == topic {
        check_name(topic).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The number of wildcards of a filter: they are whole levels, and `#` is the last.
fn wildcards(filter: &str) -> Result<usize, String> {
    let (mut count, levels) = (0, filter.split('/').count());
    for (at, level) in filter.split('/').enumerate() {
        match level {
            "+" => count += 1,
            "#" if at + 1 == levels => count += 1,
            _ if level.contains(['+', '#', '\0']) => {
                return Err(format!("is a filter such as a/+/b/#, not '{filter}'"));
            }
            _ => {}
        }
    }
    if filter.is_empty() {
        return Err("is missing".into());
    }
    if let Some(prefix) = SUBSCRIPTIONS.iter().find(|prefix| filter.starts_with(**prefix)) {
        return Err(format!("matches no message: leave out '{prefix}' and what belongs to it"));
    }
    Ok(count)
}

/// The parts of a template between its places, which are `{address}` and `{1}` to the number of wildcards.
fn literals(template: &str, wildcards: usize) -> Result<Vec<&str>, String> {
    let (mut parts, mut rest) = (Vec::new(), template);
    while let Some((before, after)) = rest.split_once('{') {
        let Some((place, after)) = after.split_once('}') else {
            return Err(format!("`{template}`: a `{{` without its `}}`"));
        };
        let is_known = place == "address" || place.parse().is_ok_and(|n: usize| (1..=wildcards).contains(&n));
        if !is_known {
            return Err(format!(
                "`{template}`: `{{{place}}}` is neither `{{address}}` nor the number of one of the filter's {wildcards} \
                 wildcards"
            ));
        }
        parts.push(before);
        rest = after;
    }
    parts.push(rest);
    Ok(parts)
}

fn fill(template: &str, form: Form, rule: &CaptureRule, address: &Address) -> Vec<u8> {
    if template == WHOLE_ADDRESS {
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

/// The levels that the n-th wildcard (from 1) matched. Filters of rules have `#` at their end only.
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

    #[test]
    fn rules_of_the_configuration_are_checked() {
        for (filter, topic, key) in [
            ("#", "all", "{address}"),
            ("s/+/t/#", "data.{1}-{2}", "{1}:{2}/x y"),
            ("a/b", "%2E_x", ""),
            ("/+", "{address}", "}"),
        ] {
            assert_eq!(check_capture(filter, topic, key), Ok(()), "{filter} {topic} {key}");
        }
        for (filter, topic, key, expected) in [
            ("a/#/b", "x", "", "filter is a filter such as"),
            ("a+/b", "x", "", "filter is a filter such as"),
            ("", "x", "", "filter is missing"),
            ("a/+", "bad topic!", "", "topic has letters"),
            ("a/+", "", "", "it is empty"),
            ("a/+", "..", "", "'.' or '..'"),
            ("a/+", "x{2}", "", "`{2}` is neither"),
            ("a/+", "x{0}", "", "`{0}` is neither"),
            ("a/+", "x{1", "", "without its"),
            ("a/+", "x", "{3}", "key `{3}`"),
            ("a", "x", "{1}", "filter's 0 wildcards"),
            ("$share/g/a", "x", "", "matches no message"),
            ("$queue/#", "x", "", "matches no message"),
        ] {
            let error = check_capture(filter, topic, key).unwrap_err();
            assert!(error.contains(expected), "{filter} {topic} {key}: {error}");
        }
        assert!(check_capture("a", &"x".repeat(250), "").is_err());
    }

    fn capture(rules: &[(&str, &str, &str)], address: &str) -> Option<(String, Bytes)> {
        let rule = |(filter, topic, key): &(&str, &str, &str)| CaptureRule {
            origin: None,
            filter: Filter::slashed(filter.as_bytes()),
            topic: (*topic).into(),
            key: (*key).into(),
            tombstones: false,
            passes_on: false,
        };
        let rules: Vec<CaptureRule> = rules.iter().map(rule).collect();
        captured(&Captures::new(&rules), address)
    }

    fn captured(captures: &Captures, address: &str) -> Option<(String, Bytes)> {
        let address = Address::parse(Form::Slashed, address.as_bytes());
        captures.capture("x", &address, None).map(|capture| (capture.topic, capture.key))
    }

    #[test]
    fn the_first_matching_rule_applies() {
        let rules = [("s/+/t/#", "data.{1}", "{1}:{2}"), ("#", "all", "{address}")];
        assert_eq!(capture(&rules, "s/a.b/t/x/y"), Some(("data.a%2Eb".into(), Bytes::from("a.b:x/y"))));
        assert_eq!(capture(&rules, "q/r"), Some(("all".into(), Bytes::from("q/r"))));
        assert_eq!(capture(&rules, "$SYS/r"), None);
    }

    #[test]
    fn a_topics_own_rule_takes_precedence_until_its_settings_change() {
        let all = CaptureRule {
            origin: None,
            filter: Filter::slashed(b"#"),
            topic: "all".into(),
            key: WHOLE_ADDRESS.into(),
            tombstones: false,
            passes_on: false,
        };
        let captures = Captures::new(&[all]);
        let at = |address: &[u8]| captured(&captures, std::str::from_utf8(address).unwrap());
        let config = |filter: &str, key: &str| {
            TopicConfig::from([(FILTER.to_owned(), filter.to_owned()), (KEY.to_owned(), key.to_owned())])
        };
        captures.set_topic("A{1}", None, Some(&config("a/+", "{1}")));
        captures.set_topic("z", None, Some(&config("a/#", "")));
        assert_eq!(
            at(b"a/b"),
            Some(("A{1}".into(), Bytes::from("b"))),
            "the first by name, which is no template"
        );
        assert_eq!(at(b"a/b/c"), Some(("z".into(), Bytes::from("a/b/c"))));
        assert_eq!(at(b"b"), Some(("all".into(), Bytes::from("b"))));
        captures.set_topic("A{1}", Some(&config("a/+", "{1}")), Some(&config("b", "k")));
        assert_eq!(at(b"a/b"), Some(("z".into(), Bytes::from("a/b"))));
        assert_eq!(at(b"b"), Some(("A{1}".into(), Bytes::from("k"))));
        captures.set_topic("A{1}", Some(&config("b", "k")), None);
        captures.set_topic("z", Some(&config("a/#", "")), Some(&TopicConfig::new()));
        assert_eq!(at(b"a/b"), Some(("all".into(), Bytes::from("a/b"))));
        assert_eq!(captures.general.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn configured_rules_are_replaced_and_those_of_topics_stay() {
        let rule = |origin: Option<&str>, filter: &str, topic: &str| CaptureRule {
            origin: origin.map(Into::into),
            filter: Filter::slashed(filter.as_bytes()),
            topic: topic.into(),
            key: WHOLE_ADDRESS.into(),
            tombstones: false,
            passes_on: false,
        };
        let captures = Captures::new(&[rule(None, "#", "all"), rule(Some("x"), "a/#", "a")]);
        let config = TopicConfig::from([(FILTER.to_owned(), "own/#".to_owned())]);
        captures.set_topic("own", None, Some(&config));
        let topic_of = |address: &[u8]| {
            captured(&captures, std::str::from_utf8(address).unwrap()).map(|(topic, _)| topic)
        };
        assert_eq!(topic_of(b"a/b").as_deref(), Some("all"));
        captures.set_configured(&[rule(Some("x"), "a/#", "new")]);
        assert_eq!(topic_of(b"a/b").as_deref(), Some("new"));
        assert_eq!((topic_of(b"b"), topic_of(b"own/1").as_deref()), (None, Some("own")));
        assert!(captures.captures_producers(), "the topic's own rule is for every origin");
        captures.set_configured(&[]);
        captures.set_topic("own", Some(&config), None);
        assert!(captures.is_empty() && !captures.captures_producers());
    }

    #[test]
    fn wildcards_are_whole_levels() {
        let config = |filter: &str| TopicConfig::from([(FILTER.to_owned(), filter.to_owned())]);
        for good in ["", "#", "a", "+/a/+", "a/#", "$SYS/#", "a//b"] {
            assert!(check(&config(good)).is_ok(), "{good}");
        }
        for bad in ["a#", "#/a", "a+/b", "+a", "a/#/b", "##"] {
            assert!(check(&config(bad)).is_err(), "{bad}");
        }
    }
}
