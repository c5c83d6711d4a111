//! The session's filters, without the shared ones: how a message that matches them is delivered.
//!
//! The broker queues a message for a session once, however many of its filters match. They are matched again here, at
//! delivery, so that one PUBLISH carries the identifiers of all matching subscriptions [MQTT-3.3.4-3] at the highest
//! granted QoS [MQTT-3.3.4-2].
//!
//! Bound: the results of [`CACHED_TOPICS_MAX`] topics are cached, for own and for others' messages.

use std::collections::HashMap;

use smallvec::SmallVec;
use tokio::runtime::Handle;

use super::terms::Terms;
use super::wildcards::WildcardFilters;
use crate::codec::Qos;

/// Filters that are freed at once.
const FREED_AT_ONCE_MAX: usize = 1000;

/// Topics whose result is cached.
const CACHED_TOPICS_MAX: usize = 256;

/// How a message is delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matched {
    /// The highest granted QoS; `None` if no filter matches, or none does any more.
    pub(crate) qos: Option<Qos>,
    /// A matching subscription has Retain As Published.
    pub(crate) retain_as_published: bool,
    /// The identifiers of all matching subscriptions.
    pub(crate) ids: SmallVec<[u32; 4]>,
}

/// The filters of a session; one pointer while it has none.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(Option<Box<Filters>>);

#[derive(Debug, Default)]
struct Filters {
    /// Insertions: there are no more filters than these.
    inserted: usize,
    exact: HashMap<Box<str>, Terms>,
    wildcards: WildcardFilters<Terms>,
    any_no_local: bool,
    any_id: bool,
    any_retain_as_published: bool,
    /// Results by topic: for others' messages, and for the session's own.
    cached: [HashMap<Box<str>, Matched>; 2],
    /// The last topic and whether the message was the session's own: successive messages mostly have one topic.
    last: Option<(String, bool)>,
    last_matched: Matched,
    /// The interval whose `$SYS` values were sent last; 0: none.
    sys_interval: u32,
}

impl Subscriptions {
    /// Adds a subscription or replaces its terms [MQTT-3.8.4-3].
    pub(crate) fn insert(&mut self, filter: &str, terms: Terms) {
        let filters = self.0.get_or_insert_default();
        filters.inserted += 1;
        if !has_wildcard(filter) {
            filters.exact.insert(filter.into(), terms);
        } else {
            filters.wildcards.insert(filter, terms);
        }
        filters.any_no_local |= terms.options.no_local;
        filters.any_id |= terms.id.is_some();
        filters.any_retain_as_published |= terms.options.retain_as_published;
        filters.clear_cache();
    }

    /// Removes a subscription.
    pub(crate) fn remove(&mut self, filter: &str) {
        if let Some(filters) = &mut self.0 {
            filters.exact.remove(filter);
            filters.wildcards.remove(filter);
            filters.clear_cache();
        }
    }

    /// Notes that the `$SYS` values of an interval are sent, and returns the interval before.
    pub(crate) fn note_sys_interval(&mut self, interval: u32) -> u32 {
        self.0.as_mut().map_or(0, |filters| std::mem::replace(&mut filters.sys_interval, interval))
    }

    /// Whether there is no subscription.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|filters| filters.exact.is_empty() && filters.wildcards.is_empty())
    }

    /// Whether a subscription has, or had, No Local: only then does the publisher matter.
    pub(crate) fn any_no_local(&self) -> bool {
        self.0.as_ref().is_some_and(|filters| filters.any_no_local)
    }

    /// Whether a subscription has, or had, an identifier.
    pub(crate) fn any_id(&self) -> bool {
        self.0.as_ref().is_some_and(|filters| filters.any_id)
    }

    /// Whether a subscription has, or had, Retain As Published.
    pub(crate) fn any_retain_as_published(&self) -> bool {
        self.0.as_ref().is_some_and(|filters| filters.any_retain_as_published)
    }

    /// How a message of this topic is delivered. `own`: this client published it [MQTT-3.8.3-3].
    pub(crate) fn matched(&mut self, topic: &str, own: bool) -> &Matched {
        self.0.get_or_insert_default().matched(topic, own)
    }
}

impl Drop for Subscriptions {
    /// Very many of them are freed on another thread: that takes about a microsecond for each.
    fn drop(&mut self) {
        let many = self.0.take_if(|filters| filters.inserted > FREED_AT_ONCE_MAX);
        if let (Some(many), Ok(runtime)) = (many, Handle::try_current()) {
            runtime.spawn_blocking(move || drop(many));
        }
    }
}

impl Filters {
    fn clear_cache(&mut self) {
        self.cached.iter_mut().for_each(HashMap::clear);
        self.last = None;
    }

    fn matched(&mut self, topic: &str, own: bool) -> &Matched {
        let own = own && self.any_no_local;
        if !self.last.as_ref().is_some_and(|(last, last_own)| last == topic && *last_own == own) {
            self.last_matched = self.look_up(topic, own);
            let mut text = self.last.take().map_or_else(String::new, |(text, _)| text);
            text.clear();
            text.push_str(topic);
            self.last = Some((text, own));
        }
        &self.last_matched
    }

