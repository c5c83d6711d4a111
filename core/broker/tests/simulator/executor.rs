//! A deterministic executor: tasks that were woken, and work handed to other threads, run one at a time in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use inver_broker::{Blocking, Work};
use inver_storage::medium::fake::Random;
use parking_lot::Mutex;

/// What is handed over to another thread counts as little up to this number, so that both ways are taken.
const AT_ONCE_MAX: usize = 2;

#[derive(Default)]
pub(crate) struct Executor {
    tasks: BTreeMap<u64, Pin<Box<dyn Future<Output = ()>>>>,
    next: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
    work: Arc<Mutex<Vec<Work>>>,
}

struct Task {
    id: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.ready.lock().insert(self.id);
    }
}

impl Executor {
    pub(crate) fn blocking(&self) -> Blocking {
        let work = self.work.clone();
        Blocking::handed_to(AT_ONCE_MAX, move |it| work.lock().push(it))
    }

    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.next += 1;
        self.tasks.insert(self.next, Box::pin(task));
        self.ready.lock().insert(self.next);
    }

    /// Runs one task that is ready or one piece of work. False if there is none.
    pub(crate) fn step(&mut self, random: &mut Random) -> bool {
        let (ready, work) = (self.ready.lock().len() as u64, self.work.lock().len() as u64);
        if ready + work == 0 {
            return false;
        }
        let at = random.below(ready + work);
        if at >= ready {
            let work = self.work.lock().remove((at - ready) as usize);
            work();
            return true;
        }
        let id = *self.ready.lock().iter().nth(at as usize).unwrap();
        self.ready.lock().remove(&id);
        let waker = Waker::from(Arc::new(Task { id, ready: self.ready.clone() }));
        if let Some(task) = self.tasks.get_mut(&id)
            && task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        {
            self.tasks.remove(&id);
        }
        true
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.ready.lock().is_empty() && self.work.lock().is_empty()
    }

    /// Runs all that can run.
    pub(crate) fn run(&mut self, random: &mut Random) {
        let mut left = 10_000;
        while self.step(random) {
            left -= 1;
            assert!(left > 0, "the tasks never rest");
        }
    }
}
