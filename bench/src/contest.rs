//! Whoever takes part is up and warm: a field's contestants are started and warmed up here, whatever they are then
//! asked.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::contestant::Contestant;
use crate::places::Places;
use crate::results::Results;
use crate::works::{Field, Lengths, Work};

/// How long a virtual machine that was just started is given to compile what is hot.
const COMPILE_TIME: Duration = Duration::from_secs(20);
/// Before each work it runs warm until two runs in succession have cost no less than the best before them by this share …
const STILL_GAINS: f64 = 0.05;
/// … but no longer than this.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(40);

/// How a run is wanted.
pub(crate) struct Settings {
    pub(crate) rounds: usize,
    pub(crate) lengths: Lengths,
    /// Only these, if there are any.
    pub(crate) only: Vec<Contestant>,
    /// Beside the rounds also profiles and the peers' own tools, on the same brokers, which are warm by then.
    pub(crate) with_all: bool,
}

impl Settings {
    pub(crate) fn takes(&self, contestant: Contestant) -> bool {
        self.only.is_empty() || self.only.contains(&contestant)
    }
}

/// Starts the contestants of a field; who does not start is told of and left out.
pub(crate) fn start(
    field: Field,
    settings: &Settings,
    places: &Places,
    results: &mut Results,
) -> Vec<Broker> {
    let mut brokers = Vec::new();
    for contestant in field.contestants().iter().copied().filter(|contestant| settings.takes(*contestant)) {
        eprint!("starting {contestant} … ");
        match Broker::start(contestant, places) {
            Ok(broker) => {
                eprintln!("{} in {:.2} s", broker.version, broker.started_in.as_secs_f64());
                brokers.push(broker);
            }
            Err(error) => results.trouble(format!("{contestant} did not start: {error:#}")),
        }
    }
    brokers
}

/// Plays one of the works to those that compile what is hot while they run, until they have.
pub(crate) fn warm_up(works: &[&Work], brokers: &mut [Broker], lengths: Lengths) {
    let Some(work) = works.iter().find(|work| !work.kind.wants_fresh() && !work.kind.is_long()) else {
        return;
    };
    for broker in brokers.iter_mut().filter(|broker| broker.contestant.is_compiled_while_it_runs()) {
        eprintln!("warming {} up", broker.contestant);
        let window = COMPILE_TIME.saturating_sub(lengths.warmup);
        let _ = work.run(broker, Lengths { window, ..lengths });
    }
}

/// Warms a peer up for a work: a virtual machine, or a page cache, that is cold says nothing.
pub(crate) fn settle(work: &Work, broker: &mut Broker, lengths: Lengths) {
    if broker.contestant.is_inver() || work.kind.is_long() {
        return;
    }
    let began = Instant::now();
    // All of it is warm-up.
    let lengths = Lengths { warmup: Duration::ZERO, ..lengths };
    let (mut best, mut without_gain) = (f64::INFINITY, 0);
    loop {
        let Ok(figures) = work.run(broker, lengths) else { return };
        let cost = figures.get("cpu_s_per_million").copied().unwrap_or(0.0);
        without_gain = if cost < best * (1.0 - STILL_GAINS) { 0 } else { without_gain + 1 };
        best = best.min(cost);
        let is_settled = !broker.contestant.is_compiled_while_it_runs() || without_gain == 2;
        if is_settled || began.elapsed() > SETTLE_TIME_MAX {
            return;
        }
    }
}
