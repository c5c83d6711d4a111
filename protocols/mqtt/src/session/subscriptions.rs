//! The session's own filters: what a message that came for them is delivered as.
//!
//! The broker sends a message to a session once, however many of its filters match. Which ones do is found again here,
//! at delivery, so that one PUBLISH carries every matching subscription's identifier [MQTT-3.3.4-3] at the highest
//! granted QoS [MQTT-3.3.4-2].

use std::collections::HashMap;

use bytes::Bytes;
use inver_broker::Mode;
use smallvec::SmallVec;

use super::wild::WildFilters;
use crate::codec::{Qos, SubscribeOptions, Version};

/// Topics whose answer is remembered.
const REMEMBERED_TOPICS_MAX: usize = 256;

/// A subscription's options and identifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) options: SubscribeOptions,
    pub(crate) id: Option<u32>,
    /// Of a shared subscription: how its members share it, if the client said so.
    pub(crate) mode: Option<Mode>,
}

/// Every options byte there can be.
static OPTIONS: [u8; 64] = {
    let mut bytes = [0; 64];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};

/// What [`Terms::to_bytes`] writes for the modes that can be asked for.
const MODES: [(u8, Mode); 4] =
    [(1, Mode::Exclusive), (2, Mode::Shared), (3, Mode::Failover), (4, Mode::KeyShared)];

impl Terms {
    /// How the members of a shared subscription share it.
    pub(crate) fn share_mode(self) -> Mode {
        self.mode.unwrap_or(Mode::Shared)
    }

    /// What the broker keeps beside the filter: the options byte, then the identifier if there is one (4 bytes, big
    /// endian), then the mode if there is one (1 byte).
    pub(crate) fn to_bytes(self) -> Bytes {
        let options = self.options.byte(Version::V5);
        if let (None, None, Some(byte)) =
            (self.id, self.mode, OPTIONS.get(usize::from(options)..=options.into()))
        {
            // Most are no more, and a session keeps its own of each.
            return Bytes::from_static(byte);
        }
        let mut bytes = vec![options];
        bytes.extend(self.id.iter().flat_map(|id| id.to_be_bytes()));
        bytes.extend(MODES.iter().filter(|(_, mode)| Some(*mode) == self.mode).map(|(code, _)| code));
        bytes.into()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Terms> {
        let (&options, id) = bytes.split_first()?;
        let options = SubscribeOptions::from_byte(options, Version::V5).ok()?;
        let (id, mode) = match id.split_first_chunk::<4>() {
            Some((id, mode)) => (Some(u32::from_be_bytes(*id)), mode),
            None => (None, id),
        };
        let mode = match *mode {
            [] => None,
            [code] => Some(MODES.iter().find(|(known, _)| *known == code)?.1),
            _ => return None,
        };
        Some(Terms { options, id, mode })
    }
}

/// What a message is delivered as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matched {
    /// The highest granted QoS; `None` if no filter matches (any more).
    pub(crate) qos: Option<Qos>,
    /// A matching subscription keeps the RETAIN flag.
    pub(crate) retain_as_published: bool,
    /// The identifiers of all matching subscriptions.
    pub(crate) ids: SmallVec<[u32; 4]>,
}

/// The filters of a session, shared ones not among them. In a box: idle and publishing clients have none.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(Option<Box<Filters>>);

#[derive(Debug, Default)]
struct Filters {
    exact: HashMap<Box<str>, Terms>,
    wild: WildFilters<Terms>,
    any_no_local: bool,
    any_id: bool,
    any_retain_as_published: bool,
    /// Answers by topic; for others' publishes, and for the session's own.
    remembered: [HashMap<Box<str>, Matched>; 2],
    /// The last answer: a burst is mostly of one topic.
    last: Option<(String, bool)>,
    last_matched: Matched,
}

impl Subscriptions {
    /// Adds a subscription or replaces its terms [MQTT-3.8.4-3].
    pub(crate) fn insert(&mut self, filter: &str, terms: Terms) {
        let filters = self.0.get_or_insert_default();
        if !is_wild(filter) {
            filters.exact.insert(filter.into(), terms);
        } else {
            filters.wild.insert(filter, terms);
        }
        filters.any_no_local |= terms.options.no_local;
        filters.any_id |= terms.id.is_some();
        filters.any_retain_as_published |= terms.options.retain_as_published;
        filters.forget();
    }

    /// Takes a subscription out.
    pub(crate) fn remove(&mut self, filter: &str) {
        if let Some(filters) = &mut self.0 {
            filters.exact.remove(filter);
            filters.wild.remove(filter);
            filters.forget();
        }
    }

    /// Whether it matters who published.
    pub(crate) fn any_no_local(&self) -> bool {
        self.0.as_ref().is_some_and(|filters| filters.any_no_local)
    }

