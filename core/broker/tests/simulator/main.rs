//! The simulator: the whole model over a log on a medium that loses and tears, on a clock and an executor that a seed
//! drives. Publishers, consumers, sessions and transactions act in any order; the process is killed or loses power at any
//! step, or in the middle of a write. Everything that is delivered is checked against a plain model.
//!
//! A seed determines everything. `INVER_SIMULATOR_SEEDS=from..to` selects other seeds than the default; a failing seed is
//! reported by the panic, and `INVER_SIMULATOR_TRACE=1` prints what it does. Bugs seeded on purpose prove that the simulator
//! can fail: it must find each of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

mod consumers;
mod executor;
mod model;
mod places;
mod publishing;
mod records;
mod sessions;
#[path = "../../../test-support/simulator.rs"]
mod support;
mod wills;
mod world;

use std::any::Any;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use inver_broker::seeded_bugs::{self, Bug};
use parking_lot::Mutex;
use support::{in_parallel, seeds};
use world::World;

const DEFAULT_SEEDS: u64 = 1000;

/// Number of seeds within which a seeded bug must be found.
const SEEDS_PER_BUG_MAX: u64 = 1000;

/// Runs a seed. After a failure nothing of the run is dropped: that could fail again.
fn run(seed: u64) -> Result<u64, Box<dyn Any + Send>> {
    let mut world = ManuallyDrop::new(World::new(seed));
    let digest = catch_unwind(AssertUnwindSafe(|| world.run()))?;
    drop(ManuallyDrop::into_inner(world));
    Ok(digest)
}

#[test]
fn the_model_keeps_its_promises_through_crashes() {
    let failed = Mutex::new(Vec::new());
    in_parallel(seeds(DEFAULT_SEEDS), |seed| {
        let is_good = run(seed).is_ok();
        if !is_good {
            failed.lock().push(seed);
        }
        is_good
    });
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "failing seeds: {failed:?}");
}

#[test]
fn a_seed_determines_a_run() {
    in_parallel(0..8, |seed| {
        let digests = [0, 1].map(|_| World::new(seed).run());
        assert_eq!(digests[0], digests[1], "seed {seed}");
        true
    });
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

#[test]
fn every_seeded_bug_is_found() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !IS_QUIET.get() {
            loud(info);
        }
    }));
    let missed = Mutex::new(Vec::new());
    in_parallel(0..Bug::ALL.len() as u64, |number| {
        let bug = Bug::ALL[number as usize];
        let began = Instant::now();
        IS_QUIET.set(true);
        seeded_bugs::seed(Some(bug));
        let mut sign = None;
        let found = (0..SEEDS_PER_BUG_MAX).find(|seed| {
            sign = run(*seed).err().and_then(|panic| panic.downcast::<String>().ok());
            sign.is_some()
        });
        seeded_bugs::seed(None);
        IS_QUIET.set(false);
        println!("{bug:?}: seed {found:?}, after {} ms: {sign:?}", began.elapsed().as_millis());
        if found.is_none() {
            missed.lock().push(bug);
        }
        true
    });
    let missed = missed.into_inner();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
