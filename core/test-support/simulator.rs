//! The seeds that a simulator runs, on all processors.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The seeds in `INVER_SIMULATOR_SEEDS` (`from..to`), or else so many from 0 on.
pub(crate) fn seeds(default: u64) -> Range<u64> {
    match std::env::var("INVER_SIMULATOR_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").unwrap();
            from.parse().unwrap()..to.parse().unwrap()
        }
        Err(_) => 0..default,
    }
}

/// Runs `work` for the numbers of a range on all processors, until one call returns false.
pub(crate) fn in_parallel(range: Range<u64>, work: impl Fn(u64) -> bool + Sync) {
    let next = AtomicU64::new(range.start);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && number < range.end
                {
                    if !work(number) {
                        next.store(range.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}
