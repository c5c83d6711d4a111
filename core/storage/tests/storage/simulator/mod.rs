//! The simulator: the production code over a faulty medium, driven by seeds, compared with a plain model.
//!
//! A seed determines everything: operations, faults, crash points, surviving writes. `INVER_SIMULATOR_SEEDS=from..to`
//! selects other seeds than the default; a failing seed is reported by the panic. Bugs seeded on purpose prove that the
//! simulator can fail: it must find each of them.

mod compare;
mod model;
mod operations;
mod rot;
mod simulation;
#[path = "../../../../test-support/simulator.rs"]
mod support;

use std::cell::Cell;
use std::panic::catch_unwind;
use std::time::Instant;

use inver_storage::seeded_bugs::{self, Bug};
use parking_lot::Mutex;
pub(crate) use simulation::SimulatedClock;
use simulation::Simulation;
use support::{in_parallel, seeds};

const DEFAULT_SEEDS: u64 = 2000;
/// Number of seeds within which a seeded bug must be found.
const SEEDS_PER_BUG_MAX: u64 = 2000;

#[test]
fn the_log_keeps_its_guarantees_on_a_faulty_medium() {
    let failed = Mutex::new(Vec::new());
    in_parallel(seeds(DEFAULT_SEEDS), |seed| {
        let is_good = catch_unwind(|| Simulation::new(seed).run()).is_ok();
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
    in_parallel(0..12, |seed| {
        let traces: Vec<(u64, u64)> = (0..2)
            .map(|_| {
                let mut simulation = Simulation::new(seed);
                simulation.run();
                (simulation.medium.trace(), simulation.medium.operations())
            })
            .collect();
        assert_eq!(traces[0], traces[1], "seed {seed}");
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
        let found =
            (0..SEEDS_PER_BUG_MAX).find(|seed| catch_unwind(|| Simulation::new(*seed).run()).is_err());
        seeded_bugs::seed(None);
        IS_QUIET.set(false);
        println!("{bug:?}: found with seed {found:?}, after {} ms", began.elapsed().as_millis());
        if found.is_none() {
            missed.lock().push(bug);
        }
        true
    });
    let missed = missed.into_inner();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
