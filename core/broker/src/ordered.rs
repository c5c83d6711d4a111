//! Ordered: an index of shared objects by their names, for lists that are read a part at a time.
//!
//! The objects are in chunks of bounded size, so that a change moves some kilobytes at most and the object at any place is
//! found without visiting those before it. An entry is one pointer. A reader holds the lock for one part only, so a change
//! never waits for a whole list.

use std::sync::Arc;

use parking_lot::RwLock;

/// Objects of the largest chunk; a larger one is divided.
const CHUNK_MAX: usize = 1024;

/// Two neighbouring chunks that have no more objects together are merged.
const MERGED_MAX: usize = CHUNK_MAX / 2;

/// Something that has a name which never changes.
pub(crate) trait Named {
    /// Its name.
    fn name(&self) -> &str;
}

/// The direction in which a list is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// From the first name on.
    #[default]
    Ascending,
    /// From the last name back.
    Descending,
}

/// Objects in the order of the bytes of their names, each name once.
pub(crate) struct Ordered<T>(RwLock<Chunks<T>>);

/// The chunks, none of which is empty.
struct Chunks<T>(Vec<Vec<Arc<T>>>);

/// Where a name is, or would be: its chunk, and its place there.
struct Place {
    chunk: usize,
    at: usize,
    is_present: bool,
}

impl<T: Named> Chunks<T> {
    fn find(&self, name: &str) -> Place {
        let behind = self.0.partition_point(|chunk| chunk.first().is_some_and(|first| first.name() <= name));
        let chunk = behind.saturating_sub(1);
        let found = self.0.get(chunk).map(|all| all.binary_search_by(|object| object.name().cmp(name)));
        match found {
            Some(Ok(at)) => Place { chunk, at, is_present: true },
            Some(Err(at)) => Place { chunk, at, is_present: false },
            None => Place { chunk, at: 0, is_present: false },
        }
    }

    fn insert(&mut self, object: Arc<T>) {
        let place = self.find(object.name());
        let Some(chunk) = self.0.get_mut(place.chunk) else {
            return self.0.push(vec![object]);
        };
        match chunk.get_mut(place.at).filter(|_| place.is_present) {
            Some(present) => *present = object,
            None => chunk.insert(place.at, object),
        }
        if chunk.len() > CHUNK_MAX {
            // Names often come in their order: a last chunk stays nearly full.
            let is_last = place.chunk + 1 == self.0.len();
            if let Some(chunk) = self.0.get_mut(place.chunk) {
                let rest = chunk.split_off(if is_last { CHUNK_MAX - CHUNK_MAX / 8 } else { CHUNK_MAX / 2 });
                self.0.insert(place.chunk + 1, rest);
            }
        }
    }

    fn remove(&mut self, place: &Place) {
        let Some(chunk) = self.0.get_mut(place.chunk) else { return };
        chunk.remove(place.at);
        let len = chunk.len();
        if len == 0 {
            self.0.remove(place.chunk);
        } else if self.0.get(place.chunk + 1).is_some_and(|next| next.len() + len <= MERGED_MAX) {
            let next = self.0.remove(place.chunk + 1);
            self.0.get_mut(place.chunk).into_iter().for_each(|chunk| chunk.extend_from_slice(&next));
        }
    }

    fn get(&self, place: &Place) -> Option<&Arc<T>> {
        self.0.get(place.chunk)?.get(place.at).filter(|_| place.is_present)
    }

    /// The objects from a place on, without the first `skip` of them.
    fn ascending(&self, mut chunk: usize, mut at: usize, mut skip: usize) -> impl Iterator<Item = &Arc<T>> {
        while let Some(all) = self.0.get(chunk)
            && all.len() - at <= skip
        {
            skip -= all.len() - at;
            (chunk, at) = (chunk + 1, 0);
        }
        let (first, others) = self.0.get(chunk..).unwrap_or_default().split_first().unzip();
        let first = first.and_then(|all| all.get(at + skip..)).unwrap_or_default();
        first.iter().chain(others.into_iter().flatten().flatten())
    }

    /// The objects before a place, backwards, without the first `skip` of them.
    fn descending(&self, mut chunk: usize, mut at: usize, mut skip: usize) -> impl Iterator<Item = &Arc<T>> {
        while skip >= at {
            skip -= at;
            let Some(before) = chunk.checked_sub(1) else {
                (at, skip) = (0, 0);
                break;
            };
            (chunk, at) = (before, self.0.get(before).map_or(0, Vec::len));
        }
        let last = self.0.get(chunk).and_then(|all| all.get(..at - skip)).unwrap_or_default();
        let others = self.0.get(..chunk).unwrap_or_default();
        last.iter().rev().chain(others.iter().rev().flat_map(|all| all.iter().rev()))
    }
}

impl<T: Named> Ordered<T> {
    /// Adds an object; one of the same name is replaced.
    pub(crate) fn insert(&self, object: &Arc<T>) {
        self.0.write().insert(object.clone());
    }

