//! Filters with wildcards as a tree of levels: adding, removing and finding cost by the depth of a filter and the
//! wildcards met on the way, not by the number of filters, which a client may drive to the session's bound.

use std::collections::HashMap;

/// A map from filters with wildcards to what hangs on them.
#[derive(Debug)]
pub(crate) struct WildFilters<T> {
    root: Node<T>,
}

#[derive(Debug)]
struct Node<T> {
    value: Option<T>,
    /// By level; `+` and `#` are levels like others, for no topic name holds them.
    below: HashMap<Box<str>, Node<T>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Node { value: None, below: HashMap::new() }
    }
}

impl<T> Default for WildFilters<T> {
    fn default() -> Self {
        WildFilters { root: Node::default() }
    }
}

impl<T> WildFilters<T> {
    /// Hangs a value on a filter in place of what was there.
    pub(crate) fn insert(&mut self, filter: &str, value: T) {
        let mut at = &mut self.root;
        for level in filter.split('/') {
            at = at.below.entry(level.into()).or_default();
        }
        at.value = Some(value);
    }

    /// Takes a filter out.
    pub(crate) fn remove(&mut self, filter: &str) {
        self.root.remove(&mut filter.split('/'));
    }

    /// Calls `found` for what hangs on each filter that matches a topic name (section 4.7), once each.
    pub(crate) fn matching<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a T)) {
        // Wildcards at the first level spare `$…` [MQTT-4.7.2-1].
        let mut spared = topic.starts_with('$');
        let (mut here, mut next) = (vec![&self.root], Vec::new());
        for level in topic.split('/') {
            for node in here.drain(..) {
                if !spared {
                    node.below.get("#").into_iter().flat_map(|many| &many.value).for_each(&mut found);
                    next.extend(node.below.get("+"));
                }
                next.extend(node.below.get(level));
            }
            std::mem::swap(&mut here, &mut next);
            spared = false;
        }
        for node in here {
            node.value.iter().for_each(&mut found);
            // It matches the level above too [MQTT-4.7.1-2 of 3.1.1].
            node.below.get("#").into_iter().flat_map(|many| &many.value).for_each(&mut found);
        }
    }
}

impl<T> Node<T> {
    fn remove(&mut self, levels: &mut std::str::Split<'_, char>) {
        let Some(level) = levels.next() else {
            self.value = None;
            return;
        };
        let Some(node) = self.below.get_mut(level) else { return };
        // As deep as a filter has levels, which are bounded.
        node.remove(levels);
        if node.value.is_none() && node.below.is_empty() {
            self.below.remove(level);
        }
    }
}
