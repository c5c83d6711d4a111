//! Ordered: an index of shared objects by their names, for lists that are read a part at a time.
//!
//! An entry is one pointer. A reader holds the lock for one part only, so a change never waits for a whole list.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

/// Something that has a name which never changes.
pub(crate) trait Named {
    /// Its name.
    fn name(&self) -> &str;
}

/// The direction in which a list is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// From the first name on.
    #[default]
    Ascending,
    /// From the last name back.
    Descending,
}

/// Objects in the order of the bytes of their names, each name once.
pub(crate) struct Ordered<T>(RwLock<BTreeSet<ByName<T>>>);

/// Compared by name.
struct ByName<T>(Arc<T>);

impl<T: Named> Ordered<T> {
    /// Adds an object; one of the same name is replaced.
    pub(crate) fn insert(&self, object: &Arc<T>) {
        self.0.write().replace(ByName(object.clone()));
    }

    /// Removes the object of this name.
    pub(crate) fn remove(&self, name: &str) {
        self.0.write().remove(name);
    }

    /// Removes all objects.
    pub(crate) fn clear(&self) {
        self.0.write().clear();
    }

    /// Removes an object, unless another one has its name now.
    pub(crate) fn remove_same(&self, object: &Arc<T>) {
        let mut all = self.0.write();
        if all.get(object.name()).is_some_and(|present| Arc::ptr_eq(&present.0, object)) {
            all.remove(object.name());
        }
    }

    /// Up to `max` objects that follow the name `after` in this order, without the first `skip` of them; from the
    /// beginning without `after`.
    pub(crate) fn following(
        &self,
        order: Order,
        after: Option<&str>,
        skip: usize,
        max: usize,
    ) -> Vec<Arc<T>> {
        let all = self.0.read();
        let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
        match order {
            Order::Ascending => take(all.range::<str, _>((bound, Bound::Unbounded)).skip(skip), max),
            Order::Descending => take(all.range::<str, _>((Bound::Unbounded, bound)).rev().skip(skip), max),
        }
    }

    /// All objects.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.0.read().iter().map(|by_name| by_name.0.clone()).collect()
    }
}

fn take<'a, T: 'a>(all: impl Iterator<Item = &'a ByName<T>>, max: usize) -> Vec<Arc<T>> {
    all.take(max).map(|by_name| by_name.0.clone()).collect()
}

impl<T> Default for Ordered<T> {
    fn default() -> Ordered<T> {
        Ordered(RwLock::default())
    }
}

impl<T: Named> Borrow<str> for ByName<T> {
    fn borrow(&self) -> &str {
        self.0.name()
    }
}

impl<T: Named> Ord for ByName<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name().cmp(other.0.name())
    }
}

impl<T: Named> PartialOrd for ByName<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Named> PartialEq for ByName<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl<T: Named> Eq for ByName<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for String {
        fn name(&self) -> &str {
            self
        }
    }

    #[test]
    fn parts_follow_each_other_in_both_orders() {
        let ordered = Ordered::<String>::default();
        for name in ["b", "d", "a", "c", "b"] {
            ordered.insert(&Arc::new(name.to_owned()));
        }
        let names = |part: Vec<Arc<String>>| part.iter().map(|name| (**name).clone()).collect::<Vec<_>>();
        assert_eq!(names(ordered.all()), ["a", "b", "c", "d"]);
        assert_eq!(names(ordered.following(Order::Ascending, None, 0, 2)), ["a", "b"]);
        assert_eq!(names(ordered.following(Order::Ascending, Some("b"), 0, 9)), ["c", "d"]);
        assert_eq!(names(ordered.following(Order::Descending, None, 0, 3)), ["d", "c", "b"]);
        assert_eq!(names(ordered.following(Order::Descending, Some("bb"), 0, 9)), ["b", "a"]);
        ordered.remove("c");
        ordered.remove("x");
        assert_eq!(names(ordered.following(Order::Ascending, Some("b"), 0, 9)), ["d"]);
    }
}
