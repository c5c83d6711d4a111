//! Relayed wake-ups: one cross-thread wake-up per runtime instead of one per task.
//!
//! Waking a task of a single-threaded runtime from another thread costs a system call, and a commit of the log wakes
//! every connection that took part in it. A task carried by a [`Relay`] is only queued when another thread wakes it; the
//! relay's own task, which runs in the same runtime, is woken once and then wakes the queued tasks on their thread. The
//! log's writer collects the wake-ups of a commit and queues them together.
//!
//! A relay is optional: other wakers are woken directly. It knows no runtime: it is a future that the runtime polls.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};

use pin_project_lite::pin_project;

use crate::seeded_bugs::{Bug, is_seeded};
use crate::sync::{AtomicBool, Mutex, thread_local};

/// Queue of wake-ups for the tasks of one single-threaded runtime.
#[derive(Debug, Default)]
pub struct Relay {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    due: Vec<Arc<Task>>,
    runner: Option<Waker>,
    /// The runner was woken and was not polled since.
    is_called: bool,
    is_over: bool,
}

/// A carried task, as its wakers share it.
#[derive(Debug)]
struct Task {
    relay: Arc<Relay>,
    waker: Waker,
    is_due: AtomicBool,
}

pin_project! {
    /// Future of [`Relay::carry`]. Contains the carried future, so that a task is one allocation.
    #[derive(Debug)]
    #[project = CarriedProjection]
    pub struct Carried<F> {
        relay: Arc<Relay>,
        // The task's own waker, and the relayed one.
        wakers: Option<(Waker, Waker)>,
        #[pin]
        future: F,
    }
}

thread_local! {
    /// Address of the relay that this thread runs.
    static HOME: Cell<usize> = const { Cell::new(0) };
    /// Tasks woken while this thread collects wake-ups.
    static COLLECTED: RefCell<Option<Vec<Arc<Task>>>> = const { RefCell::new(None) };
}

impl Relay {
    /// Creates a relay. Spawn [`Relay::run`] to start it.
    #[must_use]
    pub fn new() -> Arc<Relay> {
        Arc::new(Relay::default())
    }

    /// The relay's own task. Spawn it in the runtime of the carried tasks; it never ends.
    pub async fn run(self: Arc<Self>) {
        let _over = Over(self.clone());
        let mut due = Vec::new();
        poll_fn(|cx| {
            HOME.with(|home| home.set(Arc::as_ptr(&self).addr()));
            {
                let mut state = self.state.lock();
                std::mem::swap(&mut state.due, &mut due);
                state.is_called &= is_seeded(Bug::KeepCalled);
                match &mut state.runner {
                    Some(runner) if runner.will_wake(cx.waker()) => {}
                    runner => *runner = Some(cx.waker().clone()),
                }
            }
            due.drain(..).for_each(|task| task.wake_directly());
            Poll::<()>::Pending
        })
        .await;
    }

    /// Wraps a future so that its wake-ups are relayed.
    pub fn carry<F: Future>(self: &Arc<Self>, future: F) -> Carried<F> {
        Carried { relay: self.clone(), wakers: None, future }
    }

    /// Queues the task. Returns the waker to wake for it, if any.
    fn queue(&self, task: &Arc<Task>) -> Option<Waker> {
        let mut state = self.state.lock();
        if state.is_over && !is_seeded(Bug::QueueAfterEnd) {
            task.is_due.swap(false, Ordering::AcqRel);
            return Some(task.waker.clone());
        }
        state.due.push(task.clone());
        if std::mem::replace(&mut state.is_called, true) { None } else { state.runner.clone() }
    }
}

/// Guard of a running relay. After its drop, tasks are woken directly.
struct Over(Arc<Relay>);

impl Drop for Over {
    fn drop(&mut self) {
        let due = {
            let mut state = self.0.state.lock();
            state.is_over = true;
            state.runner = None;
            std::mem::take(&mut state.due)
        };
        due.iter().for_each(|task| task.wake_directly());
    }
}

impl Task {
    /// Clears the flag before the wake-up, so that a later wake-up queues the task again.
    fn wake_directly(&self) {
        self.is_due.swap(false, Ordering::AcqRel);
        self.waker.wake_by_ref();
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if HOME.with(Cell::get) == Arc::as_ptr(&self.relay).addr() {
            return self.waker.wake_by_ref();
        }
        if self.is_due.swap(true, Ordering::AcqRel) {
            return;
        }
        let is_collected = COLLECTED.with(|collected| match &mut *collected.borrow_mut() {
            Some(collected) => {
                collected.push(self.clone());
                true
            }
            None => false,
        });
        if !is_collected && let Some(waker) = self.relay.queue(self) {
            waker.wake();
        }
    }
}

