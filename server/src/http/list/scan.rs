//! Scans: a whole list is read for a page that no index has, by a filter or in the order of a column.
//!
//! A request reads for [`WAIT`] at most. If that does not suffice, its answer is of the part that was read, and the scan goes on
//! on a blocking thread, in slices; a request for the same within [`KEPT`] of its end gets its result. Work is bounded
//! by [`SCANS_MAX`] scans, memory by the items that each keeps.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use inver_broker::{Clock, Order};
use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;

use super::filter::Filter;
use super::{SortKey, Source};

/// Time for which a request reads, or waits for a scan.
const WAIT: Duration = Duration::from_millis(60);
/// How long the result of a scan that took longer is kept.
const KEPT: Duration = Duration::from_secs(5);
/// Scans that go on, and results that are kept.
const SCANS_MAX: usize = 8;
/// Objects read at a time.
const SLICE: usize = 1024;
/// Pause between two slices of a scan that goes on, for the other threads of a small machine.
const PAUSE: Duration = Duration::from_micros(250);

/// What a scan looks for.
pub(super) struct Plan<T> {
    pub(super) filter: Filter,
    pub(super) order: Order,
    /// What to order by; none: the name.
    pub(super) key: Option<fn(&T) -> SortKey>,
    /// Items to keep, the first ones.
    pub(super) kept: usize,
}

/// The first items of a list, as far as it was read.
pub(super) struct Found<T> {
    pub(super) items: Vec<T>,
    /// Objects that match.
    pub(super) total: u64,
    /// Whether the whole list was read.
    pub(super) is_complete: bool,
}

/// The scans that outlived their requests.
pub(in crate::http) struct Scans {
    clock: Clock,
    /// Scans go on as long as this is there.
    all: Arc<Mutex<Vec<Entry>>>,
}

/// A scan of any type.
struct Entry {
    key: String,
    scan: Arc<dyn Any + Send + Sync>,
    /// When it ended; none: it goes on.
    ended: Arc<Mutex<Option<Instant>>>,
}

struct Scan<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    ended: Arc<Mutex<Option<Instant>>>,
}

struct State<T> {
    best: Best<T>,
    total: u64,
    is_complete: bool,
}

enum Best<T> {
    /// In the order in which they are visited.
    First(Vec<T>),
    Heap(BinaryHeap<Ranked<T>>),
}

impl<T: Clone> State<T> {
    fn new(plan: &Plan<T>) -> State<T> {
        let best = match plan.key {
            None => Best::First(Vec::new()),
            Some(_) => Best::Heap(BinaryHeap::new()),
        };
        State { best, total: 0, is_complete: false }
    }

    fn add(&mut self, object: T, plan: &Plan<T>) {
        let place = self.total;
        self.total += 1;
        match (&mut self.best, plan.key) {
            (Best::First(items), _) if items.len() < plan.kept => items.push(object),
            (Best::Heap(heap), Some(key)) => {
                let descending = plan.order == Order::Descending;
                let ranked = Ranked { key: key(&object), place, descending, object };
                if heap.len() < plan.kept {
                    heap.push(ranked);
                } else if let Some(mut last) = heap.peek_mut()
                    && ranked < *last
                {
                    *last = ranked;
                }
            }
            _ => {}
        }
    }

    /// The items from `first` on, at most `size`.
    fn found(&self, first: usize, size: usize) -> Found<T> {
        let items = match &self.best {
            Best::First(items) => items.iter().skip(first).take(size).cloned().collect(),
            Best::Heap(heap) => {
                let mut all: Vec<&Ranked<T>> = heap.iter().collect();
                sorted_part(&mut all, first, size).iter().map(|ranked| ranked.object.clone()).collect()
            }
        };
        Found { items, total: self.total, is_complete: self.is_complete }
    }
}

/// Reads a list slice by slice.
struct Reader<L: Source> {
    list: L,
    plan: Plan<L::Object>,
    place: L::Place,
    slice: Vec<L::Object>,
}

impl<L: Source> Reader<L> {
    /// Reads a slice; true at the end of the list.
    fn step(&mut self, state: &mut State<L::Object>) -> bool {
        // For another order than that of names, the list is read forwards.
        let order = if self.plan.key.is_none() { self.plan.order } else { Order::Ascending };
        let is_last = !self.list.read(order, &mut self.place, SLICE, &mut self.slice);
        for object in self.slice.drain(..) {
            if self.plan.filter.matches(self.list.name(&object)) && self.list.lists(&object) {
                state.add(object, &self.plan);
            }
        }
        if is_last {
            state.is_complete = true;
        }
        is_last
    }
}

