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
        if current.as_mut().is_some_and(|work| work()) {
            return true;
        }
        let mut waiting = self.0.lock();
        *current = waiting.works.pop_front();
        waiting.is_running = current.is_some();
        waiting.is_running
    }
}