impl<F: Future> Future for Carried<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let CarriedProjection { relay, wakers, future } = self.project();
        if wakers.as_ref().is_none_or(|(own, _)| !own.will_wake(cx.waker())) {
            let own = cx.waker().clone();
            let task = Task { relay: relay.clone(), waker: own.clone(), is_due: AtomicBool::new(false) };
            *wakers = Some((own, Waker::from(Arc::new(task))));
        }
        match wakers {
            Some((_, waker)) => future.poll(&mut Context::from_waker(waker)),
            None => future.poll(cx),
        }
    }
}

/// Collects wake-ups of carried tasks by this thread until it is dropped. Not nested.
pub(crate) struct CollectWakeUps(());

impl CollectWakeUps {
    pub(crate) fn new() -> Self {
        COLLECTED.with(|collected| collected.replace(Some(Vec::new())));
        Self(())
    }
}

impl Drop for CollectWakeUps {
    fn drop(&mut self) {
        let collected = COLLECTED.with(RefCell::take).unwrap_or_default();
        // Queue all before waking the first: the woken thread may preempt this one.
        let woken: Vec<Waker> = collected.iter().filter_map(|task| task.relay.queue(task)).collect();
        woken.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// A relay whose runner and carried tasks count how often they are woken.
    struct Harness {
        runner: Arc<Count>,
        run: Pin<Box<dyn Future<Output = ()>>>,
        tasks: Vec<(Arc<Count>, Waker)>,
    }

    impl Harness {
        fn new(count: usize) -> Self {
            let relay = Relay::new();
            let tasks = (0..count)
                .map(|_| {
                    let task = Arc::new(Count::default());
                    let mut waker = None;
                    let mut carried = relay.carry(poll_fn(|cx| {
                        waker = Some(cx.waker().clone());
                        Poll::<()>::Pending
                    }));
                    let own = Waker::from(task.clone());
                    assert!(Pin::new(&mut carried).poll(&mut Context::from_waker(&own)).is_pending());
                    drop(carried);
                    (task, waker.unwrap())
                })
                .collect();
            let mut harness = Harness { runner: Arc::default(), run: Box::pin(relay.run()), tasks };
            harness.run();
            HOME.with(|home| home.set(0));
            harness
        }

        fn run(&mut self) {
            let waker = Waker::from(self.runner.clone());
            assert!(self.run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }

        fn counts(&self) -> Vec<usize> {
            self.tasks.iter().map(|(task, _)| task.get()).collect()
        }
    }

    #[test]
    fn many_tasks_cost_one_cross_thread_wake_up() {
        let mut harness = Harness::new(3);
        harness.tasks.iter().for_each(|(_, waker)| waker.wake_by_ref());
        harness.tasks[1].1.wake_by_ref();
        assert_eq!((harness.runner.get(), harness.counts()), (1, vec![0, 0, 0]));
        harness.run();
        assert_eq!((harness.runner.get(), harness.counts()), (1, vec![1, 1, 1]));
        HOME.with(|home| home.set(0));
        harness.tasks[2].1.wake_by_ref();
        harness.run();
        assert_eq!((harness.runner.get(), harness.counts()), (2, vec![1, 1, 2]));
    }

    #[test]
    fn on_their_own_thread_tasks_are_woken_directly() {
        let mut harness = Harness::new(2);
        harness.run();
        harness.tasks[0].1.wake_by_ref();
        assert_eq!((harness.runner.get(), harness.counts()), (0, vec![1, 0]));
    }

    #[test]
    fn collected_wake_ups_are_queued_together() {
        let mut harness = Harness::new(2);
        let collecting = CollectWakeUps::new();
        harness.tasks.iter().for_each(|(_, waker)| waker.wake_by_ref());
        assert_eq!(harness.runner.get(), 0);
        drop(collecting);
        assert_eq!(harness.runner.get(), 1);
        harness.run();
        assert_eq!(harness.counts(), [1, 1]);
    }

    #[test]
    fn after_the_relay_ends_tasks_are_woken_directly() {
        let Harness { run, tasks, .. } = Harness::new(2);
        tasks[0].1.wake_by_ref();
        drop(run);
        assert_eq!(tasks[0].0.get(), 1);
        for times in 1..3 {
            tasks.iter().for_each(|(_, waker)| waker.wake_by_ref());
            assert_eq!((tasks[0].0.get(), tasks[1].0.get()), (1 + times, times));
        }
    }
}
