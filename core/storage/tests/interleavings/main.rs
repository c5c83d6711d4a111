//! Who waits for the log is woken, whatever the order in which threads run: watermarks and relay in all interleavings, with
//! at most [`PREEMPTIONS_MAX`] preemptions, by a model checker. Each model must find its seeded bugs.
//!
//! The modules are those of the crate, compiled with the checker's locks and atomics (`sync`), which work only within a
//! model. So this is a program of its own, without the harness that runs the modules' unit tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue has failed")]

mod relay_model;
mod watermarks_model;

#[allow(dead_code, unreachable_pub, reason = "a module of the crate, of which the models use a part")]
#[path = "../../src/relay.rs"]
mod relay;
#[allow(dead_code, unreachable_pub, reason = "a module of the crate, of which the models use a part")]
#[path = "../../src/watermarks.rs"]
mod watermarks;

/// What stands for the crate's modules of these names.
mod error {
    #[derive(Clone, Debug)]
    pub(crate) struct LogError;
}

mod seeded_bugs {
    use std::cell::Cell;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Bug {
        CheckOnce,
        KeepCalled,
        QueueAfterEnd,
    }

    thread_local! {
        // The threads of a model are run by one.
        static SEEDED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(crate) fn seed(bug: Bug) {
        SEEDED.set(Some(bug));
    }

    pub(crate) fn is_seeded(bug: Bug) -> bool {
        SEEDED.get() == Some(bug)
    }
}

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    /// The checker's own takes no constants.
    macro_rules! thread_locals {
        ($($(#[$attribute:meta])* static $name:ident: $of:ty = const { $first:expr };)*) => {
            loom::thread_local! { $($(#[$attribute])* static $name: $of = $first;)* }
        };
    }
    pub(crate) use thread_locals as thread_local;
}

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Wake, Waker};

use loom::model::Builder;
use loom::sync::atomic::AtomicBool;

use seeded_bugs::Bug;

/// Times that a thread which could go on is interrupted, in one run of a model.
const PREEMPTIONS_MAX: usize = 3;

/// A task as its executor knows it: whether it was woken since it was polled last.
struct Task {
    is_woken: AtomicBool,
}

impl Task {
    fn new() -> (Arc<Task>, Waker) {
        let task = Arc::new(Task { is_woken: AtomicBool::new(false) });
        (task.clone(), Waker::from(task))
    }

    /// Polls as an executor does: what wakes it from now on has it polled again.
    fn poll<T>(&self, waker: &Waker, poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
        self.is_woken.store(false, Ordering::SeqCst);
        poll(&mut Context::from_waker(waker))
    }

    fn is_woken(&self) -> bool {
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
type Model = (&'static str, fn(), &'static [Bug]);

/// Runs a model in all interleavings. A bug is seeded for it, or none. Whether the model holds.
fn holds(model: fn(), bug: Option<Bug>) -> bool {
    let run = move || {
        bug.into_iter().for_each(seeded_bugs::seed);
        let mut builder = Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS_MAX);
        builder.check(model);
    };
    // A thread of its own: the checker's state after a failure is not used again.
    std::thread::spawn(run).join().is_ok()
}

fn main() {
    let models: [Model; 6] = [
        ("a task that waits for a commit", watermarks_model::commit, &[Bug::CheckOnce]),
        ("a task that waits for further commits", watermarks_model::further_commit, &[Bug::CheckOnce]),
        ("tasks that wait when the log ends", watermarks_model::end, &[]),
        ("a task that waits for room", watermarks_model::room, &[]),
        ("carried tasks", relay_model::carried, &[Bug::KeepCalled]),
        ("carried tasks when the relay ends", relay_model::end, &[Bug::QueueAfterEnd]),
    ];
    for (name, model, bugs) in models {
        assert!(holds(model, None), "{name}: the model fails");
        println!("{name}: holds");
        for bug in bugs {
            assert!(!holds(model, Some(*bug)), "{name}: {bug:?} was not found");
            println!("{name}: {bug:?} was found");
        }
    }
}