    fn look_up(&mut self, topic: &str, own: bool) -> Matched {
        let [others, owns] = &mut self.cached;
        let cached = if own { owns } else { others };
        if let Some(found) = cached.get(topic) {
            return found.clone();
        }
        let mut found = Matched::default();
        let mut add = |terms: &Terms| {
            if own && terms.options.no_local {
                return;
            }
            found.qos = found.qos.max(Some(terms.options.qos));
            found.retain_as_published |= terms.options.retain_as_published;
            found.ids.extend(terms.id);
        };
        self.exact.get(topic).into_iter().for_each(&mut add);
        self.wildcards.matching(topic, &mut add);
        found.ids.sort_unstable();
        found.ids.dedup();
        if cached.len() >= CACHED_TOPICS_MAX {
            cached.clear();
        }
        cached.insert(topic.into(), found.clone());
        found
    }
}

fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| byte == b'+' || byte == b'#')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::SubscribeOptions;

    /// Reference implementation: whether a valid topic filter matches a topic name (section 4.7).
    fn matches(filter: &str, topic: &str) -> bool {
        // A wildcard at the first level does not match `$…` [MQTT-4.7.2-1].
        if topic.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for step in filter.split('/') {
            match (step, levels.next()) {
                // `#` matches the parent level too [MQTT-4.7.1-2 of 3.1.1].
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (step, Some(level)) if step == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    fn terms(qos: u8, id: Option<u32>) -> Terms {
        Terms {
            options: SubscribeOptions { qos: Qos::from_bits(qos).unwrap(), ..Default::default() },
            id,
            mode: None,
        }
    }

    #[test]
    fn one_message_carries_every_matching_identifier_at_the_highest_qos() {
        let mut all = Subscriptions::default();
        all.insert("a/b", terms(0, Some(9)));
        all.insert("a/#", terms(2, Some(3)));
        all.insert("+/b", terms(1, None));
        all.insert("c", terms(1, Some(1)));
        let found = all.matched("a/b", false);
        assert_eq!((found.qos, &found.ids[..]), (Some(Qos::ExactlyOnce), &[3, 9][..]));
        all.insert("a/#", terms(1, Some(4)));
        all.remove("a/b");
        let found = all.matched("a/b", false);
        assert_eq!((found.qos, &found.ids[..]), (Some(Qos::AtLeastOnce), &[4][..]));
        assert_eq!(all.matched("b", false).qos, None);
    }

    #[test]
    fn own_messages_do_not_match_no_local_filters() {
        let mut all = Subscriptions::default();
        let mut own = terms(2, Some(1));
        own.options.no_local = true;
        all.insert("a", own);
        all.insert("#", terms(0, Some(2)));
        assert_eq!(&all.matched("a", true).ids[..], &[2]);
        assert_eq!(&all.matched("a", false).ids[..], &[1, 2]);
    }

    #[test]
    fn a_hundred_thousand_wildcard_filters_are_matched_quickly() {
        let mut all = Subscriptions::default();
        let clock = inver_broker::Clock::system();
        let start = clock.now();
        for number in 0..100_000 {
            all.insert(&format!("a/{number}/+/#"), terms(1, None));
        }
        for number in 0..1_000 {
            assert_eq!(all.matched(&format!("a/{number}/b"), false).qos, Some(Qos::AtLeastOnce));
        }
        for number in 0..100_000 {
            all.remove(&format!("a/{number}/+/#"));
        }
        assert_eq!(all.matched("a/1/b", false).qos, None);
        // Comparing each filter with each other took minutes.
        let elapsed = clock.now() - start;
        assert!(elapsed.as_secs() < 20, "{elapsed:?}");
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut all = Subscriptions::default();
        all.insert("#", terms(1, None));
        for topic in 0..10_000 {
            assert_eq!(all.matched(&topic.to_string(), false).qos, Some(Qos::AtLeastOnce));
        }
        assert!(all.0.as_ref().unwrap().cached[0].len() <= CACHED_TOPICS_MAX);
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_hub(filter in "([ab$]|\\+)?(/([ab]|\\+)?){0,3}(/#)?|#", topic in "[ab$](/[ab]?){0,4}|(/[ab]?){1,4}") {
            let (hub, address) = (
                inver_broker::address::Filter::slashed(filter.as_bytes()),
                inver_broker::address::Address::parse(inver_broker::address::Form::Slashed, topic.as_bytes()),
            );
            prop_assert_eq!(matches(&filter, &topic), hub.matches(&address));
        }

        #[test]
        fn the_filter_tree_agrees_with_each_filter_alone(
            filters in prop::collection::vec("([ab$]|\\+)?(/([ab]|\\+)?){0,3}(/#)?|#", 0..12),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            topic in "[ab$]?(/[ab]?){0,4}",
        ) {
            let mut tree = WildcardFilters::default();
            let mut model = std::collections::BTreeMap::new();
            for (number, filter) in filters.iter().enumerate() {
                tree.insert(filter, number);
                model.insert(filter.as_str(), number);
            }
            for index in removed.iter().filter(|_| !filters.is_empty()) {
                let filter: &String = index.get(&filters);
                tree.remove(filter);
                model.remove(filter.as_str());
            }
            let mut found = Vec::new();
            tree.matching(&topic, |number| found.push(*number));
            found.sort_unstable();
            let matching = model.iter().filter(|(filter, _)| matches(filter, &topic));
            let mut wanted: Vec<usize> = matching.map(|(_, number)| *number).collect();
            wanted.sort_unstable();
            prop_assert_eq!(found, wanted);
        }
    }
}
