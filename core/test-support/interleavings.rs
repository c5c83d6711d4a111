//! Models that run in all interleavings of their threads, with at most [`PREEMPTIONS_MAX`] preemptions, and the bugs that each must
//! find.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Wake, Waker};

use loom::model::Builder;
use loom::sync::atomic::AtomicBool;

/// Times that a thread which could go on is interrupted, in one run of a model.
const PREEMPTIONS_MAX: usize = 3;

/// A task as its executor knows it: whether it was woken since it was polled last.
pub(crate) struct Task {
    is_woken: AtomicBool,
}

impl Task {
    pub(crate) fn new() -> (Arc<Task>, Waker) {
        let task = Arc::new(Task { is_woken: AtomicBool::new(false) });
        (task.clone(), Waker::from(task))
    }

    /// Polls as an executor does: what wakes it from now on has it polled again.
    pub(crate) fn poll<T>(&self, waker: &Waker, poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
        self.is_woken.store(false, Ordering::SeqCst);
        poll(&mut Context::from_waker(waker))
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::SeqCst)
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
    }
}

/// A model with its name, and the bugs that it must find.
pub(crate) type Model<B> = (&'static str, fn(), &'static [B]);

/// Each model holds, and finds each of its bugs.
pub(crate) fn check<B: Copy + Debug + Send + 'static>(models: &[Model<B>], seed: fn(B)) {
    for (name, model, bugs) in models {
        assert!(holds(*model, None, seed), "{name}: the model fails");
        println!("{name}: holds");
        for bug in *bugs {
            assert!(!holds(*model, Some(*bug), seed), "{name}: {bug:?} was not found");
            println!("{name}: {bug:?} was found");
        }
    }
}

/// Runs a model in all interleavings. A bug is seeded for it, or none. Whether the model holds.
fn holds<B: Send + 'static>(model: fn(), bug: Option<B>, seed: fn(B)) -> bool {
    let run = move || {
        bug.into_iter().for_each(seed);
        let mut builder = Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS_MAX);
        builder.check(model);
    };
    // A thread of its own: the checker's state after a failure is not used again.
    std::thread::spawn(run).join().is_ok()
}
