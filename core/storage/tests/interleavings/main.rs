//! Who waits for the log is woken, whatever the order in which threads run: watermarks and relay in all interleavings, with
//! few preemptions, by a model checker. Each model must find its seeded bugs.
//!
//! The modules are those of the crate, compiled with the checker's locks and atomics (`sync`), which work only within a
//! model. So this is a program of its own, without the harness that runs the modules' unit tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue has failed")]

#[path = "../../../test-support/interleavings.rs"]
mod interleavings;
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

use interleavings::{Model, Task, check};
use seeded_bugs::Bug;

fn main() {
    let models: [Model<Bug>; 6] = [
        ("a task that waits for a commit", watermarks_model::commit, &[Bug::CheckOnce]),
        ("a task that waits for further commits", watermarks_model::further_commit, &[Bug::CheckOnce]),
        ("tasks that wait when the log ends", watermarks_model::end, &[]),
        ("a task that waits for room", watermarks_model::room, &[]),
        ("carried tasks", relay_model::carried, &[Bug::KeepCalled]),
        ("carried tasks when the relay ends", relay_model::end, &[Bug::QueueAfterEnd]),
    ];
    check(&models, seeded_bugs::seed);
}
