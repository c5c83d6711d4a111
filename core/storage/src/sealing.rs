//! The queue of closed segments between the writer, which closes them, and maintenance, which seals them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::read::segments::Segment;

#[derive(Default)]
pub(crate) struct SealQueue {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    segments: Vec<Arc<Segment>>,
    is_closing: bool,
}

impl SealQueue {
    /// Adds segments that got their last entry.
    pub(crate) fn push(&self, segments: impl IntoIterator<Item = Arc<Segment>>) {
        self.state.lock().segments.extend(segments);
        self.ready.notify_one();
    }

    pub(crate) fn first(&self) -> Option<Arc<Segment>> {
        self.state.lock().segments.first().cloned()
    }

    pub(crate) fn remove(&self, segment: &Segment) {
        self.state.lock().segments.retain(|other| other.id != segment.id);
    }

    /// Wakes the maintenance thread for other work.
    pub(crate) fn wake(&self) {
        self.ready.notify_one();
    }

    /// Ends the maintenance thread.
    pub(crate) fn close(&self) {
        self.state.lock().is_closing = true;
        self.ready.notify_all();
    }

    /// Waits for a segment that may be sealed or a wake-up, at most for `pause`. Returns false when the queue was closed.
    pub(crate) fn wait(&self, pause: Duration, may_seal: impl Fn() -> bool) -> bool {
        let mut state = self.state.lock();
        if (state.segments.is_empty() || !may_seal()) && !state.is_closing {
            self.ready.wait_for(&mut state, pause);
        }
        !state.is_closing
    }
}
