//! Bags: values without an order, found by a hash of their identity. Mostly a bag has one value, and sometimes a hundred
//! thousand.
//!
//! One value takes a single allocation of its size; from the second on a hash table makes finding, adding and removing
//! independent of the number of values.

use hashbrown::HashTable;
use hashbrown::hash_table;
use smallvec::SmallVec;

/// A value that a [`Bag`] finds by its hash.
pub(crate) trait Hashed {
    /// Equal for equal values, and well mixed: mostly different for others of the same bag, in all bits.
    fn hash(&self) -> u64;
}

/// A bag of values; equal values may be in it more than once.
#[derive(Debug, Default)]
pub(crate) enum Bag<T> {
    #[default]
    Empty,
    One(Box<T>),
    Many(Box<HashTable<T>>),
}

/// The values of a bag.
pub(crate) enum Iter<'a, T> {
    One(std::option::IntoIter<&'a T>),
    Many(hash_table::Iter<'a, T>),
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        match self {
            Iter::One(one) => one.next(),
            Iter::Many(many) => many.next(),
        }
    }
}

impl<T> Bag<T> {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Bag::Empty)
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Bag::Empty => 0,
            Bag::One(_) => 1,
            Bag::Many(many) => many.len(),
        }
    }

    pub(crate) fn iter(&self) -> Iter<'_, T> {
        match self {
            Bag::Empty => Iter::One(None.into_iter()),
            Bag::One(one) => Iter::One(Some(&**one).into_iter()),
            Bag::Many(many) => Iter::Many(many.iter()),
        }
    }
}

impl<T: Hashed> Bag<T> {
    pub(crate) fn insert(&mut self, value: T) {
        *self = match std::mem::take(self) {
            Bag::Empty => Bag::One(Box::new(value)),
            Bag::One(one) => {
                let mut many = HashTable::with_capacity(2);
                many.insert_unique(one.hash(), *one, T::hash);
                many.insert_unique(value.hash(), value, T::hash);
                Bag::Many(Box::new(many))
            }
            Bag::Many(mut many) => {
                many.insert_unique(value.hash(), value, T::hash);
                Bag::Many(many)
            }
        };
    }

    /// A value of this hash that `is_it` accepts.
    pub(crate) fn find_mut(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&mut T> {
        match self {
            Bag::Empty => None,
            Bag::One(one) => is_it(one).then_some(&mut **one),
            Bag::Many(many) => many.find_mut(hash, is_it),
        }
    }

    /// Removes the values of this hash that `remove` selects.
    pub(crate) fn remove(&mut self, hash: u64, mut remove: impl FnMut(&T) -> bool) -> SmallVec<[T; 1]> {
        let mut removed = SmallVec::new();
        *self = match std::mem::take(self) {
            Bag::One(one) if remove(&one) => {
                removed.push(*one);
                Bag::Empty
            }
            Bag::Many(mut many) => {
                while let Ok(entry) = many.find_entry(hash, &mut remove) {
                    removed.push(entry.remove().0);
                }
                match many.len() {
                    0 => Bag::Empty,
                    1 => many.drain().next().map_or(Bag::Empty, |last| Bag::One(Box::new(last))),
                    _ => Bag::Many(many),
                }
            }
            unchanged => unchanged,
        };
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;
    use proptest::prelude::*;
    use rustc_hash::FxBuildHasher;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Numbered(u64);

    impl Hashed for Numbered {
        /// Two of three hundred have the same.
        fn hash(&self) -> u64 {
            self.0 % 100
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(acts in prop::collection::vec((any::<bool>(), 0..300u64), 0..300)) {
            let (mut bag, mut plain) = (Bag::default(), Vec::new());
            for (adds, number) in acts {
                let value = Numbered(number);
                let present = bag.find_mut(value.hash(), |v| *v == value).is_some();
                prop_assert_eq!(present, plain.contains(&number));
                if adds {
                    bag.insert(value);
                    plain.push(number);
                } else {
                    let before = plain.len();
                    plain.retain(|n| *n != number);
                    let taken = bag.remove(value.hash(), |v| *v == value);
                    prop_assert_eq!(taken.len(), before - plain.len());
                }
                let mut all: Vec<u64> = bag.iter().map(|v| v.0).collect();
                all.sort_unstable();
                plain.sort_unstable();
                prop_assert_eq!(&all, &plain);
                prop_assert_eq!(bag.is_empty(), plain.is_empty());
            }
        }
    }

    #[test]
    fn the_number_of_other_values_costs_nothing() {
        const MANY: u64 = 10_000;
        struct Lone(u64);
        impl Hashed for Lone {
            fn hash(&self) -> u64 {
                FxBuildHasher.hash_one(self.0)
            }
        }
        let mut bag = Bag::default();
        let compared = std::cell::Cell::new(0);
        let is = |n: u64| {
            let compared = &compared;
            move |v: &Lone| {
                compared.set(compared.get() + 1);
                v.0 == n
            }
        };
        let hash = |n: u64| Lone(n).hash();
        for n in 0..MANY {
            assert!(bag.find_mut(hash(n), is(n)).is_none());
            bag.insert(Lone(n));
        }
        for n in 0..MANY {
            assert_eq!(bag.remove(hash(n), is(n)).len(), 1);
        }
        assert!(bag.is_empty());
        assert!(compared.get() <= MANY + MANY / 10, "{}", compared.get());
        // Most bags have one value or none.
        assert!(size_of::<Bag<Lone>>() <= 2 * size_of::<usize>());
    }
}