impl Scans {
    pub(in crate::http) fn new(clock: Clock) -> Scans {
        Scans { clock, all: Arc::default() }
    }

    /// Reads a list. `key` names the list and the plan among all; none: the scan ends with the request.
    pub(super) fn read<L: Source>(
        &self,
        key: Option<String>,
        list: L,
        plan: Plan<L::Object>,
        (first, size): (usize, usize),
    ) -> Found<L::Object> {
        let until = self.clock.now() + WAIT;
        if let Some(scan) = key.as_deref().and_then(|key| self.find::<L::Object>(key)) {
            let mut state = scan.state.lock();
            while !state.is_complete {
                let left = until.saturating_duration_since(self.clock.now());
                if scan.changed.wait_for(&mut state, left).timed_out() {
                    break;
                }
            }
            return state.found(first, size);
        }
        let mut state = State::new(&plan);
        let mut reader = Reader { list, plan, place: L::Place::default(), slice: Vec::new() };
        loop {
            if reader.step(&mut state) {
                break;
            }
            if key.is_some() && self.clock.now() >= until {
                break;
            }
        }
        let found = state.found(first, size);
        if let Some(key) = key.filter(|_| !state.is_complete) {
            self.go_on(key, reader, state);
        }
        found
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.lock().len()
    }

    fn find<T: Send + 'static>(&self, key: &str) -> Option<Arc<Scan<T>>> {
        let (now, mut all) = (self.clock.now(), self.all.lock());
        let is_kept = |ended: Instant| now.saturating_duration_since(ended) < KEPT;
        all.retain(|entry| entry.ended.lock().is_none_or(is_kept));
        let entry = all.iter().find(|entry| entry.key == key)?;
        entry.scan.clone().downcast().ok()
    }

    /// Lets a scan go on without its request, unless there are too many.
    fn go_on<L: Source>(&self, key: String, mut reader: Reader<L>, state: State<L::Object>) {
        let ended = Arc::<Mutex<Option<Instant>>>::default();
        let scan = Arc::new(Scan { state: Mutex::new(state), changed: Condvar::new(), ended: ended.clone() });
        {
            let mut all = self.all.lock();
            if all.len() >= SCANS_MAX {
                // One that has ended makes room.
                let Some(at) = all.iter().position(|entry| entry.ended.lock().is_some()) else { return };
                all.remove(at);
            }
            all.push(Entry { key, scan: scan.clone(), ended });
        }
        let (clock, all) = (self.clock.clone(), Arc::downgrade(&self.all));
        tokio::task::spawn_blocking(move || {
            while !reader.step(&mut scan.state.lock()) {
                // The server stops.
                if all.strong_count() == 0 {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
            *scan.ended.lock() = Some(clock.now());
            scan.changed.notify_all();
        });
    }
}

/// What is at these places once all are sorted. The others are not sorted: they may be very many.
fn sorted_part<T: Ord>(all: &mut [T], first: usize, size: usize) -> &[T] {
    let Some(last) = all.len().checked_sub(1).filter(|last| first <= *last) else { return &[] };
    let end = first.saturating_add(size).min(all.len());
    all.select_nth_unstable(end.min(last));
    let all = all.get_mut(..end).unwrap_or_default();
    if first > 0 {
        all.select_nth_unstable(first - 1);
    }
    let part = all.get_mut(first..).unwrap_or_default();
    part.sort_unstable();
    part
}

/// An object with what it is ordered by; of equal keys, the one visited first comes first.
struct Ranked<T> {
    key: SortKey,
    place: u64,
    descending: bool,
    object: T,
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = self.key.cmp(&other.key);
        let by_key = if self.descending { by_key.reverse() } else { by_key };
        by_key.then(self.place.cmp(&other.place))
    }
}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Ranked<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_that_of_all_sorted() {
        let numbers: Vec<u64> = (0..500).map(|n| n * 7919 % 211).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        for first in [0, 1, 100, 498, 499, 500, 501, usize::MAX] {
            for size in [0, 1, 2, 100, 499, 500, 501, usize::MAX] {
                let expected: Vec<u64> = sorted.iter().copied().skip(first).take(size).collect();
                assert_eq!(sorted_part(&mut numbers.clone(), first, size), expected, "{first} {size}");
            }
        }
        assert!(sorted_part::<u64>(&mut [], 0, 1).is_empty());
    }
}
