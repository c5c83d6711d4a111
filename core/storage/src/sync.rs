//! The lock, the atomics and the thread-locals of what `tests/interleavings` runs in all interleavings: there they are those of a
//! model checker.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
pub(crate) use std::thread_local;

pub(crate) use parking_lot::Mutex;
