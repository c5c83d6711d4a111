//! The session's filters, without the shared ones: how a message that matches them is delivered.
//!
//! The broker queues a message for a session once, however many of its filters match. They are matched again here, at
//! delivery, so that one PUBLISH carries the identifiers of all matching subscriptions [MQTT-3.3.4-3] at the highest
//! granted QoS [MQTT-3.3.4-2].
//!
//! Bound: the results of [`CACHED_TOPICS_MAX`] topics are cached, for own and for others' messages, if there are many filters.

use std::collections::HashMap;

use smallvec::SmallVec;
use tokio::runtime::Handle;

use super::filter_table::FilterTable;
use super::terms::Terms;
use crate::codec::Qos;

/// Filters that are freed at once.
const FREED_AT_ONCE_MAX: u32 = 1000;

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
    table: FilterTable<Terms>,
    /// Insertions: there are no more filters than these.
    inserted: u32,
    any_no_local: bool,
    any_id: bool,
    any_retain_as_published: bool,
    /// Results by topic: for others' messages, and for the session's own.
    cached: Option<Box<[Cache; 2]>>,
    /// The last result: successive messages mostly have one topic.
    last: Option<Box<Last>>,
    /// The interval whose `$SYS` values were sent last; 0: none.
    sys_interval: u32,
}

/// Results by topic.
type Cache = HashMap<Box<str>, Matched>;

#[derive(Debug, Default)]
struct Last {
    topic: String,
    /// The message was the session's own.
    own: bool,
    matched: Matched,
}

impl Subscriptions {
    /// Adds a subscription or replaces its terms [MQTT-3.8.4-3].
    pub(crate) fn insert(&mut self, filter: &str, terms: Terms) {
        let filters = self.0.get_or_insert_default();
        filters.inserted = filters.inserted.saturating_add(1);
        filters.table.insert(filter, terms);
        filters.any_no_local |= terms.options.no_local;
        filters.any_id |= terms.id.is_some();
        filters.any_retain_as_published |= terms.options.retain_as_published;
        filters.clear_cache();
    }

    /// Removes a subscription.
    pub(crate) fn remove(&mut self, filter: &str) {
        if let Some(filters) = &mut self.0 {
            filters.table.remove(filter);
            filters.clear_cache();
        }
    }

    /// Notes that the `$SYS` values of an interval are sent, and returns the interval before.
    pub(crate) fn note_sys_interval(&mut self, interval: u32) -> u32 {
        self.0.as_mut().map_or(0, |filters| std::mem::replace(&mut filters.sys_interval, interval))
    }

    /// Whether there is no subscription.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|filters| filters.table.is_empty())
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
        self.cached = None;
        self.last = None;
    }

    fn matched(&mut self, topic: &str, own: bool) -> &Matched {
        let own = own && self.any_no_local;
        let mut last = match self.last.take() {
            Some(last) if last.topic == topic && last.own == own => return &self.last.insert(last).matched,
            last => last.unwrap_or_default(),
        };
        last.matched = self.look_up(topic, own);
        last.own = own;
        last.topic.clear();
        last.topic.push_str(topic);
        &self.last.insert(last).matched
    }

    fn look_up(&mut self, topic: &str, own: bool) -> Matched {
        if self.table.is_list() {
            return self.table.matched(topic, own);
        }
        let [others, owns] = &mut **self.cached.get_or_insert_default();
        let cached = if own { owns } else { others };
        if let Some(found) = cached.get(topic) {
            return found.clone();
        }
        let found = self.table.matched(topic, own);
        if cached.len() >= CACHED_TOPICS_MAX {
            cached.clear();
        }
        cached.insert(topic.into(), found.clone());
        found
    }
}

impl FilterTable<Terms> {
    fn matched(&self, topic: &str, own: bool) -> Matched {
        let mut found = Matched::default();
        self.matching(topic, |terms| {
            if own && terms.options.no_local {
                return;
            }
            found.qos = found.qos.max(Some(terms.options.qos));
            found.retain_as_published |= terms.options.retain_as_published;
            found.ids.extend(terms.id);
        });
        found.ids.sort_unstable();
        found.ids.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::SubscribeOptions;

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
        (0..100).for_each(|number| all.insert(&format!("#{number}"), terms(0, None)));
        all.insert("#", terms(1, None));
        for topic in 0..10_000 {
            assert_eq!(all.matched(&topic.to_string(), false).qos, Some(Qos::AtLeastOnce));
        }
        assert!(all.0.as_ref().unwrap().cached.as_ref().unwrap()[0].len() <= CACHED_TOPICS_MAX);
    }

    #[test]
    fn a_few_filters_take_little_memory() {
        assert!(size_of::<Filters>() <= 48, "{}", size_of::<Filters>());
        assert!(size_of::<(Box<str>, Terms)>() <= 32, "{}", size_of::<(Box<str>, Terms)>());
        let mut all = Subscriptions::default();
        all.insert("a/+", terms(1, None));
        assert_eq!(all.matched("a/b", false).qos, Some(Qos::AtLeastOnce));
        assert!(all.0.as_ref().unwrap().cached.is_none(), "to compare a few costs less than to remember");
    }
}
