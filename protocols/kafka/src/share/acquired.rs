//! The records of a topic that a member acquired and has not acknowledged, and until when they are its own.

use std::collections::BTreeMap;

use inver_broker::DeliveryId;
use tokio::time::Instant;

use super::message::AcknowledgementBatch;
use crate::codec::error_code::ErrorCode;

/// Kinds of acknowledgements.
mod kind {
    /// The offset has no record.
    pub(super) const GAP: i8 = 0;
    pub(super) const ACCEPT: i8 = 1;
    pub(super) const RELEASE: i8 = 2;
    pub(super) const REJECT: i8 = 3;
    pub(super) const RENEW: i8 = 4;
}

/// Acknowledged records, by what becomes of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) accepted: Vec<DeliveryId>,
    pub(super) released: Vec<DeliveryId>,
    pub(super) rejected: Vec<DeliveryId>,
    pub(super) renewed: Vec<DeliveryId>,
}

/// The records of a topic that a member holds.
#[derive(Debug, Default)]
pub(super) struct Acquired {
    /// Until when each is held.
    until: BTreeMap<DeliveryId, Instant>,
    /// Not later than any of `until`.
    next: Option<Instant>,
}

impl Acquired {
    pub(super) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.until.len()
    }

    /// Whether a record is held.
    pub(super) fn holds(&self, id: DeliveryId) -> bool {
        self.until.contains_key(&id)
    }

    /// Not later than the end of the first hold.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.next.filter(|_| !self.until.is_empty())
    }

    /// A record is held until then.
    pub(super) fn hold(&mut self, id: DeliveryId, until: Instant) {
        self.until.insert(id, until);
        self.next = Some(self.next.map_or(until, |next| next.min(until)));
    }

    /// All of them.
    pub(super) fn into_ids(self) -> Vec<DeliveryId> {
        self.until.into_keys().collect()
    }

    /// Takes out the records whose hold has ended.
    pub(super) fn take_ended(&mut self, now: Instant) -> Vec<DeliveryId> {
        if self.next_end().is_none_or(|next| next > now) {
            return Vec::new();
        }
        let ended = self.until.extract_if(.., |_, until| *until <= now).map(|(id, _)| id).collect();
        self.next = self.until.values().min().copied();
        ended
    }

    /// Takes out what is acknowledged of a partition: all of it, or nothing if the request is wrong or names a record that is
    /// not held. What is renewed stays, until `until`. `renews`: whether records may be renewed.
    pub(super) fn acknowledge(
        &mut self,
        partition: u32,
        batches: &[AcknowledgementBatch],
        renews: bool,
        until: Instant,
    ) -> Result<Acknowledged, ErrorCode> {
        let kinds = kind::GAP..=if renews { kind::RENEW } else { kind::REJECT };
        let mut done = Acknowledged::default();
        let mut after = -1;
        for AcknowledgementBatch { first_offset: first, last_offset: last, acknowledge_types: types } in
            batches
        {
            let count =
                last.checked_sub(*first).and_then(|more| more.checked_add(1)).filter(|count| *count > 0);
            let count = count.and_then(|count| usize::try_from(count).ok());
            let is_valid = *first > after
                && count.is_some_and(|count| types.len() == 1 || types.len() == count)
                && types.iter().all(|kind| kinds.contains(kind));
            let (Some(count), true) = (count, is_valid) else { return Err(ErrorCode::INVALID_REQUEST) };
            after = *last;
            self.sort_out(partition, *first, (count, types), &mut done)?;
        }
        let Acknowledged { accepted, released, rejected, renewed } = &done;
        for id in [accepted, released, rejected].into_iter().flatten() {
            self.until.remove(id);
        }
        renewed.iter().for_each(|id| self.hold(*id, until));
        Ok(done)
    }

    /// Sorts records that follow each other by what becomes of them.
    fn sort_out(
        &self,
        partition: u32,
        first: i64,
        (count, types): (usize, &[i8]),
        done: &mut Acknowledged,
    ) -> Result<(), ErrorCode> {
        let only = if types.len() == 1 { types.first().copied() } else { None };
        let first = u64::try_from(first).map_err(|_| ErrorCode::INVALID_REQUEST)?;
        let id = |offset| DeliveryId { partition, offset };
        let held = self.until.range(id(first)..=id(first + (count as u64 - 1)));
        // A batch names more records than are held only where it is wrong, or where it has gaps.
        let mut matched = 0;
        for (id, _) in held {
            let place = usize::try_from(id.offset - first).unwrap_or(usize::MAX);
            let kind = only.or_else(|| types.get(place).copied()).unwrap_or(kind::GAP);
            matched += 1;
            match kind {
                kind::RELEASE => done.released.push(*id),
                kind::REJECT => done.rejected.push(*id),
                kind::RENEW => done.renewed.push(*id),
                // A record that the client found no place for is done with too.
                kind::ACCEPT | kind::GAP => done.accepted.push(*id),
                _ => return Err(ErrorCode::INVALID_REQUEST),
            }
        }
        let is_gap = |offset: u64, kind: i8| kind == kind::GAP && !self.until.contains_key(&id(offset));
        let gaps = match only {
            Some(kind::GAP) => count - matched,
            Some(_) => 0,
            None => (first..).zip(types).filter(|(offset, kind)| is_gap(*offset, **kind)).count(),
        };
        if matched + gaps == count { Ok(()) } else { Err(ErrorCode::INVALID_RECORD_STATE) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn batch(first_offset: i64, last_offset: i64, acknowledge_types: &[i8]) -> AcknowledgementBatch {
        AcknowledgementBatch { first_offset, last_offset, acknowledge_types: acknowledge_types.to_vec() }
    }

    fn id(offset: u64) -> DeliveryId {
        DeliveryId { partition: 1, offset }
    }

    fn held(offsets: impl IntoIterator<Item = u64>, until: Instant) -> Acquired {
        let mut acquired = Acquired::default();
        offsets.into_iter().for_each(|offset| acquired.hold(id(offset), until));
        acquired
    }

    #[test]
    fn records_are_acknowledged_all_or_none() {
        let now = Instant::now();
        let mut acquired = held([3, 4, 5, 7, 8], now);
        let wrong = [
            (vec![batch(3, 6, &[1])], ErrorCode::INVALID_RECORD_STATE),
            (vec![batch(3, 4, &[1]), batch(4, 5, &[1])], ErrorCode::INVALID_REQUEST),
            (vec![batch(5, 4, &[1])], ErrorCode::INVALID_REQUEST),
            (vec![batch(3, 5, &[1, 1])], ErrorCode::INVALID_REQUEST),
            (vec![batch(3, 5, &[])], ErrorCode::INVALID_REQUEST),
            (vec![batch(3, 5, &[5])], ErrorCode::INVALID_REQUEST),
            (vec![batch(3, 5, &[4])], ErrorCode::INVALID_REQUEST),
            (vec![batch(-1, 5, &[1])], ErrorCode::INVALID_REQUEST),
            (vec![batch(i64::MIN, i64::MAX, &[1])], ErrorCode::INVALID_REQUEST),
            (vec![batch(0, i64::MAX - 1, &[1])], ErrorCode::INVALID_RECORD_STATE),
            (vec![batch(3, 4, &[1]), batch(9, 9, &[1])], ErrorCode::INVALID_RECORD_STATE),
        ];
        for (batches, error) in wrong {
            assert_eq!(acquired.acknowledge(1, &batches, false, now), Err(error), "{batches:?}");
            assert_eq!(acquired.len(), 5);
        }
        assert_eq!(
            acquired.acknowledge(0, &[batch(3, 3, &[1])], false, now),
            Err(ErrorCode::INVALID_RECORD_STATE)
        );
        let batches = [batch(3, 7, &[1, 2, 3, 0, 1]), batch(8, 8, &[2])];
        let done = acquired.acknowledge(1, &batches, false, now).unwrap();
        assert_eq!(
            (done.accepted, done.released, done.rejected),
            (vec![id(3), id(7)], vec![id(4), id(8)], vec![id(5)])
        );
        assert!(acquired.is_empty() && acquired.next_end().is_none());
    }

    #[test]
    fn holds_end_unless_they_are_renewed() {
        let now = Instant::now();
        let later = now + Duration::from_secs(30);
        let mut acquired = held([1, 2, 3], now);
        let done = acquired.acknowledge(1, &[batch(2, 2, &[4])], true, later).unwrap();
        assert_eq!(done.renewed, [id(2)]);
        assert_eq!(acquired.take_ended(now), [id(1), id(3)]);
        assert_eq!((acquired.next_end(), acquired.take_ended(now)), (Some(later), vec![]));
        assert_eq!(acquired.take_ended(later), [id(2)]);
    }
}
