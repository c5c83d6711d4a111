//! Values without an order, each found by a hash of what makes it itself: mostly there is one, and sometimes there are a
//! hundred thousand. One takes a single allocation of its size; from the second on they have an index, so that finding,
//! adding and taking out cost no walk.

use std::collections::BTreeSet;

use smallvec::SmallVec;

/// A value that a [`Bag`] can find again.
pub(crate) trait Hashed {
    /// Equal for values that are the same; best different for all others of their bag.
    fn hash(&self) -> u64;
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) enum Bag<T> {
    #[default]
    Empty,
    One(Box<T>),
    Many(Box<Many<T>>),
}

#[derive(Debug)]
pub(crate) struct Many<T> {
    values: Vec<T>,
    /// Hash and place.
    index: BTreeSet<(u64, usize)>,
}

impl<T> Bag<T> {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Bag::Empty)
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        match self {
            Bag::Empty => [].iter(),
            Bag::One(one) => std::slice::from_ref(&**one).iter(),
            Bag::Many(many) => many.values.iter(),
        }
    }
}

impl<T: Hashed> Bag<T> {
    pub(crate) fn insert(&mut self, value: T) {
        *self = match std::mem::take(self) {
            Bag::Empty => Bag::One(Box::new(value)),
            Bag::One(one) => {
                let mut many = Many { values: Vec::new(), index: BTreeSet::new() };
                many.push(*one);
                many.push(value);
                Bag::Many(Box::new(many))
            }
            Bag::Many(mut many) => {
                many.push(value);
                Bag::Many(many)
            }
        };
    }

    /// One of this hash that is the one sought.
    pub(crate) fn find_mut(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&mut T> {
        match self {
            Bag::Empty => None,
            Bag::One(one) => is_it(one).then_some(&mut **one),
            Bag::Many(many) => {
                let at = many.places(hash).find(|at| many.values.get(*at).is_some_and(&is_it))?;
                many.values.get_mut(at)
            }
        }
    }

    /// Takes out all of this hash for which `gone` says yes.
    pub(crate) fn remove(&mut self, hash: u64, mut gone: impl FnMut(&T) -> bool) -> SmallVec<[T; 1]> {
        let mut taken = SmallVec::new();
        *self = match std::mem::take(self) {
            Bag::One(one) if gone(&one) => {
                taken.push(*one);
                Bag::Empty
            }
            Bag::Many(mut many) => {
                // From behind: what fills a gap comes from places that were looked at.
                let places: SmallVec<[usize; 2]> = many.places(hash).collect();
                for at in places.into_iter().rev() {
                    if many.values.get(at).is_some_and(&mut gone) {
                        taken.push(many.take(at));
                    }
                }
                match many.values.len() {
                    0 => Bag::Empty,
                    1 => many.values.pop().map_or(Bag::Empty, |last| Bag::One(Box::new(last))),
                    _ => Bag::Many(many),
                }
            }
            as_it_was => as_it_was,
        };
        taken
    }
}

impl<T: Hashed> Many<T> {
    fn places(&self, hash: u64) -> impl Iterator<Item = usize> {
        self.index.range((hash, 0)..=(hash, usize::MAX)).map(|(_, at)| *at)
    }

    fn push(&mut self, value: T) {
        self.index.insert((value.hash(), self.values.len()));
        self.values.push(value);
    }

    /// Takes out the one at a place; the last one takes that.
    fn take(&mut self, at: usize) -> T {
        let last = self.values.len() - 1;
        let taken = self.values.swap_remove(at);
        self.index.remove(&(taken.hash(), at));
        if let Some(moved) = self.values.get(at) {
            self.index.remove(&(moved.hash(), last));
            self.index.insert((moved.hash(), at));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
    fn the_number_of_others_costs_nothing() {
        const MANY: u64 = 10_000;
        struct Lone(u64);
        impl Hashed for Lone {
            fn hash(&self) -> u64 {
                self.0
            }
        }
        let mut bag = Bag::default();
        let looked_at = std::cell::Cell::new(0);
        let is = |n: u64| {
            let looked_at = &looked_at;
            move |v: &Lone| {
                looked_at.set(looked_at.get() + 1);
                v.0 == n
            }
        };
        for n in 0..MANY {
            assert!(bag.find_mut(n, is(n)).is_none());
            bag.insert(Lone(n));
        }
        for n in 0..MANY {
            assert_eq!(bag.remove(n, is(n)).len(), 1);
        }
        assert!(bag.is_empty());
        assert!(looked_at.get() <= MANY + 1, "{}", looked_at.get());
        // What there is very much of: bags of one, and of none.
        assert!(size_of::<Bag<Lone>>() <= 2 * size_of::<usize>());
    }
}
