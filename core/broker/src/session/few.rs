//! A map that is mostly small: a sorted list without spare capacity, and a tree beyond [`LIST_MAX`] entries. The first
//! node of a tree has room for eleven entries, which would be most of the memory of a million sessions.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// Entries of a list.
const LIST_MAX: usize = 8;

/// A map that is mostly small.
#[expect(clippy::box_collection, reason = "a session spends no more bytes on a tree than on a list")]
pub(super) enum Few<K, V> {
    List(Box<[(K, V)]>),
    Tree(Box<BTreeMap<K, V>>),
}

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Few::List(Box::default())
    }
}

impl<K: Ord, V> Few<K, V> {
    pub(super) fn len(&self) -> usize {
        match self {
            Few::List(list) => list.len(),
            Few::Tree(tree) => tree.len(),
        }
    }

    pub(super) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        match self {
            Few::List(list) => find(list, key).is_ok(),
            Few::Tree(tree) => tree.contains_key(key),
        }
    }

    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match self {
            Few::List(list) => Some(&list.get(find(list, key).ok()?)?.1),
            Few::Tree(tree) => tree.get(key),
        }
    }

    /// Inserts an entry; the value before.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Few::List(list) = self {
            let at = find(list, &key);
            if let Some(present) = at.ok().and_then(|at| list.get_mut(at)) {
                return Some(std::mem::replace(&mut present.1, value));
            }
            let mut entries = std::mem::take(list).into_vec();
            if let (Err(at), true) = (at, entries.len() < LIST_MAX) {
                entries.reserve_exact(1);
                entries.insert(at, (key, value));
                *list = entries.into_boxed_slice();
                return None;
            }
            *self = Few::Tree(Box::new(entries.into_iter().collect()));
        }
        match self {
            Few::List(_) => None,
            Few::Tree(tree) => tree.insert(key, value),
        }
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self {
            Few::List(list) => {
                let at = find(list, key).ok()?;
                let mut entries = std::mem::take(list).into_vec();
                let (_, value) = entries.remove(at);
                *list = entries.into_boxed_slice();
                Some(value)
            }
            Few::Tree(tree) => {
                let value = tree.remove(key);
                if tree.is_empty() {
                    *self = Few::default();
                }
                value
            }
        }
    }

    /// In the order of the keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (list, tree) = match self {
            Few::List(list) => (Some(list), None),
            Few::Tree(tree) => (None, Some(tree)),
        };
        let list = list.into_iter().flatten().map(|(key, value)| (key, value));
        list.chain(tree.into_iter().flat_map(|tree| tree.iter()))
    }

    /// Its keys in their order.
    pub(super) fn into_keys(self) -> impl Iterator<Item = K> {
        let (list, tree) = match self {
            Few::List(list) => (Some(list), None),
            Few::Tree(tree) => (None, Some(tree)),
        };
        let list = list.into_iter().flatten().map(|(key, _)| key);
        list.chain(tree.into_iter().flat_map(|tree| tree.into_keys()))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }
}

fn find<K: Borrow<Q>, V, Q: Ord + ?Sized>(list: &[(K, V)], key: &Q) -> Result<usize, usize> {
    list.binary_search_by(|(present, _)| present.borrow().cmp(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_map(changes in prop::collection::vec((0u8..16, any::<bool>()), 0..80)) {
            let (mut few, mut model) = (Few::default(), BTreeMap::new());
            for (number, (key, is_in)) in changes.into_iter().enumerate() {
                if is_in {
                    prop_assert_eq!(few.insert(key, number), model.insert(key, number));
                } else {
                    prop_assert_eq!(few.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(few.len(), model.len());
                prop_assert_eq!(few.contains_key(&key), model.contains_key(&key));
                prop_assert!(few.iter().eq(model.iter()) && few.keys().eq(model.keys()));
            }
            prop_assert!(few.into_keys().eq(model.into_keys()));
        }
    }

    #[test]
    fn a_list_has_no_spare_capacity() {
        let mut few = Few::default();
        few.insert(1, ());
        assert!(matches!(&few, Few::List(list) if list.len() == 1));
        few.remove(&1);
        assert!(matches!(&few, Few::List(list) if list.is_empty()));
        assert_eq!(size_of_val(&few), 2 * size_of::<usize>());
        (0..=LIST_MAX).for_each(|key| assert!(few.insert(key, ()).is_none()));
        assert!(matches!(few, Few::Tree(_)));
    }
}
