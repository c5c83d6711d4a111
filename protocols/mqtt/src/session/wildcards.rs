//! Topic filters with wildcards as a tree of levels.
//!
//! Insertion, removal and matching cost by the levels of a filter and the wildcards on its path, not by the number of
//! filters, which a client can drive to the session's bound.

use std::collections::HashMap;

/// A map from filters to values, looked up by matching topic names.
#[derive(Debug)]
pub(crate) struct WildcardFilters<T> {
    root: Node<T>,
}

#[derive(Debug)]
struct Node<T> {
    value: Option<T>,
    /// Child nodes by level. `+` and `#` are ordinary levels: no topic name contains them.
    children: HashMap<Box<str>, Node<T>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node { value: None, children: HashMap::new() }
    }
}

impl<T> Default for WildcardFilters<T> {
    fn default() -> Self {
        WildcardFilters { root: Node::default() }
    }
}

impl<T> WildcardFilters<T> {
    /// Inserts a filter or replaces its value.
    pub(crate) fn insert(&mut self, filter: &str, value: T) {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        node.value = Some(value);
    }

    /// Whether there is no filter.
    pub(crate) fn is_empty(&self) -> bool {
        self.root.children.is_empty()
    }

    /// Removes a filter.
    pub(crate) fn remove(&mut self, filter: &str) {
        self.root.remove(&mut filter.split('/'));
    }

    /// Calls `found` with the value of each filter that matches a topic name (section 4.7).
    pub(crate) fn matching<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a T)) {
        // A wildcard at the first level does not match `$…` [MQTT-4.7.2-1].
        let mut skip_wildcards = topic.starts_with('$');
        let (mut nodes, mut next) = (vec![&self.root], Vec::new());
        for level in topic.split('/') {
            for node in nodes.drain(..) {
                if !skip_wildcards {
                    node.children.get("#").into_iter().flat_map(|hash| &hash.value).for_each(&mut found);
                    next.extend(node.children.get("+"));
                }
                next.extend(node.children.get(level));
            }
            std::mem::swap(&mut nodes, &mut next);
            skip_wildcards = false;
        }
        for node in nodes {
            node.value.iter().for_each(&mut found);
            // `#` matches the parent level too [MQTT-4.7.1-2 of 3.1.1].
            node.children.get("#").into_iter().flat_map(|hash| &hash.value).for_each(&mut found);
        }
    }
}

impl<T> Node<T> {
    fn remove(&mut self, levels: &mut std::str::Split<'_, char>) {
        let Some(level) = levels.next() else {
            self.value = None;
            return;
        };
        let Some(node) = self.children.get_mut(level) else { return };
        // The depth is bounded by `topic_levels_max`.
        node.remove(levels);
        if node.value.is_none() && node.children.is_empty() {
            self.children.remove(level);
        }
    }
}
