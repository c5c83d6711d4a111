//! The unacked deliveries of a channel, in the order of their delivery tags.
//!
//! Delivery tags only grow, so deliveries are found by bisection. Acknowledging out of order leaves gaps, which are
//! closed when they are half of the entries. Every operation is amortised O(1) or O(log n) and does not allocate in the
//! steady state; `multiple` costs as much as it acknowledges.

use std::collections::VecDeque;

use inver_broker::DeliveryId;

use crate::error::Refusal;

/// An unacked delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnackedDelivery {
    /// The delivery tag.
    pub(super) tag: u64,
    /// The slot of its consumer.
    pub(super) consumer: u32,
    /// The subscription's id of the delivery.
    pub(super) id: DeliveryId,
}

/// The unacked deliveries of a channel.
#[derive(Debug, Default)]
pub(super) struct UnackedDeliveries {
    entries: VecDeque<(UnackedDelivery, bool)>,
    gaps: usize,
}

/// The least number of gaps that are closed.
const GAPS_MIN: usize = 64;

impl UnackedDeliveries {
    /// Adds a delivery. Its tag must be greater than all before.
    pub(super) fn push(&mut self, delivery: UnackedDelivery) {
        debug_assert!(self.entries.back().is_none_or(|(last, _)| last.tag < delivery.tag));
        self.entries.push_back((delivery, true));
    }

    /// The number of unacked deliveries.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.gaps
    }

    /// Removes the delivery of this tag, if it is unacked.
    pub(super) fn take(&mut self, tag: u64) -> Option<UnackedDelivery> {
        let at = self.entries.partition_point(|(entry, _)| entry.tag < tag);
        match self.entries.get_mut(at) {
            Some((entry, there @ true)) if entry.tag == tag => {
                let entry = *entry;
                *there = false;
                self.gaps += 1;
                self.close_gaps();
                Some(entry)
            }
            _ => None,
        }
    }

    /// Whether the delivery of this tag is unacked.
    pub(super) fn contains(&self, tag: u64) -> bool {
        let at = self.entries.partition_point(|(entry, _)| entry.tag < tag);
        self.entries.get(at).is_some_and(|(entry, there)| *there && entry.tag == tag)
    }

    /// The greatest tag that is unacked; none if there is none.
    pub(super) fn last_tag(&self) -> Option<u64> {
        self.entries.iter().rev().find(|(_, there)| *there).map(|(last, _)| last.tag)
    }

    /// Removes deliveries up to and with this tag, oldest first, at most `max` of them. Whether none are left of those.
    pub(super) fn take_through(
        &mut self,
        tag: u64,
        max: usize,
        mut each: impl FnMut(UnackedDelivery),
    ) -> bool {
        let mut taken = 0;
        while let Some((entry, there)) = self.entries.front() {
            if entry.tag > tag {
                break;
            }
            if !*there {
                self.gaps -= 1;
            } else if taken == max {
                return false;
            } else {
                taken += 1;
                each(*entry);
            }
            self.entries.pop_front();
        }
        self.close_gaps();
        true
    }

    /// Puts back deliveries that were removed before (by a transaction that is rolled back).
    pub(super) fn put_back(&mut self, deliveries: impl IntoIterator<Item = UnackedDelivery>) {
        self.entries.extend(deliveries.into_iter().map(|delivery| (delivery, true)));
        self.entries.retain(|(_, there)| *there);
        self.gaps = 0;
        self.entries.make_contiguous().sort_unstable_by_key(|(entry, _)| entry.tag);
    }

    fn close_gaps(&mut self) {
        while let Some((_, false)) = self.entries.front() {
            self.entries.pop_front();
            self.gaps -= 1;
        }
        if self.gaps > GAPS_MIN && self.gaps * 2 > self.entries.len() {
            self.entries.retain(|(_, there)| *there);
            self.gaps = 0;
        }
        if self.entries.is_empty() && self.entries.capacity() > 4096 {
            self.entries.shrink_to(64);
        }
    }
}

/// The disposition of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disposition {
    /// Acknowledged.
    Ack,
    /// Requeued.
    Requeue,
    /// Rejected: dead-lettered or dropped.
    Reject,
}

/// Groups deliveries by consumer, in order.
pub(super) fn by_consumer(taken: &[UnackedDelivery]) -> Vec<(u32, Vec<DeliveryId>)> {
    let mut groups: Vec<(u32, Vec<DeliveryId>)> = Vec::new();
    for delivery in taken {
        match groups.iter_mut().find(|(slot, _)| *slot == delivery.consumer) {
            Some((_, ids)) => ids.push(delivery.id),
            None => groups.push((delivery.consumer, vec![delivery.id])),
        }
    }
    groups
}

pub(super) fn unknown_tag(tag: u64) -> Refusal {
    Refusal::precondition_failed(format_args!("unknown delivery tag {tag}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn unacked(tag: u64) -> UnackedDelivery {
        UnackedDelivery { tag, consumer: (tag % 3) as u32, id: DeliveryId { partition: 0, offset: tag * 7 } }
    }

    proptest! {
        #[test]
        fn unacked_deliveries_are_an_ordered_map(steps in proptest::collection::vec((0u8..8, 0u64..400), 0..600)) {
            let (mut deliveries, mut model, mut next) = (UnackedDeliveries::default(), BTreeMap::new(), 1u64);
            let mut taken = Vec::new();
            for (what, n) in steps {
                let tag = next.saturating_sub(n % 50);
                match what {
                    0..=3 => {
                        next += 1 + n % 3;
                        deliveries.push(unacked(next));
                        model.insert(next, unacked(next));
                    }
                    4 | 5 => {
                        prop_assert_eq!(deliveries.contains(tag), model.contains_key(&tag));
                        let out = deliveries.take(tag);
                        prop_assert_eq!(out, model.remove(&tag));
                        taken.extend(out);
                    }
                    6 => {
                        let mut out = Vec::new();
                        let max = 1 + n as usize % 7;
                        while !deliveries.take_through(tag, max, |entry| out.push(entry)) {
                            prop_assert_eq!(out.len() % max, 0);
                        }
                        let rest = model.split_off(&(tag + 1));
                        prop_assert_eq!(out, std::mem::replace(&mut model, rest).into_values().collect::<Vec<_>>());
                    }
                    _ => {
                        model.extend(taken.iter().map(|entry: &UnackedDelivery| (entry.tag, *entry)));
                        deliveries.put_back(taken.drain(..));
                    }
                }
                prop_assert_eq!(deliveries.len(), model.len());
            }
            let mut out = Vec::new();
            prop_assert_eq!(deliveries.last_tag(), model.keys().next_back().copied());
            deliveries.take_through(u64::MAX, usize::MAX, |entry| out.push(entry));
            prop_assert_eq!(out, model.into_values().collect::<Vec<_>>());
            prop_assert_eq!(deliveries.len(), 0);
        }
    }

    #[test]
    fn an_old_unacked_delivery_does_not_retain_the_memory_of_later_ones() {
        let mut deliveries = UnackedDeliveries::default();
        deliveries.push(unacked(1));
        for tag in 2..100_000 {
            deliveries.push(unacked(tag));
            deliveries.take(tag);
        }
        assert_eq!(deliveries.len(), 1);
        assert!(deliveries.entries.len() < 200);
    }
}
