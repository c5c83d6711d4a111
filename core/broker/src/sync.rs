//! The locks and atomics of what `tests/interleavings` runs in all interleavings: there they are those of a model checker.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, fence};

pub(crate) use parking_lot::{Mutex, MutexGuard};
