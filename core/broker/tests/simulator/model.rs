//! What the broker promises about each copy of a message, as plain data: where it is, who holds it, how often it was
//! delivered.
//!
//! A place is a queue, an inbox, or a partition of a named subscription. After a crash exactly those changes hold whose
//! entries the log still has. Only acknowledgements are gathered, into an entry behind those of the same group: what became of
//! them is certain once their position was seen to be committed.

use std::collections::BTreeMap;

/// A message's number, which is its value: in the order in which messages were published.
pub(crate) type Number = u64;

/// Time that a deadline may be off.
const SLACK_MS: i64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It waits or is with a consumer.
    There,
    /// Removed by an entry that ends at this position. `is_whole`: by an entry of its own.
    Removed { lsn: u64, is_whole: bool },
    /// There, or removed: a crash left that open.
    Unsure,
    /// It was seen elsewhere, or was removed before a start: never again.
    Gone,
}

#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) lsn: u64,
    pub(crate) fate: Fate,
    pub(crate) holder: Option<u64>,
    /// By the broker's steady time.
    pub(crate) published_ms: i64,
    /// Its own time to live.
    pub(crate) ttl_ms: Option<i64>,
    pub(crate) is_rejected: bool,
    /// It was rejected in this process.
    pub(crate) is_dying: bool,
    pub(crate) key: u64,
    pub(crate) offset: Option<u64>,
    /// The delivery count that must come next, where that is known.
    expect: Option<u32>,
    /// Positions of the log from which on each delivery is counted.
    counted: Vec<u64>,
    pub(crate) returned: u32,
}

impl Copy {
    pub(crate) fn new(lsn: u64, published_ms: i64, key: u64) -> Copy {
        Copy {
            lsn,
            fate: Fate::There,
            holder: None,
            published_ms,
            ttl_ms: None,
            is_rejected: false,
            is_dying: false,
            key,
            offset: None,
            expect: Some(0),
            counted: Vec::new(),
            returned: 0,
        }
    }

    /// Whether its time to live may be over: its place's, or its own.
    fn may_have_expired(&self, terms: &Terms, now: &Now) -> bool {
        let of_both = [terms.ttl_ms, self.ttl_ms].into_iter().flatten();
        of_both.min().is_some_and(|ttl_ms| now.may_have_passed(self.published_ms, ttl_ms))
    }

    /// The greatest delivery count that it can have.
    fn count_max(&self, lives: u32) -> u32 {
        self.expect.unwrap_or(self.returned + lives)
    }
}

/// What a place promises.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) is_durable: bool,
    /// Delivered in the order of publishing.
    pub(crate) is_ordered: bool,
    /// Delivered in order a key, each key to one consumer at a time.
    pub(crate) is_keyed: bool,
    /// Delivery counts are kept.
    pub(crate) has_counts: bool,
    pub(crate) has_single_active: bool,
    /// What is dropped appears among the dead letters.
    pub(crate) has_dead_letters: bool,
    pub(crate) ttl_ms: Option<i64>,
    pub(crate) messages_max: Option<u64>,
    pub(crate) deliveries_max: Option<u32>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) terms: Terms,
    pub(crate) copies: BTreeMap<Number, Copy>,
}

/// The present, as the checks need it.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    /// The broker's steady time at most.
    pub(crate) steady_max_ms: i64,
    pub(crate) committed: u64,
    pub(crate) submitted: u64,
    pub(crate) lives: u32,
}

impl Now {
    /// Whether so much time may have passed since then for the broker.
    pub(crate) fn may_have_passed(&self, since_ms: i64, duration_ms: i64) -> bool {
        self.steady_max_ms - since_ms + SLACK_MS >= duration_ms
    }
}

impl Place {
    pub(crate) fn new(name: &str, terms: Terms) -> Place {
        Place { name: name.to_owned(), terms, copies: BTreeMap::new() }
    }

    fn may_be_dropped(&self, copy: &Copy, now: &Now) -> bool {
        let terms = &self.terms;
        copy.is_rejected
            || terms.messages_max.is_some()
            || copy.may_have_expired(terms, now)
            || terms.deliveries_max.is_some_and(|max| copy.count_max(now.lives) > max)
    }

