//! Topic filters with their values, found by the topic names that they match.
//!
//! Most sessions have a few filters: these are a list without spare capacity, and each is compared. Beyond [`LIST_MAX`] the
//! cost of a match does not depend on their number, which a client can drive to the session's bound.

use std::collections::HashMap;

use super::wildcards::WildcardFilters;

/// Filters of a list.
const LIST_MAX: usize = 8;

/// A map from filters to values, looked up by matching topic names.
#[derive(Debug)]
pub(super) enum FilterTable<T> {
    Few(Box<[(Box<str>, T)]>),
    Many(Box<Many<T>>),
}

#[derive(Debug)]
pub(super) struct Many<T> {
    exact: HashMap<Box<str>, T>,
    wildcards: WildcardFilters<T>,
}

impl<T> Default for FilterTable<T> {
    fn default() -> Self {
        FilterTable::Few(Box::default())
    }
}

impl<T> FilterTable<T> {
    /// Inserts a filter or replaces its value.
    pub(super) fn insert(&mut self, filter: &str, value: T) {
        let list = match self {
            FilterTable::Few(list) => list,
            FilterTable::Many(many) => return many.insert(filter.into(), value),
        };
        if let Some((_, present)) = list.iter_mut().find(|(text, _)| **text == *filter) {
            *present = value;
            return;
        }
        let mut all = std::mem::take(list).into_vec();
        all.reserve_exact(1);
        all.push((filter.into(), value));
        *self = match all.len() {
            ..=LIST_MAX => FilterTable::Few(all.into()),
            _ => {
                let mut many = Many { exact: HashMap::new(), wildcards: WildcardFilters::default() };
                all.into_iter().for_each(|(text, value)| many.insert(text, value));
                FilterTable::Many(Box::new(many))
            }
        };
    }

    /// Removes a filter.
    pub(super) fn remove(&mut self, filter: &str) {
        match self {
            FilterTable::Few(list) => {
                if list.iter().any(|(text, _)| **text == *filter) {
                    let mut all = std::mem::take(list).into_vec();
                    all.retain(|(text, _)| **text != *filter);
                    *list = all.into();
                }
            }
            FilterTable::Many(many) => {
                many.exact.remove(filter);
                many.wildcards.remove(filter);
                if self.is_empty() {
                    *self = FilterTable::default();
                }
            }
        }
    }

    /// Whether there is no filter.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            FilterTable::Few(list) => list.is_empty(),
            FilterTable::Many(many) => many.exact.is_empty() && many.wildcards.is_empty(),
        }
    }

    /// Whether there are so few that a match costs less than to remember it.
    pub(super) fn is_list(&self) -> bool {
        matches!(self, FilterTable::Few(_))
    }

    /// Calls `found` with the value of each filter that matches a topic name (section 4.7).
    pub(super) fn matching<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a T)) {
        match self {
            FilterTable::Few(list) => {
                let matching = list.iter().filter(|(filter, _)| matches(filter, topic));
                matching.for_each(|(_, value)| found(value));
            }
            FilterTable::Many(many) => {
                many.exact.get(topic).into_iter().for_each(&mut found);
                many.wildcards.matching(topic, found);
            }
        }
    }
}

impl<T> Many<T> {
    fn insert(&mut self, filter: Box<str>, value: T) {
        match filter.contains(['+', '#']) {
            true => self.wildcards.insert(&filter, value),
            false => _ = self.exact.insert(filter, value),
        }
    }
}

/// Whether a valid topic filter matches a topic name (section 4.7).
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Filters and topics of few levels, so that they often meet.
    const FILTER: &str = "([ab$]|\\+)?(/([ab]|\\+)?){0,3}(/#)?|#";

    proptest! {
        #[test]
        fn matching_agrees_with_the_hub(filter in FILTER, topic in "[ab$](/[ab]?){0,4}|(/[ab]?){1,4}") {
            let (hub, address) = (
                inver_broker::address::Filter::slashed(filter.as_bytes()),
                inver_broker::address::Address::parse(inver_broker::address::Form::Slashed, topic.as_bytes()),
            );
            prop_assert_eq!(matches(&filter, &topic), hub.matches(&address));
        }

        #[test]
        fn it_agrees_with_each_filter_alone(
            filters in prop::collection::vec(FILTER, 0..3 * LIST_MAX),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..3 * LIST_MAX),
            topic in "[ab$]?(/[ab]?){0,4}",
        ) {
            let mut table = FilterTable::default();
            let mut model = std::collections::BTreeMap::new();
            for (number, filter) in filters.iter().enumerate() {
                table.insert(filter, number);
                model.insert(filter.as_str(), number);
            }
            for index in removed.iter().filter(|_| !filters.is_empty()) {
                let filter: &String = index.get(&filters);
                table.remove(filter);
                model.remove(filter.as_str());
            }
            let mut found = Vec::new();
            table.matching(&topic, |number| found.push(*number));
            found.sort_unstable();
            let matching = model.iter().filter(|(filter, _)| matches(filter, &topic));
            let mut wanted: Vec<usize> = matching.map(|(_, number)| *number).collect();
            wanted.sort_unstable();
            prop_assert_eq!(found, wanted);
            prop_assert_eq!(table.is_empty(), model.is_empty());
        }
    }

    #[test]
    fn a_few_filters_are_a_list() {
        let mut table = FilterTable::default();
        (0..LIST_MAX).for_each(|number| table.insert(&format!("{number}/+"), number));
        table.insert("0/+", 9);
        assert!(matches!(&table, FilterTable::Few(list) if list.len() == LIST_MAX));
        table.insert("other", 10);
        assert!(!table.is_list());
        (0..LIST_MAX).for_each(|number| table.remove(&format!("{number}/+")));
        table.remove("other");
        assert!(table.is_empty() && table.is_list());
        assert_eq!(size_of_val(&table), 2 * size_of::<usize>());
    }
}
