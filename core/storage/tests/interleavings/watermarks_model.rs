//! Tasks that wait for a commit, for room, or for the log's end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::Task;
use super::error::LogError;
use super::watermarks::Watermarks;

/// The writer commits while a task begins to wait.
pub(super) fn commit() {
    let marks = Arc::new(Watermarks::default());
    let writer = thread::spawn({
        let marks = marks.clone();
        move || {
            marks.commit(1);
            marks.commit(2);
        }
    });
    let (task, waker) = Task::new();
    let polled = task.poll(&waker, |cx| marks.poll_committed(2, cx));
    writer.join().unwrap();
    assert!(polled.is_ready() || task.is_woken(), "the task waits for ever");
}

/// A task that sees the mark before the writer wakes it waits for the next position at once.
pub(super) fn further_commit() {
    let marks = Arc::new(Watermarks::default());
    let (task, waker) = Task::new();
    let first = task.poll(&waker, |cx| marks.poll_committed(1, cx));
    assert!(first.is_pending());
    let writer = thread::spawn({
        let marks = marks.clone();
        move || {
            marks.commit(1);
            marks.commit(2);
        }
    });
    let polled = task.poll(&waker, |cx| {
        if marks.poll_committed(1, cx).is_pending() { None } else { Some(marks.poll_committed(2, cx)) }
    });
    // Woken, it would be polled again.
    let again = task.is_woken().then(|| task.poll(&waker, |cx| marks.poll_committed(2, cx)));
    writer.join().unwrap();
    let is_ready = again.or(polled).is_some_and(|polled| polled.is_ready());
    assert!(is_ready || task.is_woken(), "the task waits for ever");
}

/// The log ends while tasks begin to wait.
pub(super) fn end() {
    let marks = Arc::new(Watermarks::default());
    let writer = thread::spawn({
        let marks = marks.clone();
        move || {
            marks.commit(1);
            marks.end(LogError);
        }
    });
    let (task, waker) = Task::new();
    let (other, other_waker) = Task::new();
    let polled = task.poll(&waker, |cx| marks.poll_committed(2, cx));
    let room = other.poll(&other_waker, |cx| marks.poll_room(|| false, cx));
    writer.join().unwrap();
    assert!(polled.is_ready() || task.is_woken(), "the task waits for ever");
    assert!(room.is_ready() || other.is_woken(), "the task that wants room waits for ever");
    assert!(marks.failure().is_some());
}

/// The writer makes room while a task begins to wait for it.
pub(super) fn room() {
    let marks = Arc::new(Watermarks::default());
    let queued = Arc::new(AtomicU64::new(2));
    let writer = thread::spawn({
        let (marks, queued) = (marks.clone(), queued.clone());
        move || {
            queued.store(1, Ordering::Release);
            marks.commit(1);
            queued.store(0, Ordering::Release);
            marks.commit(2);
        }
    });
    let (task, waker) = Task::new();
    let is_room = || queued.load(Ordering::Acquire) == 0;
    let polled = task.poll(&waker, |cx| marks.poll_room(is_room, cx));
    writer.join().unwrap();
    assert!(polled.is_ready() || task.is_woken(), "the task waits for ever");
}
