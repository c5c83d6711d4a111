//! Acknowledged offsets: everything below a position, and ranges beyond it.
//!
//! The number of ranges has no limit, so that none is lost: memory grows with the unacknowledged gaps only.

use std::collections::BTreeMap;

/// A cumulative position and disjoint, non-adjacent ranges beyond it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AckedRanges {
    position: u64,
    /// Start → end (exclusive); every start is greater than the position.
    above: BTreeMap<u64, u64>,
}

impl AckedRanges {
    pub(crate) fn at(position: u64) -> Self {
        Self { position, above: BTreeMap::new() }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        offset < self.position
            || self.above.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
    }

    pub(crate) fn above(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.above.iter().map(|(start, end)| (*start, *end))
    }

    /// Adds a range. Returns whether any offset of it was new.
    pub(crate) fn insert(&mut self, start: u64, end: u64) -> bool {
        let start = start.max(self.position);
        if start >= end {
            return false;
        }
        if start == self.position {
            self.position = end;
            self.merge_reached();
            return true;
        }
        let (mut start, mut end) = (start, end);
        if let Some((before, before_end)) = self.above.range_mut(..=start).next_back() {
            if *before_end >= end {
                return false;
            }
            if *before_end >= start {
                start = *before;
            }
        }
        // Merge ranges that the new one covers or touches.
        while let Some((next, next_end)) = self.above.range(start..=end).next() {
            let (next, next_end) = (*next, *next_end);
            end = end.max(next_end);
            self.above.remove(&next);
        }
        self.above.insert(start, end);
        true
    }

    /// Advances the position over adjacent ranges.
    fn merge_reached(&mut self) {
        while let Some(first) = self.above.first_entry() {
            if *first.key() > self.position {
                break;
            }
            self.position = self.position.max(*first.get());
            first.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::AckedRanges;

    proptest! {
        #[test]
        fn ranges_behave_like_a_set(acks in proptest::collection::vec((0..200u64, 0..12u64), 0..80)) {
            let mut ranges = AckedRanges::at(5);
            let mut model: BTreeSet<u64> = (0..5).collect();
            for (start, length) in acks {
                let changed = (start..start + length).filter(|offset| model.insert(*offset)).count() > 0;
                prop_assert_eq!(ranges.insert(start, start + length), changed);
                let position = (0..).find(|offset| !model.contains(offset)).unwrap();
                prop_assert_eq!(ranges.position(), position);
                for offset in 0..220 {
                    prop_assert_eq!(ranges.contains(offset), model.contains(&offset));
                }
                let above: Vec<_> = ranges.above().collect();
                prop_assert!(above.iter().all(|(start, end)| start < end && *start > position));
                prop_assert!(above.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
        }
    }
}