    /// A consumer was given a message.
    pub(crate) fn deliver(&mut self, number: Number, offset: u64, consumer: u64, count: u32, now: &Now) {
        let (name, terms) = (self.name.clone(), self.terms);
        let copy = self.copies.get(&number).unwrap_or_else(|| panic!("{name}: {number} is not there"));
        assert!(copy.lsn <= now.committed, "{name}: {number} is delivered before it is committed");
        assert_eq!(copy.holder, None, "{name}: {number} is given to {consumer} while another holds it");
        assert!(
            matches!(copy.fate, Fate::There | Fate::Unsure),
            "{name}: {number} is delivered again: {:?}",
            copy.fate
        );
        assert!(!copy.is_dying, "{name}: {number} is delivered after it was rejected");
        assert!(copy.offset.is_none_or(|known| known == offset), "{name}: {number} is at {offset}");
        if terms.has_single_active {
            let other = self.copies.values().find_map(|copy| copy.holder.filter(|it| *it != consumer));
            assert_eq!(other, None, "{name}: two consumers are active");
        }
        if terms.is_keyed {
            let same_key = self.copies.values().filter(|it| it.key == copy.key);
            let other = same_key.filter_map(|it| it.holder).find(|holder| *holder != consumer);
            assert_eq!(other, None, "{name}: two consumers have the key of {number}");
        }
        if terms.is_ordered || terms.is_keyed {
            let passed_over = self.copies.range(..number).find(|(_, it)| {
                it.fate == Fate::There
                    && it.holder.is_none()
                    && it.lsn <= now.committed
                    && (terms.is_ordered || it.key == copy.key)
                    && !self.may_be_dropped(it, now)
            });
            let passed_over = passed_over.map(|(passed_over, _)| passed_over);
            assert_eq!(passed_over, None, "{name}: {number} is delivered before an older one");
        }
        let copy = self.copies.get_mut(&number).unwrap();
        if terms.has_counts {
            let least = copy.counted.len() as u32;
            match copy.expect {
                Some(expected) => assert_eq!(count, expected, "{name}: the delivery count of {number}"),
                None => assert!(
                    (least..=copy.returned + now.lives).contains(&count),
                    "{name}: the delivery count of {number} is {count}, {least} are certain, {} returned",
                    copy.returned
                ),
            }
            let max = terms.deliveries_max;
            assert!(max.is_none_or(|max| count <= max), "{name}: {number} is delivered beyond its limit");
        }
        copy.expect = Some(count);
        copy.fate = Fate::There;
        copy.holder = Some(consumer);
        // Should the process end now, what is with consumers counts as delivered if the log knows of it.
        copy.counted.push(now.submitted);
    }

    /// What was delivered was noted up to here.
    pub(crate) fn noted(&mut self, number: Number, submitted: u64) {
        if let Some(last) = self.copies.get_mut(&number).and_then(|copy| copy.counted.last_mut()) {
            *last = submitted;
        }
    }

    /// A consumer returned a message; that is known to the log from this position on.
    pub(crate) fn give_back(&mut self, number: Number, lsn: u64) {
        let copy = self.copies.get_mut(&number).unwrap();
        copy.holder = None;
        copy.returned += 1;
        copy.expect = copy.expect.map(|count| count + 1);
        *copy.counted.last_mut().unwrap() = lsn;
    }

    /// A message was removed by an entry.
    pub(crate) fn remove(&mut self, number: Number, lsn: u64, is_whole: bool) {
        let copy = self.copies.get_mut(&number).unwrap();
        copy.holder = None;
        copy.fate = Fate::Removed { lsn, is_whole };
    }

