//! The gate that publishers pass: shut while the disk or the memory is short, so that consumers, acknowledgements and
//! removals have what is left, and thereby make room.
//!
//! The log itself refuses no entry because of it. A layer that takes messages from a client reads the gate before.

use std::fmt;
use std::sync::Weak;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Space on the log's disk.
    Disk,
    /// Memory of the process.
    Memory,
}

impl Shortage {
    const fn bit(self) -> u8 {
        match self {
            Self::Disk => 1,
            Self::Memory => 2,
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "low on disk",
            Self::Memory => "low on memory",
        })
    }
}

/// Told when the gate opens.
pub trait GateListener: Send + Sync {
    /// Publishers may go on. Must not block.
    fn opened(&self);
}

/// The gate of a log.
#[derive(Default)]
pub struct Gate {
    /// A bit for each shortage.
    short: AtomicU8,
    listeners: Mutex<Vec<Weak<dyn GateListener>>>,
}

impl Gate {
    /// Why publishers must wait; none while the gate is open.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        let short = self.short.load(Ordering::Relaxed);
        if short == 0 {
            return None;
        }
        Some(if short & Shortage::Disk.bit() != 0 { Shortage::Disk } else { Shortage::Memory })
    }

    /// Whether this is short.
    #[must_use]
    pub fn is_short(&self, of: Shortage) -> bool {
        self.short.load(Ordering::Relaxed) & of.bit() != 0
    }

    /// Sets whether something is short. True if that changed.
    pub fn set(&self, of: Shortage, is_short: bool) -> bool {
        if self.is_short(of) == is_short {
            return false;
        }
        // Under the lock, so that a listener that is added sees the state or is told.
        let mut listeners = self.listeners.lock();
        let before = match is_short {
            true => self.short.fetch_or(of.bit(), Ordering::AcqRel),
            false => self.short.fetch_and(!of.bit(), Ordering::AcqRel),
        };
        let changed = (before & of.bit() != 0) != is_short;
        if changed && before & !of.bit() == 0 && !is_short {
            listeners.retain(|listener| {
                listener.upgrade().is_some_and(|listener| {
                    listener.opened();
                    true
                })
            });
        }
        changed
    }

    /// Has a listener told whenever the gate opens, for as long as it is there.
    pub fn on_open(&self, listener: Weak<dyn GateListener>) {
        self.listeners.lock().push(listener);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.shortage()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl GateListener for Count {
        fn opened(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_opens_when_nothing_is_short_any_more() {
        let gate = Gate::default();
        let count = Arc::new(Count::default());
        let listener: Weak<Count> = Arc::downgrade(&count);
        gate.on_open(listener);
        assert_eq!(gate.shortage(), None);
        assert!(gate.set(Shortage::Memory, true) && gate.set(Shortage::Disk, true));
        assert!(!gate.set(Shortage::Disk, true), "already set");
        assert_eq!(gate.shortage(), Some(Shortage::Disk));
        assert!(gate.set(Shortage::Disk, false));
        assert_eq!((gate.shortage(), count.0.load(Ordering::Relaxed)), (Some(Shortage::Memory), 0));
        assert!(gate.set(Shortage::Memory, false));
        assert_eq!((gate.shortage(), count.0.load(Ordering::Relaxed)), (None, 1));
    }

    #[test]
    fn listeners_that_are_gone_are_forgotten() {
        let gate = Gate::default();
        for _ in 0..3 {
            let count = Arc::new(Count::default());
            let listener: Weak<Count> = Arc::downgrade(&count);
            gate.on_open(listener);
        }
        gate.set(Shortage::Disk, true);
        gate.set(Shortage::Disk, false);
        assert!(gate.listeners.lock().is_empty());
    }
}
