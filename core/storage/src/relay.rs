//! Wake-ups across threads: one a runtime instead of one a task.
//!
//! Waking a task of a runtime that belongs to one thread costs a system call when another thread does it. A commit of
//! the log wakes every connection that had a part in it. So a task that is carried by a [`Relay`] is, woken from
//! elsewhere, only noted there, and the relay's own task, which lives in the same runtime, is woken once; it wakes the
//! others without leaving the thread. What the log's writer wakes in a commit is noted at the end of it, together.
//!
//! Nothing depends on a relay: wakers that are not of one are woken as they are. A relay knows no runtime, it is a
//! future that the runtime is given.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use pin_project_lite::pin_project;

/// Wakes the tasks of one single-threaded runtime. See the module's text.
#[derive(Debug, Default)]
pub struct Relay {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    due: Vec<Arc<Task>>,
    runner: Option<Waker>,
    /// The runner was woken and did not look yet.
    is_called: bool,
    is_over: bool,
}

/// A carried task, as those who wake it have it.
#[derive(Debug)]
struct Task {
    relay: Arc<Relay>,
    waker: Waker,
    is_due: AtomicBool,
}

pin_project! {
    /// Future of [`Relay::carry`]. The carried one is held in place: a task is one allocation.
    #[derive(Debug)]
    #[project = CarriedProjection]
    pub struct Carried<F> {
        relay: Arc<Relay>,
        // The task's own waker, and the one that goes by the relay.
        wakers: Option<(Waker, Waker)>,
        #[pin]
        future: F,
    }
}

thread_local! {
    /// The relay that this thread runs. Only compared.
    static HOME: Cell<usize> = const { Cell::new(0) };
    /// Woken while the wake-ups of this thread are held.
    static HELD: RefCell<Option<Vec<Arc<Task>>>> = const { RefCell::new(None) };
}

impl Relay {
    /// A relay, to be run.
    #[must_use]
    pub fn new() -> Arc<Relay> {
        Arc::new(Relay::default())
    }

    /// The relay's own task. Spawn it in the runtime of the tasks to be carried; it never ends.
    pub async fn run(self: Arc<Self>) {
        let _over = Over(self.clone());
        let mut due = Vec::new();
        poll_fn(|cx| {
            HOME.set(Arc::as_ptr(&self).addr());
            {
                let mut state = self.state.lock();
                std::mem::swap(&mut state.due, &mut due);
                state.is_called = false;
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

    /// The future with its wake-ups going by this relay.
    pub fn carry<F: Future>(self: &Arc<Self>, future: F) -> Carried<F> {
        Carried { relay: self.clone(), wakers: None, future }
    }

    /// Notes the task. Who is to be woken for it.
    fn note(&self, task: &Arc<Task>) -> Option<Waker> {
        let mut state = self.state.lock();
        if state.is_over {
            task.is_due.swap(false, Ordering::AcqRel);
            return Some(task.waker.clone());
        }
        state.due.push(task.clone());
        if std::mem::replace(&mut state.is_called, true) { None } else { state.runner.clone() }
    }
}

/// After the relay's end tasks are woken directly.
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
    /// No longer due before it is woken: what comes from now on notes it again.
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
        if HOME.get() == Arc::as_ptr(&self.relay).addr() {
            return self.waker.wake_by_ref();
        }
        if self.is_due.swap(true, Ordering::AcqRel) {
            return;
        }
        let is_held = HELD.with_borrow_mut(|held| match held {
            Some(held) => {
                held.push(self.clone());
                true
            }
            None => false,
        });
        if !is_held && let Some(waker) = self.relay.note(self) {
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

/// Wake-ups of carried tasks by this thread, held until this is dropped. Not nested.
pub(crate) struct Hold(());

impl Hold {
    pub(crate) fn new() -> Self {
        HELD.set(Some(Vec::new()));
        Self(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let held = HELD.take().unwrap_or_default();
        // All are noted before the first is woken: the woken thread may well take this one's place.
        let woken: Vec<Waker> = held.iter().filter_map(|task| task.relay.note(task)).collect();
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
    struct Room {
        runner: Arc<Count>,
        run: Pin<Box<dyn Future<Output = ()>>>,
        tasks: Vec<(Arc<Count>, Waker)>,
    }

    impl Room {
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
            let mut room = Room { runner: Arc::default(), run: Box::pin(relay.run()), tasks };
            room.run();
            HOME.set(0);
            room
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
    fn many_tasks_are_woken_by_one() {
        let mut room = Room::new(3);
        room.tasks.iter().for_each(|(_, waker)| waker.wake_by_ref());
        room.tasks[1].1.wake_by_ref();
        assert_eq!((room.runner.get(), room.counts()), (1, vec![0, 0, 0]));
        room.run();
        assert_eq!((room.runner.get(), room.counts()), (1, vec![1, 1, 1]));
        HOME.set(0);
        room.tasks[2].1.wake_by_ref();
        room.run();
        assert_eq!((room.runner.get(), room.counts()), (2, vec![1, 1, 2]));
    }

    #[test]
    fn on_their_own_thread_tasks_are_woken_directly() {
        let mut room = Room::new(2);
        room.run();
        room.tasks[0].1.wake_by_ref();
        assert_eq!((room.runner.get(), room.counts()), (0, vec![1, 0]));
    }

    #[test]
    fn held_wake_ups_come_together_at_the_end() {
        let mut room = Room::new(2);
        let hold = Hold::new();
        room.tasks.iter().for_each(|(_, waker)| waker.wake_by_ref());
        assert_eq!(room.runner.get(), 0);
        drop(hold);
        assert_eq!(room.runner.get(), 1);
        room.run();
        assert_eq!(room.counts(), [1, 1]);
    }

    #[test]
    fn without_the_relay_tasks_are_woken_directly() {
        let Room { run, tasks, .. } = Room::new(2);
        tasks[0].1.wake_by_ref();
        drop(run);
        assert_eq!(tasks[0].0.get(), 1);
        for times in 1..3 {
            tasks.iter().for_each(|(_, waker)| waker.wake_by_ref());
            assert_eq!((tasks[0].0.get(), tasks[1].0.get()), (1 + times, times));
        }
    }
}