    /// What waits was removed, by an entry that ends here: so many messages.
    pub(crate) fn purge(&mut self, removed: u64, lsn: u64) {
        let name = self.name.clone();
        let (mut certain, mut open) = (0, 0);
        for copy in self.copies.values_mut().filter(|copy| copy.holder.is_none()) {
            // What a consumer left may be returned by work that comes later.
            let is_returning = copy.counted.last() == Some(&u64::MAX);
            let is_open = is_returning || copy.fate == Fate::Unsure;
            match copy.fate {
                Fate::There | Fate::Unsure if is_open => {
                    open += 1;
                    copy.fate = Fate::Unsure;
                }
                Fate::There => {
                    certain += 1;
                    copy.fate = Fate::Removed { lsn, is_whole: false };
                }
                _ => {}
            }
        }
        assert!(
            (certain..=certain + open).contains(&removed),
            "{name}: {removed} purged of {certain} to {open} more"
        );
    }

    /// Everything was removed, at the latest by the entry that ends here.
    pub(crate) fn remove_all(&mut self, lsn: u64) {
        for copy in self.copies.values_mut().filter(|copy| matches!(copy.fate, Fate::There | Fate::Unsure)) {
            copy.holder = None;
            copy.fate = Fate::Removed { lsn, is_whole: false };
        }
    }

    /// A message was seen among the dead letters, for a reason.
    pub(crate) fn died(&mut self, number: Number, reason: &str, now: &Now) {
        let name = self.name.clone();
        let copy =
            self.copies.get(&number).unwrap_or_else(|| panic!("{name}: {number} died and was not there"));
        assert_eq!(copy.holder, None, "{name}: {number} died while a consumer held it");
        assert!(
            matches!(copy.fate, Fate::There | Fate::Unsure),
            "{name}: {number} died, and before: {:?}",
            copy.fate
        );
        let terms = &self.terms;
        let is_due = match reason {
            "expired" => copy.may_have_expired(terms, now),
            "rejected" => copy.is_rejected,
            "maxlen" => terms.messages_max.is_some(),
            "delivery_limit" => terms.deliveries_max.is_some_and(|max| copy.count_max(now.lives) > max),
            _ => false,
        };
        assert!(is_due, "{name}: {number} died of '{reason}': {copy:?}");
        self.copies.get_mut(&number).unwrap().fate = Fate::Gone;
    }

    /// The process ended, and the log ends at `end`; up to `promised` it was seen to be committed.
    pub(crate) fn crash(&mut self, end: u64, promised: u64) {
        if !self.terms.is_durable {
            self.copies.clear();
        }
        self.copies.retain(|_, copy| copy.lsn <= end);
        for copy in self.copies.values_mut() {
            copy.counted.retain(|lsn| *lsn <= end);
            copy.fate = match copy.fate {
                Fate::Removed { lsn, is_whole: true } if lsn <= end => Fate::Gone,
                Fate::Removed { is_whole: true, .. } => Fate::There,
                Fate::Removed { lsn, .. } if lsn <= promised => Fate::Gone,
                Fate::Removed { .. } => {
                    // That nothing was with consumers any more may be in the log, without the acknowledgement.
                    copy.counted.clear();
                    Fate::Unsure
                }
                other => other,
            };
            copy.returned += u32::from(copy.holder.take().is_some());
            copy.expect = None;
            copy.is_dying = false;
        }
    }

    /// Messages that must still be delivered.
    pub(crate) fn left(&self) -> Vec<Number> {
        let there = self.copies.iter().filter(|(_, copy)| copy.fate == Fate::There);
        there.map(|(number, _)| *number).collect()
    }
}

/// A value with its history, of which a crash removes the end.
#[derive(Clone, Debug)]
pub(crate) struct Versions<T>(Vec<(u64, T)>);

impl<T: Clone + PartialEq + std::fmt::Debug> Versions<T> {
    pub(crate) fn new(first: T) -> Versions<T> {
        Versions(vec![(0, first)])
    }

    pub(crate) fn set(&mut self, lsn: u64, value: T) {
        self.0.push((lsn, value));
    }

    pub(crate) fn get(&self) -> &T {
        &self.0.last().unwrap().1
    }

    pub(crate) fn crash(&mut self, end: u64) {
        self.0.retain(|(lsn, _)| *lsn <= end);
    }
}
