//! Tasks of one runtime that other threads wake through its relay.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::Task;
use super::relay::Relay;

/// The waker that a carried task hands out.
fn carried_waker(relay: &Arc<Relay>, own: &Waker) -> Waker {
    let mut waker = None;
    let mut carried = relay.carry(poll_fn(|cx| {
        waker = Some(cx.waker().clone());
        Poll::<()>::Pending
    }));
    assert!(Pin::new(&mut carried).poll(&mut Context::from_waker(own)).is_pending());
    drop(carried);
    waker.unwrap()
}

/// What a task was woken for before the relay was polled last, it learns.
pub(super) fn carried() {
    let relay = Relay::new();
    let (task, own) = Task::new();
    let waker = carried_waker(&relay, &own);
    let (runner, runner_waker) = Task::new();
    let mut run = Box::pin(relay.run());
    let mut run_once = || runner.poll(&runner_waker, |cx| assert!(run.as_mut().poll(cx).is_pending()));
    run_once();
    let news = Arc::new(AtomicU64::new(0));
    let other = thread::spawn({
        let news = news.clone();
        move || {
            for number in 1..=2 {
                news.store(number, Ordering::Release);
                waker.wake_by_ref();
            }
        }
    });
    let mut seen = 0;
    let mut turn = || {
        if runner.is_woken() {
            run_once();
        }
        if task.is_woken() {
            task.poll(&own, |_| seen = news.load(Ordering::Acquire));
        }
        seen
    };
    turn();
    other.join().unwrap();
    assert_eq!(turn(), 2, "the task is not told");
}

/// The relay ends while a task is woken.
pub(super) fn end() {
    let relay = Relay::new();
    let (task, own) = Task::new();
    let waker = carried_waker(&relay, &own);
    let (runner, runner_waker) = Task::new();
    let mut run = Box::pin(relay.run());
    runner.poll(&runner_waker, |cx| assert!(run.as_mut().poll(cx).is_pending()));
    let other = thread::spawn(move || waker.wake_by_ref());
    drop(run);
    other.join().unwrap();
    assert!(task.is_woken(), "the task is not told");
}