    /// Whether a subscription has, or had, an identifier.
    pub(crate) fn any_id(&self) -> bool {
        self.0.as_ref().is_some_and(|filters| filters.any_id)
    }

    /// Whether a subscription keeps, or kept, the RETAIN flag.
    pub(crate) fn any_retain_as_published(&self) -> bool {
        self.0.as_ref().is_some_and(|filters| filters.any_retain_as_published)
    }

    /// What a message of this topic is delivered as. `own`: this client published it [MQTT-3.8.3-3].
    pub(crate) fn matched(&mut self, topic: &str, own: bool) -> &Matched {
        self.0.get_or_insert_default().matched(topic, own)
    }
}

impl Filters {
    fn forget(&mut self) {
        self.remembered.iter_mut().for_each(HashMap::clear);
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
        let [others, owns] = &mut self.remembered;
        let remembered = if own { owns } else { others };
        if let Some(found) = remembered.get(topic) {
            return found.clone();
        }
        let mut found = Matched::default();
        let mut count = |terms: &Terms| {
            if own && terms.options.no_local {
                return;
            }
            found.qos = found.qos.max(Some(terms.options.qos));
            found.retain_as_published |= terms.options.retain_as_published;
            found.ids.extend(terms.id);
        };
        self.exact.get(topic).into_iter().for_each(&mut count);
        self.wild.matching(topic, &mut count);
        found.ids.sort_unstable();
        found.ids.dedup();
        if remembered.len() >= REMEMBERED_TOPICS_MAX {
            remembered.clear();
        }
        remembered.insert(topic.into(), found.clone());
        found
    }
}

fn is_wild(filter: &str) -> bool {
    filter.bytes().any(|byte| byte == b'+' || byte == b'#')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The model: whether a valid topic filter matches a topic name (section 4.7).
    fn matches(filter: &str, topic: &str) -> bool {
        // Wildcards at the first level spare `$…` [MQTT-4.7.2-1].
        if topic.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for step in filter.split('/') {
            match (step, levels.next()) {
                // It matches the level above too [MQTT-4.7.1-2 of 3.1.1].
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
    fn no_local_filters_do_not_count_for_own_messages() {
        let mut all = Subscriptions::default();
        let mut own = terms(2, Some(1));
        own.options.no_local = true;
        all.insert("a", own);
        all.insert("#", terms(0, Some(2)));
        assert_eq!(&all.matched("a", true).ids[..], &[2]);
        assert_eq!(&all.matched("a", false).ids[..], &[1, 2]);
    }

    #[test]
    fn a_hundred_thousand_wildcard_filters_stay_cheap() {
        let mut all = Subscriptions::default();
        let start = std::time::Instant::now();
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
        // By comparison of each with each it took minutes.
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn memory_for_answers_is_bounded() {
        let mut all = Subscriptions::default();
        all.insert("#", terms(1, None));
        for topic in 0..10_000 {
            assert_eq!(all.matched(&topic.to_string(), false).qos, Some(Qos::AtLeastOnce));
        }
        assert!(all.0.unwrap().remembered[0].len() <= REMEMBERED_TOPICS_MAX);
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_hubs(filter in "([ab$]|\\+)?(/([ab]|\\+)?){0,3}(/#)?|#", topic in "[ab$]?(/[ab]?){0,4}") {
            let (hub, address) = (
                inver_broker::address::Filter::slashed(filter.as_bytes()),
                inver_broker::address::Address::parse(inver_broker::address::Form::Slashed, topic.as_bytes()),
            );
            prop_assert_eq!(matches(&filter, &topic), hub.matches(&address));
        }

        #[test]
        fn the_tree_agrees_with_each_filter_alone(
            filters in prop::collection::vec("([ab$]|\\+)?(/([ab]|\\+)?){0,3}(/#)?|#", 0..12),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            topic in "[ab$]?(/[ab]?){0,4}",
        ) {
            let mut tree = WildFilters::default();
            let mut model = std::collections::BTreeMap::new();
            for (number, filter) in filters.iter().enumerate() {
                tree.insert(filter, number);
                model.insert(filter.as_str(), number);
            }
            for index in gone.iter().filter(|_| !filters.is_empty()) {
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

        #[test]
        fn terms_are_kept(byte in 0u8..64, id in prop::option::of(any::<u32>()), mode in 0usize..5) {
            if let Ok(options) = SubscribeOptions::from_byte(byte, Version::V5) {
                let terms = Terms { options, id, mode: MODES.get(mode).map(|(_, mode)| *mode) };
                prop_assert_eq!(Terms::from_bytes(&terms.to_bytes()), Some(terms));
            }
        }
    }
}
