//! Where work that may block runs: on the runtime's threads for it, or in a queue that a simulation runs in its own order.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Work that may block.
pub type Work = Box<dyn FnOnce() + Send>;

/// Where work that may block runs. The default: on the threads that the tokio runtime keeps for it.
#[derive(Clone, Default)]
pub struct Blocking(Option<Simulated>);

#[derive(Clone)]
struct Simulated {
    take: Arc<dyn Fn(Work) + Send + Sync>,
    at_once_max: usize,
}

/// The work panicked, or was dropped before it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work did not end")]
pub(crate) struct Lost;

impl Blocking {
    /// Work is handed to `take`, which runs it later. Of work that is done at once while it is little, no more than
    /// `at_once_max` counts as little. For simulations.
    pub fn handed_to(at_once_max: usize, take: impl Fn(Work) + Send + Sync + 'static) -> Blocking {
        Blocking(Some(Simulated { take: Arc::new(take), at_once_max }))
    }

    /// Runs work. Without a simulation it needs a tokio runtime around it.
    pub(crate) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        match &self.0 {
            Some(simulated) => (simulated.take)(Box::new(work)),
            None => drop(tokio::task::spawn_blocking(work)),
        }
    }

    /// Runs work at once if there is little of it or no other place to run it, else where blocking is allowed.
    pub(crate) fn spawn_if_many(
        &self,
        count: usize,
        at_once_max: usize,
        work: impl FnOnce() + Send + 'static,
    ) {
        match self.has_place() && !self.is_little(count, at_once_max) {
            true => self.spawn(work),
            false => work(),
        }
    }

    /// Whether work of this size is done at once.
    pub(crate) fn is_little(&self, count: usize, at_once_max: usize) -> bool {
        count <= self.0.as_ref().map_or(at_once_max, |it| it.at_once_max.min(at_once_max))
    }

    /// Runs slices of work, each by itself and one after the other, until one says that none follows. Without another place to run
    /// them, all at once.
    pub(crate) fn spawn_slices(&self, mut slice: impl FnMut() -> bool + Send + 'static) {
        if !self.has_place() {
            while slice() {}
            return;
        }
        let blocking = self.clone();
        self.spawn(move || {
            if slice() {
                blocking.spawn_slices(slice);
            }
        });
    }

    fn has_place(&self) -> bool {
        self.0.is_some() || Handle::try_current().is_ok()
    }

    /// Runs work and waits for its end.
    pub(crate) async fn run(&self, work: impl FnOnce() + Send + 'static) -> Result<(), Lost> {
        let (done, ended) = oneshot::channel();
        self.spawn(move || {
            work();
            // Nobody waits any more.
            let _ = done.send(());
        });
        ended.await.map_err(|_| Lost)
    }
}

impl std::fmt::Debug for Blocking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocking").field("is_simulated", &self.0.is_some()).finish()
    }
}