    /// Removes the object of this name.
    pub(crate) fn remove(&self, name: &str) {
        let mut all = self.0.write();
        let place = all.find(name);
        if place.is_present {
            all.remove(&place);
        }
    }

    /// Removes all objects.
    pub(crate) fn clear(&self) {
        self.0.write().0.clear();
    }

    /// Removes an object, unless another one has its name now.
    pub(crate) fn remove_same(&self, object: &Arc<T>) {
        let mut all = self.0.write();
        let place = all.find(object.name());
        if all.get(&place).is_some_and(|present| Arc::ptr_eq(present, object)) {
            all.remove(&place);
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
        match order {
            Order::Ascending => {
                let place = after.map_or(Place { chunk: 0, at: 0, is_present: false }, |name| all.find(name));
                let at = place.at + usize::from(place.is_present);
                all.ascending(place.chunk, at, skip).take(max).cloned().collect()
            }
            Order::Descending => {
                let end = Place { chunk: all.0.len(), at: 0, is_present: false };
                let place = after.map_or(end, |name| all.find(name));
                all.descending(place.chunk, place.at, skip).take(max).cloned().collect()
            }
        }
    }

    /// All objects.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.0.read().0.iter().flatten().cloned().collect()
    }
}

impl<T> Default for Ordered<T> {
    fn default() -> Ordered<T> {
        Ordered(RwLock::new(Chunks(Vec::new())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    impl Named for String {
        fn name(&self) -> &str {
            self
        }
    }

    fn names(part: &[Arc<String>]) -> Vec<String> {
        part.iter().map(|name| (**name).clone()).collect()
    }

    #[test]
    fn parts_follow_each_other_in_both_orders() {
        let ordered = Ordered::<String>::default();
        for name in ["b", "d", "a", "c", "b"] {
            ordered.insert(&Arc::new(name.to_owned()));
        }
        assert_eq!(names(&ordered.all()), ["a", "b", "c", "d"]);
        assert_eq!(names(&ordered.following(Order::Ascending, None, 0, 2)), ["a", "b"]);
        assert_eq!(names(&ordered.following(Order::Ascending, Some("b"), 0, 9)), ["c", "d"]);
        assert_eq!(names(&ordered.following(Order::Ascending, Some("A"), 0, 1)), ["a"]);
        assert_eq!(names(&ordered.following(Order::Descending, None, 0, 3)), ["d", "c", "b"]);
        assert_eq!(names(&ordered.following(Order::Descending, Some("bb"), 0, 9)), ["b", "a"]);
        assert_eq!(names(&ordered.following(Order::Descending, Some("a"), 0, 9)), Vec::<String>::new());
        ordered.remove("c");
        ordered.remove("x");
        assert_eq!(names(&ordered.following(Order::Ascending, Some("b"), 0, 9)), ["d"]);
    }

    #[test]
    fn an_object_that_replaced_another_stays() {
        let (ordered, first, second) =
            (Ordered::default(), Arc::new("a".to_owned()), Arc::new("a".to_owned()));
        ordered.insert(&first);
        ordered.insert(&second);
        ordered.remove_same(&first);
        assert!(Arc::ptr_eq(&ordered.all()[0], &second));
        ordered.remove_same(&second);
        assert!(ordered.all().is_empty());
    }

    proptest! {
        #[test]
        fn it_is_an_ordered_set(changes in proptest::collection::vec((0u8..4, 0u16..3000), 1..6000)) {
            let (ordered, mut model) = (Ordered::<String>::default(), BTreeSet::new());
            for (what, number) in &changes {
                let name = format!("{number:05}");
                if *what == 0 {
                    ordered.remove(&name);
                    model.remove(&name);
                } else {
                    ordered.insert(&Arc::new(name.clone()));
                    model.insert(name);
                }
            }
            {
                let chunks = ordered.0.read();
                prop_assert!(chunks.0.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.len())));
            }
            let model: Vec<String> = model.into_iter().collect();
            prop_assert_eq!(&names(&ordered.all()), &model);
            for (_, number) in changes.iter().take(50) {
                let (name, skip) = (format!("{number:05}"), usize::from(number % 1500));
                let above = model.iter().filter(|other| **other > name).skip(skip).take(20).cloned();
                prop_assert_eq!(
                    names(&ordered.following(Order::Ascending, Some(&name), skip, 20)), above.collect::<Vec<_>>());
                let below = model.iter().rev().filter(|other| **other < name).skip(skip).take(20).cloned();
                prop_assert_eq!(
                    names(&ordered.following(Order::Descending, Some(&name), skip, 20)), below.collect::<Vec<_>>());
                let from_end = model.iter().rev().skip(skip).take(20).cloned();
                prop_assert_eq!(
                    names(&ordered.following(Order::Descending, None, skip, 20)), from_end.collect::<Vec<_>>());
            }
        }
    }
}
