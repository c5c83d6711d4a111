//! Worker threads: one single-threaded runtime per core, each connection pinned to one of them.
//!
//! Owns the runtimes and the assignment of connections: a connection is assigned to the worker that serves the fewest
//! and never moves. Wakers from other threads, mostly the log's writer, are batched by the worker's relay, which costs
//! one system call for all connections woken together. One work-stealing runtime is kept behind `runtime.kind` for
//! comparison.
//!
//! It does not own accepting connections or what they do.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use inver_storage::Relay;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::RuntimeKind;

/// Threads of one runtime for blocking work, such as reads from disk.
const BLOCKING_THREADS_MAX: usize = 8;

/// The runtimes, owned by the thread that started them.
pub(crate) struct Runtimes {
    first: Runtime,
    others: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
    workers: Workers,
}

/// The workers, to which connections are assigned. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Workers(Arc<Pool>);

struct Pool {
    workers: Vec<Worker>,
    /// Every connection holds a token of it.
    connections: TaskTracker,
}

struct Worker {
    handle: Handle,
    /// Present where the worker is a single thread.
    relay: Option<Arc<Relay>>,
    connections: AtomicUsize,
}

/// The assignment of one connection to a worker; released when dropped.
pub(crate) struct WorkerSlot {
    workers: Workers,
    at: usize,
    _token: TaskTrackerToken,
}

impl Runtimes {
    /// Starts the runtimes. `threads` 0: one per core.
    pub(crate) fn start(kind: RuntimeKind, threads: usize) -> io::Result<Runtimes> {
        let threads = if threads == 0 { std::thread::available_parallelism()?.get() } else { threads };
        match kind {
            RuntimeKind::MultiThread => {
                let first = Builder::new_multi_thread()
                    .worker_threads(threads)
                    .max_blocking_threads(BLOCKING_THREADS_MAX * threads)
                    .thread_name("inver-worker")
                    .enable_all()
                    .build()?;
                let workers = Workers::of([Worker::new(first.handle().clone(), None)]);
                Ok(Runtimes { first, others: Vec::new(), workers })
            }
            RuntimeKind::PerCore => {
                let first = single()?;
                let mut members = vec![Worker::single(&first)];
                let mut others = Vec::new();
                for number in 1..threads {
                    let runtime = single()?;
                    members.push(Worker::single(&runtime));
                    let (stop, stopped) = oneshot::channel::<()>();
                    let thread = std::thread::Builder::new().name(format!("inver-worker-{number}")).spawn(
                        move || {
                            let _ = runtime.block_on(stopped);
                        },
                    )?;
                    others.push((stop, thread));
                }
                Ok(Runtimes { first, others, workers: Workers::of(members) })
            }
        }
    }

    /// The workers to which connections are assigned.
    pub(crate) fn workers(&self) -> Workers {
        self.workers.clone()
    }

    /// Runs `future` on the calling thread, which also serves connections, and then stops all runtimes.
    pub(crate) fn run<T>(self, future: impl Future<Output = T>) -> T {
        let result = self.first.block_on(future);
        for (stop, thread) in self.others {
            let _ = stop.send(());
            let _ = thread.join();
        }
        result
    }
}

fn single() -> io::Result<Runtime> {
    Builder::new_current_thread().max_blocking_threads(BLOCKING_THREADS_MAX).enable_all().build()
}

impl Worker {
    fn new(handle: Handle, relay: Option<Arc<Relay>>) -> Worker {
        Worker { handle, relay, connections: AtomicUsize::new(0) }
    }

    fn single(runtime: &Runtime) -> Worker {
        let relay = Relay::new();
        runtime.spawn(relay.clone().run());
        Worker::new(runtime.handle().clone(), Some(relay))
    }
}

impl Workers {
    fn of(members: impl IntoIterator<Item = Worker>) -> Workers {
        Workers(Arc::new(Pool { workers: members.into_iter().collect(), connections: TaskTracker::new() }))
    }

    /// Assigns a connection to the worker that serves the fewest.
    pub(crate) fn assign(&self) -> WorkerSlot {
        let load = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        let least = self.0.workers.iter().enumerate().min_by_key(|(_, worker)| load(worker));
        let at = least.map_or(0, |(at, _)| at);
        if let Some(worker) = self.0.workers.get(at) {
            worker.connections.fetch_add(1, Ordering::Relaxed);
        }
        WorkerSlot { workers: self.clone(), at, _token: self.0.connections.token() }
    }

    /// Number of assigned connections.
    pub(crate) fn connections(&self) -> usize {
        self.0.connections.len()
    }

    /// Waits until no connection is assigned. Must be called when no further ones are accepted.
    pub(crate) async fn all_closed(&self) {
        self.0.connections.close();
        self.0.connections.wait().await;
    }
}

impl WorkerSlot {
    /// Spawns the future that `make` returns on the slot's worker. The future owns the slot and so releases it when it is
    /// dropped, even by a panic. No wrapper holds the future a second time: its size counts for every connection.
    pub(crate) fn run<F>(self, make: impl FnOnce(WorkerSlot) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(worker) = self.workers.0.workers.get(self.at) else { return };
        let (handle, relay) = (worker.handle.clone(), worker.relay.clone());
        let connection = make(self);
        match relay {
            Some(relay) => handle.spawn(relay.carry(connection)),
            None => handle.spawn(connection),
        };
    }
}

impl Drop for WorkerSlot {
    fn drop(&mut self) {
        if let Some(worker) = self.workers.0.workers.get(self.at) {
            worker.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_evenly_and_released() {
        let runtimes = Runtimes::start(RuntimeKind::PerCore, 3).unwrap();
        let workers = runtimes.workers();
        let mut slots: Vec<_> = (0..7).map(|_| workers.assign()).collect();
        let mut count = [0; 3];
        slots.iter().for_each(|slot| count[slot.at] += 1);
        count.sort_unstable();
        assert_eq!(count, [2, 2, 3]);
        assert_eq!(workers.connections(), 7);
        let (done, wait) = oneshot::channel();
        slots.pop().unwrap().run(|slot| async move {
            let _slot = slot;
            let _ = done.send(());
        });
        runtimes.run(async {
            wait.await.unwrap();
            let all_closed = workers.all_closed();
            let mut all_closed = std::pin::pin!(all_closed);
            tokio::select! {
                biased;
                () = all_closed.as_mut() => panic!("six slots are still held"),
                () = std::future::ready(()) => {}
            }
            drop(slots);
            all_closed.await;
        });
        assert_eq!(workers.connections(), 0);
        let idle = |worker: &Worker| worker.connections.load(Ordering::Relaxed) == 0;
        assert!(workers.0.workers.iter().all(idle));
    }

    #[test]
    fn a_connection_that_panics_releases_its_slot() {
        let runtimes = Runtimes::start(RuntimeKind::PerCore, 2).unwrap();
        let workers = runtimes.workers();
        workers.assign().run(|slot| async move {
            let _slot = slot;
            panic!("on purpose");
        });
        runtimes.run(workers.all_closed());
        assert_eq!(workers.connections(), 0);
    }
}
