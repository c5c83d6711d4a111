//! Work in slices that others of its kind wait for: however many begin together, one runs at a time, so that what they lock is
//! free after each slice.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Blocking;

/// Works of one kind. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct OneByOne(Arc<Mutex<Waiting>>);

/// Does a slice of a work. Whether another one follows.
type Slice = Box<dyn FnMut() -> bool + Send>;

#[derive(Default)]
struct Waiting {
    works: VecDeque<Slice>,
    /// One runs, and the next of them after it.
    is_running: bool,
}

/// Says that nothing runs, when a slice panics.
struct Stops<'a>(&'a Mutex<Waiting>);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.lock().is_running = false;
    }
}

impl OneByOne {
    /// Runs a work where blocking is allowed, after those before it; see [`Blocking::spawn_slices`].
    pub(crate) fn spawn(&self, blocking: &Blocking, work: impl FnMut() -> bool + Send + 'static) {
        {
            let mut waiting = self.0.lock();
            waiting.works.push_back(Box::new(work));
            if std::mem::replace(&mut waiting.is_running, true) {
                return;
            }
        }
        let works = self.clone();
        let mut current = None;
        blocking.spawn_slices(move || works.slice(&mut current));
    }

    /// Does the next slice. Whether more may follow.
    fn slice(&self, current: &mut Option<Slice>) -> bool {
        // A slice that panics ends its own work: the next one that is spawned begins with those that wait.
        let stops = Stops(&self.0);
        let has_more = current.as_mut().is_some_and(|work| work());
        std::mem::forget(stops);
        if has_more {
            return true;
        }
        let mut waiting = self.0.lock();
        *current = waiting.works.pop_front();
        waiting.is_running = current.is_some();
        waiting.is_running
    }
}
