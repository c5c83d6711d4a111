//! No wake-up is lost, whatever the order in which threads run: a connection's mailbox, and the lock of a subscription, in all
//! interleavings with few preemptions, by a model checker. Each model must find its seeded bug.
//!
//! The modules are those of the crate, compiled with the checker's locks and atomics (`sync`), which work only within a
//! model. So this is a program of its own, without the harness that runs the modules' unit tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue has failed")]

#[path = "../../../test-support/interleavings.rs"]
mod interleavings;

#[allow(dead_code, unreachable_pub, reason = "a module of the crate, of which the model uses a part")]
#[path = "../../src/subscription/flagged_lock.rs"]
mod flagged_lock;
#[allow(dead_code, unreachable_pub, reason = "a module of the crate, of which the model uses a part")]
#[path = "../../src/mailbox.rs"]
mod mailbox;

/// What stands for the crate's modules of these names.
mod closing {
    #[derive(Clone)]
    pub(crate) struct CloseReason;
}

mod seeded_bugs {
    use std::cell::Cell;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Bug {
        LoseToken,
        SkipFence,
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
    pub(crate) use loom::sync::MutexGuard;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, fence};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(of: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(of))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::sync::atomic::AtomicU64;
use loom::thread;

use flagged_lock::FlaggedLock;
use interleavings::{Model, Task, check};
use mailbox::Mailbox;
use seeded_bugs::Bug;

/// Two threads post to a connection that takes its tokens meanwhile.
fn mailbox() {
    let mailbox = Mailbox::new();
    let (task, waker) = Task::new();
    let post = |tokens: &'static [u64]| {
        let mailbox = mailbox.clone();
        thread::spawn(move || tokens.iter().for_each(|token| mailbox.post(*token)))
    };
    let posting = [post(&[1, 3]), post(&[2])];
    let (mut seen, mut tokens) = (Vec::new(), Vec::new());
    let mut poll = || {
        task.poll(&waker, |cx| {
            while mailbox.poll(cx).is_ready() {
                mailbox.drain(&mut tokens);
                seen.extend_from_slice(&tokens);
            }
        });
    };
    poll();
    while task.is_woken() {
        poll();
    }
    posting.into_iter().for_each(|posting| posting.join().unwrap());
    while task.is_woken() {
        poll();
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3], "a token is lost");
}

/// The log's writer advances a stream while a consumer finds nothing and begins to wait.
fn lock() {
    struct Slots {
        waits: bool,
        woken: bool,
    }
    let locked = Arc::new(FlaggedLock::new(Slots { waits: false, woken: false }));
    let high = Arc::new(AtomicU64::new(0));
    fn handle_advances(locked: &FlaggedLock<Slots>) {
        while let Some(mut slots) = locked.flagged() {
            if locked.take_flag() {
                slots.woken |= slots.waits;
            }
        }
    }
    let writer = thread::spawn({
        let (locked, high) = (locked.clone(), high.clone());
        move || {
            high.store(1, Ordering::Release);
            locked.flag();
            handle_advances(&locked);
        }
    });
    let mut found = false;
    {
        let mut slots = locked.lock();
        found |= high.load(Ordering::Acquire) > 0;
        slots.waits = !found;
    }
    handle_advances(&locked);
    writer.join().unwrap();
    assert!(found || locked.lock().woken, "the consumer waits for ever");
}

fn main() {
    let models: [Model<Bug>; 2] =
        [("a mailbox", mailbox, &[Bug::LoseToken]), ("a subscription's lock", lock, &[Bug::SkipFence])];
    check(&models, seeded_bugs::seed);
}
