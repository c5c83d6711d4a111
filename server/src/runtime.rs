//! Threads: one single-threaded runtime a core, each connection pinned to one of them.
//!
//! Connections are accepted in one place and handed to the worker that serves the fewest. A connection never
//! moves; what wakes it from another thread, mostly the log's writer, goes by the worker's relay, which costs one system
//! call for all connections that are woken together. The alternative, one work-stealing runtime, is kept behind
//! `runtime.kind` so that the two can be compared.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use inver_storage::Relay;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::config::RuntimeKind;

/// Threads for blocking work (reads of cold files) that one runtime may have.
const BLOCKING_THREADS_MAX: usize = 8;

/// The runtimes, owned by the thread that started them.
pub(crate) struct Runtimes {
    first: Runtime,
    others: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
    workers: Workers,
}

/// Where connections can be put. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Workers(Arc<Vec<Worker>>);

struct Worker {
    handle: Handle,
    /// Of a worker that is one thread.
    relay: Option<Arc<Relay>>,
    connections: AtomicUsize,
}

/// A connection's place on a worker; given back when dropped.
pub(crate) struct Seat {
    workers: Workers,
    at: usize,
}

impl Runtimes {
    /// Starts them. `threads` 0 is one a core.
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

    /// Where connections can be put.
    pub(crate) fn workers(&self) -> Workers {
        self.workers.clone()
    }

    /// Runs `future` on the calling thread, which serves connections meanwhile, and then ends all runtimes.
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
        Workers(Arc::new(members.into_iter().collect()))
    }

    /// A seat on the worker that serves the fewest connections.
    pub(crate) fn seat(&self) -> Seat {
        let load = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        let least = self.0.iter().enumerate().min_by_key(|(_, worker)| load(worker));
        let at = least.map_or(0, |(at, _)| at);
        if let Some(worker) = self.0.get(at) {
            worker.connections.fetch_add(1, Ordering::Relaxed);
        }
        Seat { workers: self.clone(), at }
    }

    /// Connections that are being served.
    pub(crate) fn connections(&self) -> usize {
        self.0.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).sum()
    }
}

impl Seat {
    /// Runs what `make` makes of the seat on the seat's worker. The future keeps the seat, which is given back when it
    /// is dropped, even by a panic. Nothing is wrapped around it: a connection's future is held once, not twice.
    pub(crate) fn run<F>(self, make: impl FnOnce(Seat) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(worker) = self.workers.0.get(self.at) else { return };
        let (handle, relay) = (worker.handle.clone(), worker.relay.clone());
        let seated = make(self);
        match relay {
            Some(relay) => handle.spawn(relay.carry(seated)),
            None => handle.spawn(seated),
        };
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(worker) = self.workers.0.get(self.at) {
            worker.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_evenly_and_given_back() {
        let runtimes = Runtimes::start(RuntimeKind::PerCore, 3).unwrap();
        let workers = runtimes.workers();
        let mut seats: Vec<_> = (0..7).map(|_| workers.seat()).collect();
        let mut count = [0; 3];
        seats.iter().for_each(|seat| count[seat.at] += 1);
        count.sort_unstable();
        assert_eq!(count, [2, 2, 3]);
        let (done, wait) = oneshot::channel();
        seats.pop().unwrap().run(|seat| async move {
            let _seat = seat;
            let _ = done.send(std::thread::current().id());
        });
        runtimes.run(async {
            wait.await.unwrap();
            drop(seats);
        });
        assert_eq!(workers.connections(), 0);
    }
}
